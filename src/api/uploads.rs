//! Uploaded files, and the claims of those who send them.

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use crate::domain::{Account, Timestamp};
use crate::store::{UploadBegun, UploadRow, UploadState};

/// An upload and its progress.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Upload {
    /// Its state, or `returned` once a document of it was pulled, `settled` if a person expects
    /// none, or `late` if none was pulled for longer than `upload.late_after`.
    pub status: String,
    /// The row.
    pub id: i64,
    /// The account whose key sent it.
    pub account: Account,
    /// Its name, without folders.
    pub file_name: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// SHA-256 of its content in lower-case hexadecimal digits.
    pub sha256: String,
    /// Data sent with it, which Įvesk.lt returns in its documents.
    pub correlation: String,
    /// Its state.
    pub state: UploadState,
    /// The number of attempts to send it.
    pub attempts: u32,
    /// When the first attempt began.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// When Įvesk.lt's storage accepted it.
    pub sent_at: Option<Timestamp>,
    /// The last failure.
    pub last_error: Option<String>,
    /// When a person settled it: no document will come of it.
    pub settled_at: Option<Timestamp>,
    /// Why.
    pub settled_reason: Option<String>,
    /// Įvesk.lt's ids of the documents made of it.
    pub documents: Vec<String>,
}

impl Upload {
    /// The `status` of an upload that waits for its document for too long.
    pub const LATE: &str = "late";

    /// Returns an upload, which is late if it was sent before `late_before`.
    pub fn of(row: UploadRow, late_before: Timestamp) -> Self {
        Self {
            status: row.status(late_before).to_owned(),
            id: row.id,
            account: row.account,
            file_name: row.file_name,
            size_bytes: row.size_bytes,
            sha256: row.sha256,
            correlation: row.correlation,
            state: row.state,
            attempts: row.attempts,
            created_at: row.created_at,
            changed_at: row.changed_at,
            sent_at: row.sent_at,
            last_error: row.last_error,
            settled_at: row.settled_at,
            settled_reason: row.settled_reason,
            documents: row.documents,
        }
    }
}

/// A claim to send a file.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadClaim {
    /// The account whose API key sends it.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$", examples("default"))]
    pub account: String,
    /// SHA-256 of its content, 64 hexadecimal digits.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    pub sha256: String,
    /// Its length in bytes.
    #[schema(maximum = 9_223_372_036_854_775_807_i64)]
    pub size_bytes: u64,
    /// Its name, without folders.
    pub file_name: String,
    /// The correlation that is sent with it and returned with its documents; unique.
    pub correlation: String,
    /// True to send content again that was sent before.
    pub force: bool,
    /// The process that sends it.
    pub owner: String,
    /// The claim's duration in seconds, during which no other process sends the file; two days
    /// at most.
    pub claim_seconds: u64,
}

/// The answer to a claim.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ClaimResult {
    /// Send the file, with this correlation; first to the location of an earlier attempt, if
    /// there is one.
    Send {
        /// The upload's row.
        id: i64,
        /// The correlation.
        correlation: String,
        /// The location; a secret.
        #[serde(default, serialize_with = "expose")]
        #[schema(value_type = Option<String>)]
        location: Option<SecretString>,
    },
    /// This content was sent before.
    Already {
        /// The upload's row.
        id: i64,
    },
    /// Another process sends it: claim it again at this time.
    Busy {
        /// The time.
        until: Timestamp,
    },
}

impl From<UploadBegun> for ClaimResult {
    fn from(begun: UploadBegun) -> Self {
        match begun {
            UploadBegun::Send { row, location } => Self::Send {
                id: row.id,
                correlation: row.correlation,
                location,
            },
            UploadBegun::Already(row) => Self::Already { id: row.id },
            UploadBegun::Busy { until } => Self::Busy { until },
        }
    }
}

/// Writes a location. Only for the right `operate`: it permits sending a file to this place.
fn expose<S: Serializer>(
    location: &Option<SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let location = location.as_ref().map(SecretString::expose_secret);
    location.serialize(serializer)
}

/// The location of a file that is about to be sent.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadPlace {
    /// The process that sends it.
    pub owner: String,
    /// Įvesk.lt's answer with the location; null to forget it.
    #[serde(default, serialize_with = "expose")]
    #[schema(value_type = Option<String>)]
    pub location: Option<SecretString>,
}

/// An empty answer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct LocationKept {}

/// Why no document of an upload is expected.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettleReason {
    /// The reason, in a person's words.
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
}

/// An empty answer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct UploadSettled {}

/// The result of an attempt to send a file.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadResult {
    /// The process that sent it.
    pub owner: String,
    /// The error; absent if the file was sent.
    pub error: Option<String>,
    /// True if Įvesk.lt refused the file.
    pub refused: bool,
}

/// The effect of recording a result.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct ResultRecorded {
    /// False if another process has taken over the claim, or there is no such row.
    pub changed: bool,
}
