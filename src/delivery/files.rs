//! Fetching a document's PDF: from a host that policy names, without the API key, within
//! bounds, and looked at before it is kept.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use url::{Host, Url};

use super::Verdict;
use crate::config::{ApiConfig, is_loopback};
use crate::domain::{Clock, Timestamp};
use crate::egress;
use crate::ivesk::upload::s3_code;

/// Where a PDF says that it is one (ISO 32000-1, annex H, implementation note 13).
const HEAD_BYTES: usize = 1024;
/// How long a link that a pull was made for counts as new: what is refused behind it is
/// refused for another reason than its age.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// The most that is read of an answer that is no file.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// From where and how files are fetched.
pub(super) struct Files {
    client: reqwest::Client,
    hosts: Vec<String>,
    /// Whether the API itself is on this machine: then its files may be too.
    on_this_machine: bool,
    max_bytes: u64,
    clock: Clock,
}

/// What became of an attempt to fetch a file.
pub(super) enum Fetched {
    /// It is a PDF, and lies where it was wanted; this is its SHA-256 in hexadecimal digits.
    Pdf(String),
    /// There is none to be had, and there won't be: why, for people.
    LeftOut(String),
    /// Not now.
    Not(Verdict),
    /// The disk did not take it.
    Disk(std::io::Error),
}

impl Files {
    /// Files of at most `max_bytes`, each within `timeout`.
    ///
    /// # Errors
    ///
    /// A machine that offers no TLS.
    pub(super) fn new(
        api: &ApiConfig,
        max_bytes: u64,
        timeout: Duration,
        clock: Clock,
    ) -> Result<Self, String> {
        let client = egress::client(timeout)
            .map_err(|error| format!("no HTTP client: {}", egress::describe(error)))?;
        Ok(Self {
            client,
            hosts: api.file_hosts.clone(),
            on_this_machine: api.url.scheme() == "http" && is_loopback(&api.url),
            max_bytes,
            clock,
        })
    }

    /// Fetches what is behind `link` into `place`, a file that is not there yet.
    ///
    /// `listed_at` tells when the vendor listed the link, where a pull was made for its sake.
    pub(super) async fn fetch(
        &self,
        link: Option<&SecretString>,
        listed_at: Option<Timestamp>,
        place: &Path,
    ) -> Fetched {
        let is_fresh = listed_at.is_some_and(|at| self.clock.now().since(at) < FRESH);
        let url = link.and_then(|link| Url::parse(link.expose_secret()).ok());
        let Some(url) = url else {
            return Fetched::LeftOut("Įvesk.lt gave no link to its file".to_owned());
        };
        if let Err(verdict) = self.permit(&url) {
            return Fetched::Not(verdict);
        }
        match self.client.get(url).send().await {
            Ok(response) if response.status() == StatusCode::OK => {
                self.receive(response, place).await
            }
            Ok(response) => self.refused(response, is_fresh).await,
            Err(error) => unreachable(&egress::describe(error)),
        }
    }

    /// Whether policy names the link's host (invariant 6).
    fn permit(&self, url: &Url) -> Result<(), Verdict> {
        let is_named = |host: &str| {
            self.hosts.iter().any(|named| {
                let below = host.strip_suffix(named.as_str());
                let is_name = matches!(url.host(), Some(Host::Domain(_)));
                below.is_some_and(|below| below.is_empty() || (is_name && below.ends_with('.')))
            })
        };
        let is_safe = url.scheme() == "https"
            || (url.scheme() == "http" && self.on_this_machine && is_loopback(url));
        let has_user = !url.username().is_empty() || url.password().is_some();
        let problem = match url.host_str() {
            Some(_) if !is_safe || has_user => {
                "is not plain https, so it was not asked; tell Įvesk.lt".to_owned()
            }
            Some(host) if is_named(host) => return Ok(()),
            Some(host) => format!(
                "is on {host}, which `api.file_hosts` does not name, so it was not asked; where \
                 Įvesk.lt has moved its files there, add it"
            ),
            None => "names no host; tell Įvesk.lt".to_owned(),
        };
        Err(not_now(
            format!("the link to the document's file {problem}"),
            None,
        ))
    }

    /// Reads a success into `place`. An answer that ends before its Content-Length is an
    /// error of the connection here.
    async fn receive(&self, mut response: Response, place: &Path) -> Fetched {
        let too_large = || {
            Fetched::LeftOut(format!(
                "its file is larger than {} bytes (`max_file_bytes`)",
                self.max_bytes
            ))
        };
        if response
            .content_length()
            .is_some_and(|bytes| bytes > self.max_bytes)
        {
            return too_large();
        }
        let mut file = match File::create_new(place).await {
            Ok(file) => file,
            Err(error) => return Fetched::Disk(error),
        };
        let mut head = Vec::with_capacity(HEAD_BYTES);
        let mut digest = Context::new(&SHA256);
        let mut bytes = 0_u64;
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return unreachable(&egress::describe(error)),
            };
            bytes += chunk.len() as u64;
            if bytes > self.max_bytes {
                return too_large();
            }
            head.extend_from_slice(&chunk[..chunk.len().min(HEAD_BYTES - head.len())]);
            digest.update(&chunk);
            if let Err(error) = file.write_all(&chunk).await {
                return Fetched::Disk(error);
            }
        }
        if !head.windows(5).any(|part| part == b"%PDF-") {
            // S3 itself never sends an error with a 200, but what stands before it may.
            return match s3_code(&head) {
                Some(_) => Fetched::Not(Verdict::LinkExpired),
                None => Fetched::LeftOut("what its link leads to is not a PDF".to_owned()),
            };
        }
        if let Err(error) = file.sync_all().await {
            return Fetched::Disk(error);
        }
        Fetched::Pdf(hex(digest.finish().as_ref()))
    }

    /// What an answer without a file means (AWS, "Error responses", S3 API reference).
    async fn refused(&self, response: Response, is_fresh: bool) -> Fetched {
        let status = response.status();
        let retry_after = egress::retry_after(response.headers(), self.clock.now());
        let body = egress::read_body(response, MAX_ERROR_BYTES).await;
        let body = body.unwrap_or_default();
        let code = s3_code(&body);
        // "Request has expired" is the message of a code that means other things too.
        let says_expired = String::from_utf8_lossy(&body).contains("expired");
        match (status.as_u16(), code.as_deref()) {
            // A link whose session has ended gives 400, one that has expired 403.
            (400, Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired")) => {
                Fetched::Not(Verdict::LinkExpired)
            }
            (403, _) if says_expired => Fetched::Not(Verdict::LinkExpired),
            // With a new link of its own it is the file that is missing: where a signer may
            // not list, S3 says 403 to that.
            (403 | 404 | 410, _) if is_fresh => {
                Fetched::LeftOut("Įvesk.lt does not have its file any more".to_owned())
            }
            (403 | 404 | 410, _) => Fetched::Not(Verdict::LinkExpired),
            (status, code) => {
                let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
                let error = format!("the store of the documents' files answered {status}{code}");
                Fetched::Not(not_now(error, retry_after))
            }
        }
    }
}

/// `bytes` in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unreachable(why: &str) -> Fetched {
    let error = format!("the document's file could not be fetched: {why}");
    Fetched::Not(not_now(error, None))
}

fn not_now(error: String, retry_after: Option<Duration>) -> Verdict {
    Verdict::Unavailable { error, retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(api: &str, hosts: &[&str], link: &str) -> bool {
        let api = ApiConfig::at(api.parse().expect("an address"));
        let mut files = Files::new(&api, 1, Duration::from_secs(1), Clock::system()).expect("TLS");
        files
            .hosts
            .extend(hosts.iter().map(|host| (*host).to_owned()));
        files.permit(&link.parse().expect("an address")).is_ok()
    }

    #[test]
    fn files_are_fetched_from_named_hosts_only() {
        const API: &str = "https://app.ivesk.lt/api/pub";
        for (link, hosts, permitted) in [
            ("https://app.ivesk.lt/public/1?Signature=x", &[][..], true),
            ("https://b.s3.eu-west-1.amazonaws.com/1", &[], true),
            ("https://files.ivesk.lt/1", &[], false),
            ("https://files.ivesk.lt/1", &["ivesk.lt"], true),
            ("https://evilamazonaws.com/1", &[], false),
            ("https://amazonaws.com.evil.example/1", &[], false),
            ("https://amazonaws.com@evil.example/1", &[], false),
            ("https://user:word@app.ivesk.lt/1", &[], false),
            ("http://app.ivesk.lt/1", &[], false),
            ("http://127.0.0.1/1", &["127.0.0.1"], false),
            ("https://169.254.169.254/1", &[], false),
            ("https://169.254.169.254/1", &["169.254"], false),
            ("https://10.0.0.1/1", &["0.0.1"], false),
            ("ftp://app.ivesk.lt/1", &[], false),
            ("file:///etc/passwd", &[], false),
        ] {
            assert_eq!(permits(API, hosts, link), permitted, "{link} {hosts:?}");
        }
        let here = "http://127.0.0.1:4566/api/pub";
        assert!(permits(here, &[], "http://127.0.0.1:4566/public/1"));
        assert!(!permits(here, &[], "http://localhost:4566/public/1"));
        assert!(!permits(here, &["example.lt"], "http://example.lt/1"));
    }
}
