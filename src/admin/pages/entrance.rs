//! What every request for a page passes: who is it, and is a form one of ours.

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

use super::language::{self, Language};
use super::page::Visit;
use super::session::{self, cookie, fresh_secret};
use super::visitor::{PROOF, Visitor};
use super::words::Notice;
use crate::admin::guard::{TokenId, names_loopback};
use crate::admin::problem::{AdminError, MAX_BODY_BYTES};
use crate::admin::state::Admin;
use crate::store::Rights;

/// Nothing but what this listener serves, and no script at all.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

/// Where a browser says from what kind of page a request comes.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The fields of a form that was proven to be one of ours.
#[derive(Clone, Debug, Default)]
pub(super) struct Form(BTreeMap<String, String>);

impl Form {
    /// A field's text; none where it is missing or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let text = self.0.get(name)?.trim();
        (!text.is_empty()).then_some(text)
    }

    /// A field that must be there.
    pub(super) fn needed(&self, name: &str) -> Result<&str, AdminError> {
        self.text(name)
            .ok_or_else(|| AdminError::BadRequest(format!("the field `{name}` is empty")))
    }
}

/// Lets a request through to its page, or answers in its place.
pub(super) async fn enter(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let open = admin.app.config.admin.token.is_none();
    // A page of another name in a browser on this machine, by DNS rebinding.
    if open && !names_loopback(headers) {
        return AdminError::ForeignHost.into_response();
    }
    let given = cookie(headers, session::COOKIE_NAME).map(str::to_owned);
    let identified = identify(&admin, given.as_deref(), open).await;
    let identity = identified.as_ref().unwrap_or(&NOBODY);
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
    let secret = given.clone().unwrap_or_else(fresh_secret);
    let visit = Visit {
        visitor: Visitor {
            language: chosen.unwrap_or_else(|| Language::of(headers)),
            rights: identity.rights,
            has_session: identity.has_session,
            proof: admin.sessions.form_token(&secret),
            path: request.uri().path().to_owned(),
            notice: Notice::read(&query),
        },
        admin: admin.clone(),
    };
    let mut response = match identified {
        Err(error) => visit.fail(&error),
        Ok(Identity { rights: None, .. }) if visit.visitor.path != "/login" => {
            Redirect::to("/login").into_response()
        }
        Ok(_) => match prove(&visit, &secret, request).await {
            Ok(request) => next.run(request).await,
            Err(error) => visit.fail(&error),
        },
    };
    let headers = response.headers_mut();
    add_policies(headers);
    if given.is_none() {
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

/// Whoever has shown nothing.
const NOBODY: Identity = Identity {
    has_session: false,
    rights: None,
};

async fn identify(admin: &Admin, secret: Option<&str>, open: bool) -> Result<Identity, AdminError> {
    if open {
        return Ok(Identity {
            has_session: false,
            rights: Some(Rights::Operate),
        });
    }
    let now = admin.app.clock.now();
    let Some(session) = secret.and_then(|secret| admin.sessions.find(secret, now)) else {
        return Ok(NOBODY);
    };
    if let TokenId::Stored(id) = session.token {
        // A token that is withdrawn takes its sessions with it.
        let tokens = admin.app.store.api_tokens().await?;
        if !tokens.iter().any(|row| row.id == id) {
            return Ok(NOBODY);
        }
    }
    Ok(Identity {
        has_session: true,
        rights: Some(session.rights),
    })
}

/// Gives the request back with what its page needs, once it is known that no other page
/// made the browser send it.
async fn prove(visit: &Visit, secret: &str, request: Request) -> Result<Request, AdminError> {
    let (mut head, body) = request.into_parts();
    if head.method == Method::POST {
        if !comes_from_here(&head.headers) {
            return Err(AdminError::NotOurForm);
        }
        let body = to_bytes(body, MAX_BODY_BYTES)
            .await
            .map_err(|_| AdminError::TooLarge)?;
        let fields: BTreeMap<_, _> = form_urlencoded::parse(&body).into_owned().collect();
        let proof = fields.get(PROOF).map(String::as_str).unwrap_or_default();
        if !visit.admin.sessions.is_our_form(secret, proof) {
            return Err(AdminError::NotOurForm);
        }
        let opens_or_ends = matches!(head.uri.path(), "/login" | "/logout");
        if !opens_or_ends && !visit.visitor.may_operate() {
            return Err(AdminError::ReadOnlyToken);
        }
        head.extensions.insert(Form(fields));
        head.extensions.insert(visit.visitor.clone());
        return Ok(Request::from_parts(head, Body::empty()));
    }
    head.extensions.insert(visit.visitor.clone());
    Ok(Request::from_parts(head, body))
}

/// Whether what a browser says of a request's page, where it says anything, is that it is
/// one of this listener's.
fn comes_from_here(headers: &HeaderMap) -> bool {
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
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // `no-referrer` would make browsers hide the origin of our own forms.
        (REFERRER_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Sets a cookie that no script reads and no other site's request carries.
pub(super) fn set_cookie(headers: &mut HeaderMap, name: &str, value: &str) {
    let seconds = session::LASTS.as_secs();
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}");
    // Both are letters, digits, `-` and `_`.
    if let Ok(text) = HeaderValue::from_str(&text) {
        headers.append(SET_COOKIE, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_accepted_from_our_own_pages_only() {
        let says = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("127.0.0.1:8081"));
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            comes_from_here(&headers)
        };
        assert!(says(&[]));
        assert!(says(&[
            ("origin", "http://127.0.0.1:8081"),
            ("sec-fetch-site", "same-origin")
        ]));
        for theirs in [
            ("origin", "http://127.0.0.1:3000"),
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "none"),
        ] {
            assert!(!says(&[theirs]), "{theirs:?}");
        }
    }
}
