//! `report`

use clap::Subcommand;
use serde_json::{Value, json};

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::Api;
use super::{logging, table};
use crate::config::Config;

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What a destination rejects is reported to the accountant at Įvesk.lt, once for each version and text.
Reports wait until `api.import_error_path` is set, which Įvesk.lt does not publish.")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show import errors on their way to the accountant
    List {
        /// Only in this state: pending, sent or refused
        #[arg(long)]
        state: Option<String>,
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
    /// Report one now that was refused or waits
    Retry {
        /// Its number in `import-errors list`
        id: i64,
    },
}

/// Runs `report`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let api = Api::open(&config).await?;
    let outcome = match args.action {
        Action::List { state, json } => list(&api, &config, state, json).await,
        Action::Retry { id } => retry(&api, id).await,
    };
    api.close().await?;
    outcome
}

async fn list(
    api: &Api,
    config: &Config,
    state: Option<String>,
    json: bool,
) -> Result<Exit, Failure> {
    let query = state.map(|state| format!("?state={state}"));
    let rows = api
        .rows(&format!("/v1/import-errors{}", query.unwrap_or_default()))
        .await?;
    if json {
        println!("{}", Value::Array(rows));
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        println!("There are none.");
        return Ok(Exit::Done);
    }
    let mut table = table::new([
        "id",
        "stands",
        "document",
        "company",
        "rejected",
        "told",
        "text",
        "last error",
    ]);
    for row in &rows {
        table.add_row([
            table::cell(&row["id"]),
            table::cell(&row["state"]),
            table::cell(&row["document_id"]),
            table::cell(&row["company"]),
            table::cell(&row["created_at"]),
            table::cell(&row["sent_at"]),
            table::cell(&row["message"]),
            table::cell(&row["last_error"]),
        ]);
    }
    println!("{table}");
    let waits = rows.iter().any(|row| row["state"] == "pending");
    if waits && config.api.import_error_path.is_none() {
        println!(
            "They wait: `api.import_error_path` is not set. Įvesk.lt does not publish the address; look at the API \
             page of your account, app.ivesk.lt/api/docs."
        );
    }
    Ok(Exit::Done)
}

async fn retry(api: &Api, id: i64) -> Result<Exit, Failure> {
    api.post(&format!("/v1/import-errors/{id}/retry"), &json!({}))
        .await?;
    println!("Report {id} is due now; a server that runs sends it.");
    Ok(Exit::Done)
}
