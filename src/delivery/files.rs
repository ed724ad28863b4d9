//! Fetches a document's PDF: only from configured hosts, without the API key, limited in
//! size, and checked before it is stored.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use url::Url;

use super::destination::DestinationResponse;
use crate::backoff;
use crate::config::ApiConfig;
use crate::domain::{Clock, Timestamp};
use crate::egress;
use crate::hex::hex;
use crate::ivesk::upload::{has_ended, s3_code};

/// Length of the head of a PDF that must contain `%PDF-` (ISO 32000-1, annex H,
/// implementation note 13).
const HEAD_BYTES: usize = 1024;
/// Length of the end of a PDF that must contain `%%EOF` (implementation note 18 there).
const END_BYTES: usize = 1024;
/// Age up to which a link counts as new: an error behind a new link has another cause than
/// expiry.
const NEW_LINK_AGE: Duration = Duration::from_secs(10 * 60);
/// Longest body that is read of an error response.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// A client for documents' files.
pub(super) struct Files {
    client: reqwest::Client,
    api: ApiConfig,
    max_bytes: u64,
    clock: Clock,
}

/// The result of fetching a file.
pub(super) enum Fetched {
    /// A PDF was written to the file; its SHA-256 in hexadecimal digits.
    Pdf(String),
    /// The file begins as a PDF and does not end as one, and nobody told its length; the problem.
    Cut(String),
    /// The file is not available and a retry would not help; the reason.
    Missing(String),
    /// The fetch failed and is retried later.
    Failed(DestinationResponse),
    /// The file could not be written.
    Disk(std::io::Error),
}

impl Files {
    /// Creates a client for files of at most `max_bytes`, each fetched within `timeout`.
    ///
    /// # Errors
    ///
    /// Fails if the machine has no TLS roots.
    pub(super) fn new(
        api: &ApiConfig,
        max_bytes: u64,
        timeout: Duration,
        clock: Clock,
    ) -> Result<Self, String> {
        let client =
            egress::client(api.proxy.as_ref(), timeout).map_err(|error| error.to_string())?;
        Ok(Self {
            client,
            api: api.clone(),
            max_bytes,
            clock,
        })
    }

    /// Fetches the file behind `link` into `file`, which is new and empty.
    ///
    /// `listed_at` is the time when the vendor listed the link, if a pull was made for it.
    pub(super) async fn fetch(
        &self,
        link: Option<&SecretString>,
        listed_at: Option<Timestamp>,
        file: File,
    ) -> Fetched {
        let is_new = listed_at.is_some_and(|at| self.clock.now().since(at) < NEW_LINK_AGE);
        let url = link.and_then(|link| Url::parse(link.expose_secret()).ok());
        let Some(url) = url else {
            return Fetched::Missing("Įvesk.lt lists no link to its file".to_owned());
        };
        if let Err(forbidden) = self.api.permit(&url) {
            return Fetched::Failed(DestinationResponse::unavailable(format!(
                "the link to the document's file {forbidden}"
            )));
        }
        match self.client.get(url).send().await {
            Ok(response) if response.status() == StatusCode::OK => {
                self.receive(response, file).await
            }
            Ok(response) => self.classify(response, is_new).await,
            Err(error) => unreachable(&egress::describe(error)),
        }
    }

    /// Writes the body of a success to `file`. A body shorter than its Content-Length is an
    /// error of the connection.
    async fn receive(&self, mut response: Response, mut file: File) -> Fetched {
        let too_large = || {
            Fetched::Missing(format!(
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
        let has_length = response.content_length().is_some();
        let mut head = Vec::with_capacity(HEAD_BYTES);
        let mut end = Vec::with_capacity(END_BYTES);
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
            end.extend_from_slice(&chunk[chunk.len().saturating_sub(END_BYTES)..]);
            end.drain(..end.len().saturating_sub(END_BYTES));
            digest.update(&chunk);
            if let Err(error) = file.write_all(&chunk).await {
                return Fetched::Disk(error);
            }
        }
        if !head.windows(5).any(|part| part == b"%PDF-") {
            // S3 itself never sends an error with a 200, but a proxy in front of it may.
            return match s3_code(&head) {
                Some(_) => Fetched::Failed(DestinationResponse::LinkExpired),
                None => Fetched::Missing("the file behind its link is not a PDF".to_owned()),
            };
        }
        if !end.windows(5).any(|part| part == b"%%EOF") {
            let reason = format!(
                "the file behind its link is cut off: its {bytes} bytes begin as a PDF, and no `%%EOF` ends them"
            );
            // A whole answer has the file as the host has it: another link would lead to the same.
            return match has_length {
                true => Fetched::Missing(reason),
                false => Fetched::Cut(reason),
            };
        }
        if let Err(error) = file.sync_all().await {
            return Fetched::Disk(error);
        }
        Fetched::Pdf(hex(digest.finish().as_ref()))
    }

    /// Classifies a response without a file (AWS, "Error responses", S3 API reference).
    async fn classify(&self, response: Response, is_new: bool) -> Fetched {
        let status = response.status();
        let retry_after = egress::retry_after(
            response.headers(),
            self.clock.now(),
            backoff::LONGEST_RETRY_AFTER,
        );
        let body = egress::read_body(response, MAX_ERROR_BYTES).await;
        let body = body.unwrap_or_default();
        let code = s3_code(&body);
        // "Request has expired" is the message of a code that has other meanings too.
        let says_expired = String::from_utf8_lossy(&body).contains("expired");
        match (status.as_u16(), code.as_deref()) {
            // S3 answers 400 to a link whose session has ended, 403 to an expired one.
            (400, code) if has_ended(code) => Fetched::Failed(DestinationResponse::LinkExpired),
            (403, _) if says_expired => Fetched::Failed(DestinationResponse::LinkExpired),
            // Behind a new link it is the file that is missing: S3 answers 403 if the
            // signer may not list.
            (403 | 404 | 410, _) if is_new => {
                Fetched::Missing("Įvesk.lt no longer has its file".to_owned())
            }
            (403 | 404 | 410, _) => Fetched::Failed(DestinationResponse::LinkExpired),
            (status, code) => {
                let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
                Fetched::Failed(DestinationResponse::Unavailable {
                    error: format!("the storage of documents' files answered {status}{code}"),
                    retry_after,
                })
            }
        }
    }
}

fn unreachable(reason: &str) -> Fetched {
    Fetched::Failed(DestinationResponse::unavailable(format!(
        "failed to fetch the document's file: {reason}"
    )))
}
