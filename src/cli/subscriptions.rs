//! `subscriptions`

use clap::Subcommand;
use serde_json::{Value, json};

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::Api;
use super::{logging, table};
use crate::config::Config;

/// Arguments of `subscriptions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show every subscription and how it stands
    List {
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
    /// Confirm a subscription that awaits approval (`sns.confirm = "ask"`)
    Approve {
        /// Its number in `subscriptions list`
        id: i64,
    },
    /// Bring back a subscription that has ended
    Restore {
        /// Its number in `subscriptions list`
        id: i64,
    },
}

/// Runs `subscriptions`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let api = Api::open(&config).await?;
    let outcome = match args.action {
        Action::List { json } => list(&api, json).await,
        Action::Approve { id } => visit(&api, id, "approve").await,
        Action::Restore { id } => visit(&api, id, "restore").await,
    };
    api.close().await?;
    outcome
}

async fn list(api: &Api, json: bool) -> Result<Exit, Failure> {
    let rows = api.rows("/v1/subscriptions").await?;
    if json {
        println!("{:#}", Value::Array(rows));
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        println!("No subscription yet. `ivesk-webhook subscribe` asks Įvesk.lt for one.");
        return Ok(Exit::Done);
    }
    let columns = [
        "id",
        "account",
        "event",
        "state",
        "changed_at",
        "topic_arn",
        "last_error",
    ];
    let mut table = table::new(columns);
    for row in &rows {
        table.add_row(columns.map(|column| table::cell(&row[column])));
    }
    println!("{table}");
    Ok(Exit::Done)
}

async fn visit(api: &Api, id: i64, action: &str) -> Result<Exit, Failure> {
    let path = format!("/v1/subscriptions/{id}/{action}");
    let outcome = api.post(&path, &json!({})).await?;
    if outcome["confirmed"] == true {
        println!("Subscription {id} is confirmed.");
        return Ok(Exit::Done);
    }
    let error = table::cell(&outcome["error"]);
    match &outcome["next_try_at"] {
        Value::String(moment) if api.is_running_server() => {
            println!("Not confirmed yet: {error}. The server tries again at {moment}.");
        }
        Value::String(_) => {
            println!("Not confirmed yet: {error}. `serve` tries again once it runs.");
        }
        _ => println!("Not confirmed: {error}."),
    }
    Ok(Exit::No)
}
