//! Everything that `serve` runs, put together; the demo and the tests start the
//! same in their own process.
//!
//! [`App`] is what every room shares. [`Service`] is an `App` with its two
//! listeners and its workers, which it starts and stops in order.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::alarms::{self, Alarms};
use crate::backoff;
use crate::config::{Config, ConfirmMode, StoreUrl};
use crate::delivery::import_errors::{self, ImportErrorSender};
use crate::delivery::worker::{self, DestinationWorker};
use crate::delivery::{self, OpenError};
use crate::domain::Clock;
use crate::ivesk::{ApiError, Client};
use crate::metrics::Metrics;
use crate::pull::{self, Puller, configured_feeds};
use crate::receiver::Public;
use crate::receiver::caller::Callers;
use crate::receiver::health::Health;
use crate::receiver::ingest::{Ingest, Parts};
use crate::receiver::listener::{self, Drained, Limits, ListenError, bind, local_address};
use crate::sns::{CertificateStore, Confirmer, Verifier};
use crate::store::postgres::{PostgresOptions, PostgresStore};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{CertificateRow, SharedStore, StoreError, SubscriptionRow, SubscriptionState};
use crate::subscriptions::{self, Confirmations};
use crate::uploads::watch::{self, WatchError, Watcher};
use crate::uploads::{UploadSettings, Uploader};

pub mod housekeeping;

/// Connections of the admin listener at once.
const PRIVATE_CONNECTIONS: usize = 64;

/// Messages that may wait for the next commit; the next one is answered 503.
const MESSAGE_QUEUE: usize = 4096;

/// Space for refused messages; further ones are not kept.
const QUARANTINE_BYTES: u64 = 64 * 1024 * 1024;

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address can't be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A client for Įvesk.lt's API can't be made.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A destination can't be used.
    #[error(transparent)]
    Destination(#[from] OpenError),
    /// The folder of `upload.watch` can't be used.
    #[error("`upload.watch` can't be used")]
    Watch(#[from] WatchError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// The client for certificates and confirmations can't be made.
    #[error("the HTTPS client can't be set up: {0}")]
    Client(#[from] reqwest::Error),
}

/// Opens the store that `config` names: a SQLite file for this process alone, a
/// PostgreSQL database beside others.
///
/// Takes a few milliseconds, longer where a migration runs. `clock` is what this machine
/// says the time is; a shared store sets it right ([`crate::store::Store::clock`]).
///
/// # Errors
///
/// [`StoreError::InUse`] where another process has the file, [`StoreError::Unreachable`]
/// where the server can't be had, and others that say what to do.
pub async fn open_store(config: &Config, clock: &Clock) -> Result<SharedStore, StoreError> {
    let ask = config.sns.confirm == ConfirmMode::Ask;
    match &config.store.url {
        StoreUrl::Sqlite(path) => Ok(Arc::new(SqliteStore::open(SqliteOptions {
            path: path.clone(),
            queue: MESSAGE_QUEUE,
            quarantine_bytes: QUARANTINE_BYTES,
            ask,
        })?)),
        StoreUrl::Postgres(address) => Ok(Arc::new(
            PostgresStore::open(PostgresOptions {
                address: address.clone(),
                queue: MESSAGE_QUEUE,
                quarantine_bytes: QUARANTINE_BYTES,
                ask,
                clock: clock.clone(),
            })
            .await?,
        )),
    }
}

/// Opens the store that `config` names for reading, also while others serve it.
///
/// # Errors
///
/// Where there is none, or it can't be had.
pub async fn open_store_for_reading(config: &Config) -> Result<SharedStore, StoreError> {
    match &config.store.url {
        StoreUrl::Sqlite(path) => Ok(Arc::new(SqliteStore::open_for_reading(path)?)),
        StoreUrl::Postgres(address) => Ok(Arc::new(
            PostgresStore::open_for_reading(address.clone()).await?,
        )),
    }
}

/// What every room shares.
pub struct App {
    /// The settings.
    pub config: Config,
    /// What is kept.
    pub store: SharedStore,
    /// The way of messages.
    pub ingest: Arc<Ingest>,
    /// The way of subscriptions.
    pub confirmations: Arc<Confirmations>,
    /// Whether messages are taken.
    pub health: Arc<Health>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

impl App {
    /// Puts the rooms together; nothing runs yet.
    ///
    /// # Errors
    ///
    /// [`StartError::Client`].
    pub fn assemble(
        config: Config,
        store: SharedStore,
        clock: Clock,
    ) -> Result<Arc<Self>, StartError> {
        // Replicas that share a store must agree on the time.
        let clock = store.clock().unwrap_or(clock);
        let metrics = Arc::new(Metrics::new());
        let health = Arc::new(Health::default());
        let sns = config.sns.settings();
        let certificates = Arc::new(StoredCertificates {
            store: Arc::clone(&store),
            clock: clock.clone(),
        });
        let verifier = Arc::new(Verifier::new(&sns, certificates, clock.clone())?);
        let confirmations = Arc::new(Confirmations::new(
            Arc::clone(&store),
            Confirmer::new(&sns)?,
            Arc::clone(&metrics),
            clock.clone(),
        ));
        let ingest = Arc::new(Ingest::new(
            &config,
            Parts {
                verifier,
                store: Arc::clone(&store),
                confirmations: Arc::clone(&confirmations),
                health: Arc::clone(&health),
                metrics: Arc::clone(&metrics),
                clock: clock.clone(),
            },
        ));
        Ok(Arc::new(Self {
            config,
            store,
            ingest,
            confirmations,
            health,
            metrics,
            clock,
        }))
    }
}

/// The running service.
pub struct Service {
    app: Arc<App>,
    public: SocketAddr,
    private: SocketAddr,
    tasks: JoinSet<&'static str>,
    stop_public: CancellationToken,
    stop_workers: CancellationToken,
    stop_admin: CancellationToken,
}

/// The name of the task that answers the admin listener: the last to stop.
const PRIVATE: &str = "the admin listener";

impl Service {
    /// Opens the store that `config` names and starts everything.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing runs then.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        let store = open_store(&config, &clock).await?;
        Self::start_with(config, store, clock).await
    }

    /// Starts everything on a store that is open already.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing runs then.
    pub async fn start_with(
        config: Config,
        store: SharedStore,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let public = bind("public.listen", config.public.listen).await?;
        let private = bind("admin.listen", config.admin.listen).await?;
        let app = App::assemble(config, store, clock)?;
        let callers =
            Callers::new(&app.config).map_err(|error| StartError::Random(error.to_string()))?;
        let puller = Puller::new(&app.config, Arc::clone(&app.store), app.clock.clone())?
            .counted_in(Arc::clone(&app.metrics));
        puller.register_feeds(configured_feeds(&app.config)).await?;
        // What was missed while nothing ran is found at once, not within the hour.
        puller.reconcile_now().await?;
        let workers = workers(&app)?;
        let known = worker::configured_destinations(&app.config);
        app.store
            .register_destinations(known, app.clock.now())
            .await?;
        let import_errors = ImportErrorSender::new(
            &app.config,
            Arc::clone(&app.store),
            app.clock.clone(),
            Arc::clone(&app.metrics) as _,
        )?;
        let stop_workers = CancellationToken::new();
        let watcher = watcher(&app, &stop_workers)?;
        housekeeping::check_disk(&app).await;
        let (store, metrics) = (Arc::clone(&app.store), Arc::clone(&app.metrics));
        let alarms = Alarms::new(&app.config, store, metrics, app.clock.clone())?;
        // The process may have died between the commit and the alarm.
        for row in app.store.subscriptions().await? {
            if row.state == SubscriptionState::Unsubscribed {
                report_ended(&row);
            }
        }
        let mut service = Self {
            public: local_address("public.listen", &public, app.config.public.listen)?,
            private: local_address("admin.listen", &private, app.config.admin.listen)?,
            app,
            tasks: JoinSet::new(),
            stop_public: CancellationToken::new(),
            stop_workers,
            stop_admin: CancellationToken::new(),
        };
        service.spawn_listeners(public, private, callers);
        service.spawn_workers(Arc::new(puller), watcher, alarms);
        service.spawn_delivery(workers, import_errors);
        Ok(service)
    }

    fn spawn_listeners(
        &mut self,
        public: TcpListener,
        private: TcpListener,
        callers: Arc<Callers>,
    ) {
        let settings = &self.app.config.public;
        let limits = Limits {
            max_connections: settings.max_connections,
            header_timeout: settings.header_timeout,
            drain_timeout: settings.drain_timeout,
        };
        let routes = Public::new(Arc::clone(&self.app.ingest), callers);
        let stop = self.stop_public.clone();
        self.tasks.spawn(async move {
            let answer = hyper::service::service_fn(move |request| routes.clone().answer(request));
            if listener::serve(public, limits, answer, stop).await == Drained::CutOff {
                warn!("some requests did not end within `public.drain_timeout` and were cut off");
            }
            "the public listener"
        });

        let limits = Limits {
            max_connections: PRIVATE_CONNECTIONS,
            ..limits
        };
        let routes = TowerToHyperService::new(crate::admin::router(Arc::clone(&self.app)));
        let stop = self.stop_admin.clone();
        self.tasks.spawn(async move {
            listener::serve(private, limits, routes, stop).await;
            PRIVATE
        });
    }

    /// Starts what works without being asked. Each ends soon after `stop_workers`,
    /// finishing the step under way.
    fn spawn_workers(&mut self, puller: Arc<Puller>, watcher: Option<Watcher>, alarms: Alarms) {
        let stop = self.stop_workers.clone();
        self.tasks.spawn(async move {
            pull::run(puller, stop).await;
            "the puller"
        });

        let confirmations = Arc::clone(&self.app.confirmations);
        let stop = self.stop_workers.clone();
        self.tasks.spawn(async move {
            subscriptions::run(confirmations, stop).await;
            "the confirmation worker"
        });

        if let Some(watcher) = watcher {
            let stop = self.stop_workers.clone();
            self.tasks.spawn(async move {
                watch::run(watcher, watch::SCAN_INTERVAL, stop, |_| {}).await;
                "the drop folder"
            });
        }

        let stop = self.stop_workers.clone();
        self.tasks.spawn(async move {
            alarms::run(alarms, stop).await;
            "the alarms"
        });

        let app = Arc::clone(&self.app);
        let stop = self.stop_workers.clone();
        self.tasks.spawn(async move {
            housekeeping::run(app, stop).await;
            "housekeeping"
        });
    }

    /// Starts a worker for each destination, and the one that reports what they reject.
    fn spawn_delivery(
        &mut self,
        workers: Vec<DestinationWorker>,
        import_errors: Option<ImportErrorSender>,
    ) {
        for one in workers {
            let stop = self.stop_workers.clone();
            self.tasks.spawn(async move {
                worker::run(Arc::new(one), stop).await;
                "delivering documents"
            });
        }
        if let Some(import_errors) = import_errors {
            let stop = self.stop_workers.clone();
            self.tasks.spawn(async move {
                import_errors::run(Arc::new(import_errors), stop).await;
                "reporting import errors"
            });
        }
    }

    /// What the rooms share.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Where the public listener listens.
    pub fn public_address(&self) -> SocketAddr {
        self.public
    }

    /// Where the admin listener listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.private
    }

    /// Runs until `stop` is ready or a part ends by itself, then stops in order.
    ///
    /// True where nothing ended by itself and the store closed well.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> bool {
        let as_wished = tokio::select! {
            () = stop => true,
            ended = self.tasks.join_next() => {
                report_early_end(ended);
                false
            }
        };
        self.stop().await && as_wished
    }

    /// Stops: `/readyz` fails, nothing new is taken, requests and pages under way
    /// are finished, the store is closed last.
    ///
    /// True where all of that went well.
    pub async fn stop(mut self) -> bool {
        info!("stopping: finishing what is under way");
        self.app.health.drain();
        self.stop_public.cancel();
        self.stop_workers.cancel();
        // The listener keeps to the same limit by itself, so this one is for workers.
        let patience = self.app.config.public.drain_timeout + std::time::Duration::from_secs(5);
        let others = async {
            while self.tasks.len() > 1 {
                match self.tasks.join_next().await {
                    Some(Ok(PRIVATE)) | None => break,
                    Some(Ok(_)) => {}
                    failed @ Some(Err(_)) => report_early_end(failed),
                }
            }
        };
        let mut well = tokio::time::timeout(patience, others).await.is_ok();
        if !well {
            warn!(
                "a worker did not stop in time and was cut off; what it had not committed is done anew at the next start"
            );
        }
        self.stop_admin.cancel();
        // A connection of the admin listener must not hold up the end.
        let _ =
            tokio::time::timeout(std::time::Duration::from_secs(2), self.tasks.join_next()).await;
        self.tasks.shutdown().await;
        if let Err(error) = self.app.store.close().await {
            error!("the store did not close well: {error}");
            well = false;
        }
        info!("stopped");
        well
    }
}

/// The watcher of `upload.watch`; none where that is not set, or its account has no key.
fn watcher(app: &App, stop: &CancellationToken) -> Result<Option<Watcher>, StartError> {
    let Some(folder) = &app.config.upload.watch else {
        return Ok(None);
    };
    let account = app.config.upload_account();
    let Some((account, key)) = account.and_then(|(name, account)| {
        let key = account.api_key.clone()?;
        Some((name.clone(), key))
    }) else {
        warn!("`upload.watch` is set, but there is no API key to upload with: nothing is uploaded");
        return Ok(None);
    };
    let settings = UploadSettings {
        account,
        options: app.config.upload.options(),
        force: false,
        backoff: backoff::UPLOAD,
    };
    let client = Client::new(&app.config.api, key)?
        .with_clock(app.clock.clone())
        .observed_by(Arc::clone(&app.metrics) as _);
    let journal = Arc::new(Arc::clone(&app.store));
    let uploader = Uploader::new(client, journal, settings, app.clock.clone(), stop.clone())
        .map_err(|error| StartError::Random(error.to_string()))?;
    Ok(Some(Watcher::open(folder, uploader)?))
}

/// A worker for each destination of the settings.
fn workers(app: &App) -> Result<Vec<DestinationWorker>, OpenError> {
    let opened = app.config.destinations.iter().map(|(name, destination)| {
        let environment = app.config.environment.variables();
        let place = delivery::open(name, destination, &app.config, environment, &app.clock)?;
        Ok(DestinationWorker::new(
            name.clone(),
            destination.clone(),
            place,
            app.config.import_errors.clone(),
            Arc::clone(&app.store),
            app.clock.clone(),
        ))
    });
    opened.collect()
}

fn report_ended(row: &SubscriptionRow) {
    let SubscriptionRow {
        id, account, event, ..
    } = row;
    error!(
        %account,
        %event,
        "subscription {id} of {account}/{event} has ended: no more notifications come. \
         If nobody here wanted that, `ivesk-webhook subscriptions restore {id}` brings it back"
    );
}

fn report_early_end(ended: Option<Result<&'static str, tokio::task::JoinError>>) {
    match ended {
        Some(Ok(name)) => error!("{name} ended by itself; stopping"),
        Some(Err(failure)) => error!("a part of the service failed: {failure}; stopping"),
        None => {}
    }
}

/// Signing certificates in the store.
struct StoredCertificates {
    store: SharedStore,
    clock: Clock,
}

#[async_trait]
impl CertificateStore for StoredCertificates {
    async fn load(&self) -> Vec<(String, Vec<u8>)> {
        match self.store.certificates().await {
            Ok(rows) => rows.into_iter().map(|row| (row.url, row.pem)).collect(),
            Err(error) => {
                warn!(
                    "failed to read the stored certificates, which will be fetched again: {error}"
                );
                Vec::new()
            }
        }
    }

    async fn save(&self, url: &str, pem: &[u8]) {
        let row = CertificateRow {
            url: url.to_owned(),
            pem: pem.to_vec(),
            fetched_at: self.clock.now(),
        };
        if let Err(error) = self.store.keep_certificate(row).await {
            warn!("failed to store a certificate, which will be fetched again: {error}");
        }
    }
}
