//! Actions of the pages' buttons: the same as the API's POST requests.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use tokio::time::Instant;

use super::access::Form;
use super::context::{PageContext, PageError};
use super::destinations::{MAX_CHOSEN, chosen, configured};
use super::labels::Notice;
use crate::admin::destinations::start_lanes;
use crate::admin::feeds::{self, parse_company, set_paused, trigger_pull};
use crate::admin::import_errors;
use crate::admin::messages::retry_quarantined;
use crate::admin::problem::{AdminError, Input};
use crate::admin::subscriptions::{self, Decision};
use crate::admin::uploads;
use crate::api::destinations::Start;
use crate::api::feeds::{FeedSelection, PullRequest};
use crate::app::App;
use crate::domain::{Company, Queue};
use crate::ivesk::Entry;
use crate::store::{
    DeliverySelection, DeliveryState, DestinationChange, ImportErrorDecision, LaneSelection,
    NewImportError, PauseChange,
};
use crate::visible::foreign;

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

pub(super) async fn remove_feed(
    context: PageContext,
    Extension(form): Extension<Form>,
) -> Response {
    let done = remove(&context.admin.app, &form).await;
    context.redirect(done)
}

async fn remove(app: &Arc<App>, form: &Form) -> Result<String, PageError> {
    let selection = FeedSelection {
        account: form.required("account")?.to_owned(),
        queue: queue(form)?,
        company: form.text("company").map(str::to_owned),
    };
    let Json(_) = feeds::remove(State(Arc::clone(app)), Input(selection)).await?;
    Ok(with_notice("/feeds", Notice::Removed))
}

pub(super) async fn dismiss_gap(
    context: PageContext,
    Extension(form): Extension<Form>,
) -> Response {
    let by = context.viewer.approver();
    let done = dismiss(&context.admin.app, &form, by).await;
    context.redirect(done)
}

async fn dismiss(app: &App, form: &Form, by: String) -> Result<String, PageError> {
    let now = app.clock.now();
    if !app.store.dismiss_gap(row_id(form)?, by, now).await? {
        return Err(AdminError::Conflict("this gap is closed already".into()).into());
    }
    Ok(with_notice("/feeds", Notice::Dismissed))
}

pub(super) async fn report(context: PageContext, Extension(form): Extension<Form>) -> Response {
    let done = report_document(&context.admin.app, &form).await;
    context.redirect(done)
}

async fn report_document(app: &App, form: &Form) -> Result<String, PageError> {
    let sequence = number(form, "sequence")?;
    let message = foreign(form.required("message")?);
    let row = app.store.document(sequence).await?;
    let row = row.ok_or(AdminError::UnknownRow)?;
    let company = match row.feed.company != Company::mixed() {
        true => Some(row.feed.company),
        false => {
            let entry = row.body.as_deref().and_then(Entry::parse);
            entry.and_then(|entry| entry.companies().into_iter().next())
        }
    };
    let Some(company) = company else {
        return Err(AdminError::Conflict(
            "the document names no company of yours, so Įvesk.lt can't be told whose it is".into(),
        )
        .into());
    };
    let import_error = NewImportError {
        company: Some(company),
        message,
    };
    let now = app.clock.now();
    if !app
        .store
        .report_document(sequence, import_error, now)
        .await?
    {
        return Err(AdminError::UnknownRow.into());
    }
    let page = format!("/documents/{sequence}");
    Ok(with_notice(&page, Notice::Reported))
}

fn number(form: &Form, name: &str) -> Result<i64, AdminError> {
    let number = form.required(name)?.parse();
    number.map_err(|_| AdminError::UnknownRow)
}

pub(super) async fn delivery(context: PageContext, Extension(form): Extension<Form>) -> Response {
    let done = change_deliveries(&context.admin.app, &form).await;
    context.redirect(done)
}

/// Retries, skips or delivers the chosen versions, or all in a state.
async fn change_deliveries(app: &App, form: &Form) -> Result<String, PageError> {
    let name = configured(app, form.required("destination")?)?;
    let action = form.required("action")?;
    let chosen = form.chosen();
    let in_state = || {
        let state = form.text("state").and_then(DeliveryState::parse);
        let state = state.filter(|state| *state != DeliveryState::Delivered);
        let state =
            state.ok_or_else(|| AdminError::BadRequest("the form names no state".to_owned()))?;
        let company = form.text("company").map(parse_company).transpose()?;
        Ok::<_, AdminError>(DeliverySelection::InState { state, company })
    };
    if chosen.is_empty() && matches!(action, "retry" | "skip" | "deliver") {
        return Err(AdminError::BadRequest("choose a document first".to_owned()).into());
    }
    let changes: Vec<DestinationChange> = match action {
        "retry" => each(&chosen, DestinationChange::Retry),
        "skip" => each(&chosen, DestinationChange::Skip),
        "retry_all" => vec![DestinationChange::Retry(in_state()?)],
        "skip_all" => vec![DestinationChange::Skip(in_state()?)],
        "deliver" => Vec::new(),
        other => {
            return Err(AdminError::BadRequest(format!(
                "`{other}` is not an action of a delivery"
            ))
            .into());
        }
    };
    let now = app.clock.now();
    let mut changed = 0;
    for change in changes {
        let one = app
            .store
            .change_destination(name.clone(), change, now)
            .await?;
        changed += one.ok_or(AdminError::UnknownRow)?;
    }
    if action == "deliver" {
        for sequence in chosen {
            let delivered = app
                .store
                .deliver_version(name.clone(), sequence, now)
                .await?;
            changed += usize::from(delivered);
        }
    }
    let changed = changed as u64;
    let notice = match action {
        "skip" | "skip_all" => Notice::Skipped { changed },
        _ => Notice::Delivering { changed },
    };
    // Only to pages of deliveries: an address of others would be a redirect to anywhere.
    let back = form.text("back").unwrap_or("/deliveries");
    let is_ours = back.starts_with("/documents/") || back.starts_with("/deliveries?");
    let back = if is_ours { back } else { "/deliveries" };
    let mark = if back.contains('?') { '&' } else { '?' };
    Ok(format!("{back}{mark}{}", notice.query()))
}

fn each(
    chosen: &[i64],
    change: impl Fn(DeliverySelection) -> DestinationChange,
) -> Vec<DestinationChange> {
    let chosen = chosen.iter();
    chosen
        .map(|one| change(DeliverySelection::One(*one)))
        .collect()
}

pub(super) async fn destination(
    context: PageContext,
    Extension(form): Extension<Form>,
) -> Response {
    let done = change_destination(&context.admin.app, &form).await;
    context.redirect(done)
}

async fn change_destination(app: &App, form: &Form) -> Result<String, PageError> {
    let name = configured(app, form.required("destination")?)?;
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
            let companies = form.text("companies").unwrap_or_default();
            let companies: Vec<String> = companies
                .lines()
                .take(MAX_CHOSEN)
                .map(str::to_owned)
                .collect();
            // Before the first is started.
            for company in &companies {
                parse_company(company)?;
            }
            let mut changed = 0;
            for company in chosen(&companies) {
                let start = Start {
                    from: form.required("from")?.to_owned(),
                    account: None,
                    company,
                };
                changed += start_lanes(app, name.as_str(), &start).await?.changed as u64;
            }
            return Ok(with_notice("/destinations", Notice::Started { changed }));
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
