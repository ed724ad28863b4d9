//! The trust policy: topics, certificate URLs, SubscribeURLs, certificate names.
//!
//! URLs are checked as they are in the message, before any URL parser could
//! normalize them, and nothing but the exact form passes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use url::{Url, form_urlencoded};

use crate::error::VerifyError;
use crate::known_arns::KnownArns;
use crate::region;
use crate::settings::{Settings, TopicRule};

/// The parts of `arn:<partition>:sns:<region>:<12 digits>:<name>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicArn<'a> {
    /// Such as `eu-west-1`.
    pub region: &'a str,
    /// Twelve digits.
    pub account: &'a str,
    /// 1 to 256 of letters, digits, `-` and `_`, and `.fifo` at the end of some.
    pub name: &'a str,
}

impl<'a> TopicArn<'a> {
    /// Parses a whole ARN; returns `None` if any part of it has another form.
    pub fn parse(arn: &'a str) -> Option<Self> {
        let mut parts = arn.strip_prefix("arn:")?.splitn(5, ':');
        let partition = parts.next()?;
        let service = parts.next()?;
        let region = parts.next()?;
        let account = parts.next()?;
        let name = parts.next()?;
        let valid = region::partition(region) == Some(partition)
            && service == "sns"
            && account.len() == 12
            && account.bytes().all(|b| b.is_ascii_digit())
            && is_topic_name(name);
        valid.then_some(Self {
            region,
            account,
            name,
        })
    }

    fn matches(&self, rule: &TopicRule) -> bool {
        self.account == rule.account
            && self.region == rule.region
            && self.name.starts_with(rule.name_prefix.as_str())
    }
}

/// Returns true if SNS allows the name.
///
/// "Topic names can be up to 256 characters … alphanumeric characters plus
/// hyphens and underscores", FIFO topics end in `.fifo` (AWS, API_CreateTopic).
fn is_topic_name(text: &str) -> bool {
    let stem = text.strip_suffix(".fifo").unwrap_or(text);
    (1..=256).contains(&text.len())
        && !stem.is_empty()
        && stem
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Returns true if `arn` has the form of a subscription to this topic: the topic's ARN, and
/// an id of letters, digits and `-`.
pub fn is_subscription_to(arn: &str, topic_arn: &str) -> bool {
    subscription_arn_len(arn, topic_arn) == Some(arn.len())
}

/// Returns the first ARN in `text` of a subscription to this topic.
pub fn find_subscription_arn<'a>(text: &'a str, topic_arn: &str) -> Option<&'a str> {
    text.match_indices(topic_arn).find_map(|(start, _)| {
        let rest = &text[start..];
        subscription_arn_len(rest, topic_arn).map(|len| &rest[..len])
    })
}

/// Returns the length of the ARN of a subscription to this topic that `text` begins with.
fn subscription_arn_len(text: &str, topic_arn: &str) -> Option<usize> {
    let id = text.strip_prefix(topic_arn)?.strip_prefix(':')?;
    let len = id
        .bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || *b == b'-')
        .count();
    (1..=100)
        .contains(&len)
        .then_some(topic_arn.len() + 1 + len)
}

/// The origin of a certificate whose URL the policy allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateOrigin<'a> {
    /// The SNS endpoint of this region.
    Sns {
        /// The region of the topic and of the URL.
        region: Cow<'a, str>,
    },
    /// One of [`Settings::local_origins`].
    Local,
}

impl CertificateOrigin<'_> {
    /// Returns a copy that does not borrow from the message.
    pub fn into_owned(self) -> CertificateOrigin<'static> {
        match self {
            Self::Sns { region } => CertificateOrigin::Sns {
                region: Cow::Owned(region.into_owned()),
            },
            Self::Local => CertificateOrigin::Local,
        }
    }
}

/// The trust settings, prepared for checks.
#[derive(Clone, Debug)]
pub struct Policy {
    topics: Vec<TopicRule>,
    known: KnownArns,
    any_topic: bool,
    certificate_names: BTreeMap<String, String>,
    /// Scheme, host and port as written, without a slash at the end.
    local_origins: Vec<String>,
}

impl Policy {
    /// Creates the policy that `settings` describes.
    pub fn new(settings: &Settings) -> Self {
        Self {
            topics: settings.topics.clone(),
            known: settings.known.clone(),
            any_topic: false,
            certificate_names: settings.certificate_names.clone(),
            local_origins: settings
                .local_origins
                .iter()
                .filter(|origin| Url::parse(origin).is_ok_and(|url| url.origin().is_tuple()))
                .map(|origin| origin.trim_end_matches('/').to_owned())
                .collect(),
        }
    }

    /// Returns the policy without its topic allowlist.
    #[must_use]
    pub fn with_any_topic(self) -> Self {
        Self {
            any_topic: true,
            ..self
        }
    }

    /// Returns the origins for which the rules on URLs are lifted.
    pub fn local_origins(&self) -> impl Iterator<Item = &str> {
        self.local_origins.iter().map(String::as_str)
    }

    /// Returns true if messages of this topic are accepted: a rule of the settings matches
    /// it, or a person has approved exactly this ARN.
    pub fn allows(&self, topic_arn: &str) -> bool {
        !self.needs_approval(topic_arn) || self.known.is_approved(topic_arn)
    }

    /// Returns true if no rule of the settings matches this topic: its messages are accepted
    /// only as long as a person approves it.
    pub fn needs_approval(&self, topic_arn: &str) -> bool {
        !TopicArn::parse(topic_arn).is_some_and(|topic| {
            self.any_topic || self.topics.iter().any(|rule| topic.matches(rule))
        })
    }

    /// Returns the ARNs that the program has learned.
    pub fn known(&self) -> &KnownArns {
        &self.known
    }

    /// Checks `SigningCertURL`: exactly `SimpleNotificationService-<hex>.pem` at the origin of
    /// SNS in the topic's region, or anything under a local origin.
    ///
    /// # Errors
    ///
    /// [`VerifyError::UntrustedCertificateUrl`]
    pub fn certificate_origin<'a>(
        &self,
        url: &str,
        topic: &TopicArn<'a>,
    ) -> Result<CertificateOrigin<'a>, VerifyError> {
        if let Some(region) = certificate_region(url)
            && region == topic.region
        {
            return Ok(CertificateOrigin::Sns {
                region: Cow::Borrowed(topic.region),
            });
        }
        if self.is_local(url) {
            return Ok(CertificateOrigin::Local);
        }
        Err(VerifyError::UntrustedCertificateUrl)
    }

    /// Checks `SubscribeURL`: the endpoint of the topic's region (or a local origin),
    /// and exactly `Action=ConfirmSubscription`, this topic and this token once decoded.
    ///
    /// # Errors
    ///
    /// [`VerifyError::UntrustedSubscribeUrl`]
    pub fn check_subscribe_url(
        &self,
        url: &str,
        topic_arn: &str,
        token: &str,
    ) -> Result<(), VerifyError> {
        let topic = TopicArn::parse(topic_arn).ok_or(VerifyError::UntrustedSubscribeUrl)?;
        let query = region::endpoint(topic.region)
            .and_then(|origin| url.strip_prefix(origin.as_str())?.strip_prefix("/?"))
            .or_else(|| {
                self.is_local(url)
                    .then(|| url.split_once('?'))
                    .flatten()
                    .map(|(_, query)| query)
            });
        match query {
            Some(query) if is_printable(url) && confirms(query, topic_arn, token) => Ok(()),
            _ => Err(VerifyError::UntrustedSubscribeUrl),
        }
    }

    /// Returns the name of SNS's certificate in `region`: from
    /// [`Settings::certificate_names`], else from AWS's own table; `None` if it is no region
    /// of AWS.
    pub fn certificate_name(&self, region: &str) -> Option<Cow<'_, str>> {
        match self.certificate_names.get(region) {
            Some(name) => Some(Cow::Borrowed(name)),
            None => region::certificate_name(region).map(Cow::Owned),
        }
    }

    /// Returns true if `url` is under one of the local origins. The HTTP client sees the same: host and
    /// port end at the slash, and nothing that it would drop or replace stands in the URL.
    fn is_local(&self, url: &str) -> bool {
        let is_plain = || is_printable(url) && !url.contains(['\\', '#']);
        self.local_origins.iter().any(|origin| {
            let rest = url.strip_prefix(origin.as_str());
            rest.is_some_and(|rest| rest.starts_with('/')) && is_plain()
        })
    }
}

/// Returns the region in a certificate URL of exactly SNS's form.
///
/// Stored URLs come without a topic, so the region is read from them.
pub fn certificate_region(url: &str) -> Option<&str> {
    let (host, file) = url.strip_prefix("https://")?.split_once('/')?;
    let (region, _) = host.strip_prefix("sns.")?.split_once('.')?;
    let origin = region::endpoint(region)?;
    let hex = file
        .strip_prefix("SimpleNotificationService-")?
        .strip_suffix(".pem")?;
    let valid = origin.strip_prefix("https://") == Some(host)
        && (1..=64).contains(&hex.len())
        && hex
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    valid.then_some(region)
}

/// Returns true if the query is the three pairs that confirm this topic with this
/// token, in any order, each once, and nothing else.
fn confirms(query: &str, topic_arn: &str, token: &str) -> bool {
    let expected = [
        ("Action", "ConfirmSubscription"),
        ("TopicArn", topic_arn),
        ("Token", token),
    ];
    let mut found = [false; 3];
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let Some(place) = expected.iter().position(|pair| *pair == (&key, &value)) else {
            return false;
        };
        if std::mem::replace(&mut found[place], true) {
            return false;
        }
    }
    found == [true; 3] && !token.is_empty()
}

/// Returns true if no URL parser would silently drop or change a character of the text.
fn is_printable(url: &str) -> bool {
    url.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ARN: &str = "arn:aws:sns:eu-west-1:123456789012:orders_shipped";
    const TOKEN: &str = "2336412f37fb687f5d51e6e2425929f52e8e3531";

    fn topic(region: &str) -> TopicArn<'_> {
        TopicArn {
            region,
            account: "123456789012",
            name: "orders_shipped",
        }
    }

    fn settings() -> Settings {
        Settings {
            topics: vec![TopicRule {
                account: "123456789012".to_owned(),
                region: "eu-west-1".to_owned(),
                name_prefix: "orders_".to_owned(),
            }],
            ..Settings::default()
        }
    }

    fn policy() -> Policy {
        Policy::new(&settings())
    }

    fn local() -> Policy {
        Policy::new(&Settings {
            local_origins: vec!["http://127.0.0.1:4566".to_owned()],
            ..settings()
        })
    }

    #[test]
    fn a_topic_arn_is_matched_whole() {
        for good in [
            ARN,
            "arn:aws-cn:sns:cn-north-1:123456789012:a",
            "arn:aws-us-gov:sns:us-gov-west-1:123456789012:a-B_9.fifo",
            "arn:aws-eusc:sns:eusc-de-east-1:123456789012:a",
        ] {
            assert!(TopicArn::parse(good).is_some(), "{good}");
        }
        let long = format!("arn:aws:sns:eu-west-1:123456789012:{}", "a".repeat(257));
        for bad in [
            "",
            "arn:aws:sns:eu-west-1:123456789012:",
            "arn:aws:sns:eu-west-1:123456789012:.fifo",
            "arn:aws:sns:eu-west-1:123456789012:a:b",
            "arn:aws:sns:eu-west-1:123456789012:a b",
            "arn:aws:sns:eu-west-1:123456789012:a\n",
            "arn:aws:sns:eu-west-1:123456789012:a\nTopicArn\narn:aws:sns:eu-west-1:111122223333:b",
            "arn:aws:sns:eu-west-1:07272210889:a",
            "arn:aws:sns:eu-west-1:1234567890120:a",
            "arn:aws:sns:eu-west-1:00727221088x:a",
            "arn:aws:sns::123456789012:a",
            "arn:aws:sns:eu-west:123456789012:a",
            "arn:aws:sns:euwest1:123456789012:a",
            "arn:aws:sns:eu-west-1.evil.com:123456789012:a",
            "arn:aws:sns:EU-WEST-1:123456789012:a",
            "arn:aws:sqs:eu-west-1:123456789012:a",
            "arn:aws9:sns:eu-west-1:123456789012:a",
            "arn::sns:eu-west-1:123456789012:a",
            "arn:aws-cn:sns:eu-west-1:123456789012:a",
            "arn:aws:sns:cn-north-1:123456789012:a",
            "arn:aws:sns:us-gov-west-1:123456789012:a",
            "arn:aws:sns:eusc-de-east-1:123456789012:a",
            "arn:aws:sns:xx-west-1:123456789012:a",
            " arn:aws:sns:eu-west-1:123456789012:a",
            "xarn:aws:sns:eu-west-1:123456789012:a",
            "arn:aws:sns:eu-west-1:00727221088٣:a",
            &long,
        ] {
            assert_eq!(TopicArn::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_topics_that_match_a_rule_are_allowed() {
        let policy = policy();
        let allows = |arn| policy.allows(arn);

        assert!(allows(ARN));
        assert!(allows("arn:aws:sns:eu-west-1:123456789012:orders_"));
        for stranger in [
            "arn:aws:sns:eu-west-1:111122223333:orders_shipped",
            "arn:aws:sns:us-east-1:123456789012:orders_shipped",
            "arn:aws:sns:eu-west-1:123456789012:Orders_shipped",
            "arn:aws:sns:eu-west-1:123456789012:xorders_shipped",
        ] {
            assert!(!allows(stranger), "{stranger}");
        }
    }

    #[test]
    fn a_subscription_is_found_only_if_it_belongs_to_the_topic() {
        let find = |text: &str| find_subscription_arn(text, ARN).map(str::to_owned);
        let mine = format!("{ARN}:2bcfbf39-05c3-41de-beaa-fcfcc21c8f55");
        for text in [
            format!("You have chosen to deactivate subscription {mine}.\nTo cancel this"),
            format!("{ARN} {ARN}2:0f0e {mine}"),
            mine.clone(),
        ] {
            assert_eq!(find(&text), Some(mine.clone()), "{text}");
        }
        for text in [
            "",
            ARN,
            &format!("{ARN}:"),
            &format!("{ARN}: 0f0e"),
            &format!("{ARN}2:0f0e"),
            "arn:aws:sns:eu-west-1:111122223333:orders_shipped:0f0e",
            &format!("{ARN}:{}", "a".repeat(101)),
        ] {
            assert_eq!(find(text), None, "{text}");
        }
        assert!(is_subscription_to(&mine, ARN));
        assert!(!is_subscription_to(&format!("{mine}."), ARN));
    }

    #[test]
    fn an_empty_allowlist_allows_nothing() {
        let policy = Policy::new(&Settings::default());

        assert!(!policy.allows(ARN));
    }

    #[test]
    fn only_the_exact_sns_address_passes_as_certificate_url() {
        let policy = policy();
        let check = |url: &str| policy.certificate_origin(url, &topic("eu-west-1"));
        let file = "SimpleNotificationService-7ff5318490ec183fbaddaa2a969abfda.pem";
        let exact = format!("https://sns.eu-west-1.amazonaws.com/{file}");

        assert!(check(&exact).is_ok());
        let look_alike_hosts = [
            "https://evil.example",
            "https://s3.amazonaws.com",
            "https://s3.amazonaws.com/sns.eu-west-1.amazonaws.com",
            "https://sns.s3.amazonaws.com",
            "https://sns.s3-eu-west-1.amazonaws.com",
            "https://sns.s3-ap-southeast-2.amazonaws.com",
            "https://sns.s3.eu-west-1.amazonaws.com",
            "https://sns.eu-west-1.s3.amazonaws.com",
            "https://sns-eu-west-1.amazonaws.com",
            "https://sns.eu-west-1.amazonaws.com.cn",
            "https://sns.eu-west-1.amazonaws.com.evil.example",
            "https://sns.eu-west-1.amazonaws.comevil.example",
            "https://sns.eu-west-1.amazonaws.com@evil.example",
            "https://sns.eu-west-1.amazonaws.com:443@evil.example",
            "https://evil.example@sns.eu-west-1.amazonaws.com",
            "https://sns.eu-west-1.amazonaws.com:443",
            "https://sns.eu-west-1.amazonaws.com:8443",
            "https://sns.eu-west-1.amazonaws.com.",
            "https://SNS.eu-west-1.amazonaws.com",
            "https://sns.EU-WEST-1.amazonaws.com",
            "https://sns.us-east-1.amazonaws.com",
            "https://sns.amazonaws.com",
            "https://sns..amazonaws.com",
            "https://sns.eu-west-1.amazonaws.org",
            "https://sns.eu-west-1.аmazonaws.com",
            "https://sns.eu-west-1\\.amazonaws.com",
            "https://sns.eu-west-1.amazonaws.com\\evil.example",
            "https:///sns.eu-west-1.amazonaws.com",
            "https:\\\\sns.eu-west-1.amazonaws.com",
            "http://sns.eu-west-1.amazonaws.com",
            "HTTPS://sns.eu-west-1.amazonaws.com",
            " https://sns.eu-west-1.amazonaws.com",
            "https://sns%2Eeu-west-1.amazonaws.com",
            "//sns.eu-west-1.amazonaws.com",
            "",
        ];
        for host in look_alike_hosts {
            let url = format!("{host}/{file}");
            assert_eq!(
                check(&url),
                Err(VerifyError::UntrustedCertificateUrl),
                "{url}"
            );
        }
        let look_alike_paths = [
            "/SimpleNotificationService-.pem",
            "/SimpleNotificationService-xyz.pem",
            "/SimpleNotificationService-7FF5318490EC.pem",
            "/SimpleNotificationService-7ff5.pem.",
            "/SimpleNotificationService-7ff5.PEM",
            "/SimpleNotificationService-7ff5.pem?",
            "/SimpleNotificationService-7ff5.pem#",
            "/SimpleNotificationService-7ff5.pem?a=b",
            "/SimpleNotificationService-7ff5.pem#a",
            "/SimpleNotificationService-7ff5.pem/",
            "/SimpleNotificationService-7ff5.pem\n",
            "/SimpleNotificationService-7ff5\t.pem",
            "/SimpleNotificationService-7ff5%2e.pem",
            "/?SimpleNotificationService-7ff5.pem",
            "/a/SimpleNotificationService-7ff5.pem",
            "//SimpleNotificationService-7ff5.pem",
            "/./SimpleNotificationService-7ff5.pem",
            "/../SimpleNotificationService-7ff5.pem",
            "/SimpleNotificationService.pem",
            "/?Action=x&y=.pem",
            "/",
            "",
        ];
        for path in look_alike_paths {
            let url = format!("https://sns.eu-west-1.amazonaws.com{path}");
            assert_eq!(
                check(&url),
                Err(VerifyError::UntrustedCertificateUrl),
                "{url}"
            );
        }
    }

    #[test]
    fn a_certificate_url_ends_as_its_partition_does() {
        let policy = policy();
        for (region, suffix) in [
            ("cn-north-1", "amazonaws.com.cn"),
            ("eusc-de-east-1", "amazonaws.eu"),
            ("us-gov-west-1", "amazonaws.com"),
        ] {
            for other in ["amazonaws.com", "amazonaws.com.cn", "amazonaws.eu"] {
                let url = format!("https://sns.{region}.{other}/SimpleNotificationService-7f.pem");
                let allowed = policy.certificate_origin(&url, &topic(region)).is_ok();
                assert_eq!(allowed, other == suffix, "{url}");
            }
        }
    }

    #[test]
    fn a_topic_that_a_person_approved_is_allowed_alone() {
        let settings = settings();
        let policy = Policy::new(&settings);
        let stranger = "arn:aws:sns:eu-west-1:111122223333:orders_shipped";
        assert!(!policy.allows(stranger));

        settings.known.approve_topic(stranger);

        assert!(policy.allows(stranger));
        assert!(!policy.allows("arn:aws:sns:eu-west-1:111122223333:orders_shipped2"));
        assert!(!policy.allows("arn:aws:sns:us-east-1:111122223333:orders_shipped"));
    }

    #[test]
    fn a_local_origin_lifts_the_rules_for_itself_only() {
        let local = local();
        let check = |url| local.certificate_origin(url, &topic("eu-west-1"));

        assert_eq!(
            check("http://127.0.0.1:4566/_aws/sns/cert.pem"),
            Ok(CertificateOrigin::Local)
        );
        for other in [
            "http://127.0.0.1:4566",
            "http://127.0.0.1:45666/cert.pem",
            "http://127.0.0.1:4566@evil.example/cert.pem",
            "http://127.0.0.1:4566.evil.example/cert.pem",
            "https://127.0.0.1:4566/cert.pem",
            "http://127.0.0.1/cert.pem",
            "http://127.0.0.2:4566/cert.pem",
            "http://127.0.0.1:4566\\@evil.example/cert.pem",
            "http://127.0.0.1:4566/ce\trt.pem",
            "http://localhost:4566/cert.pem",
        ] {
            assert_eq!(
                check(other),
                Err(VerifyError::UntrustedCertificateUrl),
                "{other}"
            );
            assert!(
                policy()
                    .certificate_origin(other, &topic("eu-west-1"))
                    .is_err()
            );
        }
        let sns = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-7f.pem";
        assert!(matches!(check(sns), Ok(CertificateOrigin::Sns { .. })));
    }

    #[test]
    fn subscribe_url_must_confirm_its_own_topic_and_token() {
        let policy = policy();
        let check = |url: &str| policy.check_subscribe_url(url, ARN, TOKEN);
        let base = "https://sns.eu-west-1.amazonaws.com/";
        let escaped = ARN.replace(':', "%3A");

        for good in [
            format!("{base}?Action=ConfirmSubscription&TopicArn={ARN}&Token={TOKEN}"),
            format!("{base}?Action=ConfirmSubscription&TopicArn={escaped}&Token={TOKEN}"),
            format!("{base}?Token={TOKEN}&TopicArn={ARN}&Action=ConfirmSubscription"),
        ] {
            assert_eq!(check(&good), Ok(()), "{good}");
        }
        let rest = format!("?Action=ConfirmSubscription&TopicArn={ARN}&Token={TOKEN}");
        for bad in [
            format!("https://evil.example/{rest}"),
            format!("http://169.254.169.254/{rest}"),
            format!("http://sns.eu-west-1.amazonaws.com/{rest}"),
            format!("https://sns.us-east-1.amazonaws.com/{rest}"),
            format!("https://sns.eu-west-1.amazonaws.com.evil.example/{rest}"),
            format!("https://sns.eu-west-1.amazonaws.com:443/{rest}"),
            format!("https://sns.eu-west-1.amazonaws.com@evil.example/{rest}"),
            format!("https://sns.eu-west-1.amazonaws.com{rest}"),
            format!("{base}x{rest}"),
            format!("{base}{rest}&Action=ConfirmSubscription"),
            format!("{base}{rest}&Version=2010-03-31"),
            format!("{base}{rest}#"),
            format!("{base}{rest}\n"),
            format!("{base}?Action=Unsubscribe&TopicArn={ARN}&Token={TOKEN}"),
            format!("{base}?Action=ConfirmSubscription&TopicArn={ARN}x&Token={TOKEN}"),
            format!("{base}?Action=ConfirmSubscription&TopicArn={ARN}&Token={TOKEN}0"),
            format!("{base}?Action=ConfirmSubscription&TopicArn={ARN}&Token="),
            format!("{base}?Action=ConfirmSubscription&TopicArn={ARN}"),
            format!("{base}?action=ConfirmSubscription&TopicArn={ARN}&Token={TOKEN}"),
            base.to_owned(),
            String::new(),
        ] {
            assert_eq!(
                check(&bad),
                Err(VerifyError::UntrustedSubscribeUrl),
                "{bad}"
            );
        }
        let empty = format!("{base}?Action=ConfirmSubscription&TopicArn={ARN}&Token=");
        assert!(policy.check_subscribe_url(&empty, ARN, "").is_err());
    }

    #[test]
    fn a_local_subscribe_url_keeps_the_rules_on_topic_and_token() {
        let check = |url: &str| local().check_subscribe_url(url, ARN, TOKEN);
        let base = "http://127.0.0.1:4566/sns";

        let good = format!("{base}?Action=ConfirmSubscription&TopicArn={ARN}&Token={TOKEN}");
        assert_eq!(check(&good), Ok(()));
        assert!(check(&good.replace("shipped", "other")).is_err());
        assert!(check(&good.replace("Confirm", "Delete")).is_err());
        assert!(check(&good.replace("4566", "4567")).is_err());
    }

    #[test]
    fn certificate_names_follow_the_table_of_aws_and_the_settings() {
        let policy = Policy::new(&Settings {
            certificate_names: BTreeMap::from([(
                "eu-north-9".to_owned(),
                "sns-new.amazonaws.com".to_owned(),
            )]),
            ..settings()
        });
        for (region, name) in [
            ("eu-west-1", "sns.amazonaws.com"),
            ("us-east-1", "sns.amazonaws.com"),
            ("me-south-1", "sns-signing.me-south-1.amazonaws.com"),
            ("mx-central-1", "sns-signing.mx-central-1.amazonaws.com"),
            ("cn-north-1", "sns-cn-north-1.amazonaws.com.cn"),
            ("cn-northwest-1", "sns-cn-northwest-1.amazonaws.com.cn"),
            ("cn-northwest-9", "sns.amazonaws.com.cn"),
            ("us-gov-east-1", "sns-us-gov-west-1.amazonaws.com"),
            ("us-gov-west-1", "sns-us-gov-west-1.amazonaws.com"),
            ("eu-north-9", "sns-new.amazonaws.com"),
        ] {
            assert_eq!(
                policy.certificate_name(region).as_deref(),
                Some(name),
                "{region}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_certificate_url_that_passes_leads_to_sns_in_its_region(
            scheme in "(https|http|HTTPS|ftp)",
            user in "(|user@|user:p@|evil\\.example@)",
            host in "(sns|s3|SNS|sns\\.s3)(\\.|-)(eu-west-1|us-east-1|cn-north-1|)\\.amazonaws\\.(com|com\\.cn|org)(\\.|)",
            port in "(|:443|:8443)",
            path in "/(|/|\\.\\./|a/)SimpleNotificationService-[0-9a-fA-F]{0,6}(\\.pem|)",
            tail in "(|\\?|\\?a=b|#|\\.pem|%00|\t|\\\\)",
        ) {
            let url = format!("{scheme}://{user}{host}{port}{path}{tail}");
            if policy().certificate_origin(&url, &topic("eu-west-1")).is_ok() {
                let read = Url::parse(&url).unwrap();
                prop_assert_eq!(read.as_str(), &url, "no parser may change it");
                prop_assert_eq!(read.scheme(), "https");
                prop_assert_eq!(read.host_str(), Some("sns.eu-west-1.amazonaws.com"));
                prop_assert_eq!((read.username(), read.password(), read.port()), ("", None, None));
                prop_assert_eq!((read.query(), read.fragment()), (None, None));
                prop_assert!(read.path().starts_with("/SimpleNotificationService-"));
                prop_assert!(read.path().ends_with(".pem"));
            }
        }

        #[test]
        fn one_changed_character_is_one_too_many(place in 0usize..83, with in any::<char>()) {
            let url = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-7ff5318490ec.pem";
            let mut characters: Vec<char> = url.chars().collect();
            let place = place % characters.len();
            characters[place] = with;
            let changed: String = characters.into_iter().collect();
            let in_hex = (62..74).contains(&place) && matches!(with, '0'..='9' | 'a'..='f');
            prop_assert_eq!(
                policy().certificate_origin(&changed, &topic("eu-west-1")).is_ok(),
                changed == url || in_hex
            );
        }

        #[test]
        fn any_text_is_checked_without_panic(text in ".{0,80}") {
            let _ = TopicArn::parse(&text);
            let _ = policy().certificate_origin(&text, &topic("eu-west-1"));
            let _ = local().check_subscribe_url(&text, ARN, &text);
        }
    }
}
