//! `pull`

use std::collections::{BTreeMap, HashSet};

use anyhow::anyhow;
use serde_json::json;

use super::server::Api;
use super::{Exit, Failure, Globals};
use crate::config::{Config, StoreUrl};
use crate::domain::{Account, Clock, Company, Cursor, Feed, Queue};
use crate::ivesk::{self, ApiError, Client};
use crate::pull::paging::next_step;
use crate::pull::{PullOutcome, Puller, blocked_queues, configured_feeds};
use crate::service::open_store_for_reading;
use crate::store::{PageEnd, Position, SharedStore, Store, StoreError};

/// Arguments of `pull`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Where the service runs, it is asked to pull, and its log tells what came. Otherwise everything that is
due is pulled here and now: what was asked for, and the hourly reconciliation. Exit codes: 0 all feeds are up to
date, 1 a feed was refused, 2 a setting is missing, 3 Įvesk.lt could not be reached.")]
pub struct Args {
    /// Only this account's feeds
    #[arg(long)]
    account: Option<String>,
    /// Only this queue
    #[arg(long, value_enum)]
    queue: Option<Queue>,
    /// Only this company, which becomes known if it was not
    #[arg(long, value_name = "CODE")]
    company: Option<String>,
    /// Read again from this cursor, an old `next` or document time; the live cursor stays.
    /// Refused while a chosen feed still reads an earlier stretch
    #[arg(long, value_name = "CURSOR", conflicts_with = "resume")]
    from: Option<String>,
    /// Store nothing; tell what would come
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
    /// Free paused feeds first
    #[arg(long)]
    resume: bool,
}

/// Runs `pull`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    super::start_logging(&config.log)?;
    if args.dry_run {
        return dry_run(&args, &config).await;
    }
    let api = Api::open(&config).await?;
    if args.resume {
        resume(&api, &args, &config).await?;
    }
    let request = json!({
        "account": args.account, "queue": args.queue, "company": args.company, "from": args.from,
    });
    let triggered = api.post("/v1/pull", &request).await?;
    let outcome = match api.own_store() {
        None => {
            let feeds = triggered["feeds"].as_array().map_or(0, Vec::len);
            println!(
                "The running server was asked to pull {feeds} feeds; its log tells what came."
            );
            Ok(Exit::Done)
        }
        Some(store) => pull_all(&config, store).await,
    };
    api.close().await?;
    outcome
}

async fn resume(api: &Api, args: &Args, config: &Config) -> Result<(), Failure> {
    let accounts: Vec<String> = match &args.account {
        Some(account) => vec![account.clone()],
        None => config.accounts.keys().map(ToString::to_string).collect(),
    };
    for account in accounts {
        let request = json!({ "account": account, "queue": args.queue, "company": args.company });
        let answer = api.post("/v1/feeds/resume", &request).await?;
        if let Some(changed) = answer["changed"].as_u64().filter(|changed| *changed > 0) {
            println!("{changed} feeds of account {account} were freed.");
        }
    }
    Ok(())
}

/// What a run did to one feed.
#[derive(Default)]
struct Tally {
    new: usize,
    known: usize,
    pages: usize,
    error: Option<String>,
}

/// Pulls everything that is due, then tells it as a table.
async fn pull_all(config: &Config, store: SharedStore) -> Result<Exit, Failure> {
    let clock = store.clock().unwrap_or_else(Clock::system);
    let puller = Puller::new(config, SharedStore::clone(&store), clock).map_err(Failure::usage)?;
    puller.register_feeds(configured_feeds(config)).await?;
    let mut tallies: BTreeMap<Feed, Tally> = BTreeMap::new();
    let mut exit = Exit::Done;
    loop {
        match puller.pull_page().await? {
            PullOutcome::Nothing => break,
            PullOutcome::Stale { .. } => {}
            PullOutcome::Page {
                feed, committed, ..
            } => {
                let tally = tallies.entry(feed).or_default();
                tally.new += committed.new;
                tally.known += committed.known;
                tally.pages += 1;
                tally.error = None;
            }
            PullOutcome::Failed {
                feed,
                error,
                unreachable,
            } => {
                tallies.entry(feed).or_default().error = Some(error);
                exit = if unreachable {
                    Exit::Unreachable
                } else if exit == Exit::Done {
                    Exit::No
                } else {
                    exit
                };
            }
        }
    }
    print_tallies(&tallies);
    for held_back in held_back(store.as_ref(), &tallies).await? {
        println!("{held_back}");
        if exit == Exit::Done {
            exit = Exit::No;
        }
    }
    for blocked in blocked_queues(config) {
        println!(
            "Not pulled: the {} queue of account {}, for want of {}.",
            blocked.queue,
            blocked.account,
            setting(blocked.missing)
        );
        if exit == Exit::Done {
            exit = Exit::Usage;
        }
    }
    Ok(exit)
}

/// What was not asked for because an earlier failure still holds it back, a line each.
async fn held_back(
    store: &dyn Store,
    asked: &BTreeMap<Feed, Tally>,
) -> Result<Vec<String>, Failure> {
    let now = Clock::system().now();
    let why = |error: Option<String>| error.unwrap_or_else(|| "no reason noted".to_owned());
    let mut lines = Vec::new();
    for row in store.accounts().await? {
        let asked = asked.keys().any(|feed| feed.account == row.account);
        match (row.paused, row.waits_until) {
            _ if asked => {}
            (Some(reason), _) => lines.push(format!(
                "Account {} is paused ({}): {}. `feeds resume` frees it.",
                row.account,
                reason.as_str(),
                why(row.last_error)
            )),
            (None, Some(until)) if until > now => lines.push(format!(
                "Account {} waits until {until}: {}.",
                row.account,
                why(row.last_error)
            )),
            _ => {}
        }
    }
    for row in store.feeds().await? {
        match (row.paused, row.waits_until) {
            _ if asked.contains_key(&row.feed) => {}
            (Some(reason), _) => lines.push(format!(
                "{} is paused ({}): {}. `feeds resume` frees it.",
                row.feed,
                reason.as_str(),
                why(row.last_error)
            )),
            (None, Some(until)) if until > now => lines.push(format!(
                "{} waits until {until}: {}.",
                row.feed,
                why(row.last_error)
            )),
            _ => {}
        }
    }
    Ok(lines)
}

fn setting(missing: &str) -> String {
    match missing {
        "api_key" => "its API key (set IVESK_WEBHOOK_API_KEY or `api_key_file`)".to_owned(),
        "exported_path" => {
            "`api.exported_path` (`ivesk-webhook doctor --company CODE` finds it)".to_owned()
        }
        setting => format!("`api.{setting}`"),
    }
}

fn print_tallies(tallies: &BTreeMap<Feed, Tally>) {
    if tallies.is_empty() {
        println!("Nothing was due.");
        return;
    }
    let mut table = super::table(["feed", "pages", "new", "known", "outcome"]);
    for (feed, tally) in tallies {
        table.add_row([
            feed.to_string(),
            tally.pages.to_string(),
            tally.new.to_string(),
            tally.known.to_string(),
            tally
                .error
                .clone()
                .unwrap_or_else(|| "up to date".to_owned()),
        ]);
    }
    println!("{table}");
}

/// Reads the queues without storing anything, and counts what the store does not have.
async fn dry_run(args: &Args, config: &Config) -> Result<Exit, Failure> {
    let store = match &config.store.url {
        // Nothing was pulled yet.
        StoreUrl::Sqlite(path) if !path.exists() => None,
        _ => match open_store_for_reading(config).await {
            Err(StoreError::NotPrepared) => None,
            opened => Some(opened?),
        },
    };
    let feeds = chosen(args, config, store.as_deref()).await?;
    let mut tallies = BTreeMap::new();
    let mut exit = Exit::Done;
    for (feed, cursor) in feeds {
        let Some(key) = config
            .accounts
            .get(&feed.account)
            .and_then(|account| account.api_key.clone())
        else {
            return Err(Failure::usage(anyhow!(
                "account {} has no API key",
                feed.account
            )));
        };
        let client = Client::new(&config.api, key).map_err(Failure::usage)?;
        let mut tally = Tally::default();
        if let Err(error) = count(&client, &feed, cursor, store.as_deref(), &mut tally).await? {
            exit = match error {
                ApiError::Unreachable(_) => Exit::Unreachable,
                ApiError::NotConfigured { .. } => Exit::Usage,
                _ => Exit::No,
            };
            tally.error = Some(error.to_string());
        }
        tallies.insert(feed, tally);
    }
    print_tallies(&tallies);
    println!("Nothing was stored.");
    Ok(exit)
}

/// The feeds that the arguments choose, each with where its reading starts.
async fn chosen(
    args: &Args,
    config: &Config,
    store: Option<&dyn Store>,
) -> Result<Vec<(Feed, Option<Cursor>)>, Failure> {
    let account = args
        .account
        .as_deref()
        .map(Account::parse)
        .transpose()
        .map_err(Failure::usage)?;
    let company = args
        .company
        .as_deref()
        .map(Company::parse)
        .transpose()
        .map_err(Failure::usage)?;
    let mut feeds: BTreeMap<Feed, Option<Cursor>> = configured_feeds(config)
        .into_iter()
        .map(|feed| (feed, None))
        .collect();
    if let Some(company) = &company {
        let accounts = config.accounts.keys();
        feeds.extend(
            accounts.map(|account| (Feed::exported(account.clone(), company.clone()), None)),
        );
    }
    if let Some(store) = store {
        feeds.extend(
            store
                .feeds()
                .await?
                .into_iter()
                .map(|row| (row.feed, row.cursor)),
        );
    }
    feeds.retain(|feed, _| {
        config.accounts.contains_key(&feed.account)
            && account
                .as_ref()
                .is_none_or(|account| feed.account == *account)
            && args.queue.is_none_or(|queue| feed.queue == queue)
            && company
                .as_ref()
                .is_none_or(|company| feed.company == *company)
    });
    let from = args.from.as_deref().map(Cursor::new);
    Ok(feeds
        .into_iter()
        .map(|(feed, cursor)| (feed, from.clone().or(cursor)))
        .collect())
}

/// Reads one feed to its end.
async fn count(
    client: &Client,
    feed: &Feed,
    from: Option<Cursor>,
    store: Option<&dyn Store>,
    tally: &mut Tally,
) -> Result<Result<(), ApiError>, Failure> {
    let mut position = Position {
        from,
        ..Position::default()
    };
    let mut last_page: HashSet<(String, String)> = HashSet::new();
    loop {
        let page = match client
            .page(feed.queue, &feed.company, position.from.as_ref())
            .await
        {
            Ok(page) => page,
            Err(error) => return Ok(Err(error)),
        };
        let entries = page.documents.len();
        let documents: Vec<_> = page
            .documents
            .iter()
            .filter_map(|body| ivesk::document::read(feed.queue, body).ok())
            .collect();
        let versions: Vec<_> = documents
            .iter()
            .map(|document| (document.id.clone(), document.version.clone()))
            .collect();
        let known = match store {
            Some(store) => store.known_versions(feed.clone(), versions.clone()).await?,
            None => vec![false; versions.len()],
        };
        tally.pages += 1;
        for (version, known) in versions.iter().zip(known) {
            // Pages overlap, so that nothing is missed between them.
            if last_page.contains(version) {
                continue;
            }
            tally.known += usize::from(known);
            tally.new += usize::from(!known);
        }
        last_page = versions.into_iter().collect();
        let step = next_step(&position, entries, &documents, page.next);
        if step.end != PageEnd::More {
            return Ok(Ok(()));
        }
        position = Position {
            from: step.next_from,
            previous_next: step.cursor,
            previous_entries: entries,
        };
    }
}
