//! `subscribe`

use anyhow::anyhow;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::account::chosen_account;
use super::globals::Globals;
use super::logging;
use super::outcome::{Exit, Failure};
use super::server::Api;
use crate::config::{Config, is_loopback};
use crate::domain::{Account, Event};
use crate::ivesk::{ApiError, Client, subscription_body};

/// Arguments of `subscribe`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The target holds the path's secret token: what --print writes is for you and Įvesk.lt alone.
Start `serve` first: SNS asks it to confirm as soon as Įvesk.lt has subscribed.")]
pub struct Args {
    /// Whose subscription; needed where several accounts are configured
    #[arg(long)]
    account: Option<String>,
    /// Only this event; both without it
    #[arg(long, value_enum)]
    event: Vec<Event>,
    /// What Įvesk.lt calls the subscription [default: ivesk-webhook-ACCOUNT-EVENT]
    #[arg(long)]
    name: Option<String>,
    /// Ask nobody: print the target and the request to send by hand
    #[arg(long)]
    print: bool,
}

/// One subscription to be asked for.
struct Wish {
    account: Account,
    event: Event,
    name: String,
    target: SecretString,
}

/// Runs `subscribe`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let wishes = wishes(&args, &config)?;
    if args.print {
        print_by_hand(&config, &wishes);
        return Ok(Exit::Done);
    }
    if config.api.subscribe_path.is_none() {
        eprintln!(
            "`api.subscribe_path` is not set: Įvesk.lt's documentation, as far as it could be read, does not \
             show the address that takes subscriptions. Look it up at https://app.ivesk.lt/api/docs and set it, \
             or send this by hand:\n"
        );
        print_by_hand(&config, &wishes);
        return Ok(Exit::Usage);
    }
    let api = Api::open(&config).await?;
    if !api.is_running_server() {
        eprintln!(
            "No server runs here. SNS asks the target to confirm at once and gives up within the hour: start `serve`."
        );
    }
    let outcome = ask_for_all(&config, &api, &wishes).await;
    api.close().await?;
    outcome
}

fn wishes(args: &Args, config: &Config) -> Result<Vec<Wish>, Failure> {
    let account = chosen_account(args.account.as_deref(), config)?;
    let events = if args.event.is_empty() {
        Event::ALL.to_vec()
    } else {
        args.event.clone()
    };
    events
        .into_iter()
        .map(|event| {
            let target = config.webhook_target(&account, event).ok_or_else(|| {
                Failure::usage(anyhow!(
                    "account `{account}` has no token for {event}: set `accounts.{account}.tokens.{event}`"
                ))
            })?;
            let name = match &args.name {
                Some(name) => name.clone(),
                None => format!("ivesk-webhook-{account}-{event}"),
            };
            Ok(Wish {
                account: account.clone(),
                event,
                name,
                target,
            })
        })
        .collect()
}

/// Prints the secret on purpose: it is what the person came for.
fn print_by_hand(config: &Config, wishes: &[Wish]) {
    if is_loopback(&config.public.url) {
        eprintln!(
            "`public.url` is {}: SNS can't reach that. Set the HTTPS address of your proxy or tunnel.\n",
            config.public.url
        );
    }
    let address = match &config.api.subscribe_path {
        Some(path) => format!("{}{path}", config.api.url.as_str().trim_end_matches('/')),
        None => "<the address that takes subscriptions>".to_owned(),
    };
    for wish in wishes {
        let body = subscription_body(&wish.name, wish.event, &wish.target);
        println!("# {} of account {}", wish.event, wish.account);
        println!("target: {}", wish.target.expose_secret());
        println!("POST {address}");
        println!("x-api-key: <your key>");
        println!("content-type: application/json");
        println!("\n{}\n", body.expose_secret());
    }
}

async fn ask_for_all(config: &Config, api: &Api, wishes: &[Wish]) -> Result<Exit, Failure> {
    for wish in wishes {
        let Wish { account, event, .. } = wish;
        let key = config.accounts[account].api_key.clone().ok_or_else(|| {
            Failure::usage(anyhow!(
                "account `{account}` has no API key: set IVESK_WEBHOOK_API_KEY or `accounts.{account}.api_key_file`"
            ))
        })?;
        let client = Client::new(&config.api, key).map_err(explain)?;
        // Noted first: SNS may speak before Įvesk.lt has answered.
        let note = json!({"account": account, "event": event, "name": wish.name});
        api.post("/v1/subscriptions/requested", &note).await?;
        client
            .subscribe(&wish.name, *event, &wish.target)
            .await
            .map_err(explain)?;
        println!(
            "Įvesk.lt was asked to deliver {event} of account {account}; `subscriptions list` shows when SNS has confirmed."
        );
    }
    Ok(Exit::Done)
}

fn explain(error: ApiError) -> Failure {
    match error {
        ApiError::NotConfigured { .. } => Failure::usage(error),
        ApiError::Unreachable(_) => Failure::unreachable(error),
        _ => Failure::from(error),
    }
}
