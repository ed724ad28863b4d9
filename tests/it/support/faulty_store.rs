//! A store that fails on demand, around a real one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ivesk_webhook::domain::{Account, DestinationName, Event, Feed, Timestamp};
use ivesk_webhook::sns::UnknownTopicConfirmation;
use ivesk_webhook::store::*;
use tokio::sync::{Semaphore, watch};

/// Fault of the next messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Every statement fails.
    Down,
    /// The queue is full.
    QueueFull,
    /// The disk is full: reads work.
    DiskFull,
    /// The writer has ended: reads work.
    Closed,
    /// The commit works, but its answer is lost.
    AnswerLost,
    /// The store panics.
    Panic,
}

pub(crate) struct FaultyStore {
    real: SharedStore,
    fault: Mutex<Option<Fault>>,
    free_bytes: Mutex<Option<u64>>,
    gate: Semaphore,
    waiting: Semaphore,
    accepts: AtomicUsize,
    certificates_hang: AtomicBool,
}

const OPEN: usize = 1 << 20;

impl FaultyStore {
    pub(crate) fn around(real: SharedStore) -> Self {
        Self {
            real,
            fault: Mutex::new(None),
            free_bytes: Mutex::new(None),
            gate: Semaphore::new(OPEN),
            waiting: Semaphore::new(0),
            accepts: AtomicUsize::new(0),
            certificates_hang: AtomicBool::new(false),
        }
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    /// Leaves reads of certificates unanswered from now on.
    pub(crate) fn hang_certificates(&self) {
        self.certificates_hang.store(true, Ordering::SeqCst);
    }

    pub(crate) fn set_free_bytes(&self, bytes: u64) {
        *self.free_bytes.lock().unwrap() = Some(bytes);
    }

    /// Holds messages before their commit until [`FaultyStore::release`].
    pub(crate) fn hold(&self) {
        self.gate.forget_permits(OPEN);
    }

    pub(crate) fn release(&self) {
        self.gate.add_permits(OPEN);
    }

    /// Waits until `count` messages are held.
    pub(crate) async fn until_waiting(&self, count: u32) {
        self.waiting.acquire_many(count).await.unwrap().forget();
    }

    /// Returns the number of messages that reached the store.
    pub(crate) fn accepts(&self) -> usize {
        self.accepts.load(Ordering::SeqCst)
    }

    fn fault(&self) -> Option<Fault> {
        *self.fault.lock().unwrap()
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.fault() {
            Some(Fault::Down) => Err(StoreError::Database("planted: down".to_owned())),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn accept(&self, message: AcceptedMessage) -> Result<Insertion, StoreError> {
        self.accepts.fetch_add(1, Ordering::SeqCst);
        self.waiting.add_permits(1);
        let _pass = self.gate.acquire().await.unwrap();
        match self.fault() {
            Some(Fault::Down) => Err(StoreError::Database("planted: down".to_owned())),
            Some(Fault::QueueFull) => Err(StoreError::QueueFull),
            Some(Fault::DiskFull) => Err(StoreError::DiskFull {
                path: PathBuf::from("planted.db"),
            }),
            Some(Fault::Closed) => Err(StoreError::Closed),
            Some(Fault::AnswerLost) => {
                self.real.accept(message).await?;
                Err(StoreError::Database("planted: answer lost".to_owned()))
            }
            Some(Fault::Panic) => panic!("planted"),
            None => self.real.accept(message).await,
        }
    }

    async fn probe(&self) -> Result<(), StoreError> {
        match self.fault() {
            Some(Fault::DiskFull) => Err(StoreError::DiskFull {
                path: PathBuf::from("planted.db"),
            }),
            Some(Fault::Closed) => Err(StoreError::Closed),
            _ => {
                self.check()?;
                self.real.probe().await
            }
        }
    }

    fn offer_quarantine(&self, item: Quarantined) -> bool {
        self.real.offer_quarantine(item)
    }

    fn queue_lengths(&self) -> QueueLengths {
        self.real.queue_lengths()
    }

    async fn notifications(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<NotificationRow>, StoreError> {
        self.real.notifications(after, limit).await
    }

    async fn trigger(&self, triggers: Vec<Trigger>) -> Result<(), StoreError> {
        self.real.trigger(triggers).await
    }

    async fn register_feeds(&self, feeds: Vec<Feed>, now: Timestamp) -> Result<(), StoreError> {
        self.real.register_feeds(feeds, now).await
    }

    async fn trigger_reconciliation(&self, due_at: Timestamp) -> Result<usize, StoreError> {
        self.real.trigger_reconciliation(due_at).await
    }

    async fn lease_page(&self, request: LeaseRequest) -> Result<Option<PageLease>, StoreError> {
        self.real.lease_page(request).await
    }

    async fn commit_page(
        &self,
        lease: PageLease,
        page: PageToCommit,
        plan: PullPlan,
    ) -> Result<PageOutcome, StoreError> {
        self.real.commit_page(lease, page, plan).await
    }

    async fn fail_page(
        &self,
        lease: PageLease,
        failure: PageFailure,
        error: String,
    ) -> Result<(), StoreError> {
        self.real.fail_page(lease, failure, error).await
    }

    async fn release_page(&self, lease: PageLease) -> Result<(), StoreError> {
        self.real.release_page(lease).await
    }

    async fn next_due(&self, request: LeaseRequest) -> Result<Option<Timestamp>, StoreError> {
        self.real.next_due(request).await
    }

    async fn triggered(&self) {
        self.real.triggered().await;
    }

    async fn set_paused(
        &self,
        account: Account,
        feed: Option<Feed>,
        paused: bool,
    ) -> Result<usize, StoreError> {
        self.real.set_paused(account, feed, paused).await
    }

    async fn feeds(&self) -> Result<Vec<FeedRow>, StoreError> {
        self.check()?;
        self.real.feeds().await
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        self.real.accounts().await
    }

    async fn documents(&self, filter: DocumentFilter) -> Result<Vec<DocumentRow>, StoreError> {
        self.real.documents(filter).await
    }

    async fn search_documents(&self, look: DocumentSearch) -> Result<FoundDocuments, StoreError> {
        self.check()?;
        self.real.search_documents(look).await
    }

    async fn known_versions(
        &self,
        feed: Feed,
        versions: Vec<(String, String)>,
    ) -> Result<Vec<bool>, StoreError> {
        self.real.known_versions(feed, versions).await
    }

    async fn sequence(&self) -> Result<SequenceRow, StoreError> {
        self.check()?;
        self.real.sequence().await
    }

    async fn subscription_requested(
        &self,
        account: Account,
        event: Event,
        name: String,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        self.real
            .subscription_requested(account, event, name, now)
            .await
    }

    async fn subscriptions(&self) -> Result<Vec<SubscriptionRow>, StoreError> {
        self.check()?;
        self.real.subscriptions().await
    }

    async fn offer_unknown_topic(
        &self,
        account: Account,
        event: Event,
        confirmation: Arc<UnknownTopicConfirmation>,
        received_at: Timestamp,
        valid_since: Timestamp,
    ) -> Result<UnknownTopicOffer, StoreError> {
        self.check()?;
        self.real
            .offer_unknown_topic(account, event, confirmation, received_at, valid_since)
            .await
    }

    async fn allowed_topics(&self, limit: usize) -> Result<Vec<String>, StoreError> {
        self.check()?;
        self.real.allowed_topics(limit).await
    }

    async fn is_topic_allowed(&self, topic_arn: String) -> Result<bool, StoreError> {
        self.check()?;
        self.real.is_topic_allowed(topic_arn).await
    }

    async fn change_subscription(
        &self,
        id: i64,
        change: SubscriptionChange,
        now: Timestamp,
    ) -> Result<Option<SubscriptionRow>, StoreError> {
        self.real.change_subscription(id, change, now).await
    }

    async fn quarantine(&self, after: i64, limit: usize) -> Result<Vec<QuarantineRow>, StoreError> {
        self.real.quarantine(after, limit).await
    }

    async fn remove_quarantined(&self, id: i64) -> Result<(), StoreError> {
        self.real.remove_quarantined(id).await
    }

    async fn activity(&self, since: Timestamp) -> Result<Activity, StoreError> {
        self.check()?;
        self.real.activity(since).await
    }

    async fn certificates(&self) -> Result<Vec<CertificateRow>, StoreError> {
        if self.certificates_hang.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.real.certificates().await
    }

    async fn keep_certificate(&self, certificate: CertificateRow) -> Result<(), StoreError> {
        self.real.keep_certificate(certificate).await
    }

    async fn make_api_token(&self, token: NewApiToken) -> Result<ApiTokenMade, StoreError> {
        self.real.make_api_token(token).await
    }

    async fn api_tokens(&self) -> Result<Vec<ApiTokenRow>, StoreError> {
        self.real.api_tokens().await
    }

    async fn api_token(&self, hash: [u8; 32]) -> Result<Option<ApiTokenRow>, StoreError> {
        self.check()?;
        self.real.api_token(hash).await
    }

    async fn revoke_api_token(&self, id: i64) -> Result<bool, StoreError> {
        self.real.revoke_api_token(id).await
    }

    async fn begin_upload(&self, upload: NewUpload) -> Result<UploadBegun, StoreError> {
        self.real.begin_upload(upload).await
    }

    async fn end_upload(
        &self,
        id: i64,
        owner: String,
        end: UploadEnd,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.real.end_upload(id, owner, end, now).await
    }

    async fn newest_uploads(
        &self,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<UploadRow>, StoreError> {
        self.real.newest_uploads(before, limit).await
    }

    async fn uploads(&self, filter: UploadFilter) -> Result<Vec<UploadRow>, StoreError> {
        self.real.uploads(filter).await
    }

    async fn update_alarms(&self, look: AlarmObservation) -> Result<AlarmChanges, StoreError> {
        self.real.update_alarms(look).await
    }

    async fn alarms(&self, filter: AlarmFilter) -> Result<Vec<AlarmRow>, StoreError> {
        self.real.alarms(filter).await
    }

    async fn lease_notice(
        &self,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<AlarmNotice>, StoreError> {
        self.real.lease_notice(now, lease).await
    }

    async fn end_notice(
        &self,
        notice: AlarmNotice,
        end: NoticeEnd,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.real.end_notice(notice, end, now).await
    }

    async fn unannounced_documents(
        &self,
        stored_by: Timestamp,
    ) -> Result<Vec<UnannouncedDocuments>, StoreError> {
        self.real.unannounced_documents(stored_by).await
    }

    async fn retain(&self, retention: Retention) -> Result<RetentionOutcome, StoreError> {
        self.real.retain(retention).await
    }

    async fn backup(&self, to: PathBuf) -> Result<(), StoreError> {
        self.real.backup(to).await
    }

    async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        let planted = *self.free_bytes.lock().unwrap();
        match planted {
            Some(bytes) => Ok(Some(bytes)),
            None => self.real.free_bytes().await,
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.real.close().await
    }
}

#[async_trait]
impl DeliveryStore for FaultyStore {
    fn arrivals(&self) -> watch::Receiver<()> {
        self.real.arrivals()
    }

    async fn register_destinations(
        &self,
        destinations: Vec<(DestinationName, DestinationFilter)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.real.register_destinations(destinations, now).await
    }

    async fn lease_deliveries(
        &self,
        request: DeliveryLeaseRequest,
    ) -> Result<DeliveryLeased, StoreError> {
        self.real.lease_deliveries(request).await
    }

    async fn settle_deliveries(
        &self,
        lease: DeliveryLease,
        settled: Vec<Attempt>,
        afterwards: LeaseAction,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.real
            .settle_deliveries(lease, settled, afterwards, now)
            .await
    }

    async fn change_destination(
        &self,
        destination: DestinationName,
        change: DestinationChange,
        now: Timestamp,
    ) -> Result<Option<usize>, StoreError> {
        self.real.change_destination(destination, change, now).await
    }

    async fn record_outcome(
        &self,
        destination: DestinationName,
        sequence: i64,
        verdict: LateOutcome,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.real
            .record_outcome(destination, sequence, verdict, now)
            .await
    }

    async fn destinations(&self) -> Result<Vec<DestinationRow>, StoreError> {
        self.real.destinations().await
    }

    async fn held_feeds(
        &self,
        destination: DestinationName,
        filter: DestinationFilter,
    ) -> Result<Vec<HeldFeed>, StoreError> {
        self.real.held_feeds(destination, filter).await
    }

    async fn deliveries(&self, filter: DeliveryFilter) -> Result<Vec<DeliveryRow>, StoreError> {
        self.real.deliveries(filter).await
    }

    async fn listed(
        &self,
        destination: DestinationName,
        after: i64,
        limit: usize,
        limit_bytes: usize,
    ) -> Result<Vec<ListEntry>, StoreError> {
        self.real
            .listed(destination, after, limit, limit_bytes)
            .await
    }

    async fn lease_import_error(
        &self,
        accounts: Vec<Account>,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<ImportErrorLease>, StoreError> {
        self.real.lease_import_error(accounts, now, lease).await
    }

    async fn end_import_error(
        &self,
        lease: ImportErrorLease,
        end: ImportErrorOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.real.end_import_error(lease, end, now).await
    }

    async fn retry_import_error(&self, id: i64, now: Timestamp) -> Result<bool, StoreError> {
        self.real.retry_import_error(id, now).await
    }

    async fn import_errors(
        &self,
        filter: ImportErrorFilter,
    ) -> Result<Vec<ImportErrorRow>, StoreError> {
        self.real.import_errors(filter).await
    }
}
