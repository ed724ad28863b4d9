//! `[sns]`: whom to believe.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sns_messages::{Settings, TopicRule};
use url::Url;

use super::check::shortened;
use super::given::{Given, Raw};
use super::layers::Layers;
use crate::egress;

/// SNS goes on delivering for up to an hour (AWS caps the whole retry policy at
/// 3,600 s), and a retry carries the time of its first publication.
const MIN_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// Trusted topics, and the confirmation of subscriptions.
#[derive(Clone, Debug)]
pub struct SnsConfig {
    /// `sns.topics`: trusted topics, default [`vendor_topic`]; never empty.
    pub topics: Vec<TopicRule>,
    /// `sns.certificate_names`: region to certificate name, over the built-in table.
    pub certificate_names: BTreeMap<String, String>,
    /// `sns.confirm`: `"auto"` (default) or `"ask"`.
    pub confirm: ConfirmMode,
    /// `sns.max_age`, default 8 h.
    pub max_age: Duration,
    /// `sns.local_origins`: origins such as `http://127.0.0.1:4566` for which the
    /// rules on https, host, path and certificate name give way. For tests alone.
    pub local_origins: Vec<String>,
}

impl Default for SnsConfig {
    fn default() -> Self {
        Self {
            topics: vec![vendor_topic()],
            certificate_names: BTreeMap::new(),
            confirm: ConfirmMode::Auto,
            max_age: Settings::MAX_AGE,
            local_origins: Vec::new(),
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
            user_agent: egress::USER_AGENT.to_owned(),
        }
    }
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

/// Who decides that a subscription is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmMode {
    /// A verified confirmation of an allowed topic is confirmed at once.
    Auto,
    /// It waits for `subscriptions approve`.
    Ask,
}

/// `[sns]`
pub(super) fn read(layers: &mut Layers<'_>) -> SnsConfig {
    let default = SnsConfig::default();
    let read = SnsConfig {
        topics: layers.read("sns.topics", default.topics, topics, |topics| {
            topics.iter().map(show_topic).collect::<Vec<_>>().into()
        }),
        certificate_names: layers.read(
            "sns.certificate_names",
            default.certificate_names,
            certificate_names,
            |names| json!(names),
        ),
        confirm: layers.text("sns.confirm", default.confirm, confirm, |mode| match mode {
            ConfirmMode::Auto => "auto".into(),
            ConfirmMode::Ask => "ask".into(),
        }),
        max_age: layers.duration("sns.max_age", default.max_age),
        local_origins: layers.list("sns.local_origins", Vec::new(), origin, |origin| {
            origin.as_str().into()
        }),
    };
    if read.max_age < MIN_MAX_AGE && !layers.has_failed("sns.max_age") {
        layers.contradiction(
            "sns.max_age",
            "is shorter than the hour for which SNS may go on delivering a message, so genuine \
             retries would be refused; write \"1h\" or more",
        );
    }
    read
}

fn show_topic(rule: &TopicRule) -> Value {
    format!("{}:{}:{}", rule.region, rule.account, rule.name_prefix).into()
}

fn topics(given: &Given, _: &Layers<'_>) -> Result<Vec<TopicRule>, String> {
    const HOW: &str = "write [[sns.topics]] with account, region and name_prefix below it";
    let rules: Vec<TopicRule> = match &given.raw {
        Raw::List(items) => items
            .iter()
            .map(|item| match item {
                Raw::Table(entries) => topic_table(entries),
                _ => Err(format!("holds something else than tables; {HOW}")),
            })
            .collect::<Result<_, _>>()?,
        _ => given
            .list()
            .map_err(|_| format!("is not a list of tables; {HOW}"))?
            .iter()
            .map(|text| topic_text(text))
            .collect::<Result<_, _>>()?,
    };
    if rules.is_empty() {
        return Err(
            "is empty, so that every message would be refused; remove it for the vendor's topics, \
             or name some"
                .to_owned(),
        );
    }
    Ok(rules)
}

fn topic_table(entries: &BTreeMap<String, Raw>) -> Result<TopicRule, String> {
    let default = vendor_topic();
    let mut parts = [default.account, default.region, default.name_prefix];
    for (key, value) in entries {
        let at = match key.as_str() {
            "account" => 0,
            "region" => 1,
            "name_prefix" => 2,
            other => {
                return Err(format!(
                    "has no `{}`; a topic has account, region and name_prefix",
                    other.chars().take(60).collect::<String>()
                ));
            }
        };
        match value {
            Raw::Text(text) => parts[at].clone_from(text),
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

fn certificate_names(given: &Given, _: &Layers<'_>) -> Result<BTreeMap<String, String>, String> {
    const HOW: &str = "write region = \"name\", such as eu-west-1 = \"sns.amazonaws.com\"";
    match &given.raw {
        Raw::Table(entries) => entries
            .iter()
            .map(|(region, name)| match name {
                Raw::Text(name) => certificate_name(region, name),
                _ => Err(format!("holds a name that is not text; {HOW}")),
            })
            .collect(),
        _ => given
            .list()
            .map_err(|_| format!("is not a table; {HOW}"))?
            .iter()
            .map(|entry| match entry.split_once('=') {
                Some((region, name)) => certificate_name(region.trim(), name.trim()),
                None => Err(format!("holds an entry without =; {HOW}")),
            })
            .collect(),
    }
}

/// One topic rule from its three parts.
fn topic(account: &str, region: &str, name_prefix: &str) -> Result<TopicRule, String> {
    if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "the topic's account `{}` is not 12 digits; copy it from the topic's ARN",
            shortened(account)
        ));
    }
    let in_region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !region.contains('-') || !region.chars().all(in_region) {
        return Err(format!(
            "the topic's region `{}` is not an AWS region; write one such as eu-west-1",
            shortened(region)
        ));
    }
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    if name_prefix.len() > 256 || !name_prefix.chars().all(in_name) {
        return Err(
            "the beginning of the topic's name holds other characters than A-Z, a-z, 0-9, - _ and \
             . (write it without *)"
                .to_owned(),
        );
    }
    Ok(TopicRule {
        account: account.to_owned(),
        region: region.to_owned(),
        name_prefix: name_prefix.to_owned(),
    })
}

/// One topic rule as a variable holds it, like the end of an ARN: `REGION:ACCOUNT:PREFIX`.
fn topic_text(text: &str) -> Result<TopicRule, String> {
    let mut parts = text.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(region), Some(account), Some(prefix)) => topic(account, region, prefix),
        _ => Err(
            "write each topic as REGION:ACCOUNT:BEGINNING-OF-NAME, such as \
                  eu-west-1:007272210889:DPWebHook_"
                .to_owned(),
        ),
    }
}

/// A region and the name that its certificates carry.
fn certificate_name(region: &str, name: &str) -> Result<(String, String), String> {
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let in_region = |c: char| in_name(c) && c != '.';
    if region.is_empty() || !region.chars().all(in_region) {
        return Err(format!(
            "`{}` is not an AWS region; write one such as eu-west-1",
            shortened(region)
        ));
    }
    if !name.contains('.') || !name.chars().all(in_name) || name.starts_with(['.', '-']) {
        return Err(format!(
            "the name for {region} is not a host name in small letters, such as sns.amazonaws.com"
        ));
    }
    Ok((region.to_owned(), name.to_owned()))
}

/// `sns.confirm`
fn confirm(text: &str) -> Result<ConfirmMode, String> {
    match text {
        "auto" => Ok(ConfirmMode::Auto),
        "ask" => Ok(ConfirmMode::Ask),
        _ => Err(format!(
            "`{}` is neither \"auto\" nor \"ask\"; write one of them",
            shortened(text)
        )),
    }
}

/// One exact origin: scheme, host and port, nothing after it.
fn origin(text: &str) -> Result<String, String> {
    let example = "write scheme, host and port alone, such as http://127.0.0.1:4566";
    let url = Url::parse(text).map_err(|error| format!("holds no address ({error}); {example}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!(
            "holds an address that is not http or https; {example}"
        ));
    }
    let exact = url.origin().ascii_serialization();
    if exact == text {
        Ok(exact)
    } else {
        Err(format!(
            "holds more than an origin, or writes one another way; write `{exact}`"
        ))
    }
}
