//! `uploads`

use clap::Subcommand;
use serde_json::Value;

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::Api;
use super::{logging, table};
use crate::config::Config;

/// Arguments of `uploads`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show uploaded files and the documents made from them
    List {
        /// Only files without a document after 12 hours; exit code 1 if there are any
        #[arg(long)]
        late: bool,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
}

/// Runs `uploads`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let api = Api::open(&config).await?;
    let Action::List { late, json } = args.action;
    let outcome = list(&api, late, json).await;
    api.close().await?;
    outcome
}

async fn list(api: &Api, late: bool, json: bool) -> Result<Exit, Failure> {
    let mut rows = api.rows("/v1/uploads").await?;
    if late {
        rows.retain(|row| row["status"] == "late");
    }
    if json {
        println!("{}", Value::Array(rows.clone()));
    } else if rows.is_empty() {
        println!("No uploads.");
    } else {
        let mut table = table::new([
            "id",
            "account",
            "file",
            "bytes",
            "state",
            "sent",
            "documents",
            "last error",
        ]);
        for row in &rows {
            let documents = row["documents"].as_array().map(|ids| {
                let ids: Vec<&str> = ids.iter().filter_map(Value::as_str).collect();
                ids.join(" ")
            });
            table.add_row([
                table::cell(&row["id"]),
                table::cell(&row["account"]),
                table::cell(&row["file_name"]),
                table::cell(&row["size_bytes"]),
                table::cell(&row["status"]),
                table::cell(&row["sent_at"]),
                documents.unwrap_or_default(),
                table::cell(&row["last_error"]),
            ]);
        }
        println!("{table}");
    }
    Ok(if late && !rows.is_empty() {
        Exit::Failed
    } else {
        Exit::Done
    })
}
