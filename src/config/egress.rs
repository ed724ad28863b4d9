//! `[egress]`: the way of requests to other hosts.

use serde_json::Value;
use sns_messages::http::Proxy;
use url::Url;

use super::check::host_name;
use super::layers::Layers;
use super::problem::HIDDEN;

/// The way of requests to other hosts.
#[derive(Clone, Debug, Default)]
pub struct EgressConfig {
    /// `egress.proxy` and `egress.direct_hosts`: the proxy of all requests but those to
    /// loopback and to those hosts; none by default. Variables such as `HTTPS_PROXY` are not used.
    pub proxy: Option<Proxy>,
}

/// Reads `[egress]`.
pub(super) fn read(layers: &mut Layers<'_>) -> EgressConfig {
    let url = layers.text(
        "egress.proxy",
        None,
        |text| proxy_url(text).map(Some),
        |url| url.as_ref().map_or(Value::Null, |url| shown(url).into()),
    );
    let direct_hosts = layers.list("egress.direct_hosts", Vec::new(), host_name, |host| {
        host.as_str().into()
    });
    if url.is_none() && !direct_hosts.is_empty() && !layers.is_invalid("egress.proxy") {
        layers.report(
            "egress.direct_hosts",
            "is set, and `egress.proxy` is not: all requests are direct; remove it",
        );
    }
    EgressConfig {
        proxy: url.map(|url| Proxy::new(url, direct_hosts)),
    }
}

/// Parses `egress.proxy`, without repeating it: it may hold a password.
fn proxy_url(text: &str) -> Result<Url, String> {
    const HOW: &str = "write the proxy's address such as http://proxy.example.lt:3128";
    let url = Url::parse(text.trim()).map_err(|_| format!("is not a URL; {HOW}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("does not begin with http:// or https://; {HOW}"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("has something after the port; {HOW}"));
    }
    Ok(url)
}

/// Returns a URL without its password.
fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    if shown.password().is_some() {
        // It has a host, so it may have a password.
        let _ = shown.set_password(Some(HIDDEN));
    }
    shown.to_string().replace("%5Bset%5D", HIDDEN)
}
