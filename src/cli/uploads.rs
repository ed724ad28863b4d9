//! `uploads`

use clap::Subcommand;
use serde_json::{Value, json};

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
        /// Only files without a document for longer than upload.late_after of working time; exit code 1 if there are any
        #[arg(long)]
        late: bool,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Stop waiting for the document of a file, as when Įvesk.lt rejected it after the upload
    Settle {
        /// Number of the upload, from `uploads list`
        id: i64,
        /// Why no document will come, such as "duplicate"
        #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
        reason: String,
    },
}

fn parse_reason(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("write a reason"),
        reason => Ok(reason.to_owned()),
    }
}

/// Runs `uploads`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let api = match &args.action {
        Action::List { .. } => Api::open_for_reading(&config).await?,
        Action::Settle { .. } => Api::open(&config).await?,
    };
    let outcome = match args.action {
        Action::List { late, json } => list(&api, late, json).await,
        Action::Settle { id, reason } => settle(&api, id, &reason).await,
    };
    api.close().await?;
    outcome
}

async fn settle(api: &Api, id: i64, reason: &str) -> Result<Exit, Failure> {
    let path = format!("/v1/uploads/{id}/settle");
    api.post(&path, &json!({ "reason": reason })).await?;
    result!(
        json!({ "settled": id }),
        "Upload {id} is settled: no document of it is expected."
    );
    Ok(Exit::Done)
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
            "reason or last error",
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
                table::moment(&row["sent_at"]),
                documents.unwrap_or_default(),
                match row["settled_reason"].as_str() {
                    Some(_) => table::cell(&row["settled_reason"]),
                    None => table::cell(&row["last_error"]),
                },
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
