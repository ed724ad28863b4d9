//! `[public]`: the listener that SNS reaches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;
use url::Url;

use super::api::ApiConfig;
use super::check::{self, base_url, shortened};
use super::layers::{Layers, show};

/// The listener that SNS reaches.
#[derive(Clone, Debug)]
pub struct PublicConfig {
    /// `public.url`: the HTTPS address under which the proxy is reached, without
    /// the webhook's path. Only a loopback address may be `http`.
    pub url: Url,
    /// `public.listen`, default `0.0.0.0:8080`.
    pub listen: SocketAddr,
    /// `public.max_connections`, default 2048. The next one waits to be accepted.
    pub max_connections: usize,
    /// `public.header_timeout`, default 10 s.
    pub header_timeout: Duration,
    /// `public.body_timeout`, default 10 s; SNS itself gives up after 15 s.
    pub body_timeout: Duration,
    /// `public.drain_timeout`, default 20 s: how long open requests may finish after SIGTERM.
    pub drain_timeout: Duration,
    /// `public.trusted_proxies`, default this machine: whose word on a request's id
    /// and on the address that it came from is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl PublicConfig {
    /// The defaults, reached under `url`.
    pub fn at(url: Url) -> Self {
        Self {
            url,
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            max_connections: 2048,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(20),
            trusted_proxies: vec![
                IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
                IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
            ],
        }
    }
}

/// `[public]`; none where its URL, which has no default, is missing or wrong.
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
    if url.is_none() && !layers.has_failed("public.url") {
        layers.contradiction(
            "public.url",
            "is not set; write the https address under which SNS reaches this service, or set \
             IVESK_WEBHOOK_PUBLIC_URL",
        );
    }
    // The stand-in lets the other settings of the section be judged all the same.
    let stand_in = || ApiConfig::default().url;
    let default = PublicConfig::at(url.clone().unwrap_or_else(stand_in));
    let read = PublicConfig {
        listen: layers.text("public.listen", default.listen, check::listen, show),
        max_connections: layers.number(
            "public.max_connections",
            default.max_connections,
            1..=1_000_000,
        ),
        header_timeout: layers.duration("public.header_timeout", default.header_timeout),
        body_timeout: layers.duration("public.body_timeout", default.body_timeout),
        drain_timeout: layers.duration("public.drain_timeout", default.drain_timeout),
        trusted_proxies: layers.list(
            "public.trusted_proxies",
            default.trusted_proxies,
            network,
            |network| show_network(*network).into(),
        ),
        url: default.url,
    };
    url.map(|_| read)
}

/// `public.url`
fn public_url(text: &str) -> Result<Url, String> {
    let url = base_url(text)?;
    // SNS delivers to no such host (AWS re:Post, "HTTPS endpoints").
    if url.domain().is_some_and(|name| name.contains('_')) {
        return Err(
            "has an underscore in its host name, and SNS does not deliver to such a host; use \
             another name"
                .to_owned(),
        );
    }
    Ok(url)
}

/// An address, or a network of them.
fn network(text: &str) -> Result<IpNet, String> {
    let alone = text.parse::<IpAddr>().map(IpNet::from);
    let network = alone.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
        format!(
            "`{}` is neither an IP address nor a network; write one such as 10.0.0.5 or 10.0.0.0/24",
            shortened(text)
        )
    })?;
    if network.prefix_len() == 0 {
        return Err(format!(
            "`{network}` is everybody, so anybody could write what is believed; name your proxies"
        ));
    }
    if network.trunc() != network {
        return Err(format!(
            "`{network}` names an address within a network; write `{}` for that one, or `{}` for \
             the whole network",
            network.addr(),
            network.trunc()
        ));
    }
    Ok(network)
}

/// A network as [`network`] reads it: one address without its length.
fn show_network(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}
