//! `deliveries`

use clap::Subcommand;
use serde_json::{Value, json};

use super::destinations::{change, open, print_change};
use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::Api;
use super::{logging, table};
use crate::config::Config;
use crate::domain::counted;

/// Arguments of `deliveries`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the state of each version at each destination
    List {
        /// Only deliveries to this destination
        #[arg(long)]
        destination: Option<String>,
        /// Only deliveries in this state: pending, deferred, waiting_file, delivered, rejected,
        /// skipped, superseded or held
        #[arg(long)]
        state: Option<String>,
        /// Only deliveries of this company
        #[arg(long, value_name = "CODE")]
        company: Option<String>,
        /// Print one JSON array, with every attempt
        #[arg(long)]
        json: bool,
    },
    /// Deliver versions again: one, or all rejected ones, or all in another state
    Retry {
        /// Name of the destination
        destination: String,
        /// Only this version, whatever its state
        #[arg(long, value_name = "NUMBER", conflicts_with_all = ["state", "company"])]
        sequence: Option<i64>,
        /// All in this state: rejected, deferred, waiting_file or skipped
        #[arg(long)]
        state: Option<String>,
        /// Only those of this company
        #[arg(long, value_name = "CODE")]
        company: Option<String>,
    },
    /// Skip versions that a destination does not accept: one, or all in a state
    Skip {
        /// Name of the destination
        destination: String,
        /// Sequence number of the version
        #[arg(required_unless_present = "state", conflicts_with_all = ["state", "company"])]
        sequence: Option<i64>,
        /// All in this state: pending, deferred, waiting_file or rejected
        #[arg(long)]
        state: Option<String>,
        /// Only those of this company
        #[arg(long, value_name = "CODE", requires = "state")]
        company: Option<String>,
    },
}

/// Runs `deliveries`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let api = open(&config).await?;
    let outcome = act(&api, args.action).await;
    api.close().await?;
    outcome
}

async fn act(api: &Api, action: Action) -> Result<Exit, Failure> {
    match action {
        Action::List {
            destination,
            state,
            company,
            json,
        } => list(api, [destination, state, company], json).await,
        Action::Retry {
            destination,
            sequence,
            state,
            company,
        } => {
            let selection = json!({ "sequence": sequence, "state": state, "company": company });
            let versions = change(api, &destination, "retry", &selection).await?;
            print_change(
                versions,
                &format!(
                    "{} will be delivered to `{destination}` again.",
                    counted(versions, "version")
                ),
                "No version to deliver again. Versions that a newer one has replaced are left as they are.",
            )
        }
        Action::Skip {
            destination,
            sequence,
            state,
            company,
        } => {
            let selection = json!({ "sequence": sequence, "state": state, "company": company });
            let versions = change(api, &destination, "skip", &selection).await?;
            print_change(
                versions,
                &format!(
                    "Skipped {} at `{destination}`.",
                    counted(versions, "version")
                ),
                &format!("`{destination}` has no such unfinished version."),
            )
        }
    }
}

async fn list(api: &Api, filter: [Option<String>; 3], json: bool) -> Result<Exit, Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in ["destination", "state", "company"].into_iter().zip(&filter) {
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
        println!("No deliveries.");
        return Ok(Exit::Done);
    }
    let mut table = table::new([
        "version",
        "document",
        "company",
        "destination",
        "state",
        "since",
        "attempts",
        "detail",
    ]);
    for row in &rows {
        let attempts = row["attempts"].as_array().map(Vec::as_slice);
        let times: u64 = attempts
            .unwrap_or_default()
            .iter()
            .filter_map(|attempt| attempt["times"].as_u64())
            .sum();
        table.add_row([
            table::cell(&row["sequence"]),
            table::cell(&row["document_id"]),
            table::cell(&row["company"]),
            table::cell(&row["destination"]),
            table::cell(&row["state"]),
            table::cell(&row["changed_at"]),
            times.to_string(),
            table::cell(&row["detail"]),
        ]);
    }
    println!("{table}");
    Ok(Exit::Done)
}
