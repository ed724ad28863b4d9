//! Counts requests, so that tests can verify bounds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;
use uuid::Uuid;

use crate::faults::Endpoint;

/// Number of requests that are remembered one by one.
const LOG_LENGTH: usize = 20_000;

/// One request as it arrived, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestRecord {
    /// The requested endpoint.
    pub endpoint: Endpoint,
    /// The method.
    pub method: String,
    /// The path as sent; of links that carry a signature only the endpoint's beginning.
    pub path: String,
    /// The query as sent, byte for byte; empty for links that carry a signature or a token.
    pub query: String,
    /// The account's id, if the key is valid.
    pub account: Option<Uuid>,
    /// The status answered; `None` while the answer is in progress or when the client left.
    pub status: Option<u16>,
}

/// Counters of requests.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RequestCounters {
    /// Requests by endpoint.
    pub by_endpoint: BTreeMap<Endpoint, u64>,
    /// API requests in flight right now, over all accounts.
    pub in_flight: usize,
    /// The most API requests in flight at once, over all accounts.
    pub max_in_flight: usize,
    /// The same for each account, by the account's id.
    pub max_in_flight_by_account: BTreeMap<Uuid, usize>,
    /// The newest requests, oldest first.
    pub log: Vec<RequestRecord>,
}

impl RequestCounters {
    /// Returns the number of requests to `endpoint`.
    pub fn count(&self, endpoint: Endpoint) -> u64 {
        self.by_endpoint.get(&endpoint).copied().unwrap_or(0)
    }

    /// Returns the queries sent to `endpoint`, oldest first.
    pub fn queries(&self, endpoint: Endpoint) -> Vec<&str> {
        self.log
            .iter()
            .filter(|record| record.endpoint == endpoint)
            .map(|record| record.query.as_str())
            .collect()
    }
}

#[derive(Debug, Default)]
struct Counts {
    by_endpoint: BTreeMap<Endpoint, u64>,
    in_flight: usize,
    max_in_flight: usize,
    in_flight_by_account: BTreeMap<Uuid, usize>,
    max_in_flight_by_account: BTreeMap<Uuid, usize>,
    log: VecDeque<RequestRecord>,
    /// Number of the log's first record.
    first: u64,
}

/// The counters.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    counts: Arc<Mutex<Counts>>,
    arrivals: Arc<watch::Sender<u64>>,
}

/// One request in progress; its end is counted when this is dropped.
pub(crate) struct InProgress {
    meter: Meter,
    number: u64,
    api: bool,
    account: Option<Uuid>,
    /// The account's API requests in flight when it arrived, this one included.
    pub(crate) in_flight: usize,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            counts: Arc::default(),
            arrivals: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Counts a request that has just arrived.
    pub(crate) fn begin(&self, record: RequestRecord) -> InProgress {
        let (api, account) = (record.endpoint.is_api(), record.account);
        let mut counts = self.lock();
        *counts.by_endpoint.entry(record.endpoint).or_default() += 1;
        if api {
            counts.in_flight += 1;
            counts.max_in_flight = counts.max_in_flight.max(counts.in_flight);
        }
        let mut in_flight = 0;
        if let (true, Some(account)) = (api, account) {
            let now = counts.in_flight_by_account.entry(account).or_default();
            *now += 1;
            in_flight = *now;
            let most = counts.max_in_flight_by_account.entry(account).or_default();
            *most = in_flight.max(*most);
        }
        if counts.log.len() == LOG_LENGTH {
            counts.log.pop_front();
            counts.first += 1;
        }
        counts.log.push_back(record);
        let number = counts.first + counts.log.len() as u64 - 1;
        drop(counts);
        self.arrivals.send_modify(|arrived| *arrived += 1);
        InProgress {
            meter: self.clone(),
            number,
            api,
            account,
            in_flight,
        }
    }

    pub(crate) fn counters(&self) -> RequestCounters {
        let counts = self.lock();
        RequestCounters {
            by_endpoint: counts.by_endpoint.clone(),
            in_flight: counts.in_flight,
            max_in_flight: counts.max_in_flight,
            max_in_flight_by_account: counts.max_in_flight_by_account.clone(),
            log: counts.log.iter().cloned().collect(),
        }
    }

    /// Resets the counters; requests in progress stay counted as such.
    pub(crate) fn reset(&self) {
        let mut counts = self.lock();
        counts.by_endpoint.clear();
        counts.max_in_flight = counts.in_flight;
        counts.max_in_flight_by_account = counts.in_flight_by_account.clone();
        counts.first += counts.log.len() as u64;
        counts.log.clear();
    }

    /// Waits until `endpoint` was asked at least `count` times since the last reset.
    pub(crate) async fn reached(&self, endpoint: Endpoint, count: u64) {
        let mut arrivals = self.arrivals.subscribe();
        loop {
            let seen = self.lock().by_endpoint.get(&endpoint).copied().unwrap_or(0);
            // The sender lives in `self`, so `changed` fails never.
            if seen >= count || arrivals.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InProgress {
    /// Records the status of the answer.
    pub(crate) fn answered(&self, status: u16) {
        let mut counts = self.meter.lock();
        let index = self.number.checked_sub(counts.first);
        let index = index.and_then(|index| usize::try_from(index).ok());
        if let Some(record) = index.and_then(|index| counts.log.get_mut(index)) {
            record.status = Some(status);
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if !self.api {
            return;
        }
        let mut counts = self.meter.lock();
        counts.in_flight = counts.in_flight.saturating_sub(1);
        if let Some(account) = self.account
            && let Some(now) = counts.in_flight_by_account.get_mut(&account)
        {
            *now = now.saturating_sub(1);
        }
    }
}

/// Returns the query as sent, without the value of an API key in it.
pub(crate) fn redacted(query: &str) -> String {
    query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if name.eq_ignore_ascii_case("x-api-key") => "x-api-key=(redacted)",
            _ => pair,
        })
        .collect::<Vec<_>>()
        .join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_query_is_not_kept() {
        assert_eq!(
            redacted("from=a%20b&X-Api-Key=secret&x"),
            "from=a%20b&x-api-key=(redacted)&x"
        );
    }
}
