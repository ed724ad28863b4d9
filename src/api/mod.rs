//! The admin API's contract: every request and response, as the server, the command line and the
//! pages use them.
//!
//! One file for each noun. The server answers with these types, made of the store's rows, and the
//! command line decodes its answers into the same ones. A response may be of a server of another
//! version: fields that are not known are ignored, and an optional one that is missing is none. A
//! field that is not optional must be there.
//!
//! What a room finds and only shows stays in that room: the checks of `doctor`, the trace of a
//! document, the count of its fields.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub mod alarms;
pub mod audit;
pub mod deliveries;
pub mod destinations;
pub mod doctor;
pub mod documents;
pub mod feeds;
pub mod import_errors;
pub mod messages;
mod names;
mod run_state;
pub mod status;
pub mod subscriptions;
pub mod tokens;
pub mod uploads;

pub use self::run_state::RunState;

/// Makes responses of the store's rows, field by field. What is not named stays in the store.
macro_rules! from_rows {
    ($($response:ident of $row:ident { $($field:ident),* $(,)? })*) => {
        $(impl From<$row> for $response {
            fn from(row: $row) -> Self {
                Self { $($field: row.$field),* }
            }
        })*
    };
}
use from_rows;

/// The page of a list that is requested.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next` of the previous page; absent for the first page.
    #[param(max_length = 400)]
    pub after: Option<String>,
    /// Most rows on the page.
    #[param(minimum = 1, maximum = 500, default = 100)]
    pub limit: Option<usize>,
}

/// One page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// The value of `after` for the next page; null on the last page.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Converts each row.
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U> {
        Page {
            rows: self.rows.into_iter().map(convert).collect(),
            next: self.next,
        }
    }
}

/// The number of things that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// The number.
    pub changed: usize,
}

/// An empty JSON object.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NoFields {}

/// A problem (RFC 9457).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// `urn:ivesk-webhook:error:` followed by the code.
    pub r#type: String,
    /// The error and what to do, for people.
    pub title: String,
    /// The response's status.
    pub status: u16,
    /// The error, for programs.
    pub code: String,
}
