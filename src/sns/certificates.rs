//! Where signing certificates come from, and which are held.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OnceCell, watch};

use super::certificate::Certificate;
use super::policy::{CertificateOrigin, Policy, certificate_region};
use crate::domain::{Clock, Timestamp};
use crate::egress;
use crate::refusal::Refusal;

/// How long a certificate may take to come, body included.
pub const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(4);
/// The largest certificate that is read; AWS's have about 2 KiB.
pub const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;
/// How many certificates are asked for within [`FETCH_PERIOD`], whatever their URLs.
pub const MAX_FETCHES: usize = 10;
/// See [`MAX_FETCHES`].
pub const FETCH_PERIOD: Duration = Duration::from_secs(60);
/// How long a failure is remembered: less than the 20 s after which SNS tries again.
pub const FAILURE_MEMORY: Duration = Duration::from_secs(15);
/// How many good certificates are held.
pub const MAX_GOOD: usize = 32;
/// How many failures are held, apart from the good ones.
pub const MAX_FAILURES: usize = 64;

/// Where certificates that have verified a message outlive the process.
#[async_trait]
pub trait CertificateShelf: Send + Sync {
    /// Every certificate kept, as URL and PEM, newest first.
    async fn load(&self) -> Vec<(String, Vec<u8>)>;
    /// Keeps one.
    async fn keep(&self, url: &str, pem: &[u8]);
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoShelf;

#[async_trait]
impl CertificateShelf for NoShelf {
    async fn load(&self) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }
    async fn keep(&self, _: &str, _: &[u8]) {}
}

/// Where certificates come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The URL in the message.
    Network(reqwest::Client),
    /// `DIR/<last path segment of the URL>`, for `verify --certs`; nothing is fetched.
    Folder(PathBuf),
}

/// The certificates that were fetched, and the fetches that are under way.
///
/// A flood of made-up URLs costs at most [`MAX_FETCHES`] requests in
/// [`FETCH_PERIOD`] and never pushes out a good certificate.
pub(super) struct Certificates {
    source: Source,
    policy: Arc<Policy>,
    clock: Clock,
    shelf: Arc<dyn CertificateShelf>,
    shelf_read: OnceCell<()>,
    held: RwLock<Held>,
}

type Outcome = Result<Arc<Certificate>, Refusal>;
type Flight = watch::Receiver<Option<Outcome>>;

#[derive(Default)]
struct Held {
    good: HashMap<String, Good>,
    failures: HashMap<String, Failure>,
    /// Fetches under way, so that many waiters share one.
    flights: HashMap<String, Flight>,
    /// When the last [`MAX_FETCHES`] fetches began.
    begun: VecDeque<Timestamp>,
    arrivals: u64,
}

struct Good {
    certificate: Arc<Certificate>,
    arrival: u64,
}

struct Failure {
    at: Timestamp,
    refusal: Refusal,
}

/// What is to be done for a certificate that is not simply there.
enum Step {
    Have(Outcome),
    Await(Flight),
    Fetch(watch::Sender<Option<Outcome>>, Flight),
}

impl Certificates {
    pub(super) fn new(
        source: Source,
        policy: Arc<Policy>,
        clock: Clock,
        shelf: Arc<dyn CertificateShelf>,
    ) -> Self {
        Self {
            source,
            policy,
            clock,
            shelf,
            shelf_read: OnceCell::new(),
            held: RwLock::default(),
        }
    }

    /// The certificate at `url` if it is here already: the way of nearly every message.
    pub(super) fn held(&self, url: &str) -> Option<Arc<Certificate>> {
        let held = self.read();
        held.good.get(url).map(|good| Arc::clone(&good.certificate))
    }

    /// The certificate at `url`, which policy has agreed to: from memory, from the
    /// shelf, or fetched, once for however many ask at the same time.
    pub(super) async fn get(
        self: &Arc<Self>,
        url: &str,
        origin: &CertificateOrigin<'_>,
    ) -> Outcome {
        if let Some(certificate) = self.held(url) {
            return Ok(certificate);
        }
        self.shelf_read.get_or_init(|| self.read_shelf()).await;
        self.obtain(url, origin, None).await
    }

    /// A newer certificate at `url` than `stale`; `None` where there is none or it
    /// can't be had, which leaves the held one as it is.
    pub(super) async fn newer(
        self: &Arc<Self>,
        url: &str,
        origin: &CertificateOrigin<'_>,
        stale: &Arc<Certificate>,
    ) -> Option<Arc<Certificate>> {
        let fetched = self.obtain(url, origin, Some(stale)).await.ok()?;
        (fetched.pem() != stale.pem()).then_some(fetched)
    }

    /// Notes that `certificate` has verified a message; the first time it is shelved.
    pub(super) async fn proven(
        &self,
        url: &str,
        origin: &CertificateOrigin<'_>,
        certificate: &Certificate,
    ) {
        // A local origin's certificate may change under the same URL.
        if certificate.prove() && *origin != CertificateOrigin::Local {
            self.shelf.keep(url, certificate.pem()).await;
        }
    }

    async fn obtain(
        self: &Arc<Self>,
        url: &str,
        origin: &CertificateOrigin<'_>,
        stale: Option<&Arc<Certificate>>,
    ) -> Outcome {
        let step = self.write().next_step(url, stale, self.allowance());
        let mut flight = match step {
            Step::Have(outcome) => return outcome,
            Step::Await(flight) => flight,
            Step::Fetch(landing, flight) => {
                let certificates = Arc::clone(self);
                let (url, origin) = (url.to_owned(), origin.clone().into_owned());
                // A task of its own: whoever asked first may hang up, and the others
                // still get what was fetched.
                tokio::spawn(async move {
                    let outcome = certificates.fetch(&url, &origin).await;
                    certificates.settle(&url, &outcome);
                    landing.send_replace(Some(outcome));
                });
                flight
            }
        };
        let landed = flight.wait_for(Option::is_some).await;
        match landed.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => {
                self.write().flights.remove(url);
                Err(Refusal::CertificateUnavailable(
                    "the request was given up".to_owned(),
                ))
            }
        }
    }

    fn allowance(&self) -> Allowance {
        Allowance {
            now: self.clock.now(),
            // Reading a folder troubles nobody.
            limited: matches!(self.source, Source::Network(_)),
        }
    }

    async fn fetch(&self, url: &str, origin: &CertificateOrigin<'_>) -> Outcome {
        let pem = match &self.source {
            Source::Network(client) => fetch_pem(client, url).await?,
            Source::Folder(folder) => read_pem(folder, url).await?,
        };
        self.judge(&pem, origin).map(Arc::new)
    }

    fn judge(&self, pem: &[u8], origin: &CertificateOrigin<'_>) -> Result<Certificate, Refusal> {
        match origin {
            CertificateOrigin::Sns { region } => {
                Certificate::parse(pem, Some(&self.policy.certificate_name(region)))
            }
            CertificateOrigin::Local => Certificate::parse(pem, None),
        }
    }

    fn settle(&self, url: &str, outcome: &Outcome) {
        let now = self.clock.now();
        let mut held = self.write();
        held.flights.remove(url);
        match outcome {
            Ok(certificate) => held.add_good(url, certificate),
            Err(refusal) => held.add_failure(url, refusal, now),
        }
    }

    /// Takes in what the shelf holds, judged by today's policy.
    async fn read_shelf(&self) {
        let kept = self.shelf.load().await;
        // Oldest first, so that the newest arrive last and stay longest.
        for (url, pem) in kept.into_iter().take(MAX_GOOD).rev() {
            let Some(region) = certificate_region(&url) else {
                continue;
            };
            let origin = CertificateOrigin::Sns {
                region: region.into(),
            };
            match self.judge(&pem, &origin) {
                Ok(certificate) => {
                    certificate.prove();
                    self.write().add_good(&url, &Arc::new(certificate));
                }
                Err(refusal) => tracing::warn!(
                    reason = refusal.code(),
                    "a stored signing certificate is passed over: {refusal}"
                ),
            }
        }
    }

    // A panic can't leave the maps half-changed in a way that matters: at worst a
    // certificate is fetched again.
    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many good certificates, failures and fetches under way are held.
    #[cfg(test)]
    fn sizes(&self) -> (usize, usize, usize) {
        let held = self.read();
        (held.good.len(), held.failures.len(), held.flights.len())
    }
}

/// When a fetch would begin, and whether it counts.
struct Allowance {
    now: Timestamp,
    limited: bool,
}

impl Held {
    fn next_step(
        &mut self,
        url: &str,
        stale: Option<&Arc<Certificate>>,
        allowance: Allowance,
    ) -> Step {
        if let Some(good) = self.good.get(url)
            && stale.is_none_or(|stale| !Arc::ptr_eq(stale, &good.certificate))
        {
            return Step::Have(Ok(Arc::clone(&good.certificate)));
        }
        if let Some(flight) = self.flights.get(url) {
            return Step::Await(flight.clone());
        }
        if let Some(failure) = self.failures.get(url)
            && failure.is_fresh(allowance.now)
        {
            return Step::Have(Err(failure.refusal.clone()));
        }
        if allowance.limited && !self.begin_fetch(allowance.now) {
            return Step::Have(Err(Refusal::CertificateUnavailable(format!(
                "{MAX_FETCHES} certificates were asked for within a minute already"
            ))));
        }
        let (landing, flight) = watch::channel(None);
        self.flights.insert(url.to_owned(), flight.clone());
        Step::Fetch(landing, flight)
    }

    /// Counts one fetch, unless there were [`MAX_FETCHES`] in the last [`FETCH_PERIOD`].
    fn begin_fetch(&mut self, now: Timestamp) -> bool {
        // A moment that is still to come means that the clock was set back.
        self.begun
            .retain(|begun| *begun <= now && now.since(*begun) < FETCH_PERIOD);
        if self.begun.len() >= MAX_FETCHES {
            return false;
        }
        self.begun.push_back(now);
        true
    }

    fn add_good(&mut self, url: &str, certificate: &Arc<Certificate>) {
        self.failures.remove(url);
        if self.good.len() >= MAX_GOOD && !self.good.contains_key(url) {
            self.drop_one_good();
        }
        self.arrivals += 1;
        self.good.insert(
            url.to_owned(),
            Good {
                certificate: Arc::clone(certificate),
                arrival: self.arrivals,
            },
        );
    }

    /// One that never verified a message goes before any that has.
    fn drop_one_good(&mut self) {
        let victim = self
            .good
            .iter()
            .min_by_key(|(_, good)| (good.certificate.is_proven(), good.arrival))
            .map(|(url, _)| url.clone());
        if let Some(url) = victim {
            self.good.remove(&url);
        }
    }

    fn add_failure(&mut self, url: &str, refusal: &Refusal, now: Timestamp) {
        self.failures.retain(|_, failure| failure.is_fresh(now));
        if self.failures.len() < MAX_FAILURES {
            let failure = Failure {
                at: now,
                refusal: refusal.clone(),
            };
            self.failures.insert(url.to_owned(), failure);
        }
    }
}

impl Failure {
    fn is_fresh(&self, now: Timestamp) -> bool {
        self.at <= now && now.since(self.at) < FAILURE_MEMORY
    }
}

async fn fetch_pem(client: &reqwest::Client, url: &str) -> Result<Vec<u8>, Refusal> {
    let response = client
        .get(url)
        .send()
        .await
        .map_err(|error| Refusal::CertificateUnavailable(egress::describe(error)))?;
    let status = response.status();
    if status != reqwest::StatusCode::OK {
        return Err(Refusal::CertificateUnavailable(format!(
            "the server answered {}",
            status.as_u16()
        )));
    }
    egress::read_body(response, MAX_CERTIFICATE_BYTES)
        .await
        .map_err(|error| Refusal::CertificateUnavailable(error.to_string()))
}

async fn read_pem(folder: &std::path::Path, url: &str) -> Result<Vec<u8>, Refusal> {
    let name = url
        .split(['?', '#'])
        .next()
        .and_then(|path| path.rsplit('/').next())
        .filter(|name| !name.is_empty() && !name.starts_with('.') && !name.contains(['\\', ':']))
        .ok_or_else(|| {
            Refusal::CertificateUnavailable("its URL ends in no file name".to_owned())
        })?;
    let path = folder.join(name);
    let unavailable = |why: &dyn std::fmt::Display| {
        Refusal::CertificateUnavailable(format!("{}: {why}", path.display()))
    };
    let size = tokio::fs::metadata(&path)
        .await
        .map_err(|error| unavailable(&error))?
        .len();
    if size > MAX_CERTIFICATE_BYTES as u64 {
        return Err(unavailable(&"too large for a certificate"));
    }
    tokio::fs::read(&path)
        .await
        .map_err(|error| unavailable(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SnsConfig;
    use crate::emulator::signer::{SNS_NAME, Signer};

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-23T08:00:00Z").unwrap()
    }

    fn certificates(source: Source, clock: &Clock) -> Arc<Certificates> {
        let config = SnsConfig {
            local_origins: vec!["http://127.0.0.1:1".to_owned()],
            ..SnsConfig::default()
        };
        Arc::new(Certificates::new(
            source,
            Arc::new(Policy::new(&config)),
            clock.clone(),
            Arc::new(NoShelf),
        ))
    }

    fn certificate() -> Arc<Certificate> {
        let signer = Signer::generate(SNS_NAME, now(), now().after(FETCH_PERIOD)).unwrap();
        Arc::new(Certificate::parse(signer.certificate_pem().as_bytes(), None).unwrap())
    }

    #[tokio::test]
    async fn ten_thousand_urls_take_bounded_memory() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(now());
        // Nothing is to be found under either; a folder is read without limit.
        let sources = [
            Source::Network(egress::client(CERTIFICATE_TIMEOUT).unwrap()),
            Source::Folder(folder.path().to_owned()),
        ];
        for source in sources {
            let certificates = certificates(source, &clock);
            for number in 0..10_000 {
                let url = format!("http://127.0.0.1:1/{number}.pem");
                let got = certificates.get(&url, &CertificateOrigin::Local).await;
                assert!(got.is_err());
                if number % 100 == 0 {
                    clock.advance(Duration::from_secs(1));
                }
            }
            let (good, failures, flights) = certificates.sizes();
            assert_eq!((good, flights), (0, 0));
            assert!(failures <= MAX_FAILURES, "{failures}");
        }
    }

    #[test]
    fn a_flood_of_good_certificates_does_not_push_out_one_that_has_proven_itself() {
        let mut held = Held::default();
        let ours = certificate();
        ours.prove();
        held.add_good("ours", &ours);
        let flood = certificate();

        for number in 0..1000 {
            held.add_good(&format!("flood-{number}"), &flood);
        }

        assert_eq!(held.good.len(), MAX_GOOD);
        assert!(held.good.contains_key("ours"));
        assert!(held.good.contains_key("flood-999"), "the newest came in");
    }

    #[test]
    fn a_flood_of_failures_is_forgotten_in_time_and_leaves_good_ones_alone() {
        let mut held = Held::default();
        held.add_good("ours", &certificate());
        for number in 0..1000 {
            held.add_failure(
                &format!("failure-{number}"),
                &Refusal::CertificateName,
                now(),
            );
        }
        assert_eq!(held.failures.len(), MAX_FAILURES);

        held.add_failure(
            "later",
            &Refusal::CertificateName,
            now().after(FAILURE_MEMORY),
        );

        assert_eq!(held.failures.len(), 1);
        assert!(held.good.contains_key("ours"));
    }

    #[test]
    fn ten_fetches_begin_in_a_minute_and_the_next_ones_in_the_next() {
        let mut held = Held::default();
        let begun = (0..100).filter(|_| held.begin_fetch(now())).count();
        assert_eq!(begun, MAX_FETCHES);
        let almost = now().after(FETCH_PERIOD.saturating_sub(Duration::from_millis(1)));
        assert!(!held.begin_fetch(almost));
        assert!(held.begin_fetch(now().after(FETCH_PERIOD)));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_the_fetching() {
        let mut held = Held::default();
        for _ in 0..MAX_FETCHES {
            assert!(held.begin_fetch(now()));
        }
        assert!(!held.begin_fetch(now()));

        assert!(held.begin_fetch(now().before(Duration::from_secs(3 * 3600))));
    }
}
