//! Wrong tokens and links, counted by address.
//!
//! An address that sends many is told to wait. A right token is always accepted, so nobody
//! can lock others out, not even from their own address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::listener::network_of;

/// Wrong attempts of one address within [`PERIOD`] that are answered with the reason.
const MAX_ATTEMPTS: u32 = 10;

/// The time for which attempts count.
const PERIOD: Duration = Duration::from_secs(60);

/// Most addresses that are counted; above it the oldest is forgotten.
const MAX_ADDRESSES: usize = 1024;

/// The wrong attempts of each address.
#[derive(Default)]
pub(super) struct Attempts(Mutex<BTreeMap<IpAddr, Recent>>);

struct Recent {
    since: Instant,
    wrong: u32,
}

impl Attempts {
    /// Counts a wrong attempt; returns the time to wait if there were too many.
    pub(super) fn wrong(&self, address: Option<IpAddr>) -> Option<Duration> {
        let address = network_of(address?);
        let now = Instant::now();
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|_, one| now - one.since < PERIOD);
        if recent.len() >= MAX_ADDRESSES && !recent.contains_key(&address) {
            let oldest = recent.iter().min_by_key(|(_, one)| one.since);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                recent.remove(&oldest);
            }
        }
        let one = recent.entry(address).or_insert(Recent {
            since: now,
            wrong: 0,
        });
        one.wrong = one.wrong.saturating_add(1);
        if one.wrong == MAX_ATTEMPTS + 1 {
            warn!("more than {MAX_ATTEMPTS} wrong tokens within a minute from one address");
        }
        let wait = PERIOD.saturating_sub(now - one.since);
        (one.wrong > MAX_ATTEMPTS).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        IpAddr::from([192, 0, high, low])
    }

    #[tokio::test(start_paused = true)]
    async fn many_wrong_attempts_of_an_address_have_to_wait() {
        let attempts = Attempts::default();
        for _ in 0..MAX_ATTEMPTS {
            assert_eq!(attempts.wrong(Some(address(1))), None);
        }
        assert_eq!(attempts.wrong(Some(address(1))), Some(PERIOD));
        assert_eq!(attempts.wrong(Some(address(2))), None);
        tokio::time::advance(PERIOD).await;
        assert_eq!(attempts.wrong(Some(address(1))), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_counted_addresses_is_bounded() {
        let attempts = Attempts::default();
        for number in 0..2 * u16::try_from(MAX_ADDRESSES).expect("a few") {
            attempts.wrong(Some(address(number)));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let counted = attempts.0.lock().expect("never poisoned").len();
        assert!(counted <= MAX_ADDRESSES, "{counted}");
    }
}
