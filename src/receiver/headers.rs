//! The headers of an SNS message, and their form in the quarantine.

use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::sns::SnsHeaders;

/// The prefix of SNS's own headers.
pub const SNS_PREFIX: &str = "x-amz-sns-";

/// Most bytes stored of one message's headers.
const MAX_STORED_BYTES: usize = 8 * 1024;

/// Returns the headers that the envelope is compared with.
pub fn sns_headers(headers: &HeaderMap) -> SnsHeaders {
    const MESSAGE_TYPE: HeaderName = HeaderName::from_static("x-amz-sns-message-type");
    const MESSAGE_ID: HeaderName = HeaderName::from_static("x-amz-sns-message-id");
    const TOPIC_ARN: HeaderName = HeaderName::from_static("x-amz-sns-topic-arn");
    const SUBSCRIPTION_ARN: HeaderName = HeaderName::from_static("x-amz-sns-subscription-arn");
    const RAW_DELIVERY: HeaderName = HeaderName::from_static("x-amz-sns-rawdelivery");
    let text = |name: HeaderName| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    SnsHeaders {
        message_type: text(MESSAGE_TYPE),
        message_id: text(MESSAGE_ID),
        topic_arn: text(TOPIC_ARN),
        subscription_arn: text(SUBSCRIPTION_ARN),
        raw_delivery: headers
            .get(RAW_DELIVERY)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")),
    }
}

/// Returns SNS's headers and the content type as `name: value` lines, without all others:
/// a proxy may add secrets of its own.
pub fn header_lines(headers: &HeaderMap) -> String {
    let mut lines = String::new();
    for (name, value) in headers {
        let stored = name == CONTENT_TYPE || name.as_str().starts_with(SNS_PREFIX);
        let Some(value) = value.to_str().ok().filter(|_| stored) else {
            continue;
        };
        if lines.len() + name.as_str().len() + value.len() + 3 > MAX_STORED_BYTES {
            break;
        }
        lines.push_str(name.as_str());
        lines.push_str(": ");
        lines.push_str(value);
        lines.push('\n');
    }
    lines
}

/// Parses the lines of [`header_lines`]; lines of another form are skipped.
pub fn read_header_lines(lines: &str) -> HeaderMap {
    lines
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_headers_are_snss_and_content_type_and_round_trip() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-amz-sns-message-type",
            HeaderValue::from_static("Notification"),
        );
        headers.insert("x-amz-sns-rawdelivery", HeaderValue::from_static("TRUE"));
        headers.insert("content-type", HeaderValue::from_static("text/plain"));
        headers.insert("authorization", HeaderValue::from_static("Bearer planted"));
        headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));

        let lines = header_lines(&headers);

        assert!(
            !lines.contains("planted") && !lines.contains("192.0.2.1"),
            "{lines}"
        );
        let parsed = read_header_lines(&lines);
        assert_eq!(parsed.len(), 3);
        assert!(sns_headers(&parsed).raw_delivery);
        assert_eq!(
            sns_headers(&parsed).message_type.as_deref(),
            Some("Notification")
        );
    }
}
