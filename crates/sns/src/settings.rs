//! Settings of verification: which topics, origins and certificate names are trusted.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::http::Proxy;
use crate::known_arns::KnownArns;

/// The trust settings, and the largest age of a message.
///
/// [`Settings::default`] allows no topic at all.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Trusted topics. Any AWS customer can have SNS sign messages to any URL, so a
    /// valid signature alone proves nothing about the sender.
    pub topics: Vec<TopicRule>,
    /// Region to certificate name, over the built-in table.
    pub certificate_names: BTreeMap<String, String>,
    /// The longest time between publication and receipt, default 8 h. SNS retries for
    /// up to an hour.
    pub max_age: Duration,
    /// Origins such as `http://127.0.0.1:4566` for which the rules on https, host, path
    /// and certificate name are lifted. For tests only: whoever answers there can forge
    /// messages.
    pub local_origins: Vec<String>,
    /// Topics that a person approved, and the program's own subscriptions. Every verifier
    /// and confirmer of these settings sees what is added later.
    pub known: KnownArns,
    /// `User-Agent` of requests to SNS, default this crate's name and version.
    pub user_agent: String,
    /// The proxy of requests to SNS, default none.
    pub proxy: Option<Proxy>,
}

impl Settings {
    /// The default of [`Settings::user_agent`].
    pub const USER_AGENT: &'static str = concat!("sns-messages/", env!("CARGO_PKG_VERSION"));
    /// The default of [`Settings::max_age`].
    pub const MAX_AGE: Duration = Duration::from_secs(8 * 60 * 60);
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            certificate_names: BTreeMap::new(),
            max_age: Self::MAX_AGE,
            local_origins: Vec::new(),
            known: KnownArns::default(),
            user_agent: Self::USER_AGENT.to_owned(),
            proxy: None,
        }
    }
}

/// One entry of the topic allowlist; all parts must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRule {
    /// The AWS account that owns the topic: twelve digits.
    pub account: String,
    /// The topic's region, such as `eu-west-1`.
    pub region: String,
    /// The beginning of the topic's name; empty matches every name.
    pub name_prefix: String,
}
