//! `destinations`

use anyhow::anyhow;
use clap::Subcommand;
use serde_json::{Value, json};

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::Api;
use super::{logging, table};
use crate::config::Config;
use crate::delivery::worker::configured_destinations;
use crate::domain::{Clock, counted};

/// Arguments of `destinations`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A destination is a place where documents are delivered: [destinations.NAME] in the settings file \
(docs/destinations.md). Documents of a company's first pull are held until `destinations start`.")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the state of every destination, and its held documents
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Start delivering held documents
    Start {
        /// Name of the destination; optional if there is only one
        destination: Option<String>,
        #[command(flatten)]
        from: From,
        /// Only feeds of this account
        #[arg(long)]
        account: Option<String>,
        /// Only the feed of this company
        #[arg(long, value_name = "CODE")]
        company: Option<String>,
    },
    /// Stop delivering to a destination until it is resumed
    Pause {
        /// Name of the destination
        destination: String,
    },
    /// Resume a paused destination, or retry a failing one now
    Resume {
        /// Name of the destination
        destination: String,
    },
}

/// The first version to deliver.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct From {
    /// Deliver everything that is stored, and new documents
    #[arg(long)]
    all: bool,
    /// Deliver new documents only; the stored ones are booked already
    #[arg(long)]
    from_now: bool,
    /// Deliver versions since this moment, such as 2026-01-31T00:00:00Z, and new documents
    #[arg(long, value_name = "MOMENT")]
    since: Option<String>,
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
        Action::List { json } => list(api, json).await,
        Action::Start {
            destination,
            from,
            account,
            company,
        } => {
            let destination = match destination {
                Some(destination) => destination,
                None => only_destination(config)?,
            };
            let from = match from.since {
                Some(moment) => moment,
                None if from.all => "all".to_owned(),
                None => "now".to_owned(),
            };
            let body = json!({ "from": from, "account": account, "company": company });
            let feeds = change(api, &destination, "start", &body).await?;
            print_change(
                feeds,
                &format!("Started {} at `{destination}`.", counted(feeds, "feed")),
                "No such feed is known yet. `ivesk-webhook pull` pulls the feeds of the settings.",
            )
        }
        Action::Pause { destination } => {
            let changed = change(api, &destination, "pause", &json!({})).await?;
            print_change(
                changed,
                &format!(
                    "Paused `{destination}`. `ivesk-webhook destinations resume {destination}` resumes it."
                ),
                &format!("`{destination}` was paused already."),
            )
        }
        Action::Resume { destination } => {
            let changed = change(api, &destination, "resume", &json!({})).await?;
            print_change(
                changed,
                &format!("Resumed `{destination}`."),
                &format!("`{destination}` was neither paused nor waiting."),
            )
        }
    }
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
    body: &Value,
) -> Result<u64, Failure> {
    let path = format!("/v1/destinations/{destination}/{action}");
    let answer = api.post(&path, body).await?;
    Ok(answer["changed"].as_u64().unwrap_or(0))
}

/// Prints `done` if something changed, else `unchanged`.
pub(super) fn print_change(changed: u64, done: &str, unchanged: &str) -> Result<Exit, Failure> {
    if changed == 0 {
        println!("{unchanged}");
        return Ok(Exit::Failed);
    }
    println!("{done}");
    Ok(Exit::Done)
}

async fn list(api: &Api, json: bool) -> Result<Exit, Failure> {
    let destinations = api.rows("/v1/destinations").await?;
    if json {
        println!("{}", Value::Array(destinations));
        return Ok(Exit::Done);
    }
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
        "rejected",
        "held",
        "next attempt",
        "last error",
    ]);
    for destination in &destinations {
        table.add_row([
            table::cell(&destination["name"]),
            destination["kind"]
                .as_str()
                .unwrap_or("(not in the settings)")
                .to_owned(),
            table::state(destination),
            table::cell(&destination["delivered"]),
            table::cell(&destination["rejected_now"]),
            held_documents(destination).to_string(),
            table::cell(&destination["waits_until"]),
            table::cell(&destination["last_error"]),
        ]);
    }
    println!("{table}");
    for destination in &destinations {
        print_next_steps(destination);
    }
    Ok(Exit::Done)
}

fn held_feeds(destination: &Value) -> &[Value] {
    destination["held"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn held_documents(destination: &Value) -> u64 {
    held_feeds(destination)
        .iter()
        .filter_map(|feed| feed["documents"].as_u64())
        .sum()
}

fn print_next_steps(destination: &Value) {
    let name = table::cell(&destination["name"]);
    let documents = held_documents(destination);
    if documents > 0 {
        println!(
            "`{name}` holds {} of {}. Start with `ivesk-webhook destinations start {name}` and --all, --from-now or \
             --since MOMENT.",
            counted(documents, "document"),
            counted(held_feeds(destination).len() as u64, "feed")
        );
    }
    if let Some(sequence) = destination["stuck_at"].as_i64() {
        println!(
            "`{name}` did not accept version {sequence}; later versions wait. Fix the last error, then run \
             `ivesk-webhook destinations resume {name}`, or leave the version out with \
             `ivesk-webhook deliveries skip {name} {sequence}`."
        );
    }
    if destination["rejected_now"].as_u64().unwrap_or(0) > 0 {
        println!(
            "`ivesk-webhook deliveries list --destination {name} --state rejected` shows what `{name}` rejected, \
             `ivesk-webhook import-errors list` what is reported to the accountant."
        );
    }
}
