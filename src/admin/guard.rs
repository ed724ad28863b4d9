//! Who may use the private listener.
//!
//! With a token configured, whoever has it. Without one the listener is on
//! loopback, and what remains to keep out is a web page in a browser on the same
//! machine: by DNS rebinding (the Host header then names the page's host) or by
//! posting a form (which can't have the content type of JSON).

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

use super::AdminError;
use crate::service::App;

/// Lets a request through, or says why not.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match admit(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn admit(app: &App, request: &Request) -> Result<(), AdminError> {
    let headers = request.headers();
    match &app.config.private.token {
        Some(token) if !bears(headers, token.expose_secret()) => {
            return Err(AdminError::Unauthorized);
        }
        Some(_) => {}
        None if !names_loopback(headers) => return Err(AdminError::ForeignHost),
        None => {}
    }
    let from_a_page = headers.contains_key(ORIGIN) || !is_json(headers);
    if request.method() == Method::POST && from_a_page {
        return Err(AdminError::NotJson);
    }
    Ok(())
}

/// Whether the request carries `token`; the time it takes says nothing about it.
fn bears(headers: &HeaderMap, token: &str) -> bool {
    let given = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, given)| given.trim());
    given.is_some_and(|given| {
        let given = digest(&SHA256, given.as_bytes());
        let token = digest(&SHA256, token.as_bytes());
        verify_slices_are_equal(given.as_ref(), token.as_ref()).is_ok()
    })
}

fn names_loopback(headers: &HeaderMap) -> bool {
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
    fn only_names_of_this_machine_are_loopback() {
        let says = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            names_loopback(&headers)
        };
        for ours in [
            "127.0.0.1",
            "127.0.0.1:8081",
            "localhost:8081",
            "LocalHost",
            "[::1]:8081",
        ] {
            assert!(says(ours), "{ours}");
        }
        for theirs in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8081",
            "192.168.1.2:8081",
            "[2001:db8::1]",
            "",
        ] {
            assert!(!says(theirs), "{theirs}");
        }
        assert!(!names_loopback(&HeaderMap::new()));
    }

    #[test]
    fn only_the_whole_token_opens() {
        let says = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            bears(&headers, "right-token")
        };
        assert!(says("Bearer right-token"));
        assert!(says("bearer right-token"));
        for wrong in [
            "Bearer",
            "Bearer ",
            "Bearer right",
            "Basic right-token",
            "right-token",
        ] {
            assert!(!says(wrong), "{wrong}");
        }
    }
}
