//! The one way out: every request to another host is made by a client from here.
//!
//! No redirects, no system proxy, no cookies, no compression. Who may be asked
//! is decided by the callers' policies before a request is built.

use std::time::Duration;

use reqwest::redirect::Policy;

/// What every request says that it is.
pub const USER_AGENT: &str = concat!("ivesk-webhook/", env!("CARGO_PKG_VERSION"));

/// A client whose requests end after `timeout`, body included.
pub fn client(timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    builder(timeout).build()
}

/// The same client, whose answers also tell of the other side's certificate.
pub fn client_that_sees_certificates(timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    builder(timeout).tls_info(true).build()
}

fn builder(timeout: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(timeout.min(Duration::from_secs(10)))
        .timeout(timeout)
        .pool_idle_timeout(Duration::from_secs(30))
}

/// How long to wait after so many `failures` in a row: `first`, doubled with each up to
/// `longest`, and up to a fifth more by `chance` in 0..1, so that many don't come back at once.
pub fn backoff(first: Duration, longest: Duration, failures: u32, chance: f64) -> Duration {
    let wait = first.saturating_mul(1 << failures.min(16)).min(longest);
    wait.mul_f64(1.0 + chance.clamp(0.0, 1.0) / 5.0)
}

/// A number in 0..1, for [`backoff`].
pub fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than the caller takes.
    #[error("the answer is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The most that is read.
        limit_bytes: usize,
    },
    /// The connection failed before its end.
    #[error("the answer broke off: {0}")]
    Broken(String),
}

/// Reads a body of at most `limit_bytes`, and stops reading once it is longer.
pub async fn read_body(
    mut response: reqwest::Response,
    limit_bytes: usize,
) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
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

/// What went wrong, in words without the URL, which may be a secret.
pub fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
