//! Creates the HTTP clients: every request to another host is made by one of them.
//!
//! No redirects, no proxy but `egress.proxy`, no cookies, no compression
//! (`sns_messages::http`). Callers check that a host is allowed before they build a request.

use std::time::{Duration, UNIX_EPOCH};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use sns_messages::http;
pub use sns_messages::http::{BodyError, Proxy, SetupError, describe, read_body};

use crate::domain::Timestamp;

/// `User-Agent` of every request.
pub const USER_AGENT: &str = concat!("ivesk-webhook/", env!("CARGO_PKG_VERSION"));

/// Returns a client whose requests end after `timeout`, body included.
///
/// # Errors
///
/// If HTTPS can't be set up, for instance without CA certificates.
pub fn client(proxy: Option<&Proxy>, timeout: Duration) -> Result<reqwest::Client, SetupError> {
    http::client(USER_AGENT, proxy, timeout)
}

/// Returns the same client, whose answers also contain the other side's certificate.
///
/// # Errors
///
/// As [`client`].
pub fn client_that_sees_certificates(
    proxy: Option<&Proxy>,
    timeout: Duration,
) -> Result<reqwest::Client, SetupError> {
    let builder = http::client_builder(USER_AGENT, proxy, timeout);
    Ok(builder.tls_info(true).build()?)
}

/// Returns the wait from `now` that `Retry-After` asks for, at most `longest`.
///
/// Parses seconds or a date (RFC 9110 §10.2.3); returns `None` for anything else.
pub fn retry_after(headers: &HeaderMap, now: Timestamp, longest: Duration) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean a very long wait.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        let millis = date.duration_since(UNIX_EPOCH).ok()?.as_millis();
        Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)).since(now)
    };
    Some(delay.min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(value: &str) -> Option<Duration> {
        let now = Timestamp::parse("1994-11-06T08:49:00Z").expect("a valid time");
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().expect("a header value"));
        retry_after(&headers, now, Duration::from_secs(3600))
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
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
}
