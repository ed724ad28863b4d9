//! Searches, traces and erases documents.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::feeds::{known_account, parse_company};
use super::paging::{List, PageQuery};
use super::problem::{AdminError, ApiResult, Input, Params};
use crate::api::documents::{
    EraseRequest, Erased, FoundDocument, FoundDocuments, SearchQuery, TraceQuery,
};
use crate::app::App;
use crate::domain::{Account, SearchText};
use crate::erasure::{self, Subject};
use crate::store::{DocumentRow, DocumentSearch, Place, Store, TextMatches, TextSearch};
use crate::trace::{self, Trace};

/// Versions that one call of the store examines.
const BATCH: u16 = 250;

/// Most calls of the store for one response.
const MAX_BATCHES: usize = 8;

/// Longest search text, in characters.
const MAX_TEXT_CHARS: usize = 100;

/// Searches documents
///
/// Without `q` every version, newest first. With it each document once, in the current version that
/// fits best: first those whose whole number, id or upload is named, then those that have all words,
/// then those with words that begin with them; of each kind the newest first. One response examines at
/// most 2,000 versions. It may hold few rows, or none, and still have a `next`, which continues the
/// search.
#[utoipa::path(get, path = "/v1/documents/search", tag = "documents", params(SearchQuery),
    responses((status = OK, description = "The documents found", body = FoundDocuments)))]
pub(super) async fn search(
    State(app): State<Arc<App>>,
    Params(query): Params<SearchQuery>,
) -> ApiResult<FoundDocuments> {
    let place = PageQuery {
        after: query.after.clone(),
        limit: query.limit,
    };
    let found = find(&app, &query, place_of(&place)?, place.limit()?).await?;
    let rows = found.rows.into_iter();
    Ok(Json(FoundDocuments {
        rows: rows.map(|(_, row)| FoundDocument::from(row)).collect(),
        next: found.next.map(|next| List::DOCUMENTS.cursor(next)),
        incomplete: found.incomplete,
    }))
}

/// Returns the place in the list of documents after which a page begins.
pub(super) fn place_of(page: &PageQuery) -> Result<Option<Place>, AdminError> {
    let place = page.place(List::DOCUMENTS)?;
    let place =
        place.map(|place| Place::parse(&place).ok_or_else(|| List::DOCUMENTS.cursor_error()));
    place.transpose()
}

/// Returns the next matching documents after a place, at most `limit`.
pub(super) async fn find(
    app: &App,
    query: &SearchQuery,
    after: Option<Place>,
    limit: usize,
) -> Result<TextMatches, AdminError> {
    let search = DocumentSearch {
        before: after.map(|place| place.before),
        ..search_of(app, query)?
    };
    let text = search_text(query)?;
    if let Some(sequence) = query.sequence {
        check_sequence(sequence)?;
        let row = app.store.document(sequence).await?;
        let row = row.filter(|row| is_among(row, &search) && after.is_none() && text.is_empty());
        return Ok(listed(row.into_iter().collect(), None));
    }
    if text.is_empty() {
        let is_filtered = search.account.is_some() || search.queue.is_some();
        // Otherwise each version that is read is one of the rows.
        let versions = u16::try_from(limit + 1).unwrap_or(BATCH).min(BATCH);
        let search = DocumentSearch {
            versions: if is_filtered { BATCH } else { versions },
            ..search
        };
        let (rows, next) = scan(&app.store, search, limit).await?;
        return Ok(listed(rows, next));
    }
    let search = TextSearch {
        text: SearchText::read(text),
        account: search.account,
        queue: search.queue,
        company: search.company,
        whole: false,
        superseded: false,
        after,
        limit,
    };
    Ok(app.store.find_documents(search).await?)
}

fn check_sequence(sequence: i64) -> Result<(), AdminError> {
    if sequence < 1 {
        return Err(AdminError::BadRequest(
            "`sequence` must be a number from 1".to_owned(),
        ));
    }
    Ok(())
}

/// Returns documents that no text was searched for.
pub(super) fn listed(rows: Vec<DocumentRow>, next: Option<i64>) -> TextMatches {
    let place = |before| Place { rank: 0, before };
    TextMatches {
        rows: rows
            .into_iter()
            .map(|row| (place(row.sequence), row))
            .collect(),
        next: next.map(place),
        incomplete: false,
    }
}

fn is_among(row: &DocumentRow, search: &DocumentSearch) -> bool {
    let feed = &row.feed;
    search.queue.is_none_or(|queue| queue == feed.queue)
        && (search.account.as_ref()).is_none_or(|account| *account == feed.account)
        && (search.company.as_ref()).is_none_or(|company| *company == feed.company)
}

/// Returns the search for everything that the query allows, whatever its text.
///
/// # Errors
///
/// If the account is unknown, or the company is no code.
pub(super) fn search_of(app: &App, query: &SearchQuery) -> Result<DocumentSearch, AdminError> {
    let account = query.account.as_deref().filter(|name| !name.is_empty());
    let company = query.company.as_deref().filter(|code| !code.is_empty());
    Ok(DocumentSearch {
        account: account.map(|name| known_account(app, name)).transpose()?,
        queue: query.queue,
        company: company.map(parse_company).transpose()?,
        document_id: None,
        before: None,
        versions: BATCH,
    })
}

/// Returns the text that is searched for, which may be empty.
///
/// # Errors
///
/// If it is too long.
pub(super) fn search_text(query: &SearchQuery) -> Result<&str, AdminError> {
    let text = query.q.as_deref().unwrap_or_default().trim();
    if text.chars().count() > MAX_TEXT_CHARS {
        return Err(AdminError::BadRequest(format!(
            "`q` is longer than {MAX_TEXT_CHARS} characters"
        )));
    }
    Ok(text)
}

/// Scans backwards until there are `limit` rows, nothing is left, or [`MAX_BATCHES`] were
/// read.
async fn scan(
    store: &Store,
    mut search: DocumentSearch,
    limit: usize,
) -> Result<(Vec<DocumentRow>, Option<i64>), AdminError> {
    let mut rows = Vec::new();
    for _ in 0..MAX_BATCHES {
        let batch = store.search_documents(search.clone()).await?;
        for row in batch.rows {
            if rows.len() == limit {
                // This row is the first of the next page.
                return Ok((rows, Some(row.sequence.saturating_add(1))));
            }
            rows.push(row);
        }
        search.before = batch.next;
        if search.before.is_none() {
            break;
        }
    }
    Ok((rows, search.before))
}

/// Traces a document from its upload or first pull to its deliveries
#[utoipa::path(get, path = "/v1/documents/trace", tag = "documents", params(TraceQuery),
    responses((status = OK, description = "One trace per matching document", body = Vec<Trace>)))]
pub(super) async fn trace(
    State(app): State<Arc<App>>,
    Params(query): Params<TraceQuery>,
) -> ApiResult<Vec<Trace>> {
    let traces = match (query.q, query.sequence) {
        (Some(q), None) if !q.trim().is_empty() && q.chars().count() <= 200 => {
            trace::find(&app.store, &q).await?
        }
        (Some(_), None) => {
            return Err(AdminError::BadRequest(
                "`q` is empty or longer than 200 characters".to_owned(),
            ));
        }
        (None, Some(sequence)) => {
            check_sequence(sequence)?;
            let found = trace::of_version(&app.store, sequence).await?;
            found.into_iter().collect()
        }
        _ => {
            return Err(AdminError::BadRequest(
                "name the document either by `q` or by `sequence`".to_owned(),
            ));
        }
    };
    Ok(Json(traces))
}

/// Erases documents
///
/// Removes what the store holds of their contents: JSON, links, answers of destinations, import
/// errors, unreadable entries, names of uploaded files, and their files in folders of
/// destinations. It can't be undone. Sequence numbers stay, and no later pull stores the same
/// versions again. What other destinations have taken, exports and backups are not touched. One
/// request works for about 20 seconds: while `next` is not null, send it as `after`.
#[utoipa::path(post, path = "/v1/documents/erase", tag = "documents", request_body = EraseRequest,
    responses((status = OK, description = "What was erased", body = Erased)))]
pub(super) async fn erase(
    State(app): State<Arc<App>>,
    Input(request): Input<EraseRequest>,
) -> ApiResult<Erased> {
    // It may be one that the settings no longer have.
    let account = request.account.as_deref().map(Account::parse).transpose();
    let account = account.map_err(|error| AdminError::BadRequest(error.to_string()))?;
    let subject = match (request.company, request.document) {
        (Some(company), None) => Subject::Company(parse_company(&company)?),
        (None, Some(document)) if !document.is_empty() => Subject::Document(document),
        _ => {
            return Err(AdminError::BadRequest(
                "name either a `company` or a `document`".to_owned(),
            ));
        }
    };
    let (store, config, clock) = (&app.store, &app.config, &app.clock);
    let erased = erasure::erase(store, config, clock, account, &subject, request.after);
    Ok(Json(erased.await?.into()))
}
