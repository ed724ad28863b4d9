//! Uploads: one sender for each content, and the documents made of each upload.

use std::time::Duration;

use ivesk_webhook::api::uploads::Upload;
use ivesk_webhook::domain::Timestamp;
use ivesk_webhook::store::{
    NewUpload, PageOutcome, Retention, Settling, UploadBegun, UploadEnd, UploadFilter, UploadReturn,
};

use secrecy::{ExposeSecret as _, SecretString};

use super::test_store::{HOUR, START, TestStore, account, company, last_page};
use crate::support::databases::{Database, on_both_stores};

on_both_stores! {
    one_content_is_claimed_by_one_process_unless_forced,
    a_claim_of_the_future_is_over,
    a_claim_longer_than_ones_own_is_not_taken,
    a_document_is_matched_to_its_upload_once,
    a_location_is_kept_no_longer_than_needed,
    an_upload_that_waits_for_a_document_can_be_settled,
}

fn file(owner: &str, correlation: &str, now: Timestamp) -> NewUpload {
    NewUpload {
        account: account(),
        sha256: "ab".repeat(32),
        size_bytes: 7,
        file_name: "a.pdf".to_owned(),
        correlation: correlation.to_owned(),
        force: false,
        owner: owner.to_owned(),
        now,
        claim: HOUR,
    }
}

async fn begin(test: &TestStore, upload: NewUpload) -> UploadBegun {
    let begun = test.store.begin_upload(upload).await;
    begun.expect("answered")
}

async fn end(test: &TestStore, owner: &str, how: UploadEnd) -> bool {
    let ended = test.store.end_upload(1, owner.to_owned(), how, START).await;
    ended.expect("answered")
}

async fn one_content_is_claimed_by_one_process_unless_forced(database: Database) {
    let test = TestStore::new(database).await;
    // Of two processes at once, one sends.
    let (one, other) = tokio::join!(
        begin(&test, file("a", "c-1", START)),
        begin(&test, file("b", "c-2", START))
    );
    let (owner, late) = match (&one, &other) {
        (UploadBegun::Send { .. }, UploadBegun::Busy { .. }) => ("a", "b"),
        (UploadBegun::Busy { .. }, UploadBegun::Send { .. }) => ("b", "a"),
        both => panic!("{both:?}"),
    };
    let again = begin(&test, file(owner, "c-3", START)).await;
    assert!(matches!(again, UploadBegun::Send { row, .. } if row.id == 1 && row.attempts == 2));
    assert!(!end(&test, late, UploadEnd::Sent).await, "not its claim");

    // Once the claim has expired, the other process continues the same row.
    let expired = START.after(HOUR);
    let claimed = begin(&test, file(late, "c-4", expired)).await;
    assert!(matches!(claimed, UploadBegun::Send { row, .. } if row.id == 1));
    assert!(!end(&test, owner, UploadEnd::Sent).await, "its claim ended");
    assert!(end(&test, late, UploadEnd::Failed("why".to_owned())).await);
    let retried = begin(&test, file(owner, "c-5", expired)).await;
    assert!(
        matches!(retried, UploadBegun::Send { row, .. } if row.last_error.as_deref() == Some("why"))
    );
    assert!(end(&test, owner, UploadEnd::Sent).await);
    let sent = begin(&test, file(late, "c-6", expired)).await;
    assert!(matches!(sent, UploadBegun::Already(row) if row.id == 1 && row.last_error.is_none()));
    let forced = NewUpload {
        force: true,
        ..file(late, "c-7", START)
    };
    let forced = begin(&test, forced).await;
    assert!(
        matches!(forced, UploadBegun::Send { row, .. } if row.id == 2 && row.correlation == "c-7")
    );
}

/// A clock that was ahead wrote the claim.
async fn a_claim_of_the_future_is_over(database: Database) {
    let test = TestStore::new(database).await;
    begin(&test, file("a", "c-1", START.after(48 * HOUR))).await;
    let claimed = begin(&test, file("b", "c-2", START)).await;
    assert!(matches!(claimed, UploadBegun::Send { row, .. } if row.id == 1));
}

async fn a_claim_longer_than_ones_own_is_not_taken(database: Database) {
    let test = TestStore::new(database).await;
    let long = NewUpload {
        claim: 5 * HOUR,
        ..file("a", "c-1", START)
    };
    begin(&test, long).await;
    let other = begin(&test, file("b", "c-2", START.after(HOUR))).await;
    let end = START.after(5 * HOUR);
    assert!(matches!(other, UploadBegun::Busy { until } if until == end));
    let other = begin(&test, file("b", "c-3", end)).await;
    assert!(matches!(other, UploadBegun::Send { row, .. } if row.id == 1));
}

async fn a_document_is_matched_to_its_upload_once(database: Database) {
    let test = TestStore::new(database).await;
    begin(&test, file("a", "c-1", START)).await;
    assert!(end(&test, "a", UploadEnd::Sent).await);
    let uploads = async |missing_since| {
        let filter = UploadFilter {
            missing_since,
            limit: 10,
            after: 0,
        };
        test.store.uploads(filter).await.expect("readable")
    };
    let later = Some(START.after(HOUR));
    assert_eq!(uploads(later).await.len(), 1);
    assert!(uploads(Some(START)).await.is_empty(), "sent just then");

    let made_of = |correlation: &str, document_id: &str| UploadReturn {
        correlation: correlation.to_owned(),
        document_id: document_id.to_owned(),
    };
    for _ in 0..2 {
        let mut page = last_page(&[("d-1", "1"), ("d-2", "1")], Some("c"));
        page.uploads = vec![
            made_of("c-1", "d-1"),
            made_of("c-1", "d-2"),
            made_of("another program's", "d-3"),
        ];
        let stored = test.pull(&company("1"), page).await;
        assert!(matches!(stored, PageOutcome::Committed(_)), "{stored:?}");
    }
    let rows = uploads(None).await;
    assert_eq!(rows[0].documents, ["d-1", "d-2"]);
    assert_eq!(rows[0].status(START), "returned");
    assert!(uploads(later).await.is_empty());
}

async fn a_location_is_kept_no_longer_than_needed(database: Database) {
    let test = TestStore::new(database).await;
    let location = async |owner: &str| {
        let begun = begin(&test, file(owner, &format!("c-{owner}"), START)).await;
        let UploadBegun::Send { location, row } = begun else {
            panic!("{begun:?}");
        };
        let listed = serde_json::json!(Upload::of(row.clone(), START));
        let shown = format!("{row:?}{location:?}{listed}");
        assert!(!shown.contains("planted"), "{shown}");
        location.map(|location| location.expose_secret().to_owned())
    };
    let keep = async |owner: &str, location: Option<&str>| {
        let location = location.map(SecretString::from);
        let kept = test
            .store
            .keep_upload_location(1, owner.to_owned(), location);
        kept.await.expect("stored");
    };
    let planted = "https://x/y?Signature=planted";
    assert_eq!(location("a").await, None);
    keep("b", Some("a stranger's")).await;
    keep("a", Some(planted)).await;
    assert_eq!(
        location("a").await.as_deref(),
        Some(planted),
        "after a kill"
    );
    assert!(end(&test, "a", UploadEnd::Failed("lost".to_owned())).await);
    assert_eq!(location("b").await.as_deref(), Some(planted));
    keep("b", None).await;
    assert_eq!(location("b").await, None, "it has expired");

    keep("b", Some(planted)).await;
    let retain = async |links_before| {
        let retention = Retention {
            notifications_before: START,
            documents_before: START,
            destinations: Vec::new(),
            links_before,
            quarantine_before: START,
            alarms_before: START,
            tallies_before: START,
        };
        test.store.retain(retention).await.expect("done");
    };
    retain(START).await;
    assert_eq!(location("b").await.as_deref(), Some(planted));
    retain(START.after(Duration::from_millis(1))).await;
    assert_eq!(location("b").await, None, "nobody tried again for a day");

    keep("b", Some(planted)).await;
    assert!(end(&test, "b", UploadEnd::Refused("why".to_owned())).await);
    assert_eq!(location("b").await, None, "refused");
}

async fn an_upload_that_waits_for_a_document_can_be_settled(database: Database) {
    let test = TestStore::new(database).await;
    let settle = async |id, reason: &str| {
        let settled = test.store.settle_upload(id, reason.to_owned(), START).await;
        settled.expect("answered")
    };
    assert!(matches!(settle(1, "early").await, Settling::Unknown));
    begin(&test, file("a", "c-1", START)).await;
    assert!(matches!(settle(1, "early").await, Settling::NotWaiting(_)));
    assert!(end(&test, "a", UploadEnd::Sent).await);
    assert!(matches!(settle(1, "no invoice").await, Settling::Settled));
    assert!(matches!(settle(1, "again").await, Settling::NotWaiting(_)));

    let later = START.after(HOUR);
    let rows = async |missing_since| {
        let filter = UploadFilter {
            missing_since,
            limit: 10,
            after: 0,
        };
        test.store.uploads(filter).await.expect("readable")
    };
    assert!(rows(Some(later)).await.is_empty(), "nothing waits for it");
    let row = rows(None).await.remove(0);
    assert_eq!(row.settled_reason.as_deref(), Some("no invoice"));
    assert_eq!(row.status(later), "settled");
    // The same content is still not sent twice.
    let again = begin(&test, file("b", "c-2", later)).await;
    assert!(matches!(again, UploadBegun::Already(_)), "{again:?}");

    // A document that arrives all the same is shown.
    let mut page = last_page(&[("d-1", "1")], Some("c"));
    page.uploads = vec![UploadReturn {
        correlation: "c-1".to_owned(),
        document_id: "d-1".to_owned(),
    }];
    test.pull(&company("1"), page).await;
    assert_eq!(rows(None).await[0].status(later), "returned");
}
