//! The JSON that destinations receive.

use aws_lc_rs::digest::{Context, SHA256};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{Feed, Queue, Timestamp};
use crate::hex::hex;
use crate::store::Delivery;

/// One document version as JSON, in the form of the Standard Webhooks specification
/// ("Payload structure").
#[derive(Serialize)]
struct Payload<'a> {
    r#type: &'static str,
    timestamp: Timestamp,
    data: PayloadData<'a>,
}

#[derive(Serialize)]
struct PayloadData<'a> {
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
    /// Returns the idempotency key: `doc_` and 32 hexadecimal digits.
    ///
    /// The same version of the same document has the same key at every attempt, in every
    /// epoch and after every restored backup.
    pub fn key(&self) -> String {
        let mut digest = Context::new(&SHA256);
        for part in [
            self.feed.account.as_str(),
            self.feed.queue.as_str(),
            self.feed.company.as_str(),
            &self.document_id,
            &self.version,
        ] {
            // Each part follows its length, so that no two lists of parts hash the same bytes.
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        format!("doc_{}", hex(&digest.finish().as_ref()[..16]))
    }

    /// Returns the JSON object that destinations receive: `type` (`document.exported` or
    /// `document.digitized`), `timestamp`, and `data` with the key, the identity, the
    /// numbers and, under `document`, the vendor's JSON byte for byte.
    ///
    /// Returns `None` if the stored body is not JSON, which no pull stores.
    pub fn to_json(&self) -> Option<Vec<u8>> {
        let document: &RawValue = serde_json::from_slice(&self.body).ok()?;
        let payload = Payload {
            r#type: match self.feed.queue {
                Queue::Exported => "document.exported",
                Queue::Digitized => "document.digitized",
            },
            timestamp: self.stored_at,
            data: PayloadData {
                key: self.key(),
                feed: &self.feed,
                document_id: &self.document_id,
                version: &self.version,
                epoch: &self.epoch,
                sequence: self.sequence,
                document,
            },
        };
        serde_json::to_vec(&payload).ok()
    }
}
