//! Starts and stops an emulator.

use std::net::SocketAddr;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::HeaderValue;
use axum::http::header::DATE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get, post};
use sns_messages::time::{Clock, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::control::Control;
use crate::domain::Event;
use crate::faults::Faults;
use crate::ledger::Ledger;
use crate::meter::Meter;
use crate::signer::Signer;
use crate::switches::Switches;
use crate::uploads::Uploads;
use crate::vendor::Vendor;
use crate::world::World;
use crate::{api, control_api, guard, links, s3, sns_api};

/// API key of the default account.
pub const DEFAULT_KEY: &str = "00000000-0000-4000-8000-000000000000emulator";
/// Companies of the default account; the first is the one in the vendor's documentation.
pub const DEFAULT_COMPANIES: [&str; 2] = ["302320404", "304567894"];

/// The longest wait for open requests when the emulator stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// One API key and its companies.
#[derive(Clone, PartialEq, Eq)]
pub struct AccountSettings {
    /// The API key.
    pub key: String,
    /// Codes of its companies.
    pub companies: Vec<String>,
}

impl std::fmt::Debug for AccountSettings {
    /// Leaves out the API key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccountSettings")
            .field("companies", &self.companies)
            .finish_non_exhaustive()
    }
}

/// Settings of an emulator.
#[derive(Clone)]
pub struct EmulatorSettings {
    /// API keys; default one, [`DEFAULT_KEY`] with [`DEFAULT_COMPANIES`].
    pub accounts: Vec<AccountSettings>,
    /// The switches, each of which can be changed later.
    pub switches: Switches,
    /// Its time; default the machine's.
    pub clock: Clock,
    /// True allows webhooks on other machines, and listening for other machines;
    /// default false.
    pub allow_remote: bool,
    /// Largest number of concurrent deliveries, default 64.
    pub concurrent_deliveries: usize,
    /// The signer; default a new one, whose RSA key takes a moment to make.
    pub signer: Option<Arc<Signer>>,
    /// The emulator's address for others, such as `http://emulator:4566`; default the
    /// one that it listens on.
    pub origin: Option<String>,
}

impl Default for EmulatorSettings {
    fn default() -> Self {
        Self {
            accounts: vec![AccountSettings {
                key: DEFAULT_KEY.to_owned(),
                companies: DEFAULT_COMPANIES.map(str::to_owned).to_vec(),
            }],
            switches: Switches::default(),
            clock: Clock::system(),
            allow_remote: false,
            concurrent_deliveries: 64,
            signer: None,
            origin: None,
        }
    }
}

impl std::fmt::Debug for EmulatorSettings {
    /// Leaves out the API keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmulatorSettings")
            .field("switches", &self.switches)
            .field("allow_remote", &self.allow_remote)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// A running emulator; it ends when this is dropped.
pub struct Emulator {
    vendor: Arc<Vendor>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let origin = &self.vendor.origin;
        f.debug_struct("Emulator").field("origin", origin).finish()
    }
}

impl Emulator {
    /// Starts an emulator that listens on `listen`; port 0 chooses a free one.
    ///
    /// # Errors
    ///
    /// An address that can't be listened on, or, unless
    /// [`EmulatorSettings::allow_remote`] is set, one that other machines reach.
    pub async fn start(settings: EmulatorSettings, listen: SocketAddr) -> anyhow::Result<Self> {
        anyhow::ensure!(
            settings.allow_remote || listen.ip().is_loopback(),
            "{listen} can be reached from other machines, and the emulator asks for no password; \
             listen on 127.0.0.1, or start it with --allow-remote"
        );
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| {
                format!("failed to listen on {listen}; choose another address with --listen, or stop what uses this one")
            })?;
        let origin = settings
            .origin
            .unwrap_or_else(|| origin_of(listener.local_addr().unwrap_or(listen)));
        let now = settings.clock.now();
        let signer = match settings.signer {
            Some(signer) => signer,
            None => {
                let made = tokio::task::spawn_blocking(move || Signer::like_aws(now)).await??;
                Arc::new(made)
            }
        };
        let mut world = World::new(getrandom::u64()?);
        for account in &settings.accounts {
            world.add_account(&account.key, &account.companies);
        }
        let vendor = Arc::new(Vendor {
            origin: origin.trim_end_matches('/').to_owned(),
            allow_remote: settings.allow_remote,
            runtime: tokio::runtime::Handle::current(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            faults: Faults::default(),
            meter: Meter::new(),
            ledger: Ledger::new(signer, settings.concurrent_deliveries)?,
            uploads: Uploads::new()?,
            reports: Mutex::default(),
            changes: watch::Sender::new(0),
            clock: settings.clock,
            clock_offset_ms: AtomicI64::new(0),
            positions: RwLock::new(Arc::new(settings.switches)),
            world: Mutex::new(world),
        });
        let stopping = vendor.stopping.clone();
        let server = axum::serve(listener, router(Arc::clone(&vendor)))
            .with_graceful_shutdown(stopping.cancelled_owned());
        Ok(Self {
            server: tokio::spawn(server.into_future()),
            vendor,
        })
    }

    /// Returns the emulator's address, for `sns.local_origins`: `http://127.0.0.1:4566`.
    pub fn origin(&self) -> String {
        self.vendor.origin.clone()
    }

    /// Returns the API's address, for `api.url`.
    pub fn api_url(&self) -> String {
        format!("{}{}", self.vendor.origin, api::BASE)
    }

    /// Returns the topic of `on_exported`.
    pub fn exported_topic_arn(&self) -> String {
        self.vendor.topic_arn(Event::OnExported)
    }

    /// Returns the topic of `on_digitized`.
    pub fn digitized_topic_arn(&self) -> String {
        self.vendor.topic_arn(Event::OnDigitized)
    }

    /// Returns a handle for playing the accountant and making things fail.
    pub fn control(&self) -> Control {
        Control(Arc::clone(&self.vendor))
    }

    /// Stops: no more deliveries, no more answers.
    pub async fn stop(mut self) {
        self.vendor.stopping.cancel();
        self.vendor.tasks.close();
        self.vendor.tasks.wait().await;
        // A client that keeps its request open doesn't keep the emulator open.
        let _ = tokio::time::timeout(STOP_TIMEOUT, &mut self.server).await;
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.vendor.stopping.cancel();
        self.server.abort();
    }
}

/// Returns the origin under which clients on this machine reach `listen`.
fn origin_of(listen: SocketAddr) -> String {
    let port = listen.port();
    match listen {
        SocketAddr::V6(address) if !address.ip().is_unspecified() => {
            format!("http://[{}]:{port}", address.ip())
        }
        SocketAddr::V4(address) if !address.ip().is_unspecified() => {
            format!("http://{}:{port}", address.ip())
        }
        _ => format!("http://127.0.0.1:{port}"),
    }
}

/// Dates every answer by the emulator's clock.
async fn date(State(vendor): State<Arc<Vendor>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(date) = http_date(vendor.now()) {
        response.headers_mut().insert(DATE, date);
    }
    response
}

/// Writes a moment as a `Date` header has it (RFC 9110 §5.6.7).
fn http_date(moment: Timestamp) -> Option<HeaderValue> {
    let at = time::OffsetDateTime::from_unix_timestamp(moment.as_millis().div_euclid(1000)).ok()?;
    let (weekday, month) = (at.weekday().to_string(), at.month().to_string());
    let (hour, minute, second) = at.to_hms();
    let text = format!(
        "{}, {:02} {} {:04} {hour:02}:{minute:02}:{second:02} GMT",
        weekday.get(..3)?,
        at.day(),
        month.get(..3)?,
        at.year(),
    );
    HeaderValue::from_str(&text).ok()
}

fn router(vendor: Arc<Vendor>) -> Router {
    let bucket = format!("/{}/{{id}}", links::BUCKET);
    Router::new()
        .route("/", get(sns_api::query))
        .route(&format!("{}/{{*path}}", api::BASE), any(api::answer))
        .route("/public/{id}", get(s3::get).put(s3::put))
        .route(&bucket, get(s3::get).put(s3::put))
        .route("/control/{operation}", post(control_api::answer))
        .fallback(sns_api::certificate_or_nothing)
        // Files have a limit of their own.
        .layer(DefaultBodyLimit::max(16 * 1024 * 1024))
        .layer(from_fn_with_state(Arc::clone(&vendor), guard::pass))
        .layer(from_fn_with_state(Arc::clone(&vendor), date))
        .with_state(vendor)
}
