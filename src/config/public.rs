//! `[public]`: the listener that SNS reaches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;
use url::Url;

use super::check::{self, base_url, excerpt};
use super::layers::{Layers, show};

/// Settings of the public listener.
#[derive(Clone, Debug)]
pub struct PublicConfig {
    /// `public.url`: the HTTPS address of the proxy, without the webhook's path. Only a loopback
    /// address may be `http`.
    pub url: Url,
    /// `public.listen`, default `0.0.0.0:8080`.
    pub listen: SocketAddr,
    /// `public.drain_timeout`, default 20 s: time for open requests to finish after SIGTERM.
    pub drain_timeout: Duration,
    /// `public.trusted_proxies`, default loopback: proxies whose headers for a request's id and
    /// the client's address are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Not a setting: connections at once, 2048; the next one waits to be accepted.
    pub max_connections: usize,
    /// Not a setting: time for a request's headers, 10 s.
    pub header_timeout: Duration,
    /// Not a setting: time for a request's body, 10 s; SNS itself gives up after 15 s.
    pub body_timeout: Duration,
}

impl PublicConfig {
    /// Returns the defaults, with this address.
    pub fn at(url: Url) -> Self {
        Self {
            url,
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            drain_timeout: Duration::from_secs(20),
            trusted_proxies: vec![
                IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
                IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
            ],
            max_connections: 2048,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
        }
    }
}

/// Reads `[public]`; none if its URL, which has no default, is missing or invalid.
pub(super) fn read(layers: &mut Layers<'_>) -> Option<PublicConfig> {
    let url = layers.text(
        "public.url",
        None,
        |text| public_url(text).map(Some),
        |url| {
            url.as_ref()
                .map_or(Value::Null, |url: &Url| url.as_str().into())
        },
    );
    if url.is_none() && !layers.is_invalid("public.url") {
        layers.report(
            "public.url",
            "is not set; write the https address at which SNS reaches this service, or set \
             IVESK_WEBHOOK_PUBLIC_URL",
        );
    }
    // Without the URL the section's other settings are still checked.
    let is_valid = url.is_some();
    let placeholder = || Url::parse("http://localhost/").expect("a constant URL is valid");
    let default = PublicConfig::at(url.unwrap_or_else(placeholder));
    let config = PublicConfig {
        listen: layers.text("public.listen", default.listen, check::listen, show),
        drain_timeout: layers.duration("public.drain_timeout", default.drain_timeout),
        trusted_proxies: layers.list(
            "public.trusted_proxies",
            default.trusted_proxies,
            network,
            |network| show_network(*network).into(),
        ),
        ..PublicConfig::at(default.url)
    };
    is_valid.then_some(config)
}

/// Parses `public.url`.
fn public_url(text: &str) -> Result<Url, String> {
    let url = base_url(text)?;
    // SNS delivers to no such host (AWS re:Post, "HTTPS endpoints").
    if url.domain().is_some_and(|name| name.contains('_')) {
        return Err(
            "has an underscore in its host name, and SNS does not deliver to such hosts; use \
             another name"
                .to_owned(),
        );
    }
    let segments: Vec<&str> = url.path().split('/').collect();
    if let Some(at) = segments.iter().position(|segment| *segment == "webhooks") {
        let mut right = url.clone();
        right.set_path(&segments[..at].join("/"));
        // What follows may contain a token.
        return Err(format!(
            "contains /webhooks, which the service adds itself; write `{}`",
            right.as_str().trim_end_matches('/')
        ));
    }
    Ok(url)
}

/// Parses an address or a network.
fn network(text: &str) -> Result<IpNet, String> {
    let single = text.parse::<IpAddr>().map(IpNet::from);
    let network = single.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
        format!(
            "`{}` is neither an IP address nor a network; write one such as 10.0.0.5 or 10.0.0.0/24",
            excerpt(text)
        )
    })?;
    if network.prefix_len() == 0 {
        return Err(format!(
            "`{network}` includes every address, so that anybody could forge the trusted headers; \
             write your proxies' addresses"
        ));
    }
    if network.trunc() != network {
        return Err(format!(
            "`{network}` is an address within a network; write `{}` for that address, or `{}` for \
             the whole network",
            network.addr(),
            network.trunc()
        ));
    }
    Ok(network)
}

/// Formats a network as [`network`] reads it: a single address without its prefix length.
fn show_network(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}
