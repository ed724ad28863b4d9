//! The status page: what the API tells, for people. Made here, without any script.
//!
//! Each page is a module: it asks what it needs and gives the page's middle. [`entrance`]
//! is passed by every request and decides who may see and change what; [`layout`] puts the
//! middle into the whole. Nothing is shown that the store holds as a secret, and of a
//! document only what `documents list` shows.

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use self::entrance::Visitor;
use self::layout::{Middle, whole};
use super::{Admin, AdminError};

mod actions;
mod alarms;
mod certificates;
mod chart;
mod concerns;
mod destinations;
mod documents;
mod entrance;
mod feeds;
mod language;
mod layout;
mod login;
mod overview;
mod quarantine;
mod session;
mod subscriptions;
mod uploads;
mod words;

pub(super) use self::session::Sessions;

/// Rows on one page of a list.
const ROWS: usize = 50;

/// The pages' routes.
pub(super) fn router(admin: &Admin) -> Router<Admin> {
    let pages = Router::new()
        .route("/", get(overview::page))
        .route("/feeds", get(feeds::page))
        .route("/documents", get(documents::list))
        .route("/documents/{sequence}", get(documents::one))
        .route("/destinations", get(destinations::page))
        .route("/subscriptions", get(subscriptions::page))
        .route("/uploads", get(uploads::page))
        .route("/quarantine", get(quarantine::page))
        .route("/alarms", get(alarms::page))
        .route("/certificates", get(certificates::page))
        .route("/login", get(login::page).post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/do/pull", post(actions::pull))
        .route("/do/pause-feed", post(actions::pause_feed))
        .route("/do/resume", post(actions::resume))
        .route("/do/approve", post(actions::approve))
        .route("/do/restore", post(actions::restore))
        .route("/do/retry", post(actions::retry))
        .route("/do/destination", post(actions::destination))
        .route_layer(from_fn_with_state(admin.clone(), entrance::enter));
    // The same for everybody, and nothing of ours in them.
    Router::new()
        .route(
            "/style.css",
            get(|| async { asset("text/css", include_str!("style.css")) }),
        )
        .route(
            "/icon.svg",
            get(|| async { asset("image/svg+xml", include_str!("icon.svg")) }),
        )
        .merge(pages)
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")];
    (headers, text).into_response()
}

/// What a page's handler gives: the page, or why there is none.
type Shown = Result<Middle, PageError>;

/// Why a page can't be shown, or something not be done; told as a page.
#[derive(Debug)]
struct PageError(AdminError);

impl<E: Into<AdminError>> From<E> for PageError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// Everything that a page's handler needs, and the way to answer with a page.
#[derive(Clone)]
struct Visit {
    admin: Admin,
    visitor: Visitor,
}

impl FromRequestParts<Admin> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Response> {
        let State(admin) = State::from_request_parts(parts, admin)
            .await
            .unwrap_or_else(|never: std::convert::Infallible| match never {});
        // The entrance stands before each of these routes.
        let visitor = parts.extensions.get::<Visitor>().cloned();
        visitor
            .map(|visitor| Self { admin, visitor })
            .ok_or_else(|| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }
}

impl Visit {
    /// The answer with a page, or with a page that tells why there is none.
    fn show(&self, shown: Shown) -> Response {
        match shown {
            Ok(middle) => Html(whole(&self.visitor, middle).into_string()).into_response(),
            Err(PageError(error)) => self.fail(&error),
        }
    }

    /// A page that tells what is wrong.
    fn fail(&self, error: &AdminError) -> Response {
        let (status, _) = error.answer();
        let page = whole(&self.visitor, layout::failure(&self.visitor, error));
        (status, Html(page.into_string())).into_response()
    }

    /// After something was done: the page where it can be seen.
    fn go_to(&self, done: Result<String, PageError>) -> Response {
        match done {
            Ok(place) => Redirect::to(&place).into_response(),
            Err(PageError(error)) => self.fail(&error),
        }
    }
}
