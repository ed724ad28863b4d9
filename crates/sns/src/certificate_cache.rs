//! Fetches signing certificates and caches them.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OnceCell, watch};

use crate::certificate::Certificate;
use crate::error::VerifyError;
use crate::http;
use crate::policy::{CertificateOrigin, Policy, certificate_region};
use crate::time::{Clock, Timestamp};

/// Longest time for fetching a certificate, body included.
pub const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(4);
/// The largest certificate that is read; AWS's have about 2 KiB.
pub const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;
/// Number of certificates that are fetched within [`FETCH_PERIOD`] for messages that claim an
/// allowed topic, whatever their URLs.
pub const MAX_FETCHES: usize = 10;
/// Number of further fetches for messages that name one of the program's own subscriptions:
/// strangers don't know their ARNs, and so can't use this reserve up.
pub const RESERVED_FETCHES: usize = 5;
/// Number of fetches for confirmations of unknown topics, apart from all others.
pub const UNKNOWN_TOPIC_FETCHES: usize = 3;
/// See [`MAX_FETCHES`].
pub const FETCH_PERIOD: Duration = Duration::from_secs(60);
/// Time for which a failure is remembered: less than the 20 s after which SNS retries.
pub const FAILURE_MEMORY: Duration = Duration::from_secs(15);
/// Number of good certificates that are cached.
pub const MAX_GOOD: usize = 32;
/// Number of failures that are cached, apart from the good ones.
pub const MAX_FAILURES: usize = 64;

/// Persistent storage for certificates that have verified a message.
#[async_trait]
pub trait CertificateStore: Send + Sync {
    /// Returns every stored certificate, as URL and PEM, newest first.
    async fn load(&self) -> Vec<(String, Vec<u8>)>;
    /// Stores one certificate.
    async fn save(&self, url: &str, pem: &[u8]);
}

/// Stores nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCertificateStore;

#[async_trait]
impl CertificateStore for NoCertificateStore {
    async fn load(&self) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }
    async fn save(&self, _: &str, _: &[u8]) {}
}

/// The source of certificates.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The URL in the message.
    Network(reqwest::Client),
    /// `DIR/<last path segment of the URL>`; nothing is fetched.
    Folder(PathBuf),
}

/// What a message claims that needs a certificate, which decides who pays for the fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is of an allowed topic, and names one of the program's own subscriptions.
    OwnSubscription,
    /// It is of an allowed topic.
    AllowedTopic,
    /// It is of a topic that is not allowed.
    UnknownTopic,
}

/// The certificates that were fetched, and the fetches in progress.
///
/// A flood of made-up URLs costs at most [`MAX_FETCHES`] requests in
/// [`FETCH_PERIOD`] and never pushes out a good certificate.
pub(super) struct CertificateCache {
    source: Source,
    policy: Arc<Policy>,
    clock: Clock,
    store: Arc<dyn CertificateStore>,
    store_read: OnceCell<()>,
    entries: RwLock<Entries>,
}

type Fetched = Result<Arc<Certificate>, VerifyError>;
type PendingFetch = watch::Receiver<Option<Fetched>>;

#[derive(Default)]
struct Entries {
    good: HashMap<String, Good>,
    failures: HashMap<String, Failure>,
    /// Fetches in progress, so that many waiters share one.
    pending: HashMap<String, PendingFetch>,
    started: Starts,
    reserved: Starts,
    unknown_topics: Starts,
    arrivals: u64,
}

/// Start times of the last fetches.
#[derive(Default)]
struct Starts(VecDeque<Timestamp>);

struct Good {
    certificate: Arc<Certificate>,
    arrival: u64,
    /// When a newer one was last asked for, because its dates did not fit.
    refreshed_at: Option<Timestamp>,
}

struct Failure {
    at: Timestamp,
    error: VerifyError,
}

/// The next step for a certificate that is not cached.
enum Step {
    Have(Fetched),
    Await(PendingFetch),
    Fetch(watch::Sender<Option<Fetched>>, PendingFetch),
}

impl CertificateCache {
    pub(super) fn new(
        source: Source,
        policy: Arc<Policy>,
        clock: Clock,
        store: Arc<dyn CertificateStore>,
    ) -> Self {
        Self {
            source,
            policy,
            clock,
            store,
            store_read: OnceCell::new(),
            entries: RwLock::default(),
        }
    }

    /// Returns the certificate at `url` if it is cached, as for nearly every message.
    pub(super) fn cached(&self, url: &str) -> Option<Arc<Certificate>> {
        let entries = self.read();
        entries
            .good
            .get(url)
            .map(|good| Arc::clone(&good.certificate))
    }

    /// Returns the certificate at `url`, which policy allows: from memory, from the store,
    /// or fetched, once for all callers that ask at the same time.
    pub(super) async fn get(
        self: &Arc<Self>,
        url: &str,
        origin: &CertificateOrigin<'_>,
        claim: Claim,
    ) -> Fetched {
        if let Some(certificate) = self.cached(url) {
            return Ok(certificate);
        }
        self.load().await;
        self.obtain(url, origin, claim, None).await
    }

    /// Loads the stored certificates, unless that is done already.
    pub(super) async fn load(&self) {
        self.store_read.get_or_init(|| self.read_store()).await;
    }

    /// Returns true if a newer certificate than the cached one at `url` should be fetched,
    /// because its dates did not fit; at most once in [`FETCH_PERIOD`].
    pub(super) fn may_refresh(&self, url: &str) -> bool {
        let now = self.clock.now();
        match self.write().good.get_mut(url) {
            Some(good) => {
                let due = good
                    .refreshed_at
                    .is_none_or(|last| !is_within(last, now, FETCH_PERIOD));
                if due {
                    good.refreshed_at = Some(now);
                }
                due
            }
            None => false,
        }
    }

    /// Fetches a newer certificate at `url` than `stale`; returns `None` if there is none
    /// or the fetch fails, which leaves the cached one as it is.
    pub(super) async fn newer(
        self: &Arc<Self>,
        url: &str,
        origin: &CertificateOrigin<'_>,
        claim: Claim,
        stale: &Arc<Certificate>,
    ) -> Option<Arc<Certificate>> {
        let fetched = self.obtain(url, origin, claim, Some(stale)).await.ok()?;
        (fetched.pem() != stale.pem()).then_some(fetched)
    }

    /// Marks `certificate` as having verified a message; stores it the first time.
    pub(super) async fn mark_proven(
        &self,
        url: &str,
        origin: &CertificateOrigin<'_>,
        certificate: &Certificate,
    ) {
        // A local origin's certificate may change under the same URL.
        if certificate.mark_proven() && *origin != CertificateOrigin::Local {
            self.store.save(url, certificate.pem()).await;
        }
    }

    async fn obtain(
        self: &Arc<Self>,
        url: &str,
        origin: &CertificateOrigin<'_>,
        claim: Claim,
        stale: Option<&Arc<Certificate>>,
    ) -> Fetched {
        let step = self.write().next_step(url, stale, self.allowance(claim));
        let mut fetch = match step {
            Step::Have(outcome) => return outcome,
            Step::Await(fetch) => fetch,
            Step::Fetch(done, fetch) => {
                let certificates = Arc::clone(self);
                let (url, origin) = (url.to_owned(), origin.clone().into_owned());
                // A task of its own: the first caller may be canceled, and the others
                // still get the certificate.
                tokio::spawn(async move {
                    let outcome = certificates.fetch(&url, &origin).await;
                    certificates.settle(&url, &outcome);
                    done.send_replace(Some(outcome));
                });
                fetch
            }
        };
        let result = fetch.wait_for(Option::is_some).await;
        match result.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => {
                self.write().pending.remove(url);
                Err(VerifyError::CertificateUnavailable(
                    "the request was canceled".to_owned(),
                ))
            }
        }
    }

    fn allowance(&self, claim: Claim) -> Allowance {
        Allowance {
            now: self.clock.now(),
            // Reading a folder makes no requests.
            limited: matches!(self.source, Source::Network(_)).then_some(claim),
        }
    }

    async fn fetch(&self, url: &str, origin: &CertificateOrigin<'_>) -> Fetched {
        let fetched = match &self.source {
            Source::Network(client) => fetch_pem(client, url).await,
            Source::Folder(folder) => read_pem(folder, url).await,
        };
        match fetched {
            Ok(pem) => self.check(&pem, origin).map(Arc::new),
            // Another process that shares the store may have fetched it.
            Err(error) => {
                self.read_store().await;
                self.cached(url).ok_or(error)
            }
        }
    }

    fn check(
        &self,
        pem: &[u8],
        origin: &CertificateOrigin<'_>,
    ) -> Result<Certificate, VerifyError> {
        match origin {
            CertificateOrigin::Sns { region } => {
                let name = self.policy.certificate_name(region);
                let name = name.ok_or(VerifyError::UntrustedCertificateUrl)?;
                Certificate::parse(pem, Some(&name))
            }
            CertificateOrigin::Local => Certificate::parse(pem, None),
        }
    }

    fn settle(&self, url: &str, outcome: &Fetched) {
        let now = self.clock.now();
        let mut entries = self.write();
        entries.pending.remove(url);
        match outcome {
            Ok(certificate) => entries.add_good(url, certificate),
            Err(error) => entries.add_failure(url, error, now),
        }
    }

    /// Loads the stored certificates that pass the present policy.
    async fn read_store(&self) {
        let stored = self.store.load().await;
        // Oldest first, so that the newest arrive last and stay longest.
        for (url, pem) in stored.into_iter().take(MAX_GOOD).rev() {
            let Some(region) = certificate_region(&url) else {
                continue;
            };
            let origin = CertificateOrigin::Sns {
                region: region.into(),
            };
            match self.check(&pem, &origin) {
                Ok(certificate) => {
                    certificate.mark_proven();
                    self.write().add_good(&url, &Arc::new(certificate));
                }
                Err(error) => tracing::warn!(
                    reason = error.code(),
                    "skipped a stored signing certificate: {error}"
                ),
            }
        }
    }

    // A panic can't leave the maps half-changed in a way that matters: at worst a
    // certificate is fetched again.
    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the numbers of good certificates, failures and fetches in progress.
    #[cfg(test)]
    fn sizes(&self) -> (usize, usize, usize) {
        let entries = self.read();
        (
            entries.good.len(),
            entries.failures.len(),
            entries.pending.len(),
        )
    }
}

/// The start time of a fetch, and the claim whose limit it counts against; `None` is not
/// limited.
struct Allowance {
    now: Timestamp,
    limited: Option<Claim>,
}

impl Entries {
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
        if let Some(fetch) = self.pending.get(url) {
            return Step::Await(fetch.clone());
        }
        if let Some(failure) = self.failures.get(url)
            && failure.is_fresh(allowance.now)
        {
            return Step::Have(Err(failure.error.clone()));
        }
        if let Some(claim) = allowance.limited
            && !self.start_fetch(claim, allowance.now)
        {
            return Step::Have(Err(VerifyError::CertificateUnavailable(
                "too many certificates were fetched within a minute already".to_owned(),
            )));
        }
        let (done, fetch) = watch::channel(None);
        self.pending.insert(url.to_owned(), fetch.clone());
        Step::Fetch(done, fetch)
    }

    /// Counts one fetch and returns true, unless the limit of `claim` is reached.
    fn start_fetch(&mut self, claim: Claim, now: Timestamp) -> bool {
        match claim {
            Claim::OwnSubscription => {
                self.started.add(now, MAX_FETCHES) || self.reserved.add(now, RESERVED_FETCHES)
            }
            Claim::AllowedTopic => self.started.add(now, MAX_FETCHES),
            Claim::UnknownTopic => self.unknown_topics.add(now, UNKNOWN_TOPIC_FETCHES),
        }
    }

    fn add_good(&mut self, url: &str, certificate: &Arc<Certificate>) {
        self.failures.remove(url);
        let replaced = self.good.get(url);
        let refreshed_at = replaced.and_then(|good| good.refreshed_at);
        if self.good.len() >= MAX_GOOD && replaced.is_none() {
            self.evict_one_good();
        }
        self.arrivals += 1;
        self.good.insert(
            url.to_owned(),
            Good {
                certificate: Arc::clone(certificate),
                arrival: self.arrivals,
                refreshed_at,
            },
        );
    }

    /// Evicts one certificate; those that never verified a message go first.
    fn evict_one_good(&mut self) {
        let victim = self
            .good
            .iter()
            .min_by_key(|(_, good)| (good.certificate.is_proven(), good.arrival))
            .map(|(url, _)| url.clone());
        if let Some(url) = victim {
            self.good.remove(&url);
        }
    }

    fn add_failure(&mut self, url: &str, error: &VerifyError, now: Timestamp) {
        self.failures.retain(|_, failure| failure.is_fresh(now));
        if self.failures.len() < MAX_FAILURES {
            let failure = Failure {
                at: now,
                error: error.clone(),
            };
            self.failures.insert(url.to_owned(), failure);
        }
    }
}

impl Starts {
    /// Adds a start and returns true, unless there were `limit` in the last [`FETCH_PERIOD`].
    fn add(&mut self, now: Timestamp, limit: usize) -> bool {
        self.0.retain(|start| is_within(*start, now, FETCH_PERIOD));
        if self.0.len() >= limit {
            return false;
        }
        self.0.push_back(now);
        true
    }
}

impl Failure {
    fn is_fresh(&self, now: Timestamp) -> bool {
        is_within(self.at, now, FAILURE_MEMORY)
    }
}

/// Returns true if `moment` is less than `period` ago. One in the future is not: the clock was
/// set back.
fn is_within(moment: Timestamp, now: Timestamp, period: Duration) -> bool {
    moment <= now && now.since(moment) < period
}

async fn fetch_pem(client: &reqwest::Client, url: &str) -> Result<Vec<u8>, VerifyError> {
    let response = client
        .get(url)
        .send()
        .await
        .map_err(|error| VerifyError::CertificateUnavailable(http::describe(error)))?;
    let status = response.status();
    if status != reqwest::StatusCode::OK {
        return Err(VerifyError::CertificateUnavailable(format!(
            "the server answered {}",
            status.as_u16()
        )));
    }
    http::read_body(response, MAX_CERTIFICATE_BYTES)
        .await
        .map_err(|error| VerifyError::CertificateUnavailable(error.to_string()))
}

async fn read_pem(folder: &std::path::Path, url: &str) -> Result<Vec<u8>, VerifyError> {
    let name = url
        .split(['?', '#'])
        .next()
        .and_then(|path| path.rsplit('/').next())
        .filter(|name| !name.is_empty() && !name.starts_with('.') && !name.contains(['\\', ':']))
        .ok_or_else(|| {
            VerifyError::CertificateUnavailable("its URL ends in no file name".to_owned())
        })?;
    let path = folder.join(name);
    let unavailable = |why: &dyn std::fmt::Display| {
        VerifyError::CertificateUnavailable(format!("{}: {why}", path.display()))
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
    use crate::samples;
    use crate::settings::Settings;

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-23T08:00:00Z").unwrap()
    }

    fn certificates(source: Source, clock: &Clock) -> Arc<CertificateCache> {
        let settings = Settings {
            local_origins: vec!["http://127.0.0.1:1".to_owned()],
            ..Settings::default()
        };
        Arc::new(CertificateCache::new(
            source,
            Arc::new(Policy::new(&settings)),
            clock.clone(),
            Arc::new(NoCertificateStore),
        ))
    }

    fn certificate() -> Arc<Certificate> {
        Arc::new(Certificate::parse(samples::SNS.as_bytes(), None).unwrap())
    }

    #[tokio::test]
    async fn ten_thousand_urls_take_bounded_memory() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(now());
        // Neither has a certificate; a folder is read without limit.
        let sources = [
            Source::Network(http::client("test", None, CERTIFICATE_TIMEOUT).unwrap()),
            Source::Folder(folder.path().to_owned()),
        ];
        for source in sources {
            let certificates = certificates(source, &clock);
            for number in 0..10_000 {
                let url = format!("http://127.0.0.1:1/{number}.pem");
                let local = CertificateOrigin::Local;
                let got = certificates.get(&url, &local, Claim::AllowedTopic).await;
                assert!(got.is_err());
                if number % 100 == 0 {
                    clock.advance(Duration::from_secs(1));
                }
            }
            let (good, failures, pending) = certificates.sizes();
            assert_eq!((good, pending), (0, 0));
            assert!(failures <= MAX_FAILURES, "{failures}");
        }
    }

    #[tokio::test]
    async fn a_store_of_nothing_has_nothing() {
        NoCertificateStore.save("url", b"pem").await;
        assert_eq!(NoCertificateStore.load().await, []);
    }

    /// Remembers what is saved.
    #[derive(Default)]
    struct RecordingStore(std::sync::Mutex<Vec<(String, Vec<u8>)>>);

    #[async_trait]
    impl CertificateStore for RecordingStore {
        async fn load(&self) -> Vec<(String, Vec<u8>)> {
            Vec::new()
        }
        async fn save(&self, url: &str, pem: &[u8]) {
            let saved = (url.to_owned(), pem.to_vec());
            self.0.lock().unwrap().push(saved);
        }
    }

    #[tokio::test]
    async fn a_certificate_of_sns_is_stored_when_it_first_verifies() {
        let store = Arc::new(RecordingStore::default());
        let cache = CertificateCache::new(
            Source::Folder(PathBuf::new()),
            Arc::new(Policy::new(&Settings::default())),
            Clock::manual(now()),
            Arc::clone(&store) as _,
        );
        let sns = CertificateOrigin::Sns {
            region: "eu-west-1".into(),
        };
        let (of_sns, local) = (certificate(), certificate());
        for _ in 0..2 {
            cache.mark_proven("sns", &sns, &of_sns).await;
            let origin = CertificateOrigin::Local;
            cache.mark_proven("local", &origin, &local).await;
        }
        let expected = ("sns".to_owned(), samples::SNS.as_bytes().to_vec());
        assert_eq!(*store.0.lock().unwrap(), [expected]);
        assert!(of_sns.is_proven() && local.is_proven());
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "files of a test")]
    async fn a_folder_gives_files_by_name_up_to_a_size() {
        let folder = tempfile::tempdir().unwrap();
        let largest = vec![b'-'; MAX_CERTIFICATE_BYTES];
        for name in ["largest.pem", ".hidden", "a:b", "a\\b"] {
            std::fs::write(folder.path().join(name), &largest).unwrap();
        }
        let larger = [&largest[..], b"-"].concat();
        std::fs::write(folder.path().join("larger.pem"), larger).unwrap();
        let read = async |url: &str| read_pem(folder.path(), url).await;

        for url in ["https://host/largest.pem", "largest.pem?query/b#c/d"] {
            assert_eq!(read(url).await.as_ref(), Ok(&largest), "{url}");
        }
        for name in [
            "larger.pem",
            "missing.pem",
            "",
            ".",
            "..",
            ".hidden",
            "a:b",
            "a\\b",
        ] {
            let url = format!("https://host/{name}");
            assert!(read(&url).await.is_err(), "{url}");
        }
    }

    #[test]
    fn the_oldest_of_the_unproven_certificates_is_evicted() {
        let mut entries = Entries::default();
        for number in 0..=MAX_GOOD {
            entries.add_good(&number.to_string(), &certificate());
        }
        // Added again, it is the newest.
        entries.add_good("1", &certificate());
        entries.add_good("another", &certificate());

        for evicted in ["0", "2"] {
            assert!(!entries.good.contains_key(evicted), "{evicted}");
        }
        assert_eq!(entries.good.len(), MAX_GOOD);
    }

    #[test]
    fn a_flood_of_certificates_does_not_evict_a_proven_one() {
        let mut entries = Entries::default();
        let ours = certificate();
        ours.mark_proven();
        entries.add_good("ours", &ours);
        let flood = certificate();

        for number in 0..1000 {
            entries.add_good(&format!("flood-{number}"), &flood);
        }

        assert_eq!(entries.good.len(), MAX_GOOD);
        assert!(entries.good.contains_key("ours"));
        assert!(entries.good.contains_key("flood-999"), "the newest came in");
    }

    #[test]
    fn a_flood_of_failures_expires_and_keeps_good_ones() {
        let mut entries = Entries::default();
        entries.add_good("ours", &certificate());
        for number in 0..1000 {
            entries.add_failure(
                &format!("failure-{number}"),
                &VerifyError::CertificateName,
                now(),
            );
        }
        assert_eq!(entries.failures.len(), MAX_FAILURES);

        entries.add_failure(
            "later",
            &VerifyError::CertificateName,
            now().after(FAILURE_MEMORY),
        );

        assert_eq!(entries.failures.len(), 1);
        assert!(entries.good.contains_key("ours"));
    }

    #[test]
    fn ten_fetches_begin_in_a_minute_and_the_next_ones_in_the_next() {
        let mut entries = Entries::default();
        let mut start = |at| entries.start_fetch(Claim::AllowedTopic, at);
        let started = (0..100).filter(|_| start(now())).count();
        assert_eq!(started, MAX_FETCHES);
        let almost = now().after(FETCH_PERIOD.saturating_sub(Duration::from_millis(1)));
        assert!(!start(almost));
        assert!(start(now().after(FETCH_PERIOD)));
    }

    #[test]
    fn strangers_use_up_neither_the_reserve_nor_each_others_fetches() {
        let mut entries = Entries::default();
        let mut started = |claim| {
            (0..100)
                .filter(|_| entries.start_fetch(claim, now()))
                .count()
        };
        assert_eq!(started(Claim::UnknownTopic), UNKNOWN_TOPIC_FETCHES);
        assert_eq!(started(Claim::AllowedTopic), MAX_FETCHES);
        assert_eq!(started(Claim::OwnSubscription), RESERVED_FETCHES);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_the_fetching() {
        let mut entries = Entries::default();
        let mut start = |at| entries.start_fetch(Claim::AllowedTopic, at);
        for _ in 0..MAX_FETCHES {
            assert!(start(now()));
        }
        assert!(!start(now()));

        assert!(start(now().before(Duration::from_secs(3 * 3600))));
    }
}
