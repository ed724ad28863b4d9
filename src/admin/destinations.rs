//! Destinations, lanes and deliveries: lists them, and starts, stops, pauses, retries and skips.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};

use super::feeds::{known_account, parse_company};
use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, NoFields, Params};
use crate::api::Changed;
use crate::api::deliveries::{Delivery, DeliveryQuery, Selection};
use crate::api::destinations::{Destination, Lane, Start, StartPlan, Stop};
use crate::app::App;
use crate::config::{DestinationConfig, did_you_mean};
use crate::delivery::worker::lane_plan;
use crate::domain::{Company, DestinationName, Moment};
use crate::store::{
    DeliveryFilter, DeliveryRow, DeliverySelection, DeliveryState, DestinationChange,
    LaneSelection, StartFrom,
};

/// Lists destinations with their state
#[utoipa::path(get, path = "/v1/destinations", tag = "delivery", params(PageQuery),
    responses((status = OK, description = "Destinations by name", body = Page<Destination>)))]
pub(super) async fn destinations(
    State(app): State<Arc<App>>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<Destination>> {
    let limit = page.limit()?;
    let place = page.place(List::DESTINATIONS)?.unwrap_or_default();
    let now = app.clock.now();
    let mut rows = app.store.destinations().await?;
    rows.retain(|row| row.name.as_str() > place.as_str());
    let page = Page::of(List::DESTINATIONS, rows, limit, |row| row.name.clone());
    Ok(Json(page.map(|row| {
        let config = app.config.destinations.get(&row.name);
        let kind = config.map(|destination| destination.kind.as_str());
        Destination::of(row, kind, now)
    })))
}

/// Lists the lanes of a destination
///
/// A lane is one feed at one destination. Versions before its `begins_at` are history.
#[utoipa::path(get, path = "/v1/destinations/{name}/lanes", tag = "delivery",
    params(("name" = String, Path, description = "The destination's name"), PageQuery),
    responses((status = OK, description = "Lanes in the order in which their feeds became known", body = Page<Lane>)))]
pub(super) async fn lanes(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<Lane>> {
    let limit = page.limit()?;
    let after = page.row(List::LANES)?;
    let name = parse_destination(&name)?;
    let rows = app.store.lanes(name.clone(), after, limit + 1).await?;
    if rows.is_empty() && after == 0 && !app.config.destinations.contains_key(&name) {
        must_be_known(&app, &name).await?;
    }
    let page = Page::of(List::LANES, rows, limit, |(feed, _)| *feed);
    Ok(Json(page.map(|(_, lane)| lane.into())))
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
    Ok(feeds.into())
}

/// Starts the history of lanes, or moves their start back
///
/// Versions that the destination has accepted are not delivered again.
#[utoipa::path(post, path = "/v1/destinations/{name}/start", tag = "delivery", request_body = Start,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "The number of lanes", body = Changed)))]
pub(super) async fn start(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(start): Input<Start>,
) -> ApiResult<Changed> {
    start_lanes(&app, &name, &start).await.map(Json)
}

/// Starts the history of lanes.
pub(super) async fn start_lanes(
    app: &App,
    name: &str,
    start: &Start,
) -> Result<Changed, AdminError> {
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
        // Read as the versions of documents are read; a day begins at midnight, UTC.
        text => Moment::read(text)
            .or_else(|| Moment::read(&format!("{text}T00:00:00Z")))
            .map(StartFrom::Since)
            .ok_or_else(|| {
                AdminError::BadRequest(format!(
                    "`{text}` is neither `all` nor a date or a moment such as 2026-01-31 or 2026-01-31T00:00:00Z"
                ))
            }),
    }
}

/// Stops a start: history that is not delivered yet is held again
#[utoipa::path(post, path = "/v1/destinations/{name}/stop", tag = "delivery", request_body = Stop,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "The number of lanes that had been started", body = Changed)))]
pub(super) async fn stop(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(stop): Input<Stop>,
) -> ApiResult<Changed> {
    let name = parse_destination(&name)?;
    let lanes = selection(&app, stop.account.as_deref(), stop.company.as_deref())?;
    change(&app, name, DestinationChange::Stop { lanes }).await
}

/// Pauses a destination until it is resumed
#[utoipa::path(post, path = "/v1/destinations/{name}/pause", tag = "delivery", request_body = NoFields,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "1 if it was not paused before", body = Changed)))]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<Changed> {
    let (name, _) = configured_destination(&app, &name)?;
    change(&app, name, DestinationChange::Pause).await
}

/// Resumes a destination and its paused lanes now, also those that wait to retry
#[utoipa::path(post, path = "/v1/destinations/{name}/resume", tag = "delivery", request_body = NoFields,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "1 if it, or a lane, waited or was paused", body = Changed)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<Changed> {
    let (name, _) = configured_destination(&app, &name)?;
    change(&app, name, DestinationChange::Resume).await
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
                let names = names.join(", ");
                Err(AdminError::BadRequest(match self.state {
                    Some(state) if self.sequence.is_none() => format!(
                        "versions in the state `{}` can't be chosen for this; give one of {names}",
                        state.as_str()
                    ),
                    _ => format!(
                        "give a sequence number, or a state ({names}) with or without a company"
                    ),
                }))
            }
        }
    }
}

/// Delivers versions again: one in any state, or all in a state
///
/// Versions that a newer one has superseded are left out.
#[utoipa::path(post, path = "/v1/destinations/{name}/retry", tag = "delivery", request_body = Selection,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "The number of versions", body = Changed)))]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(selection): Input<Selection>,
) -> ApiResult<Changed> {
    use DeliveryState::{Deferred, Rejected, Skipped, WaitingFile};
    let allowed = [Rejected, Deferred, WaitingFile, Skipped];
    let selection = selection.read(&allowed, Some(Rejected))?;
    let retry = DestinationChange::Retry(selection);
    let (name, _) = configured_destination(&app, &name)?;
    change(&app, name, retry).await
}

/// Skips versions that are not finished: one, or all in a state
#[utoipa::path(post, path = "/v1/destinations/{name}/skip", tag = "delivery", request_body = Selection,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "The number of versions", body = Changed)))]
pub(super) async fn skip(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(selection): Input<Selection>,
) -> ApiResult<Changed> {
    use DeliveryState::{Deferred, Pending, Rejected, WaitingFile};
    let allowed = [Pending, Deferred, WaitingFile, Rejected];
    let skip = DestinationChange::Skip(selection.read(&allowed, None)?);
    change(&app, parse_destination(&name)?, skip).await
}

async fn change(app: &App, name: DestinationName, change: DestinationChange) -> ApiResult<Changed> {
    let changed = app
        .store
        .change_destination(name.clone(), change, app.clock.now())
        .await?;
    let changed = changed.ok_or_else(|| unknown_destination(app, &name, &[]))?;
    Ok(Json(Changed { changed }))
}

/// Returns an error if a destination is neither in the settings nor in the store.
async fn must_be_known(app: &App, name: &DestinationName) -> Result<(), AdminError> {
    let rows = app.store.destinations().await?;
    if rows.iter().any(|row| row.name == *name) {
        return Ok(());
    }
    let stored: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    Err(unknown_destination(app, name, &stored))
}

/// Returns that a destination is not known, with the nearest one of the settings and of `stored`.
fn unknown_destination(app: &App, name: &DestinationName, stored: &[&str]) -> AdminError {
    let configured = app.config.destinations.keys().map(DestinationName::as_str);
    let nearest = did_you_mean(name.as_str(), configured.chain(stored.iter().copied()));
    let nearest = match nearest.as_str() {
        "" => ";".to_owned(),
        nearest => nearest.to_owned(),
    };
    AdminError::Unknown(format!(
        "there is no destination `{name}`{nearest} `ivesk-webhook destinations list` lists them; one that was added to the \
         settings is known after a restart of `serve`"
    ))
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
    let destination = app.config.destinations.get(&name);
    let destination = destination.ok_or_else(|| unknown_destination(app, &name, &[]))?;
    Ok((name, destination))
}

/// Lists deliveries with their attempts
#[utoipa::path(get, path = "/v1/deliveries", tag = "delivery", params(DeliveryQuery),
    responses((status = OK, description = "Deliveries by sequence number",
        body = Page<Delivery>)))]
pub(super) async fn deliveries(
    State(app): State<Arc<App>>,
    Params(query): Params<DeliveryQuery>,
) -> ApiResult<Page<Delivery>> {
    let page = read_deliveries(&app, query).await?;
    Ok(Json(page.map(Delivery::from)))
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
    let named = filter.destination.clone();
    let mut rows = app.store.deliveries(filter).await?;
    if let Some(name) =
        named.filter(|name| rows.is_empty() && !app.config.destinations.contains_key(name))
    {
        must_be_known(app, &name).await?;
    }
    rows.retain(|row| (row.sequence, row.destination.as_str()) > (sequence, last_destination));
    Ok(Page::of(List::DELIVERIES, rows, limit, |row| {
        format!("{}/{}", row.sequence, row.destination)
    }))
}
