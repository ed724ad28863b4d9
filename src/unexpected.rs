//! Requests that reach the public listener and no webhook, in one table: the code, what came,
//! and the setting to look at, mostly of the proxy in front.
//!
//! The code is the field in the log, the label of the metric, the subject of the alarm and the
//! name in `docs/refusals.md`. A new variant does not compile until it has a row in the table.

use serde::{Deserialize, Serialize};

/// A kind of request that reached the public listener and no webhook.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum UnexpectedRequest {
    /// A load balancer announced the client's address before the request.
    ProxyProtocol,
    /// A client spoke TLS to the plain port.
    Tls,
    /// A client spoke HTTP/2 without TLS.
    Http2,
    /// The head was larger than the listener's limits.
    HeadTooLarge,
    /// A header continued on the next line.
    FoldedHeader,
    /// What came was not HTTP.
    MalformedHead,
    /// The head was not complete when the connection ended or the time was over.
    CutOff,
    /// The path of a webhook without its beginning.
    PathCut,
    /// The path of a webhook after something else.
    PathPrefix,
    /// The path of a webhook with a slash too many.
    PathSlash,
    /// Any other path.
    UnknownPath,
    /// The path of a webhook with a token that is not its own.
    UnknownToken,
    /// The path of a webhook, but not POST.
    WrongMethod,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The code.
    pub code: &'static str,
    /// What came, as a sentence without a period.
    pub found: &'static str,
    /// What to do about it.
    pub fix: &'static str,
}

macro_rules! explanations {
    ($($variant:ident => $code:literal, $found:literal, $fix:literal;)+) => {
        impl UnexpectedRequest {
            /// Every kind, in the order of the checks.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the kind's row in the table.
            pub const fn explanation(self) -> Explanation {
                match self {
                    $(Self::$variant => Explanation {
                        code: $code,
                        found: $found,
                        fix: $fix,
                    },)+
                }
            }
        }
    };
}

explanations! {
    ProxyProtocol => "proxy_protocol",
        "a connection began with the PROXY protocol instead of a request",
        "turn the PROXY protocol off towards this service: `send-proxy` in HAProxy's `server` line, \
         `proxy_protocol on` in nginx's `stream`, `proxy_protocol_v2.enabled` of an AWS target group";
    Tls => "tls",
        "a connection began with TLS, but this listener speaks plain HTTP",
        "let the proxy forward plain HTTP: `proxy_pass http://` in nginx, no `https://` in Caddy's \
         `reverse_proxy`, no `ssl` in HAProxy's `server` line, protocol HTTP in an AWS target group";
    Http2 => "http2",
        "a connection began with HTTP/2 without TLS, but this listener speaks HTTP/1.1",
        "let the proxy forward HTTP/1.1: `proxy_http_version 1.1` in nginx, no `h2c://` in Caddy's \
         `reverse_proxy`, no `proto h2` in HAProxy's `server` line, protocol version HTTP1 in an AWS \
         target group";
    HeadTooLarge => "head_too_large",
        "a request's head had more than 128 KiB or 100 headers",
        "let the proxy remove the cookies and headers that SNS does not send";
    FoldedHeader => "folded_header",
        "a request had a header that continues on the next line, which HTTP/1.1 forbids",
        "let the proxy write each header that it adds on one line";
    MalformedHead => "malformed_head",
        "a request was not valid HTTP",
        "check which headers the proxy adds or changes; without a proxy's doing it is a scanner";
    CutOff => "cut_off",
        "a connection ended or stalled within the head of a request",
        "check the network and the time limits between the proxy and this service";
    PathCut => "path_cut",
        "a request had a webhook's path without /webhooks/ at its beginning",
        "let the proxy pass on the whole path: in nginx, `proxy_pass` with nothing after the port; in \
         Caddy, `handle` instead of `handle_path`; in HAProxy, no `replace-path`";
    PathPrefix => "path_prefix",
        "a request had a webhook's path with something before /webhooks/",
        "let the proxy remove the prefix of `public.url` from the path (docs/reverse-proxy.md, \"Below a prefix\")";
    PathSlash => "path_slash",
        "a request had a webhook's path with a slash too many",
        "let the proxy add no slash (in nginx, `proxy_pass` with nothing after the port), and compare \
         the subscription's target with `ivesk-webhook subscriptions create --print`";
    UnknownPath => "unknown_path",
        "a request had a path that is no webhook's",
        "compare the subscription's target with `ivesk-webhook subscriptions create --print`, and check \
         that the proxy changes no path";
    UnknownToken => "unknown_token",
        "a request had a webhook's path with a token that is not its own",
        "keep a token that is still subscribed in the list of `accounts.NAME.tokens`; another instance's \
         subscription must not lead here";
    WrongMethod => "wrong_method",
        "a webhook was requested with another method than POST",
        "remove redirects at the proxy: many clients repeat a redirected POST as GET";
}

impl UnexpectedRequest {
    /// Returns the kind's code.
    pub const fn code(self) -> &'static str {
        self.explanation().code
    }

    /// Returns true if only a client that is set up wrongly sends this, even one that does not
    /// show that it is SNS: a scanner may send the rest.
    pub const fn is_misconfiguration(self) -> bool {
        matches!(
            self,
            Self::ProxyProtocol
                | Self::Tls
                | Self::Http2
                | Self::HeadTooLarge
                | Self::FoldedHeader
                | Self::PathCut
                | Self::PathPrefix
                | Self::PathSlash
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_names_in_json() {
        for kind in UnexpectedRequest::ALL {
            let json = serde_json::to_value(kind).expect("a plain enum");
            assert_eq!(json, kind.code());
        }
    }
}
