//! `delivery`

use anyhow::anyhow;
use clap::Subcommand;
use serde_json::{Value, json};

use super::server::Api;
use super::{Exit, Failure, Globals, cell};
use crate::config::Config;
use crate::delivery::worker::configured_destinations;
use crate::domain::counted;

/// Arguments of `delivery`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A destination is where documents are delivered: [destinations.NAME] in the settings file (docs/destinations.md).
What a company's first pull brings is held until `destinations start` says from where to begin.")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show every destination: how far it has come, what it waits for, what is held
    Status {
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
    /// Show what became of versions at destinations
    List {
        /// Only this destination's
        #[arg(long)]
        destination: Option<String>,
        /// Only in this state: pending, listed, delivered, rejected, skipped or filtered
        #[arg(long)]
        state: Option<String>,
        /// One JSON array, with every attempt
        #[arg(long)]
        json: bool,
    },
    /// Let held companies begin: say from where
    Start {
        /// The destination; may be left out where there is one
        destination: Option<String>,
        #[command(flatten)]
        from: From,
        /// Only this account's
        #[arg(long)]
        account: Option<String>,
        /// Only this company's
        #[arg(long, value_name = "CODE")]
        company: Option<String>,
    },
    /// Hand nothing on to a destination until it is resumed
    Pause {
        /// The destination
        destination: String,
    },
    /// Go on with a destination now, whatever it waited for
    Resume {
        /// The destination
        destination: String,
    },
    /// Hand rejected versions on again: all of a destination's, or one
    Retry {
        /// The destination
        destination: String,
        /// This version, whatever became of it
        #[arg(long, value_name = "NUMBER")]
        sequence: Option<i64>,
    },
    /// Leave a version out that keeps a destination from going on
    Skip {
        /// The destination
        destination: String,
        /// The version's number
        sequence: i64,
    },
}

/// From where held companies begin.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct From {
    /// Everything that is stored, and what will come
    #[arg(long)]
    all: bool,
    /// Only what comes from now on: the rest is booked already
    #[arg(long)]
    from_now: bool,
    /// Versions since this moment, such as 2026-01-31T00:00:00Z, and what will come
    #[arg(long, value_name = "MOMENT")]
    since: Option<String>,
}

/// Runs `delivery`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    super::start_logging(&config.log)?;
    let api = Api::open(&config).await?;
    // Where no server runs, none has made them known yet.
    if let Some(store) = api.own_store() {
        store
            .register_destinations(
                configured_destinations(&config),
                crate::domain::Clock::system().now(),
            )
            .await?;
    }
    let outcome = act(&api, &config, args.action).await;
    api.close().await?;
    outcome
}

async fn act(api: &Api, config: &Config, action: Action) -> Result<Exit, Failure> {
    match action {
        Action::Status { json } => status(api, json).await,
        Action::List {
            destination,
            state,
            json,
        } => list(api, destination, state, json).await,
        Action::Start {
            destination,
            from,
            account,
            company,
        } => {
            let destination = match destination {
                Some(destination) => destination,
                None => only(config)?,
            };
            let from = match from.since {
                Some(moment) => moment,
                None if from.all => "all".to_owned(),
                None => "now".to_owned(),
            };
            let body = json!({ "from": from, "account": account, "company": company });
            let changed = change(api, &destination, "start", &body).await?;
            told(
                changed,
                &format!("Feeds that `{destination}` is given now: {changed}."),
                "There is no such feed yet; `ivesk-webhook pull` reads what Įvesk.lt has.",
            )
        }
        Action::Pause { destination } => {
            let changed = change(api, &destination, "pause", &json!({})).await?;
            let done =
                format!("`{destination}` is paused; `destinations resume {destination}` goes on.");
            told(changed, &done, "It was paused already.")
        }
        Action::Resume { destination } => {
            let changed = change(api, &destination, "resume", &json!({})).await?;
            told(
                changed,
                &format!("`{destination}` goes on."),
                "It was neither paused nor waiting.",
            )
        }
        Action::Retry {
            destination,
            sequence,
        } => {
            let changed =
                change(api, &destination, "retry", &json!({ "sequence": sequence })).await?;
            told(
                changed,
                &format!("{changed} versions are delivered again."),
                "There is none: a version that a newer one has replaced stays as it is.",
            )
        }
        Action::Skip {
            destination,
            sequence,
        } => {
            let changed =
                change(api, &destination, "skip", &json!({ "sequence": sequence })).await?;
            told(
                changed,
                &format!("Version {sequence} is left out at `{destination}`."),
                "There is no such version, or it is settled already.",
            )
        }
    }
}

/// The only destination that the settings name.
fn only(config: &Config) -> Result<String, Failure> {
    let mut names = config.destinations.keys();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name.to_string()),
        (None, _) => Err(Failure::usage(anyhow!(
            "the settings name no destination; add [destinations.NAME] (docs/destinations.md)"
        ))),
        (Some(_), Some(_)) => Err(Failure::usage(anyhow!(
            "the settings name several destinations; say which one"
        ))),
    }
}

async fn change(api: &Api, destination: &str, what: &str, body: &Value) -> Result<u64, Failure> {
    let path = format!("/v1/destinations/{destination}/{what}");
    let answer = api.post(&path, body).await?;
    Ok(answer["changed"].as_u64().unwrap_or(0))
}

fn told(changed: u64, done: &str, nothing: &str) -> Result<Exit, Failure> {
    if changed == 0 {
        println!("{nothing}");
        return Ok(Exit::No);
    }
    println!("{done}");
    Ok(Exit::Done)
}

async fn status(api: &Api, json: bool) -> Result<Exit, Failure> {
    let destinations = api.rows("/v1/destinations").await?;
    if json {
        println!("{}", Value::Array(destinations));
        return Ok(Exit::Done);
    }
    if destinations.is_empty() {
        println!(
            "No destination yet. [destinations.NAME] in the settings file makes one (docs/destinations.md)."
        );
        return Ok(Exit::Done);
    }
    let mut table = super::table([
        "destination",
        "kind",
        "stands",
        "delivered",
        "rejected",
        "held",
        "waits until",
        "last error",
    ]);
    for destination in &destinations {
        table.add_row([
            cell(&destination["name"]),
            destination["kind"]
                .as_str()
                .unwrap_or("(not in the settings)")
                .to_owned(),
            standing(destination),
            cell(&destination["delivered"]),
            cell(&destination["rejected_now"]),
            held_documents(destination).to_string(),
            cell(&destination["waits_until"]),
            cell(&destination["last_error"]),
        ]);
    }
    println!("{table}");
    for destination in &destinations {
        tell_what_to_do(destination);
    }
    Ok(Exit::Done)
}

fn standing(destination: &Value) -> String {
    match destination["paused"].as_str() {
        Some("by_hand") => "paused".to_owned(),
        Some(reason) => reason.to_owned(),
        None if !destination["stuck_at"].is_null() => {
            format!("waits at {}", cell(&destination["stuck_at"]))
        }
        None => "goes on".to_owned(),
    }
}

fn held_documents(destination: &Value) -> u64 {
    let held = destination["held"].as_array().map(Vec::as_slice);
    held.unwrap_or_default()
        .iter()
        .filter_map(|feed| feed["documents"].as_u64())
        .sum()
}

fn tell_what_to_do(destination: &Value) {
    let name = cell(&destination["name"]);
    let held = destination["held"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let documents = held_documents(destination);
    if documents > 0 {
        println!(
            "{} of {} held at `{name}`: `ivesk-webhook destinations start {name}` with --all, --from-now or --since MOMENT \
             lets them begin.",
            counted(documents, "document"),
            counted(held.len() as u64, "feed")
        );
    }
    if let Some(sequence) = destination["stuck_at"].as_i64() {
        println!(
            "`{name}` could not take version {sequence}, and all after it wait; fix what the last error says, then \
             `destinations resume {name}`, or leave it out with `deliveries skip {name} {sequence}`."
        );
    }
    if destination["rejected_now"].as_u64().unwrap_or(0) > 0 {
        println!(
            "`deliveries list --destination {name} --state rejected` names what `{name}` rejected; `import-errors list` what the \
             accountant was told."
        );
    }
}

async fn list(
    api: &Api,
    destination: Option<String>,
    state: Option<String>,
    json: bool,
) -> Result<Exit, Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in [("destination", &destination), ("state", &state)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let path = format!("/v1/deliveries?{}", query.finish());
    let rows = api.rows(path.trim_end_matches('?')).await?;
    if json {
        println!("{}", Value::Array(rows));
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        println!("There are none.");
        return Ok(Exit::Done);
    }
    let mut table = super::table([
        "version",
        "destination",
        "stands",
        "since",
        "attempts",
        "what it said",
    ]);
    for row in &rows {
        let attempts = row["attempts"].as_array().map(Vec::as_slice);
        let times: u64 = attempts
            .unwrap_or_default()
            .iter()
            .filter_map(|attempt| attempt["times"].as_u64())
            .sum();
        table.add_row([
            cell(&row["sequence"]),
            cell(&row["destination"]),
            cell(&row["state"]),
            cell(&row["changed_at"]),
            times.to_string(),
            cell(&row["detail"]),
        ]);
    }
    println!("{table}");
    Ok(Exit::Done)
}
