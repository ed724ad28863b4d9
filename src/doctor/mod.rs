//! Checks an installation for problems, and says how to fix each.
//!
//! [`within`] checks what the process with the store sees: the running server checks itself, since
//! it has the keys, the rights and the network that count. [`inside`] checks the settings, the store
//! and outgoing connections; [`outside`] sends requests through the public address as SNS does; [`probe`] finds the exported queue's
//! path; [`destinations`] checks the configured destinations, [`subscriptions`] those at SNS,
//! [`notifications`] what they said; [`uploads`] checks the drop folder;
//! [`exposed`] finds secrets that everybody can read.

use crate::config::Config;
use crate::domain::{Account, Clock, Company};
use crate::store::Store;

mod check;
pub mod destinations;
pub mod exposed;
pub mod feeds;
pub mod inside;
pub mod notifications;
pub mod outside;
pub mod probe;
mod stall;
pub mod subscriptions;
pub mod uploads;

pub use check::{Check, CheckResult};

/// Checks what the process with the store sees: settings, outgoing connections, API keys,
/// destinations, the drop folder, and the state of subscriptions, feeds and deliveries. `store` is none if it is not
/// created yet. With `company`, also looks for the address of its exported queue.
pub async fn within(
    config: &Config,
    store: Option<&Store>,
    clock: &Clock,
    company: Option<(&Account, &Company)>,
) -> Vec<Check> {
    let mut checks = inside::settings(config);
    match inside::https(config) {
        Ok(client) => {
            checks.extend(inside::sns(&client, config, clock).await);
            checks.extend(inside::api_keys(config).await);
            if let Some((account, company)) = company {
                let probed = probe::company(config, account, company).await;
                // Replaces the check of the settings alone.
                let decided = probed.iter().any(|check| check.check == "exported_path");
                checks.retain(|check| !decided || check.check != "exported_path");
                checks.extend(probed);
            }
        }
        Err(failed) => checks.push(failed),
    }
    checks.extend(destinations::settings(config, clock));
    checks.extend(uploads::folder(config));
    let Some(store) = store else {
        return checks;
    };
    let now = clock.now();
    let stored = [
        subscriptions::state(config, store, now).await,
        notifications::state(store, now).await,
        feeds::state(config, store, now).await,
        destinations::state(config, store, now).await,
    ];
    if stored.iter().any(Option::is_none) {
        checks.push(
            Check::skipped(
                "stored_state",
                "the state of subscriptions, feeds and destinations could not be read",
            )
            .because("a store that can't be read shows nothing")
            .fix("correct what the check `store` or `server` found, then run this again"),
        );
    }
    checks.extend(stored.into_iter().flatten().flatten());
    checks
}
