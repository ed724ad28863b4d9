//! Feeds: how they stand, pulling them, stopping and freeing them.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::paging::{List, Page, PageOf};
use super::{AdminError, Input, Outcome, Params};
use crate::domain::{Account, Company, Cursor, Feed, Queue};
use crate::service::App;
use crate::store::{FeedRow, RunState, Trigger, TriggerKind};

/// A feed and its state.
#[derive(Serialize, ToSchema)]
pub(super) struct FeedStatus {
    /// The feed.
    #[serde(flatten)]
    row: FeedRow,
    /// Its state.
    #[serde(flatten)]
    state: RunState,
}

/// Every feed and its state
#[utoipa::path(get, path = "/v1/feeds", tag = "feeds", params(PageOf),
    responses((status = OK, description = "Feeds by account, queue and company", body = Page<FeedStatus>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(page): Params<PageOf>,
) -> Outcome<Page<FeedStatus>> {
    let page = page_of(&app, &page).await?;
    let accounts = app.store.accounts().await?;
    let now = app.clock.now();
    Ok(Json(page.map(|row| {
        let account = accounts
            .iter()
            .find(|account| account.account == row.feed.account);
        let state = row.state(account, now);
        FeedStatus { row, state }
    })))
}

/// A page of the feeds, in the order of their names.
pub(super) async fn page_of(app: &App, page: &PageOf) -> Result<Page<FeedRow>, AdminError> {
    let limit = page.limit()?;
    let place = page.place(List::FEEDS)?;
    let place: Option<Vec<&str>> = place.as_ref().map(|text| text.splitn(3, '/').collect());
    let mut rows = app.store.feeds().await?;
    if let Some(place) = place {
        rows.retain(|row| parts(&row.feed).as_slice() > place.as_slice());
    }
    Ok(Page::of(List::FEEDS, rows, limit, |row| {
        parts(&row.feed).join("/")
    }))
}

/// What the store sorts feeds by.
fn parts(feed: &Feed) -> [&str; 3] {
    [
        feed.account.as_str(),
        feed.queue.as_str(),
        feed.company.as_str(),
    ]
}

/// Which feeds, as a request names them; what is absent means all.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PullRequest {
    /// Only this account's.
    pub(super) account: Option<String>,
    /// Only this queue's.
    pub(super) queue: Option<Queue>,
    /// Only this company's, which makes its exported feed known where it is not.
    #[schema(max_length = 64)]
    pub(super) company: Option<String>,
    /// Read again from here, as a position of its own.
    pub(super) from: Option<String>,
}

/// What will be pulled.
#[derive(Serialize, ToSchema)]
pub(super) struct Triggered {
    /// The feeds.
    pub(super) feeds: Vec<Feed>,
}

/// Pull the named feeds now
///
/// With `from` an old stretch is read again, which leaves the feed's own cursor alone; one
/// at a time for each feed.
#[utoipa::path(post, path = "/v1/pull", tag = "feeds", request_body = PullRequest,
    responses(
        (status = OK, description = "What will be pulled", body = Triggered),
        (status = CONFLICT, description = "`conflict`: a named feed still reads an earlier stretch",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn pull(
    State(app): State<Arc<App>>,
    Input(request): Input<PullRequest>,
) -> Outcome<Triggered> {
    raise(&app, request).await.map(Json)
}

/// Raises a pull of the named feeds.
pub(super) async fn raise(app: &App, request: PullRequest) -> Result<Triggered, AdminError> {
    let feeds = chosen_feeds(app, &request).await?;
    if request.from.is_some() {
        refuse_second_backfill(app, &feeds).await?;
    }
    let now = app.clock.now();
    let from = request.from.map(Cursor::new);
    let kind = match from {
        Some(_) => TriggerKind::Backfill,
        None => TriggerKind::Notification,
    };
    let triggers = feeds
        .iter()
        .map(|feed| Trigger {
            feed: feed.clone(),
            kind,
            due_at: now,
            from: from.clone(),
        })
        .collect();
    app.store.trigger(triggers).await?;
    Ok(Triggered { feeds })
}

/// A feed has one position for reading an old stretch: a second wish would end the first.
async fn refuse_second_backfill(app: &App, chosen: &[Feed]) -> Result<(), AdminError> {
    let busy: Vec<String> = app
        .store
        .feeds()
        .await?
        .into_iter()
        .filter(|row| row.triggers.contains(&TriggerKind::Backfill) && chosen.contains(&row.feed))
        .map(|row| row.feed.to_string())
        .collect();
    let Some(first) = busy.first() else {
        return Ok(());
    };
    let others = match busy.len() - 1 {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    Err(AdminError::Conflict(
        format!(
            "{first}{others} still reads an earlier stretch again, which a new `from` would cut short; \
             nothing was asked for. Wait until `triggers` of GET /v1/feeds holds no `backfill`, or name \
             other feeds"
        )
        .into(),
    ))
}

/// The feeds that a request names: configured, known from before, or new.
async fn chosen_feeds(app: &App, request: &PullRequest) -> Result<Vec<Feed>, AdminError> {
    let account = request
        .account
        .as_deref()
        .map(|name| known_account(app, name))
        .transpose()?;
    let company = request.company.as_deref().map(parse_company).transpose()?;
    let accounts: Vec<&Account> = match &account {
        Some(account) => vec![account],
        None => app.config.accounts.keys().collect(),
    };
    let mut feeds: BTreeSet<Feed> = BTreeSet::new();
    for row in app.store.feeds().await? {
        if accounts.contains(&&row.feed.account) {
            feeds.insert(row.feed);
        }
    }
    for account in accounts {
        // Where it is switched off, only a request that names it makes it known.
        if app.config.accounts[account].digitized || request.queue == Some(Queue::Digitized) {
            feeds.insert(Feed::digitized(account.clone()));
        }
        let configured = app.config.accounts[account].companies.iter();
        for company in configured.chain(&company) {
            feeds.insert(Feed::exported(account.clone(), company.clone()));
        }
    }
    // A company alone means its exported queue: the other one mixes companies.
    let queue = request.queue.or(company.as_ref().map(|_| Queue::Exported));
    feeds.retain(|feed| {
        queue.is_none_or(|queue| feed.queue == queue)
            && company
                .as_ref()
                .is_none_or(|company| feed.queue == Queue::Digitized || feed.company == *company)
    });
    Ok(feeds.into_iter().collect())
}

/// One feed, or all of an account where `queue` is absent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FeedSelection {
    /// Whose feeds.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$", examples("default"))]
    pub(super) account: String,
    /// Which queue's.
    pub(super) queue: Option<Queue>,
    /// Which company's; the digitized queue has none.
    #[schema(max_length = 64)]
    pub(super) company: Option<String>,
}

/// What was changed.
#[derive(Serialize, ToSchema)]
pub(super) struct Changed {
    /// How many feeds and accounts.
    pub(super) changed: usize,
}

/// Stop pulling one feed, or all of an account
#[utoipa::path(post, path = "/v1/feeds/pause", tag = "feeds", request_body = FeedSelection,
    responses((status = OK, description = "What was changed", body = Changed)))]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Input(request): Input<FeedSelection>,
) -> Outcome<Changed> {
    set_paused(&app, request, true).await.map(Json)
}

/// Pull one feed again, or all of an account
#[utoipa::path(post, path = "/v1/feeds/resume", tag = "feeds", request_body = FeedSelection,
    responses((status = OK, description = "What was changed", body = Changed)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Input(request): Input<FeedSelection>,
) -> Outcome<Changed> {
    set_paused(&app, request, false).await.map(Json)
}

/// Pauses what `request` names, or frees it.
pub(super) async fn set_paused(
    app: &App,
    request: FeedSelection,
    paused: bool,
) -> Result<Changed, AdminError> {
    let account = known_account(app, &request.account)?;
    let company = request.company.as_deref().map(parse_company).transpose()?;
    let feed = match (request.queue, company) {
        (None, None) => None,
        (Some(Queue::Digitized), None) => Some(Feed::digitized(account.clone())),
        (None | Some(Queue::Exported), Some(company)) => {
            Some(Feed::exported(account.clone(), company))
        }
        (Some(Queue::Exported), None) => {
            return Err(AdminError::BadRequest(
                "the exported queue has a feed for each company: name the `company`".to_owned(),
            ));
        }
        (Some(Queue::Digitized), Some(_)) => {
            return Err(AdminError::BadRequest(
                "the digitized queue mixes companies: leave `company` out".to_owned(),
            ));
        }
    };
    let changed = app.store.set_paused(account, feed, paused).await?;
    Ok(Changed { changed })
}

/// An account that the settings name.
pub(super) fn known_account(app: &App, name: &str) -> Result<Account, AdminError> {
    let account =
        Account::parse(name).map_err(|error| AdminError::BadRequest(error.to_string()))?;
    if app.config.accounts.contains_key(&account) {
        Ok(account)
    } else {
        Err(AdminError::BadRequest(format!(
            "the settings name no account `{account}`"
        )))
    }
}

/// A company's code.
pub(super) fn parse_company(code: &str) -> Result<Company, AdminError> {
    Company::parse(code).map_err(|error| AdminError::BadRequest(error.to_string()))
}
