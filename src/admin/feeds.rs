//! Feeds: how they stand, pulling them, stopping and freeing them.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::{AdminError, Input, Outcome};
use crate::domain::{Account, Company, Cursor, Feed, Queue};
use crate::service::App;
use crate::store::{Demand, FeedRow, PullKind};

pub(super) async fn list(State(app): State<Arc<App>>) -> Outcome<Vec<FeedRow>> {
    Ok(Json(app.store.feeds().await?))
}

/// Which feeds, as a request names them; what is absent means all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PullRequest {
    account: Option<String>,
    queue: Option<Queue>,
    company: Option<String>,
    from: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Demanded {
    feeds: Vec<Feed>,
}

/// Raises a pull of the named feeds; with `from` an overlap read that leaves the
/// feed's own cursor alone, one at a time for each feed.
pub(super) async fn pull(
    State(app): State<Arc<App>>,
    Input(request): Input<PullRequest>,
) -> Outcome<Demanded> {
    let feeds = chosen_feeds(&app, &request).await?;
    if request.from.is_some() {
        refuse_second_backfill(&app, &feeds).await?;
    }
    let now = app.clock.now();
    let from = request.from.map(Cursor::new);
    let kind = match from {
        Some(_) => PullKind::Backfill,
        None => PullKind::Hint,
    };
    let demands = feeds
        .iter()
        .map(|feed| Demand {
            feed: feed.clone(),
            kind,
            due_at: now,
            from: from.clone(),
        })
        .collect();
    app.store.demand(demands).await?;
    Ok(Json(Demanded { feeds }))
}

/// A feed has one position for reading an old stretch: a second wish would end the first.
async fn refuse_second_backfill(app: &App, chosen: &[Feed]) -> Result<(), AdminError> {
    let busy: Vec<String> = app
        .store
        .feeds()
        .await?
        .into_iter()
        .filter(|row| row.wanted.contains(&PullKind::Backfill) && chosen.contains(&row.feed))
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
             nothing was asked for. Wait until `wanted` of GET /v1/feeds holds no `backfill`, or name \
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
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParkRequest {
    account: String,
    queue: Option<Queue>,
    company: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Changed {
    changed: usize,
}

pub(super) async fn park(
    state: State<Arc<App>>,
    Input(request): Input<ParkRequest>,
) -> Outcome<Changed> {
    set_parked(state, request, true).await
}

pub(super) async fn resume(
    state: State<Arc<App>>,
    Input(request): Input<ParkRequest>,
) -> Outcome<Changed> {
    set_parked(state, request, false).await
}

async fn set_parked(
    State(app): State<Arc<App>>,
    request: ParkRequest,
    parked: bool,
) -> Outcome<Changed> {
    let account = known_account(&app, &request.account)?;
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
    let changed = app.store.set_parked(account, feed, parked).await?;
    Ok(Json(Changed { changed }))
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

fn parse_company(code: &str) -> Result<Company, AdminError> {
    Company::parse(code).map_err(|error| AdminError::BadRequest(error.to_string()))
}
