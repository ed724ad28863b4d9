//! `tokens`

use clap::Subcommand;
use serde_json::{Value, json};

use super::as_sent::AsSent;
use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::row_id::row_id;
use super::server::Api;
use super::{logging, table};
use crate::api::NoFields;
use crate::api::tokens::{CreatedToken, RevokedToken, Token, TokenRequest};
use crate::config::Config;
use crate::domain::{Clock, Timestamp};
use crate::store::Rights;
use crate::visible::visible;

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
        /// Rights of the token: metrics, read, operate, admin, or destination:NAME for the program
        /// behind a destination of the kind `list`
        #[arg(long)]
        rights: Rights,
        /// When it ends: a time from now such as 90d, or a moment such as 2027-01-31T00:00:00Z
        #[arg(long, value_name = "TIME", value_parser = expiry)]
        expires: Option<Timestamp>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show name, rights, end and last use of every token; the tokens themselves are not stored
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token and its sessions, from the next request on
    Revoke {
        /// Number of the token, from `tokens list`
        #[arg(value_parser = row_id("`ivesk-webhook tokens list`"))]
        id: i64,
    },
}

/// Runs `tokens`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let api = match &args.action {
        Action::List { .. } => Api::open_for_reading(&config).await?,
        Action::Create { .. } | Action::Revoke { .. } => Api::open_or_create(&config).await?,
    };
    let outcome = match args.action {
        Action::Create {
            name,
            rights,
            expires,
            json,
        } => create(&api, name, rights, expires, json).await,
        Action::List { json } => list(&api, json).await,
        Action::Revoke { id } => revoke(&api, id).await,
    };
    api.close().await?;
    outcome
}

async fn create(
    api: &Api,
    name: String,
    rights: Rights,
    expires_at: Option<Timestamp>,
    json: bool,
) -> Result<Exit, Failure> {
    let request = TokenRequest {
        name,
        rights,
        expires_at: expires_at.map(|end| end.to_string()),
    };
    let token: AsSent<CreatedToken> = api.post("/v1/tokens", &request).await?;
    if json {
        println!("{}", token.json);
    } else {
        // The token alone goes to standard output: `… > token.txt`.
        println!("{}", visible(&token.token));
        note!(
            "Created token {} with the right `{}`{}. It is not shown again.",
            token.id,
            request.rights,
            expires_at.map_or(String::new(), |end| format!(
                ", until {}",
                table::exact(end)
            )),
        );
    }
    Ok(Exit::Done)
}

/// Parses a moment, or a time from now.
fn expiry(text: &str) -> Result<Timestamp, String> {
    if let Some(moment) = Timestamp::parse(text) {
        return Ok(moment);
    }
    let time = humantime::parse_duration(text).map_err(|_| {
        "is neither a time such as 90d nor a moment such as 2027-01-31T00:00:00Z".to_owned()
    })?;
    let end = Clock::system().now().after(time);
    // The API is told the moment as text, which has no years beyond 9999.
    match Timestamp::parse(&end.to_string()) {
        Some(end) => Ok(end),
        None => Err(
            "is after the year 9999; write a shorter time, or leave it out for a token without an end"
                .to_owned(),
        ),
    }
}

async fn list(api: &Api, json: bool) -> Result<Exit, Failure> {
    if json {
        println!("{}", Value::Array(api.rows("/v1/tokens").await?));
        return Ok(Exit::Done);
    }
    let rows: Vec<Token> = api.rows("/v1/tokens").await?;
    if rows.is_empty() {
        println!("No tokens. `ivesk-webhook tokens create` creates one.");
        return Ok(Exit::Done);
    }
    let mut table = table::new(["id", "name", "rights", "created", "ends", "last used"]);
    for row in &rows {
        table.add_row([
            row.id.to_string(),
            row.name.clone(),
            row.rights.to_string(),
            table::moment(row.created_at),
            table::moment(row.expires_at),
            table::moment(row.last_used_at),
        ]);
    }
    println!("{table}");
    Ok(Exit::Done)
}

async fn revoke(api: &Api, id: i64) -> Result<Exit, Failure> {
    let path = format!("/v1/tokens/{id}/revoke");
    let _: RevokedToken = api.post(&path, &NoFields {}).await?;
    result!(json!({ "revoked": id }), "Revoked token {id}.");
    Ok(Exit::Done)
}
