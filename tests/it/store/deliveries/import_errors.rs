//! Import errors: one for each text, leased, sent and retried.

use ivesk_webhook::domain::Account;

use super::*;

on_both_stores! {
    a_rejection_is_one_import_error_for_each_text,
    import_errors_are_leased_sent_and_retried,
    one_failed_import_error_delays_the_accounts_others,
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

async fn import_errors_are_leased_sent_and_retried(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    scene.end_with(lease, rejected("no")).await;
    let lease_next = async |account: Account| {
        let now = scene.clock.now();
        let leased = scene.store.lease_import_error(vec![account], now, LEASE);
        leased.await.expect("leasing works")
    };
    let other = Account::parse("other").expect("a name");
    assert!(lease_next(other).await.is_none(), "another account's key");
    let stale = lease_next(account()).await.expect("an import error");
    assert_eq!(stale.row.document_id, "a");
    assert_eq!(stale.row.company.as_ref().map(Company::as_str), Some("1"));
    assert!(lease_next(account()).await.is_none(), "it is leased");
    scene.clock.advance(LEASE + Duration::from_secs(1));
    let lease = lease_next(account()).await.expect("the lease has expired");
    assert_eq!(lease.row.attempts, 2);
    let end = async |lease, outcome| {
        scene
            .store
            .end_import_error(lease, outcome, scene.clock.now())
            .await
    };
    let refused = end(stale, ImportErrorOutcome::Sent).await;
    assert!(matches!(refused, Err(StoreError::StaleLease)));
    let next_try_at = scene.clock.now().after(HOUR);
    let failed = ImportErrorOutcome::Failed {
        error: "timed out".to_owned(),
        next_try_at,
        others_wait_until: scene.clock.now(),
    };
    end(lease, failed).await.expect("the owner may write");
    assert!(lease_next(account()).await.is_none(), "not before its time");
    let retried = scene.store.retry_import_error(1, scene.clock.now()).await;
    assert!(retried.expect("it can be retried"));
    let lease = lease_next(account()).await.expect("an import error");
    end(lease, ImportErrorOutcome::Sent)
        .await
        .expect("the owner may write");
    let retried = scene.store.retry_import_error(1, scene.clock.now()).await;
    assert!(!retried.expect("the store answers"), "it was sent");
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
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    let attempts = vec![
        scene.attempt(&lease.deliveries[0], rejected("no")),
        scene.attempt(&lease.deliveries[1], rejected("no")),
    ];
    scene.end(lease, attempts).await;
    let lease_next = async || {
        let now = scene.clock.now();
        let leased = scene
            .store
            .lease_import_error(vec![account()], now, LEASE)
            .await;
        leased.expect("leasing works")
    };
    let first = lease_next().await.expect("an import error");
    let now = scene.clock.now();
    let failed = ImportErrorOutcome::Failed {
        error: "HTTP 503".to_owned(),
        next_try_at: now.after(5 * HOUR),
        others_wait_until: now.after(HOUR),
    };
    let id = first.row.id;
    scene
        .store
        .end_import_error(first, failed, now)
        .await
        .expect("the owner may write");
    assert!(lease_next().await.is_none());
    scene.clock.advance(HOUR);
    let second = lease_next().await.expect("the other one");
    assert_ne!(second.row.id, id);
}

/// A clock that was ahead wrote when to try again.
async fn an_import_error_that_waits_for_the_future_is_sent(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    let attempts = vec![scene.attempt(&lease.deliveries[0], rejected("no"))];
    scene.end(lease, attempts).await;
    let now = scene.clock.now();
    let lease_next = async |lease| {
        let leased = scene
            .store
            .lease_import_error(vec![account()], now, lease)
            .await;
        leased.expect("leasing works")
    };
    // So is its lease.
    lease_next(48 * HOUR).await.expect("an import error");
    let first = lease_next(LEASE).await.expect("the lease is over");
    let failed = ImportErrorOutcome::Failed {
        error: "HTTP 503".to_owned(),
        next_try_at: now.after(48 * HOUR),
        others_wait_until: now.after(HOUR),
    };
    scene
        .store
        .end_import_error(first, failed, now)
        .await
        .expect("the owner may write");
    assert!(lease_next(LEASE).await.is_some());
}
