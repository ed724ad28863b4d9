//! Runs everything that `serve` starts; the demo and the tests run the same in their own
//! process.
//!
//! [`Service`] is an [`App`] with two listeners and the workers, started and stopped in
//! order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin;
use crate::admin::socket::{AdminSocket, SocketError};
use crate::alarms::{self, Alarms};
use crate::app::App;
use crate::backoff;
use crate::config::{AdminConfig, AlarmTarget, Config, ConfirmMode, DestinationKind};
use crate::delivery::import_errors::{self, ImportErrorSender};
use crate::delivery::steps;
use crate::delivery::worker::{DestinationWorker, configured_destinations};
use crate::delivery::{self, OpenError};
use crate::domain::Clock;
use crate::egress::SetupError;
use crate::ivesk::{ApiError, Client};
use crate::program;
use crate::pull::{self, Puller, configured_feeds};
use crate::receiver::PublicRoutes;
use crate::receiver::caller::Callers;
use crate::receiver::listener::{self, Drained, Limits, ListenError, bind, local_address};
use crate::store::{SharedStore, Store, StoreError, StoreOptions};
use crate::subscriptions;
use crate::uploads::watch::{self, WatchError, Watcher};
use crate::uploads::{UploadSettings, Uploader};

pub mod backups;
pub mod housekeeping;
mod replicas;

/// Most messages that wait for the next commit; further ones are answered 503.
const MESSAGE_QUEUE: usize = 4096;

/// Most bytes of refused messages in the quarantine; further ones are not stored.
const QUARANTINE_BYTES: u64 = 64 * 1024 * 1024;

/// Time for workers to stop, beyond `public.drain_timeout`.
const WORKER_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for connections of the admin listener to end.
const ADMIN_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A reason for which the service can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address can't be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The socket of `admin.socket` can't be made.
    #[error("{0}; {fix}", fix = .0.fix())]
    Socket(SocketError),
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A client for Įvesk.lt's API can't be set up.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A destination can't be used.
    #[error(transparent)]
    Destination(#[from] OpenError),
    /// The folder of `upload.watch` can't be used.
    #[error("`upload.watch` can't be used")]
    Watch(#[from] WatchError),
    /// The system provides no random numbers.
    #[error("the system provides no random numbers: {0}")]
    Random(String),
    /// The client for certificates, confirmations or alarms can't be set up.
    #[error(transparent)]
    Client(#[from] SetupError),
}

/// Opens the store of `config`: a SQLite file for this process alone, or a PostgreSQL
/// database shared with others. `clock` is this machine's.
///
/// # Errors
///
/// As [`Store::open`].
pub async fn open_store(config: &Config, clock: &Clock) -> Result<SharedStore, StoreError> {
    let options = store_options(config, clock);
    Ok(Arc::new(Store::open(options).await?))
}

/// Returns the options with which [`open_store`] opens the store.
pub fn store_options(config: &Config, clock: &Clock) -> StoreOptions {
    StoreOptions {
        url: config.store.url.clone(),
        queue: MESSAGE_QUEUE,
        quarantine_bytes: QUARANTINE_BYTES,
        ask: config.sns.confirm == ConfirmMode::Ask,
        clock: clock.clone(),
        hooks: None,
    }
}

/// Opens the store of `config` for reading, also while a server uses it.
///
/// # Errors
///
/// As [`Store::open_for_reading`].
pub async fn open_store_for_reading(config: &Config) -> Result<SharedStore, StoreError> {
    let store = Store::open_for_reading(&config.store.url).await?;
    Ok(Arc::new(store))
}

/// The running service.
pub struct Service {
    app: Arc<App>,
    public: SocketAddr,
    admin: SocketAddr,
    tasks: JoinSet<&'static str>,
    stop_public: CancellationToken,
    stop_workers: CancellationToken,
    stop_admin: CancellationToken,
}

/// The name of the admin listener's task, which stops last.
const ADMIN_LISTENER: &str = "admin listener";

impl Service {
    /// Opens the store of `config` and starts everything.
    ///
    /// # Errors
    ///
    /// One [`StartError`] per reason; nothing runs then.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        let store = open_store(&config, &clock).await?;
        Self::start_with(config, store, clock).await
    }

    /// Starts everything on a store that is open already.
    ///
    /// # Errors
    ///
    /// One [`StartError`] per reason; nothing runs then.
    pub async fn start_with(
        config: Config,
        store: SharedStore,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let public = bind("public.listen", config.public.listen).await?;
        let admin = bind("admin.listen", config.admin.listen).await?;
        let socket = bind_socket(&config.admin)?;
        let app = App::assemble(config, store, clock)?;
        end_leftovers(&app.config).await;
        let callers =
            Callers::new(&app.config).map_err(|error| StartError::Random(error.to_string()))?;
        let puller = Puller::new(&app.config, Arc::clone(&app.store), app.clock.clone())?
            .counted_in(Arc::clone(&app.metrics));
        puller.register_feeds(configured_feeds(&app.config)).await?;
        let workers = workers(&app)?;
        let destinations = configured_destinations(&app.config);
        app.store
            .register_destinations(destinations, app.clock.now())
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
        let health = Arc::clone(&app.health);
        let alarms = Alarms::new(&app.config, store, metrics, health, app.clock.clone())?;
        // No message waits for these.
        app.verifier.load_certificates().await;
        app.topics.load().await;
        app.confirmations.log_problems(&app.config).await?;
        let mut service = Self {
            public: local_address("public.listen", &public, app.config.public.listen)?,
            admin: local_address("admin.listen", &admin, app.config.admin.listen)?,
            app,
            tasks: JoinSet::new(),
            stop_public: CancellationToken::new(),
            stop_workers,
            stop_admin: CancellationToken::new(),
        };
        service.spawn_listeners(public, (admin, socket), callers);
        service.spawn_workers(Arc::new(puller), watcher, alarms);
        service.spawn_delivery(workers, import_errors);
        Ok(service)
    }

    fn spawn_listeners(
        &mut self,
        public: TcpListener,
        (private, socket): (TcpListener, Option<AdminSocket>),
        callers: Arc<Callers>,
    ) {
        let settings = &self.app.config.public;
        let limits = Limits {
            max_connections: settings.max_connections,
            header_timeout: settings.header_timeout,
            drain_timeout: settings.drain_timeout,
        };
        let routes = PublicRoutes::new(Arc::clone(&self.app.ingest), callers);
        let stop = self.stop_public.clone();
        self.tasks.spawn(async move {
            let counted = routes.clone();
            let on_unreadable = move |unreadable| counted.unreadable(unreadable);
            let answer = hyper::service::service_fn(move |request| routes.clone().answer(request));
            let served = listener::serve(public, limits, answer, on_unreadable, stop);
            if served.await == Drained::CutOff {
                warn!(
                    "some requests did not finish within `public.drain_timeout` and were cut off"
                );
            }
            "public listener"
        });

        let routes = admin::router(Arc::clone(&self.app));
        let header_timeout = settings.header_timeout;
        let stop = self.stop_admin.clone();
        self.tasks.spawn(async move {
            let local = async {
                if let Some(socket) = socket {
                    let (routes, stop) = (routes.clone(), stop.clone());
                    admin::listener::serve_local(socket, header_timeout, routes, stop).await;
                }
            };
            let network =
                admin::listener::serve(private, header_timeout, routes.clone(), stop.clone());
            tokio::join!(network, local);
            ADMIN_LISTENER
        });
    }

    /// Starts the workers. Each finishes its step and ends once `stop_workers` is canceled.
    fn spawn_workers(&mut self, puller: Arc<Puller>, watcher: Option<Watcher>, alarms: Alarms) {
        if self.app.store.is_shared() {
            let (app, puller) = (Arc::clone(&self.app), Arc::clone(&puller));
            let stop = self.stop_workers.clone();
            self.tasks.spawn(async move {
                replicas::watch(app, puller, stop).await;
                "look for other replicas' work"
            });
        }

        let stop = self.stop_workers.clone();
        self.tasks.spawn(async move {
            // Messages are accepted before every feed is due.
            let started = pull::reconcile(Arc::clone(&puller), stop.clone());
            tokio::join!(started, pull::run(Arc::clone(&puller), stop));
            "puller"
        });

        let confirmations = Arc::clone(&self.app.confirmations);
        let config = self.app.config.clone();
        let stop = self.stop_workers.clone();
        self.tasks.spawn(async move {
            subscriptions::run(confirmations, config, stop).await;
            "confirmation worker"
        });

        if let Some(watcher) = watcher {
            let stop = self.stop_workers.clone();
            self.tasks.spawn(async move {
                watch::run(watcher, watch::SCAN_INTERVAL, stop, |_| {}).await;
                "upload watcher"
            });
        }

        let stop = self.stop_workers.clone();
        self.tasks.spawn(async move {
            alarms::run(alarms, stop).await;
            "alarms"
        });

        let app = Arc::clone(&self.app);
        let stop = self.stop_workers.clone();
        self.tasks.spawn(async move {
            housekeeping::check_store(app, stop).await;
            "store check"
        });

        let app = Arc::clone(&self.app);
        let stop = self.stop_workers.clone();
        self.tasks.spawn(async move {
            housekeeping::check_integrity(app, stop).await;
            "check for damage"
        });

        if let Some(every) = self.app.config.store.backup_every {
            let app = Arc::clone(&self.app);
            let stop = self.stop_workers.clone();
            self.tasks.spawn(async move {
                backups::run(app, every, stop).await;
                "backups"
            });
        }

        let app = Arc::clone(&self.app);
        let stop = self.stop_workers.clone();
        self.tasks.spawn(async move {
            housekeeping::run(app, stop).await;
            "housekeeping"
        });
    }

    /// Starts a worker for each destination, and the sender of import errors.
    fn spawn_delivery(
        &mut self,
        workers: Vec<DestinationWorker>,
        import_errors: Option<ImportErrorSender>,
    ) {
        for worker in workers {
            let stop = self.stop_workers.clone();
            self.tasks.spawn(async move {
                steps::run(Arc::new(worker), stop).await;
                "destination worker"
            });
        }
        if let Some(import_errors) = import_errors {
            let stop = self.stop_workers.clone();
            self.tasks.spawn(async move {
                import_errors::run(Arc::new(import_errors), stop).await;
                "import error sender"
            });
        }
    }

    /// Returns the handles that the rooms share.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Returns the address of the public listener.
    pub fn public_address(&self) -> SocketAddr {
        self.public
    }

    /// Returns the address of the admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Runs until `stop` is ready or a task ends early, then stops in order.
    ///
    /// Returns true if no task ended early and everything stopped cleanly.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> bool {
        let requested = tokio::select! {
            () = stop => true,
            ended = self.tasks.join_next() => {
                log_early_end(ended);
                false
            }
        };
        self.stop().await && requested
    }

    /// Stops: `/readyz` fails, new messages are refused, requests and pages in progress are
    /// finished, and the store is closed last.
    ///
    /// Returns true if everything stopped cleanly.
    pub async fn stop(mut self) -> bool {
        info!("stopping: finishing requests and steps in progress");
        self.app.health.drain();
        self.stop_public.cancel();
        self.stop_workers.cancel();
        // The public listener has `drain_timeout` itself; the rest is for workers.
        let timeout = self.app.config.public.drain_timeout + WORKER_STOP_TIMEOUT;
        let others = async {
            while self.tasks.len() > 1 {
                match self.tasks.join_next().await {
                    Some(Ok(ADMIN_LISTENER)) | None => break,
                    Some(Ok(_)) => {}
                    failed @ Some(Err(_)) => log_early_end(failed),
                }
            }
        };
        let mut clean = tokio::time::timeout(timeout, others).await.is_ok();
        if !clean {
            warn!(
                "a worker did not stop in time and was cut off; the next start repeats what it had not committed"
            );
        }
        self.stop_admin.cancel();
        // An open connection to the admin listener must not delay the stop.
        let _ = tokio::time::timeout(ADMIN_STOP_TIMEOUT, self.tasks.join_next()).await;
        self.tasks.shutdown().await;
        if let Err(error) = self.app.store.close().await {
            error!("failed to close the store cleanly: {error}");
            clean = false;
        }
        info!("stopped");
        clean
    }
}

/// Ends the programs that a killed service of this machine left behind, before any is started again.
async fn end_leftovers(config: &Config) {
    let runs_programs = matches!(config.alarms.target, Some(AlarmTarget::Command(_)))
        || config
            .destinations
            .values()
            .any(|destination| matches!(destination.kind, DestinationKind::Command { .. }));
    if !runs_programs {
        return;
    }
    // It can't panic; without a result nothing was found.
    let ended = tokio::task::spawn_blocking(program::leftovers::end).await;
    for process in ended.unwrap_or_default() {
        warn!(
            process,
            "ended process {process} of a program that a killed service had left behind"
        );
    }
}

/// Makes the socket for the command line. If nobody has chosen its path, the service runs
/// without it: programs have tokens, and messages must not wait for it.
fn bind_socket(config: &AdminConfig) -> Result<Option<AdminSocket>, StartError> {
    match AdminSocket::bind(&config.socket) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if config.socket_is_set => Err(StartError::Socket(error)),
        Err(error) => {
            let fix = error.fix();
            error!("{error}; subcommands and `ivesk-webhook open` can't reach this server: {fix}");
            Ok(None)
        }
    }
}

/// Returns the watcher of `upload.watch`; `None` if that is not set, or its account has no
/// API key.
fn watcher(app: &App, stop: &CancellationToken) -> Result<Option<Watcher>, StartError> {
    let Some(folder) = &app.config.upload.watch else {
        return Ok(None);
    };
    let account = app.config.upload_account();
    let Some((account, key)) = account.and_then(|(name, account)| {
        let key = account.api_key.clone()?;
        Some((name.clone(), key))
    }) else {
        warn!(
            "`upload.watch` is set, but no account has an API key to upload with: nothing is uploaded"
        );
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
    let quiet = app.config.upload.quiet_time;
    Ok(Some(Watcher::open(folder, quiet, uploader)?))
}

/// Returns a worker for each configured destination.
fn workers(app: &App) -> Result<Vec<DestinationWorker>, OpenError> {
    let workers = app.config.destinations.iter().map(|(name, destination)| {
        let environment = app.config.environment.variables();
        let opened = delivery::open(name, destination, &app.config, environment, &app.clock)?;
        Ok(DestinationWorker::new(
            name.clone(),
            destination.clone(),
            opened,
            &app.config,
            Arc::clone(&app.store),
            app.clock.clone(),
        ))
    });
    workers.collect()
}

fn log_early_end(ended: Option<Result<&'static str, tokio::task::JoinError>>) {
    match ended {
        Some(Ok(name)) => error!("the {name} ended early; stopping"),
        Some(Err(failure)) => error!("a task failed: {failure}; stopping"),
        None => {}
    }
}
