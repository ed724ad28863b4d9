//! Checks who may use the admin API, and for what.
//!
//! If a token is configured, a request needs that one or a stored one. Without one the
//! listener is on loopback and open, and only web pages in a browser on the same machine
//! must be kept out: those that use DNS rebinding (the Host header then names the page's
//! host) or post a form (which can't have the content type of JSON). A token that is sent
//! is checked in either case, so that a token with the right `read` can't change anything.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;

use super::problem::AdminError;
use crate::app::App;
use crate::store::Rights;

/// One of the tokens that this listener accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenId {
    /// The configured token.
    Configured,
    /// The stored token of this row.
    Stored(i64),
}

/// Passes a permitted request on, and answers all others.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match admit(&app, request.method(), request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn admit(app: &App, method: &Method, headers: &HeaderMap) -> Result<(), AdminError> {
    if app.config.admin.token.is_none() && !names_loopback(headers) {
        return Err(AdminError::ForeignHost);
    }
    let rights = rights(app, headers)
        .await?
        .ok_or(AdminError::Unauthorized)?;
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if !reads && rights < Rights::Operate {
        return Err(AdminError::ReadOnlyToken);
    }
    Ok(())
}

/// Refuses POST requests that a web page could send.
pub(super) async fn refuse_forms(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let from_a_page = headers.contains_key(ORIGIN) || !is_json(headers);
    if request.method() == Method::POST && from_a_page {
        return AdminError::NotJson.into_response();
    }
    next.run(request).await
}

/// Returns what the sender may do; `None` if the token is missing or wrong.
async fn rights(app: &App, headers: &HeaderMap) -> Result<Option<Rights>, AdminError> {
    let Some(token) = bearer(headers) else {
        // Credentials of another scheme are wrong, not missing.
        let open = app.config.admin.token.is_none() && !headers.contains_key(AUTHORIZATION);
        return Ok(open.then_some(Rights::Operate));
    };
    let known = token_rights(app, token).await?;
    Ok(known.map(|(_, rights)| rights))
}

/// Returns which token this is and what it allows; `None` if it is unknown.
pub(super) async fn token_rights(
    app: &App,
    token: &str,
) -> Result<Option<(TokenId, Rights)>, AdminError> {
    let hash = sha256(token);
    if let Some(configured) = &app.config.admin.token {
        let configured = sha256(configured.expose_secret());
        if verify_slices_are_equal(&hash, &configured).is_ok() {
            return Ok(Some((TokenId::Configured, Rights::Operate)));
        }
    }
    // The duration of a lookup can reveal only the hash, which does not reveal the token.
    let stored = app.store.api_token(hash).await?;
    Ok(stored.map(|row| (TokenId::Stored(row.id), row.rights)))
}

/// Returns the token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Returns the SHA-256 of a token.
pub(super) fn sha256(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// Returns true if the Host header names this machine.
pub(super) fn names_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_names_of_this_machine_count_as_loopback() {
        let accepts = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            names_loopback(&headers)
        };
        for local in [
            "127.0.0.1",
            "127.0.0.1:8081",
            "localhost:8081",
            "LocalHost",
            "[::1]:8081",
        ] {
            assert!(accepts(local), "{local}");
        }
        for foreign in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8081",
            "192.168.1.2:8081",
            "[2001:db8::1]",
            "",
        ] {
            assert!(!accepts(foreign), "{foreign}");
        }
        assert!(!names_loopback(&HeaderMap::new()));
    }

    #[test]
    fn a_token_follows_the_word_bearer() {
        let token = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(token("Bearer right-token").as_deref(), Some("right-token"));
        assert_eq!(token("bearer  right-token").as_deref(), Some("right-token"));
        for wrong in ["Bearer", "Basic right-token", "right-token"] {
            assert_eq!(token(wrong), None, "{wrong}");
        }
    }
}
