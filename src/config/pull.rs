//! `[pull]`: how the queues are read.

use std::time::Duration;

use super::api::ApiConfig;
use super::check;
use super::layers::Layers;

/// Settings of pulls.
#[derive(Clone, Debug)]
pub struct PullConfig {
    /// `pull.lookback`, default 24 h: how far follow-ups and reconciliation read back.
    pub lookback: Duration,
    /// `pull.reconcile_every`, default 1 h: how often every feed is read without a notification.
    pub reconcile_every: Duration,
    /// `pull.min_interval`, default 1 s: the shortest time from the beginning of a feed's pull to
    /// that of its next one, however many notifications arrive.
    pub min_interval: Duration,
    /// `pull.requests_per_account`, default 1, at most 16: requests in flight at once.
    pub requests_per_account: u32,
    /// `pull.lease`, default 2 min; longer than `api.timeout`: the work of a replica that died
    /// waits for another one that long. Destinations are leased for as long beyond their own
    /// `timeout`.
    pub lease: Duration,
}

impl Default for PullConfig {
    fn default() -> Self {
        Self {
            lookback: Duration::from_secs(24 * 60 * 60),
            reconcile_every: Duration::from_secs(60 * 60),
            min_interval: Duration::from_secs(1),
            requests_per_account: 1,
            lease: Duration::from_secs(2 * 60),
        }
    }
}

/// Reads `[pull]`; `api` is what was read of `[api]`.
pub(super) fn read(layers: &mut Layers<'_>, api: &ApiConfig) -> PullConfig {
    let default = PullConfig::default();
    let read = PullConfig {
        lookback: layers.duration("pull.lookback", default.lookback),
        reconcile_every: layers.duration("pull.reconcile_every", default.reconcile_every),
        min_interval: layers.duration("pull.min_interval", default.min_interval),
        requests_per_account: layers.number(
            "pull.requests_per_account",
            default.requests_per_account,
            1..=16,
        ),
        lease: layers.duration("pull.lease", default.lease),
    };
    let valid = !layers.is_invalid("pull.lease") && !layers.is_invalid("api.timeout");
    if valid && read.lease <= api.timeout {
        layers.report(
            "pull.lease",
            format!(
                "is not longer than `api.timeout` ({}), so a page could arrive after its lease; \
                 write a longer time",
                check::show_duration(api.timeout)
            ),
        );
    }
    read
}
