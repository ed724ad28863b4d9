//! Classifies what arrived where the head of a request was expected.

use hyper::header::{HeaderMap, USER_AGENT};

use super::headers::SNS_PREFIX;
use crate::unexpected::UnexpectedRequest;

/// `User-Agent` of SNS.
const SNS_AGENT: &str = "Amazon Simple Notification Service Agent";

/// Length of the longest beginning that [`of_first_bytes`] recognizes.
pub(super) const FIRST_BYTES: usize = 14;

/// Beginnings of other protocols. None is also that of an HTTP/1 request.
const OTHER_PROTOCOLS: [(&[u8], UnexpectedRequest); 4] = [
    (b"PROXY ", UnexpectedRequest::ProxyProtocol),
    (b"\r\n\r\n\0\r\nQUIT\n", UnexpectedRequest::ProxyProtocol),
    // A handshake record of TLS 1.0 to 1.3.
    (b"\x16\x03", UnexpectedRequest::Tls),
    (b"PRI * HTTP/2.0", UnexpectedRequest::Http2),
];

/// Returns the other protocol that begins with `bytes`, the first of a connection.
pub(super) fn of_first_bytes(bytes: &[u8]) -> Option<UnexpectedRequest> {
    OTHER_PROTOCOLS
        .iter()
        .find(|(beginning, _)| bytes.starts_with(beginning))
        .map(|(_, kind)| *kind)
}

/// Returns the kind of request that ended a connection with `error`; `None` if the head of a
/// request was not the cause. `unread` is what came since the last complete head, and
/// `in_first_head` is true if there was none.
pub(super) fn of_error(
    error: &hyper::Error,
    unread: &[u8],
    in_first_head: bool,
) -> Option<UnexpectedRequest> {
    if error.is_parse_too_large() {
        return Some(UnexpectedRequest::HeadTooLarge);
    }
    if error.is_parse() {
        return Some(
            of_first_bytes(unread).unwrap_or(if has_folded_header(unread) {
                UnexpectedRequest::FoldedHeader
            } else {
                UnexpectedRequest::MalformedHead
            }),
        );
    }
    // An idle connection ends with a timeout, too; one that is reset within a body leaves the
    // body's bytes.
    let cut_off = error.is_incomplete_message() || error.is_timeout() || in_first_head;
    (cut_off && !unread.is_empty()).then_some(UnexpectedRequest::CutOff)
}

/// Returns true if a line of the head begins with white space.
fn has_folded_header(head: &[u8]) -> bool {
    let mut lines = head.split(|byte| *byte == b'\n').skip(1);
    lines
        .by_ref()
        .take_while(|line| !matches!(line, [] | [b'\r']))
        .any(|line| matches!(line, [b' ' | b'\t', ..]))
}

/// Returns true if these bytes show that SNS sent them.
pub(super) fn bytes_are_from_sns(bytes: &[u8]) -> bool {
    contains(bytes, SNS_PREFIX.as_bytes()) || contains(bytes, SNS_AGENT.as_bytes())
}

/// Returns true if these headers show that SNS sent them, which proves nothing.
pub(super) fn headers_are_from_sns(headers: &HeaderMap) -> bool {
    let mut names = headers.keys();
    names.any(|name| name.as_str().starts_with(SNS_PREFIX))
        || headers
            .get(USER_AGENT)
            .is_some_and(|agent| contains(agent.as_bytes(), SNS_AGENT.as_bytes()))
}

/// Returns true if `bytes` contain `text`, whatever the case of ASCII letters.
fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_method_begins_like_another_protocol() {
        for method in ["POST", "GET", "PROPFIND", "PUT", "PATCH", "OPTIONS"] {
            let line = format!("{method} /webhooks/x HTTP/1.1\r\n");
            assert_eq!(of_first_bytes(line.as_bytes()), None);
        }
        for (beginning, kind) in OTHER_PROTOCOLS {
            assert!(beginning.len() <= FIRST_BYTES);
            assert_eq!(of_first_bytes(beginning), Some(kind));
            assert_eq!(of_first_bytes(&beginning[..beginning.len() - 1]), None);
        }
    }

    #[test]
    fn a_folded_header_is_recognized_in_the_head_only() {
        let folded: &[u8] = b"POST / HTTP/1.1\r\nx-a: 1,\r\n 2\r\n\r\n";
        assert!(has_folded_header(folded));
        assert!(has_folded_header(b"POST / HTTP/1.1\nx-a: 1,\n\t2\n\n"));
        let body: &[u8] = b"POST / HTTP/1.1\r\nx-a: 1\r\n\r\n{\r\n  \"Type\"";
        assert!(!has_folded_header(body));
    }

    #[test]
    fn sns_is_recognized_by_its_headers_or_its_agent() {
        for bytes in [
            "POST / HTTP/1.1\r\nX-Amz-Sns-Message-Type: Notification\r\n",
            "user-agent: Amazon Simple Notification Service Agent\r\n",
        ] {
            assert!(bytes_are_from_sns(bytes.as_bytes()), "{bytes}");
        }
        assert!(!bytes_are_from_sns(b"user-agent: curl/8\r\n"));
        assert!(!bytes_are_from_sns(b""));
    }
}
