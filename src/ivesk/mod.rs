//! The vendor's REST API. No SQL.

use std::time::Duration;

use crate::domain::{Company, Cursor, Queue};

/// One answer of a queue.
#[derive(Debug, Default)]
pub struct Page {
    /// Each entry's JSON, byte for byte, in the vendor's order.
    pub documents: Vec<Vec<u8>>,
    /// The vendor's `next`.
    pub next: Option<Cursor>,
}

/// Why the API did not give what was asked for.
///
/// Holds no URL and no body: both may hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The setting that this needs is not set.
    #[error("`{setting}` is not set: {why}")]
    NotConfigured {
        /// The setting's name.
        setting: &'static str,
        /// Why it has no default, and how to find its value.
        why: &'static str,
    },
    /// No connection, or no answer in time.
    #[error("Įvesk.lt could not be reached: {0}")]
    Unreachable(String),
    /// A status other than success.
    #[error("Įvesk.lt answered {status}{}", message.as_deref().map(|m| format!(": {m}")).unwrap_or_default())]
    Status {
        /// The HTTP status.
        status: u16,
        /// The `message` of a JSON error body, shortened; `None` where there is none.
        message: Option<String>,
        /// `Retry-After`, seconds or date turned into a delay.
        retry_after: Option<Duration>,
    },
    /// The answer is longer than `api.max_page_bytes`.
    #[error("Įvesk.lt's answer is larger than {limit_bytes} bytes (`api.max_page_bytes`)")]
    TooLarge {
        /// The most that is read.
        limit_bytes: usize,
    },
    /// A success whose body is not what the API documents.
    #[error("Įvesk.lt's answer is not what its API documents: {0}")]
    Malformed(String),
}

/// One account's view of the API.
pub struct Client {}

impl Client {
    /// Asks for one page of a queue.
    ///
    /// The URL is built from scratch, with exactly one `from` where there is one.
    pub async fn page(
        &self,
        queue: Queue,
        company: &Company,
        from: Option<&Cursor>,
    ) -> Result<Page, ApiError> {
        let _ = (queue, company, from);
        Err(ApiError::Unreachable("stub".to_owned()))
    }
}
