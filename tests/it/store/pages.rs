//! Pages: stored once, together with their cursor, and searched.

use std::time::Duration;

use ivesk_webhook::domain::{Account, Company, Cursor, Feed, Queue, Timestamp};
use ivesk_webhook::store::{
    DocumentSearch, DocumentStretch, FeedPauseReason, PageFailure, PageOutcome, PageToCommit,
    PauseChange, StoreError, Trigger, TriggerKind, UnreadableEntry,
};

use super::messages::Messages;
use super::test_store::{HOUR, START, TestStore, account, company, last_page, page};
use crate::support::databases::{Database, on_both_stores};

on_both_stores! {
    a_stale_owner_writes_nothing,
    a_page_stored_twice_is_stored_once,
    an_overlap_read_moves_the_cursor_with_its_last_page_only,
    a_newer_version_supersedes_in_whichever_order_they_arrive,
    ids_of_any_characters_stay_apart,
    a_page_of_another_company_pauses_the_feed,
    a_backfill_has_its_own_position_and_leaves_the_cursor,
    companies_of_the_digitized_queue_become_feeds,
    a_search_reads_a_bounded_part_and_continues_to_the_end,
    a_stretch_is_read_in_bounded_parts_in_their_order,
    a_stretch_ends_early_if_its_documents_are_large,
    documents_since_the_last_notification_are_unannounced,
    cursors_are_kept_only_as_far_as_a_read_needs_them,
    each_page_that_a_notification_pulls_moves_the_cursor,
    only_what_a_person_accepts_is_vouched_for,
}

async fn a_stale_owner_writes_nothing(database: Database) {
    let test = TestStore::new(database).await;
    test.trigger(&company("1"), TriggerKind::Notification).await;
    let stale = test.lease().await.expect("the feed is due");
    test.clock.advance(Duration::from_secs(121));
    let owner = test.lease().await.expect("the lease has expired");
    let committed = test.commit(stale.clone(), page(&[("a", "1")], "1")).await;
    assert!(matches!(committed, Err(StoreError::StaleLease)));
    let failure = PageFailure::FeedWaits(test.clock.now().after(HOUR));
    let failed = test
        .store
        .fail_page(stale.clone(), failure, "late".to_owned(), START)
        .await;
    assert!(matches!(failed, Err(StoreError::StaleLease)));
    let released = test.store.release_page(stale).await;
    released.expect("the release of a stale lease changes nothing");
    assert!(test.lease().await.is_none(), "the owner still holds it");
    test.commit(owner, last_page(&[("a", "1")], Some("1")))
        .await
        .expect("the owner may write");
    assert_eq!(test.documents().await.len(), 1);
}

async fn a_page_stored_twice_is_stored_once(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    for _ in 0..2 {
        let page = last_page(&[("a", "1"), ("b", "2")], Some("2"));
        test.pull(&feed, page).await;
    }
    let expected = [
        (1, "a".to_owned(), "1".to_owned(), false),
        (2, "b".to_owned(), "2".to_owned(), false),
    ];
    assert_eq!(test.documents().await, expected);
    assert_eq!(test.feed(&feed).await.documents, 2);
    assert_eq!(test.store.sequence().await.expect("readable").last, 2);
}

async fn an_overlap_read_moves_the_cursor_with_its_last_page_only(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    let cursor = || Some(Cursor::new("2026-09-20T00:00:00.000Z"));
    let version = "2026-09-20T00:00:00.000Z";
    test.pull(&feed, last_page(&[("a", version)], Some(version)))
        .await;
    test.clock.advance(25 * HOUR);
    test.trigger(&feed, TriggerKind::Notification).await;
    let lease = test.lease().await.expect("the feed is due");
    assert_eq!(lease.position.from, cursor());
    test.commit(lease, last_page(&[("b", "5")], Some("5")))
        .await
        .expect("the page is stored");

    let overlap = test.lease().await.expect("an overlapping pull is due");
    assert!(overlap.kind.overlaps());
    assert_eq!(
        overlap.position.from,
        cursor(),
        "the newest cursor that is old enough"
    );
    let kind = overlap.kind;
    test.commit(overlap, page(&[("late", "3")], "3"))
        .await
        .expect("the page is stored");
    assert_eq!(
        test.feed(&feed).await.cursor,
        Some(Cursor::new("5")),
        "its first page leaves the cursor"
    );

    let test = test.reopen().await;
    let overlap = test.lease().await.expect("it resumes after a restart");
    assert_eq!(overlap.kind, kind);
    assert_eq!(overlap.position.from, Some(Cursor::new("3")));
    test.commit(overlap, last_page(&[("b", "5")], Some("6")))
        .await
        .expect("the page is stored");
    assert_eq!(test.feed(&feed).await.cursor, Some(Cursor::new("6")));
    assert_eq!(test.documents().await.len(), 3);
}

async fn a_newer_version_supersedes_in_whichever_order_they_arrive(database: Database) {
    let test = TestStore::new(database).await;
    let versions = [
        "2026-01-02T00:00:00",
        "2026-01-03T00:00:00",
        "2026-01-01T00:00:00",
    ];
    for version in versions {
        test.pull(&company("1"), last_page(&[("a", version)], None))
            .await;
    }
    let documents = test.documents().await.into_iter();
    let superseded: Vec<_> = documents
        .map(|(_, _, version, superseded)| (version, superseded))
        .collect();
    assert_eq!(
        superseded,
        [
            (versions[0].to_owned(), true),
            (versions[1].to_owned(), false),
            (versions[2].to_owned(), true)
        ]
    );
}

async fn ids_of_any_characters_stay_apart(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    let odd = ["a\0b", "a", "a\0", "\u{ffff}0", "\"", "\\", "1", "{}", "ą"].map(|id| (id, "1"));
    for _ in 0..2 {
        test.pull(&feed, last_page(&odd, Some("1"))).await;
    }
    let newer = odd.map(|(id, _)| (id, "\0\""));
    test.pull(&feed, last_page(&newer, Some("2"))).await;
    let documents = test.documents().await;
    assert_eq!(documents.len(), 2 * odd.len());
    for (row, (id, version)) in documents.iter().zip(odd.iter().chain(&newer)) {
        let is_old = *version == "1";
        assert_eq!((&*row.1, &*row.2, row.3), (*id, *version, is_old));
    }
    let asked = newer.iter().chain(&[("b", "1"), ("a", "2")]);
    let asked = asked.map(|(id, version)| ((*id).to_owned(), (*version).to_owned()));
    let known = test.store.known_versions(feed, asked.collect()).await;
    let known = known.expect("readable");
    assert_eq!(known.iter().filter(|known| **known).count(), odd.len());
    assert!(known[..odd.len()].iter().all(|known| *known));
}

async fn a_page_of_another_company_pauses_the_feed(database: Database) {
    let test = TestStore::new(database).await;
    let (a, b) = (company("a"), company("b"));
    let page = || last_page(&[("x", "1"), ("y", "2")], Some("2"));
    test.pull(&a, page()).await;
    test.drain().await;
    test.trigger(&b, TriggerKind::Notification).await;
    let lease = test.lease().await.expect("the feed is due");
    let outcome = test.commit(lease.clone(), page()).await.expect("answered");
    assert!(
        matches!(outcome, PageOutcome::CompanyDoubted(_)),
        "{outcome:?}"
    );
    // Also once the documents of the other company are erased.
    let erased = test.store.erase_versions(vec![1, 2], test.clock.now());
    assert_eq!(erased.await.expect("erased"), 2);
    let outcome = test.commit(lease.clone(), page()).await.expect("answered");
    assert!(
        matches!(outcome, PageOutcome::CompanyDoubted(_)),
        "{outcome:?}"
    );
    let paused = test.store.pause_for_ignored_company(lease).await;
    paused.expect("it is paused");
    let row = test.feed(&b).await;
    assert_eq!(row.paused, Some(FeedPauseReason::CompanyFilterIgnored));
    assert_eq!((row.documents, row.cursor), (0, None));
    test.trigger(&b, TriggerKind::Notification).await;
    assert!(test.lease().await.is_none(), "it waits for an operator");
    let resumed = test.store.set_paused(
        account(),
        Some(b.clone()),
        PauseChange::Resume { accept: false },
    );
    assert_eq!(resumed.await.expect("answered"), 1);
    assert_eq!(test.lease().await.expect("it was resumed").feed, b);
}

async fn a_backfill_has_its_own_position_and_leaves_the_cursor(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    test.pull(&feed, last_page(&[("a", "9")], Some("9"))).await;
    test.drain().await;
    let backfill = Trigger {
        feed: feed.clone(),
        kind: TriggerKind::Backfill,
        due_at: START,
        from: Some(Cursor::new("3")),
    };
    test.store.trigger(vec![backfill]).await.expect("stored");
    let lease = test.lease().await.expect("the backfill is due");
    assert_eq!(lease.kind, TriggerKind::Backfill);
    assert_eq!(lease.position.from, Some(Cursor::new("3")));
    test.commit(lease, page(&[("b", "4")], "4"))
        .await
        .expect("the page is stored");
    let lease = test.lease().await.expect("its next page is due");
    assert_eq!(lease.position.from, Some(Cursor::new("4")));
    test.commit(lease, last_page(&[("a", "9")], Some("9.5")))
        .await
        .expect("the page is stored");
    let row = test.feed(&feed).await;
    assert_eq!((row.cursor, row.documents), (Some(Cursor::new("9")), 2));
}

async fn companies_of_the_digitized_queue_become_feeds(database: Database) {
    let test = TestStore::new(database).await;
    let digitized = Feed::digitized(account());
    let unreadable = |body: &str| UnreadableEntry {
        dedup_key: "{}".into(),
        body: body.to_owned().into(),
    };
    let page = PageToCommit {
        companies: vec![Company::parse("302320404").expect("a code")],
        unreadable: vec![unreadable("1"), unreadable("2")],
        ..last_page(&[("a", "1")], None)
    };
    test.pull(&digitized, page).await;
    assert!(test.drain().await.contains(&TriggerKind::Reconciliation));
    assert_eq!(test.feed(&company("302320404")).await.documents, 0);
    assert_eq!(
        test.feed(&digitized).await.unreadable,
        1,
        "entries of equal keys are kept once"
    );
}

async fn a_search_reads_a_bounded_part_and_continues_to_the_end(database: Database) {
    let test = TestStore::new(database).await;
    // Sequences 1 to 4 are company 1's, 5 and 6 company 2's; 6 is a newer version of 5.
    let day = "2026-01-01";
    let first = [("a", day), ("b", day), ("c", day), ("d", day)];
    test.pull(&company("1"), last_page(&first, Some("x"))).await;
    let second = [("e", day), ("e", "2026-01-02")];
    test.pull(&company("2"), last_page(&second, Some("x")))
        .await;
    let search = |versions| DocumentSearch {
        versions,
        ..DocumentSearch::default()
    };
    let found = async |search| {
        let found = test.store.search_documents(search).await.expect("readable");
        let sequences: Vec<i64> = found.rows.iter().map(|row| row.sequence).collect();
        (sequences, found.next)
    };
    assert_eq!(found(search(4)).await, (vec![6, 5, 4, 3], Some(3)));
    let rest = DocumentSearch {
        before: Some(3),
        ..search(4)
    };
    assert_eq!(found(rest).await, (vec![2, 1], None));

    let by_company = DocumentSearch {
        company: Some(Company::parse("1").expect("a code")),
        ..search(3)
    };
    assert_eq!(found(by_company.clone()).await, (vec![4, 3, 2], Some(2)));
    let rest = DocumentSearch {
        before: Some(2),
        ..by_company
    };
    assert_eq!(found(rest).await, (vec![1], None));

    let by_id = DocumentSearch {
        document_id: Some("e".to_owned()),
        ..search(10)
    };
    assert_eq!(found(by_id.clone()).await, (vec![6, 5], None));
    // A part without any match still says where to continue.
    let by_queue = DocumentSearch {
        queue: Some(Queue::Digitized),
        ..search(4)
    };
    assert_eq!(found(by_queue).await, (vec![], Some(3)));
    let by_account = DocumentSearch {
        account: Some(Account::parse("nobody").expect("a name")),
        ..by_id
    };
    assert_eq!(found(by_account).await, (vec![], None));
}

async fn a_stretch_is_read_in_bounded_parts_in_their_order(database: Database) {
    let test = TestStore::new(database).await;
    // Company 1 has sequences 1 to 600; company 2 has two versions of one document.
    let ids: Vec<String> = (1..=600).map(|number| format!("a{number}")).collect();
    let day = "2026-01-01T00:00:00Z";
    let first: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), day)).collect();
    test.pull(&company("1"), last_page(&first, Some("x"))).await;
    let second = [("e", day), ("e", "2026-02-01T00:00:00Z")];
    test.pull(&company("2"), last_page(&second, Some("x")))
        .await;
    let read = async |stretch| {
        let read = test.store.document_stretch(stretch).await;
        let read = read.expect("readable");
        let sequences: Vec<i64> = read.rows.iter().map(|row| row.sequence).collect();
        (sequences, read.next)
    };
    let all = DocumentStretch::default();
    assert_eq!(read(all.clone()).await, ((1..=500).collect(), Some(500)));
    let rest = DocumentStretch {
        after: 500,
        ..all.clone()
    };
    let current = (501..=600).chain([602]).collect();
    assert_eq!(read(rest.clone()).await, (current, None));
    let superseded = DocumentStretch {
        superseded: true,
        ..rest.clone()
    };
    assert_eq!(read(superseded).await, ((501..=602).collect(), None));
    let moment = |text| Timestamp::parse(text).expect("a moment");
    let since = DocumentStretch {
        since: Some(moment("2026-02-01T00:00:00Z")),
        ..rest.clone()
    };
    assert_eq!(read(since).await, (vec![602], None));
    let until = DocumentStretch {
        until: Some(moment("2026-02-01T00:00:00Z")),
        superseded: true,
        ..rest
    };
    assert_eq!(read(until).await, ((501..=601).collect(), None));
    // A part without any match still says where to continue.
    let by_company = DocumentStretch {
        company: Some(Company::parse("2").expect("a code")),
        ..all.clone()
    };
    assert_eq!(read(by_company).await, (vec![], Some(500)));
    let beyond = DocumentStretch {
        after: i64::MAX,
        ..all
    };
    assert_eq!(read(beyond).await, (vec![], None));
}

async fn a_stretch_ends_early_if_its_documents_are_large(database: Database) {
    let test = TestStore::new(database).await;
    let mut page = last_page(&[("a", "1"), ("b", "1"), ("c", "1")], Some("x"));
    for document in &mut page.documents {
        let text = "x".repeat(5 << 20);
        document.body = format!(r#"{{"id":"{}","docnum":"{text}"}}"#, document.id).into();
    }
    test.pull(&company("1"), page).await;
    let mut stretch = DocumentStretch::default();
    let first = test.store.document_stretch(stretch.clone()).await;
    let first = first.expect("readable");
    assert_eq!((first.rows.len(), first.next), (2, Some(2)));
    stretch.after = 2;
    let last = test
        .store
        .document_stretch(stretch)
        .await
        .expect("readable");
    assert_eq!((last.rows.len(), last.next), (1, None));
}

async fn documents_since_the_last_notification_are_unannounced(database: Database) {
    let test = TestStore::new(database).await;
    let unannounced = async |until| {
        let rows = test.store.unannounced_documents(until).await;
        let rows = rows.expect("readable").into_iter();
        rows.map(|row| (row.queue, row.documents))
            .collect::<Vec<_>>()
    };
    let announce = async |number, feed| {
        let message = Messages::announcement(number, feed, test.clock.now()).await;
        test.store.accept(message).await.expect("stored");
    };
    announce(1, company("1")).await;
    test.drain().await;
    test.clock.advance(2 * HOUR);
    test.drain().await;
    test.clock.advance(HOUR);
    let version = test.clock.now().to_string();
    let before = START.before(HOUR).to_string();
    test.clock.advance(HOUR);
    let lease = test.lease().await.expect("an hour has passed");
    let page = last_page(
        &[("a", &version), ("b", &version), ("c", &before)],
        Some("1"),
    );
    test.commit(lease, page).await.expect("the page is stored");
    let now = test.clock.now();
    assert_eq!(unannounced(now).await, [(Queue::Exported, 2)]);
    let none_yet = unannounced(now.before(HOUR)).await;
    assert!(none_yet.is_empty(), "they were not stored then");

    // A notification of any company announces the documents of the queue.
    announce(2, company("2")).await;
    assert!(unannounced(now).await.is_empty());
}

async fn cursors_are_kept_only_as_far_as_a_read_needs_them(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    let saved = async || {
        let count = test.database.count("SELECT count(*) FROM feed_cursor");
        count.await
    };
    // One a minute, for half an hour.
    for number in 0..30 {
        let cursor = format!("cursor-{number}");
        test.pull(&feed, last_page(&[], Some(&cursor))).await;
        test.clock.advance(Duration::from_secs(60));
    }
    let kept = saved().await;
    assert!((6..=10).contains(&kept), "none closer than needed: {kept}");
    // By now the newest of them is old enough for every read.
    test.clock.advance(24 * HOUR);
    test.drain().await;
    test.pull(&feed, last_page(&[], Some("newest"))).await;
    assert_eq!(saved().await, 2);
}

async fn each_page_that_a_notification_pulls_moves_the_cursor(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    for cursor in ["1", "2"] {
        test.pull(&feed, page(&[("a", cursor)], cursor)).await;
        assert_eq!(test.feed(&feed).await.cursor, Some(Cursor::new(cursor)));
    }
}

async fn only_what_a_person_accepts_is_vouched_for(database: Database) {
    let test = TestStore::new(database).await;
    let [a, b, c] = ["1", "2", "3"].map(company);
    let page = || last_page(&[("x", "1")], Some("1"));
    test.pull(&a, page()).await;
    test.drain().await;
    let pulled = async |feed: &Feed| {
        test.trigger(feed, TriggerKind::Notification).await;
        let lease = test.lease().await.expect("the feed is due");
        assert_eq!(lease.feed, *feed);
        let outcome = test.commit(lease.clone(), page()).await;
        let is_stored = matches!(outcome.expect("answered"), PageOutcome::Committed(_));
        if !is_stored {
            let paused = test.store.pause_for_ignored_company(lease).await;
            paused.expect("it is paused");
        }
        is_stored
    };
    let resume = async |feed: Option<&Feed>, accept| {
        let change = PauseChange::Resume { accept };
        let resumed = test.store.set_paused(account(), feed.cloned(), change);
        resumed.await.expect("stored");
    };
    assert!(!pulled(&b).await);
    resume(Some(&b), false).await;
    assert!(!pulled(&b).await, "nobody has accepted it");
    // Of the whole account those alone that seem to be ignored.
    test.store
        .register_feeds(vec![c.clone()], START)
        .await
        .expect("stored");
    resume(None, true).await;
    assert!(pulled(&b).await);
    test.drain().await;
    assert!(!pulled(&c).await);
    resume(Some(&c), true).await;
    assert!(pulled(&c).await);
}
