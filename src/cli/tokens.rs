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
    /// Create a token for the admin API, and print it once
    Create {
        /// Name of the token: who or what uses it
        #[arg(long)]
        name: String,
        /// Rights of the token
        #[arg(long, value_enum)]
        rights: Rights,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show the name and the rights of every token; the tokens themselves are not stored
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token, from the next request on
    Revoke {
        /// Number of the token, from `tokens list`
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
            "warning: `admin.token_file` is not set, so anyone on this machine can use the admin API without a token"
        );
    }
    outcome
}

async fn create(api: &Api, name: &str, rights: Rights, json: bool) -> Result<Exit, Failure> {
    let token = api
        .post("/v1/tokens", &json!({"name": name, "rights": rights}))
        .await?;
    if json {
        println!("{token:#}");
    } else {
        // The token alone goes to standard output: `… > token.txt`.
        println!("{}", table::cell(&token["token"]));
        eprintln!(
            "Created token {} with the right `{}`. It is not shown again.",
            table::cell(&token["id"]),
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
        println!("No tokens. `ivesk-webhook tokens create` creates one.");
        return Ok(Exit::Done);
    }
    let fields = ["id", "name", "rights", "created_at"];
    let mut table = table::new(["id", "name", "rights", "created"]);
    for row in &rows {
        table.add_row(fields.map(|field| table::cell(&row[field])));
    }
    println!("{table}");
    Ok(Exit::Done)
}

async fn revoke(api: &Api, id: i64) -> Result<Exit, Failure> {
    api.post(&format!("/v1/tokens/{id}/revoke"), &json!({}))
        .await?;
    println!("Revoked token {id}.");
    Ok(Exit::Done)
}
