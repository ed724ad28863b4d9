//! Exports documents as a table, and counts their fields.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tokio::sync::mpsc;
use tracing::warn;

use super::documents::{search_of, search_text};
use super::feeds::{known_account, parse_company};
use super::identity::Identity;
use super::problem::{AdminError, ApiResult, Params};
use super::rules::Needs;
use super::state::Admin;
use crate::api::documents::{ExportQuery, FieldsQuery, SearchQuery};
use crate::app::App;
use crate::domain::{SearchText, Timestamp, counted};
use crate::export::columns::{self, Column};
use crate::export::fields::{self, FieldReport};
use crate::export::stream::{Documents, Export, Part, Summary, moment};
use crate::export::table::{Format, Layout};
use crate::ivesk::Entry;
use crate::store::{DocumentRow, DocumentSearch, DocumentStretch, StoreError, TextSearch};

/// Most exports that run at once: each may hold a few megabytes.
pub(super) const MAX_EXPORTS: usize = 4;

/// Most versions that a text identifies.
const MAX_IDENTIFIED: usize = 500;

/// Versions whose fields are counted, unless the request sets `newest`.
const DEFAULT_VERSIONS: u64 = 10_000;

/// Most versions whose fields one request counts.
const MAX_VERSIONS: u64 = 100_000;

/// Exports documents as a table
///
/// In the order of their arrival, current versions only unless `superseded` is true. A version whose JSON
/// was removed by retention or erased is left out. A response that ends before its end is incomplete.
#[utoipa::path(get, path = "/v1/documents/export", tag = "documents", params(ExportQuery),
    responses(
        (status = OK, description = "The table", content(
            (String = "text/csv"), (String = "application/x-ndjson"))),
        (status = CONFLICT, description = "`conflict`: four exports are running",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn export(
    State(admin): State<Admin>,
    Extension(identity): Extension<Identity>,
    Params(query): Params<ExportQuery>,
) -> Result<Response, AdminError> {
    let columns = columns_of(&query)?;
    if columns.iter().any(Column::may_hold_anything) && !Needs::Operate.met_by(&identity.rights) {
        return Err(AdminError::MissingRight {
            needs: Needs::Operate.as_str(),
            has: identity.rights.to_string(),
        });
    }
    respond(&admin, query, columns).await
}

/// Returns the columns of an export.
pub(super) fn columns_of(query: &ExportQuery) -> Result<Vec<Column>, AdminError> {
    let per = query.per.unwrap_or_default();
    columns::parse(query.columns.as_deref(), per)
        .map_err(|error| AdminError::BadRequest(error.to_string()))
}

/// Returns the response with the whole table.
pub(super) async fn respond(
    admin: &Admin,
    query: ExportQuery,
    columns: Vec<Column>,
) -> Result<Response, AdminError> {
    let documents = documents(&admin.app, &query).await?;
    respond_with(admin, &query, columns, documents, "documents").await
}

/// Returns the response with the table of these documents, as a file of this name.
pub(super) async fn respond_with(
    admin: &Admin,
    query: &ExportQuery,
    columns: Vec<Column>,
    documents: Documents,
    name: &str,
) -> Result<Response, AdminError> {
    let permit = Arc::clone(&admin.exports)
        .try_acquire_owned()
        .map_err(|_| {
            AdminError::Conflict(
                format!("{MAX_EXPORTS} exports are running; try again once one has ended").into(),
            )
        })?;
    let layout = Layout {
        format: query.format.unwrap_or(Format::Csv),
        columns,
        separator: query.separator.unwrap_or_default(),
        decimal: query.decimal.unwrap_or_default(),
        encoding: query.encoding.unwrap_or_default(),
    };
    let headers = [
        (CONTENT_TYPE, layout.content_type()),
        (
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}.{}\"", layout.file_ending()),
        ),
    ];
    let export = Export {
        documents,
        per: query.per.unwrap_or_default(),
        layout,
    };
    let mut parts = export.start(Arc::clone(&admin.app.store), permit);
    // A store that can't be read is a problem rather than the beginning of a table.
    let first = match parts.recv().await {
        Some(Err(error)) => return Err(error.into()),
        // There may be no row yet.
        Some(Ok(Part::Bytes(bytes))) if bytes.is_empty() => None,
        first => first,
    };
    Ok((headers, Body::from_stream(body(first, parts))).into_response())
}

type Received = Option<Result<Part, StoreError>>;

/// Returns the bytes of a table; an error breaks the response off, so that nobody takes it for whole.
fn body(
    first: Received,
    parts: mpsc::Receiver<Result<Part, StoreError>>,
) -> impl Stream<Item = Result<Bytes, StoreError>> {
    stream::unfold((first, parts), |(first, mut parts)| async move {
        let part = match first {
            Some(part) => Some(part),
            None => parts.recv().await,
        };
        match part? {
            Ok(Part::Bytes(bytes)) => Some((Ok(bytes), (None, parts))),
            Ok(Part::End(summary)) => {
                warn_of_replaced(&summary);
                None
            }
            Err(error) => {
                warn!(%error, "an export ended early: the store can't be read");
                Some((Err(error), (None, parts)))
            }
        }
    })
}

fn warn_of_replaced(summary: &Summary) {
    if summary.replaced > 0 {
        warn!(
            "an export has {} that Windows-1257 does not have, and `?` in their place, first in version {}",
            counted(summary.replaced, "character"),
            summary.replaced_in.first().copied().unwrap_or_default()
        );
    }
}

/// Returns the documents that are chosen.
async fn documents(app: &App, query: &ExportQuery) -> Result<Documents, AdminError> {
    let search = SearchQuery {
        q: query.q.clone(),
        account: query.account.clone(),
        queue: query.queue,
        company: query.company.clone(),
        ..SearchQuery::default()
    };
    let of_search = search_of(app, &search)?;
    let text = search_text(&search)?;
    let superseded = query.superseded.unwrap_or_default();
    let after = query.after.unwrap_or_default();
    if after < 0 {
        return Err(AdminError::BadRequest(
            "`after` is less than 0; write the last sequence number of an earlier export"
                .to_owned(),
        ));
    }
    let stretch = DocumentStretch {
        account: of_search.account.clone(),
        queue: of_search.queue,
        company: of_search.company.clone(),
        since: parse_moment("since", query.since.as_deref())?,
        until: parse_moment("until", query.until.as_deref())?,
        superseded,
        after,
    };
    let text = SearchText::read(text);
    if text.as_str().is_empty() {
        return Ok(Documents::Stretch(stretch, Box::new(|_| true)));
    }
    // What the text identifies needs no reading of all.
    let identified = TextSearch::named(text.as_str(), MAX_IDENTIFIED);
    let found = app.store.find_documents(identified).await?;
    let identified = found.rows.into_iter().filter(|(place, _)| place.rank == 0);
    let mut rows: Vec<DocumentRow> = identified.map(|(_, row)| row).collect();
    if !rows.is_empty() {
        rows.retain(|row| stretch.contains(row));
        rows.reverse();
        return Ok(Documents::These(rows));
    }
    let matches = Box::new(move |row: &DocumentRow| {
        let entry = row.body.as_deref().and_then(Entry::parse);
        entry.is_some_and(|entry| text.rank(&entry.terms(&row.feed.company)).is_some())
    });
    Ok(Documents::Stretch(stretch, matches))
}

fn parse_moment(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, AdminError> {
    let parse = |text: &str| {
        moment(text).ok_or_else(|| {
            AdminError::BadRequest(format!(
                "`{name}` is no date or moment; write one such as 2026-11-01 or 2026-11-01T08:00:00Z"
            ))
        })
    };
    text.filter(|text| !text.is_empty()).map(parse).transpose()
}

/// Counts which fields the newest documents carry
///
/// Names, types and how often they are filled; no values. Little of Įvesk.lt's JSON is proven: this shows
/// which expected fields it has, and which never occurred.
#[utoipa::path(get, path = "/v1/documents/fields", tag = "documents", params(FieldsQuery),
    responses((status = OK, description = "The fields of each queue", body = FieldReport)))]
pub(super) async fn fields(
    State(app): State<Arc<App>>,
    Params(query): Params<FieldsQuery>,
) -> ApiResult<FieldReport> {
    let newest = query.newest.unwrap_or(DEFAULT_VERSIONS);
    if !(1..=MAX_VERSIONS).contains(&newest) {
        return Err(AdminError::BadRequest(format!(
            "`newest` must be a number from 1 to {MAX_VERSIONS}"
        )));
    }
    let account = query
        .account
        .as_deref()
        .map(|name| known_account(&app, name));
    let company = query.company.as_deref().map(parse_company);
    let search = DocumentSearch {
        account: account.transpose()?,
        queue: query.queue,
        company: company.transpose()?,
        ..DocumentSearch::default()
    };
    Ok(Json(fields::count(&app.store, search, Some(newest)).await?))
}
