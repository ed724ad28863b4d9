//! `[pull]`: how the queues are read.

use std::time::Duration;

use super::layers::Layers;

/// Settings of pulls.
#[derive(Clone, Debug)]
pub struct PullConfig {
    /// `pull.lookback`, default 24 h: how far follow-ups and reconciliation read back.
    pub lookback: Duration,
    /// `pull.reconcile_every`, default 1 h: how often every feed is read without a notification.
    pub reconcile_every: Duration,
    /// `pull.requests_per_account`, default 1, at most 16: requests in flight at once.
    pub requests_per_account: u32,
}

impl Default for PullConfig {
    fn default() -> Self {
        Self {
            lookback: Duration::from_secs(24 * 60 * 60),
            reconcile_every: Duration::from_secs(60 * 60),
            requests_per_account: 1,
        }
    }
}

/// Reads `[pull]`.
pub(super) fn read(layers: &mut Layers<'_>) -> PullConfig {
    let default = PullConfig::default();
    PullConfig {
        lookback: layers.duration("pull.lookback", default.lookback),
        reconcile_every: layers.duration("pull.reconcile_every", default.reconcile_every),
        requests_per_account: layers.number(
            "pull.requests_per_account",
            default.requests_per_account,
            1..=16,
        ),
    }
}
