//! Handing documents on: sinks, what a person changes at them, the list that a program
//! asks for, and import error reports.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::feeds::{known_account, parse_company};
use super::paging::{List, Page, PageOf};
use super::problem::RowId;
use super::{AdminError, Input, NoFields, Outcome, Params};
use crate::config::{SinkConfig, SinkKind};
use crate::domain::{Feed, SinkName, Timestamp};
use crate::handoff::worker::{rejection, wants};
use crate::service::App;
use crate::store::{
    HandoffFilter, HandoffRow, HandoffState, HeldFeed, LaterVerdict, Offered, ReportFilter,
    ReportRow, ReportState, SinkChange, SinkRow, StartFrom,
};
use crate::trace::{self, Trace};

/// The most bytes of documents in one answer of the list that a program asks for.
const MAX_LIST_BYTES: usize = 8 << 20;

/// The most characters of a rejection's message.
const MAX_MESSAGE_CHARS: usize = 4_000;

/// A sink, and what waits for a person there.
#[derive(Serialize, ToSchema)]
pub(super) struct Sink {
    /// How it stands.
    #[serde(flatten)]
    pub(super) row: SinkRow,
    /// What it is; null where the settings do not name it any more.
    pub(super) kind: Option<&'static str>,
    /// Feeds of which it is given nothing until somebody starts them.
    pub(super) held: Vec<HeldFeed>,
}

const fn kind(sink: &SinkConfig) -> &'static str {
    match sink.kind {
        SinkKind::Http { .. } => "http",
        SinkKind::Command { .. } => "command",
        SinkKind::Folder { .. } => "folder",
        SinkKind::Api => "api",
    }
}

/// Every sink and how it stands
#[utoipa::path(get, path = "/v1/sinks", tag = "handoff", params(PageOf),
    responses((status = OK, description = "Sinks by name", body = Page<Sink>)))]
pub(super) async fn sinks(
    State(app): State<Arc<App>>,
    Params(page): Params<PageOf>,
) -> Outcome<Page<Sink>> {
    let limit = page.limit()?;
    let place = page.place(List::SINKS)?.unwrap_or_default();
    let mut sinks = all_sinks(&app).await?;
    sinks.retain(|sink| sink.row.name.as_str() > place.as_str());
    Ok(Json(Page::of(List::SINKS, sinks, limit, |sink| {
        sink.row.name.clone()
    })))
}

/// Every sink that was ever known, by name.
pub(super) async fn all_sinks(app: &App) -> Result<Vec<Sink>, AdminError> {
    let mut sinks = Vec::new();
    for row in app.store.sinks().await? {
        let config = app.config.sinks.get(&row.name);
        let held = match config {
            Some(config) => {
                let held = app.store.held_feeds(row.name.clone(), wants(config));
                held.await?
            }
            None => Vec::new(),
        };
        sinks.push(Sink {
            kind: config.map(kind),
            row,
            held,
        });
    }
    Ok(sinks)
}

/// From where feeds begin, and which ones; all of the sink's where neither is named.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    /// `all`: everything that is stored. `now`: only what comes from now on. Or a moment
    /// (RFC 3339): versions since then, by the vendor's time.
    from: String,
    /// Only this account's feeds.
    account: Option<String>,
    /// Only this company's feed.
    #[schema(max_length = 64)]
    company: Option<String>,
}

/// How many feeds or versions a change was about.
#[derive(Serialize, ToSchema)]
pub(super) struct SinkChanged {
    /// How many.
    pub(super) changed: usize,
}

/// Let held feeds begin, or feeds that have begun begin earlier
///
/// What the sink has had stays so, and is not handed on again.
#[utoipa::path(post, path = "/v1/sinks/{name}/start", tag = "handoff", request_body = Start,
    params(("name" = String, Path, description = "The sink's name")),
    responses((status = OK, description = "How many feeds that was about", body = SinkChanged)))]
pub(super) async fn start(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(start): Input<Start>,
) -> Outcome<SinkChanged> {
    let (name, sink) = configured(&app, &name)?;
    let from = match start.from.as_str() {
        "all" => StartFrom::All,
        "now" => StartFrom::Now,
        moment => StartFrom::Since(Timestamp::parse(moment).ok_or_else(|| {
            AdminError::BadRequest(
                "`from` is neither `all` nor `now` nor a moment such as 2026-01-31T00:00:00Z"
                    .to_owned(),
            )
        })?),
    };
    let account = start.account.as_deref();
    let company = start.company.as_deref();
    let start = SinkChange::Start {
        wants: wants(sink),
        account: account.map(|name| known_account(&app, name)).transpose()?,
        company: company.map(parse_company).transpose()?,
        from,
    };
    change(&app, name, start).await
}

/// Hand nothing on to a sink until it is resumed
#[utoipa::path(post, path = "/v1/sinks/{name}/pause", tag = "handoff", request_body = NoFields,
    params(("name" = String, Path, description = "The sink's name")),
    responses((status = OK, description = "1 where it was not paused before", body = SinkChanged)))]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<SinkChanged> {
    change(&app, known_sink(&name)?, SinkChange::Pause).await
}

/// Go on with a sink now, whatever it waited for
#[utoipa::path(post, path = "/v1/sinks/{name}/resume", tag = "handoff", request_body = NoFields,
    params(("name" = String, Path, description = "The sink's name")),
    responses((status = OK, description = "1 where it waited or was paused", body = SinkChanged)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<SinkChanged> {
    change(&app, known_sink(&name)?, SinkChange::Resume).await
}

/// Which versions.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Again {
    /// This one, whatever became of it; all that stand rejected where it is absent.
    sequence: Option<i64>,
}

/// Hand rejected versions on again
///
/// Those that a newer version has replaced are left as they are.
#[utoipa::path(post, path = "/v1/sinks/{name}/retry", tag = "handoff", request_body = Again,
    params(("name" = String, Path, description = "The sink's name")),
    responses((status = OK, description = "How many versions", body = SinkChanged)))]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(Again { sequence }): Input<Again>,
) -> Outcome<SinkChanged> {
    change(&app, known_sink(&name)?, SinkChange::Retry { sequence }).await
}

/// Which version.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    /// Its number.
    sequence: i64,
}

/// Leave a version out that keeps a sink from going on
#[utoipa::path(post, path = "/v1/sinks/{name}/skip", tag = "handoff", request_body = One,
    params(("name" = String, Path, description = "The sink's name")),
    responses((status = OK, description = "1 where it was not settled before", body = SinkChanged)))]
pub(super) async fn skip(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(One { sequence }): Input<One>,
) -> Outcome<SinkChanged> {
    change(&app, known_sink(&name)?, SinkChange::Skip { sequence }).await
}

async fn change(app: &App, name: SinkName, change: SinkChange) -> Outcome<SinkChanged> {
    let changed = app.store.change_sink(name, change, app.clock.now()).await?;
    let changed = changed.ok_or(AdminError::UnknownRow)?;
    Ok(Json(SinkChanged { changed }))
}

fn known_sink(name: &str) -> Result<SinkName, AdminError> {
    SinkName::parse(name).map_err(|error| AdminError::BadRequest(error.to_string()))
}

fn configured<'a>(app: &'a App, name: &str) -> Result<(SinkName, &'a SinkConfig), AdminError> {
    let name = known_sink(name)?;
    let sink = app.config.sinks.get(&name).ok_or(AdminError::UnknownRow)?;
    Ok((name, sink))
}

/// Which hand-offs.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichHandoffs {
    /// Only this sink's.
    sink: Option<String>,
    /// Only in this state.
    #[param(inline)]
    state: Option<HandoffState>,
    /// `next` of the page before; the first page without it.
    #[param(max_length = 400)]
    after: Option<String>,
    /// Rows in the answer at the most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
}

/// What became of versions at sinks, with every attempt
#[utoipa::path(get, path = "/v1/handoffs", tag = "handoff", params(WhichHandoffs),
    responses((status = OK, description = "Hand-offs in the order of the versions' numbers",
        body = Page<HandoffRow>)))]
pub(super) async fn handoffs(
    State(app): State<Arc<App>>,
    Params(which): Params<WhichHandoffs>,
) -> Outcome<Page<HandoffRow>> {
    let page = PageOf {
        after: which.after,
        limit: which.limit,
    };
    let limit = page.limit()?;
    let sink = which.sink.as_deref().map(known_sink).transpose()?;
    let place = page.place(List::HANDOFFS)?.unwrap_or_default();
    let (sequence, last_sink) = place.split_once('/').unwrap_or(("0", ""));
    let sequence: i64 = sequence
        .parse()
        .map_err(|_| List::HANDOFFS.foreign_cursor())?;
    // A version may stand at several sinks, so the page begins within its number.
    let filter = HandoffFilter {
        sink,
        state: which.state,
        sequence: None,
        after: sequence.saturating_sub(1),
        limit: limit + 1 + app.store.sinks().await?.len(),
    };
    let mut rows = app.store.handoffs(filter).await?;
    rows.retain(|row| (row.sequence, row.sink.as_str()) > (sequence, last_sink));
    Ok(Json(Page::of(List::HANDOFFS, rows, limit, |row| {
        format!("{}/{}", row.sequence, row.sink)
    })))
}

/// Which part of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichDocuments {
    /// The sink, of the kind `api`; may be left out where there is one of them.
    sink: Option<String>,
    /// `next` of the answer before; the beginning without it.
    #[param(max_length = 100)]
    after: Option<String>,
    /// Documents in the answer at the most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
}

/// Documents for the program that asks, and where to go on.
#[derive(Serialize, ToSchema)]
pub(super) struct Documents {
    /// In the order in which they are to be taken.
    documents: Vec<ListedDocument>,
    /// What to send as `after` next time: `<epoch>:<number>`. Keep it in the transaction
    /// that keeps the documents.
    next: String,
    /// Whether there was more than fitted this answer.
    more: bool,
}

/// One version of one document.
#[derive(Serialize, ToSchema)]
struct ListedDocument {
    /// Its place in this list.
    number: i64,
    /// The same for the same version of the same document, whatever is restored, repeated
    /// or renumbered: book each key once.
    key: String,
    /// What became of it.
    state: HandoffState,
    /// Where it came from.
    #[serde(flatten)]
    feed: Feed,
    /// The vendor's id.
    document_id: String,
    /// The vendor's version text.
    version: String,
    /// The number by which its outcome is told.
    sequence: i64,
    /// When it was stored.
    stored_at: Timestamp,
    /// The vendor's JSON, byte for byte.
    #[schema(value_type = Object)]
    document: Option<Box<RawValue>>,
}

impl From<Offered> for ListedDocument {
    fn from(
        Offered {
            number,
            state,
            item,
        }: Offered,
    ) -> Self {
        Self {
            number,
            key: item.key(),
            state,
            document_id: item.document_id,
            version: item.version,
            sequence: item.sequence,
            stored_at: item.stored_at,
            document: serde_json::from_slice(&item.body).ok(),
            feed: item.feed,
        }
    }
}

/// Documents for a program that asks
///
/// They come in a list that grows at its end alone: a feed that is started later, and a
/// version that is tried again, come there, so `next` never has to go back.
#[utoipa::path(get, path = "/v1/documents", tag = "handoff", params(WhichDocuments),
    responses(
        (status = OK, description = "What came after `after`", body = Documents),
        (status = CONFLICT, description = "`conflict`: `after` is of another epoch: a backup was restored since. \
            Begin without `after`; keys tell what was booked",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn documents(
    State(app): State<Arc<App>>,
    Params(which): Params<WhichDocuments>,
) -> Outcome<Documents> {
    let sink = list_of(&app, which.sink.as_deref())?;
    let limit = PageOf {
        after: None,
        limit: which.limit,
    };
    let limit = limit.limit()?;
    let epoch = app.store.sequence().await?.epoch;
    let after = match which.after.as_deref() {
        None => 0,
        Some(place) => place_of(place, &epoch)?,
    };
    let offered = app
        .store
        .offered(sink, after, limit + 1, MAX_LIST_BYTES)
        .await?;
    let bytes: usize = offered.iter().map(|one| one.item.body.len()).sum();
    // The bytes may have ended it before the rows did.
    let more = offered.len() > limit || bytes >= MAX_LIST_BYTES;
    let documents: Vec<ListedDocument> = offered
        .into_iter()
        .take(limit)
        .map(ListedDocument::from)
        .collect();
    let last = documents.last().map_or(after, |document| document.number);
    Ok(Json(Documents {
        more,
        next: format!("{epoch}:{last}"),
        documents,
    }))
}

/// The place in the list that `<epoch>:<number>` stands for.
fn place_of(text: &str, epoch: &str) -> Result<i64, AdminError> {
    let (of, number) = text.split_once(':').unwrap_or((text, ""));
    let number = number.parse().ok().filter(|number: &i64| *number >= 0);
    match number {
        Some(_) if of != epoch => Err(AdminError::Conflict(
            "`after` is of another epoch: a backup was restored since it was given. Begin without it; \
             `key` tells which documents were booked already"
                .into(),
        )),
        Some(number) => Ok(number),
        None => Err(AdminError::BadRequest(
            "`after` is no `next` of this list; begin without it".to_owned(),
        )),
    }
}

/// The sink whose list is asked for.
fn list_of(app: &App, name: Option<&str>) -> Result<SinkName, AdminError> {
    let mut lists = app
        .config
        .sinks
        .iter()
        .filter(|(_, sink)| matches!(sink.kind, SinkKind::Api))
        .map(|(name, _)| name);
    let missing = || {
        AdminError::BadRequest(
            "the settings name no sink of the kind `api` that this could mean: add \
             `[sinks.NAME]` with `kind = \"api\"`, or name it with `sink`"
                .to_owned(),
        )
    };
    match name {
        Some(name) => {
            let name = known_sink(name)?;
            lists
                .find(|list| **list == name)
                .cloned()
                .ok_or_else(missing)
        }
        None => match (lists.next(), lists.next()) {
            (Some(only), None) => Ok(only.clone()),
            _ => Err(missing()),
        },
    }
}

/// What became of a version, as the program that took it says.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SaidOutcome {
    /// The sink; may be left out where there is one of the kind `api`.
    sink: Option<String>,
    /// What became of it.
    outcome: SaidWord,
    /// Why it is rejected: for the accountant, so in words and without a stack trace.
    #[schema(max_length = 4000)]
    message: Option<String>,
}

/// The two things that may become of a version.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SaidWord {
    Booked,
    Rejected,
}

/// Say what became of a version
///
/// For a sink of any kind that was given it: a receiver may take a document first and
/// reject it later. A rejection becomes an import error report.
#[utoipa::path(post, path = "/v1/documents/{id}/outcome", tag = "handoff", request_body = SaidOutcome,
    params(("id" = i64, Path, description = "`sequence` of the version")),
    responses(
        (status = OK, description = "It is noted; saying it twice changes nothing", body = SinkChanged),
        (status = CONFLICT, description = "`conflict`: the sink was not given this version",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn outcome(
    State(app): State<Arc<App>>,
    RowId(sequence): RowId,
    Input(said): Input<SaidOutcome>,
) -> Outcome<SinkChanged> {
    let sink = match said.sink.as_deref() {
        Some(name) => configured(&app, name)?.0,
        None => list_of(&app, None)?,
    };
    let message = said.message.unwrap_or_default();
    if message.chars().count() > MAX_MESSAGE_CHARS {
        return Err(AdminError::BadRequest(format!(
            "`message` is longer than {MAX_MESSAGE_CHARS} characters"
        )));
    }
    let verdict = match said.outcome {
        SaidWord::Booked => LaterVerdict::Booked,
        SaidWord::Rejected if message.trim().is_empty() => {
            return Err(AdminError::BadRequest(
                "a rejection needs a `message`: the accountant is to know why".to_owned(),
            ));
        }
        SaidWord::Rejected => {
            let item = given(&app, sequence).await?;
            let (message, report) = rejection(&app.config.reports, &item.0, &item.1, &message);
            LaterVerdict::Rejected { message, report }
        }
    };
    let noted = app
        .store
        .note_verdict(sink, sequence, verdict, app.clock.now())
        .await?;
    if noted {
        Ok(Json(SinkChanged { changed: 1 }))
    } else {
        Err(AdminError::Conflict(
            "the sink was not given this version; `GET /v1/handoffs` tells what it was given"
                .into(),
        ))
    }
}

/// The feed and the JSON of a version.
async fn given(app: &App, sequence: i64) -> Result<(Feed, Vec<u8>), AdminError> {
    let filter = crate::store::DocumentFilter {
        after: Some(sequence.saturating_sub(1)),
        limit: 1,
        ..crate::store::DocumentFilter::default()
    };
    let rows = app.store.documents(filter).await?;
    let row = rows.into_iter().find(|row| row.sequence == sequence);
    let row = row.ok_or(AdminError::UnknownRow)?;
    Ok((row.feed, row.body.unwrap_or_default()))
}

/// Which import error reports.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichReports {
    /// Only in this state.
    #[param(inline)]
    state: Option<ReportState>,
    /// `next` of the page before; the first page without it.
    #[param(max_length = 400)]
    after: Option<String>,
    /// Rows in the answer at the most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
}

/// Import errors on their way to the accountant
#[utoipa::path(get, path = "/v1/reports", tag = "handoff", params(WhichReports),
    responses((status = OK, description = "Reports, oldest first", body = Page<ReportRow>)))]
pub(super) async fn reports(
    State(app): State<Arc<App>>,
    Params(which): Params<WhichReports>,
) -> Outcome<Page<ReportRow>> {
    let page = PageOf {
        after: which.after,
        limit: which.limit,
    };
    let limit = page.limit()?;
    let filter = ReportFilter {
        after: page.row(List::REPORTS)?,
        sequence: None,
        state: which.state,
        limit: limit + 1,
    };
    let rows = app.store.reports(filter).await?;
    Ok(Json(Page::of(List::REPORTS, rows, limit, |row| row.id)))
}

/// Report an import error now that was refused or waits
#[utoipa::path(post, path = "/v1/reports/{id}/retry", tag = "handoff", request_body = NoFields,
    params(("id" = i64, Path, description = "The report's row")),
    responses(
        (status = OK, description = "It is due", body = SinkChanged),
        (status = CONFLICT, description = "`conflict`: there is none that could be sent",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn retry_report(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<SinkChanged> {
    if app.store.retry_report(id, app.clock.now()).await? {
        Ok(Json(SinkChanged { changed: 1 }))
    } else {
        Err(AdminError::Conflict(
            "there is no such report that could be sent: it was sent already, or names no company"
                .into(),
        ))
    }
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
