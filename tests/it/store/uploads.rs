//! Uploads: one sender for each content, and the documents made of each upload.

use ivesk_webhook::domain::Timestamp;
use ivesk_webhook::store::{
    NewUpload, PageOutcome, UploadBegun, UploadEnd, UploadFilter, UploadReturn,
};

use super::test_store::{HOUR, START, TestStore, account, company, last_page};
use crate::support::databases::{Database, on_both_stores};

on_both_stores! {
    one_content_is_claimed_by_one_process_unless_forced,
    a_claim_of_the_future_is_over,
    a_document_is_matched_to_its_upload_once,
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
        (UploadBegun::Send(_), UploadBegun::Busy { .. }) => ("a", "b"),
        (UploadBegun::Busy { .. }, UploadBegun::Send(_)) => ("b", "a"),
        both => panic!("{both:?}"),
    };
    let again = begin(&test, file(owner, "c-3", START)).await;
    assert!(matches!(again, UploadBegun::Send(row) if row.id == 1 && row.attempts == 2));
    assert!(!end(&test, late, UploadEnd::Sent).await, "not its claim");

    // Once the claim has expired, the other process continues the same row.
    let expired = START.after(HOUR);
    let claimed = begin(&test, file(late, "c-4", expired)).await;
    assert!(matches!(claimed, UploadBegun::Send(row) if row.id == 1));
    assert!(!end(&test, owner, UploadEnd::Sent).await, "its claim ended");
    assert!(end(&test, late, UploadEnd::Failed("why".to_owned())).await);
    let retried = begin(&test, file(owner, "c-5", expired)).await;
    assert!(matches!(retried, UploadBegun::Send(row) if row.last_error.as_deref() == Some("why")));
    assert!(end(&test, owner, UploadEnd::Sent).await);
    let sent = begin(&test, file(late, "c-6", expired)).await;
    assert!(matches!(sent, UploadBegun::Already(row) if row.id == 1 && row.last_error.is_none()));
    let forced = NewUpload {
        force: true,
        ..file(late, "c-7", START)
    };
    let forced = begin(&test, forced).await;
    assert!(matches!(forced, UploadBegun::Send(row) if row.id == 2 && row.correlation == "c-7"));
}

/// A clock that was ahead wrote the claim.
async fn a_claim_of_the_future_is_over(database: Database) {
    let test = TestStore::new(database).await;
    begin(&test, file("a", "c-1", START.after(48 * HOUR))).await;
    let claimed = begin(&test, file("b", "c-2", START)).await;
    assert!(matches!(claimed, UploadBegun::Send(row) if row.id == 1));
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
