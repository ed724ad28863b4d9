//! Finds the public address of a tunnel on this machine, through the tunnel's own API.

use std::time::Duration;

use serde::Deserialize;
use url::Url;

use crate::egress;

/// Time limit of one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest body that is read of a response.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// Default address of ngrok's agent (ngrok, "Agent API").
const NGROK: &str = "http://127.0.0.1:4040";

/// Ports of cloudflared's metrics: it uses the first free one (cloudflared, "Tunnel
/// metrics").
const CLOUDFLARED_PORTS: std::ops::RangeInclusive<u16> = 20241..=20245;

/// A kind of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The first tunnel that answers.
    Auto,
    /// ngrok's agent, `/api/tunnels`.
    Ngrok,
    /// cloudflared's quick tunnel, `/quicktunnel` of its metrics.
    Cloudflared,
}

/// An error of finding the tunnel's address.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// No tunnel answered.
    #[error(
        "no tunnel answers on this machine ({tried}); start one with `cloudflared tunnel --url http://127.0.0.1:{port}` \
         or `ngrok http {port}`, and name its local API with --tunnel-api if it is not at the default address"
    )]
    None {
        /// The attempts with their results.
        tried: String,
        /// The local port that the tunnel must lead to.
        port: u16,
    },
    /// A tunnel answered, but leads to another port.
    #[error(
        "ngrok has no https tunnel to port {port}, where this service listens; start `ngrok http {port}`"
    )]
    Elsewhere {
        /// The local port that the tunnel must lead to.
        port: u16,
    },
    /// The HTTP client can't be created.
    #[error(transparent)]
    Client(#[from] egress::SetupError),
}

/// Returns the https address of a tunnel to the local port `port`.
///
/// `api` is the address of the tunnel's local API; `None` tries the default ones.
///
/// # Errors
///
/// Fails if no tunnel answers, or none leads to that port.
pub async fn find(kind: Kind, api: Option<&Url>, port: u16) -> Result<Url, TunnelError> {
    let client = egress::client(None, TIMEOUT)?;
    let custom =
        |path: &str| api.map(|api| format!("{}{path}", api.as_str().trim_end_matches('/')));
    let mut tried = Vec::new();
    let mut elsewhere = false;
    if kind != Kind::Cloudflared {
        let url = custom("/api/tunnels").unwrap_or_else(|| format!("{NGROK}/api/tunnels"));
        match get(&client, &url).await {
            Ok(body) => match ngrok(&body, port) {
                Some(Ok(address)) => return Ok(address),
                Some(Err(())) => elsewhere = true,
                None => tried.push("ngrok: unexpected response".to_owned()),
            },
            Err(error) => tried.push(format!("ngrok: {error}")),
        }
    }
    if kind != Kind::Ngrok {
        let urls = match custom("/quicktunnel") {
            Some(url) => vec![url],
            None => CLOUDFLARED_PORTS
                .map(|port| format!("http://127.0.0.1:{port}/quicktunnel"))
                .collect(),
        };
        for url in urls {
            if let Some(address) = get(&client, &url)
                .await
                .ok()
                .as_deref()
                .and_then(cloudflared)
            {
                return Ok(address);
            }
        }
        tried.push("cloudflared: no quick tunnel".to_owned());
    }
    if elsewhere {
        return Err(TunnelError::Elsewhere { port });
    }
    let tried = tried.join("; ");
    Err(TunnelError::None { tried, port })
}

async fn get(client: &reqwest::Client, url: &str) -> Result<Vec<u8>, String> {
    let response = client.get(url).send().await.map_err(egress::describe)?;
    if !response.status().is_success() {
        return Err(format!("answered {}", response.status().as_u16()));
    }
    let body = egress::read_body(response, MAX_BODY_BYTES).await;
    body.map_err(|error| error.to_string())
}

/// Returns the https tunnel to `port`: `Some(Err)` if there are only tunnels to other ports,
/// `None` if the body is not ngrok's.
fn ngrok(body: &[u8], port: u16) -> Option<Result<Url, ()>> {
    #[derive(Deserialize)]
    struct Body {
        tunnels: Vec<Tunnel>,
    }
    #[derive(Deserialize)]
    struct Tunnel {
        public_url: String,
        config: Option<Settings>,
    }
    #[derive(Deserialize)]
    struct Settings {
        addr: Option<String>,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let ending = format!(":{port}");
    let leads_here = |tunnel: &&Tunnel| {
        let addr = tunnel
            .config
            .as_ref()
            .and_then(|config| config.addr.as_deref());
        addr.is_none_or(|addr| addr.trim_end_matches('/').ends_with(&ending))
    };
    let tunnels = body.tunnels.iter().filter(leads_here);
    let mut addresses = tunnels.filter_map(|tunnel| https(&tunnel.public_url));
    Some(addresses.next().ok_or(()))
}

fn cloudflared(body: &[u8]) -> Option<Url> {
    #[derive(Deserialize)]
    struct Body {
        hostname: String,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    https(&format!("https://{}", body.hostname))
}

/// Parses an https origin without a path, a query or a user.
fn https(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.path() == "/" && url.query().is_none() && url.username().is_empty();
    (url.scheme() == "https" && url.domain().is_some() && plain).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ngroks_https_tunnel_to_our_port_is_used() {
        let body = br#"{"tunnels":[
            {"name":"a","public_url":"https://other.ngrok-free.app","proto":"https","config":{"addr":"http://localhost:18080","inspect":true}},
            {"name":"b","public_url":"http://plain.ngrok-free.app","proto":"http","config":{"addr":"http://localhost:8080"}},
            {"name":"c","public_url":"https://ours.ngrok-free.app","proto":"https","config":{"addr":"http://localhost:8080"}}
        ],"uri":"/api/tunnels"}"#;
        let found = ngrok(body, 8080).expect("its answer").expect("a tunnel");
        assert_eq!(found.as_str(), "https://ours.ngrok-free.app/");
        assert_eq!(ngrok(body, 9090), Some(Err(())));
        assert_eq!(ngrok(br#"{"tunnels":[]}"#, 8080), Some(Err(())));
        assert_eq!(ngrok(b"<html>", 8080), None);
    }

    #[test]
    fn cloudflareds_host_name_is_an_https_origin() {
        let found = cloudflared(br#"{"hostname":"a-b.trycloudflare.com"}"#);
        assert_eq!(
            found.expect("one").as_str(),
            "https://a-b.trycloudflare.com/"
        );
        for none in [r#"{"hostname":""}"#, r#"{"hostname":"a/b"}"#, "{}", "x"] {
            assert_eq!(cloudflared(none.as_bytes()), None, "{none}");
        }
    }
}
