//! HTTP clients without redirects, system proxy, cookies or compression.
//!
//! Callers check that a host may be asked before they build a request. A proxy is used only if the
//! caller names one, never because a variable such as `HTTPS_PROXY` does.

use std::fmt;
use std::time::Duration;

use reqwest::redirect::Policy;
use url::{Host, Url};

/// Longest time for connecting, whatever a client's own timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for which an idle connection is kept for the next request.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The error of a client that can't be set up: mostly, the machine has no CA certificates.
#[derive(Debug, thiserror::Error)]
#[error("{}; {}", self.found(), self.fix())]
pub struct SetupError {
    // Part of the message, so it is not a source as well.
    reason: String,
}

impl SetupError {
    /// Returns what went wrong.
    pub fn found(&self) -> String {
        format!("HTTPS can't be set up: {}", self.reason)
    }

    /// Returns what to do about it.
    pub fn fix(&self) -> &'static str {
        "install the system's CA certificates (package `ca-certificates`), or name a file with them in \
         the variable SSL_CERT_FILE"
    }
}

impl From<reqwest::Error> for SetupError {
    fn from(error: reqwest::Error) -> Self {
        // The first of its causes that is not reqwest's own: those say only "builder error".
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Self {
            reason: cause.to_string(),
        }
    }
}

/// The proxy of requests to other hosts.
#[derive(Clone)]
pub struct Proxy {
    url: Url,
    direct_hosts: Vec<String>,
}

impl Proxy {
    /// Creates a proxy at `url`, which may hold user and password, for all hosts but loopback and
    /// `direct_hosts` with their subdomains.
    pub fn new(url: Url, direct_hosts: Vec<String>) -> Self {
        Self { url, direct_hosts }
    }

    /// Returns the proxy for a request to `url`; `None` if the request is direct.
    fn of(&self, url: &Url) -> Option<Url> {
        let is_direct = is_loopback(url) || is_named(url, &self.direct_hosts);
        (!is_direct).then(|| self.url.clone())
    }
}

impl fmt::Debug for Proxy {
    /// Leaves out user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("host", &self.url.host_str())
            .field("direct_hosts", &self.direct_hosts)
            .finish_non_exhaustive()
    }
}

/// Returns true if a URL's host is this machine: `localhost`, `127.0.0.0/8` or `[::1]`.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Returns true if a URL's host is one of `hosts` or a subdomain of one. An IP address has no
/// subdomains.
pub fn is_named(url: &Url, hosts: &[String]) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    let is_name = matches!(url.host(), Some(Host::Domain(_)));
    hosts.iter().any(|named| {
        host.strip_suffix(named.as_str())
            .is_some_and(|prefix| prefix.is_empty() || (is_name && prefix.ends_with('.')))
    })
}

/// Returns a client whose requests end after `timeout`, body included.
///
/// # Errors
///
/// If TLS can't be set up, for instance without CA certificates.
pub fn client(
    user_agent: &str,
    proxy: Option<&Proxy>,
    timeout: Duration,
) -> Result<reqwest::Client, SetupError> {
    Ok(client_builder(user_agent, proxy, timeout).build()?)
}

/// Returns the builder of [`client`], for callers that need more options.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that builds clients"
)]
pub fn client_builder(
    user_agent: &str,
    proxy: Option<&Proxy>,
    timeout: Duration,
) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder()
        .user_agent(user_agent)
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(timeout.min(CONNECT_TIMEOUT))
        .timeout(timeout)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT);
    match proxy.cloned() {
        Some(proxy) => builder.proxy(reqwest::Proxy::custom(move |url| proxy.of(url))),
        None => builder,
    }
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The body is longer than the caller's limit.
    #[error("the answer is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The connection failed before the body's end.
    #[error("the answer broke off: {0}")]
    Broken(String),
}

/// Reads a body of at most `limit_bytes`, and stops reading once it is longer.
///
/// # Errors
///
/// See [`BodyError`].
pub async fn read_body(
    mut response: reqwest::Response,
    limit_bytes: usize,
) -> Result<Vec<u8>, BodyError> {
    let announced = response.content_length().unwrap_or(0);
    let announced = usize::try_from(announced).unwrap_or(usize::MAX);
    let mut body = Vec::with_capacity(announced.min(limit_bytes));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit_bytes => {
                return Err(BodyError::TooLarge { limit_bytes });
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(BodyError::Broken(describe(error))),
        }
    }
}

/// Describes `error` with its causes and without its URL, which may be a secret.
pub fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let mut causes = vec![error.to_string()];
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    join_causes(&causes)
}

/// Joins an error and its causes, without those that say nothing beside the last one.
fn join_causes(causes: &[String]) -> String {
    /// What is true of every request that was not answered, in the words of libraries.
    const SAYS_NOTHING: [&str; 3] = [
        "error sending request",
        "client error (Connect)",
        "tcp connect error",
    ];
    let last = causes.len() - 1;
    let causes = causes.iter().enumerate();
    let causes: Vec<&str> = causes
        .filter(|(at, cause)| *at == last || !SAYS_NOTHING.contains(&cause.as_str()))
        .map(|(_, cause)| cause.split(" (os error ").next().unwrap_or(cause))
        .collect();
    causes.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_client_that_cant_be_set_up_says_why_and_what_to_do() {
        let error = SetupError {
            reason: "no certificates".to_owned(),
        };
        let text = error.to_string();
        assert!(text.starts_with("HTTPS can't be set up: no certificates; install "));
        assert!(text.ends_with("SSL_CERT_FILE"), "{text}");
    }

    #[test]
    fn a_proxy_is_for_all_hosts_but_this_machine_and_direct_ones() {
        let proxy = Proxy::new(
            url("http://proxy.example:3128"),
            vec!["direct.example".to_owned(), "10.0.0.1".to_owned()],
        );
        for proxied in [
            "https://sns.eu-west-1.amazonaws.com/",
            "http://128.0.0.1/",
            "http://[::2]/",
            "http://localhost.example/",
            "http://indirect.example/",
            "http://direct.example.org/",
            "http://110.0.0.1/",
        ] {
            assert_eq!(
                proxy.of(&url(proxied)),
                Some(proxy.url.clone()),
                "{proxied}"
            );
        }
        for direct in [
            "http://localhost:80/",
            "http://127.0.0.1/",
            "http://127.200.0.9/",
            "http://[::1]/",
            "http://direct.example/",
            "https://a.b.direct.example/",
            "http://10.0.0.1:8080/",
        ] {
            assert_eq!(proxy.of(&url(direct)), None, "{direct}");
        }
        // No host at all.
        assert!(!is_loopback(&url("data:,")));
        assert!(!is_named(&url("data:,"), &[String::new()]));
        // An address has no subdomains.
        assert!(!is_named(&url("http://1.10.0.0/"), &["10.0.0".to_owned()]));
    }

    #[test]
    fn debug_prints_a_proxy_without_user_and_password() {
        let proxy = Proxy::new(url("http://user:secret@proxy.example"), Vec::new());
        let printed = format!("{proxy:?}");
        assert!(printed.contains("proxy.example"), "{printed}");
        assert!(!printed.contains("user") && !printed.contains("secret"));
    }

    #[test]
    fn causes_that_say_nothing_are_left_out_before_the_last() {
        for (causes, text) in [
            (&["error sending request"][..], "error sending request"),
            (
                &["error sending request", "client error (Connect)"],
                "client error (Connect)",
            ),
            (
                &["builder error", "tcp connect error", "broken (os error 7)"],
                "builder error: broken",
            ),
        ] {
            let causes: Vec<String> = causes.iter().map(|cause| (*cause).to_owned()).collect();
            assert_eq!(join_causes(&causes), text);
        }
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit_whatever_its_parts() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        const ANSWER: &[u8] =
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
            3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0));
        let listener = listener.await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                assert!(socket.read(&mut [0; 4096]).await.unwrap() > 0);
                socket.write_all(ANSWER).await.unwrap();
            }
        });
        let client = client("test", None, Duration::from_secs(10)).unwrap();
        for (limit_bytes, expected) in [(7, Some("abcdefg")), (8, Some("abcdefg")), (6, None)] {
            let response = client.get(&url).send().await.unwrap();
            let body = read_body(response, limit_bytes).await;
            assert_eq!(body.ok().as_deref(), expected.map(str::as_bytes));
        }
        server.abort();
    }

    #[tokio::test]
    async fn a_refused_connection_is_described_by_its_cause() {
        // Bound, but nobody listens.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        let client = client("test", None, Duration::from_secs(10)).unwrap();
        let failed = client.get(format!("http://{address}/secret")).send().await;
        assert_eq!(describe(failed.unwrap_err()), "Connection refused");
    }
}
