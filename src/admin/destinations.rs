//! Destinations and deliveries: lists them, and starts, pauses, retries and skips.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::feeds::{known_account, parse_company};
use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, NoFields, Params};
use crate::app::App;
use crate::config::{DestinationConfig, DestinationKind};
use crate::delivery::worker::filter;
use crate::domain::{DestinationName, Moment, Timestamp};
use crate::store::{
    DeliveryFilter, DeliveryRow, DeliveryState, DestinationChange, DestinationRow, HeldFeed,
    RunState, StartFrom,
};

/// A destination, its state, and the feeds that it holds.
#[derive(Serialize, ToSchema)]
pub(super) struct Destination {
    /// The destination.
    #[serde(flatten)]
    pub(super) row: DestinationRow,
    /// Its state.
    #[serde(flatten)]
    pub(super) state: RunState,
    /// Its kind; null if it is no longer configured.
    pub(super) kind: Option<&'static str>,
    /// Feeds whose documents are held until a person starts them.
    pub(super) held: Vec<HeldFeed>,
}

const fn kind(destination: &DestinationConfig) -> &'static str {
    match destination.kind {
        DestinationKind::Http { .. } => "http",
        DestinationKind::Command { .. } => "command",
        DestinationKind::Folder { .. } => "folder",
        DestinationKind::List => "list",
    }
}

/// Lists destinations with their state
#[utoipa::path(get, path = "/v1/destinations", tag = "delivery", params(PageQuery),
    responses((status = OK, description = "Destinations by name", body = Page<Destination>)))]
pub(super) async fn destinations(
    State(app): State<Arc<App>>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<Destination>> {
    let limit = page.limit()?;
    let place = page.place(List::DESTINATIONS)?.unwrap_or_default();
    let mut destinations = all_destinations(&app).await?;
    destinations.retain(|destination| destination.row.name.as_str() > place.as_str());
    Ok(Json(Page::of(
        List::DESTINATIONS,
        destinations,
        limit,
        |destination| destination.row.name.clone(),
    )))
}

/// Returns every destination that was ever known, by name.
pub(super) async fn all_destinations(app: &App) -> Result<Vec<Destination>, AdminError> {
    let mut destinations = Vec::new();
    for row in app.store.destinations().await? {
        let config = app.config.destinations.get(&row.name);
        let held = match config {
            Some(config) => {
                let held = app.store.held_feeds(row.name.clone(), filter(config));
                held.await?
            }
            None => Vec::new(),
        };
        destinations.push(Destination {
            kind: config.map(kind),
            state: row.state(app.clock.now()),
            row,
            held,
        });
    }
    Ok(destinations)
}

/// The start of feeds: all feeds of the destination, unless account or company are set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    /// `all`: everything that is stored. `now`: only versions stored from now on. Or a moment
    /// (RFC 3339): versions since then, in the vendor's time.
    from: String,
    /// Only this account's feeds.
    account: Option<String>,
    /// Only this company's feed.
    #[schema(max_length = 64)]
    company: Option<String>,
}

/// The number of feeds or versions that changed.
#[derive(Serialize, ToSchema)]
pub(super) struct DestinationChanged {
    /// The number.
    pub(super) changed: usize,
}

/// Starts held feeds, or moves the start of started feeds back
///
/// Versions that the destination has accepted are not delivered again.
#[utoipa::path(post, path = "/v1/destinations/{name}/start", tag = "delivery", request_body = Start,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "The number of feeds", body = DestinationChanged)))]
pub(super) async fn start(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(start): Input<Start>,
) -> ApiResult<DestinationChanged> {
    let (name, destination) = configured_destination(&app, &name)?;
    let from = match start.from.as_str() {
        "all" => StartFrom::All,
        "now" => StartFrom::Now,
        moment => StartFrom::Since(read_moment(moment).ok_or_else(|| {
            AdminError::BadRequest(
                "`from` must be `all`, `now` or a moment such as 2026-01-31T00:00:00Z".to_owned(),
            )
        })?),
    };
    let account = start.account.as_deref();
    let company = start.company.as_deref();
    let start = DestinationChange::Start {
        filter: filter(destination),
        account: account.map(|name| known_account(&app, name)).transpose()?,
        company: company.map(parse_company).transpose()?,
        from,
    };
    change(&app, name, start).await
}

/// Pauses a destination until it is resumed
#[utoipa::path(post, path = "/v1/destinations/{name}/pause", tag = "delivery", request_body = NoFields,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "1 if it was not paused before", body = DestinationChanged)))]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<DestinationChanged> {
    change(&app, parse_destination(&name)?, DestinationChange::Pause).await
}

/// Resumes a destination now, also one that waits to retry
#[utoipa::path(post, path = "/v1/destinations/{name}/resume", tag = "delivery", request_body = NoFields,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "1 if it waited or was paused", body = DestinationChanged)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<DestinationChanged> {
    change(&app, parse_destination(&name)?, DestinationChange::Resume).await
}

/// The versions to deliver again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetrySelection {
    /// This version, in any state; absent for all rejected versions.
    sequence: Option<i64>,
}

/// Delivers rejected versions again
///
/// Versions that a newer one has superseded are left out.
#[utoipa::path(post, path = "/v1/destinations/{name}/retry", tag = "delivery", request_body = RetrySelection,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "The number of versions", body = DestinationChanged)))]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(RetrySelection { sequence }): Input<RetrySelection>,
) -> ApiResult<DestinationChanged> {
    change(
        &app,
        parse_destination(&name)?,
        DestinationChange::Retry { sequence },
    )
    .await
}

/// The version to skip.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SkipSelection {
    /// Its sequence number.
    sequence: i64,
}

/// Skips a version that blocks a destination
#[utoipa::path(post, path = "/v1/destinations/{name}/skip", tag = "delivery", request_body = SkipSelection,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "1 if it was not finished before", body = DestinationChanged)))]
pub(super) async fn skip(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(SkipSelection { sequence }): Input<SkipSelection>,
) -> ApiResult<DestinationChanged> {
    change(
        &app,
        parse_destination(&name)?,
        DestinationChange::Skip { sequence },
    )
    .await
}

async fn change(
    app: &App,
    name: DestinationName,
    change: DestinationChange,
) -> ApiResult<DestinationChanged> {
    let changed = app
        .store
        .change_destination(name, change, app.clock.now())
        .await?;
    let changed = changed.ok_or(AdminError::UnknownRow)?;
    Ok(Json(DestinationChanged { changed }))
}

/// Parses the name of a destination.
pub(super) fn parse_destination(name: &str) -> Result<DestinationName, AdminError> {
    DestinationName::parse(name).map_err(|error| AdminError::BadRequest(error.to_string()))
}

/// Returns a configured destination.
pub(super) fn configured_destination<'a>(
    app: &'a App,
    name: &str,
) -> Result<(DestinationName, &'a DestinationConfig), AdminError> {
    let name = parse_destination(name)?;
    let destination = app
        .config
        .destinations
        .get(&name)
        .ok_or(AdminError::UnknownRow)?;
    Ok((name, destination))
}

/// The deliveries that are requested.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveryQuery {
    /// Only those of this destination.
    destination: Option<String>,
    /// Only in this state.
    #[param(inline)]
    state: Option<DeliveryState>,
    /// `next` of the previous page; absent for the first page.
    #[param(max_length = 400)]
    after: Option<String>,
    /// Most rows on the page.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
}

/// Lists deliveries with their attempts
#[utoipa::path(get, path = "/v1/deliveries", tag = "delivery", params(DeliveryQuery),
    responses((status = OK, description = "Deliveries by sequence number",
        body = Page<DeliveryRow>)))]
pub(super) async fn deliveries(
    State(app): State<Arc<App>>,
    Params(query): Params<DeliveryQuery>,
) -> ApiResult<Page<DeliveryRow>> {
    let page = PageQuery {
        after: query.after,
        limit: query.limit,
    };
    let limit = page.limit()?;
    let destination = query
        .destination
        .as_deref()
        .map(parse_destination)
        .transpose()?;
    let place = page.place(List::DELIVERIES)?.unwrap_or_default();
    let (sequence, last_destination) = place.split_once('/').unwrap_or(("0", ""));
    let sequence: i64 = sequence
        .parse()
        .map_err(|_| List::DELIVERIES.cursor_error())?;
    // One version has a delivery per destination, so a page may begin between them.
    let filter = DeliveryFilter {
        destination,
        state: query.state,
        sequence: None,
        after: sequence.saturating_sub(1),
        limit: limit + 1 + app.store.destinations().await?.len(),
    };
    let mut rows = app.store.deliveries(filter).await?;
    rows.retain(|row| (row.sequence, row.destination.as_str()) > (sequence, last_destination));
    Ok(Json(Page::of(List::DELIVERIES, rows, limit, |row| {
        format!("{}/{}", row.sequence, row.destination)
    })))
}

/// Reads a moment as the versions of documents are read.
fn read_moment(text: &str) -> Option<Timestamp> {
    Moment::read(text)?.timestamp()
}
