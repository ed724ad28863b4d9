//! `pull`

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::json;

use super::account::{chosen_account, no_api_key};
use super::as_sent::AsSent;
use super::feeds::print_warnings;
use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::Api;
use super::table::words;
use super::{logging, style, table};
use crate::api::feeds::{PullRequest, Triggered};
use crate::config::{Config, StoreUrl};
use crate::domain::{Clock, Company, Cursor, Feed, Queue, Timestamp, counted};
use crate::ivesk::{self, ApiError, Client};
use crate::pull::paging::next_step;
use crate::pull::{PullOutcome, Puller, blocked_queues, configured_feeds};
use crate::service::open_store_for_reading;
use crate::store::{
    FeedPauseReason, FeedRow, IncompleteReason, PageEnd, Position, SharedStore, Store, StoreError,
};
use crate::visible::visible;

/// Arguments of `pull`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
If the service runs, it pulls; `ivesk-webhook feeds list` shows when each feed was last up to date. Otherwise this command pulls what is due: what \
you request here, waiting triggers, and the hourly reconciliation.

Exit codes: 0 done, 1 a feed failed, is paused or is incomplete (an unknown page size alone is no failure), 2 a setting is missing, 3 Įvesk.lt could not be reached")]
pub struct Args {
    /// Only feeds of this account
    #[arg(long)]
    account: Option<String>,
    /// Only feeds of this queue
    #[arg(long, value_enum)]
    queue: Option<Queue>,
    /// Only the feed of this company
    #[arg(long, value_name = "CODE")]
    company: Option<String>,
    /// Add the company's feed, which no notification or document has named yet
    #[arg(long, requires = "company")]
    new: bool,
    /// Read again from this cursor: an earlier `next`, the time of a document, or `beginning`. The feed's
    /// own cursor does not change. Refused while one of the feeds still reads an earlier stretch
    #[arg(long, value_name = "CURSOR")]
    from: Option<String>,
    /// Store nothing; only count the documents
    #[arg(long)]
    dry_run: bool,
}

/// Runs `pull`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    if args.dry_run {
        return dry_run(&args, &config).await;
    }
    let api = Api::open_or_create(&config).await?;
    let request = PullRequest {
        account: args.account,
        queue: args.queue,
        company: args.company,
        new: args.new,
        from: args.from,
    };
    let triggered: AsSent<Triggered> = api.post("/v1/pull", &request).await?;
    print_warnings(&triggered.warnings);
    let outcome = match api.own_store() {
        None => Ok(print_requested(&triggered)),
        Some(store) => pull_all(&config, store, &triggered.feeds).await,
    };
    api.close().await?;
    outcome
}

/// Prints what the running server was asked for, and which feeds it does not pull.
fn print_requested(triggered: &AsSent<Triggered>) -> Exit {
    let not_pulled = &triggered.not_pulled;
    let pulled = triggered.feeds.len().saturating_sub(not_pulled.len());
    if style::is_json() {
        println!("{}", triggered.json);
    } else if pulled > 0 || not_pulled.is_empty() {
        println!(
            "Requested a pull of {} from the running server; `ivesk-webhook feeds list` shows when each was last up to date.",
            counted(pulled as u64, "feed")
        );
    }
    if not_pulled.is_empty() {
        return Exit::Done;
    }
    remark(&format!(
        "{} not pulled:",
        match not_pulled.len() {
            1 => "1 feed is".to_owned(),
            count => format!("{count} feeds are"),
        }
    ));
    let reasons: BTreeSet<&str> = not_pulled.iter().map(|row| row.reason.as_str()).collect();
    for reason in reasons {
        remark(&format!("  {}", visible(reason)));
    }
    Exit::Failed
}

/// The result of pulling one feed.
#[derive(Default)]
struct FeedResult {
    new: usize,
    known: usize,
    pages: usize,
    error: Option<String>,
    incomplete: Option<IncompleteReason>,
}

/// Pulls everything that is due, and prints the results as a table.
async fn pull_all(
    config: &Config,
    store: SharedStore,
    requested: &[Feed],
) -> Result<Exit, Failure> {
    let clock = store.clock().unwrap_or_else(Clock::system);
    let puller = Puller::new(config, SharedStore::clone(&store), clock).map_err(Failure::usage)?;
    let puller = puller.without_interval();
    puller.register_feeds(configured_feeds(config)).await?;
    let mut results: BTreeMap<Feed, FeedResult> = BTreeMap::new();
    let mut exit = Exit::Done;
    loop {
        match puller.pull_page().await? {
            PullOutcome::Nothing => break,
            PullOutcome::Stale { .. } => {}
            PullOutcome::Page {
                feed, committed, ..
            } => {
                let result = results.entry(feed).or_default();
                result.new += committed.new;
                result.known += committed.known;
                result.pages += 1;
                result.error = None;
            }
            PullOutcome::Failed {
                feed,
                error,
                unreachable,
            } => {
                results.entry(feed).or_default().error = Some(error);
                exit = if unreachable {
                    Exit::Unreachable
                } else if exit == Exit::Done {
                    Exit::Failed
                } else {
                    exit
                };
            }
        }
    }
    let mut feeds = store.feeds().await?;
    feeds.retain(FeedRow::is_known);
    for row in &feeds {
        if let Some(result) = results.get_mut(&row.feed) {
            result.incomplete = row.incomplete;
        }
    }
    let skipped = skipped(store.as_ref(), &results).await?;
    for feed in requested {
        results.entry(feed.clone()).or_insert_with(|| FeedResult {
            error: Some("not pulled".to_owned()),
            ..FeedResult::default()
        });
    }
    print_results(&results);
    for line in skipped {
        remark(&line);
        if exit == Exit::Done {
            exit = Exit::Failed;
        }
    }
    for row in feeds {
        let Some(reason) = row.incomplete else {
            continue;
        };
        let (cause, fix) = reason.cause_and_fix();
        remark(&format!(
            "Documents of {} may be missing: {cause}. List the gaps with `ivesk-webhook feeds gaps`; {fix}.",
            row.feed
        ));
        if exit == Exit::Done && reason != IncompleteReason::PageSizeUnknown {
            exit = Exit::Failed;
        }
    }
    for blocked in blocked_queues(config) {
        remark(&blocked.cause_and_fix());
        if exit == Exit::Done {
            exit = Exit::Usage;
        }
    }
    Ok(exit)
}

/// Returns a line for each account and feed that was not pulled because it is paused or waits.
async fn skipped(
    store: &Store,
    pulled: &BTreeMap<Feed, FeedResult>,
) -> Result<Vec<String>, Failure> {
    let now = Clock::system().now();
    let mut feeds = store.feeds().await?;
    feeds.retain(|row| row.is_known() && !pulled.contains_key(&row.feed));
    let mut lines = Vec::new();
    for row in store.accounts().await? {
        let account = &row.account;
        if feeds.iter().any(|feed| feed.feed.account == *account) {
            let name = format!("Account {account}");
            let paused = row.paused.map(|reason| (reason, reason.fix(account, None)));
            lines.extend(skip_reason(&name, paused, row.rest(now), row.last_error));
        }
    }
    for row in feeds {
        let (name, feed) = (format!("Feed {}", row.feed), &row.feed);
        let paused = row
            .paused
            .map(|reason| (reason, reason.fix(&feed.account, Some(feed))));
        lines.extend(skip_reason(&name, paused, row.rest(now), row.last_error));
    }
    Ok(lines)
}

fn skip_reason(
    name: &str,
    paused: Option<(FeedPauseReason, String)>,
    rest: Option<Timestamp>,
    last_error: Option<String>,
) -> Option<String> {
    match (paused, rest) {
        (Some((reason, fix)), _) => {
            let cause = reason.cause().unwrap_or("a person paused it");
            Some(format!("{name} is paused: {cause}. Fix: {fix}"))
        }
        (None, Some(until)) => Some(format!(
            "{name} waits until {}: {}",
            table::moment(until),
            last_error.as_deref().unwrap_or("no error was recorded")
        )),
        (None, None) => None,
    }
}

/// Prints a line beside the result: on standard error where that is JSON.
fn remark(line: &str) {
    if style::is_json() {
        note!("{line}");
    } else {
        println!("{line}");
    }
}

fn print_results(results: &BTreeMap<Feed, FeedResult>) {
    if style::is_json() {
        let feeds = results.iter().map(|(feed, result)| {
            json!({
                "feed": feed, "pages": result.pages, "new": result.new, "known": result.known,
                "error": result.error, "incomplete": result.incomplete,
            })
        });
        println!("{}", json!({ "feeds": feeds.collect::<Vec<_>>() }));
        return;
    }
    if results.is_empty() {
        println!("Nothing was due.");
        return;
    }
    let mut table = table::new(["feed", "pages", "new", "known", "result"]);
    for (feed, result) in results {
        table.add_row([
            feed.to_string(),
            result.pages.to_string(),
            result.new.to_string(),
            result.known.to_string(),
            match (&result.error, result.incomplete) {
                (Some(error), _) => error.clone(),
                (None, Some(reason)) => format!("incomplete ({})", words(reason.as_str())),
                (None, None) => "up to date".to_owned(),
            },
        ]);
    }
    println!("{table}");
}

/// Reads the feeds without storing anything, and counts the versions that the store lacks.
async fn dry_run(args: &Args, config: &Config) -> Result<Exit, Failure> {
    let store = match &config.store.url {
        // Nothing was pulled yet, and a dry run creates no file.
        StoreUrl::Sqlite(path) if !path.exists() => None,
        _ => match open_store_for_reading(config).await {
            Err(StoreError::NotPrepared) => None,
            opened => Some(opened?),
        },
    };
    let feeds = chosen_feeds(args, config, store.as_deref()).await?;
    let mut results = BTreeMap::new();
    let mut exit = Exit::Done;
    for (feed, cursor) in feeds {
        let Some(key) = config
            .accounts
            .get(&feed.account)
            .and_then(|account| account.api_key.clone())
        else {
            return Err(no_api_key(&feed.account));
        };
        let client = Client::new(&config.api, key).map_err(Failure::usage)?;
        let mut result = FeedResult::default();
        if let Err(error) = count(&client, &feed, cursor, store.as_deref(), &mut result).await? {
            exit = match error {
                ApiError::Unreachable(_) => Exit::Unreachable,
                ApiError::NotConfigured { .. } => Exit::Usage,
                _ => Exit::Failed,
            };
            result.error = Some(error.to_string());
        }
        results.insert(feed, result);
    }
    print_results(&results);
    remark("Nothing was stored.");
    Ok(exit)
}

/// Returns the feeds that the arguments choose, each with the cursor to start from.
async fn chosen_feeds(
    args: &Args,
    config: &Config,
    store: Option<&Store>,
) -> Result<Vec<(Feed, Option<Cursor>)>, Failure> {
    let account = args
        .account
        .as_deref()
        .map(|name| chosen_account(Some(name), config))
        .transpose()?;
    let company = args
        .company
        .as_deref()
        .map(Company::parse)
        .transpose()
        .map_err(Failure::usage)?;
    if let Some(doubt) = company.as_ref().and_then(Company::doubt) {
        note!("warning: {doubt}");
    }
    let mut feeds: BTreeMap<Feed, Option<Cursor>> = configured_feeds(config)
        .into_iter()
        .map(|feed| (feed, None))
        .collect();
    if let Some(company) = &company {
        let accounts = config.accounts.keys();
        feeds.extend(accounts.map(|account| {
            (
                config.api.exported_feed(account.clone(), company.clone()),
                None,
            )
        }));
    }
    if let Some(store) = store {
        feeds.extend(
            store
                .feeds()
                .await?
                .into_iter()
                .filter(FeedRow::is_known)
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
                .is_none_or(|company| feed.company == *company || feed.company == Company::mixed())
    });
    let from = args.from.clone().map(Cursor::named);
    Ok(feeds
        .into_iter()
        .map(|(feed, cursor)| (feed, from.clone().unwrap_or(cursor)))
        .collect())
}

/// Reads one feed to its end, and counts its versions.
async fn count(
    client: &Client,
    feed: &Feed,
    from: Option<Cursor>,
    store: Option<&Store>,
    result: &mut FeedResult,
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
            .map(|document| (document.id.clone(), document.version_key()))
            .collect();
        let known = match store {
            Some(store) => store.known_versions(feed.clone(), versions.clone()).await?,
            None => vec![false; versions.len()],
        };
        result.pages += 1;
        for (version, known) in versions.iter().zip(known) {
            // Pages overlap, so that no version is missed between them.
            if last_page.contains(version) {
                continue;
            }
            result.known += usize::from(known);
            result.new += usize::from(!known);
        }
        last_page = versions.into_iter().collect();
        let step = next_step(&position, 0, entries, &documents, page.next);
        if step.end != PageEnd::More {
            return Ok(Ok(()));
        }
        position = Position {
            from: step.next_from,
            previous_next: step.cursor.or(position.previous_next),
            progress: step.progress,
        };
    }
}
