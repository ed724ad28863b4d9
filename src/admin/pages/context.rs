//! Input and response of every page's handler.

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::language::Now;
use super::layout::{PageBody, error_body, render};
use super::viewer::Viewer;
use crate::admin::problem::AdminError;
use crate::admin::state::Admin;

/// Maximum number of rows on one page of a list.
pub(super) const ROWS: usize = 50;

/// A page's content, or the error to show in its place.
pub(super) type PageResult = Result<PageBody, PageError>;

/// An error that is shown as a page.
#[derive(Debug)]
pub(super) struct PageError(pub(super) AdminError);

impl<E: Into<AdminError>> From<E> for PageError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// Everything that a page's handler needs.
#[derive(Clone)]
pub(super) struct PageContext {
    pub(super) admin: Admin,
    pub(super) viewer: Viewer,
}

impl FromRequestParts<Admin> for PageContext {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Response> {
        let State(admin) = State::from_request_parts(parts, admin)
            .await
            .unwrap_or_else(|never: std::convert::Infallible| match never {});
        // The access check runs before each of these routes.
        let viewer = parts.extensions.get::<Viewer>().cloned();
        viewer
            .map(|viewer| Self { admin, viewer })
            .ok_or_else(|| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }
}

impl PageContext {
    /// Returns the present moment, and the time zone of the pages.
    pub(super) fn now(&self) -> Now<'_> {
        Now {
            at: self.admin.app.clock.now(),
            zone: self.admin.app.config.pages.time_zone.as_ref(),
        }
    }

    /// Returns the page, or a page with the error.
    pub(super) fn respond(&self, result: PageResult) -> Response {
        match result {
            Ok(body) => Html(render(&self.viewer, body).into_string()).into_response(),
            Err(PageError(error)) => self.error_page(&error),
        }
    }

    /// Returns a page that shows `error`, with its status.
    pub(super) fn error_page(&self, error: &AdminError) -> Response {
        let (status, _) = error.answer();
        let page = render(&self.viewer, error_body(&self.viewer, error));
        (status, Html(page.into_string())).into_response()
    }

    /// Redirects to the page that shows the result of an action.
    pub(super) fn redirect(&self, outcome: Result<String, PageError>) -> Response {
        match outcome {
            Ok(location) => Redirect::to(&location).into_response(),
            Err(PageError(error)) => self.error_page(&error),
        }
    }
}
