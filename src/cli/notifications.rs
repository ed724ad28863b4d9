//! `notifications`

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::quarantine::{body_of, row_id};
use super::saved::ExportDir;
use super::server::Api;
use super::{logging, style, table};
use crate::admin::paging::List;
use crate::config::Config;
use crate::domain::counted;

/// Arguments of `notifications`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show stored notifications, oldest first
    List {
        /// Only notifications after this number
        #[arg(long, value_name = "ID", default_value_t = 0)]
        after: i64,
        /// Number of rows to show, at most 500
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u16,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Write their bodies to files for `verify` and `replay`
    Export {
        /// Folder for the files; created if missing
        dir: PathBuf,
    },
}

/// Runs `notifications`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let api = Api::open_for_reading(&config).await?;
    let outcome = match args.action {
        Action::List { after, limit, json } => list(&api, after, limit, json).await,
        Action::Export { dir } => export(&api, &dir).await,
    };
    api.close().await?;
    outcome
}

async fn list(api: &Api, after: i64, limit: u16, json: bool) -> Result<Exit, Failure> {
    let after = List::NOTIFICATIONS.cursor(after);
    let limit = limit.clamp(1, 500);
    let path = format!("/v1/notifications?after={after}&limit={limit}");
    let rows = api.get(&path).await?["rows"].take();
    if json {
        println!("{rows:#}");
        return Ok(Exit::Done);
    }
    let columns = ["id", "received", "account", "event", "kind", "message"];
    let fields = [
        "id",
        "received_at",
        "account",
        "event",
        "kind",
        "message_id",
    ];
    let mut table = table::new(columns);
    for row in rows.as_array().into_iter().flatten() {
        table.add_row(fields.map(|field| table::field(row, field)));
    }
    println!("{table}");
    Ok(Exit::Done)
}

async fn export(api: &Api, dir: &std::path::Path) -> Result<Exit, Failure> {
    let folder = ExportDir::open(dir)?;
    let mut gone = 0;
    let mut files = Vec::new();
    let mut after = List::NOTIFICATIONS.cursor(0);
    loop {
        let page = api.get(&format!("/v1/notifications?after={after}")).await?;
        for row in page["rows"].as_array().into_iter().flatten() {
            match write_one(api, &folder, row_id(row)?).await? {
                Some(path) if style::is_json() => files.push(path.display().to_string()),
                Some(path) => println!("{}", path.display()),
                None => gone += 1,
            }
        }
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    if style::is_json() {
        println!("{:#}", json!({ "files": files, "without_body": gone }));
    }
    if gone > 0 {
        note!(
            "{} left out: the body was removed after `retention.notifications`",
            counted(gone, "notification")
        );
    }
    Ok(Exit::Done)
}

async fn write_one(api: &Api, folder: &ExportDir, id: i64) -> Result<Option<PathBuf>, Failure> {
    let row: Value = api.get(&format!("/v1/notifications/{id}")).await?;
    let Some(body) = body_of(&row)? else {
        return Ok(None);
    };
    let path = folder.write(
        &table::cell(&row["received_at"]),
        &table::cell(&row["event"]),
        &table::cell(&row["message_id"]),
        &body,
    )?;
    Ok(Some(path))
}
