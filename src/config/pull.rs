//! `[pull]`: how the queues are read.

use std::time::Duration;

use super::api::ApiConfig;
use super::check;
use super::given::Given;
use super::layers::Layers;

/// How the queues are read.
#[derive(Clone, Debug)]
pub struct PullConfig {
    /// `pull.lookback`, default 24 h: how far follow-ups and reconciliation go back.
    pub lookback: Duration,
    /// `pull.follow_ups`, default 30 s and 5 min after a hint was served.
    pub follow_ups: [Duration; 2],
    /// `pull.reconcile_every`, default 1 h.
    pub reconcile_every: Duration,
    /// `pull.requests_per_account`, default 1, at most 16: requests in flight at once.
    pub requests_per_account: u32,
    /// `pull.lease`, default 2 min; longer than `api.timeout`. Destinations are leased for so long
    /// beyond their own `timeout`.
    pub lease: Duration,
}

impl Default for PullConfig {
    fn default() -> Self {
        Self {
            lookback: Duration::from_secs(24 * 60 * 60),
            follow_ups: [Duration::from_secs(30), Duration::from_secs(5 * 60)],
            reconcile_every: Duration::from_secs(60 * 60),
            requests_per_account: 1,
            lease: Duration::from_secs(2 * 60),
        }
    }
}

/// `[pull]`
pub(super) fn read(layers: &mut Layers<'_>, api: &ApiConfig) -> PullConfig {
    let default = PullConfig::default();
    let read = PullConfig {
        lookback: layers.duration("pull.lookback", default.lookback),
        follow_ups: layers.read("pull.follow_ups", default.follow_ups, follow_ups, |both| {
            both.map(check::show_duration).to_vec().into()
        }),
        reconcile_every: layers.duration("pull.reconcile_every", default.reconcile_every),
        requests_per_account: layers.number(
            "pull.requests_per_account",
            default.requests_per_account,
            1..=16,
        ),
        lease: layers.duration("pull.lease", default.lease),
    };
    let judged = !layers.has_failed("pull.lease") && !layers.has_failed("api.timeout");
    if judged && read.lease <= api.timeout {
        layers.contradiction(
            "pull.lease",
            format!(
                "is not longer than `api.timeout` ({}), so that a page could come after its lease; \
                 write a longer one",
                check::show_duration(api.timeout)
            ),
        );
    }
    read
}

fn follow_ups(given: &Given, _: &Layers<'_>) -> Result<[Duration; 2], String> {
    let read: Result<Vec<Duration>, String> = given
        .list()?
        .iter()
        .map(|item| check::duration(item))
        .collect();
    match read?.as_slice() {
        [first, second] if first <= second => Ok([*first, *second]),
        [_, _] => Err("names the later look first; write the shorter time span first".to_owned()),
        _ => Err("does not hold two time spans; write [\"30s\", \"5m\"]".to_owned()),
    }
}
