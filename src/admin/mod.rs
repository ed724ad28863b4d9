//! The admin listener: API, status page, metrics, health. Subcommands use the same API,
//! in their own process if no server runs.

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::attempts::Attempts;
use self::problem::AdminError;
use self::state::Admin;
use self::uses::Uses;
use crate::app::App;

mod alarms;
mod attempts;
mod audit;
mod certificates;
mod destinations;
mod doctor;
mod documents;
mod export;
mod feeds;
mod gaps;
mod guard;
mod identity;
mod import_errors;
mod list;
pub mod listener;
mod login_links;
mod messages;
mod openapi;
mod pages;
pub(crate) mod paging;
mod problem;
mod rules;
pub mod socket;
mod state;
mod status;
mod subscriptions;
mod tokens;
mod uploads;
mod uses;

/// Returns the admin listener's routes.
pub fn router(app: Arc<App>) -> Router {
    let (guarded, mut api) = guarded().split_for_parts();
    let (open, health) = health().split_for_parts();
    openapi::complete(&mut api);
    api.merge(health);
    let admin = Admin {
        attempts: Arc::new(Attempts::default()),
        uses: Arc::new(Uses::new()),
        exports: Arc::new(Semaphore::new(export::MAX_EXPORTS)),
        document: openapi::to_json(&api),
        app,
    };
    let guarded = guarded
        .method_not_allowed_fallback(|| async { AdminError::UnknownMethod })
        .fallback(|| async { AdminError::UnknownPath })
        .layer(from_fn_with_state(admin.clone(), guard::guard))
        .layer(from_fn_with_state(admin.clone(), pages::answer_unknown));
    open.merge(guarded)
        .merge(pages::router(&admin))
        .layer(from_fn(guard::bound))
        .with_state(admin)
}

/// Returns the routes that need a right, each with its OpenAPI description.
fn guarded() -> OpenApiRouter<Admin> {
    OpenApiRouter::with_openapi(openapi::outline())
        .routes(routes!(status::status))
        .routes(routes!(status::activity))
        .routes(routes!(status::challenge))
        .routes(routes!(doctor::checks))
        .routes(routes!(status::backup))
        .routes(routes!(status::metrics))
        .routes(routes!(feeds::list))
        .routes(routes!(feeds::pause))
        .routes(routes!(feeds::resume))
        .routes(routes!(feeds::remove))
        .routes(routes!(feeds::start_at))
        .routes(routes!(gaps::list))
        .routes(routes!(gaps::dismiss))
        .routes(routes!(feeds::pull))
        .routes(routes!(subscriptions::list))
        .routes(routes!(subscriptions::requested))
        .routes(routes!(subscriptions::withdraw))
        .routes(routes!(subscriptions::approve))
        .routes(routes!(subscriptions::restore))
        .routes(routes!(subscriptions::revoke))
        .routes(routes!(documents::search))
        .routes(routes!(documents::trace))
        .routes(routes!(documents::erase))
        .routes(routes!(export::export))
        .routes(routes!(export::fields))
        .routes(routes!(list::documents))
        .routes(routes!(list::outcome))
        .routes(routes!(destinations::destinations))
        .routes(routes!(destinations::lanes))
        .routes(routes!(destinations::preview, destinations::start))
        .routes(routes!(destinations::stop))
        .routes(routes!(destinations::pause))
        .routes(routes!(destinations::resume))
        .routes(routes!(destinations::retry))
        .routes(routes!(destinations::skip))
        .routes(routes!(destinations::deliveries))
        .routes(routes!(import_errors::list))
        .routes(routes!(import_errors::paused))
        .routes(routes!(import_errors::retry))
        .routes(routes!(import_errors::discard))
        .routes(routes!(import_errors::retry_some))
        .routes(routes!(import_errors::discard_some))
        .routes(routes!(messages::quarantine))
        .routes(routes!(messages::quarantined))
        .routes(routes!(messages::retry))
        .routes(routes!(messages::notifications))
        .routes(routes!(messages::notification))
        .routes(routes!(uploads::list, uploads::begin))
        .routes(routes!(uploads::keep_location))
        .routes(routes!(uploads::end))
        .routes(routes!(uploads::settle))
        .routes(routes!(alarms::list))
        .routes(routes!(certificates::list))
        .routes(routes!(audit::list))
        .routes(routes!(login_links::create))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(openapi::document))
}

/// Returns the health routes, which need none.
fn health() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(status::alive))
        .routes(routes!(status::ready))
}
