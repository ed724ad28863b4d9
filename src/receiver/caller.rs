//! Identifies the sender of a request: the request's id and the client's address.
//!
//! A proxy in front passes both in headers. Anybody can send such headers, so they are
//! used only if `public.trusted_proxies` names the peer. Neither decides anything: they
//! serve to find a request in the log.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::Request;
use hyper::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::config::Config;
use crate::hex::hex;

/// The header that carries a request's id, in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header into which proxies write the addresses before them.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Longest id accepted from a proxy; a UUID has 36 characters.
const MAX_ID_CHARS: usize = 64;

/// Most proxies in front of this service, more than anybody has.
const MAX_HOPS: usize = 16;

/// The other end of a connection: the listener adds it to each request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The id of one request.
///
/// Visible ASCII of at most 64 characters, so it fits into a header and a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// Parses the id that a proxy sent; `None` if it is not fit for a log.
    fn parse(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let fits = (1..=MAX_ID_CHARS).contains(&bytes.len());
        if !fits || !bytes.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        value.to_str().ok().map(|text| Self(text.to_owned()))
    }

    /// Returns its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns it as the value of a header.
    pub(super) fn to_header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("visible ASCII is a valid header value")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The sender of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The request's id.
    pub request_id: RequestId,
    /// The client's address; `None` unless `log.client_addresses` is on.
    pub address: Option<IpAddr>,
}

/// Identifies the sender of each request.
#[derive(Debug)]
pub struct Callers {
    trusted: Vec<IpNet>,
    with_addresses: bool,
    /// Random, so that no two processes issue the same ids.
    process: String,
    issued: AtomicU64,
}

impl Callers {
    /// Creates one that trusts the proxies of `config`.
    ///
    /// # Errors
    ///
    /// If the system provides no random numbers.
    pub fn new(config: &Config) -> Result<Arc<Self>, getrandom::Error> {
        let mut process = [0; 8];
        getrandom::fill(&mut process)?;
        Ok(Arc::new(Self {
            trusted: config.public.trusted_proxies.clone(),
            with_addresses: config.log.client_addresses,
            process: hex(&process),
            issued: AtomicU64::new(0),
        }))
    }

    /// Returns the sender of this request.
    pub fn identify<B>(&self, request: &Request<B>) -> Caller {
        let peer = request
            .extensions()
            .get()
            .map(|Peer(address)| address.ip().to_canonical());
        let headers = request.headers();
        let trusted = peer.is_some_and(|peer| self.trusts(peer));
        let received = headers.get(REQUEST_ID).filter(|_| trusted);
        Caller {
            request_id: received
                .and_then(RequestId::parse)
                .unwrap_or_else(|| self.fresh_id()),
            address: peer
                .filter(|_| self.with_addresses)
                .map(|peer| self.client_behind(peer, headers)),
        }
    }

    /// Returns a new id. A counter is cheap, and ids need not be unpredictable.
    fn fresh_id(&self) -> RequestId {
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        RequestId(format!("{}-{number:x}", self.process))
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Returns the nearest address that is not a trusted proxy's.
    ///
    /// Each proxy appends the address before it at the right end, so everything left of
    /// the first untrusted address is that client's own claim. If a proxy adds nothing,
    /// or no address, its own address is returned.
    fn client_behind(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let hops = if headers.contains_key(FORWARDED_FOR) {
            hops(headers, &FORWARDED_FOR, address)
        } else {
            hops(headers, &FORWARDED, forwarded_for)
        };
        let mut nearest = peer;
        for hop in hops {
            match hop {
                Some(address) if self.trusts(nearest) => nearest = address,
                _ => break,
            }
        }
        nearest
    }
}

/// Returns the address of each hop in a header's lines, the last hop first.
fn hops(
    headers: &HeaderMap,
    name: &HeaderName,
    read: fn(&str) -> Option<IpAddr>,
) -> Vec<Option<IpAddr>> {
    let lines: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    lines
        .into_iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
        .take(MAX_HOPS)
        .map(|hop| read(std::str::from_utf8(hop).ok()?.trim()))
        .collect()
}

/// Returns the address of `for=` in one element of `Forwarded` (RFC 7239); `None` if it
/// is hidden: `for=unknown` or `for=_name`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim();
        let bare = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'))
            .unwrap_or(value);
        name.trim()
            .eq_ignore_ascii_case("for")
            .then(|| address(bare))?
    })
}

/// Parses an address as proxies write it: alone, in brackets, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let without_port = bare.parse::<IpAddr>().ok();
    without_port
        .or_else(|| {
            text.parse()
                .ok()
                .map(|with_port: SocketAddr| with_port.ip())
        })
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns callers that trust these networks.
    fn trusting(networks: &[&str]) -> Callers {
        Callers {
            trusted: networks
                .iter()
                .map(|network| network.parse().expect("a network"))
                .collect(),
            with_addresses: true,
            process: "p".to_owned(),
            issued: AtomicU64::new(0),
        }
    }

    fn request(peer: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let peer = SocketAddr::new(peer.parse().expect("an address"), 1);
        request.extension(Peer(peer)).body(()).expect("a request")
    }

    /// Returns the client's address of a request from `peer` with these headers.
    fn client(callers: &Callers, peer: &str, headers: &[(&str, &str)]) -> String {
        let caller = callers.identify(&request(peer, headers));
        caller.address.expect("addresses are on").to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_proxy() {
        let callers = trusting(&["10.0.0.0/8", "2001:db8::/32"]);
        for (lines, expected) in [
            (&["198.51.100.7"][..], "198.51.100.7"),
            (&["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
            (&["203.0.113.9, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            (&["203.0.113.9", "198.51.100.7,10.0.0.2"], "198.51.100.7"),
            (&["198.51.100.7:4711"], "198.51.100.7"),
            (&["[2001:db9::1]:4711 ,2001:db8::2"], "2001:db9::1"),
            (&["::ffff:198.51.100.7"], "198.51.100.7"),
            // All are trusted: the request began at the farthest.
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // An entry that is no address ends the walk.
            (&["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["198.51.100.7, "], "10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            let headers: Vec<_> = lines
                .iter()
                .map(|line| ("x-forwarded-for", *line))
                .collect();
            assert_eq!(
                client(&callers, "10.0.0.1", &headers),
                expected,
                "{lines:?}"
            );
            let mapped = client(&callers, "::ffff:10.0.0.1", &headers);
            assert_eq!(mapped, expected, "{lines:?}");
        }
    }

    #[test]
    fn the_forwarded_header_is_read_where_the_usual_one_is_missing() {
        let callers = trusting(&["10.0.0.0/8"]);
        for (line, expected) in [
            ("for=198.51.100.7", "198.51.100.7"),
            (
                "for=203.0.113.9, proto=https;For=\"198.51.100.7:80\";by=10.0.0.1",
                "198.51.100.7",
            ),
            ("for=\"[2001:db8::7]:4711\", for=10.0.0.2", "2001:db8::7"),
            ("for=198.51.100.7, for=_hidden", "10.0.0.1"),
            ("for=unknown", "10.0.0.1"),
            ("by=198.51.100.7", "10.0.0.1"),
        ] {
            let headers = [("forwarded", line)];
            assert_eq!(client(&callers, "10.0.0.1", &headers), expected, "{line}");
        }
        // A proxy that writes one of them may pass on the other from a stranger.
        let both = [
            ("forwarded", "for=203.0.113.9"),
            ("x-forwarded-for", "198.51.100.7"),
        ];
        assert_eq!(client(&callers, "10.0.0.1", &both), "198.51.100.7");
    }

    #[test]
    fn headers_of_an_untrusted_peer_are_ignored() {
        let headers = [
            ("x-forwarded-for", "203.0.113.9"),
            ("forwarded", "for=203.0.113.9"),
            ("x-request-id", "forged"),
        ];
        for trusted in [&[][..], &["10.0.0.0/8"]] {
            let callers = trusting(trusted);
            assert_eq!(client(&callers, "192.0.2.1", &headers), "192.0.2.1");
            let caller = callers.identify(&request("192.0.2.1", &headers));
            assert_eq!(caller.request_id.as_str(), "p-1");
        }
    }

    #[test]
    fn the_number_of_proxies_passed_is_bounded() {
        let callers = trusting(&["10.0.0.0/8"]);
        let many = format!("198.51.100.7{}", ", 10.0.0.2".repeat(MAX_HOPS));
        assert_eq!(
            client(&callers, "10.0.0.1", &[("x-forwarded-for", &many)]),
            "10.0.0.2"
        );
    }

    #[test]
    fn a_proxy_s_request_id_is_kept_and_an_odd_one_replaced() {
        let callers = trusting(&["10.0.0.0/8"]);
        let id = |header: &str| {
            let request = request("10.0.0.1", &[("x-request-id", header)]);
            callers.identify(&request).request_id.to_string()
        };
        let longest = "x".repeat(MAX_ID_CHARS);
        for good in ["a", "5e7f-\"1\"", &longest] {
            assert_eq!(id(good), good);
        }
        let mut seen = std::collections::HashSet::new();
        for bad in ["", "a b", "ąž", "a\tb", &format!("{longest}x")] {
            let fresh = id(bad);
            assert!(fresh.starts_with("p-"), "{bad}: {fresh}");
            assert!(seen.insert(fresh), "{bad}: issued twice");
        }
    }

    #[test]
    fn a_client_address_that_is_not_logged_is_not_parsed() {
        let mut callers = trusting(&[]);
        callers.with_addresses = false;
        assert_eq!(callers.identify(&request("192.0.2.1", &[])).address, None);
    }

    proptest! {
        #[test]
        fn no_header_causes_a_failure(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut request = request("10.0.0.1", &[]);
                for name in [&FORWARDED_FOR, &FORWARDED, &REQUEST_ID] {
                    request.headers_mut().insert(name.clone(), value.clone());
                    trusting(&["0.0.0.0/0", "::/0"]).identify(&request);
                }
            }
        }
    }
}
