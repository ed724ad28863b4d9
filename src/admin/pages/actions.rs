//! Actions of the pages' buttons: the same as the API's POST requests.

use std::time::Duration;

use axum::Extension;
use axum::response::Response;
use tokio::time::Instant;

use super::access::Form;
use super::context::{PageContext, PageError};
use super::labels::Notice;
use crate::admin::destinations::{Start, start_lanes};
use crate::admin::feeds::{FeedSelection, PullRequest, set_paused, trigger_pull};
use crate::admin::import_errors;
use crate::admin::messages::retry_quarantined;
use crate::admin::problem::AdminError;
use crate::admin::subscriptions::{self, Decision};
use crate::admin::uploads;
use crate::app::App;
use crate::domain::{DestinationName, Queue};
use crate::store::{
    DeliverySelection, DeliveryState, DestinationChange, ImportErrorDecision, LaneSelection,
    PauseChange,
};

/// Time for one retry of the whole quarantine; the remaining messages need another one.
const RETRY_ALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Rows of the quarantine that one read returns.
const BATCH_SIZE: usize = 50;

fn with_notice(page: &str, notice: Notice) -> String {
    format!("{page}?{}", notice.query())
}

fn queue(form: &Form) -> Result<Option<Queue>, AdminError> {
    form.text("queue")
        .map(|text| {
            Queue::parse(text)
                .ok_or_else(|| AdminError::BadRequest(format!("`{text}` is not a queue")))
        })
        .transpose()
}

pub(super) async fn pull(context: PageContext, Extension(form): Extension<Form>) -> Response {
    let done = request_pull(&context.admin.app, &form).await;
    context.redirect(done)
}

async fn request_pull(app: &App, form: &Form) -> Result<String, PageError> {
    let request = PullRequest {
        account: form.text("account").map(str::to_owned),
        queue: queue(form)?,
        company: form.text("company").map(str::to_owned),
        ..PullRequest::default()
    };
    trigger_pull(app, request).await?;
    Ok(with_notice("/feeds", Notice::Pulling))
}

pub(super) async fn pause_feed(context: PageContext, Extension(form): Extension<Form>) -> Response {
    let done = change_feeds(&context.admin.app, &form, PauseChange::Pause).await;
    context.redirect(done)
}

pub(super) async fn resume(context: PageContext, Extension(form): Extension<Form>) -> Response {
    let change = PauseChange::Resume { accept: false };
    let done = change_feeds(&context.admin.app, &form, change).await;
    context.redirect(done)
}

async fn change_feeds(app: &App, form: &Form, change: PauseChange) -> Result<String, PageError> {
    let request = FeedSelection {
        account: form.required("account")?.to_owned(),
        queue: queue(form)?,
        company: form.text("company").map(str::to_owned),
    };
    set_paused(app, request, change).await?;
    let notice = match change {
        PauseChange::Pause => Notice::Paused,
        PauseChange::Resume { .. } => Notice::Resumed,
    };
    Ok(with_notice("/feeds", notice))
}

pub(super) async fn approve(context: PageContext, Extension(form): Extension<Form>) -> Response {
    let decision = Decision::Approve(context.viewer.approver());
    let done = change_subscription(&context.admin.app, &form, decision).await;
    context.redirect(done)
}

pub(super) async fn revoke(context: PageContext, Extension(form): Extension<Form>) -> Response {
    let done = revoke_approval(&context.admin.app, &form).await;
    context.redirect(done)
}

async fn revoke_approval(app: &App, form: &Form) -> Result<String, PageError> {
    subscriptions::revoke_topic(app, form.required("topic_arn")?).await?;
    Ok(with_notice("/subscriptions", Notice::Revoked))
}

pub(super) async fn restore(context: PageContext, Extension(form): Extension<Form>) -> Response {
    let done = change_subscription(&context.admin.app, &form, Decision::Restore).await;
    context.redirect(done)
}

fn row_id(form: &Form) -> Result<i64, AdminError> {
    form.required("id")?
        .parse()
        .map_err(|_| AdminError::UnknownRow)
}

async fn change_subscription(
    app: &App,
    form: &Form,
    decision: Decision,
) -> Result<String, PageError> {
    let changed = subscriptions::change(app, row_id(form)?, decision).await?;
    let notice = if changed.confirmed {
        Notice::Confirmed
    } else {
        Notice::NotConfirmed
    };
    Ok(with_notice("/subscriptions", notice))
}

pub(super) async fn retry(context: PageContext, Extension(form): Extension<Form>) -> Response {
    let app = &context.admin.app;
    let done = match form.text("id") {
        Some(_) => retry_one(app, &form).await,
        None => retry_all(app).await,
    };
    context.redirect(done.map(|notice| with_notice("/quarantine", notice)))
}

async fn retry_one(app: &App, form: &Form) -> Result<Notice, PageError> {
    let accepted = retry_quarantined(app, row_id(form)?).await?.accepted;
    Ok(Notice::Retried {
        accepted: u64::from(accepted),
        refused: u64::from(!accepted),
    })
}

async fn retry_all(app: &App) -> Result<Notice, PageError> {
    let deadline = Instant::now() + RETRY_ALL_TIMEOUT;
    let (mut accepted, mut refused, mut after) = (0, 0, 0);
    loop {
        let rows = app.store.quarantine(after, BATCH_SIZE).await?;
        let Some(last) = rows.last() else {
            break;
        };
        after = last.id;
        for row in rows {
            // It may have left the quarantine meanwhile.
            let Some(message) = app.store.quarantined(row.id).await? else {
                continue;
            };
            match app.ingest.retry(message).await {
                Ok(_) => accepted += 1,
                Err(_) => refused += 1,
            }
        }
        if Instant::now() > deadline {
            break;
        }
    }
    Ok(Notice::Retried { accepted, refused })
}

pub(super) async fn settle_upload(
    context: PageContext,
    Extension(form): Extension<Form>,
) -> Response {
    let done = settle(&context.admin.app, &form).await;
    context.redirect(done)
}

async fn settle(app: &App, form: &Form) -> Result<String, PageError> {
    uploads::settle_upload(app, row_id(form)?, form.required("reason")?).await?;
    Ok(with_notice("/uploads", Notice::Settled))
}

pub(super) async fn import_error(
    context: PageContext,
    Extension(form): Extension<Form>,
) -> Response {
    let done = decide_import_error(&context.admin.app, &form).await;
    context.redirect(done)
}

/// Returns what becomes of an import error that is due.
fn due(app: &App) -> Notice {
    match app.config.api.import_error_path {
        Some(_) => Notice::ImportErrorDue,
        None => Notice::ImportErrorWaits,
    }
}

async fn decide_import_error(app: &App, form: &Form) -> Result<String, PageError> {
    let notice = match form.required("action")? {
        "retry" => {
            import_errors::decide_one(app, row_id(form)?, ImportErrorDecision::Retry).await?;
            due(app)
        }
        "discard" => {
            import_errors::decide_one(app, row_id(form)?, ImportErrorDecision::Discard).await?;
            Notice::ImportErrorDiscarded
        }
        "resume" => {
            import_errors::resume(app, form.required("account")?).await?;
            due(app)
        }
        other => {
            return Err(AdminError::BadRequest(format!(
                "`{other}` is not an action of an import error"
            ))
            .into());
        }
    };
    Ok(with_notice("/import-errors", notice))
}

pub(super) async fn destination(
    context: PageContext,
    Extension(form): Extension<Form>,
) -> Response {
    let done = change_destination(&context.admin.app, &form).await;
    context.redirect(done)
}

async fn change_destination(app: &App, form: &Form) -> Result<String, PageError> {
    let name = DestinationName::parse(form.required("destination")?)
        .map_err(|_| AdminError::UnknownRow)?;
    if !app.config.destinations.contains_key(&name) {
        return Err(AdminError::UnknownRow.into());
    }
    let change = match form.required("action")? {
        "pause" => DestinationChange::Pause,
        "resume" => DestinationChange::Resume,
        "retry" => DestinationChange::Retry(DeliverySelection::InState {
            state: DeliveryState::Rejected,
            company: None,
        }),
        "stop" => DestinationChange::Stop {
            lanes: LaneSelection::default(),
        },
        "start" => {
            let start = Start {
                from: form.required("from")?.to_owned(),
                account: None,
                company: form.text("company").map(str::to_owned),
            };
            start_lanes(app, name.as_str(), &start).await?;
            return Ok(with_notice("/destinations", Notice::DestinationChanged));
        }
        other => {
            return Err(AdminError::BadRequest(format!(
                "`{other}` is not an action of a destination"
            ))
            .into());
        }
    };
    let now = app.clock.now();
    let changed = app.store.change_destination(name, change, now).await?;
    changed.ok_or(AdminError::UnknownRow)?;
    Ok(with_notice("/destinations", Notice::DestinationChanged))
}
