//! What the buttons do: the same as the API's POSTs.

use std::time::Duration;

use axum::Extension;
use axum::response::Response;
use tokio::time::Instant;

use super::entrance::Form;
use super::page::{PageError, Visit};
use super::words::Notice;
use crate::admin::feeds::{FeedSelection, PullRequest, set_paused, trigger_pull};
use crate::admin::messages::retry_quarantined;
use crate::admin::problem::AdminError;
use crate::admin::subscriptions;
use crate::app::App;
use crate::delivery::worker::filter;
use crate::domain::{DestinationName, Queue, Timestamp};
use crate::store::{DestinationChange, StartFrom, SubscriptionChange};

/// How long all of the quarantine is judged; what is left needs another press.
const PATIENCE: Duration = Duration::from_secs(20);

/// Rows of the quarantine that are read at once.
const STEP: usize = 50;

fn seen_on(page: &str, notice: Notice) -> String {
    format!("{page}?{}", notice.query())
}

fn queue(form: &Form) -> Result<Option<Queue>, AdminError> {
    form.text("queue")
        .map(|text| {
            Queue::parse(text)
                .ok_or_else(|| AdminError::BadRequest(format!("`{text}` is no queue")))
        })
        .transpose()
}

pub(super) async fn pull(visit: Visit, Extension(form): Extension<Form>) -> Response {
    let done = raise_pull(&visit.admin.app, &form).await;
    visit.go_to(done)
}

async fn raise_pull(app: &App, form: &Form) -> Result<String, PageError> {
    let request = PullRequest {
        account: form.text("account").map(str::to_owned),
        queue: queue(form)?,
        company: form.text("company").map(str::to_owned),
        ..PullRequest::default()
    };
    trigger_pull(app, request).await?;
    Ok(seen_on("/feeds", Notice::Pulling))
}

pub(super) async fn pause_feed(visit: Visit, Extension(form): Extension<Form>) -> Response {
    let done = change_feeds(&visit.admin.app, &form, true).await;
    visit.go_to(done)
}

pub(super) async fn resume(visit: Visit, Extension(form): Extension<Form>) -> Response {
    let done = change_feeds(&visit.admin.app, &form, false).await;
    visit.go_to(done)
}

async fn change_feeds(app: &App, form: &Form, paused: bool) -> Result<String, PageError> {
    let request = FeedSelection {
        account: form.needed("account")?.to_owned(),
        queue: queue(form)?,
        company: form.text("company").map(str::to_owned),
    };
    set_paused(app, request, paused).await?;
    let notice = if paused {
        Notice::Paused
    } else {
        Notice::Resumed
    };
    Ok(seen_on("/feeds", notice))
}

pub(super) async fn approve(visit: Visit, Extension(form): Extension<Form>) -> Response {
    let done = visit_url(&visit.admin.app, &form, SubscriptionChange::Approved).await;
    visit.go_to(done)
}

pub(super) async fn restore(visit: Visit, Extension(form): Extension<Form>) -> Response {
    let done = visit_url(&visit.admin.app, &form, SubscriptionChange::Restored).await;
    visit.go_to(done)
}

fn row_id(form: &Form) -> Result<i64, AdminError> {
    form.needed("id")?
        .parse()
        .map_err(|_| AdminError::UnknownRow)
}

async fn visit_url(
    app: &App,
    form: &Form,
    change: SubscriptionChange,
) -> Result<String, PageError> {
    let visited = subscriptions::change(app, row_id(form)?, change).await?;
    let notice = if visited.confirmed {
        Notice::Confirmed
    } else {
        Notice::NotConfirmed
    };
    Ok(seen_on("/subscriptions", notice))
}

pub(super) async fn retry(visit: Visit, Extension(form): Extension<Form>) -> Response {
    let app = &visit.admin.app;
    let done = match form.text("id") {
        Some(_) => retry_one(app, &form).await,
        None => retry_all(app).await,
    };
    visit.go_to(done.map(|notice| seen_on("/quarantine", notice)))
}

async fn retry_one(app: &App, form: &Form) -> Result<Notice, PageError> {
    let accepted = retry_quarantined(app, row_id(form)?).await?.accepted;
    Ok(Notice::Judged {
        accepted: u64::from(accepted),
        refused: u64::from(!accepted),
    })
}

async fn retry_all(app: &App) -> Result<Notice, PageError> {
    let until = Instant::now() + PATIENCE;
    let (mut accepted, mut refused, mut after) = (0, 0, 0);
    loop {
        let rows = app.store.quarantine(after, STEP).await?;
        let Some(last) = rows.last() else {
            break;
        };
        after = last.id;
        for row in rows {
            match app.ingest.retry(row).await {
                Ok(_) => accepted += 1,
                Err(_) => refused += 1,
            }
        }
        if Instant::now() > until {
            break;
        }
    }
    Ok(Notice::Judged { accepted, refused })
}

pub(super) async fn destination(visit: Visit, Extension(form): Extension<Form>) -> Response {
    let done = change_destination(&visit.admin.app, &form).await;
    visit.go_to(done)
}

async fn change_destination(app: &App, form: &Form) -> Result<String, PageError> {
    let name =
        DestinationName::parse(form.needed("destination")?).map_err(|_| AdminError::UnknownRow)?;
    let config = app
        .config
        .destinations
        .get(&name)
        .ok_or(AdminError::UnknownRow)?;
    let start = |from| DestinationChange::Start {
        filter: filter(config),
        account: None,
        company: None,
        from,
    };
    let change = match form.needed("what")? {
        "pause" => DestinationChange::Pause,
        "resume" => DestinationChange::Resume,
        "retry" => DestinationChange::Retry { sequence: None },
        "deliver_history" => start(StartFrom::All),
        "start_now" => start(StartFrom::Now),
        "start_since" => start(StartFrom::Since(first_moment(form.needed("since")?)?)),
        other => {
            return Err(AdminError::BadRequest(format!(
                "`{other}` can't be done to a destination"
            ))
            .into());
        }
    };
    let now = app.clock.now();
    let changed = app.store.change_destination(name, change, now).await?;
    changed.ok_or(AdminError::UnknownRow)?;
    Ok(seen_on("/destinations", Notice::DestinationChanged))
}

/// The first moment of a day, in UTC.
fn first_moment(day: &str) -> Result<Timestamp, AdminError> {
    Timestamp::parse(&format!("{day}T00:00:00Z"))
        .ok_or_else(|| AdminError::BadRequest(format!("`{day}` is no day")))
}
