//! `deliveries`

use clap::{ArgGroup, Subcommand};
use serde_json::Value;

use super::destinations::{change, open, print_change};
use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::{Api, with_query};
use super::{logging, table};
use crate::api::deliveries::{Delivery, DeliveryQuery, Selection};
use crate::config::Config;
use crate::domain::counted;
use crate::store::DeliveryState;

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
        state: Option<DeliveryState>,
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
        /// Sequence number of the only version, whatever its state
        #[arg(conflicts_with_all = ["state", "company"])]
        sequence: Option<i64>,
        /// All in this state: rejected, deferred, waiting_file or skipped
        #[arg(long)]
        state: Option<DeliveryState>,
        /// Only those of this company
        #[arg(long, value_name = "CODE")]
        company: Option<String>,
    },
    /// Skip versions that a destination does not accept: one, or all in a state
    #[command(group(ArgGroup::new("which").required(true).args(["sequence", "state"])))]
    Skip {
        /// Name of the destination
        destination: String,
        /// Sequence number of the version
        #[arg(conflicts_with_all = ["state", "company"])]
        sequence: Option<i64>,
        /// All in this state: pending, deferred, waiting_file or rejected
        #[arg(long)]
        state: Option<DeliveryState>,
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
        } => {
            let query = DeliveryQuery {
                destination,
                state,
                company,
                ..DeliveryQuery::default()
            };
            list(api, &query, json).await
        }
        Action::Retry {
            destination,
            sequence,
            state,
            company,
        } => {
            let selection = Selection {
                sequence,
                state,
                company,
            };
            let versions = change(api, &destination, "retry", &selection).await?;
            print_change(
                versions,
                &format!(
                    "{} will be delivered to `{destination}` again.",
                    counted(versions, "version")
                ),
                &format!(
                    "No version to deliver again; `ivesk-webhook deliveries list --destination {destination}` lists what there is. Versions that a newer one has replaced are left as they are."
                ),
            )
        }
        Action::Skip {
            destination,
            sequence,
            state,
            company,
        } => {
            let selection = Selection {
                sequence,
                state,
                company,
            };
            let versions = change(api, &destination, "skip", &selection).await?;
            print_change(
                versions,
                &format!(
                    "Skipped {} at `{destination}`.",
                    counted(versions, "version")
                ),
                &format!(
                    "`{destination}` has no such unfinished version; `ivesk-webhook deliveries list --destination {destination}` lists what there is."
                ),
            )
        }
    }
}

async fn list(api: &Api, query: &DeliveryQuery, json: bool) -> Result<Exit, Failure> {
    let path = with_query("/v1/deliveries", query)?;
    if json {
        println!("{}", Value::Array(api.rows(&path).await?));
        return Ok(Exit::Done);
    }
    let rows: Vec<Delivery> = api.rows(&path).await?;
    if rows.is_empty() {
        println!("No deliveries.");
        return Ok(Exit::Done);
    }
    let mut table = table::new([
        "sequence",
        "document",
        "company",
        "destination",
        "state",
        "since",
        "attempts",
        "detail",
    ]);
    for row in rows {
        let times: u64 = row.attempts.iter().map(|attempt| attempt.times).sum();
        table.add_row([
            row.sequence.to_string(),
            row.document_id,
            row.feed.company.to_string(),
            row.destination.to_string(),
            row.state.as_str().to_owned(),
            table::moment(row.changed_at),
            times.to_string(),
            table::optional(row.detail),
        ]);
    }
    println!("{table}");
    Ok(Exit::Done)
}
