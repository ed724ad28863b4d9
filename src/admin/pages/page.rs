//! What every page's handler is given and answers with.

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::layout::{Middle, failure, whole};
use super::visitor::Visitor;
use crate::admin::problem::AdminError;
use crate::admin::state::Admin;

/// Rows on one page of a list.
pub(super) const ROWS: usize = 50;

/// What a page's handler gives: the page, or why there is none.
pub(super) type Shown = Result<Middle, PageError>;

/// Why a page can't be shown, or something not be done; told as a page.
#[derive(Debug)]
pub(super) struct PageError(pub(super) AdminError);

impl<E: Into<AdminError>> From<E> for PageError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// Everything that a page's handler needs, and the way to answer with a page.
#[derive(Clone)]
pub(super) struct Visit {
    pub(super) admin: Admin,
    pub(super) visitor: Visitor,
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
    pub(super) fn show(&self, shown: Shown) -> Response {
        match shown {
            Ok(middle) => Html(whole(&self.visitor, middle).into_string()).into_response(),
            Err(PageError(error)) => self.fail(&error),
        }
    }

    /// A page that tells what is wrong.
    pub(super) fn fail(&self, error: &AdminError) -> Response {
        let (status, _) = error.answer();
        let page = whole(&self.visitor, failure(&self.visitor, error));
        (status, Html(page.into_string())).into_response()
    }

    /// After something was done: the page where it can be seen.
    pub(super) fn go_to(&self, done: Result<String, PageError>) -> Response {
        match done {
            Ok(place) => Redirect::to(&place).into_response(),
            Err(PageError(error)) => self.fail(&error),
        }
    }
}
