//! Checks that every request to the admin API passes: host, sender, right, origin, body; and
//! records what was done.
//!
//! Nothing is answered without proof of who asks, except health and the login. The checks go
//! from the cheapest to the body, which is read only if the sender may do what it asks for.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::audit::{Action, carry_out};
use super::identity::{Identity, identify};
use super::listener::AdminPeer;
use super::problem::{AdminError, read_body};
use super::rules::{Needs, rule};
use super::state::Admin;
use crate::app::App;

/// Longest time for a request, from its head to its response.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The same for a backup, which copies the whole store.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Bounds every request in time, and keeps every response out of caches.
pub(super) async fn bound(request: Request, next: Next) -> Response {
    let timeout = match request.uri().path() {
        "/v1/backup" => BACKUP_TIMEOUT,
        _ => TIMEOUT,
    };
    let answered = tokio::time::timeout(timeout, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| AdminError::TookTooLong.into_response());
    let headers = response.headers_mut();
    let default = |value| HeaderValue::from_static(value);
    headers
        .entry(CACHE_CONTROL)
        .or_insert_with(|| default("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, default("nosniff"));
    response
}

/// Passes a permitted request on, and answers all others.
pub(super) async fn guard(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let (identity, action, request) = match admit(&admin, request).await {
        Ok(admitted) => admitted,
        Err(error) => return error.into_response(),
    };
    let work = next.run(request);
    match action {
        Some(action) => {
            carry_out(
                admin.app,
                identity,
                action,
                |status| status.is_success(),
                work,
            )
            .await
        }
        None => work.await,
    }
}

/// Returns the sender of a permitted request, what is to be recorded about it, and the request
/// with its whole body and the [`Identity`] among its extensions.
async fn admit(
    admin: &Admin,
    request: Request,
) -> Result<(Identity, Option<Action>, Request), AdminError> {
    let peer = request.extensions().get::<AdminPeer>().copied();
    check_host(&admin.app, request.headers(), peer)?;
    let identity = identify(admin, request.headers(), peer).await?;
    let identity = identity.ok_or(AdminError::Unauthorized)?;
    let path = request.extensions().get::<MatchedPath>();
    let Some(path) = path.map(|path| path.as_str().to_owned()) else {
        return Err(AdminError::UnknownPath);
    };
    let Some(rule) = rule(request.method(), &path) else {
        // The path does not have the method. If only the rule were missing, this would still
        // keep everybody else out.
        check_right(&identity, Needs::Admin)?;
        return Ok((identity, None, request));
    };
    check_right(&identity, rule.needs)?;
    let (mut head, body) = request.into_parts();
    head.extensions.insert(identity.clone());
    if head.method != Method::POST {
        return Ok((identity, None, Request::from_parts(head, body)));
    }
    // A web page can post only forms, or names itself as the origin.
    if head.headers.contains_key(ORIGIN) || !is_json(&head.headers) {
        return Err(AdminError::NotJson);
    }
    let body = read_body(body).await?;
    let action = rule
        .action
        .map(|name| Action::of_request(name, &path, head.uri.path(), &body));
    let request = Request::from_parts(head, Body::from(body));
    Ok((identity, action, request))
}

/// Checks that the sender has the right that a route needs.
///
/// # Errors
///
/// [`AdminError::MissingRight`].
pub(super) fn check_right(identity: &Identity, needs: Needs) -> Result<(), AdminError> {
    if needs.met_by(&identity.rights) {
        Ok(())
    } else {
        Err(AdminError::MissingRight {
            needs: needs.as_str(),
            has: identity.rights.to_string(),
        })
    }
}

/// Checks that the Host header names this machine, unless others may reach the listener.
///
/// Stops DNS rebinding: another site's page in a browser on this machine.
///
/// # Errors
///
/// [`AdminError::ForeignHost`].
pub(super) fn check_host(
    app: &App,
    headers: &HeaderMap,
    peer: Option<AdminPeer>,
) -> Result<(), AdminError> {
    let admin = &app.config.admin;
    let is_private = admin.listen.ip().is_loopback() && admin.token.is_none();
    let is_local = matches!(peer, Some(AdminPeer::Local { .. }));
    if is_private && !is_local && !names_loopback(headers) {
        return Err(AdminError::ForeignHost);
    }
    Ok(())
}

/// Returns true if the whole Host header is a name of this machine, perhaps with a port.
fn names_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, "")) => (name, None),
            Some((name, after)) if after.starts_with(':') => (name, after.get(1..)),
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let is_port =
        port.is_none_or(|port| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()));
    let is_loopback = name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    is_port && is_loopback
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
            "[::1]",
        ] {
            assert!(accepts(local), "{local}");
        }
        for foreign in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8081",
            "127.0.0.1:evil.example",
            "127.0.0.1:80:evil.example",
            "localhost:80@evil.example",
            "[::1]evil.example",
            "[::1].evil.example:8081",
            "[::1",
            "[::1]8081",
            "192.168.1.2:8081",
            "[2001:db8::1]",
            "",
        ] {
            assert!(!accepts(foreign), "{foreign}");
        }
        assert!(!names_loopback(&HeaderMap::new()));
    }
}
