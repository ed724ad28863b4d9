//! Import errors for the accountant.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::from_rows;
use crate::domain::{Account, Company, Timestamp};
use crate::store::{ImportErrorPathRow, ImportErrorRow, ImportErrorState};

/// An import error; there is one for each (version, text).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ImportError {
    /// The row.
    pub id: i64,
    /// The account whose key sends it.
    pub account: Account,
    /// The version's sequence number.
    pub sequence: i64,
    /// Įvesk.lt's id of the document.
    pub document_id: String,
    /// The document's company.
    pub company: Option<Company>,
    /// The text for the accountant.
    pub message: String,
    /// Its state.
    pub state: ImportErrorState,
    /// Attempts to send it.
    pub attempts: u32,
    /// When the destination rejected the version.
    pub created_at: Timestamp,
    /// When Įvesk.lt accepted it.
    pub sent_at: Option<Timestamp>,
    /// When sending is attempted next.
    pub next_try_at: Option<Timestamp>,
    /// The last failure.
    pub last_error: Option<String>,
}

/// Paths of import errors that are paused.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PausedPaths {
    /// One for each account.
    pub rows: Vec<ImportErrorPath>,
}

/// The path of an account's import errors, as Įvesk.lt answers there.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ImportErrorPath {
    /// The account.
    pub account: Account,
    /// The path.
    pub path: String,
    /// Since when nothing is sent, since Įvesk.lt answered 404; null if it is not paused.
    pub paused_since: Option<Timestamp>,
    /// When one import error is tried again.
    pub retry_at: Option<Timestamp>,
    /// Įvesk.lt's answer.
    pub last_error: Option<String>,
}

from_rows! {
    ImportError of ImportErrorRow {
        id, account, sequence, document_id, company, message, state, attempts, created_at, sent_at, next_try_at,
        last_error,
    }
    ImportErrorPath of ImportErrorPathRow { account, path, paused_since, retry_at, last_error }
}

/// Selects import errors by what is named; at least one field must be.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectedImportErrors {
    /// Only of this account.
    pub account: Option<String>,
    /// Only of the company with this code.
    pub company: Option<String>,
    /// Only in this state; otherwise pending and refused ones.
    pub state: Option<ImportErrorState>,
    /// True to select all that are pending or refused, if nothing else is named.
    #[serde(default)]
    pub all: bool,
}

/// The import errors that are requested.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportErrorQuery {
    /// Only in this state.
    #[param(inline)]
    pub state: Option<ImportErrorState>,
    /// `next` of the previous page; absent for the first page.
    #[param(max_length = 400)]
    pub after: Option<String>,
    /// Most rows on the page.
    #[param(minimum = 1, maximum = 500, default = 100)]
    pub limit: Option<usize>,
}
