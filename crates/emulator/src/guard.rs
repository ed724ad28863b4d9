//! Refuses what a page of another origin sends through a person's browser.
//!
//! The emulator asks for no password, and some of its GET requests change something, as those of
//! SNS do. A browser says where a request comes from in `Origin` and `Sec-Fetch-Site` (Fetch
//! Metadata, W3C). A page whose own name leads to this machine is told by its `Host`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, HeaderMap, ORIGIN};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use url::{Host, Url};

use crate::vendor::Vendor;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets a request pass that was sent to the emulator's own name, and by no page of another origin.
pub(crate) async fn pass(
    State(vendor): State<Arc<Vendor>>,
    request: Request,
    next: Next,
) -> Response {
    match problem(&vendor, request.headers()) {
        None => next.run(request).await,
        Some(problem) => {
            let body = axum::Json(json!({ "message": problem }));
            (StatusCode::FORBIDDEN, body).into_response()
        }
    }
}

/// Returns the reason for refusing a request.
fn problem(vendor: &Vendor, headers: &HeaderMap) -> Option<&'static str> {
    let Some(host) = only(headers, &HOST) else {
        return Some("the request has no Host header, or several");
    };
    if !is_own(vendor, host) {
        return Some("the Host header names another machine than the emulator's");
    }
    let is_foreign = match only(headers, &ORIGIN) {
        Some(origin) => origin != format!("http://{host}"),
        None => headers.contains_key(ORIGIN),
    };
    let site = headers.get(&SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    let is_same_site = matches!(site, None | Some(b"none" | b"same-origin"));
    (is_foreign || !is_same_site).then_some("a page of another origin sent the request")
}

/// Returns a header's value, if there is exactly one.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.to_str().ok())?
}

/// Returns true if `Host` names loopback, the emulator's own origin, or, where other machines are
/// allowed, any IP address: a page can't make its own name one.
fn is_own(vendor: &Vendor, host: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{host}/")) else {
        return false;
    };
    if url.username() != "" || url.password().is_some() || url.path() != "/" {
        return false;
    }
    let own = Url::parse(&vendor.origin).ok();
    let is_allowed = |ip: IpAddr| ip.is_loopback() || vendor.allow_remote;
    let is_origin = own.is_some_and(|own| own.host() == url.host());
    match url.host() {
        Some(Host::Domain("localhost")) => true,
        Some(Host::Domain(_)) => is_origin,
        Some(Host::Ipv4(ip)) => is_origin || is_allowed(ip.into()),
        Some(Host::Ipv6(ip)) => is_origin || is_allowed(ip.into()),
        None => false,
    }
}
