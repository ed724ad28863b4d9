//! `audit`

use clap::Subcommand;
use serde_json::json;

use super::as_sent::AsSent;
use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::Api;
use super::{logging, table};
use crate::api::Page;
use crate::api::audit::Action as Done;
use crate::config::Config;

/// Arguments of `audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show who did what, newest first
    List {
        /// Number of rows to show, at most 500
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
}

/// Runs `audit`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let api = Api::open_for_reading(&config).await?;
    let Action::List { limit, json } = args.action;
    let outcome = list(&api, limit, json).await;
    api.close().await?;
    outcome
}

async fn list(api: &Api, limit: u16, json: bool) -> Result<Exit, Failure> {
    let path = format!("/v1/audit?limit={limit}");
    let Page { rows, .. }: Page<AsSent<Done>> = api.get(&path).await?;
    if json {
        println!("{}", json!(rows));
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        println!("No actions yet.");
        return Ok(Exit::Done);
    }
    let mut table = table::new(["id", "when", "who", "action", "subject"]);
    for row in &rows {
        table.add_row([
            row.id.to_string(),
            table::moment(row.at),
            row.actor.clone(),
            row.action.clone(),
            match &row.detail {
                Some(detail) => format!("{} ({detail})", row.subject),
                None => row.subject.clone(),
            },
        ]);
    }
    println!("{table}");
    Ok(Exit::Done)
}
