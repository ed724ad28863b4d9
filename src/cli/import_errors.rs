//! `import-errors`

use clap::Subcommand;
use serde_json::{Value, json};

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::Api;
use super::{logging, table};
use crate::config::Config;

/// Arguments of `import-errors`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
When a destination rejects a version, the accountant sees an import error at Įvesk.lt, once for each \
version and text. Import errors wait until `api.import_error_path` is set: Įvesk.lt does not publish it.")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show import errors and their states
    List {
        /// Only import errors in this state: pending, sent or refused
        #[arg(long)]
        state: Option<String>,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Send a refused or waiting import error now
    Retry {
        /// Number of the import error, from `import-errors list`
        id: i64,
    },
}

/// Runs `import-errors`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let api = match &args.action {
        Action::List { .. } => Api::open_for_reading(&config).await?,
        Action::Retry { .. } => Api::open(&config).await?,
    };
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
        println!("No import errors.");
        return Ok(Exit::Done);
    }
    let mut table = table::new([
        "id",
        "state",
        "document",
        "company",
        "rejected",
        "sent",
        "text",
        "last error",
    ]);
    for row in &rows {
        table.add_row([
            table::cell(&row["id"]),
            table::cell(&row["state"]),
            table::cell(&row["document_id"]),
            table::cell(&row["company"]),
            table::moment(&row["created_at"]),
            table::moment(&row["sent_at"]),
            table::cell(&row["message"]),
            table::cell(&row["last_error"]),
        ]);
    }
    println!("{table}");
    let pending = rows.iter().any(|row| row["state"] == "pending");
    if pending && config.api.import_error_path.is_none() {
        println!(
            "Pending import errors wait until `api.import_error_path` is set. Įvesk.lt does not publish it; see the \
             API page of your account, app.ivesk.lt/api/docs."
        );
    }
    Ok(Exit::Done)
}

async fn retry(api: &Api, id: i64) -> Result<Exit, Failure> {
    api.post(&format!("/v1/import-errors/{id}/retry"), &json!({}))
        .await?;
    let sender = if api.is_running_server() {
        "the running server sends it"
    } else {
        "`ivesk-webhook serve` sends it once it runs"
    };
    result!(
        json!({ "id": id }),
        "Import error {id} is due now; {sender}."
    );
    Ok(Exit::Done)
}
