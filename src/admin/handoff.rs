//! Sinks: how each stands, what a person changes there, and what became of versions.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::feeds::{known_account, parse_company};
use super::paging::{List, Page, PageOf};
use super::{AdminError, Input, NoFields, Outcome, Params};
use crate::config::{SinkConfig, SinkKind};
use crate::domain::{SinkName, Timestamp};
use crate::handoff::worker::wants;
use crate::service::App;
use crate::store::{
    HandoffFilter, HandoffRow, HandoffState, HeldFeed, SinkChange, SinkRow, StartFrom,
};

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

pub(super) fn known_sink(name: &str) -> Result<SinkName, AdminError> {
    SinkName::parse(name).map_err(|error| AdminError::BadRequest(error.to_string()))
}

pub(super) fn configured<'a>(
    app: &'a App,
    name: &str,
) -> Result<(SinkName, &'a SinkConfig), AdminError> {
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
