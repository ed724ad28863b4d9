//! Alarms.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::from_rows;
use crate::domain::Timestamp;
use crate::store::{AlarmKind, AlarmRow};

/// An alarm.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Alarm {
    /// Ascending in the order in which alarms began.
    pub id: i64,
    /// The kind of alarm.
    pub kind: AlarmKind,
    /// The affected thing.
    pub subject: String,
    /// The problem when it began, and what to do.
    pub text: String,
    /// When it began.
    pub raised_at: Timestamp,
    /// When it was last seen.
    pub seen_at: Timestamp,
    /// When it ended; null while it is active.
    pub ended_at: Option<Timestamp>,
    /// When its next notice is sent to the configured target; null if none is due.
    pub notify_at: Option<Timestamp>,
    /// Failed attempts to send the notice.
    pub attempts: u32,
    /// The last failure.
    pub last_error: Option<String>,
}

from_rows! {
    Alarm of AlarmRow {
        id, kind, subject, text, raised_at, seen_at, ended_at, notify_at, attempts, last_error,
    }
}

/// The alarms that are requested.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AlarmQuery {
    /// Only alarms that are on.
    #[serde(default)]
    pub active: bool,
    /// `next` of the previous page; absent for the first page.
    #[param(max_length = 400)]
    pub after: Option<String>,
    /// Most rows on the page.
    #[param(minimum = 1, maximum = 500, default = 100)]
    pub limit: Option<usize>,
}
