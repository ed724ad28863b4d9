//! The audit list: what people and programs did through this listener.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value};
use tracing::{error, info};

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

/// What was done, and to what.
pub(super) struct Action {
    name: String,
    subject: String,
}

impl Action {
    /// Creates an action; `subject` is shortened to one line.
    pub(super) fn new(name: impl Into<String>, subject: &str) -> Self {
        Self {
            name: name.into(),
            subject: foreign(subject),
        }
    }

    /// Returns the action of an API request to `path`, which matches `route`.
    pub(super) fn of_request(name: &str, route: &str, path: &str, body: &[u8]) -> Self {
        let segments = route.split('/').zip(path.split('/'));
        let given = segments.filter(|(route, _)| route.starts_with('{'));
        let mut parts: Vec<_> = given.map(|(_, value)| value.to_owned()).collect();
        let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
        parts.extend(pairs(&fields));
        Self::new(name, &parts.join(" "))
    }
}

/// Returns the plain fields of a body as `name=value`. Only requests with an action come here,
/// and none of them holds a secret: tokens and links are in responses. The location of an
/// upload is a secret, so its route has no action.
fn pairs(fields: &Map<String, Value>) -> impl Iterator<Item = String> {
    fields.iter().filter_map(|(name, value)| match value {
        Value::String(text) => Some(format!("{name}={text}")),
        Value::Number(number) => Some(format!("{name}={number}")),
        Value::Bool(yes) => Some(format!("{name}={yes}")),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    })
}

/// Adds an action to the audit list, and to the log.
pub(super) async fn record(app: &App, identity: &Identity, action: Action) {
    let Action { name, subject } = action;
    let actor = &identity.owner;
    info!(audit.actor = %actor, audit.action = %name, "{actor}: {name} {subject}");
    let entry = AuditEntry {
        at: app.clock.now(),
        actor: actor.clone(),
        action: name.clone(),
        subject,
        detail: None,
    };
    if let Err(error) = app.store.record_action(entry).await {
        error!("failed to add `{name}` of {actor} to the audit list: {error}");
    }
}
