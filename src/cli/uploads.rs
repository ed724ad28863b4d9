//! `uploads`

use clap::Subcommand;
use serde_json::Value;

use super::server::Api;
use super::{Exit, Failure, Globals, cell};
use crate::config::Config;

/// Arguments of `uploads`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what was sent, and which documents were made of it
    List {
        /// Only those of which no document has come within 12 hours; exit code 1 where there are any
        #[arg(long)]
        late: bool,
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
}

/// Runs `uploads`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    super::start_logging(&config.log)?;
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
        println!("There are none.");
    } else {
        let mut table = super::table([
            "id",
            "account",
            "file",
            "bytes",
            "stands",
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
                cell(&row["id"]),
                cell(&row["account"]),
                cell(&row["file_name"]),
                cell(&row["size_bytes"]),
                cell(&row["status"]),
                cell(&row["sent_at"]),
                documents.unwrap_or_default(),
                cell(&row["last_error"]),
            ]);
        }
        println!("{table}");
    }
    Ok(if late && !rows.is_empty() {
        Exit::No
    } else {
        Exit::Done
    })
}
