//! `notifications`

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::as_sent::AsSent;
use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::quarantine::body_of;
use super::saved::ExportDir;
use super::server::Api;
use super::{logging, style, table};
use crate::admin::paging::List;
use crate::api::Page;
use crate::api::messages::{Notification, WithBody};
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
    let Page { rows, .. }: Page<AsSent<Notification>> = api.get(&path).await?;
    if json {
        println!("{}", json!(rows));
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        println!("No notifications.");
        return Ok(Exit::Done);
    }
    let mut table = table::new(["id", "received", "account", "event", "kind", "message"]);
    for row in &rows {
        table.add_row([
            row.id.to_string(),
            table::moment(row.received_at),
            row.account.to_string(),
            row.event.to_string(),
            row.kind.clone(),
            row.message_id.clone(),
        ]);
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
        let path = format!("/v1/notifications?after={after}");
        let page: Page<Notification> = api.get(&path).await?;
        for row in page.rows {
            match write_one(api, &folder, &row).await? {
                Some(path) if style::is_json() => files.push(path.display().to_string()),
                Some(path) => println!("{}", path.display()),
                None => gone += 1,
            }
        }
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    if style::is_json() {
        println!("{}", json!({ "files": files, "without_body": gone }));
    }
    if gone > 0 {
        note!(
            "{} left out: the body was removed after `retention.notifications`",
            counted(gone, "notification")
        );
    }
    Ok(Exit::Done)
}

async fn write_one(
    api: &Api,
    folder: &ExportDir,
    row: &Notification,
) -> Result<Option<PathBuf>, Failure> {
    let path = format!("/v1/notifications/{}", row.id);
    let full: WithBody<Notification> = api.get(&path).await?;
    let Some(body) = body_of(&full)? else {
        return Ok(None);
    };
    let path = folder.write(row.received_at, row.event, &row.message_id, &body)?;
    Ok(Some(path))
}
