//! `destinations`

use anyhow::anyhow;
use clap::Subcommand;
use serde::Serialize;
use serde_json::{Value, json};

use super::feeds::print_doubt;
use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::{Api, with_query};
use super::{logging, question, style, table};
use crate::api::destinations::{Destination, Lane, Start, StartPlan, Stop};
use crate::api::{Changed, NoFields};
use crate::config::Config;
use crate::delivery::worker::configured_destinations;
use crate::domain::{Clock, counted};

/// Arguments of `destinations`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A destination is a place where documents are delivered: [destinations.NAME] in the settings file \
(docs/destinations.md). Documents from before it was known are history, and are held until `destinations start`.")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the state of every destination, and what it holds
    List {
        /// Show each feed at this destination: from when on it is delivered, and what fails
        destination: Option<String>,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Deliver history: says first how many documents of which companies that are
    Start {
        /// Name of the destination; optional if there is only one
        destination: Option<String>,
        #[command(flatten)]
        from: From,
        #[command(flatten)]
        feeds: Feeds,
        /// Start without asking
        #[arg(long)]
        yes: bool,
    },
    /// Stop a start: hold what is not delivered yet of the history
    Stop {
        /// Name of the destination; optional if there is only one
        destination: Option<String>,
        #[command(flatten)]
        feeds: Feeds,
    },
    /// Stop delivering to a destination until it is resumed
    Pause {
        /// Name of the destination
        destination: String,
    },
    /// Resume a paused destination and its paused feeds, or retry failing ones now
    Resume {
        /// Name of the destination
        destination: String,
    },
}

/// The first version to deliver.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct From {
    /// Deliver everything that is stored
    #[arg(long)]
    all: bool,
    /// Deliver versions from this moment on: a date (from midnight, UTC) or a date and time; a later moment
    /// than the present beginning holds the versions between
    #[arg(long, value_name = "MOMENT")]
    from: Option<String>,
}

/// The feeds that are started or stopped.
#[derive(Debug, clap::Args)]
struct Feeds {
    /// Only feeds of this account
    #[arg(long)]
    account: Option<String>,
    /// Only the feed of this company
    #[arg(long, value_name = "CODE")]
    company: Option<String>,
}

/// Runs `destinations`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let api = open(&config).await?;
    let outcome = act(&api, &config, args.action).await;
    api.close().await?;
    outcome
}

/// Opens the API, with every configured destination in the store.
pub(super) async fn open(config: &Config) -> Result<Api, Failure> {
    let api = Api::open(config).await?;
    // A running server has registered them at its start.
    if let Some(store) = api.own_store() {
        store
            .register_destinations(configured_destinations(config), Clock::system().now())
            .await?;
    }
    Ok(api)
}

async fn act(api: &Api, config: &Config, action: Action) -> Result<Exit, Failure> {
    match action {
        Action::List { destination, json } => match destination {
            Some(destination) => list_lanes(api, &destination, json).await,
            None => list(api, json).await,
        },
        Action::Start {
            destination,
            from,
            feeds,
            yes,
        } => {
            let destination = named_or_only(destination, config)?;
            let from = from.from.unwrap_or_else(|| "all".to_owned());
            let Feeds { account, company } = feeds;
            let request = Start {
                from,
                account,
                company,
            };
            let of = config
                .destinations
                .iter()
                .find(|(name, _)| name.as_str() == destination);
            let excludes = of.is_some_and(|(_, settings)| settings.excludes_documents(&config.api));
            start(api, &destination, &request, excludes, yes).await
        }
        Action::Stop { destination, feeds } => {
            let destination = named_or_only(destination, config)?;
            let Feeds { account, company } = feeds;
            let stopped = change(api, &destination, "stop", &Stop { account, company }).await?;
            print_change(
                stopped,
                &format!(
                    "Stopped the history of {} at `{destination}`. What was delivered stays delivered.",
                    counted(stopped, "feed")
                ),
                &format!("`{destination}` delivers no history."),
            )
        }
        Action::Pause { destination } => {
            let changed = change(api, &destination, "pause", &NoFields {}).await?;
            print_change(
                changed,
                &format!(
                    "Paused `{destination}`. `ivesk-webhook destinations resume {destination}` resumes it."
                ),
                &format!("`{destination}` was paused already."),
            )
        }
        Action::Resume { destination } => {
            let changed = change(api, &destination, "resume", &NoFields {}).await?;
            print_change(
                changed,
                &format!("Resumed `{destination}`."),
                &format!("`{destination}` was neither paused nor waiting."),
            )
        }
    }
}

fn named_or_only(destination: Option<String>, config: &Config) -> Result<String, Failure> {
    match destination {
        Some(destination) => Ok(destination),
        None => only_destination(config),
    }
}

/// Says what a start would deliver, asks, and starts.
async fn start(
    api: &Api,
    destination: &str,
    request: &Start,
    excludes_documents: bool,
    yes: bool,
) -> Result<Exit, Failure> {
    if style::is_json() {
        // Nothing is asked where a program reads the answer.
        if !yes {
            return Err(Failure::usage(anyhow!("`--json` asks nothing; add --yes")));
        }
    } else {
        let documents = show_start(api, destination, request, excludes_documents).await?;
        if documents > 0 && !yes && !question::ask("Deliver them?")? {
            println!("Nothing was started.");
            return Ok(Exit::Failed);
        }
    }
    let lanes = change(api, destination, "start", request).await?;
    if lanes == 0 {
        print_doubt(request.company.as_deref());
    }
    print_change(
        lanes,
        &format!(
            "Started {} at `{destination}`. `ivesk-webhook destinations stop {destination}` stops what is not delivered yet.",
            counted(lanes, "feed")
        ),
        "No such feed is known yet. `ivesk-webhook pull` pulls the feeds of the settings.",
    )
}

/// Says what a start would deliver; returns the number of documents.
async fn show_start(
    api: &Api,
    destination: &str,
    request: &Start,
    excludes_documents: bool,
) -> Result<u64, Failure> {
    let path = format!("/v1/destinations/{destination}/start");
    let path = with_query(&path, request)?;
    let StartPlan { documents, feeds } = api.get(&path).await?;
    let mut table = table::new(["feed", "documents", "oldest", "newest"]);
    for feed in feeds {
        table.add_row([
            feed.feed.to_string(),
            feed.documents.to_string(),
            table::of_version(feed.oldest.as_deref()),
            table::of_version(feed.newest.as_deref()),
        ]);
    }
    if documents > 0 {
        println!("{table}");
    }
    let sentence = format!(
        "{} of history would be delivered to `{destination}`",
        counted(documents, "document")
    );
    println!("{sentence}.");
    if excludes_documents {
        println!("Those that its `companies` or `document_types` exclude are skipped.");
    }
    Ok(documents)
}

/// Returns the only destination of the settings.
fn only_destination(config: &Config) -> Result<String, Failure> {
    let mut names = config.destinations.keys();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name.to_string()),
        (None, _) => Err(Failure::usage(anyhow!(
            "no destination is configured; add [destinations.NAME] to the settings (docs/destinations.md)"
        ))),
        (Some(_), Some(_)) => Err(Failure::usage(anyhow!(
            "several destinations are configured; name one"
        ))),
    }
}

/// Posts a change of a destination and returns how many feeds or versions changed.
pub(super) async fn change(
    api: &Api,
    destination: &str,
    action: &str,
    request: &impl Serialize,
) -> Result<u64, Failure> {
    let path = format!("/v1/destinations/{destination}/{action}");
    let Changed { changed } = api.post(&path, request).await?;
    Ok(changed as u64)
}

/// Prints `done` if something changed, else `unchanged`.
pub(super) fn print_change(changed: u64, done: &str, unchanged: &str) -> Result<Exit, Failure> {
    let (sentence, exit) = match changed {
        0 => (unchanged, Exit::Failed),
        _ => (done, Exit::Done),
    };
    result!(json!({ "changed": changed }), "{sentence}");
    Ok(exit)
}

async fn list(api: &Api, json: bool) -> Result<Exit, Failure> {
    if json {
        println!("{}", Value::Array(api.rows("/v1/destinations").await?));
        return Ok(Exit::Done);
    }
    let destinations: Vec<Destination> = api.rows("/v1/destinations").await?;
    if destinations.is_empty() {
        println!(
            "No destination yet. Add [destinations.NAME] to the settings (docs/destinations.md)."
        );
        return Ok(Exit::Done);
    }
    let mut table = table::new([
        "destination",
        "kind",
        "state",
        "delivered",
        "waiting",
        "rejected",
        "deferred",
        "held",
        "next attempt",
        "last error",
    ]);
    for destination in &destinations {
        table.add_row([
            destination.name.to_string(),
            destination
                .kind
                .as_deref()
                .unwrap_or("(not in the settings)")
                .to_owned(),
            match destination.kind {
                Some(_) => table::state(&destination.state),
                None => "removed".to_owned(),
            },
            destination.delivered.to_string(),
            destination.waiting.to_string(),
            destination.rejected_now.to_string(),
            destination.deferred.to_string(),
            destination.held.to_string(),
            table::moment(destination.waits_until),
            table::optional(destination.last_error.as_deref()),
        ]);
    }
    println!("{table}");
    for destination in &destinations {
        print_next_steps(destination);
    }
    Ok(Exit::Done)
}

async fn list_lanes(api: &Api, destination: &str, json: bool) -> Result<Exit, Failure> {
    let path = format!("/v1/destinations/{destination}/lanes");
    if json {
        println!("{}", Value::Array(api.rows(&path).await?));
        return Ok(Exit::Done);
    }
    let lanes: Vec<Lane> = api.rows(&path).await?;
    if lanes.is_empty() {
        println!("`{destination}` takes no feed yet.");
        return Ok(Exit::Done);
    }
    let mut table = table::new([
        "feed",
        "begins at",
        "history",
        "held",
        "failures",
        "paused",
        "last error",
    ]);
    for lane in lanes {
        let history = match lane.history_from.as_deref() {
            None => "held".to_owned(),
            Some("") => "all".to_owned(),
            Some(moment) => format!("from {}", table::of_version(Some(moment))),
        };
        table.add_row([
            lane.feed.to_string(),
            table::of_version(lane.begins_at.as_deref()),
            history,
            lane.held.to_string(),
            lane.failures.to_string(),
            table::optional(lane.paused.map(|reason| table::words(reason.as_str()))),
            table::optional(lane.last_error),
        ]);
    }
    println!("{table}");
    Ok(Exit::Done)
}

/// Returns a number of feeds with the verb that fits it, such as `1 feed is`.
fn number_that(feeds: u64, one: &str, several: &str) -> String {
    let verb = if feeds == 1 { one } else { several };
    format!("{} {verb}", counted(feeds, "feed"))
}

fn print_next_steps(destination: &Destination) {
    let name = &destination.name;
    if destination.held > 0 {
        println!(
            "`{name}` holds {} from before it was known. `ivesk-webhook destinations start {name}` with --all or \
             --from MOMENT delivers them, if they are not booked yet.",
            counted(destination.held, "document"),
        );
    }
    if destination.unknown_lanes > 0 {
        println!(
            "{} until an answer of Įvesk.lt shows its clock: `ivesk-webhook pull`.",
            number_that(destination.unknown_lanes, "waits", "wait")
        );
    }
    if destination.paused_lanes > 0 {
        println!(
            "{} paused at `{name}`, since it gives the same rejection again and again. Correct the cause, then run \
             `ivesk-webhook destinations resume {name}`.",
            number_that(destination.paused_lanes, "is", "are")
        );
    }
    if destination.kind.is_none() {
        return println!(
            "`{name}` is not in the settings, so nothing is delivered to it. What it has accepted stays known, in case it \
             comes back."
        );
    }
    if let Some(sequence) = destination.stuck_at {
        let is_retried = match destination.paused {
            None => "; it is retried",
            Some(_) => "",
        };
        println!(
            "`{name}` did not accept the version with sequence {sequence}{is_retried}. Fix the last error, then run \
             `ivesk-webhook destinations resume {name}`, or leave the version out with \
             `ivesk-webhook deliveries skip {name} {sequence}`."
        );
    }
    if destination.rejected_now > 0 {
        println!(
            "`ivesk-webhook deliveries list --destination {name} --state rejected` shows what `{name}` rejected, \
             `ivesk-webhook import-errors list` what is reported to the accountant."
        );
    }
}
