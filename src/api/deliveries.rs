//! Deliveries: one version for one destination.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::from_rows;
use crate::domain::{DestinationName, Feed, Timestamp};
use crate::store::{AttemptRow, DeliveryRow, DeliveryState};

/// The deliveries that are requested.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeliveryQuery {
    /// Only those of this destination.
    pub destination: Option<String>,
    /// Only in this state.
    #[param(inline)]
    pub state: Option<DeliveryState>,
    /// Only those of this company.
    #[param(max_length = 64)]
    pub company: Option<String>,
    /// `next` of the previous page; absent for the first page.
    #[param(max_length = 400)]
    pub after: Option<String>,
    /// Most rows on the page.
    #[param(minimum = 1, maximum = 500, default = 100)]
    pub limit: Option<usize>,
}

/// The delivery of one version to one destination.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// The destination.
    pub destination: DestinationName,
    /// The version's sequence number.
    pub sequence: i64,
    /// The feed that it was pulled from.
    #[serde(flatten)]
    pub feed: Feed,
    /// Įvesk.lt's id of the document.
    pub document_id: String,
    /// Its state.
    pub state: DeliveryState,
    /// Its place in the list that a program reads.
    pub number: Option<i64>,
    /// When it is tried again, apart from the order of its lane.
    pub next_try_at: Option<Timestamp>,
    /// When it was first attempted.
    pub began_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// The destination's answer or note.
    pub detail: Option<String>,
    /// Attempts, oldest first.
    pub attempts: Vec<Attempt>,
}

/// Attempts to deliver a version; consecutive attempts with the same result are one row.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// When the first of them began.
    pub began_at: Timestamp,
    /// When the last of them ended.
    pub ended_at: Timestamp,
    /// Their result: a state's name, or `unavailable`, `closed` or `link_expired`.
    pub result: String,
    /// The destination's answer.
    pub detail: Option<String>,
    /// The number of attempts.
    pub times: u64,
}

from_rows! { Attempt of AttemptRow { began_at, ended_at, result, detail, times } }

impl From<DeliveryRow> for Delivery {
    fn from(row: DeliveryRow) -> Self {
        Self {
            destination: row.destination,
            sequence: row.sequence,
            feed: row.feed,
            document_id: row.document_id,
            state: row.state,
            number: row.number,
            next_try_at: row.next_try_at,
            began_at: row.began_at,
            changed_at: row.changed_at,
            detail: row.detail,
            attempts: row.attempts.into_iter().map(Attempt::from).collect(),
        }
    }
}

/// The versions to deliver again, or to skip: one, or all in a state.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// This version.
    pub sequence: Option<i64>,
    /// All in this state; of a retry `rejected` if neither is given.
    pub state: Option<DeliveryState>,
    /// Only those of this company; not with `sequence`.
    #[schema(max_length = 64)]
    pub company: Option<String>,
}
