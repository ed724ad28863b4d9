//! Delivering documents: destinations, and what comes back from them.
//!
//! A [`Destination`] is where documents are delivered. It is given one [`Delivery`] at a time and
//! answers with a [`Verdict`].
//!
//! - `http`: a signed POST.
//! - `command`: a program.
//! - `folder` with `files`: JSON files and the PDFs that belong to them.
//! - [`worker`] decides from rows which item, when, and what follows from the verdict.
//! - [`import_errors`] tells the accountant what was rejected, in the words of [`texts`].
//!
//! `docs/destinations.md` has the contracts for those who write the other side.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::config::{Config, DestinationConfig, DestinationKind};
use crate::domain::{Clock, DestinationName, Feed, Queue, Timestamp};
pub use crate::store::Delivery;

mod command;
mod files;
mod folder;
mod http;
pub mod import_errors;
pub mod texts;
pub mod worker;

/// The most bytes of a rejection's words.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// What a destination is told of an [`Delivery`]: the JSON on the wire and on standard input.
///
/// Its outer form is that of the Standard Webhooks specification ("Payload structure").
#[derive(Serialize)]
struct Notice<'a> {
    r#type: &'static str,
    timestamp: Timestamp,
    data: NoticeData<'a>,
}

#[derive(Serialize)]
struct NoticeData<'a> {
    key: String,
    #[serde(flatten)]
    feed: &'a Feed,
    document_id: &'a str,
    version: &'a str,
    epoch: &'a str,
    sequence: i64,
    document: &'a RawValue,
}

impl Delivery {
    /// The idempotency key: the same for the same version of the same document, whatever
    /// is restored, repeated or renumbered. `doc_` and 32 hexadecimal digits.
    pub fn key(&self) -> String {
        let mut digest = Context::new(&SHA256);
        for part in [
            self.feed.account.as_str(),
            self.feed.queue.as_str(),
            self.feed.company.as_str(),
            &self.document_id,
            &self.version,
        ] {
            // The length in front, so that no two lists of parts read the same.
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        let digest = digest.finish();
        let hex: String = digest.as_ref()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("doc_{hex}")
    }

    /// The JSON object that destinations are given: `type` (`document.exported` or
    /// `document.digitized`), `timestamp`, and `data` with the key, the identity, the
    /// numbers and, under `document`, the vendor's JSON byte for byte.
    ///
    /// `None` where the stored body is no JSON, which no page lets into the store.
    pub fn to_json(&self) -> Option<Vec<u8>> {
        let document: &RawValue = serde_json::from_slice(&self.body).ok()?;
        let notice = Notice {
            r#type: match self.feed.queue {
                Queue::Exported => "document.exported",
                Queue::Digitized => "document.digitized",
            },
            timestamp: self.stored_at,
            data: NoticeData {
                key: self.key(),
                feed: &self.feed,
                document_id: &self.document_id,
                version: &self.version,
                epoch: &self.epoch,
                sequence: self.sequence,
                document,
            },
        };
        serde_json::to_vec(&notice).ok()
    }
}

/// What a destination said of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has it. The same item may come again and must be answered the same.
    Delivered {
        /// What the destination wants to be told when a later version of the document comes
        /// ([`Delivery::earlier_note`]): where a folder filed it, for instance.
        note: Option<String>,
    },
    /// It does not want this version, and says why: the accountant is told.
    Rejected {
        /// The destination's words, as they came.
        message: String,
    },
    /// It can't take anything now: the destination waits and the same item comes again. Spends
    /// no attempt.
    Unavailable {
        /// What went wrong and, where a person can fix it, how. Nothing secret.
        error: String,
        /// How long it asked us to wait.
        retry_after: Option<Duration>,
    },
    /// It wants nothing any more until a person resumes it (HTTP 410).
    Closed {
        /// What it said. Nothing secret.
        error: String,
    },
    /// The link to the document's file has expired: the item comes again once a fresh
    /// pull has brought a fresh link.
    LinkExpired,
}

/// A place where documents are delivered.
#[async_trait]
pub trait Destination: Send + Sync {
    /// Gives it one item, within the destination's own time limit.
    async fn deliver(&self, item: &Delivery) -> Verdict;
}

/// Why a destination can't be used, for people.
#[derive(Debug, thiserror::Error)]
#[error("the destination `{name}` can't be used: {problem}")]
pub struct OpenError {
    /// Which one.
    pub name: DestinationName,
    /// What is wrong and what to do.
    pub problem: String,
}

/// Opens a destination: looks whether its program can be run, or its folder written to.
///
/// `environment` holds the service's own variables. `None` for a destination of the kind `api`,
/// which is given nothing: its program asks.
///
/// # Errors
///
/// What keeps the destination from being used, whatever it is given.
pub fn open(
    name: &DestinationName,
    destination: &DestinationConfig,
    config: &Config,
    environment: &BTreeMap<String, String>,
    clock: &Clock,
) -> Result<Option<Box<dyn Destination>>, OpenError> {
    let timeout = destination.timeout;
    let opened: Result<Box<dyn Destination>, String> = match &destination.kind {
        DestinationKind::Http { url, secrets } => {
            http::Http::new(url, secrets, timeout, clock.clone())
                .map(|destination| Box::new(destination) as _)
        }
        DestinationKind::Command {
            program,
            arguments,
            environment: wanted,
            folder,
        } => command::Command::new(program, arguments, wanted, environment, folder, timeout)
            .map(|destination| Box::new(destination) as _),
        DestinationKind::Folder { .. } => folder::Folder::new(name, destination, config, clock)
            .map(|destination| Box::new(destination) as _),
        DestinationKind::Api => return Ok(None),
    };
    opened.map(Some).map_err(|problem| OpenError {
        name: name.clone(),
        problem,
    })
}

/// A rejection in the destination's words, cut where they are longer than anybody reads.
fn rejection(message: &str) -> Verdict {
    let mut end = message.len().min(MAX_MESSAGE_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    Verdict::Rejected {
        message: message[..end].to_owned(),
    }
}

/// What becomes of an item whose stored body is no JSON.
fn unreadable() -> Verdict {
    Verdict::Unavailable {
        error: "the stored document is not what the puller stored; look for what else writes to \
                the store, and for a broken disk"
            .to_owned(),
        retry_after: None,
    }
}
