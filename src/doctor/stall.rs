//! Whether a sender that stalls is sent away: in the middle of its headers, and of
//! its body.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::Finding;

/// Whoever holds a stalled connection longer can be held up by a few hundred of them.
const LONGEST: Duration = Duration::from_secs(35);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Stalls twice at once, and waits for each to be sent away.
pub(super) async fn checks(target: &SecretString) -> [Finding; 2] {
    let Ok(url) = Url::parse(target.expose_secret()) else {
        let unread = |check| Finding::skipped(check, "the address can't be read");
        return [unread("header_deadline"), unread("body_deadline")];
    };
    let host = url.host_str().unwrap_or_default();
    let begun = format!("POST {} HTTP/1.1\r\nHost: {host}\r\n", url.path());
    // The length is never reached.
    let headed = format!("{begun}Content-Type: text/plain\r\nContent-Length: 1000\r\n\r\n{{");
    let (header, body) = tokio::join!(
        stall("header_deadline", "headers", &url, begun),
        stall("body_deadline", "body", &url, headed)
    );
    [header, body]
}

async fn stall(check: &'static str, part: &str, url: &Url, beginning: String) -> Finding {
    let mut stream = match connect(url).await {
        Ok(stream) => stream,
        Err(error) => return Finding::skipped(check, format!("no connection for it: {error}")),
    };
    let started = tokio::time::Instant::now();
    let waited = tokio::time::timeout(LONGEST, async {
        if stream.write_all(beginning.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        // An answer, an end and a reset all mean that it was sent away.
        let _ = stream.read(&mut [0; 512]).await;
    });
    match waited.await {
        Ok(()) => Finding::ok(
            check,
            format!(
                "a sender that stalls in its {part} is sent away after {} s",
                started.elapsed().as_secs()
            ),
        ),
        Err(_) => Finding::note(
            check,
            format!(
                "a sender that stalls in its {part} is still connected after {} s",
                LONGEST.as_secs()
            ),
        )
        .because("a few hundred such senders can take all of the proxy's connections")
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
        reason = "a request that never ends is none that a client can make; the address is the service's own"
    )]
    let plain = tokio::time::timeout(LONGEST, TcpStream::connect((bare(host), port)));
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
    let secured = tokio::time::timeout(LONGEST, secured)
        .await
        .map_err(|_| "timed out")?;
    Ok(Box::new(secured.map_err(|error| error.to_string())?))
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// A TLS client that trusts what the system trusts, as every other client here.
trait BuilderExt {
    fn with_system_roots(self) -> Result<rustls::ClientConfig, rustls::Error>;
}

impl BuilderExt for rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    fn with_system_roots(self) -> Result<rustls::ClientConfig, rustls::Error> {
        Ok(self.with_platform_verifier()?.with_no_client_auth())
    }
}
