//! Which paths are webhooks, found by the digest of what the path holds.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use secrecy::ExposeSecret;

use crate::config::{Config, is_loopback};
use crate::domain::{Account, Event};
use crate::metrics::{AcceptedCounters, Metrics};
use crate::refusal::Refusal;

/// What every webhook's path begins with.
pub const PREFIX: &str = "/webhooks/";

/// The path as logs name it: its token is a secret.
pub const ROUTE_TEMPLATE: &str = "/webhooks/{account}/{event}/{token}";

/// One (account, event) that the vendor may tell us about.
#[derive(Debug)]
pub struct Webhook {
    /// Whose.
    pub account: Account,
    /// Which event's.
    pub event: Event,
    /// The counters of its accepted messages.
    pub accepted: AcceptedCounters,
}

/// Every webhook.
///
/// A path is looked up by the SHA-256 of `account/event/token`, so a token works
/// for its own account and event alone, and the time that a wrong one takes says
/// nothing about the right one.
pub struct Webhooks {
    webhooks: Vec<Webhook>,
    by_path: HashMap<[u8; 32], usize>,
}

impl Webhooks {
    /// The webhooks of `config`. On a loopback `public.url` the token may be missing.
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        let tokenless = is_loopback(&config.public.url);
        let mut table = Self {
            webhooks: Vec::new(),
            by_path: HashMap::new(),
        };
        for (account, settings) in &config.accounts {
            for event in Event::ALL {
                let index = table.webhooks.len();
                for token in settings.tokens.get(&event).into_iter().flatten() {
                    let path = format!("{account}/{event}/{}", token.expose_secret());
                    table.by_path.insert(fingerprint(&path), index);
                }
                if tokenless {
                    let path = format!("{account}/{event}");
                    table.by_path.insert(fingerprint(&path), index);
                }
                table.webhooks.push(Webhook {
                    account: account.clone(),
                    event,
                    accepted: metrics.accepted(event),
                });
            }
        }
        table
    }

    /// The webhook at `path`, which is what follows [`PREFIX`].
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownToken`] where account and event are ours but the token
    /// isn't, [`Refusal::UnknownPath`] otherwise.
    pub fn find(&self, path: &str) -> Result<&Webhook, Refusal> {
        if let Some(index) = self.by_path.get(&fingerprint(path)) {
            return Ok(&self.webhooks[*index]);
        }
        let mut segments = path.splitn(3, '/');
        let (account, event) = (segments.next(), segments.next());
        let further = segments.next().unwrap_or_default();
        let known = self.webhooks.iter().any(|webhook| {
            Some(webhook.account.as_str()) == account && Some(webhook.event.as_str()) == event
        });
        if known && !further.contains('/') {
            Err(Refusal::UnknownToken)
        } else {
            Err(Refusal::UnknownPath)
        }
    }

    /// The webhook of an account's event, where the account is still configured.
    pub fn get(&self, account: &Account, event: Event) -> Option<&Webhook> {
        self.webhooks
            .iter()
            .find(|webhook| webhook.account == *account && webhook.event == event)
    }
}

fn fingerprint(path: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, path.as_bytes()).as_ref());
    bytes
}
