//! `tokens`

use clap::Subcommand;
use serde_json::{Value, json};

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::Api;
use super::{logging, table};
use crate::config::Config;
use crate::store::Rights;

/// Arguments of `tokens`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token for the admin listener, and print it this once
    Create {
        /// What to call it: who or what will use it
        #[arg(long)]
        name: String,
        /// What its bearer may do
        #[arg(long, value_enum)]
        rights: Rights,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show every token's name and rights; the tokens themselves are kept nowhere
    List {
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
    /// Withdraw a token, from the next request on
    Revoke {
        /// Its number in `tokens list`
        id: i64,
    },
}

/// Runs `tokens`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let api = Api::open(&config).await?;
    let outcome = match args.action {
        Action::Create { name, rights, json } => create(&api, &name, rights, json).await,
        Action::List { json } => list(&api, json).await,
        Action::Revoke { id } => revoke(&api, id).await,
    };
    api.close().await?;
    if config.admin.token.is_none() {
        eprintln!(
            "note: while `admin.token_file` is not set, whoever is on this machine needs no token"
        );
    }
    outcome
}

async fn create(api: &Api, name: &str, rights: Rights, json: bool) -> Result<Exit, Failure> {
    let made = api
        .post("/v1/tokens", &json!({"name": name, "rights": rights}))
        .await?;
    if json {
        println!("{made:#}");
    } else {
        // Alone on its line, so that a script can keep it: `… > token.txt`.
        println!("{}", table::cell(&made["token"]));
        eprintln!(
            "This is token {} with the right `{}`. It is not shown again.",
            table::cell(&made["id"]),
            rights.as_str()
        );
    }
    Ok(Exit::Done)
}

async fn list(api: &Api, json: bool) -> Result<Exit, Failure> {
    let rows = api.rows("/v1/tokens").await?;
    if json {
        println!("{:#}", Value::Array(rows));
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        println!("There are none. `ivesk-webhook tokens create` makes one.");
        return Ok(Exit::Done);
    }
    let columns = ["id", "name", "rights", "created_at"];
    let mut table = table::new(columns);
    for row in &rows {
        table.add_row(columns.map(|column| table::cell(&row[column])));
    }
    println!("{table}");
    Ok(Exit::Done)
}

async fn revoke(api: &Api, id: i64) -> Result<Exit, Failure> {
    api.post(&format!("/v1/tokens/{id}/revoke"), &json!({}))
        .await?;
    println!("Token {id} is withdrawn.");
    Ok(Exit::Done)
}
