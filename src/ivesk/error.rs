//! Why the API did not give what was asked for.

use std::time::{Duration, UNIX_EPOCH};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

use crate::domain::Timestamp;

/// The longest that a `Retry-After` makes us wait: asking once an hour harms nobody,
/// and a date that is wrong by a year must not stop the pulling for one.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);
/// The most characters of an error's message that are kept.
const MAX_MESSAGE_CHARS: usize = 300;

/// Why the API did not give what was asked for.
///
/// Holds no URL and no body: both may hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The setting that this needs is not set.
    #[error("`{setting}` is not set: {why}")]
    NotConfigured {
        /// The setting's name.
        setting: &'static str,
        /// Why it has no default, and how to find its value.
        why: &'static str,
    },
    /// No connection, or no answer in time.
    #[error("Įvesk.lt could not be reached: {0}")]
    Unreachable(String),
    /// A status other than success.
    #[error(
        "Įvesk.lt answered {status}{}{}",
        message.as_deref().map(|m| format!(": {m}")).unwrap_or_default(),
        advice(*status)
    )]
    Status {
        /// The HTTP status.
        status: u16,
        /// The `message` of a JSON error body, shortened; `None` where there is none.
        message: Option<String>,
        /// `Retry-After`, seconds or date turned into a delay.
        retry_after: Option<Duration>,
    },
    /// The answer is longer than `api.max_page_bytes`.
    #[error("Įvesk.lt's answer is larger than {limit_bytes} bytes (`api.max_page_bytes`)")]
    TooLarge {
        /// The most that is read.
        limit_bytes: usize,
    },
    /// A success whose body is not what the API documents.
    #[error("Įvesk.lt's answer is not what its API documents: {0}")]
    Malformed(String),
}

/// What a status asks the reader to do, where that is plain.
fn advice(status: u16) -> &'static str {
    match status {
        401 => " (it does not take the API key; app.ivesk.lt/settings/general makes a new one)",
        _ => "",
    }
}

/// The `message` of a JSON error body, fit to be logged; `None` where there is none.
///
/// `secrets` are blotted out: the vendor may quote the key that it refuses.
pub(super) fn message(body: &[u8], secrets: &[&str]) -> Option<String> {
    #[derive(Deserialize)]
    struct ErrorBody {
        message: String,
    }
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let text = serde_json::from_slice::<ErrorBody>(body).ok()?.message;
    let text = secrets
        .iter()
        .filter(|secret| !secret.is_empty())
        .fold(text, |text, secret| text.replace(secret, "[secret]"));
    let text = without_addresses(&text);
    // Control characters could forge lines of a log or drive a terminal.
    let spaced = text.replace(char::is_control, " ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let text: String = words.join(" ").chars().take(MAX_MESSAGE_CHARS).collect();
    (!text.is_empty()).then_some(text)
}

/// `text` with each address in it replaced by `[address]`: it may be a presigned one.
fn without_addresses(text: &str) -> String {
    let ends_address = |c: char| c.is_whitespace() || c.is_control() || "\"'<>".contains(c);
    let mut clean = String::new();
    let mut rest = text;
    while let Some(colon) = rest.find("://") {
        let (before, after) = rest.split_at(colon);
        let scheme = before
            .rfind(|c: char| !c.is_ascii_alphanumeric())
            .map_or(0, |at| {
                at + before[at..].chars().next().map_or(0, char::len_utf8)
            });
        clean.push_str(&before[..scheme]);
        clean.push_str("[address]");
        rest = after.find(ends_address).map_or("", |end| &after[end..]);
    }
    clean.push_str(rest);
    clean
}

/// How long `Retry-After` asks us to wait from `now`, at most an hour.
///
/// Seconds or a date, as RFC 9110 §10.2.3 has it; `None` for anything else.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are still "very long".
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let moment = httpdate::parse_http_date(text).ok()?;
        let millis = moment.duration_since(UNIX_EPOCH).ok()?.as_millis();
        Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)).since(now)
    };
    Some(delay.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn delay(value: &str) -> Option<Duration> {
        let now = Timestamp::parse("1994-11-06T08:49:00Z").expect("a valid time");
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().expect("a header value"));
        retry_after(&headers, now)
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_date_and_never_exceeds_an_hour() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(delay("7"), seconds(7));
        assert_eq!(delay("Sun, 06 Nov 1994 08:49:37 GMT"), seconds(37));
        assert_eq!(delay("Sunday, 06-Nov-94 08:49:37 GMT"), seconds(37));
        assert_eq!(delay("Sun, 06 Nov 1994 08:48:00 GMT"), seconds(0));
        assert_eq!(delay("Sat, 06 Nov 2094 08:48:00 GMT"), seconds(3600));
        assert_eq!(delay("99999999999999999999999"), seconds(3600));
        for bad in ["", "-1", "soon", "1.5"] {
            assert_eq!(delay(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_error_message_is_short_and_holds_no_key_no_address_and_no_control_character() {
        let read = |text: &str| message(text.as_bytes(), &["dp_key"]);
        assert_eq!(
            read(
                r#"{"message":"Key dp_key may not\u001b[31m read\nhttps://s3/x?Signature=abc now"}"#
            )
            .as_deref(),
            Some("Key [secret] may not [31m read [address] now")
        );
        let long = format!(r#"{{"message":"{}"}}"#, "ž".repeat(1000));
        assert_eq!(read(&long).map(|text| text.chars().count()), Some(300));
        for none in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"message":7}"#,
            r#"{"message":"\n"}"#,
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_address_survives(before in "\\PC{0,20}", after in "\\PC{0,20}") {
            let text = format!("{before} https://host/secret {after}");
            prop_assert!(!without_addresses(&text).contains("host/secret"));
        }
    }
}
