//! What `serve --tunnel` does before and after serving.

use secrecy::ExposeSecret as _;
use tracing::{info, warn};

use super::{Failure, Globals};
use crate::config::Config;
use crate::domain::{Account, Event, Timestamp};
use crate::ivesk::Client;
use crate::service::App;
use crate::sns::Confirmer;
use crate::store::{StoreError, SubscriptionRow, SubscriptionState};
use crate::tunnel::{self, Kind};

/// The variable that decides over `public.url`.
const PUBLIC_URL: &str = "IVESK_WEBHOOK_PUBLIC_URL";

/// The settings, with the tunnel's address as `public.url`.
pub(super) async fn settings(
    kind: Kind,
    api: Option<&url::Url>,
    globals: &Globals,
) -> Result<Config, Failure> {
    let mut environment = globals.environment.clone();
    // Any address will do to read the port from the rest of the settings.
    environment
        .entry(PUBLIC_URL.to_owned())
        .or_insert_with(|| "http://127.0.0.1".to_owned());
    let config = Config::load(&globals.config, &environment).map_err(Failure::usage)?;
    let port = config.public.listen.port();
    let address = tunnel::find(kind, api, port)
        .await
        .map_err(Failure::unreachable)?;
    environment.insert(PUBLIC_URL.to_owned(), address.into());
    Config::load(&globals.config, &environment).map_err(Failure::usage)
}

/// The subscriptions of one run through a tunnel.
pub(super) struct Subscribed {
    since: Timestamp,
    wishes: Vec<(Account, Event)>,
}

/// Prints every target, and asks Įvesk.lt for the subscriptions where that can be done.
pub(super) async fn subscribe(app: &App) -> Subscribed {
    let mut subscribed = Subscribed {
        since: app.clock.now(),
        wishes: Vec::new(),
    };
    for (account, settings) in &app.config.accounts {
        for event in Event::ALL {
            let Some(target) = app.config.webhook_target(account, event) else {
                continue;
            };
            // A secret, and what the person needs.
            println!("  target      {}", target.expose_secret());
            let can = app.config.api.subscribe_path.is_some();
            let Some(key) = settings.api_key.clone().filter(|_| can) else {
                continue;
            };
            let name = format!("ivesk-webhook-tunnel-{account}-{event}");
            let noted = app
                .store
                .subscription_requested(account.clone(), event, name.clone(), app.clock.now())
                .await;
            let asked = match (noted, Client::new(&app.config.api, key)) {
                (Ok(_), Ok(client)) => client
                    .subscribe(&name, event, &target)
                    .await
                    .map_err(|error| error.to_string()),
                (Err(error), _) => Err(error.to_string()),
                (_, Err(error)) => Err(error.to_string()),
            };
            match asked {
                Ok(()) => {
                    println!("  subscribed  {event} of account {account}; SNS confirms by itself");
                    subscribed.wishes.push((account.clone(), event));
                }
                Err(error) => {
                    warn!("{event} of account {account} could not be subscribed: {error}")
                }
            }
        }
    }
    if subscribed.wishes.is_empty() {
        println!(
            "  subscribe   by hand: `subscribe --print` shows how; such a subscription stays when this ends"
        );
    }
    subscribed
}

impl Subscribed {
    /// Ends the subscriptions that this run made: their address is gone soon.
    pub(super) async fn take_back(&self, app: &App) {
        let confirmer = match Confirmer::new(&app.config.sns.settings()) {
            Ok(confirmer) => confirmer,
            Err(error) => {
                warn!(
                    "subscriptions could not be taken back: {}",
                    crate::egress::describe(error)
                );
                return;
            }
        };
        let rows = match self.confirmed(app).await {
            Ok(rows) => rows,
            Err(error) => {
                warn!("subscriptions could not be taken back: {error}");
                return;
            }
        };
        for row in rows {
            let (Some(topic), Some(subscription)) = (&row.topic_arn, &row.subscription_arn) else {
                continue;
            };
            let (account, event) = (&row.account, row.event);
            match confirmer.unsubscribe(topic, subscription).await {
                Ok(()) => info!("the subscription to {event} of account {account} was taken back"),
                Err(error) => warn!(
                    "the subscription to {event} of account {account} could not be taken back: {error}; \
                     ask Įvesk.lt to remove it"
                ),
            }
        }
    }

    /// What was confirmed since, of what was asked for.
    async fn confirmed(&self, app: &App) -> Result<Vec<SubscriptionRow>, StoreError> {
        let mut rows = app.store.subscriptions().await?;
        rows.retain(|row| {
            row.state == SubscriptionState::Confirmed
                && row.changed_at >= self.since
                && self
                    .wishes
                    .iter()
                    .any(|(account, event)| *account == row.account && *event == row.event)
        });
        Ok(rows)
    }
}
