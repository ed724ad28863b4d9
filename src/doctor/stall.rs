//! Checks that stalled senders are disconnected: in the middle of their headers, and of
//! their body.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::Check;
use crate::receiver::challenge::{Challenge, HEADER};

/// Longest time to wait for being disconnected. A proxy that keeps stalled connections
/// longer can be blocked by a few hundred of them.
const MAX_WAIT: Duration = Duration::from_secs(35);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Opens two connections that stall, and waits for both to be disconnected.
///
/// Both carry the question of `challenge`, so that the service takes neither for a message.
pub(super) async fn checks(target: &SecretString, challenge: &Challenge) -> [Check; 2] {
    let Ok(url) = Url::parse(target.expose_secret()) else {
        let invalid = |check| Check::skipped(check, "the address is not a valid URL");
        return [invalid("header_deadline"), invalid("body_deadline")];
    };
    let host = url.host_str().unwrap_or_default();
    let headers = format!(
        "POST {} HTTP/1.1\r\nHost: {host}\r\n{HEADER}: {}\r\n",
        url.path(),
        challenge.question
    );
    // The body never reaches its length.
    let body = format!("{headers}Content-Type: text/plain\r\nContent-Length: 1000\r\n\r\n{{");
    let (header, body) = tokio::join!(
        stall("header_deadline", "headers", &url, headers),
        stall("body_deadline", "body", &url, body)
    );
    [header, body]
}

async fn stall(check: &'static str, part: &str, url: &Url, start: String) -> Check {
    let mut stream = match connect(url).await {
        Ok(stream) => stream,
        Err(error) => return Check::skipped(check, format!("failed to connect: {error}")),
    };
    let started = tokio::time::Instant::now();
    let disconnected = tokio::time::timeout(MAX_WAIT, async {
        if stream.write_all(start.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        // A response, an end and a reset all mean that the server gave up waiting.
        let _ = stream.read(&mut [0; 512]).await;
    });
    match disconnected.await {
        Ok(()) => Check::pass(
            check,
            format!(
                "a sender that stalls in its {part} is disconnected after {} s",
                started.elapsed().as_secs()
            ),
        ),
        Err(_) => Check::note(
            check,
            format!(
                "a sender that stalls in its {part} is still connected after {} s",
                MAX_WAIT.as_secs()
            ),
        )
        .because("a few hundred such senders can use up the proxy's connections")
        .fix("shorten the proxy's deadlines (nginx: client_header_timeout and client_body_timeout 10s; Caddy: servers > timeouts)"),
    }
}

async fn connect(url: &Url) -> Result<Box<dyn Stream>, String> {
    let host = url.host_str().ok_or("the address has no host")?;
    let port = url
        .port_or_known_default()
        .ok_or("the address has no port")?;
    #[expect(
        clippy::disallowed_methods,
        reason = "an HTTP client can't send a request that never ends; the address is the service's own"
    )]
    let plain = tokio::time::timeout(MAX_WAIT, TcpStream::connect((bare(host), port)));
    let plain = plain.await.map_err(|_| "timed out")?;
    let plain = plain.map_err(|error| error.to_string())?;
    if url.scheme() != "https" {
        return Ok(Box::new(plain));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderExt::with_system_roots)
        .map_err(|error| error.to_string())?;
    let name = ServerName::try_from(bare(host).to_owned()).map_err(|error| error.to_string())?;
    let secured = TlsConnector::from(Arc::new(config)).connect(name, plain);
    let secured = tokio::time::timeout(MAX_WAIT, secured)
        .await
        .map_err(|_| "timed out")?;
    Ok(Box::new(secured.map_err(|error| error.to_string())?))
}

/// Returns a host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Adds the system's root certificates, which every other client here trusts too.
trait BuilderExt {
    fn with_system_roots(self) -> Result<rustls::ClientConfig, rustls::Error>;
}

impl BuilderExt for rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    fn with_system_roots(self) -> Result<rustls::ClientConfig, rustls::Error> {
        Ok(self.with_platform_verifier()?.with_no_client_auth())
    }
}
