//! `[sns]`: trusted topics, and the confirmation of subscriptions.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use sns_messages::{Settings, TopicRule, region};
use url::Url;

use super::check::excerpt;
use super::egress::EgressConfig;
use super::layers::Layers;
use super::value::{ConfigValue, RawValue};
use crate::egress::{Proxy, USER_AGENT};

/// The least `sns.max_age`: SNS retries for up to an hour (AWS caps the whole retry policy at
/// 3,600 s), and a retry carries the time of its first publication.
const MIN_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// Trusted topics, and the confirmation of subscriptions.
#[derive(Clone, Debug)]
pub struct SnsConfig {
    /// `sns.topics`: trusted topics, default [`vendor_topics`]; never empty.
    pub topics: Vec<TopicRule>,
    /// `sns.confirm`: `"auto"` (default) or `"ask"`.
    pub confirm: ConfirmMode,
    /// `sns.max_age`, default 8 h: older messages are refused.
    pub max_age: Duration,
    /// `sns.local_origins`: origins such as `http://127.0.0.1:4566` that are exempt from the rules
    /// on https, host, path and certificate name. For tests only.
    pub local_origins: Vec<String>,
    /// From `[egress]`: the proxy of requests to SNS.
    pub proxy: Option<Proxy>,
    /// Not a setting: names of signing certificates by region, where they differ from the
    /// built-in table.
    pub certificate_names: BTreeMap<String, String>,
}

impl Default for SnsConfig {
    fn default() -> Self {
        Self {
            topics: vendor_topics(),
            confirm: ConfirmMode::Auto,
            max_age: Settings::MAX_AGE,
            local_origins: Vec::new(),
            proxy: None,
            certificate_names: BTreeMap::new(),
        }
    }
}

impl SnsConfig {
    /// Returns the settings of verification and confirmation.
    pub fn settings(&self) -> Settings {
        Settings {
            topics: self.topics.clone(),
            certificate_names: self.certificate_names.clone(),
            max_age: self.max_age,
            local_origins: self.local_origins.clone(),
            user_agent: USER_AGENT.to_owned(),
            proxy: self.proxy.clone(),
            ..Settings::default()
        }
    }
}

/// The AWS account that the upload address of the vendor's published sample belongs to; the
/// sample's topic names another one, which may be altered (vendor-api U10).
const OTHER_VENDOR_ACCOUNT: &str = "007268210879";

/// Returns a rule for each account that the vendor's topics may belong to.
pub fn vendor_topics() -> Vec<TopicRule> {
    let other = TopicRule {
        account: OTHER_VENDOR_ACCOUNT.to_owned(),
        ..vendor_topic()
    };
    vec![vendor_topic(), other]
}

/// Returns the rule for the vendor's topics, as its published sample names one
/// (vendor-api U10).
pub fn vendor_topic() -> TopicRule {
    TopicRule {
        account: "007272210889".to_owned(),
        region: "eu-west-1".to_owned(),
        name_prefix: "DPWebHook_".to_owned(),
    }
}

/// The confirmation of subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmMode {
    /// A verified confirmation of a trusted topic is confirmed at once.
    Auto,
    /// It waits for `subscriptions approve`.
    Ask,
}

/// Reads `[sns]`.
pub(super) fn read(layers: &mut Layers<'_>, egress: &EgressConfig) -> SnsConfig {
    let default = SnsConfig::default();
    let config = SnsConfig {
        topics: layers.read("sns.topics", default.topics, topics, |topics| {
            topics.iter().map(show_topic).collect::<Vec<_>>().into()
        }),
        confirm: layers.text("sns.confirm", default.confirm, confirm, |mode| match mode {
            ConfirmMode::Auto => "auto".into(),
            ConfirmMode::Ask => "ask".into(),
        }),
        max_age: layers.duration("sns.max_age", default.max_age),
        local_origins: layers.list("sns.local_origins", Vec::new(), origin, |origin| {
            origin.as_str().into()
        }),
        proxy: egress.proxy.clone(),
        certificate_names: default.certificate_names,
    };
    if config.max_age < MIN_MAX_AGE && !layers.is_invalid("sns.max_age") {
        layers.report(
            "sns.max_age",
            "is shorter than the hour during which SNS retries a message, so that genuine retries \
             would be refused; write \"1h\" or more",
        );
    }
    config
}

fn show_topic(rule: &TopicRule) -> Value {
    format!("{}:{}:{}", rule.region, rule.account, rule.name_prefix).into()
}

/// Parses `sns.topics`: tables in the file, texts in the variable.
fn topics(value: &ConfigValue, _: &Layers<'_>) -> Result<Vec<TopicRule>, String> {
    const HOW: &str = "write [[sns.topics]] with account, region and name_prefix below it";
    let rules: Vec<TopicRule> = match &value.raw {
        RawValue::List(items) => items
            .iter()
            .map(|item| match item {
                RawValue::Table(entries) => topic_table(entries),
                _ => Err(format!("contains an entry that is not a table; {HOW}")),
            })
            .collect::<Result<_, _>>()?,
        _ => value
            .list()
            .map_err(|_| format!("is not a list of tables; {HOW}"))?
            .iter()
            .map(|text| topic_text(text))
            .collect::<Result<_, _>>()?,
    };
    if rules.is_empty() {
        return Err(
            "is empty, so that every message would be refused; remove it to trust the vendor's \
             topics, or write some"
                .to_owned(),
        );
    }
    Ok(rules)
}

fn topic_table(entries: &BTreeMap<String, RawValue>) -> Result<TopicRule, String> {
    let default = vendor_topic();
    let mut parts = [default.account, default.region, default.name_prefix];
    for (key, value) in entries {
        let index = match key.as_str() {
            "account" => 0,
            "region" => 1,
            "name_prefix" => 2,
            other => {
                return Err(format!(
                    "contains `{}`; a topic has account, region and name_prefix",
                    excerpt(other)
                ));
            }
        };
        match value {
            RawValue::Text(text) => parts[index].clone_from(text),
            _ => {
                return Err(format!(
                    "`{key}` is not text; write it between double quotes"
                ));
            }
        }
    }
    let [account, region, name_prefix] = parts;
    topic(&account, &region, &name_prefix)
}

/// Checks one topic rule.
fn topic(account: &str, region: &str, name_prefix: &str) -> Result<TopicRule, String> {
    if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "the topic's account `{}` is not 12 digits; copy it from the topic's ARN",
            excerpt(account)
        ));
    }
    if region::partition(region).is_none() {
        return Err(format!(
            "the topic's region `{}` is not an AWS region; write one such as eu-west-1",
            excerpt(region)
        ));
    }
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    if name_prefix.len() > 256 || !name_prefix.chars().all(in_name) {
        return Err(
            "the topic's name_prefix contains characters other than A-Z, a-z, 0-9, - _ and . \
             (write it without *)"
                .to_owned(),
        );
    }
    Ok(TopicRule {
        account: account.to_owned(),
        region: region.to_owned(),
        name_prefix: name_prefix.to_owned(),
    })
}

/// Parses one topic rule of the variable, written like the end of an ARN:
/// `REGION:ACCOUNT:PREFIX`.
fn topic_text(text: &str) -> Result<TopicRule, String> {
    let mut parts = text.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(region), Some(account), Some(prefix)) => topic(account, region, prefix),
        _ => Err(
            "contains an entry that is not a topic; write each as REGION:ACCOUNT:NAME_PREFIX, such \
             as eu-west-1:007272210889:DPWebHook_"
                .to_owned(),
        ),
    }
}

/// Parses `sns.confirm`.
fn confirm(text: &str) -> Result<ConfirmMode, String> {
    match text {
        "auto" => Ok(ConfirmMode::Auto),
        "ask" => Ok(ConfirmMode::Ask),
        _ => Err(format!(
            "`{}` is neither \"auto\" nor \"ask\"; write one of them",
            excerpt(text)
        )),
    }
}

/// Parses one exact origin: scheme, host and port, nothing after it.
fn origin(text: &str) -> Result<String, String> {
    let example = "write scheme, host and port alone, such as http://127.0.0.1:4566";
    let url = Url::parse(text)
        .map_err(|error| format!("contains an invalid URL ({error}); {example}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!(
            "contains a URL that is not http or https; {example}"
        ));
    }
    let exact = url.origin().ascii_serialization();
    if exact == text {
        Ok(exact)
    } else {
        Err(format!(
            "contains an origin that is not in its exact form; write `{exact}`"
        ))
    }
}
