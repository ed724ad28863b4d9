//! The public address of a tunnel that runs on this machine, from the tunnel's own API.

use std::time::Duration;

use serde::Deserialize;
use url::Url;

use crate::egress;

/// How long the tunnel's API may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most that is read of its answer.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Where ngrok's agent answers unless told otherwise (ngrok, "Agent API").
const NGROK: &str = "http://127.0.0.1:4040";

/// Where cloudflared's metrics are: the first free of these ports (cloudflared, "Tunnel
/// metrics").
const CLOUDFLARED_PORTS: std::ops::RangeInclusive<u16> = 20241..=20245;

/// Which tunnel to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Whichever answers.
    Auto,
    /// ngrok's agent, `/api/tunnels`.
    Ngrok,
    /// cloudflared's quick tunnel, `/quicktunnel` of its metrics.
    Cloudflared,
}

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// Nobody answered.
    #[error(
        "no tunnel answers on this machine ({tried}); start one first: `cloudflared tunnel --url http://127.0.0.1:{port}` \
         or `ngrok http {port}`, and name its local API with --tunnel-api where it is not at its usual place"
    )]
    None {
        /// What was asked, and what came of it.
        tried: String,
        /// The port that it should lead to.
        port: u16,
    },
    /// One answered, and leads elsewhere.
    #[error(
        "ngrok has no https tunnel to port {port}, where this service listens; start `ngrok http {port}`"
    )]
    Elsewhere {
        /// The port that it should lead to.
        port: u16,
    },
    /// No client can be made.
    #[error("the HTTP client can't be set up: {0}")]
    Client(#[from] reqwest::Error),
}

/// The https address under which a tunnel passes requests on to local port `port`.
///
/// `api` is where the tunnel's local API answers; its usual places where it is none.
///
/// # Errors
///
/// Where no tunnel answers, or none leads to that port.
pub async fn find(kind: Kind, api: Option<&Url>, port: u16) -> Result<Url, TunnelError> {
    let client = egress::client(PATIENCE)?;
    let given = |path: &str| api.map(|api| format!("{}{path}", api.as_str().trim_end_matches('/')));
    let mut tried = Vec::new();
    let mut elsewhere = false;
    if kind != Kind::Cloudflared {
        let url = given("/api/tunnels").unwrap_or_else(|| format!("{NGROK}/api/tunnels"));
        match ask(&client, &url).await {
            Ok(body) => match ngrok(&body, port) {
                Some(Ok(address)) => return Ok(address),
                Some(Err(())) => elsewhere = true,
                None => tried.push("ngrok: not its answer".to_owned()),
            },
            Err(error) => tried.push(format!("ngrok: {error}")),
        }
    }
    if kind != Kind::Ngrok {
        let urls = match given("/quicktunnel") {
            Some(url) => vec![url],
            None => CLOUDFLARED_PORTS
                .map(|port| format!("http://127.0.0.1:{port}/quicktunnel"))
                .collect(),
        };
        for url in urls {
            if let Some(address) = ask(&client, &url)
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

async fn ask(client: &reqwest::Client, url: &str) -> Result<Vec<u8>, String> {
    let answer = client.get(url).send().await.map_err(egress::describe)?;
    if !answer.status().is_success() {
        return Err(format!("it answered {}", answer.status().as_u16()));
    }
    let body = egress::read_body(answer, MAX_ANSWER_BYTES).await;
    body.map_err(|error| error.to_string())
}

/// The https tunnel to `port`: `Err` where there are tunnels and none is that one, none
/// where this is not ngrok's answer.
fn ngrok(body: &[u8], port: u16) -> Option<Result<Url, ()>> {
    #[derive(Deserialize)]
    struct Answer {
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
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let end = format!(":{port}");
    let leads_here = |tunnel: &&Tunnel| {
        let addr = tunnel
            .config
            .as_ref()
            .and_then(|config| config.addr.as_deref());
        addr.is_none_or(|addr| addr.trim_end_matches('/').ends_with(&end))
    };
    let here = answer.tunnels.iter().filter(leads_here);
    let mut addresses = here.filter_map(|tunnel| https(&tunnel.public_url));
    Some(addresses.next().ok_or(()))
}

fn cloudflared(body: &[u8]) -> Option<Url> {
    #[derive(Deserialize)]
    struct Answer {
        hostname: String,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    https(&format!("https://{}", answer.hostname))
}

/// An https origin without anything after it.
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
