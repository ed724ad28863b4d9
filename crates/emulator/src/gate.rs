//! Applies faults and switches to a request, or to its answer.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use crate::faults::{Endpoint, FaultKind};
use crate::switches::ErrorBody;
use crate::vendor::Vendor;

/// Damage to the right answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    Nothing,
    TruncateJson,
    BreakBody,
    LoseAnswer,
}

/// Lets a request pass, perhaps after a delay, or answers it. `subject` is the company or the
/// file name that it asks for.
pub(crate) async fn pass(
    vendor: &Vendor,
    endpoint: Endpoint,
    subject: Option<&str>,
) -> Result<Damage, Box<Response>> {
    if endpoint.is_api() {
        apply_switches(vendor).await?;
    }
    loop {
        match vendor.faults.take(endpoint, subject) {
            None => return Ok(Damage::Nothing),
            Some(FaultKind::Hang) => hang_until_cleared(vendor).await?,
            Some(FaultKind::Slow { slow_ms }) => {
                tokio::time::sleep(Duration::from_millis(slow_ms)).await;
                return Ok(Damage::Nothing);
            }
            Some(FaultKind::TruncatedJson) => return Ok(Damage::TruncateJson),
            Some(FaultKind::BrokenBody) => return Ok(Damage::BreakBody),
            Some(FaultKind::LostAnswer) => return Ok(Damage::LoseAnswer),
            Some(FaultKind::HtmlPage) => return Err(Box::new(html(StatusCode::OK, "Įvesk.lt"))),
            Some(FaultKind::HugePage { bytes }) => return Err(Box::new(huge_page(bytes))),
            Some(FaultKind::Redirect { location }) => {
                let location = HeaderValue::from_str(&location)
                    .unwrap_or_else(|_| HeaderValue::from_static("/"));
                let redirect = (StatusCode::FOUND, [(header::LOCATION, location)]);
                return Err(Box::new(redirect.into_response()));
            }
            Some(FaultKind::Status {
                status,
                retry_after,
            }) => {
                let mut answer = refuse(vendor, status, "This answer was requested");
                if let Some(value) = retry_after.and_then(|text| text.parse().ok()) {
                    answer.headers_mut().insert(header::RETRY_AFTER, value);
                }
                return Err(Box::new(answer));
            }
        }
    }
}

async fn apply_switches(vendor: &Vendor) -> Result<(), Box<Response>> {
    let mut changes = vendor.changes.subscribe();
    while vendor.switches().hang.is_on() {
        tokio::select! {
            _ = changes.changed() => {}
            () = vendor.stopping.cancelled() => return Err(Box::new(stopping())),
        }
    }
    let switches = vendor.switches();
    if switches.slow_ms > 0 {
        tokio::time::sleep(Duration::from_millis(switches.slow_ms)).await;
    }
    match switches.status.get() {
        Some(status) => Err(Box::new(refuse(
            vendor,
            status,
            "This answer was requested",
        ))),
        None => Ok(()),
    }
}

async fn hang_until_cleared(vendor: &Vendor) -> Result<(), Box<Response>> {
    let mut clearings = vendor.faults.clearings();
    tokio::select! {
        _ = clearings.changed() => Ok(()),
        () = vendor.stopping.cancelled() => Err(Box::new(stopping())),
    }
}

fn stopping() -> Response {
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

/// Returns an error answer of the API: the body that the `error_body` switch names, and
/// `Retry-After` if its switch is set and the status has one.
pub(crate) fn refuse(vendor: &Vendor, status: u16, message: &str) -> Response {
    let switches = vendor.switches();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = match switches.error_body {
        ErrorBody::Json => (status, axum::Json(json!({ "message": message }))).into_response(),
        ErrorBody::Html => html(status, message),
        ErrorBody::Empty => status.into_response(),
    };
    let waits = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    if let (true, Some(value)) = (waits, switches.retry_after.get()) {
        // The switch accepts printable ASCII only, which is a valid header.
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().insert(header::RETRY_AFTER, value);
        }
    }
    answer
}

fn html(status: StatusCode, title: &str) -> Response {
    let page = format!(
        "<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    );
    (status, axum::response::Html(page)).into_response()
}

/// Returns a page with one document whose last field fills it up to `bytes`.
fn huge_page(bytes: usize) -> Response {
    const CHUNK: Bytes = Bytes::from_static(&[b'x'; 65_536]);
    const HEAD: &[u8] =
        br#"{"documents":[{"id":"00000000-0000-4000-8000-000000000000","padding":""#;
    let head = std::iter::once(Bytes::from_static(HEAD));
    let filling = std::iter::repeat_n(CHUNK, bytes / CHUNK.len() + 1);
    let end = std::iter::once(Bytes::from_static(br#""}]}"#));
    let chunks = head.chain(filling).chain(end).map(Ok::<_, io::Error>);
    let json = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    (json, Body::from_stream(stream::iter(chunks))).into_response()
}

/// Damages the right answer.
pub(crate) async fn damage(answer: Response, damage: Damage) -> Response {
    if damage == Damage::Nothing {
        return answer;
    }
    if damage == Damage::LoseAnswer {
        // The head is not written before the first part of the body.
        let breaks = std::future::ready(Err::<Bytes, _>(io::Error::other("lost on request")));
        return Response::new(Body::from_stream(stream::once(breaks)));
    }
    let (mut parts, body) = answer.into_parts();
    let Ok(whole) = to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let half = whole.slice(..whole.len() / 2);
    parts.headers.remove(header::CONTENT_LENGTH);
    if damage == Damage::TruncateJson {
        return Response::from_parts(parts, Body::from(half));
    }
    broken(parts, half, whole.len())
}

/// Returns an answer that promises `length` bytes, sends `half` and breaks the connection.
pub(crate) fn broken(
    mut parts: axum::http::response::Parts,
    half: Bytes,
    length: usize,
) -> Response {
    parts
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let breaks = stream::once(async {
        // While the body waits, what was written so far is sent.
        tokio::task::yield_now().await;
        Err(io::Error::other("broken off on request"))
    });
    let chunks = stream::once(std::future::ready(Ok(half))).chain(breaks);
    Response::from_parts(parts, Body::from_stream(chunks))
}
