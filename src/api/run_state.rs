//! The state of what runs on its own.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::Timestamp;
use crate::store;

/// The state of a feed or a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RunState {
    /// It runs.
    Active,
    /// It is not tried before a moment.
    Waiting {
        /// The moment.
        until: Timestamp,
    },
    /// Its last attempt failed; it is retried automatically.
    Failing {
        /// The first failure since its last success, if it is recorded.
        since: Option<Timestamp>,
    },
    /// It needs a person.
    Paused {
        /// The reason's name.
        reason: String,
    },
    /// A person removed it.
    Removed {
        /// When.
        since: Timestamp,
    },
}

impl RunState {
    /// Returns the state's name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Waiting { .. } => "waiting",
            Self::Failing { .. } => "failing",
            Self::Paused { .. } => "paused",
            Self::Removed { .. } => "removed",
        }
    }
}

impl From<store::RunState> for RunState {
    fn from(state: store::RunState) -> Self {
        match state {
            store::RunState::Active => Self::Active,
            store::RunState::Waiting { until } => Self::Waiting { until },
            store::RunState::Failing { since } => Self::Failing { since },
            store::RunState::Paused { reason } => Self::Paused {
                reason: reason.to_owned(),
            },
            store::RunState::Removed { since } => Self::Removed { since },
        }
    }
}
