//! A store of one test, with a clock that the test sets.

use std::time::Duration;

use ivesk_webhook::domain::{
    Account, Clock, Company, Correction, Cursor, DocumentVersion, Feed, Queue, Timestamp,
};
use ivesk_webhook::store::{
    DocumentFilter, FeedRow, LeaseRequest, PageEnd, PageLease, PageOutcome, PageToCommit, PullPlan,
    Retention, RetentionOutcome, SharedStore, StoreError, Trigger, TriggerKind,
};

use crate::support::databases::{Database, Options};

pub(super) const HOUR: Duration = Duration::from_secs(3600);
/// The moment at which the clocks of these tests start.
pub(super) const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

pub(super) struct TestStore {
    pub(super) store: SharedStore,
    pub(super) clock: Clock,
    // Last, so that the store is gone before its database.
    pub(super) database: Database,
}

impl TestStore {
    pub(super) async fn new(database: Database) -> Self {
        Self::with(database, |_| {}).await
    }

    pub(super) async fn with(database: Database, change: impl FnOnce(&mut Options)) -> Self {
        let clock = Clock::manual(START);
        let mut options = Options::at(clock.clone());
        change(&mut options);
        Self {
            store: database.open(options).await.expect("a fresh store opens"),
            clock,
            database,
        }
    }

    /// Creates one whose clock can be set ahead and back.
    pub(super) async fn with_correction(database: Database) -> (Self, Correction) {
        let (clock, correction) = Clock::manual(START).corrected();
        let store = database.open(Options::at(clock.clone())).await;
        let test = Self {
            store: store.expect("a fresh store opens"),
            clock,
            database,
        };
        (test, correction)
    }

    /// Closes and opens it, as a restart does.
    pub(super) async fn reopen(self) -> Self {
        self.store.close().await.expect("the store closes");
        let store = self.database.open(Options::at(self.clock.clone())).await;
        Self {
            store: store.expect("the store opens again"),
            ..self
        }
    }

    pub(super) async fn trigger(&self, feed: &Feed, kind: TriggerKind) {
        let trigger = Trigger {
            feed: feed.clone(),
            kind,
            due_at: self.clock.now(),
            from: None,
        };
        self.store
            .trigger(vec![trigger])
            .await
            .expect("the trigger is stored");
    }

    pub(super) fn request(&self) -> LeaseRequest {
        LeaseRequest {
            now: self.clock.now(),
            lease: Duration::from_secs(120),
            requests_per_account: 1,
            lookback: 24 * HOUR,
            min_interval: Duration::ZERO,
            reconcile_every: HOUR,
            queues: Queue::ALL.map(|queue| (account(), queue)).to_vec(),
        }
    }

    pub(super) async fn lease(&self) -> Option<PageLease> {
        self.lease_as(self.request()).await
    }

    pub(super) async fn lease_as(&self, request: LeaseRequest) -> Option<PageLease> {
        let leased = self.store.lease_page(request).await;
        leased.expect("leasing works")
    }

    pub(super) fn plan(&self) -> PullPlan {
        PullPlan {
            now: self.clock.now(),
            follow_ups: [Duration::from_secs(30), Duration::from_secs(300)],
            reconcile_every: HOUR,
            lookback: 24 * HOUR,
        }
    }

    pub(super) async fn commit(
        &self,
        lease: PageLease,
        page: PageToCommit,
    ) -> Result<PageOutcome, StoreError> {
        self.store.commit_page(lease, page, self.plan()).await
    }

    /// Triggers `feed` with a notification and stores `page` as the answer.
    pub(super) async fn pull(&self, feed: &Feed, page: PageToCommit) -> PageOutcome {
        self.trigger(feed, TriggerKind::Notification).await;
        let lease = self.lease().await.expect("the feed is due");
        self.commit(lease, page).await.expect("the page is stored")
    }

    /// Answers everything that is due with empty last pages; returns the triggers served.
    pub(super) async fn drain(&self) -> Vec<TriggerKind> {
        let mut served = Vec::new();
        while let Some(lease) = self.lease().await {
            served.push(lease.kind);
            self.commit(lease, last_page(&[], None))
                .await
                .expect("an empty page is stored");
        }
        served
    }

    pub(super) async fn feed(&self, feed: &Feed) -> FeedRow {
        let feeds = self.store.feeds().await.expect("readable");
        feeds
            .into_iter()
            .find(|row| row.feed == *feed)
            .expect("the feed is known")
    }

    /// Returns sequence, id, version and "superseded" of every document.
    pub(super) async fn documents(&self) -> Vec<(i64, String, String, bool)> {
        let filter = DocumentFilter {
            limit: 10_000,
            ..DocumentFilter::default()
        };
        let rows = self.store.documents(filter).await.expect("readable");
        rows.into_iter()
            .map(|row| (row.sequence, row.document_id, row.version, row.superseded))
            .collect()
    }

    pub(super) async fn retain(&self, retention: Retention) -> RetentionOutcome {
        let retained = self.store.retain(retention).await;
        retained.expect("retention runs")
    }
}

/// Returns a retention that removes nothing younger than [`START`].
pub(super) fn retention() -> Retention {
    Retention {
        notifications_before: START,
        documents_before: START,
        destinations: Vec::new(),
        links_before: START,
        quarantine_before: START,
        alarms_before: START,
        tallies_before: START,
    }
}

pub(super) fn account() -> Account {
    Account::parse("default").expect("a valid name")
}

/// Returns the feed of exported documents of a company.
pub(super) fn company(code: &str) -> Feed {
    Feed::exported(account(), Company::parse(code).expect("a valid code"))
}

/// Returns documents with these ids and versions.
pub(super) fn documents(versions: &[(&str, &str)]) -> Vec<DocumentVersion> {
    versions
        .iter()
        .map(|(id, version)| DocumentVersion {
            id: (*id).to_owned(),
            version: (*version).to_owned(),
            body: format!(r#"{{"id":"{id}","exportedat":"{version}"}}"#).into(),
        })
        .collect()
}

/// Returns a page with another one after it, at cursor `next`.
pub(super) fn page(versions: &[(&str, &str)], next: &str) -> PageToCommit {
    PageToCommit {
        documents: documents(versions),
        cursor: Some(Cursor::new(next)),
        next_from: Some(Cursor::new(next)),
        end: PageEnd::More,
        ..PageToCommit::default()
    }
}

/// Returns the last page of a pull.
pub(super) fn last_page(versions: &[(&str, &str)], cursor: Option<&str>) -> PageToCommit {
    PageToCommit {
        documents: documents(versions),
        cursor: cursor.map(Cursor::new),
        end: PageEnd::EndOfQueue,
        clock_offset: Some(0),
        ..PageToCommit::default()
    }
}
