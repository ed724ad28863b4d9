//! Import errors: one for each text, leased, sent and retried.

use ivesk_webhook::domain::Account;
use ivesk_webhook::store::{
    IMPORT_ERROR_WAIT, ImportErrorDecision, ImportErrorEnd, ImportErrorLease, ImportErrorLeased,
    ImportErrorSelection,
};

use super::*;

on_both_stores! {
    a_rejection_is_one_import_error_for_each_text,
    a_rejection_that_ends_within_a_minute_is_not_told,
    a_withdrawn_import_error_waits_again_if_rejected_again,
    only_the_last_reason_of_a_destination_is_told,
    an_import_error_is_discarded_or_sent_all_the_same,
    more_import_errors_than_a_batch_are_discarded,
    an_unknown_path_is_paused_and_refuses_nothing,
    a_restart_resumes_an_unknown_path,
    one_document_not_found_at_a_good_path_is_refused,
    documents_not_found_pause_a_good_path_only_once,
    a_resumed_import_error_is_not_sent_if_it_was_accepted,
    a_paused_path_without_import_errors_is_resumed,
    import_errors_are_leased_sent_and_retried,
    one_failed_import_error_delays_the_accounts_others,
    an_import_errors_lease_longer_than_ones_own_is_not_taken,
    an_import_error_that_waits_for_the_future_is_sent,
}

async fn a_rejection_is_one_import_error_for_each_text(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    for message in ["no such VAT code", "no such VAT code", "no such account"] {
        let lease = scene.lease().await.expect("a lease");
        scene.end_with(lease, rejected(message)).await;
        assert_eq!(scene.change(retry_rejected()).await, 1);
    }
    let errors = scene.import_errors().await;
    let texts: Vec<String> = errors.into_iter().map(|row| row.message).collect();
    assert_eq!(
        texts,
        [
            "The document was not imported: no such VAT code",
            "The document was not imported: no such account"
        ]
    );
    assert_eq!(scene.destination().await.rejected, 3);
}

impl Scene {
    /// Stores documents, and lets the destination reject them for the same reason.
    async fn with_rejected(database: Database, documents: &[(&str, &str)]) -> Self {
        let scene = Self::started(database, documents).await;
        scene.reject_all("no").await;
        scene
    }

    async fn reject_all(&self, message: &str) {
        let lease = self.lease().await.expect("a lease");
        let attempts = lease.deliveries.iter();
        let attempts = attempts
            .map(|delivery| self.attempt(delivery, rejected(message)))
            .collect();
        self.end(lease, attempts).await;
    }

    async fn lease_error_of(&self, account: Account, lease: Duration) -> ImportErrorLeased {
        let now = self.clock.now();
        let leased = self.store.lease_import_error(vec![account], now, lease);
        leased.await.expect("leasing works")
    }

    /// Leases the import error that is due next.
    async fn lease_error(&self) -> Option<ImportErrorLease> {
        match self.lease_error_of(account(), LEASE).await {
            ImportErrorLeased::Lease(lease) => Some(lease),
            ImportErrorLeased::Withdrawn(row) => panic!("{row:?} is withdrawn"),
            ImportErrorLeased::Nothing => None,
        }
    }

    /// Leases the import error that must be due.
    async fn leased_error(&self) -> ImportErrorLease {
        self.lease_error().await.expect("an import error")
    }

    async fn end_error(
        &self,
        lease: ImportErrorLease,
        outcome: ImportErrorOutcome,
    ) -> Result<ImportErrorEnd, StoreError> {
        let now = self.clock.now();
        self.store
            .end_import_error(lease, "/errors".to_owned(), outcome, now)
            .await
    }

    async fn decide(
        &self,
        selection: ImportErrorSelection,
        decision: ImportErrorDecision,
    ) -> usize {
        let now = self.clock.now();
        let decided = self.store.decide_import_errors(selection, decision, now);
        decided.await.expect("the store works")
    }

    async fn states(&self) -> Vec<ImportErrorState> {
        let rows = self.import_errors().await;
        rows.iter().map(|row| row.state).collect()
    }
}

fn one(id: i64) -> ImportErrorSelection {
    ImportErrorSelection {
        id: Some(id),
        ..ImportErrorSelection::default()
    }
}

fn not_found(scene: &Scene) -> ImportErrorOutcome {
    ImportErrorOutcome::NotFound {
        error: "HTTP 404".to_owned(),
        retry_at: scene.clock.now().after(HOUR),
    }
}

async fn a_rejection_that_ends_within_a_minute_is_not_told(database: Database) {
    let scene =
        Scene::with_rejected(database, &[("a", &at(1)), ("b", &at(1)), ("c", &at(1))]).await;
    let last_moment = IMPORT_ERROR_WAIT - Duration::from_millis(1);
    scene.clock.advance(last_moment);
    assert!(scene.lease_error().await.is_none(), "it waits");
    // One is accepted when it is retried, the next has a newer version, the last stays rejected.
    let first = scene.import_errors().await[0].sequence;
    let retry = DestinationChange::Retry(DeliverySelection::One(first));
    assert_eq!(scene.change(retry).await, 1);
    scene.deliver_all().await;
    scene.pull(&company("1"), &[("b", &at(2))]).await;
    scene.clock.advance(Duration::from_millis(1));
    for withdrawn in ["a", "b"] {
        match scene.lease_error_of(account(), LEASE).await {
            ImportErrorLeased::Withdrawn(row) => assert_eq!(row.document_id, withdrawn),
            other => panic!("{other:?}"),
        }
    }
    let lease = scene.leased_error().await;
    assert_eq!(lease.row.document_id, "c");
    scene
        .end_error(lease, ImportErrorOutcome::Sent)
        .await
        .expect("the owner may write");
    assert!(scene.lease_error().await.is_none());
    use ImportErrorState::{Sent, Withdrawn};
    assert_eq!(scene.states().await, [Withdrawn, Withdrawn, Sent]);
}

async fn a_withdrawn_import_error_waits_again_if_rejected_again(database: Database) {
    let scene = Scene::with_rejected(database, &[("a", &at(1))]).await;
    assert_eq!(scene.change(retry_rejected()).await, 1);
    scene.clock.advance(IMPORT_ERROR_WAIT);
    let leased = scene.lease_error_of(account(), LEASE).await;
    assert!(
        matches!(leased, ImportErrorLeased::Withdrawn(_)),
        "it is retried"
    );
    scene.reject_all("no").await;
    assert!(scene.lease_error().await.is_none(), "it waits");
    scene.clock.advance(IMPORT_ERROR_WAIT);
    assert_eq!(scene.leased_error().await.row.id, 1);
}

async fn only_the_last_reason_of_a_destination_is_told(database: Database) {
    let scene = Scene::with_rejected(database, &[("a", &at(1))]).await;
    scene.change(retry_rejected()).await;
    scene.reject_all("no such account").await;
    scene.clock.advance(IMPORT_ERROR_WAIT);
    let leased = scene.lease_error_of(account(), LEASE).await;
    assert!(matches!(leased, ImportErrorLeased::Withdrawn(row) if row.message.ends_with(": no")));
    let told = scene.leased_error().await.row.message;
    assert!(told.ends_with("no such account"), "{told}");
}

async fn an_import_error_is_discarded_or_sent_all_the_same(database: Database) {
    let scene = Scene::with_rejected(database, &[("a", &at(1)), ("b", &at(1))]).await;
    use ImportErrorDecision::{Discard, Retry};
    assert_eq!(scene.decide(one(1), Discard).await, 1);
    let ended = scene.import_errors().await[0].ended_at;
    assert_eq!(ended, Some(scene.clock.now()));
    let of_another = ImportErrorSelection {
        company: Company::parse("2").ok(),
        ..ImportErrorSelection::default()
    };
    assert_eq!(scene.decide(of_another, Discard).await, 0);
    scene.clock.advance(IMPORT_ERROR_WAIT);
    let lease = scene.leased_error().await;
    assert_eq!(lease.row.document_id, "b", "the other one is discarded");
    // It is being sent: that it was is recorded, though a person discards it now.
    assert_eq!(scene.decide(Default::default(), Discard).await, 1);
    let failed = ImportErrorOutcome::Refused {
        error: "HTTP 400".to_owned(),
    };
    let stale = scene.end_error(lease.clone(), failed).await;
    assert!(matches!(stale, Err(StoreError::StaleLease)));
    scene
        .end_error(lease, ImportErrorOutcome::Sent)
        .await
        .expect("what was sent is recorded");
    assert_eq!(
        scene.decide(Default::default(), Retry).await,
        0,
        "none is pending"
    );
    // Rejected once more, it stays discarded; a person may send it, though it is accepted now.
    scene.change(retry_rejected()).await;
    scene.reject_all("no").await;
    assert_eq!(scene.states().await[0], ImportErrorState::Discarded);
    scene.change(retry_rejected()).await;
    scene.deliver_all().await;
    assert_eq!(scene.decide(one(1), Retry).await, 1);
    let lease = scene.leased_error().await;
    assert_eq!((lease.row.id, lease.row.ended_at), (1, None));
    assert_eq!(scene.decide(one(2), Retry).await, 0, "it was sent");
}

async fn more_import_errors_than_a_batch_are_discarded(database: Database) {
    let ids: Vec<String> = (0..1_500).map(|number| format!("d{number}")).collect();
    let version = at(1);
    let documents: Vec<(&str, &str)> = ids.iter().map(|id| (&**id, &*version)).collect();
    let scene = Scene::started(database, &documents).await;
    while let Some(lease) = scene.lease().await {
        let attempts = lease.deliveries.iter();
        let attempts = attempts
            .map(|delivery| scene.attempt(delivery, rejected(&delivery.document_id)))
            .collect();
        scene.end(lease, attempts).await;
    }
    let of_state = ImportErrorSelection {
        account: Some(account()),
        state: Some(ImportErrorState::Pending),
        ..ImportErrorSelection::default()
    };
    let decision = ImportErrorDecision::Discard;
    // None of the first thousand fits.
    let newest = scene.store.newest_import_errors(None, 1).await;
    let last = newest.expect("readable")[0].id;
    assert_eq!(scene.decide(one(last), decision).await, 1);
    let discarded = ImportErrorSelection {
        state: Some(ImportErrorState::Discarded),
        ..ImportErrorSelection::default()
    };
    let retry = ImportErrorDecision::Retry;
    assert_eq!(scene.decide(discarded, retry).await, 1);
    assert_eq!(scene.decide(of_state.clone(), decision).await, 1_500);
    assert_eq!(scene.decide(of_state, decision).await, 0);
}

async fn an_unknown_path_is_paused_and_refuses_nothing(database: Database) {
    let scene = Scene::with_rejected(database, &[("a", &at(1)), ("b", &at(1))]).await;
    scene.clock.advance(IMPORT_ERROR_WAIT);
    let lease = scene.leased_error().await;
    let ended = scene.end_error(lease, not_found(&scene)).await;
    assert_eq!(ended.expect("recorded"), ImportErrorEnd::PathPaused);
    assert!(scene.lease_error().await.is_none(), "the others wait too");
    let paused = scene
        .store
        .paused_import_error_paths()
        .await
        .expect("readable");
    assert_eq!(paused.len(), 1);
    assert_eq!(paused[0].path, "/errors");
    // One is tried each hour.
    scene.clock.advance(HOUR);
    let lease = scene.leased_error().await;
    assert_eq!(lease.row.document_id, "b", "the less often tried one");
    scene
        .end_error(lease, not_found(&scene))
        .await
        .expect("recorded");
    assert!(scene.lease_error().await.is_none());
    assert_eq!(scene.states().await, [ImportErrorState::Pending; 2]);
    // A person resumes it, and so does an accepted one.
    assert_eq!(scene.decide(one(1), ImportErrorDecision::Retry).await, 1);
    let lease = scene.leased_error().await;
    scene
        .end_error(lease, ImportErrorOutcome::Sent)
        .await
        .expect("recorded");
    let paused = scene.store.paused_import_error_paths().await;
    assert!(paused.expect("readable").is_empty());
    assert!(scene.lease_error().await.is_some(), "the other one");
}

async fn a_restart_resumes_an_unknown_path(database: Database) {
    let scene = Scene::with_rejected(database, &[("a", &at(1))]).await;
    scene.clock.advance(IMPORT_ERROR_WAIT);
    let lease = scene.leased_error().await;
    scene
        .end_error(lease, not_found(&scene))
        .await
        .expect("recorded");
    assert!(scene.lease_error().await.is_none());
    let scene = scene.reopen().await;
    assert!(scene.lease_error().await.is_some());
}

async fn one_document_not_found_at_a_good_path_is_refused(database: Database) {
    let names = ["a", "b", "c", "d"];
    let version = at(1);
    let documents: Vec<(&str, &str)> = names.iter().map(|name| (*name, &*version)).collect();
    let scene = Scene::with_rejected(database, &documents).await;
    scene.clock.advance(IMPORT_ERROR_WAIT);
    let lease = scene.leased_error().await;
    scene
        .end_error(lease, ImportErrorOutcome::Sent)
        .await
        .expect("recorded");
    let lease = scene.leased_error().await;
    let ended = scene.end_error(lease, not_found(&scene)).await;
    assert_eq!(ended.expect("recorded"), ImportErrorEnd::Recorded);
    use ImportErrorState::{Pending, Refused, Sent};
    assert_eq!(scene.states().await, [Sent, Refused, Pending, Pending]);
    // The next is not found either: it is the path after all, so the first one waits again.
    let lease = scene.leased_error().await;
    let ended = scene.end_error(lease, not_found(&scene)).await;
    assert_eq!(ended.expect("recorded"), ImportErrorEnd::PathPaused);
    assert_eq!(scene.states().await, [Sent, Pending, Pending, Pending]);
}

async fn documents_not_found_pause_a_good_path_only_once(database: Database) {
    let names = ["a", "b", "c", "d", "e"];
    let version = at(1);
    let documents: Vec<(&str, &str)> = names.iter().map(|name| (*name, &*version)).collect();
    let scene = Scene::with_rejected(database, &documents).await;
    scene.clock.advance(IMPORT_ERROR_WAIT);
    let unknown = ["b", "c"];
    let mut pauses = 0;
    for _ in 0..20 {
        scene.clock.advance(HOUR);
        while let Some(lease) = scene.lease_error().await {
            let outcome = match unknown.contains(&lease.row.document_id.as_str()) {
                true => not_found(&scene),
                false => ImportErrorOutcome::Sent,
            };
            let ended = scene.end_error(lease, outcome).await.expect("recorded");
            pauses += usize::from(ended == ImportErrorEnd::PathPaused);
        }
    }
    use ImportErrorState::{Refused, Sent};
    assert_eq!(scene.states().await, [Sent, Refused, Refused, Sent, Sent]);
    assert_eq!(pauses, 1);
    let paused = scene.store.paused_import_error_paths().await;
    assert!(paused.expect("readable").is_empty());
}

/// The way out of a pause that the texts advise.
async fn a_resumed_import_error_is_not_sent_if_it_was_accepted(database: Database) {
    let scene = Scene::with_rejected(database, &[("a", &at(1))]).await;
    scene.clock.advance(IMPORT_ERROR_WAIT);
    let lease = scene.leased_error().await;
    scene
        .end_error(lease, not_found(&scene))
        .await
        .expect("recorded");
    scene.change(retry_rejected()).await;
    scene.deliver_all().await;
    let all = ImportErrorSelection::default();
    let decided = scene.decide(all, ImportErrorDecision::Retry).await;
    assert_eq!(decided, 1);
    let leased = scene.lease_error_of(account(), LEASE).await;
    assert!(
        matches!(leased, ImportErrorLeased::Withdrawn(_)),
        "{leased:?}"
    );
    // Chosen among those that are not to be sent, it is sent.
    let withdrawn = ImportErrorSelection {
        state: Some(ImportErrorState::Withdrawn),
        ..ImportErrorSelection::default()
    };
    assert_eq!(scene.decide(withdrawn, ImportErrorDecision::Retry).await, 1);
    assert_eq!(scene.leased_error().await.row.document_id, "a");
}

async fn a_paused_path_without_import_errors_is_resumed(database: Database) {
    let scene = Scene::with_rejected(database, &[("a", &at(1))]).await;
    scene.clock.advance(IMPORT_ERROR_WAIT);
    let of_account = ImportErrorSelection {
        account: Some(account()),
        state: Some(ImportErrorState::Pending),
        ..ImportErrorSelection::default()
    };
    use ImportErrorDecision::{Discard, Retry};
    for resumed in [of_account, ImportErrorSelection::default()] {
        let lease = scene.leased_error().await;
        scene
            .end_error(lease, not_found(&scene))
            .await
            .expect("recorded");
        assert_eq!(scene.decide(one(1), Discard).await, 1);
        let paused = scene.store.paused_import_error_paths().await;
        assert_eq!(paused.expect("readable").len(), 1);
        assert_eq!(scene.decide(resumed, Retry).await, 0);
        let paused = scene.store.paused_import_error_paths().await;
        assert!(paused.expect("readable").is_empty());
        assert_eq!(scene.decide(one(1), Retry).await, 1);
    }
}

async fn import_errors_are_leased_sent_and_retried(database: Database) {
    let scene = Scene::with_rejected(database, &[("a", &at(1))]).await;
    scene.clock.advance(IMPORT_ERROR_WAIT);
    let other = Account::parse("other").expect("a name");
    let of_other = scene.lease_error_of(other, LEASE).await;
    assert!(
        matches!(of_other, ImportErrorLeased::Nothing),
        "another account's key"
    );
    let stale = scene.leased_error().await;
    assert_eq!(stale.row.document_id, "a");
    assert_eq!(stale.row.company.as_ref().map(Company::as_str), Some("1"));
    assert!(scene.lease_error().await.is_none(), "it is leased");
    scene.clock.advance(LEASE + Duration::from_secs(1));
    let lease = scene.leased_error().await;
    assert_eq!(lease.row.attempts, 2);
    let failed = |next_try_at| ImportErrorOutcome::Failed {
        error: "timed out".to_owned(),
        next_try_at,
        others_wait_until: scene.clock.now(),
    };
    let next_try_at = scene.clock.now().after(HOUR);
    let refused = scene.end_error(stale.clone(), failed(next_try_at)).await;
    assert!(matches!(refused, Err(StoreError::StaleLease)));
    scene
        .end_error(lease, failed(next_try_at))
        .await
        .expect("the owner may write");
    assert!(scene.lease_error().await.is_none(), "not before its time");
    assert_eq!(scene.decide(one(1), ImportErrorDecision::Retry).await, 1);
    let lease = scene.leased_error().await;
    // The vendor answered the first owner after all: the second one can't undo that.
    scene
        .end_error(stale, ImportErrorOutcome::Sent)
        .await
        .expect("what was sent is recorded");
    let late = scene.end_error(lease, failed(next_try_at)).await;
    assert!(matches!(late, Err(StoreError::StaleLease)));
    assert_eq!(scene.decide(one(1), ImportErrorDecision::Retry).await, 0);
    let sent = scene.store.import_errors(ImportErrorFilter {
        state: Some(ImportErrorState::Sent),
        limit: 10,
        ..ImportErrorFilter::default()
    });
    let sent = sent.await.expect("readable");
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].sent_at, Some(scene.clock.now()));
}

async fn one_failed_import_error_delays_the_accounts_others(database: Database) {
    let scene = Scene::with_rejected(database, &[("a", &at(1)), ("b", &at(1))]).await;
    scene.clock.advance(IMPORT_ERROR_WAIT);
    let first = scene.leased_error().await;
    let now = scene.clock.now();
    let failed = ImportErrorOutcome::Failed {
        error: "HTTP 503".to_owned(),
        next_try_at: now.after(5 * HOUR),
        others_wait_until: now.after(HOUR),
    };
    let id = first.row.id;
    scene
        .end_error(first, failed)
        .await
        .expect("the owner may write");
    assert!(scene.lease_error().await.is_none());
    scene.clock.advance(HOUR);
    assert_ne!(scene.leased_error().await.row.id, id);
}

/// The settings of two replicas differ for a while.
async fn an_import_errors_lease_longer_than_ones_own_is_not_taken(database: Database) {
    let scene = Scene::with_rejected(database, &[("a", &at(1))]).await;
    scene.clock.advance(IMPORT_ERROR_WAIT);
    let leased = scene.lease_error_of(account(), 5 * LEASE).await;
    assert!(matches!(leased, ImportErrorLeased::Lease(_)), "{leased:?}");
    scene.clock.advance(2 * LEASE);
    assert!(scene.lease_error().await.is_none(), "it is leased");
    scene.clock.advance(3 * LEASE);
    assert!(scene.lease_error().await.is_some());
}

/// A clock that was ahead wrote when to try again.
async fn an_import_error_that_waits_for_the_future_is_sent(database: Database) {
    let (scene, correction) = Scene::with_correction(database).await;
    scene.register_destination().await;
    scene.pull(&company("1"), &[("a", &new(1))]).await;
    scene.reject_all("no").await;
    scene.clock.advance(IMPORT_ERROR_WAIT);
    let now = scene.clock.now();
    // And its lease.
    correction.set(48 * 3_600_000);
    let leased = scene.lease_error_of(account(), LEASE).await;
    assert!(matches!(leased, ImportErrorLeased::Lease(_)), "{leased:?}");
    correction.set(0);
    let first = scene.leased_error().await;
    let failed = ImportErrorOutcome::Failed {
        error: "HTTP 503".to_owned(),
        next_try_at: now.after(48 * HOUR),
        others_wait_until: now.after(HOUR),
    };
    scene
        .end_error(first, failed)
        .await
        .expect("the owner may write");
    assert!(scene.lease_error().await.is_some());
}
