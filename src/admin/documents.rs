//! Searches, traces and erases documents.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::feeds::{known_account, parse_company};
use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, Params};
use crate::api::documents::{EraseRequest, Erased, FoundDocument, SearchQuery, TraceQuery};
use crate::app::App;
use crate::domain::Account;
use crate::erasure::{self, Subject};
use crate::ivesk::Entry;
use crate::store::{DocumentRow, DocumentSearch, Store};
use crate::trace::{Trace, find as find_traces};

/// Versions that one call of the store examines.
const BATCH: u16 = 250;

/// Most calls of the store for one response.
const MAX_BATCHES: usize = 8;

/// Longest search text, in characters.
const MAX_TEXT_CHARS: usize = 100;

/// Searches documents, newest first
///
/// One response examines at most 2,000 versions. It may hold few rows, or none, and still
/// have a `next`, which continues the search.
#[utoipa::path(get, path = "/v1/documents/search", tag = "documents", params(SearchQuery),
    responses((status = OK, description = "Versions in descending sequence", body = Page<FoundDocument>)))]
pub(super) async fn search(
    State(app): State<Arc<App>>,
    Params(query): Params<SearchQuery>,
) -> ApiResult<Page<FoundDocument>> {
    let Page { rows, next } = find(&app, &query).await?;
    Ok(Json(Page {
        rows: rows.into_iter().map(FoundDocument::from).collect(),
        next,
    }))
}

/// Returns one page of matching documents.
pub(super) async fn find(app: &App, query: &SearchQuery) -> Result<Page<DocumentRow>, AdminError> {
    let page = PageQuery {
        after: query.after.clone(),
        limit: query.limit,
    };
    let limit = page.limit()?;
    let search = DocumentSearch {
        before: Some(page.row(List::DOCUMENTS)?).filter(|before| *before > 0),
        ..search_of(app, query)?
    };
    let text = search_text(query)?;
    let (rows, next) = if text.is_empty() {
        let is_filtered = search.account.is_some() || search.queue.is_some();
        // Otherwise each version that is read is one of the rows.
        let versions = u16::try_from(limit + 1).unwrap_or(BATCH).min(BATCH);
        let search = DocumentSearch {
            versions: if is_filtered { BATCH } else { versions },
            ..search
        };
        scan(&app.store, search, limit, |_| true).await?
    } else {
        // An id or sequence number is found by an index; only other text needs a scan.
        let identified = by_id_or_sequence(&app.store, &search, text).await?;
        if identified.is_empty() {
            scan(&app.store, search, limit, mentioning(text)).await?
        } else {
            (identified, None)
        }
    };
    Ok(Page {
        rows,
        next: next.map(|before| List::DOCUMENTS.cursor(before)),
    })
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

/// Returns a function that is true for versions which mention `text`, in letters of either case.
pub(super) fn mentioning(text: &str) -> impl Fn(&DocumentRow) -> bool + Send + Sync + use<> {
    let text = text.to_lowercase();
    move |row| {
        let mentions = |body| Entry::parse(body).is_some_and(|entry| entry.mentions(&text));
        row.feed.company.as_str().to_lowercase().contains(&text)
            || row.body.as_deref().is_some_and(mentions)
    }
}

/// Returns the versions of the document with this id, or the version with this sequence
/// number.
pub(super) async fn by_id_or_sequence(
    store: &Store,
    search: &DocumentSearch,
    text: &str,
) -> Result<Vec<DocumentRow>, AdminError> {
    let by_id = DocumentSearch {
        document_id: Some(text.to_owned()),
        ..search.clone()
    };
    let found = store.search_documents(by_id).await?.rows;
    if !found.is_empty() {
        return Ok(found);
    }
    let Ok(sequence) = text.parse::<i64>() else {
        return Ok(found);
    };
    let by_sequence = DocumentSearch {
        company: None,
        before: sequence.checked_add(1),
        versions: 1,
        ..search.clone()
    };
    let mut found = store.search_documents(by_sequence).await?.rows;
    found.retain(|row| {
        row.sequence == sequence
            && search
                .company
                .as_ref()
                .is_none_or(|company| row.feed.company == *company)
    });
    Ok(found)
}

/// Scans backwards until there are `limit` rows, nothing is left, or [`MAX_BATCHES`] were
/// read.
async fn scan(
    store: &Store,
    mut search: DocumentSearch,
    limit: usize,
    matches: impl Fn(&DocumentRow) -> bool,
) -> Result<(Vec<DocumentRow>, Option<i64>), AdminError> {
    let mut rows = Vec::new();
    for _ in 0..MAX_BATCHES {
        let batch = store.search_documents(search.clone()).await?;
        for row in batch.rows.into_iter().filter(|row| matches(row)) {
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
    Params(TraceQuery { q }): Params<TraceQuery>,
) -> ApiResult<Vec<Trace>> {
    if q.trim().is_empty() || q.chars().count() > 200 {
        return Err(AdminError::BadRequest(
            "`q` is empty or longer than 200 characters".to_owned(),
        ));
    }
    Ok(Json(find_traces(app.store.as_ref(), &q).await?))
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
