//! The audit list: what people and programs did through this listener.

use std::panic::resume_unwind;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value};
use tracing::{Instrument as _, error, info};

use super::identity::Identity;
use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Params};
use crate::api::audit;
use crate::app::App;
use crate::store::AuditEntry;
use crate::visible::foreign;

/// Lists actions of people and programs, newest first
///
/// At most the newest 100,000.
#[utoipa::path(get, path = "/v1/audit", tag = "service", params(PageQuery),
    responses((status = OK, description = "Actions", body = Page<audit::Action>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<audit::Action>> {
    Ok(Json(read(&app, &page).await?))
}

/// Returns a page of the list.
///
/// # Errors
///
/// If the page's parameters are wrong, or the store can't be read.
pub(super) async fn read(app: &App, page: &PageQuery) -> Result<Page<audit::Action>, AdminError> {
    let (limit, before) = (page.limit()?, page.row(List::AUDIT)?);
    let before = (before > 0).then_some(before);
    let rows = app.store.audit(before, limit + 1).await?;
    let page = Page::of(List::AUDIT, rows, limit, |row| row.id);
    Ok(page.map(audit::Action::from))
}

/// Most values of one field that the list shows, such as the documents that were chosen.
const MAX_VALUES: usize = 100;

/// What was done, and to what.
pub(super) struct Action {
    name: String,
    subject: String,
}

impl Action {
    /// Creates an action on what these fields name, in this order. Each value is shortened to one line, and of
    /// several the first [`MAX_VALUES`] are kept.
    pub(super) fn new<'a>(
        name: impl Into<String>,
        subject: impl IntoIterator<Item = (&'a str, Vec<String>)>,
    ) -> Self {
        let part = |(field, values): (&str, Vec<String>)| {
            let kept: Vec<_> = values
                .iter()
                .take(MAX_VALUES)
                .map(|one| foreign(one))
                .collect();
            let more = match values.len() - kept.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let kept = kept.join(",");
            match field {
                "" => format!("{kept}{more}"),
                field => format!("{field}={kept}{more}"),
            }
        };
        let parts: Vec<_> = subject.into_iter().map(part).collect();
        Self {
            name: name.into(),
            subject: parts.join(" "),
        }
    }

    /// Returns the action of an API request to `path`, which matches `route`.
    pub(super) fn of_request(name: &str, route: &str, path: &str, body: &[u8]) -> Self {
        let segments = route.split('/').zip(path.split('/'));
        let given = segments.filter(|(route, _)| route.starts_with('{'));
        let given = given.map(|(_, value)| ("", vec![value.to_owned()]));
        let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
        Self::new(name, given.chain(plain(&fields)))
    }
}

/// Returns the plain fields of a body. Only requests with an action come here,
/// and none of them holds a secret: tokens and links are in responses. The location of an
/// upload is a secret, so its route has no action.
fn plain(fields: &Map<String, Value>) -> impl Iterator<Item = (&str, Vec<String>)> {
    fields.iter().filter_map(|(name, value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
        Some((&**name, vec![text]))
    })
}

/// Does the work of a request, and records its action if the response's status says that it was done, or that
/// the service failed: part of it may be done then.
///
/// Both go on to their end if the client goes away, or waits for too long: nothing is done unseen.
pub(super) async fn carry_out(
    app: Arc<App>,
    identity: Identity,
    action: Action,
    is_done: fn(StatusCode) -> bool,
    work: impl Future<Output = Response> + Send + 'static,
) -> Response {
    let recorded = async move {
        let response = work.await;
        let status = response.status();
        if is_done(status) {
            record(&app, &identity, action, None).await;
        } else if status.is_server_error() {
            let detail = format!("answered {}, part of it may be done", status.as_u16());
            record(&app, &identity, action, Some(detail)).await;
        }
        response
    };
    match tokio::spawn(recorded.in_current_span()).await {
        Ok(response) => response,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The process ends.
            Err(_) => AdminError::TookTooLong.into_response(),
        },
    }
}

/// Adds an action to the audit list, and to the log.
pub(super) async fn record(app: &App, identity: &Identity, action: Action, detail: Option<String>) {
    let Action { name, subject } = action;
    let actor = &identity.owner;
    let result = detail.as_deref().unwrap_or("done");
    info!(audit.actor = %actor, audit.action = %name, "{actor}: {name} {subject} ({result})");
    let entry = AuditEntry {
        at: app.clock.now(),
        actor: actor.clone(),
        action: name.clone(),
        subject,
        detail,
    };
    if let Err(error) = app.store.record_action(entry).await {
        error!("failed to add `{name}` of {actor} to the audit list: {error}");
    }
}
