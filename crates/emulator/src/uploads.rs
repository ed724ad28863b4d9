//! Files that were announced or received, and the key that signs links to them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::hmac;
use bytes::Bytes;
use serde::Serialize;
use sns_messages::time::Timestamp;
use uuid::Uuid;

use crate::links::{Signed, hex, path_of, query_of};
use crate::switches::Switches;

/// A file that was announced, and perhaps came.
#[derive(Clone, Debug, Serialize)]
pub struct UploadRecord {
    /// The last segment of the upload's path.
    pub id: Uuid,
    /// The account whose key requested the location.
    pub account: Uuid,
    /// From the path of the location request.
    pub file_name: String,
    /// The query parameters of the location request, decoded.
    pub parameters: BTreeMap<String, String>,
    /// Length of the file; `None` until it came.
    pub bytes: Option<usize>,
    /// SHA-256 of the file in hexadecimal digits.
    pub sha256: Option<String>,
    /// The document made of it.
    pub document_id: Option<String>,
}

/// A file and its record.
pub(crate) struct Upload {
    pub(crate) record: UploadRecord,
    pub(crate) content: Option<Bytes>,
}

/// Announced and received files, and the key that signs links.
pub(crate) struct Uploads {
    key: hmac::Key,
    uploads: Mutex<HashMap<Uuid, Upload>>,
}

impl Uploads {
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            uploads: Mutex::default(),
        })
    }

    pub(crate) fn records(&self) -> Vec<UploadRecord> {
        let uploads = self.lock();
        uploads
            .values()
            .map(|upload| upload.record.clone())
            .collect()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Upload>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn signature(&self, signed: &Signed<'_>) -> String {
        let text = format!(
            "{}\n{}\n{}\n{}\n{}",
            signed.method, signed.path, signed.query, signed.content_type, signed.disposition
        );
        hex(hmac::sign(&self.key, text.as_bytes()).as_ref())
    }

    /// Returns the link to a document's file, below `origin`.
    pub(crate) fn file_url(
        &self,
        origin: &str,
        switches: &Switches,
        id: Uuid,
        now: Timestamp,
    ) -> String {
        let path = path_of(switches.upload_host, id);
        let (query, parameter) = query_of(switches.upload_host, now, switches.pdf_expires_ms, None);
        let signature = self.signature(&Signed {
            method: "GET",
            path: &path,
            query: &query,
            content_type: "",
            disposition: "",
        });
        format!("{origin}{path}?{query}&{parameter}={signature}")
    }
}
