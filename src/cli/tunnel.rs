//! `serve --tunnel`: the tunnel's address, and subscriptions that end with the process.

use secrecy::ExposeSecret as _;
use tracing::{info, warn};

use super::globals::Globals;
use super::outcome::Failure;
use crate::app::App;
use crate::config::Config;
use crate::domain::{Account, Event, Timestamp};
use crate::ivesk::Client;
use crate::sns::Confirmer;
use crate::store::{StoreError, SubscriptionRow, SubscriptionState};
use crate::tunnel::{self, Kind};

/// Variable of `public.url`.
const PUBLIC_URL: &str = "IVESK_WEBHOOK_PUBLIC_URL";

/// Returns the settings, with the tunnel's address as `public.url`.
///
/// # Errors
///
/// If the settings are wrong, or no tunnel is found.
pub(super) async fn settings(
    kind: Kind,
    api: Option<&url::Url>,
    globals: &Globals,
) -> Result<Config, Failure> {
    let mut environment = globals.environment.clone();
    // A placeholder: the port that the tunnel leads to is among the other settings.
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

/// The subscriptions that were requested for a tunnel.
pub(super) struct Subscribed {
    since: Timestamp,
    requested: Vec<(Account, Event)>,
}

/// Prints every target, and requests the subscriptions if `api.subscribe_path` is set.
pub(super) async fn subscribe(app: &App) -> Subscribed {
    let mut subscribed = Subscribed {
        since: app.clock.now(),
        requested: Vec::new(),
    };
    for (account, settings) in &app.config.accounts {
        for event in Event::ALL {
            let Some(target) = app.config.webhook_target(account, event) else {
                continue;
            };
            // A secret, but the person needs it to subscribe by hand.
            println!("  target      {}", target.expose_secret());
            let has_path = app.config.api.subscribe_path.is_some();
            let Some(key) = settings.api_key.clone().filter(|_| has_path) else {
                continue;
            };
            let name = format!("ivesk-webhook-tunnel-{account}-{event}");
            let recorded = app
                .store
                .subscription_requested(account.clone(), event, name.clone(), app.clock.now())
                .await;
            let result = match (recorded, Client::new(&app.config.api, key)) {
                (Ok(_), Ok(client)) => client
                    .subscribe(&name, event, &target)
                    .await
                    .map_err(|error| error.to_string()),
                (Err(error), _) => Err(error.to_string()),
                (_, Err(error)) => Err(error.to_string()),
            };
            match result {
                Ok(()) => {
                    println!("  subscribed  {event} of account {account}; confirmed automatically");
                    subscribed.requested.push((account.clone(), event));
                }
                Err(error) => {
                    warn!("failed to subscribe to {event} of account {account}: {error}")
                }
            }
        }
    }
    if subscribed.requested.is_empty() {
        println!(
            "  subscribe   by hand with the targets above (`ivesk-webhook subscriptions create --print` prints the \
             requests); unsubscribe at Įvesk.lt afterwards"
        );
    }
    subscribed
}

impl Subscribed {
    /// Ends the subscriptions: their address is about to disappear.
    pub(super) async fn unsubscribe(&self, app: &App) {
        let confirmer = match Confirmer::new(&app.config.sns.settings()) {
            Ok(confirmer) => confirmer,
            Err(error) => {
                warn!("failed to unsubscribe: {error}");
                return;
            }
        };
        let rows = match self.confirmed(app).await {
            Ok(rows) => rows,
            Err(error) => {
                warn!("failed to unsubscribe: {error}");
                return;
            }
        };
        for row in rows {
            let (Some(topic), Some(subscription)) = (&row.topic_arn, &row.subscription_arn) else {
                continue;
            };
            let (account, event) = (&row.account, row.event);
            match confirmer.unsubscribe(topic, subscription).await {
                Ok(()) => info!("unsubscribed from {event} of account {account}"),
                Err(error) => warn!(
                    "failed to unsubscribe from {event} of account {account}: {error}; remove the subscription at \
                     Įvesk.lt"
                ),
            }
        }
    }

    /// Returns the requested subscriptions that SNS has confirmed since.
    async fn confirmed(&self, app: &App) -> Result<Vec<SubscriptionRow>, StoreError> {
        let mut rows = app.store.subscriptions().await?;
        rows.retain(|row| {
            row.state == SubscriptionState::Confirmed
                && row.changed_at >= self.since
                && self
                    .requested
                    .iter()
                    .any(|(account, event)| *account == row.account && *event == row.event)
        });
        Ok(rows)
    }
}
