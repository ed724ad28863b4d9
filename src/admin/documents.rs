//! Looking for documents.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::feeds::{known_account, parse_company};
use super::paging::{List, Page, PageOf};
use super::problem::{AdminError, Outcome, Params};
use crate::app::App;
use crate::domain::Queue;
use crate::ivesk::view::{self, View};
use crate::store::{DocumentRow, DocumentSearch, Store};
use crate::trace::{self, Trace};

/// Versions that the store is asked for at once.
const STEP: u16 = 250;

/// How often it is asked for one answer.
const STEPS: usize = 8;

/// The longest text that is looked for, in characters.
const LONGEST_TEXT: usize = 100;

/// What to look for.
#[derive(Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// The document's id or our sequence number of a version, whole; or a part of its
    /// number, of the seller's or buyer's name or code, in letters of either case.
    #[param(max_length = 100)]
    pub(super) q: Option<String>,
    /// Only this account's.
    pub(super) account: Option<String>,
    /// Only this queue's.
    #[param(inline)]
    pub(super) queue: Option<Queue>,
    /// Only this company's.
    #[param(max_length = 64)]
    pub(super) company: Option<String>,
    /// `next` of the page before; the newest documents without it.
    #[param(max_length = 400)]
    pub(super) after: Option<String>,
    /// Rows in the answer at the most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    pub(super) limit: Option<usize>,
}

/// A version of a document, and what people know it by.
#[derive(Serialize, ToSchema)]
pub(super) struct Found {
    /// The version.
    #[serde(flatten)]
    pub(super) row: DocumentRow,
    /// What the document says of itself; empty where its body is not kept any more.
    pub(super) view: View,
}

impl From<DocumentRow> for Found {
    fn from(row: DocumentRow) -> Self {
        Self {
            view: row.body.as_deref().map(View::read).unwrap_or_default(),
            row,
        }
    }
}

/// Look for documents, the newest first
///
/// One answer looks through at most 2,000 versions, or a company's, so it may hold few
/// rows or none and yet a `next`, which goes on from there.
#[utoipa::path(get, path = "/v1/documents/search", tag = "documents", params(Wanted),
    responses((status = OK, description = "Versions in descending sequence", body = Page<Found>)))]
pub(super) async fn search(
    State(app): State<Arc<App>>,
    Params(wanted): Params<Wanted>,
) -> Outcome<Page<Found>> {
    find(&app, &wanted).await.map(Json)
}

/// One answer's worth of looking.
pub(super) async fn find(app: &App, wanted: &Wanted) -> Result<Page<Found>, AdminError> {
    let page = PageOf {
        after: wanted.after.clone(),
        limit: wanted.limit,
    };
    let limit = page.limit()?;
    let look = DocumentSearch {
        account: wanted
            .account
            .as_deref()
            .filter(|name| !name.is_empty())
            .map(|name| known_account(app, name))
            .transpose()?,
        queue: wanted.queue,
        company: wanted
            .company
            .as_deref()
            .filter(|code| !code.is_empty())
            .map(parse_company)
            .transpose()?,
        document_id: None,
        before: Some(page.row(List::DOCUMENTS)?).filter(|before| *before > 0),
        versions: STEP,
    };
    let text = wanted.q.as_deref().unwrap_or_default().trim();
    if text.chars().count() > LONGEST_TEXT {
        return Err(AdminError::BadRequest(format!(
            "`q` is longer than {LONGEST_TEXT} characters"
        )));
    }
    let (rows, next) = if text.is_empty() {
        walk(&*app.store, look, limit, |_| true).await?
    } else {
        // Found by an index, wherever it stands; only where nothing is, all are read.
        let named = by_name(&*app.store, &look, text).await?;
        if named.is_empty() {
            let text = text.to_lowercase();
            let mentions = |row: &DocumentRow| {
                row.feed.company.as_str().to_lowercase().contains(&text)
                    || row
                        .body
                        .as_deref()
                        .is_some_and(|body| view::mentions(body, &text))
            };
            walk(&*app.store, look, limit, mentions).await?
        } else {
            (named, None)
        }
    };
    Ok(Page {
        rows: rows.into_iter().map(Found::from).collect(),
        next: next.map(|before| List::DOCUMENTS.cursor(before)),
    })
}

/// The versions of the document with this id, or the one with this sequence number.
async fn by_name(
    store: &dyn Store,
    look: &DocumentSearch,
    text: &str,
) -> Result<Vec<DocumentRow>, AdminError> {
    let by_id = DocumentSearch {
        document_id: Some(text.to_owned()),
        ..look.clone()
    };
    let found = store.search_documents(by_id).await?.rows;
    if !found.is_empty() {
        return Ok(found);
    }
    let Ok(sequence) = text.parse::<i64>() else {
        return Ok(found);
    };
    let by_number = DocumentSearch {
        company: None,
        before: sequence.checked_add(1),
        versions: 1,
        ..look.clone()
    };
    let mut found = store.search_documents(by_number).await?.rows;
    found.retain(|row| {
        row.sequence == sequence
            && look
                .company
                .as_ref()
                .is_none_or(|company| row.feed.company == *company)
    });
    Ok(found)
}

/// Goes backwards until there are `limit` rows, nothing is left, or enough was looked at.
async fn walk(
    store: &dyn Store,
    mut look: DocumentSearch,
    limit: usize,
    is_wanted: impl Fn(&DocumentRow) -> bool,
) -> Result<(Vec<DocumentRow>, Option<i64>), AdminError> {
    let mut rows = Vec::new();
    for _ in 0..STEPS {
        let looked = store.search_documents(look.clone()).await?;
        for row in looked.rows.into_iter().filter(|row| is_wanted(row)) {
            if rows.len() == limit {
                // This one is the first of the next page.
                return Ok((rows, Some(row.sequence.saturating_add(1))));
            }
            rows.push(row);
        }
        look.before = looked.next;
        if look.before.is_none() {
            break;
        }
    }
    Ok((rows, look.before))
}

/// Whose story.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichStory {
    /// A document's id or number, our sequence number of a version, or userdata that an
    /// upload carried.
    #[param(min_length = 1, max_length = 200)]
    q: String,
}

/// What became of a document, from its upload or first sight until it was booked
#[utoipa::path(get, path = "/v1/documents/trace", tag = "documents", params(WhichStory),
    responses((status = OK, description = "One for each document that is meant", body = Vec<Trace>)))]
pub(super) async fn story(
    State(app): State<Arc<App>>,
    Params(WhichStory { q }): Params<WhichStory>,
) -> Outcome<Vec<Trace>> {
    if q.trim().is_empty() || q.chars().count() > 200 {
        return Err(AdminError::BadRequest(
            "`q` is empty or longer than 200 characters".to_owned(),
        ));
    }
    Ok(Json(trace::find(app.store.as_ref(), &q).await?))
}
