//! Destinations, lanes and deliveries: lists them, and starts, stops, pauses, retries and skips.

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
use crate::delivery::worker::lane_plan;
use crate::domain::{Company, DestinationName, Moment};
use crate::store::{
    DeliveryFilter, DeliveryRow, DeliverySelection, DeliveryState, DestinationChange,
    DestinationRow, LaneRow, LaneSelection, RunState, StartFrom, StartPreview,
};

/// A destination and its state.
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
    let now = app.clock.now();
    let rows = app.store.destinations().await?.into_iter();
    let destinations = rows.map(|row| Destination {
        kind: app.config.destinations.get(&row.name).map(kind),
        state: row.state(now),
        row,
    });
    Ok(destinations.collect())
}

/// Lists the lanes of a destination
///
/// A lane is one feed at one destination. Versions before its `begins_at` are history.
#[utoipa::path(get, path = "/v1/destinations/{name}/lanes", tag = "delivery",
    params(("name" = String, Path, description = "The destination's name"), PageQuery),
    responses((status = OK, description = "Lanes in the order in which their feeds became known", body = Page<LaneRow>)))]
pub(super) async fn lanes(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<LaneRow>> {
    let limit = page.limit()?;
    let after = page.row(List::LANES)?;
    let name = parse_destination(&name)?;
    let rows = app.store.lanes(name, after, limit + 1).await?;
    let page = Page::of(List::LANES, rows, limit, |(feed, _)| *feed);
    Ok(Json(page.map(|(_, lane)| lane)))
}

/// The lanes that a start is for, and its point: all lanes of the destination, unless account or
/// company are set.
#[derive(Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Start {
    /// `all`: everything that is stored. Or a moment (RFC 3339): versions since then, in the
    /// vendor's time; lanes that begin before it begin there from now on.
    pub(super) from: String,
    /// Only this account's feeds.
    pub(super) account: Option<String>,
    /// Only this company's feed.
    #[schema(max_length = 64)]
    #[param(max_length = 64)]
    pub(super) company: Option<String>,
}

/// The lanes whose start is to be stopped: all of the destination, unless account or company
/// are set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Stop {
    /// Only this account's feeds.
    account: Option<String>,
    /// Only this company's feed.
    #[schema(max_length = 64)]
    company: Option<String>,
}

/// The number of lanes or versions that changed.
#[derive(Serialize, ToSchema)]
pub(super) struct DestinationChanged {
    /// The number.
    pub(super) changed: usize,
}

/// What a start would deliver.
#[derive(Serialize, ToSchema)]
pub(super) struct StartPlan {
    /// Documents in all.
    pub(super) documents: u64,
    /// Those of each feed that has any.
    pub(super) feeds: Vec<StartPreview>,
}

/// Shows what a start would deliver
#[utoipa::path(get, path = "/v1/destinations/{name}/start", tag = "delivery",
    params(("name" = String, Path, description = "The destination's name"), Start),
    responses((status = OK, description = "Documents of each feed, and from when to when", body = StartPlan)))]
pub(super) async fn preview(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Params(start): Params<Start>,
) -> ApiResult<StartPlan> {
    plan_start(&app, &name, &start).await.map(Json)
}

/// Returns what a start would deliver.
pub(super) async fn plan_start(
    app: &App,
    name: &str,
    start: &Start,
) -> Result<StartPlan, AdminError> {
    let name = make_lanes(app, name).await?;
    let lanes = selection(app, start.account.as_deref(), start.company.as_deref())?;
    let from = start_from(&start.from)?;
    let feeds = app.store.preview_start(name, lanes, from).await?;
    Ok(StartPlan {
        documents: feeds.iter().map(|feed| feed.documents).sum(),
        feeds,
    })
}

/// Starts the history of lanes, or moves their start back
///
/// Versions that the destination has accepted are not delivered again.
#[utoipa::path(post, path = "/v1/destinations/{name}/start", tag = "delivery", request_body = Start,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "The number of lanes", body = DestinationChanged)))]
pub(super) async fn start(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(start): Input<Start>,
) -> ApiResult<DestinationChanged> {
    start_lanes(&app, &name, &start).await.map(Json)
}

/// Starts the history of lanes.
pub(super) async fn start_lanes(
    app: &App,
    name: &str,
    start: &Start,
) -> Result<DestinationChanged, AdminError> {
    let name = make_lanes(app, name).await?;
    let lanes = selection(app, start.account.as_deref(), start.company.as_deref())?;
    let from = start_from(&start.from)?;
    let Json(changed) = change(app, name, DestinationChange::Start { lanes, from }).await?;
    Ok(changed)
}

/// Makes the lanes of a destination that its worker has not made yet.
async fn make_lanes(app: &App, name: &str) -> Result<DestinationName, AdminError> {
    let (name, destination) = configured_destination(app, name)?;
    let plan = lane_plan(destination, app.config.pull.lookback);
    let now = app.clock.now();
    while app
        .store
        .make_lanes(name.clone(), plan.clone(), now)
        .await?
    {}
    Ok(name)
}

fn selection(
    app: &App,
    account: Option<&str>,
    company: Option<&str>,
) -> Result<LaneSelection, AdminError> {
    Ok(LaneSelection {
        account: account.map(|name| known_account(app, name)).transpose()?,
        company: company.map(parse_company).transpose()?,
    })
}

fn start_from(from: &str) -> Result<StartFrom, AdminError> {
    match from {
        "all" => Ok(StartFrom::All),
        // Read as the versions of documents are read.
        moment => Moment::read(moment).map(StartFrom::Since).ok_or_else(|| {
            AdminError::BadRequest(
                "`from` must be `all` or a moment such as 2026-01-31T00:00:00Z".to_owned(),
            )
        }),
    }
}

/// Stops a start: history that is not delivered yet is held again
#[utoipa::path(post, path = "/v1/destinations/{name}/stop", tag = "delivery", request_body = Stop,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "The number of lanes that had been started", body = DestinationChanged)))]
pub(super) async fn stop(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(stop): Input<Stop>,
) -> ApiResult<DestinationChanged> {
    let name = parse_destination(&name)?;
    let lanes = selection(&app, stop.account.as_deref(), stop.company.as_deref())?;
    change(&app, name, DestinationChange::Stop { lanes }).await
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

/// Resumes a destination and its paused lanes now, also those that wait to retry
#[utoipa::path(post, path = "/v1/destinations/{name}/resume", tag = "delivery", request_body = NoFields,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "1 if it, or a lane, waited or was paused", body = DestinationChanged)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<DestinationChanged> {
    change(&app, parse_destination(&name)?, DestinationChange::Resume).await
}

/// The versions to deliver again, or to skip: one, or all in a state.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Selection {
    /// This version.
    sequence: Option<i64>,
    /// All in this state; of a retry `rejected` if neither is given.
    state: Option<DeliveryState>,
    /// Only those of this company; not with `sequence`.
    #[schema(max_length = 64)]
    company: Option<String>,
}

impl Selection {
    /// Returns the selected deliveries, which may be in these states, the first by default.
    fn read(
        self,
        allowed: &[DeliveryState],
        default: Option<DeliveryState>,
    ) -> Result<DeliverySelection, AdminError> {
        let company = self.company.as_deref().map(parse_company).transpose()?;
        match (self.sequence, self.state.or(default)) {
            (Some(sequence), _) if self.state.is_none() && company.is_none() => {
                Ok(DeliverySelection::One(sequence))
            }
            (None, Some(state)) if allowed.contains(&state) => {
                Ok(DeliverySelection::InState { state, company })
            }
            _ => {
                let names: Vec<&str> = allowed.iter().map(|state| state.as_str()).collect();
                Err(AdminError::BadRequest(format!(
                    "give `sequence`, or `state` ({}) with or without `company`",
                    names.join(", ")
                )))
            }
        }
    }
}

/// Delivers versions again: one in any state, or all in a state
///
/// Versions that a newer one has superseded are left out.
#[utoipa::path(post, path = "/v1/destinations/{name}/retry", tag = "delivery", request_body = Selection,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "The number of versions", body = DestinationChanged)))]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(selection): Input<Selection>,
) -> ApiResult<DestinationChanged> {
    use DeliveryState::{Deferred, Rejected, Skipped, WaitingFile};
    let allowed = [Rejected, Deferred, WaitingFile, Skipped];
    let selection = selection.read(&allowed, Some(Rejected))?;
    let retry = DestinationChange::Retry(selection);
    change(&app, parse_destination(&name)?, retry).await
}

/// Skips versions that are not finished: one, or all in a state
#[utoipa::path(post, path = "/v1/destinations/{name}/skip", tag = "delivery", request_body = Selection,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "The number of versions", body = DestinationChanged)))]
pub(super) async fn skip(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(selection): Input<Selection>,
) -> ApiResult<DestinationChanged> {
    use DeliveryState::{Deferred, Pending, Rejected, WaitingFile};
    let allowed = [Pending, Deferred, WaitingFile, Rejected];
    let skip = DestinationChange::Skip(selection.read(&allowed, None)?);
    change(&app, parse_destination(&name)?, skip).await
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
    pub(super) destination: Option<String>,
    /// Only in this state.
    #[param(inline)]
    pub(super) state: Option<DeliveryState>,
    /// Only those of this company.
    #[param(max_length = 64)]
    pub(super) company: Option<String>,
    /// `next` of the previous page; absent for the first page.
    #[param(max_length = 400)]
    pub(super) after: Option<String>,
    /// Most rows on the page.
    #[param(minimum = 1, maximum = 500, default = 100)]
    pub(super) limit: Option<usize>,
}

/// Lists deliveries with their attempts
#[utoipa::path(get, path = "/v1/deliveries", tag = "delivery", params(DeliveryQuery),
    responses((status = OK, description = "Deliveries by sequence number",
        body = Page<DeliveryRow>)))]
pub(super) async fn deliveries(
    State(app): State<Arc<App>>,
    Params(query): Params<DeliveryQuery>,
) -> ApiResult<Page<DeliveryRow>> {
    read_deliveries(&app, query).await.map(Json)
}

/// Returns one page of deliveries.
pub(super) async fn read_deliveries(
    app: &App,
    query: DeliveryQuery,
) -> Result<Page<DeliveryRow>, AdminError> {
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
    let company: Option<Company> = query.company.as_deref().map(parse_company).transpose()?;
    let place = page.place(List::DELIVERIES)?.unwrap_or_default();
    let (sequence, last_destination) = place.split_once('/').unwrap_or(("0", ""));
    let sequence: i64 = sequence
        .parse()
        .map_err(|_| List::DELIVERIES.cursor_error())?;
    // One version has a delivery per destination, so a page may begin between them.
    let filter = DeliveryFilter {
        destination,
        state: query.state,
        company,
        sequence: None,
        after: sequence.saturating_sub(1),
        limit: limit + 1 + app.store.destination_count().await?,
    };
    let mut rows = app.store.deliveries(filter).await?;
    rows.retain(|row| (row.sequence, row.destination.as_str()) > (sequence, last_destination));
    Ok(Page::of(List::DELIVERIES, rows, limit, |row| {
        format!("{}/{}", row.sequence, row.destination)
    }))
}
