//! `quarantine`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{ArgGroup, Subcommand};
use serde_json::{Value, json};

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::row_id::row_id;
use super::saved::ExportDir;
use super::server::Api;
use super::{logging, style, table};
use crate::api::NoFields;
use crate::api::messages::{QuarantinedMessage, RetryResult, WithBody};
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
    #[command(group(ArgGroup::new("which").required(true).args(["id", "all"])))]
    Retry {
        /// Number of the message, from `quarantine list`
        #[arg(value_parser = row_id("`ivesk-webhook quarantine list`"))]
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
    if json {
        println!("{}", Value::Array(api.rows("/v1/quarantine").await?));
        return Ok(Exit::Done);
    }
    let rows: Vec<QuarantinedMessage> = api.rows("/v1/quarantine").await?;
    if rows.is_empty() {
        println!("The quarantine is empty.");
        return Ok(Exit::Done);
    }
    let mut table = table::new([
        "id", "received", "account", "event", "reason", "topic", "bytes",
    ]);
    for row in rows {
        table.add_row([
            row.id.to_string(),
            table::moment(row.received_at),
            row.account.to_string(),
            row.event.to_string(),
            row.reason,
            table::optional(row.topic_arn),
            row.size_bytes.to_string(),
        ]);
    }
    println!("{table}");
    Ok(Exit::Done)
}

async fn export(api: &Api, dir: &std::path::Path) -> Result<Exit, Failure> {
    let rows: Vec<QuarantinedMessage> = api.rows("/v1/quarantine").await?;
    let folder = ExportDir::open(dir)?;
    let mut files = Vec::new();
    for row in &rows {
        let path = format!("/v1/quarantine/{}", row.id);
        let full: WithBody<QuarantinedMessage> = api.get(&path).await?;
        let body = body_of(&full)?.unwrap_or_default();
        let name = format!("q{}-{}", row.id, row.reason);
        let path = folder.write(row.received_at, row.event, &name, &body)?;
        files.push(path.display().to_string());
        if !style::is_json() {
            println!("{}", path.display());
        }
    }
    if style::is_json() {
        println!("{}", json!({ "files": files }));
    }
    Ok(Exit::Done)
}

async fn retry(api: &Api, id: Option<i64>) -> Result<Exit, Failure> {
    let ids = match id {
        Some(id) => vec![id],
        None => {
            let rows: Vec<QuarantinedMessage> = api.rows("/v1/quarantine").await?;
            rows.into_iter().map(|row| row.id).collect()
        }
    };
    let mut table = table::new(["id", "result", "reason"]);
    let mut rows = Vec::new();
    let mut exit = Exit::Done;
    for id in ids {
        let path = format!("/v1/quarantine/{id}/retry");
        let outcome: RetryResult = api.post(&path, &NoFields {}).await?;
        let result = match (outcome.accepted, outcome.duplicate) {
            (true, true) => "accepted before",
            (true, false) => "accepted",
            (false, _) => {
                exit = Exit::Failed;
                "refused"
            }
        };
        rows.push(json!({"id": id, "result": result, "reason": outcome.reason}));
        table.add_row([
            id.to_string(),
            result.to_owned(),
            table::optional(outcome.reason),
        ]);
    }
    result!(Value::Array(rows), "{table}");
    Ok(exit)
}

/// Returns the body of a row; `None` if it was removed.
///
/// # Errors
///
/// If the body is not base64.
pub(super) fn body_of<R>(row: &WithBody<R>) -> Result<Option<Vec<u8>>, anyhow::Error> {
    row.bytes()
        .context("the server returned a body that is not base64")
}
