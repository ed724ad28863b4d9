//! Feeds: lists, pulls, pauses and resumes them.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, Params};
use crate::api::Changed;
use crate::api::feeds::{
    FeedSelection, FeedStart, FeedStarted, FeedStatus, NotPulled, PullRequest, Resume, Triggered,
};
use crate::app::App;
use crate::config::did_you_mean;
use crate::domain::{Account, Company, Cursor, Feed, Queue};
use crate::pull::{blocked_queues, configured_feeds};
use crate::store::{FeedRow, FeedStartedAt, PauseChange, Trigger, TriggerKind};

/// Longest cursor that a person sets.
const MAX_CURSOR_BYTES: usize = 1000;

/// Lists feeds with their state
#[utoipa::path(get, path = "/v1/feeds", tag = "feeds", params(PageQuery),
    responses((status = OK, description = "Feeds by account, queue and company", body = Page<FeedStatus>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<FeedStatus>> {
    let page = page_of(&app, &page).await?;
    let accounts = app.store.accounts().await?;
    let now = app.clock.now();
    Ok(Json(page.map(|row| {
        let state = row.state(row.account(&accounts), now);
        FeedStatus::from((row, state))
    })))
}

/// Returns a page of feeds by account, queue and company.
pub(super) async fn page_of(app: &App, page: &PageQuery) -> Result<Page<FeedRow>, AdminError> {
    let limit = page.limit()?;
    let place = page.place(List::FEEDS)?;
    let after = place.map(|text| {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        std::array::from_fn(|_| parts.next().unwrap_or_default())
    });
    let rows = app.store.feed_page(after, limit + 1).await?;
    Ok(Page::of(List::FEEDS, rows, limit, |row| {
        sort_key(&row.feed).join("/")
    }))
}

/// Returns the key by which the store sorts feeds.
fn sort_key(feed: &Feed) -> [&str; 3] {
    [
        feed.account.as_str(),
        feed.queue.as_str(),
        feed.company.as_str(),
    ]
}

/// Triggers a pull of the selected feeds
///
/// With `from`, an earlier stretch is pulled again without moving the feed's own cursor;
/// one stretch at a time per feed. A company without a feed is refused, since its code may be
/// mistyped; `new` adds its feed.
#[utoipa::path(post, path = "/v1/pull", tag = "feeds", request_body = PullRequest,
    responses(
        (status = OK, description = "The feeds whose pull was requested", body = Triggered),
        (status = CONFLICT, description = "`conflict`: the company has no feed, or a selected feed is removed or still pulling an \
            earlier stretch",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn pull(
    State(app): State<Arc<App>>,
    Input(request): Input<PullRequest>,
) -> ApiResult<Triggered> {
    trigger_pull(&app, request).await.map(Json)
}

/// Triggers a pull of the selected feeds.
pub(super) async fn trigger_pull(app: &App, request: PullRequest) -> Result<Triggered, AdminError> {
    let feeds = select_feeds(app, &request).await?;
    let kind = match request.from {
        Some(_) => TriggerKind::Backfill,
        None => TriggerKind::Notification,
    };
    let given_up = match kind {
        TriggerKind::Backfill => refuse_second_backfill(app, &feeds).await?,
        _ => Vec::new(),
    };
    let now = app.clock.now();
    let from = request.from.and_then(Cursor::named);
    let doubt = from.as_ref().and_then(|from| from.doubt(now));
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
    let mut warnings = warnings(feeds.iter());
    warnings.extend(doubt);
    warnings.extend(given_up.iter().map(|feed| {
        format!("{feed}: the earlier stretch, whose pulls failed, is given up for this one")
    }));
    Ok(Triggered {
        warnings,
        not_pulled: not_pulled(app, &feeds).await?,
        feeds,
    })
}

/// Returns the feeds that are not pulled until a person does something: they are paused, or a
/// setting is missing.
async fn not_pulled(app: &App, feeds: &[Feed]) -> Result<Vec<NotPulled>, AdminError> {
    let blocked = blocked_queues(&app.config);
    let accounts = app.store.accounts().await?;
    let rows = app.store.these_feeds(feeds.to_vec()).await?;
    let reason = |row: &FeedRow| {
        let feed = &row.feed;
        let blocked = blocked
            .iter()
            .find(|blocked| blocked.account == feed.account && blocked.queue == feed.queue);
        if let Some(blocked) = blocked {
            return Some(blocked.cause_and_fix());
        }
        let account = accounts.iter().find(|row| row.account == feed.account);
        let (paused, name, of_feed) = match (account.and_then(|row| row.paused), row.paused) {
            (Some(reason), _) => (reason, format!("account {}", feed.account), None),
            (None, Some(reason)) => (reason, feed.to_string(), Some(feed)),
            (None, None) => return None,
        };
        let cause = paused.cause().unwrap_or("a person paused it");
        let fix = paused.fix(&feed.account, of_feed);
        Some(format!("{name} is paused: {cause}. Fix: {fix}"))
    };
    let rows = rows.iter();
    Ok(rows
        .filter_map(|row| {
            Some(NotPulled {
                reason: reason(row)?,
                feed: row.feed.clone(),
            })
        })
        .collect())
}

/// Refuses a second stretch: a feed has one position for it, so the first would end early. Returns
/// the feeds whose first stretch may end, since pulls fail: its cursor may be one that Įvesk.lt refuses.
async fn refuse_second_backfill(app: &App, selected: &[Feed]) -> Result<Vec<Feed>, AdminError> {
    let rows = app.store.these_feeds(selected.to_vec()).await?;
    let busy = rows
        .into_iter()
        .filter(|row| row.triggers.contains(&TriggerKind::Backfill));
    let (failing, busy): (Vec<FeedRow>, Vec<FeedRow>) = busy.partition(|row| row.failures > 0);
    let Some(first) = busy.first().map(|row| &row.feed) else {
        return Ok(failing.into_iter().map(|row| row.feed).collect());
    };
    let others = match busy.len() - 1 {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    Err(AdminError::Conflict(
        format!(
            "{first}{others} is still pulling an earlier stretch, which a new `from` would cut short; \
             nothing was triggered. Wait until `ivesk-webhook feeds list` shows no `backfill` for it any more, or choose \
             other feeds"
        )
        .into(),
    ))
}

/// Returns the feeds that a request selects: configured, known or new ones.
async fn select_feeds(app: &App, request: &PullRequest) -> Result<Vec<Feed>, AdminError> {
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
    let (known, removed): (Vec<FeedRow>, Vec<FeedRow>) = app
        .store
        .feeds()
        .await?
        .into_iter()
        .partition(FeedRow::is_known);
    let removed: BTreeSet<Feed> = removed.into_iter().map(|row| row.feed).collect();
    let mut feeds: BTreeSet<Feed> = known.into_iter().map(|row| row.feed).collect();
    feeds.retain(|feed| accounts.contains(&&feed.account));
    for account in &accounts {
        let config = &app.config.accounts[*account];
        // A digitized queue that is off becomes known only if the request names it.
        if config.digitized || request.queue == Some(Queue::Digitized) {
            feeds.insert(Feed::digitized((*account).clone()));
        }
        if app.config.api.has_one_exported_feed() {
            feeds.insert(Feed::exported((*account).clone(), Company::mixed()));
        }
        let added = company.iter().filter(|_| request.new);
        for company in config.companies.iter().chain(added) {
            let api = &app.config.api;
            feeds.insert(api.exported_feed((*account).clone(), company.clone()));
        }
    }
    // A company alone means its exported queue: the digitized queue mixes companies.
    let queue = request.queue.or(company.as_ref().map(|_| Queue::Exported));
    let is_selected = |feed: &Feed| {
        queue.is_none_or(|queue| feed.queue == queue)
            && company.as_ref().is_none_or(|company| {
                feed.queue == Queue::Digitized
                    || feed.company == *company
                    || feed.company == Company::mixed()
            })
    };
    let known: Vec<Company> = feeds.iter().map(|feed| feed.company.clone()).collect();
    feeds.retain(|feed| is_selected(feed) && !removed.contains(feed));
    if feeds.is_empty() {
        let mut removed = removed.iter();
        let removed = removed.find(|feed| is_selected(feed) && accounts.contains(&&feed.account));
        if let Some(feed) = removed {
            return Err(is_removed(feed));
        }
        if let Some(company) = &company {
            return Err(has_no_feed(company, &known));
        }
    }
    Ok(feeds.into_iter().collect())
}

fn is_removed(feed: &Feed) -> AdminError {
    AdminError::Conflict(
        format!("{feed} is removed; `ivesk-webhook feeds resume` with its name brings it back")
            .into(),
    )
}

/// Refuses a company without a feed: a mistyped code would make one that fails forever.
fn has_no_feed(company: &Company, known: &[Company]) -> AdminError {
    let doubt = company.doubt();
    let names_another = doubt.as_ref().is_some_and(|doubt| doubt.likely.is_some());
    let known = known.iter().map(Company::as_str);
    let nearest = match names_another {
        true => String::new(),
        false => did_you_mean(company.as_str(), known),
    };
    let mut text = ended(format!("company `{company}` has no feed{nearest}"));
    if let Some(doubt) = doubt {
        text = ended(format!("{text} The {doubt}"));
    }
    text.push_str(" If the code is right, add the feed with `--new` (`\"new\": true` in the API)");
    AdminError::Conflict(text.into())
}

/// Ends a sentence that is no question.
fn ended(mut sentence: String) -> String {
    if !sentence.ends_with('?') {
        sentence.push('.');
    }
    sentence
}

/// Returns what is probably wrong with the companies of feeds.
fn warnings<'f>(feeds: impl Iterator<Item = &'f Feed>) -> Vec<String> {
    // The only feed of a key names no company.
    let exported =
        feeds.filter(|feed| feed.queue == Queue::Exported && feed.company != Company::mixed());
    let doubts: BTreeSet<String> = exported
        .filter_map(|feed| Some(feed.company.doubt()?.to_string()))
        .collect();
    doubts.into_iter().collect()
}

/// Pauses a feed, or all feeds of an account
#[utoipa::path(post, path = "/v1/feeds/pause", tag = "feeds", request_body = FeedSelection,
    responses((status = OK, description = "The number of changes", body = Changed)))]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Input(request): Input<FeedSelection>,
) -> ApiResult<Changed> {
    set_paused(&app, request, PauseChange::Pause)
        .await
        .map(Json)
}

/// Resumes a feed, or all feeds of an account
#[utoipa::path(post, path = "/v1/feeds/resume", tag = "feeds", request_body = Resume,
    responses((status = OK, description = "The number of changes", body = Changed)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Input(request): Input<Resume>,
) -> ApiResult<Changed> {
    let Resume {
        account,
        queue,
        company,
        accept,
    } = request;
    let selection = FeedSelection {
        account,
        queue,
        company,
    };
    set_paused(&app, selection, PauseChange::Resume { accept })
        .await
        .map(Json)
}

/// Pauses or resumes the feeds that `request` selects.
pub(super) async fn set_paused(
    app: &App,
    request: FeedSelection,
    change: PauseChange,
) -> Result<Changed, AdminError> {
    let (account, feed) = selected_feed(app, &request)?;
    let changed = app.store.set_paused(account, feed, change).await?;
    Ok(Changed { changed })
}

/// Returns the account that `request` selects, and its feed if it is one.
fn selected_feed(
    app: &App,
    request: &FeedSelection,
) -> Result<(Account, Option<Feed>), AdminError> {
    let account = known_account(app, &request.account)?;
    let company = request.company.as_deref().map(parse_company).transpose()?;
    let feed = match (request.queue, company) {
        (None, None) => None,
        (Some(Queue::Digitized), None) => Some(Feed::digitized(account.clone())),
        (None | Some(Queue::Exported), Some(_)) if app.config.api.has_one_exported_feed() => {
            return Err(AdminError::BadRequest(
                "`api.exported_path` names no company, so this account has one exported feed: omit `company`, and send \
                 `queue` = `exported`"
                    .to_owned(),
            ));
        }
        (None | Some(Queue::Exported), Some(company)) => {
            Some(Feed::exported(account.clone(), company))
        }
        (Some(Queue::Exported), None) if app.config.api.has_one_exported_feed() => {
            Some(Feed::exported(account.clone(), Company::mixed()))
        }
        (Some(Queue::Exported), None) => {
            return Err(AdminError::BadRequest(
                "the exported queue has a feed for each company: add `company`".to_owned(),
            ));
        }
        (Some(Queue::Digitized), Some(_)) => {
            return Err(AdminError::BadRequest(
                "the digitized queue mixes companies: omit `company`".to_owned(),
            ));
        }
    };
    Ok((account, feed))
}

/// Returns the one feed that a request names.
fn named_feed(app: &App, request: &FeedSelection) -> Result<Feed, AdminError> {
    let (_, feed) = selected_feed(app, request)?;
    feed.ok_or_else(|| {
        AdminError::BadRequest("name one feed: add `company`, or `queue` = `digitized`".to_owned())
    })
}

/// Removes a feed
///
/// It is not pulled any longer, and keeps its documents and its cursor. Messages for it are
/// accepted and counted (`pending_notifications`). Resuming it by name brings it back.
#[utoipa::path(post, path = "/v1/feeds/remove", tag = "feeds", request_body = FeedSelection,
    responses((status = OK, description = "The number of changes", body = Changed)))]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Input(request): Input<FeedSelection>,
) -> ApiResult<Changed> {
    let feed = named_feed(&app, &request)?;
    let removed = app.store.remove_feed(feed, app.clock.now()).await?;
    Ok(Json(Changed {
        changed: usize::from(removed),
    }))
}

/// Lets a feed continue at a cursor, where another program has stopped
///
/// What lies between the old and the new cursor is recorded as a gap, unless the new one is the earlier.
#[utoipa::path(post, path = "/v1/feeds/start-at", tag = "feeds", request_body = FeedStart,
    responses(
        (status = OK, description = "The feed and its old cursor", body = FeedStarted),
        (status = CONFLICT, description = "`conflict`: the company has no feed, or it is removed",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn start_at(
    State(app): State<Arc<App>>,
    Input(request): Input<FeedStart>,
) -> ApiResult<FeedStarted> {
    let FeedStart {
        account,
        queue,
        company,
        cursor,
        new,
    } = request;
    let selection = FeedSelection {
        account,
        queue,
        company,
    };
    let feed = named_feed(&app, &selection)?;
    let is_usable =
        (1..=MAX_CURSOR_BYTES).contains(&cursor.len()) && !cursor.contains(char::is_control);
    if !is_usable {
        return Err(AdminError::BadRequest(format!(
            "`cursor` must have 1 to {MAX_CURSOR_BYTES} bytes and no control characters"
        )));
    }
    if cursor == Cursor::BEGINNING {
        return Err(AdminError::BadRequest(
            "a new feed starts at the beginning by itself, and `ivesk-webhook pull --from beginning` reads a feed again \
             from there"
                .to_owned(),
        ));
    }
    let rows = app.store.feeds().await?;
    match rows.iter().find(|row| row.feed == feed) {
        Some(row) if !row.is_known() => return Err(is_removed(&feed)),
        None if !new
            && feed.queue == Queue::Exported
            && !configured_feeds(&app.config).contains(&feed) =>
        {
            let known: Vec<Company> = rows.iter().map(|row| row.feed.company.clone()).collect();
            return Err(has_no_feed(&feed.company, &known));
        }
        _ => {}
    }
    let (now, cursor) = (app.clock.now(), Cursor::new(cursor));
    let mut warnings = warnings(std::iter::once(&feed));
    warnings.extend(cursor.doubt(now));
    let FeedStartedAt { previous, gap } =
        app.store.start_feed_at(feed.clone(), cursor, now).await?;
    Ok(Json(FeedStarted {
        warnings,
        feed,
        previous,
        gap,
    }))
}

/// Parses the name of a configured account.
pub(super) fn known_account(app: &App, name: &str) -> Result<Account, AdminError> {
    let account =
        Account::parse(name).map_err(|error| AdminError::BadRequest(error.to_string()))?;
    if app.config.accounts.contains_key(&account) {
        Ok(account)
    } else {
        Err(AdminError::BadRequest(format!(
            "account `{account}` is not configured{}",
            did_you_mean(
                account.as_str(),
                app.config.accounts.keys().map(Account::as_str)
            )
        )))
    }
}

/// Parses a company's code.
pub(super) fn parse_company(code: &str) -> Result<Company, AdminError> {
    Company::parse(code).map_err(|error| AdminError::BadRequest(error.to_string()))
}
