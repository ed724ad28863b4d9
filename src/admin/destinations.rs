//! Destinations: how each stands, what a person changes there, and what became of versions.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::feeds::{known_account, parse_company};
use super::paging::{List, Page, PageOf};
use super::{AdminError, Input, NoFields, Outcome, Params};
use crate::config::{DestinationConfig, DestinationKind};
use crate::delivery::worker::filter;
use crate::domain::{DestinationName, Timestamp};
use crate::service::App;
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
    /// What it is; null where the settings do not name it any more.
    pub(super) kind: Option<&'static str>,
    /// Feeds of which it is given nothing until somebody starts them.
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

/// Every destination and its state
#[utoipa::path(get, path = "/v1/destinations", tag = "delivery", params(PageOf),
    responses((status = OK, description = "Destinations by name", body = Page<Destination>)))]
pub(super) async fn destinations(
    State(app): State<Arc<App>>,
    Params(page): Params<PageOf>,
) -> Outcome<Page<Destination>> {
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

/// Every destination that was ever known, by name.
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

/// From where feeds begin, and which ones; all of the destination's where neither is named.
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
pub(super) struct DestinationChanged {
    /// How many.
    pub(super) changed: usize,
}

/// Let held feeds begin, or feeds that have begun begin earlier
///
/// What the destination has had stays so, and is not delivered again.
#[utoipa::path(post, path = "/v1/destinations/{name}/start", tag = "delivery", request_body = Start,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "How many feeds that was about", body = DestinationChanged)))]
pub(super) async fn start(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(start): Input<Start>,
) -> Outcome<DestinationChanged> {
    let (name, destination) = configured(&app, &name)?;
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
    let start = DestinationChange::Start {
        filter: filter(destination),
        account: account.map(|name| known_account(&app, name)).transpose()?,
        company: company.map(parse_company).transpose()?,
        from,
    };
    change(&app, name, start).await
}

/// Hand nothing on to a destination until it is resumed
#[utoipa::path(post, path = "/v1/destinations/{name}/pause", tag = "delivery", request_body = NoFields,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "1 where it was not paused before", body = DestinationChanged)))]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<DestinationChanged> {
    change(&app, known_destination(&name)?, DestinationChange::Pause).await
}

/// Go on with a destination now, whatever it waited for
#[utoipa::path(post, path = "/v1/destinations/{name}/resume", tag = "delivery", request_body = NoFields,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "1 where it waited or was paused", body = DestinationChanged)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<DestinationChanged> {
    change(&app, known_destination(&name)?, DestinationChange::Resume).await
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
#[utoipa::path(post, path = "/v1/destinations/{name}/retry", tag = "delivery", request_body = Again,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "How many versions", body = DestinationChanged)))]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(Again { sequence }): Input<Again>,
) -> Outcome<DestinationChanged> {
    change(
        &app,
        known_destination(&name)?,
        DestinationChange::Retry { sequence },
    )
    .await
}

/// Which version.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    /// Its number.
    sequence: i64,
}

/// Leave a version out that keeps a destination from going on
#[utoipa::path(post, path = "/v1/destinations/{name}/skip", tag = "delivery", request_body = One,
    params(("name" = String, Path, description = "The destination's name")),
    responses((status = OK, description = "1 where it was not settled before", body = DestinationChanged)))]
pub(super) async fn skip(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Input(One { sequence }): Input<One>,
) -> Outcome<DestinationChanged> {
    change(
        &app,
        known_destination(&name)?,
        DestinationChange::Skip { sequence },
    )
    .await
}

async fn change(
    app: &App,
    name: DestinationName,
    change: DestinationChange,
) -> Outcome<DestinationChanged> {
    let changed = app
        .store
        .change_destination(name, change, app.clock.now())
        .await?;
    let changed = changed.ok_or(AdminError::UnknownRow)?;
    Ok(Json(DestinationChanged { changed }))
}

pub(super) fn known_destination(name: &str) -> Result<DestinationName, AdminError> {
    DestinationName::parse(name).map_err(|error| AdminError::BadRequest(error.to_string()))
}

pub(super) fn configured<'a>(
    app: &'a App,
    name: &str,
) -> Result<(DestinationName, &'a DestinationConfig), AdminError> {
    let name = known_destination(name)?;
    let destination = app
        .config
        .destinations
        .get(&name)
        .ok_or(AdminError::UnknownRow)?;
    Ok((name, destination))
}

/// Which deliveries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveryQuery {
    /// Only this destination's.
    destination: Option<String>,
    /// Only in this state.
    #[param(inline)]
    state: Option<DeliveryState>,
    /// `next` of the page before; the first page without it.
    #[param(max_length = 400)]
    after: Option<String>,
    /// Rows in the answer at the most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
}

/// What became of versions at destinations, with every attempt
#[utoipa::path(get, path = "/v1/deliveries", tag = "delivery", params(DeliveryQuery),
    responses((status = OK, description = "Deliveries in the order of the versions' numbers",
        body = Page<DeliveryRow>)))]
pub(super) async fn deliveries(
    State(app): State<Arc<App>>,
    Params(which): Params<DeliveryQuery>,
) -> Outcome<Page<DeliveryRow>> {
    let page = PageOf {
        after: which.after,
        limit: which.limit,
    };
    let limit = page.limit()?;
    let destination = which
        .destination
        .as_deref()
        .map(known_destination)
        .transpose()?;
    let place = page.place(List::DELIVERIES)?.unwrap_or_default();
    let (sequence, last_destination) = place.split_once('/').unwrap_or(("0", ""));
    let sequence: i64 = sequence
        .parse()
        .map_err(|_| List::DELIVERIES.foreign_cursor())?;
    // A version may stand at several destinations, so the page begins within its number.
    let filter = DeliveryFilter {
        destination,
        state: which.state,
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
