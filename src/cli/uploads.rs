//! `uploads`

use clap::Subcommand;
use serde_json::json;

use super::as_sent::AsSent;
use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::row_id::row_id;
use super::server::Api;
use super::{logging, table};
use crate::api::uploads::{SettleReason, Upload, UploadSettled};
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
        #[arg(value_parser = row_id("`ivesk-webhook uploads list`"))]
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
        Action::Settle { id, reason } => settle(&api, id, reason).await,
    };
    api.close().await?;
    outcome
}

async fn settle(api: &Api, id: i64, reason: String) -> Result<Exit, Failure> {
    let path = format!("/v1/uploads/{id}/settle");
    let _: UploadSettled = api.post(&path, &SettleReason { reason }).await?;
    result!(
        json!({ "settled": id }),
        "Upload {id} is settled: no document of it is expected."
    );
    Ok(Exit::Done)
}

async fn list(api: &Api, late: bool, json: bool) -> Result<Exit, Failure> {
    let mut rows: Vec<AsSent<Upload>> = api.rows("/v1/uploads").await?;
    if late {
        rows.retain(|row| row.status == Upload::LATE);
    }
    if json {
        println!("{}", json!(rows));
    } else if rows.is_empty() {
        println!(
            "{}",
            if late {
                "No late uploads."
            } else {
                "No uploads."
            }
        );
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
            let reason = row.settled_reason.as_deref();
            table.add_row([
                row.id.to_string(),
                row.account.to_string(),
                row.file_name.clone(),
                row.size_bytes.to_string(),
                row.status.clone(),
                table::moment(row.sent_at),
                row.documents.join(" "),
                table::optional(reason.or(row.last_error.as_deref())),
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
