//! `feeds`

use anyhow::anyhow;
use clap::Subcommand;
use serde::Serialize;
use serde_json::{Value, json};

use super::account::chosen_account;
use super::as_sent::AsSent;
use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::Api;
use super::table::words;
use super::{feed_gaps, logging, question, style, table};
use crate::api::feeds::{
    FeedSelection, FeedStart, FeedStarted, FeedStatus, Resume as ResumeRequest,
};
use crate::api::status::Status;
use crate::api::{Changed, RunState};
use crate::config::Config;
use crate::domain::{Account, Clock, Company, Cursor, Feed, Queue, counted};
use crate::visible::{shell_word, visible};

/// Arguments of `feeds`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A feed is one list of documents at Įvesk.lt: the exported documents of one company, or all digitized \
documents of one account.")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the state of every feed, and when it was last up to date
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Stop pulling all feeds of an account, or one feed, until resumed
    Pause(Selection),
    /// Resume all feeds that are paused or waiting, or only those of an account, or one feed, also a removed one
    Resume(Resume),
    /// Stop pulling a feed that is not needed, such as one of a mistyped company. Its documents stay, and
    /// `feeds resume` brings it back
    Remove(Selection),
    /// Continue a feed at the cursor where another program has stopped
    StartAt {
        /// The other program's cursor: the last `next` of Įvesk.lt, or the time of the last document
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        cursor: String,
        #[command(flatten)]
        selection: Selection,
        /// Add the company's feed, which no notification or document has named yet
        #[arg(long, requires = "company")]
        new: bool,
        /// Move a feed that has a cursor, or to what is no moment, without asking
        #[arg(long)]
        yes: bool,
    },
    /// Show the stretches in which document versions may be missing, or dismiss one
    Gaps(feed_gaps::Args),
}

/// The feeds to resume.
#[derive(Debug, clap::Args)]
struct Resume {
    #[command(flatten)]
    selection: Selection,
    /// Accept the documents of the one feed that is named, or else of those that are paused as
    /// `company_filter_ignored`: they are the company's own
    #[arg(long)]
    accept: bool,
}

/// All feeds of an account, or one.
#[derive(Debug, clap::Args)]
struct Selection {
    /// Account of the feeds
    #[arg(long)]
    account: Option<String>,
    /// Queue of the feed; `exported` needs --company
    #[arg(long, value_enum)]
    queue: Option<Queue>,
    /// Company of the exported feed
    #[arg(long, value_name = "CODE")]
    company: Option<String>,
}

impl Selection {
    /// Returns the request for these feeds.
    fn request(&self, account: &Account) -> FeedSelection {
        FeedSelection {
            account: account.to_string(),
            queue: self.queue,
            company: self.company.clone(),
        }
    }

    /// Returns an error if queue and company name no feed.
    fn check(&self, config: &Config) -> Result<(), Failure> {
        match (self.queue, &self.company) {
            (Some(Queue::Exported), None) if !config.api.has_one_exported_feed() => {
                Err(Failure::usage(anyhow!(
                    "the exported queue has one feed for each company; add --company"
                )))
            }
            (Some(Queue::Digitized), Some(_)) => Err(Failure::usage(anyhow!(
                "the digitized queue has one feed for all companies; leave out --company"
            ))),
            _ => Ok(()),
        }
    }

    /// Returns an error if queue and company do not name one feed.
    fn check_one(&self, config: &Config) -> Result<(), Failure> {
        self.check(config)?;
        match (self.queue, &self.company) {
            (None, None) => Err(Failure::usage(anyhow!(
                "name the feed: add --company, or --queue digitized"
            ))),
            _ => Ok(()),
        }
    }
}

/// Prints what is probably wrong with a company's code that names no feed.
pub(super) fn print_doubt(company: Option<&str>) {
    let company = company.and_then(|code| Company::parse(code).ok());
    if let Some(doubt) = company.as_ref().and_then(Company::doubt) {
        note!("{doubt}");
    }
}

/// Prints what the server says is probably wrong.
pub(super) fn print_warnings(warnings: &[String]) {
    for warning in warnings {
        note!("warning: {}", visible(warning));
    }
}

/// Runs `feeds`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    match &args.action {
        Action::List { .. } | Action::Gaps(_) => {}
        Action::Pause(selection) | Action::Resume(Resume { selection, .. }) => {
            selection.check(&config)?;
        }
        Action::Remove(selection) | Action::StartAt { selection, .. } => {
            selection.check_one(&config)?;
        }
    }
    logging::start(&config.log)?;
    let api = match &args.action {
        Action::List { .. } => Api::open_for_reading(&config).await?,
        Action::Gaps(args) if args.only_reads() => Api::open_for_reading(&config).await?,
        // Before the first start of a service that takes over from another program.
        Action::StartAt { .. } => Api::open_or_create(&config).await?,
        Action::Pause(_) | Action::Resume(_) | Action::Remove(_) | Action::Gaps(_) => {
            Api::open(&config).await?
        }
    };
    let outcome = match args.action {
        Action::List { json } => list(&api, json).await,
        Action::Pause(selection) => pause(&api, &config, &selection).await,
        Action::Resume(args) => resume(&api, &config, &args).await,
        Action::Gaps(args) => feed_gaps::run(&api, args).await,
        Action::Remove(selection) => remove(&api, &config, &selection).await,
        Action::StartAt {
            cursor,
            selection,
            new,
            yes,
        } => {
            let account = chosen_account(selection.account.as_deref(), &config)?;
            let request = FeedStart {
                account: account.to_string(),
                queue: selection.queue,
                company: selection.company.clone(),
                cursor,
                new,
            };
            start_at(&api, &request, yes).await
        }
    };
    api.close().await?;
    outcome
}

async fn list(api: &Api, json: bool) -> Result<Exit, Failure> {
    if json {
        println!("{}", Value::Array(api.rows("/v1/feeds").await?));
        return Ok(Exit::Done);
    }
    let feeds: Vec<FeedStatus> = api.rows("/v1/feeds").await?;
    if feeds.is_empty() {
        println!("No feeds yet. `ivesk-webhook pull` pulls the feeds of the settings.");
        return Ok(Exit::Done);
    }
    let mut table = table::new([
        "feed",
        "state",
        "up to date",
        "documents",
        "missed notifications",
        "gaps",
        "incomplete",
        "triggers",
        "last error",
    ]);
    for feed in &feeds {
        let triggers = feed.triggers.iter().map(|kind| words(kind.as_str()));
        let triggers: Vec<String> = triggers.collect();
        table.add_row([
            feed.feed.to_string(),
            table::state(&feed.state),
            table::moment(feed.up_to_date_at),
            feed.documents.to_string(),
            feed.missed_notifications.to_string(),
            feed.gaps.to_string(),
            table::optional(feed.incomplete.map(|reason| reason.as_str())),
            match (&feed.state, feed.pending_notifications) {
                (RunState::Removed { .. }, count @ 1..) => counted(count, "notification"),
                _ => triggers.join(", "),
            },
            table::optional(feed.last_error.as_deref()),
        ]);
    }
    println!("{table}");
    let status: Status = api.get("/v1/status").await?;
    for account in status.accounts {
        if let Some(reason) = account.paused {
            let name = account.account;
            let error = account.last_error.as_deref();
            println!(
                "Account `{name}` is paused ({}): {}. Fix: {}.",
                words(reason.as_str()),
                visible(error.unwrap_or("no error was recorded")),
                reason.fix(&name, None)
            );
        }
    }
    Ok(Exit::Done)
}

async fn pause(api: &Api, config: &Config, selection: &Selection) -> Result<Exit, Failure> {
    let account = chosen_account(selection.account.as_deref(), config)?;
    let paused = change(api, "pause", &selection.request(&account)).await?;
    if paused == 0 {
        result!(
            json!({"changed": 0}),
            "Account `{account}` has no such feed."
        );
        print_doubt(selection.company.as_deref());
        return Ok(Exit::Failed);
    }
    result!(
        json!({"changed": paused}),
        "Paused {} of account `{account}`.",
        counted(paused, "feed")
    );
    Ok(Exit::Done)
}

async fn resume(api: &Api, config: &Config, args: &Resume) -> Result<Exit, Failure> {
    let Resume { selection, accept } = args;
    let accounts: Vec<Account> = match selection.account.as_deref() {
        Some(name) => vec![chosen_account(Some(name), config)?],
        None => config.accounts.keys().cloned().collect(),
    };
    let whole_account = selection.queue.is_none() && selection.company.is_none();
    let mut exit = Exit::Failed;
    let mut changed = 0;
    for account in accounts {
        let request = ResumeRequest {
            account: account.to_string(),
            queue: selection.queue,
            company: selection.company.clone(),
            accept: *accept,
        };
        let resumed = change(api, "resume", &request).await?;
        changed += resumed;
        if style::is_json() {
            // One object, at the end.
        } else if whole_account && resumed == 0 {
            println!("Resumed account `{account}`. None of its feeds was paused or waiting.");
        } else if resumed > 0 {
            println!(
                "Resumed {} of account `{account}`.",
                counted(resumed, "feed")
            );
        }
        if whole_account || resumed > 0 {
            exit = Exit::Done;
        }
    }
    if style::is_json() {
        println!("{}", json!({"changed": changed}));
    } else if exit == Exit::Failed {
        println!("No such feed was paused or waiting.");
        print_doubt(selection.company.as_deref());
    }
    Ok(exit)
}

async fn remove(api: &Api, config: &Config, selection: &Selection) -> Result<Exit, Failure> {
    let account = chosen_account(selection.account.as_deref(), config)?;
    if change(api, "remove", &selection.request(&account)).await? == 0 {
        result!(
            json!({"changed": 0}),
            "No such feed, or it is removed already; `feeds list` shows all."
        );
        return Ok(Exit::Failed);
    }
    result!(
        json!({"changed": 1}),
        "Removed the feed. Its documents stay; `feeds resume` with its name brings it back."
    );
    let is_configured = selection.company.as_ref().is_some_and(|code| {
        let companies = &config.accounts[&account].companies;
        companies
            .iter()
            .any(|company| company.as_str() == code.trim())
    });
    if is_configured {
        note!("It stays removed although `accounts.{account}.companies` names it.");
    }
    Ok(Exit::Done)
}

async fn start_at(api: &Api, request: &FeedStart, yes: bool) -> Result<Exit, Failure> {
    let cursor = request.cursor.as_str();
    if !yes && !may_start_at(api, request).await? {
        println!("Nothing was changed.");
        return Ok(Exit::Failed);
    }
    let started: AsSent<FeedStarted> = api.post("/v1/feeds/start-at", &request).await?;
    if yes {
        print_warnings(&started.warnings);
    }
    if style::is_json() {
        println!("{}", started.json);
        return Ok(Exit::Done);
    }
    let feed = started.feed.to_string();
    println!("{} continues at {}.", visible(&feed), visible(cursor));
    if started.gap {
        let from = started.previous.as_ref().map(Cursor::as_str);
        println!(
            "What lies before, from {} on, is recorded as a gap: the other program has it.",
            visible(from.unwrap_or("the beginning"))
        );
    }
    if let Some(previous) = &started.previous {
        let (previous, options) = (shell_word(previous.as_str()), started.feed.options());
        println!(
            "To go back: `ivesk-webhook feeds start-at {} {options}`.",
            visible(&previous)
        );
    }
    Ok(Exit::Done)
}

/// Asks whether a feed that has a cursor is to leave it, or to continue at what is no moment.
async fn may_start_at(api: &Api, request: &FeedStart) -> Result<bool, Failure> {
    let (company, cursor) = (request.company.as_deref(), &request.cursor);
    let queue = match company {
        Some(_) => Queue::Exported,
        None => request.queue.unwrap_or(Queue::Exported),
    };
    let feeds: Vec<FeedStatus> = api.rows("/v1/feeds").await?;
    let is_named = |feed: &Feed| {
        feed.account.as_str() == request.account
            && feed.queue == queue
            && feed.company.as_str() == company.unwrap_or_default().trim()
    };
    let row = feeds.iter().find(|row| is_named(&row.feed));
    let previous = row.and_then(|row| row.cursor.as_ref());
    let doubt = Cursor::new(cursor).doubt(Clock::system().now());
    if previous.is_none() && doubt.is_none() {
        return Ok(true);
    }
    if let Some(doubt) = doubt {
        eprintln!("warning: {}", visible(&doubt));
    }
    let from = previous.map_or("the beginning", Cursor::as_str);
    question::ask(&format!(
        "The feed is at {}. Let it continue at {}?",
        visible(from),
        visible(cursor)
    ))
}

/// Posts the change and returns how many feeds changed.
async fn change(api: &Api, action: &str, request: &impl Serialize) -> Result<u64, Failure> {
    let path = format!("/v1/feeds/{action}");
    let Changed { changed } = api.post(&path, request).await?;
    Ok(changed as u64)
}
