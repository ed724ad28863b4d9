//! The status page: the admin API's data for people, rendered on the server. It works without
//! scripts; with them it refreshes by itself.
//!
//! Each page is a module that reads its data and returns a [`layout::PageBody`]; [`layout`]
//! renders the frame around it. Every request passes [`access`], which decides who may see
//! and change what. No page shows a secret of the store, and of a document everything
//! but the links in it.

use std::convert::Infallible;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use tower::ServiceExt as _;

use self::context::PageContext;
use super::problem::AdminError;
use super::state::Admin;

mod access;
mod actions;
mod alarms;
mod attention;
mod audit;
mod certificates;
mod chart;
mod context;
mod deliveries;
mod destinations;
mod document;
mod documents;
mod feeds;
mod gaps;
mod import_errors;
mod labels;
mod language;
mod layout;
mod login;
mod names;
mod overview;
mod quarantine;
mod session;
mod subscriptions;
mod uploads;
mod viewer;

/// Returns the pages' routes.
pub(super) fn router(admin: &Admin) -> Router<Admin> {
    let pages = Router::new()
        .route("/", get(overview::page))
        .route("/feeds", get(feeds::page))
        .route("/documents", get(documents::list))
        .route("/documents/export", get(documents::export))
        .route("/documents/{sequence}", get(document::page))
        .route("/documents/{sequence}/file", get(document::file))
        .route("/destinations", get(destinations::page))
        .route("/deliveries", get(deliveries::page))
        .route("/subscriptions", get(subscriptions::page))
        .route("/import-errors", get(import_errors::page))
        .route("/uploads", get(uploads::page))
        .route("/quarantine", get(quarantine::page))
        .route("/quarantine/{id}", get(quarantine::message))
        .route("/alarms", get(alarms::page))
        .route("/certificates", get(certificates::page))
        .route("/audit", get(audit::page))
        .route("/open", get(login::link_page).post(login::use_link))
        .route("/login", get(login::page).post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/do/pull", post(actions::pull))
        .route("/do/pause-feed", post(actions::pause_feed))
        .route("/do/remove-feed", post(actions::remove_feed))
        .route("/do/gap", post(actions::dismiss_gap))
        .route("/do/delivery", post(actions::delivery))
        .route("/do/report", post(actions::report))
        .route("/do/resume", post(actions::resume))
        .route("/do/approve", post(actions::approve))
        .route("/do/restore", post(actions::restore))
        .route("/do/revoke", post(actions::revoke))
        .route("/do/retry", post(actions::retry))
        .route("/do/settle", post(actions::settle_upload))
        .route("/do/import-error", post(actions::import_error))
        .route("/do/destination", post(actions::destination))
        .route_layer(from_fn_with_state(admin.clone(), access::check_access));
    // Static files hold no data and need no session.
    Router::new()
        .route(
            "/style.css",
            get(|| async { asset("text/css", include_str!("style.css")) }),
        )
        .route(
            "/pages.js",
            get(|| async { asset("text/javascript", include_str!("pages.js")) }),
        )
        .route(
            "/icon.svg",
            get(|| async { asset("image/svg+xml", include_str!("icon.svg")) }),
        )
        .merge(pages)
}

/// Answers a browser that opens an address at which nothing is with a page, once it has logged in.
pub(super) async fn answer_unknown(
    State(admin): State<Admin>,
    request: Request,
    next: Next,
) -> Response {
    if !is_unknown_page(&request) {
        return next.run(request).await;
    }
    let page = |context: PageContext| async move { context.error_page(&AdminError::UnknownPath) };
    let page = get(page)
        .layer(from_fn_with_state(admin.clone(), access::check_access))
        .with_state(admin);
    page.oneshot(request)
        .await
        .unwrap_or_else(|never: Infallible| match never {})
}

fn is_unknown_page(request: &Request) -> bool {
    let accepted = request.headers().get(ACCEPT);
    let accepted = accepted.and_then(|value| value.to_str().ok());
    request.extensions().get::<MatchedPath>().is_none()
        && !request.uri().path().starts_with("/v1/")
        && request.method() == Method::GET
        && accepted.is_some_and(|kinds| kinds.contains("text/html"))
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")];
    (headers, text).into_response()
}
