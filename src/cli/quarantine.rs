//! `quarantine`

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde_json::{Value, json};

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::saved::ExportDir;
use super::server::Api;
use super::{logging, style, table};
use crate::config::Config;

/// Arguments of `quarantine`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show refused messages and the reason for each
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Write their bodies to files for `verify` and `replay`
    Export {
        /// Folder for the files; created if missing
        dir: PathBuf,
    },
    /// Verify messages again, as of the time they were received, after a setting was fixed
    Retry {
        /// Number of the message, from `quarantine list`
        #[arg(required_unless_present = "all")]
        id: Option<i64>,
        /// Verify all of them
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
}

/// Runs `quarantine`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let api = match &args.action {
        Action::List { .. } | Action::Export { .. } => Api::open_for_reading(&config).await?,
        Action::Retry { .. } => Api::open(&config).await?,
    };
    let outcome = match args.action {
        Action::List { json } => list(&api, json).await,
        Action::Export { dir } => export(&api, &dir).await,
        Action::Retry { id, .. } => retry(&api, id).await,
    };
    api.close().await?;
    outcome
}

async fn list(api: &Api, json: bool) -> Result<Exit, Failure> {
    let rows = api.rows("/v1/quarantine").await?;
    if json {
        println!("{:#}", Value::Array(rows));
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        println!("The quarantine is empty.");
        return Ok(Exit::Done);
    }
    let columns = [
        "id", "received", "account", "event", "reason", "topic", "bytes",
    ];
    let fields = [
        "id",
        "received_at",
        "account",
        "event",
        "reason",
        "topic_arn",
        "size_bytes",
    ];
    let mut table = table::new(columns);
    for row in &rows {
        table.add_row(fields.map(|field| table::field(row, field)));
    }
    println!("{table}");
    Ok(Exit::Done)
}

async fn export(api: &Api, dir: &std::path::Path) -> Result<Exit, Failure> {
    let rows = api.rows("/v1/quarantine").await?;
    let folder = ExportDir::open(dir)?;
    let mut files = Vec::new();
    for row in &rows {
        let id = row_id(row)?;
        let full = api.get(&format!("/v1/quarantine/{id}")).await?;
        let body = body_of(&full)?.unwrap_or_default();
        let name = format!("q{id}-{}", table::cell(&full["reason"]));
        let path = folder.write(
            &table::cell(&full["received_at"]),
            &table::cell(&full["event"]),
            &name,
            &body,
        )?;
        files.push(path.display().to_string());
        if !style::is_json() {
            println!("{}", path.display());
        }
    }
    if style::is_json() {
        println!("{:#}", json!({ "files": files }));
    }
    Ok(Exit::Done)
}

async fn retry(api: &Api, id: Option<i64>) -> Result<Exit, Failure> {
    let ids = match id {
        Some(id) => vec![id],
        None => {
            let rows = api.rows("/v1/quarantine").await?;
            rows.iter().map(row_id).collect::<Result<_, _>>()?
        }
    };
    let mut table = table::new(["id", "result", "reason"]);
    let mut rows = Vec::new();
    let mut exit = Exit::Done;
    for id in ids {
        let path = format!("/v1/quarantine/{id}/retry");
        let outcome = api.post(&path, &json!({})).await?;
        let result = match (&outcome["accepted"], &outcome["duplicate"]) {
            (Value::Bool(true), Value::Bool(true)) => "accepted before",
            (Value::Bool(true), _) => "accepted",
            _ => {
                exit = Exit::Failed;
                "refused"
            }
        };
        rows.push(json!({"id": id, "result": result, "reason": outcome["reason"]}));
        table.add_row([
            id.to_string(),
            result.to_owned(),
            table::cell(&outcome["reason"]),
        ]);
    }
    result!(Value::Array(rows), "{table}");
    Ok(exit)
}

/// Returns the number of a row.
///
/// # Errors
///
/// If the row has none.
pub(super) fn row_id(row: &Value) -> Result<i64, anyhow::Error> {
    row["id"]
        .as_i64()
        .ok_or_else(|| anyhow!("the server returned a row without a number"))
}

/// Returns the body of a row; `None` if it was removed.
///
/// # Errors
///
/// If the body is not base64.
pub(super) fn body_of(row: &Value) -> Result<Option<Vec<u8>>, anyhow::Error> {
    row["body"]
        .as_str()
        .map(|body| STANDARD.decode(body))
        .transpose()
        .context("the server returned a body that is not base64")
}
