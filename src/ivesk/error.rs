//! Errors of requests to the API.

use std::time::Duration;

use serde::Deserialize;

use crate::visible::foreign;

/// An error of a request.
///
/// Contains no URL and no body: both may contain secrets.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A required setting is not set.
    #[error("`{setting}` is not set: {why}")]
    NotConfigured {
        /// The setting's name.
        setting: &'static str,
        /// The reason for having no default, and how to find the value.
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
        /// The `message` of a JSON error body, shortened; `None` if there is none.
        message: Option<String>,
        /// `Retry-After`, seconds or date, as a delay.
        retry_after: Option<Duration>,
    },
    /// The answer is longer than `api.max_page_bytes`.
    #[error("Įvesk.lt's answer is larger than {limit_bytes} bytes (`api.max_page_bytes`)")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// A success whose body can't be decompressed.
    #[error("Įvesk.lt's answer can't be read: {0}")]
    Compressed(String),
    /// A success whose body is not what the API documents.
    #[error("Įvesk.lt's answer is not what its API documents: {0}")]
    Malformed(String),
}

/// Returns what to do about a status, if that is known.
fn advice(status: u16) -> &'static str {
    match status {
        401 => " (the API key is invalid; make a new one at app.ivesk.lt/settings/general)",
        _ => "",
    }
}

/// Returns the `message` of a JSON error body, safe to log; `None` if there is none.
///
/// `secrets` are masked: the vendor may quote the key that it refuses.
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
    let text = foreign(&text);
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_message_is_short_clean_and_holds_no_secret() {
        let read = |text: &str| message(text.as_bytes(), &["dp_key"]);
        assert_eq!(
            read(
                r#"{"message":"Key dp_key may not\u001b[31m read\nhttps://s3/x?Signature=abc now"}"#
            )
            .as_deref(),
            Some("Key [secret] may not [31m read [address] now")
        );
        let long = format!(r#"{{"message":"{}"}}"#, "ž".repeat(1000));
        assert_eq!(read(&long).map(|text| text.chars().count()), Some(301));
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
}
