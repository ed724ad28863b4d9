//! The check that every page request passes: identity, rights and form token.

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, ORIGIN, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use url::form_urlencoded;

use super::context::PageContext;
use super::labels::Notice;
use super::language::{self, Language};
use super::session::{self, cookie, new_secret};
use super::viewer::{FORM_TOKEN_FIELD, Viewer};
use crate::admin::guard::{TokenId, names_loopback};
use crate::admin::problem::{AdminError, MAX_BODY_BYTES};
use crate::admin::state::Admin;
use crate::store::Rights;

/// Allows only resources of this listener, and no scripts.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

/// Header in which a browser names the relation of the requesting page to this origin.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Fields of a form whose token was verified.
#[derive(Clone, Debug, Default)]
pub(super) struct Form(BTreeMap<String, String>);

impl Form {
    /// Returns a field's text; none if it is missing or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let text = self.0.get(name)?.trim();
        (!text.is_empty()).then_some(text)
    }

    /// Returns a required field's text.
    pub(super) fn required(&self, name: &str) -> Result<&str, AdminError> {
        self.text(name)
            .ok_or_else(|| AdminError::BadRequest(format!("the field `{name}` is empty")))
    }
}

/// Passes a request on to its page, or answers with an error or a redirect to the login.
pub(super) async fn check_access(
    State(admin): State<Admin>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let is_open = admin.app.config.admin.token.is_none();
    // Stops DNS rebinding: another site's page in a browser on this machine.
    if is_open && !names_loopback(headers) {
        return AdminError::ForeignHost.into_response();
    }
    let cookie_secret = cookie(headers, session::COOKIE_NAME).map(str::to_owned);
    let identified = identify(&admin, cookie_secret.as_deref(), is_open).await;
    let identity = identified.as_ref().unwrap_or(&ANONYMOUS);
    let query: Vec<(String, String)> = request
        .uri()
        .query()
        .map(|query| {
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect()
        })
        .unwrap_or_default();
    let chosen = query
        .iter()
        .find(|(name, _)| name == "lang")
        .and_then(|(_, code)| Language::parse(code));
    let secret = cookie_secret.clone().unwrap_or_else(new_secret);
    let context = PageContext {
        viewer: Viewer {
            language: chosen.unwrap_or_else(|| Language::from_headers(headers)),
            rights: identity.rights,
            has_session: identity.has_session,
            form_token: admin.sessions.form_token(&secret),
            path: request.uri().path().to_owned(),
            notice: Notice::from_query(&query),
        },
        admin: admin.clone(),
    };
    let mut response = match identified {
        Err(error) => context.error_page(&error),
        Ok(Identity { rights: None, .. }) if context.viewer.path != "/login" => {
            Redirect::to("/login").into_response()
        }
        Ok(_) => match check_form(&context, &secret, request).await {
            Ok(request) => next.run(request).await,
            Err(error) => context.error_page(&error),
        },
    };
    let headers = response.headers_mut();
    add_policies(headers);
    if cookie_secret.is_none() {
        set_cookie(headers, session::COOKIE_NAME, &secret);
    }
    if let Some(language) = chosen {
        set_cookie(headers, language::COOKIE_NAME, language.code());
    }
    response
}

struct Identity {
    has_session: bool,
    rights: Option<Rights>,
}

/// A viewer without a session.
const ANONYMOUS: Identity = Identity {
    has_session: false,
    rights: None,
};

async fn identify(
    admin: &Admin,
    secret: Option<&str>,
    is_open: bool,
) -> Result<Identity, AdminError> {
    if is_open {
        return Ok(Identity {
            has_session: false,
            rights: Some(Rights::Operate),
        });
    }
    let now = admin.app.clock.now();
    let Some(session) = secret.and_then(|secret| admin.sessions.find(secret, now)) else {
        return Ok(ANONYMOUS);
    };
    if let TokenId::Stored(id) = session.token {
        // Revoking a token ends its sessions.
        let tokens = admin.app.store.api_tokens().await?;
        if !tokens.iter().any(|row| row.id == id) {
            return Ok(ANONYMOUS);
        }
    }
    Ok(Identity {
        has_session: true,
        rights: Some(session.rights),
    })
}

/// Returns the request with the viewer and the form's fields as extensions, after verifying
/// that the form is one of this listener's and that the viewer may submit it.
async fn check_form(
    context: &PageContext,
    secret: &str,
    request: Request,
) -> Result<Request, AdminError> {
    let (mut head, body) = request.into_parts();
    if head.method == Method::POST {
        if !is_same_origin(&head.headers) {
            return Err(AdminError::NotOurForm);
        }
        let body = to_bytes(body, MAX_BODY_BYTES)
            .await
            .map_err(|_| AdminError::TooLarge)?;
        let fields: BTreeMap<_, _> = form_urlencoded::parse(&body).into_owned().collect();
        let form_token = fields
            .get(FORM_TOKEN_FIELD)
            .map(String::as_str)
            .unwrap_or_default();
        if !context.admin.sessions.verify_form_token(secret, form_token) {
            return Err(AdminError::NotOurForm);
        }
        let is_login_or_logout = matches!(head.uri.path(), "/login" | "/logout");
        if !is_login_or_logout && !context.viewer.may_operate() {
            return Err(AdminError::ReadOnlyToken);
        }
        head.extensions.insert(Form(fields));
        head.extensions.insert(context.viewer.clone());
        return Ok(Request::from_parts(head, Body::empty()));
    }
    head.extensions.insert(context.viewer.clone());
    Ok(Request::from_parts(head, body))
}

/// Returns true if the browser's headers, where present, name this origin as the requesting
/// page's.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(HeaderValue::to_str);
    let same_site = match text(SEC_FETCH_SITE) {
        Some(site) => matches!(site, Ok("same-origin")),
        None => true,
    };
    let same_origin = match (text(ORIGIN), text(HOST)) {
        (None, _) => true,
        (Some(Ok(origin)), Some(Ok(host))) => origin
            .split_once("://")
            .is_some_and(|(_, name)| name.eq_ignore_ascii_case(host)),
        _ => false,
    };
    same_site && same_origin
}

fn add_policies(headers: &mut HeaderMap) {
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer` browsers would hide the origin of our own forms.
        (REFERRER_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Sets a cookie that scripts can't read and requests from other sites don't carry.
pub(super) fn set_cookie(headers: &mut HeaderMap, name: &str, value: &str) {
    let seconds = session::LIFETIME.as_secs();
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}");
    // Name and value consist of letters, digits, `-` and `_`.
    if let Ok(text) = HeaderValue::from_str(&text) {
        headers.append(SET_COOKIE, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_accepted_from_our_own_pages_only() {
        let accepts = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("127.0.0.1:8081"));
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            is_same_origin(&headers)
        };
        assert!(accepts(&[]));
        assert!(accepts(&[
            ("origin", "http://127.0.0.1:8081"),
            ("sec-fetch-site", "same-origin")
        ]));
        for foreign in [
            ("origin", "http://127.0.0.1:3000"),
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "none"),
        ] {
            assert!(!accepts(&[foreign]), "{foreign:?}");
        }
    }
}
