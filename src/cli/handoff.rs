//! `handoff`

use anyhow::anyhow;
use clap::Subcommand;
use serde_json::{Value, json};

use super::server::Api;
use super::{Exit, Failure, Globals, cell};
use crate::config::Config;
use crate::domain::counted;
use crate::handoff::worker::known;

/// Arguments of `handoff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A sink is where documents are handed on: [sinks.NAME] in the settings file (docs/sinks.md).
What a company's first pull brings is held until `handoff start` says from where to begin.")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show every sink: how far it has come, what it waits for, what is held
    Status {
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
    /// Show what became of versions at sinks
    List {
        /// Only this sink's
        #[arg(long)]
        sink: Option<String>,
        /// Only in this state: waiting, offered, booked, rejected, skipped or not_wanted
        #[arg(long)]
        state: Option<String>,
        /// One JSON array, with every attempt
        #[arg(long)]
        json: bool,
    },
    /// Let held companies begin: say from where
    Start {
        /// The sink; may be left out where there is one
        sink: Option<String>,
        #[command(flatten)]
        from: From,
        /// Only this account's
        #[arg(long)]
        account: Option<String>,
        /// Only this company's
        #[arg(long, value_name = "CODE")]
        company: Option<String>,
    },
    /// Hand nothing on to a sink until it is resumed
    Pause {
        /// The sink
        sink: String,
    },
    /// Go on with a sink now, whatever it waited for
    Resume {
        /// The sink
        sink: String,
    },
    /// Hand rejected versions on again: all of a sink's, or one
    Retry {
        /// The sink
        sink: String,
        /// This version, whatever became of it
        #[arg(long, value_name = "NUMBER")]
        sequence: Option<i64>,
    },
    /// Leave a version out that keeps a sink from going on
    Skip {
        /// The sink
        sink: String,
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

/// Runs `handoff`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    super::start_logging(&config.log)?;
    let api = Api::open(&config).await?;
    // Where no server runs, none has made them known yet.
    if let Some(store) = api.own_store() {
        store
            .make_sinks_known(known(&config), crate::domain::Clock::system().now())
            .await?;
    }
    let outcome = act(&api, &config, args.action).await;
    api.close().await?;
    outcome
}

async fn act(api: &Api, config: &Config, action: Action) -> Result<Exit, Failure> {
    match action {
        Action::Status { json } => status(api, json).await,
        Action::List { sink, state, json } => list(api, sink, state, json).await,
        Action::Start {
            sink,
            from,
            account,
            company,
        } => {
            let sink = match sink {
                Some(sink) => sink,
                None => only(config)?,
            };
            let from = match from.since {
                Some(moment) => moment,
                None if from.all => "all".to_owned(),
                None => "now".to_owned(),
            };
            let body = json!({ "from": from, "account": account, "company": company });
            let changed = change(api, &sink, "start", &body).await?;
            told(
                changed,
                &format!("Feeds that `{sink}` is given now: {changed}."),
                "There is no such feed yet; `ivesk-webhook pull` reads what Įvesk.lt has.",
            )
        }
        Action::Pause { sink } => {
            let changed = change(api, &sink, "pause", &json!({})).await?;
            let done = format!("`{sink}` is paused; `handoff resume {sink}` goes on.");
            told(changed, &done, "It was paused already.")
        }
        Action::Resume { sink } => {
            let changed = change(api, &sink, "resume", &json!({})).await?;
            told(
                changed,
                &format!("`{sink}` goes on."),
                "It was neither paused nor waiting.",
            )
        }
        Action::Retry { sink, sequence } => {
            let changed = change(api, &sink, "retry", &json!({ "sequence": sequence })).await?;
            told(
                changed,
                &format!("{changed} versions are handed on again."),
                "There is none: a version that a newer one has replaced stays as it is.",
            )
        }
        Action::Skip { sink, sequence } => {
            let changed = change(api, &sink, "skip", &json!({ "sequence": sequence })).await?;
            told(
                changed,
                &format!("Version {sequence} is left out at `{sink}`."),
                "There is no such version, or it is settled already.",
            )
        }
    }
}

/// The only sink that the settings name.
fn only(config: &Config) -> Result<String, Failure> {
    let mut names = config.sinks.keys();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name.to_string()),
        (None, _) => Err(Failure::usage(anyhow!(
            "the settings name no sink; add [sinks.NAME] (docs/sinks.md)"
        ))),
        (Some(_), Some(_)) => Err(Failure::usage(anyhow!(
            "the settings name several sinks; say which one"
        ))),
    }
}

async fn change(api: &Api, sink: &str, what: &str, body: &Value) -> Result<u64, Failure> {
    let path = format!("/v1/sinks/{sink}/{what}");
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
    let sinks = api.rows("/v1/sinks").await?;
    if json {
        println!("{}", Value::Array(sinks));
        return Ok(Exit::Done);
    }
    if sinks.is_empty() {
        println!("No sink yet. [sinks.NAME] in the settings file makes one (docs/sinks.md).");
        return Ok(Exit::Done);
    }
    let mut table = super::table([
        "sink",
        "kind",
        "stands",
        "booked",
        "rejected",
        "held",
        "waits until",
        "last error",
    ]);
    for sink in &sinks {
        table.add_row([
            cell(&sink["name"]),
            sink["kind"]
                .as_str()
                .unwrap_or("(not in the settings)")
                .to_owned(),
            standing(sink),
            cell(&sink["booked"]),
            cell(&sink["rejected_now"]),
            held_documents(sink).to_string(),
            cell(&sink["waits_until"]),
            cell(&sink["last_error"]),
        ]);
    }
    println!("{table}");
    for sink in &sinks {
        tell_what_to_do(sink);
    }
    Ok(Exit::Done)
}

fn standing(sink: &Value) -> String {
    match sink["paused"].as_str() {
        Some("by_hand") => "paused".to_owned(),
        Some(reason) => reason.to_owned(),
        None if !sink["stuck_at"].is_null() => format!("waits at {}", cell(&sink["stuck_at"])),
        None => "goes on".to_owned(),
    }
}

fn held_documents(sink: &Value) -> u64 {
    let held = sink["held"].as_array().map(Vec::as_slice);
    held.unwrap_or_default()
        .iter()
        .filter_map(|feed| feed["documents"].as_u64())
        .sum()
}

fn tell_what_to_do(sink: &Value) {
    let name = cell(&sink["name"]);
    let held = sink["held"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let documents = held_documents(sink);
    if documents > 0 {
        println!(
            "{} of {} held at `{name}`: `ivesk-webhook handoff start {name}` with --all, --from-now or --since MOMENT \
             lets them begin.",
            counted(documents, "document"),
            counted(held.len() as u64, "feed")
        );
    }
    if let Some(sequence) = sink["stuck_at"].as_i64() {
        println!(
            "`{name}` could not take version {sequence}, and all after it wait; mend what the last error says, then \
             `handoff resume {name}`, or leave it out with `handoff skip {name} {sequence}`."
        );
    }
    if sink["rejected_now"].as_u64().unwrap_or(0) > 0 {
        println!(
            "`handoff list --sink {name} --state rejected` names what `{name}` rejected; `report list` what the \
             accountant was told."
        );
    }
}

async fn list(
    api: &Api,
    sink: Option<String>,
    state: Option<String>,
    json: bool,
) -> Result<Exit, Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in [("sink", &sink), ("state", &state)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let path = format!("/v1/handoffs?{}", query.finish());
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
        "sink",
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
            cell(&row["sink"]),
            cell(&row["state"]),
            cell(&row["changed_at"]),
            times.to_string(),
            cell(&row["detail"]),
        ]);
    }
    println!("{table}");
    Ok(Exit::Done)
}
