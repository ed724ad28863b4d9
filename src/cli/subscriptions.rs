//! `subscriptions`

use anyhow::anyhow;
use clap::Subcommand;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::account::{chosen_account, no_api_key};
use super::as_sent::AsSent;
use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::question::ask;
use super::row_id::row_id;
use super::server::Api;
use super::{logging, style, table};
use crate::api::subscriptions::{
    ConfirmResult, RequestedSubscription, RevokeRequest, RevokeResult, Subscription, SubscriptionId,
};
use crate::api::{Changed, NoFields};
use crate::config::{Config, is_loopback};
use crate::domain::{Account, Event, counted};
use crate::ivesk::{ApiError, Client, subscription_body};
use crate::store::SubscriptionState;
use crate::visible::visible;

/// Arguments of `subscriptions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Subscribe to events at Įvesk.lt, or print the request to send by hand
    Create(CreateArgs),
    /// Show every subscription and its state
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Confirm a subscription that waits for approval (`sns.confirm = "ask"`), or allow its topic
    ///
    /// If the topic is not known, exactly that topic is allowed from then on, and its subscription
    /// confirmed. Any AWS customer can offer a topic to this address, so find out first whether
    /// Įvesk.lt owns the AWS account that is named.
    Approve {
        /// Number of the subscription, from `subscriptions list`
        #[arg(value_parser = row_id("`ivesk-webhook subscriptions list`"))]
        id: i64,
        /// Allow an unknown topic without asking
        #[arg(long)]
        yes: bool,
    },
    /// Take the approval of a topic back: its messages are refused from then on
    ///
    /// Its subscriptions leave the list. Whoever owns the topic can offer it again, which needs
    /// another approval. Topics of `sns.topics` are allowed by that setting alone.
    Revoke {
        /// Number of a subscription to the topic, from `subscriptions list`, or the topic's ARN
        subscription: String,
    },
    /// Restore a subscription that has ended, or could not be confirmed
    Restore {
        /// Number of the subscription, from `subscriptions list`
        #[arg(value_parser = row_id("`ivesk-webhook subscriptions list`"))]
        id: i64,
    },
}

/// Arguments of `subscriptions create`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Start `serve` first: SNS asks it for a confirmation as soon as Įvesk.lt has subscribed.
The target contains the secret token of the path: show the output of --print only to Įvesk.lt.")]
struct CreateArgs {
    /// Account to subscribe; optional if there is only one
    #[arg(long)]
    account: Option<String>,
    /// Event to subscribe to; may be repeated [default: both]
    #[arg(long, value_enum)]
    event: Vec<Event>,
    /// Name of the subscription at Įvesk.lt [default: ivesk-webhook-ACCOUNT-EVENT]
    #[arg(long)]
    name: Option<String>,
    /// Send nothing; print the target and the request to send by hand
    #[arg(long)]
    print: bool,
    /// Also where a subscription is confirmed already, or no server runs to confirm it
    #[arg(long)]
    force: bool,
}

/// A subscription to request from Įvesk.lt.
struct SubscriptionRequest {
    account: Account,
    event: Event,
    name: String,
    target: SecretString,
}

/// Runs `subscriptions`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    logging::start(&config.log)?;
    match args.action {
        Action::Create(args) => create(&args, &config).await,
        Action::List { json } => list(&config, json).await,
        Action::Approve { id, yes } => approve(&config, id, yes).await,
        Action::Revoke { subscription } => revoke(&config, &subscription).await,
        Action::Restore { id } => confirm(&config, id, "restore").await,
    }
}

async fn create(args: &CreateArgs, config: &Config) -> Result<Exit, Failure> {
    let requests = subscription_requests(args, config)?;
    if args.print {
        print_requests(config, &requests);
        return Ok(Exit::Done);
    }
    if config.api.subscribe_path.is_none() {
        eprintln!(
            "`api.subscribe_path` is not set, and Įvesk.lt does not publish it. Look it up on the API page of your \
             account, https://app.ivesk.lt/api/docs, and set it, or send these requests by hand:\n"
        );
        print_requests(config, &requests);
        return Ok(Exit::Usage);
    }
    let api = Api::open_or_create(config).await?;
    let outcome = send_requests(config, &api, requests, args.force).await;
    api.close().await?;
    outcome
}

fn subscription_requests(
    args: &CreateArgs,
    config: &Config,
) -> Result<Vec<SubscriptionRequest>, Failure> {
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
                    "account `{account}` has no token for {event}; set `accounts.{account}.tokens.{event}`"
                ))
            })?;
            let name = match &args.name {
                Some(name) => name.clone(),
                None => format!("ivesk-webhook-{account}-{event}"),
            };
            Ok(SubscriptionRequest {
                account: account.clone(),
                event,
                name,
                target,
            })
        })
        .collect()
}

/// Prints the requests, secret targets included: Įvesk.lt needs them.
fn print_requests(config: &Config, requests: &[SubscriptionRequest]) {
    if is_loopback(&config.public.url) {
        note!(
            "warning: `public.url` is {}, which SNS can't reach. Set the https address of your proxy or tunnel.\n",
            config.public.url
        );
    }
    let address = match &config.api.subscribe_path {
        Some(path) => format!("{}{path}", config.api.url.as_str().trim_end_matches('/')),
        None => "<address for subscriptions>".to_owned(),
    };
    if style::is_json() {
        let requests = requests.iter().map(|request| {
            let body = subscription_body(&request.name, request.event, &request.target);
            json!({
                "account": request.account,
                "event": request.event,
                "target": request.target.expose_secret(),
                "url": address,
                "body": body.expose_secret(),
            })
        });
        println!("{}", requests.collect::<Value>());
        return;
    }
    for request in requests {
        let body = subscription_body(&request.name, request.event, &request.target);
        println!("# {} of account {}", request.event, request.account);
        println!("target: {}", request.target.expose_secret());
        println!("POST {address}");
        println!("x-api-key: <your key>");
        println!("content-type: application/json");
        println!("\n{}\n", body.expose_secret());
    }
}

/// Leaves out the events that have a confirmed subscription, unless they are to have another one.
async fn without_confirmed(
    api: &Api,
    mut requests: Vec<SubscriptionRequest>,
) -> Result<Vec<SubscriptionRequest>, Failure> {
    let rows: Vec<Subscription> = api.rows("/v1/subscriptions").await?;
    requests.retain(|request| {
        let SubscriptionRequest { account, event, .. } = request;
        let confirmed = rows.iter().find(|row| {
            row.account == *account
                && row.event == *event
                && row.state == SubscriptionState::Confirmed
                // One to the wrong topic is to be replaced.
                && row.notes.problem.is_none()
        });
        if let Some(row) = confirmed {
            note!(
                "{event} of account {account} is confirmed already (subscription {}); --force requests another one.",
                row.id
            );
        }
        confirmed.is_none()
    });
    Ok(requests)
}

async fn send_requests(
    config: &Config,
    api: &Api,
    mut requests: Vec<SubscriptionRequest>,
    force: bool,
) -> Result<Exit, Failure> {
    if !force {
        requests = without_confirmed(api, requests).await?;
        if !requests.is_empty() && !api.is_running_server() {
            return Err(anyhow!(
                "no server runs here, and SNS asks for the confirmation at once and gives up within an hour; start \
                 `ivesk-webhook serve` first, or add --force if it runs on another machine"
            )
            .into());
        }
    }
    let mut requested = Vec::new();
    for request in &requests {
        let SubscriptionRequest { account, event, .. } = request;
        let key = config.accounts[account].api_key.clone();
        let key = key.ok_or_else(|| no_api_key(account))?;
        let client = Client::new(&config.api, key).map_err(api_failure)?;
        // Recorded first: the message of SNS may arrive before Įvesk.lt's answer.
        let row = RequestedSubscription {
            account: account.to_string(),
            event: *event,
            name: request.name.clone(),
        };
        let SubscriptionId { id } = api.post("/v1/subscriptions/requested", &row).await?;
        let sent = client.subscribe(&request.name, *event, &request.target);
        if let Err(error) = sent.await {
            // No message of SNS follows an answer that refuses; one that was lost may be a success.
            if matches!(error, ApiError::Status { .. }) {
                let path = format!("/v1/subscriptions/{id}/withdraw");
                let _: Changed = api.post(&path, &NoFields {}).await?;
            }
            return Err(api_failure(error));
        }
        requested.push(row);
        if !style::is_json() {
            println!(
                "Requested {event} for account {account}. `ivesk-webhook subscriptions list` shows when SNS has confirmed it."
            );
        }
    }
    if style::is_json() {
        println!("{}", json!(requested));
    }
    Ok(Exit::Done)
}

fn api_failure(error: ApiError) -> Failure {
    match error {
        ApiError::NotConfigured { .. } => Failure::usage(error),
        ApiError::Unreachable(_) => Failure::unreachable(error),
        _ => Failure::from(error),
    }
}

async fn list(config: &Config, json: bool) -> Result<Exit, Failure> {
    let api = Api::open_for_reading(config).await?;
    let rows = api.rows("/v1/subscriptions").await;
    api.close().await?;
    let mut rows: Vec<AsSent<Subscription>> = rows?;
    // Who owns an unknown topic is the most urgent question.
    rows.sort_by_key(|row| row.state != SubscriptionState::UnknownTopic);
    if json {
        println!("{}", json!(rows));
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        println!("No subscriptions yet. `ivesk-webhook subscriptions create` requests one.");
        return Ok(Exit::Done);
    }
    let mut table = table::new([
        "id",
        "account",
        "event",
        "state",
        "since",
        "last heard",
        "AWS account",
        "subscription or topic",
        "last error",
    ]);
    for row in &rows {
        let arn = row.subscription_arn.as_deref().or(row.topic_arn.as_deref());
        table.add_row([
            row.id.to_string(),
            row.account.to_string(),
            row.event.to_string(),
            row.state.as_str().to_owned(),
            table::moment(row.changed_at),
            table::moment(row.last_heard_at),
            table::optional(row.notes.aws_account.as_deref()),
            table::optional(arn),
            table::optional(row.last_error.as_deref()),
        ]);
    }
    println!("{table}");
    for row in &rows {
        let problem = row.notes.problem.as_deref().unwrap_or_default();
        if let Some(fix) = &row.notes.fix {
            println!(
                "\nNeeds a person: {}. Fix: {}.",
                visible(problem),
                visible(fix)
            );
        }
    }
    Ok(Exit::Done)
}

/// Approves a subscription; asks first if its topic is not known.
async fn approve(config: &Config, id: i64, yes: bool) -> Result<Exit, Failure> {
    let api = Api::open(config).await?;
    let rows = api.rows("/v1/subscriptions").await;
    api.close().await?;
    let mut rows: Vec<Subscription> = rows?;
    rows.retain(|row| row.id == id && row.state == SubscriptionState::UnknownTopic);
    if let Some(row) = rows.first() {
        let topic = visible(row.topic_arn.as_deref().unwrap_or_default());
        let owner = visible(row.notes.aws_account.as_deref().unwrap_or_default());
        eprintln!(
            "Subscription {id} is to the topic {topic}, which belongs to AWS account {owner}.\n\
             Any AWS customer can offer a topic to this address, and whoever owns it decides what is published there. \
             Approve it only if Įvesk.lt says that AWS account {owner} is theirs."
        );
        if !yes && !ask(&format!("Allow exactly this topic of AWS account {owner}?"))? {
            println!("Nothing was changed.");
            return Ok(Exit::Failed);
        }
    }
    confirm(config, id, "approve").await
}

/// Revokes the approval of a topic, named by its ARN or by one of its subscriptions.
async fn revoke(config: &Config, subscription: &str) -> Result<Exit, Failure> {
    let api = Api::open(config).await?;
    let revoked = revoke_topic(&api, subscription).await;
    api.close().await?;
    let (topic, subscriptions) = revoked?;
    result!(
        json!({"topic_arn": topic, "subscriptions": subscriptions}),
        "Messages of the topic {topic} are refused from now on. {} left the list.",
        counted(subscriptions, "subscription")
    );
    Ok(Exit::Done)
}

async fn revoke_topic(api: &Api, subscription: &str) -> Result<(String, u64), Failure> {
    let topic_arn = match subscription.parse::<i64>() {
        Err(_) => subscription.to_owned(),
        Ok(id) => {
            let rows: Vec<Subscription> = api.rows("/v1/subscriptions").await?;
            let row = rows.into_iter().find(|row| row.id == id);
            let topic_arn = row.and_then(|row| row.topic_arn);
            topic_arn.ok_or_else(|| {
                anyhow!(
                    "subscription {id} does not exist, or has no topic yet; `ivesk-webhook subscriptions list` shows all"
                )
            })?
        }
    };
    let request = RevokeRequest { topic_arn };
    let RevokeResult { subscriptions } = api.post("/v1/subscriptions/revoke", &request).await?;
    let topic = visible(&request.topic_arn).into_owned();
    Ok((topic, subscriptions as u64))
}

/// Approves or restores a subscription, and prints whether it is confirmed now.
async fn confirm(config: &Config, id: i64, action: &str) -> Result<Exit, Failure> {
    let api = Api::open(config).await?;
    let served = api.is_running_server();
    let path = format!("/v1/subscriptions/{id}/{action}");
    let outcome = api.post(&path, &NoFields {}).await;
    api.close().await?;
    let outcome: AsSent<ConfirmResult> = outcome?;
    if style::is_json() {
        println!("{}", outcome.json);
        return Ok(if outcome.confirmed {
            Exit::Done
        } else {
            Exit::Failed
        });
    }
    if outcome.confirmed {
        println!("Subscription {id} is confirmed.");
        return Ok(Exit::Done);
    }
    let error = visible(outcome.error.as_deref().unwrap_or_default());
    match outcome.next_try_at {
        Some(moment) if served => println!(
            "Subscription {id} is not confirmed yet: {error}. The server retries at {moment}."
        ),
        Some(_) => println!(
            "Subscription {id} is not confirmed yet: {error}. `ivesk-webhook serve` retries once it runs."
        ),
        None => println!(
            "Subscription {id} is not confirmed: {error}. `ivesk-webhook subscriptions create` subscribes again."
        ),
    }
    Ok(Exit::Failed)
}
