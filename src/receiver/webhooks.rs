//! Finds the webhook of a path, by the path's digest.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use hyper::Method;
use secrecy::ExposeSecret;

use crate::config::{Config, is_loopback};
use crate::domain::{Account, Event};
use crate::metrics::{AcceptedCounters, Metrics};
use crate::unexpected::UnexpectedRequest;

/// The prefix of every webhook's path.
pub const PREFIX: &str = "/webhooks/";

/// The path as logs show it, without the secret token.
pub const ROUTE_TEMPLATE: &str = "/webhooks/{account}/{event}/{token}";

/// The webhook of one event of one account.
#[derive(Debug)]
pub struct Webhook {
    /// The account.
    pub account: Account,
    /// The event.
    pub event: Event,
    /// Counters of its accepted messages.
    pub accepted: AcceptedCounters,
}

/// Every webhook.
///
/// A path is looked up by the SHA-256 of `account/event/token`, so a token is valid for
/// its own account and event alone, and the duration of a lookup reveals nothing about it.
pub struct Webhooks {
    webhooks: Vec<Webhook>,
    by_path: HashMap<[u8; 32], usize>,
}

impl Webhooks {
    /// Creates the webhooks of `config`. With a loopback `public.url` the token is optional.
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

    /// Returns the webhook that a request is for.
    ///
    /// # Errors
    ///
    /// How the request differs from one for a webhook.
    pub fn find(&self, method: &Method, path: &str) -> Result<&Webhook, UnexpectedRequest> {
        let webhook = path
            .strip_prefix(PREFIX)
            .and_then(|path| self.by_path.get(&fingerprint(path)));
        match webhook {
            Some(index) if method == Method::POST => Ok(&self.webhooks[*index]),
            Some(_) => Err(UnexpectedRequest::WrongMethod),
            None => Err(self.explain(path)),
        }
    }

    /// Returns how a path differs from that of a webhook. Its token plays no part.
    fn explain(&self, path: &str) -> UnexpectedRequest {
        let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let pair = segments.windows(2).position(|pair| {
            self.webhooks.iter().any(|webhook| {
                webhook.account.as_str() == pair[0] && webhook.event.as_str() == pair[1]
            })
        });
        let Some(at) = pair else {
            return UnexpectedRequest::UnknownPath;
        };
        let (before, token) = (&segments[..at], &segments[at + 2..]);
        match (before, token) {
            (_, [_, _, ..]) => UnexpectedRequest::UnknownPath,
            (["webhooks"], _) if has_extra_slash(path) => UnexpectedRequest::PathSlash,
            (["webhooks"], _) => UnexpectedRequest::UnknownToken,
            ([.., "webhooks"], _) => UnexpectedRequest::PathPrefix,
            _ => UnexpectedRequest::PathCut,
        }
    }

    /// Returns the webhook of an account's event; `None` if the account is not configured.
    pub fn get(&self, account: &Account, event: Event) -> Option<&Webhook> {
        self.webhooks
            .iter()
            .find(|webhook| webhook.account == *account && webhook.event == event)
    }
}

fn has_extra_slash(path: &str) -> bool {
    path.contains("//") || path.ends_with('/')
}

fn fingerprint(path: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, path.as_bytes()).as_ref());
    bytes
}
