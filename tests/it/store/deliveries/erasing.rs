//! Erasing versions: their contents, and what came of them.

use std::time::Instant;

use ivesk_webhook::domain::Cursor;
use ivesk_webhook::erasure::{Subject, erase};
use ivesk_webhook::store::{DocumentRow, ErasedFile, PageEnd, UnreadableEntry};

use super::*;

on_both_stores! {
    an_erased_version_leaves_its_number_and_nothing_else,
    no_later_pull_brings_an_erased_version_back,
    an_attempt_that_outlasts_the_erasure_leaves_its_files_to_remove,
    files_that_a_newer_version_took_over_are_kept,
    files_of_the_same_name_are_listed_for_each_document,
    an_erased_unreadable_entry_stays_away,
    the_name_of_an_uploaded_file_goes_with_its_last_document,
    others_write_between_the_steps_of_a_large_erasure,
}

const NOTE: &str = "1/planted-a.json\n2/planted-a.json";

impl Scene {
    async fn rows(&self) -> Vec<DocumentRow> {
        let all = DocumentFilter {
            limit: 100,
            ..DocumentFilter::default()
        };
        self.store.documents(all).await.expect("readable")
    }

    async fn erase(&self, sequences: &[i64]) -> usize {
        let erased = self
            .store
            .erase_versions(sequences.to_vec(), self.clock.now());
        erased.await.expect("erased")
    }

    async fn files(&self) -> Vec<String> {
        let files = self.erased_files().await.into_iter();
        files.map(|file| file.path).collect()
    }

    /// Returns them one at a time, as parts of a longer list.
    async fn erased_files(&self) -> Vec<ErasedFile> {
        let mut files: Vec<ErasedFile> = Vec::new();
        loop {
            let after = files.last().cloned().unwrap_or_default();
            let next = self.store.erased_files(name(), after, 1).await;
            match next.expect("readable").pop() {
                Some(file) => files.push(file),
                None => return files,
            }
        }
    }

    /// Delivers what is due first, leaving a note.
    async fn deliver_with(&self, note: &str) {
        let lease = self.lease().await.expect("a lease");
        let note = Some(note.to_owned());
        self.end_with(lease, DeliveryOutcome::Delivered { note })
            .await;
    }
}

async fn an_erased_version_leaves_its_number_and_nothing_else(database: Database) {
    let versions = [("planted-a", &*at(1)), ("planted-b", &at(1)), ("c", &at(1))];
    let scene = Scene::started(database, &versions).await;
    let lease = scene.lease().await.expect("a lease");
    let attempts = vec![
        scene.attempt(
            &lease.deliveries[0],
            DeliveryOutcome::Delivered {
                note: Some(NOTE.to_owned()),
            },
        ),
        scene.attempt(&lease.deliveries[1], rejected("planted")),
    ];
    scene.end(lease, attempts).await;
    assert_eq!(scene.import_errors().await.len(), 1);
    let before = scene.rows().await;

    assert_eq!(scene.erase(&[1, 2]).await, 2);
    assert_eq!(scene.erase(&[1, 2]).await, 0, "a second time");

    let rows = scene.rows().await;
    for (row, before) in rows.iter().zip(&before).take(2) {
        assert_eq!(row.sequence, before.sequence);
        assert_eq!(row.version, before.version);
        assert_eq!(row.document_id, format!("erased-{}", row.sequence));
        assert_eq!(row.erased_at, Some(START));
        assert!(row.body.is_none());
    }
    assert_eq!(rows[2].document_id, "c");
    assert!(rows[2].body.is_some() && rows[2].erased_at.is_none());
    assert_eq!(scene.store.sequence().await.expect("readable").last, 3);
    assert!(scene.import_errors().await.is_empty());
    for sequence in [1, 2] {
        let filter = DeliveryFilter {
            sequence: Some(sequence),
            limit: 10,
            ..DeliveryFilter::default()
        };
        let deliveries = scene.store.deliveries(filter).await.expect("readable");
        assert_eq!(deliveries[0].detail, None);
        let attempts = &deliveries[0].attempts;
        assert!(attempts.iter().all(|attempt| attempt.detail.is_none()));
    }
    assert_eq!(
        scene.files().await,
        ["1/planted-a.json", "2/planted-a.json"]
    );
    assert_eq!(scene.due().await, [format!("c@{}", at(1))]);
    let late = LateOutcome::Rejected {
        message: "planted".to_owned(),
        import_error: NewImportError {
            company: Company::parse("1").ok(),
            message: "planted".to_owned(),
        },
    };
    let recorded = scene.store.record_outcome(name(), 1, late, START).await;
    assert!(!recorded.expect("answered"), "it is not known any more");
    assert!(scene.import_errors().await.is_empty());
}

async fn no_later_pull_brings_an_erased_version_back(database: Database) {
    let feed = company("1");
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(2))]).await;
    let others = company("2");
    scene.pull(&others, &[("a", &at(1)), ("z", &at(1))]).await;
    scene.erase(&[1, 2]).await;

    // All of a page, which no guard takes for another company's.
    for _ in 0..2 {
        scene.pull(&feed, &[("a", &at(1)), ("b", &at(2))]).await;
    }
    let scene = scene.reopen().await;
    scene
        .pull_as(
            &feed,
            TriggerKind::Notification,
            &[("a", &at(1))],
            &[("a", &at(1), "https://files.example/planted")],
        )
        .await;
    assert_eq!(scene.rows().await.len(), 4);
    let known = scene.store.feeds().await.expect("readable");
    let known = known.iter().find(|row| row.feed == feed).expect("known");
    assert_eq!((known.paused, known.documents), (None, 2));

    // Another version is another one, and another feed has its own.
    scene.pull(&feed, &[("a", &at(3))]).await;
    let rows = scene.rows().await;
    assert_eq!(rows.len(), 5);
    assert_eq!((&*rows[4].document_id, &rows[4].version), ("a", &at(3)));
    assert!(rows[2].body.is_some(), "of company 2");
}

async fn an_attempt_that_outlasts_the_erasure_leaves_its_files_to_remove(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    let note = Some("1/a.json".to_owned());
    let attempts = vec![scene.attempt(&lease.deliveries[0], DeliveryOutcome::Delivered { note })];
    let failed = lease.deliveries[1].clone();
    scene.erase(&[1, 2]).await;

    let failed = scene.failed(&failed, "planted", None);
    let attempts = [attempts, vec![failed]].concat();
    scene.end(lease, attempts).await;

    assert_eq!(scene.files().await, ["1/a.json"]);
    let destination = scene.destination().await;
    assert_eq!((destination.paused, destination.last_error), (None, None));
    let all = DeliveryFilter {
        limit: 10,
        ..DeliveryFilter::default()
    };
    let deliveries = scene.store.deliveries(all).await.expect("readable");
    assert!(deliveries.is_empty(), "{deliveries:?}");
    let file = scene.erased_files().await;
    assert!(
        file[0].is_of("a") && file[0].is_of("b"),
        "nobody knows any more"
    );
    let forgotten = scene.store.forget_erased_files(name(), file);
    forgotten.await.expect("forgotten");
    assert!(scene.files().await.is_empty());
    assert!(
        scene
            .store
            .erased_files_left()
            .await
            .expect("readable")
            .is_empty()
    );
}

async fn files_that_a_newer_version_took_over_are_kept(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    scene.deliver_with(NOTE).await;
    scene.erase(&[1]).await;
    assert_eq!(scene.files().await.len(), 2);

    scene.pull(&company("1"), &[("a", &at(2))]).await;
    scene.deliver_with("1/planted-a.json").await;
    assert_eq!(scene.files().await, ["2/planted-a.json"]);
}

async fn files_of_the_same_name_are_listed_for_each_document(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    let delivered = || DeliveryOutcome::Delivered {
        note: Some("1/same.json".to_owned()),
    };
    let attempts = lease.deliveries.iter();
    let attempts = attempts.map(|one| scene.attempt(one, delivered()));
    let attempts = attempts.collect();
    let settled = scene.settle(lease, attempts, LeaseAction::Release).await;
    settled.expect("it is the owner");
    scene.erase(&[1, 2]).await;

    let files = scene.erased_files().await;
    assert_eq!(files.len(), 2);
    for id in ["a", "b"] {
        assert_eq!(files.iter().filter(|file| file.is_of(id)).count(), 1);
    }
    let forgotten = scene
        .store
        .forget_erased_files(name(), vec![files[0].clone()]);
    forgotten.await.expect("forgotten");
    assert_eq!(scene.erased_files().await, files[1..]);
}

async fn an_erased_unreadable_entry_stays_away(database: Database) {
    const BY_ITSELF: &str = r#"{"total":1234567.5,"code":1234567}"#;
    const LONGER: &str = r#"{"total":1234567.5,"code":"991234567","id":"x-1234567"}"#;
    let scene = Scene::without_destination(database).await;
    let feed = company("1");
    let entries = || -> Vec<UnreadableEntry> {
        ["planted one", "other", BY_ITSELF, LONGER]
            .iter()
            .map(|body| UnreadableEntry {
                dedup_key: body.as_bytes().to_vec(),
                body: body.as_bytes().into(),
            })
            .collect()
    };
    let pull = async || {
        let trigger = Trigger {
            feed: feed.clone(),
            kind: TriggerKind::Notification,
            due_at: scene.clock.now(),
            from: None,
        };
        let triggered = scene.store.trigger(vec![trigger]).await;
        triggered.expect("the trigger is stored");
        let request = scene.page_request();
        let lease = scene
            .store
            .lease_page(request)
            .await
            .expect("leasing works");
        let page = PageToCommit {
            unreadable: entries(),
            cursor: Some(Cursor::new("c")),
            end: PageEnd::EndOfQueue,
            ..PageToCommit::default()
        };
        let plan = PullPlan {
            now: scene.clock.now(),
            follow_ups: [1000 * HOUR, 2000 * HOUR],
            reconcile_every: 1000 * HOUR,
            lookback: 24 * HOUR,
        };
        let committed = scene.store.commit_page(lease.expect("due"), page, plan);
        committed.await.expect("the page is stored");
    };
    pull().await;
    let feeds = scene.store.feeds_to_erase(None, Company::parse("1").ok());
    let feeds = feeds.await.expect("readable");
    assert_eq!(feeds.len(), 1, "{feeds:?}");
    let id = feeds[0].1;
    let found = async |part: Option<&str>| {
        let part = part.map(str::to_owned);
        let (mut all, mut after) = (Vec::new(), Vec::new());
        // One at a time: those that are kept do not come again.
        loop {
            let page = scene.store.unreadable_to_erase(id, part.clone(), after, 1);
            let (digests, last) = page.await.expect("readable");
            all.extend(digests);
            let Some(last) = last else {
                return all;
            };
            after = last;
        }
    };
    assert_eq!(found(None).await.len(), 4);
    assert!(found(Some("7")).await.is_empty(), "a digit of others");
    for part in ["planted", "1234567"] {
        let digests = found(Some(part)).await;
        assert_eq!(digests.len(), 1, "{part}");
        let erased = scene.store.erase_unreadable(id, digests, scene.clock.now());
        erased.await.expect("erased");
    }

    pull().await;
    assert!(found(Some("planted")).await.is_empty());
    assert!(found(Some("1234567")).await.is_empty());
    assert_eq!(found(None).await.len(), 2);
    assert_eq!(found(Some("991234567")).await.len(), 1, "it stays");
}

async fn the_name_of_an_uploaded_file_goes_with_its_last_document(database: Database) {
    let scene = Scene::without_destination(database).await;
    scene
        .pull(&company("1"), &[("a", &at(1)), ("b", &at(1))])
        .await;
    scene
        .database
        .run(
            "INSERT INTO upload (account_id, correlation, sha256, size_bytes, file_name, state, created_at, changed_at)
                 SELECT id, 'x', 'x', 1, 'planted.pdf', 'sent', 0, 0 FROM account;
             INSERT INTO upload_document (upload_id, document_id) SELECT id, 'a' FROM upload;
             INSERT INTO upload_document (upload_id, document_id) SELECT id, 'b' FROM upload",
        )
        .await;
    let file_name = async || {
        let uploads = scene.store.newest_uploads(None, 10).await;
        uploads.expect("readable")[0].file_name.clone()
    };
    scene.erase(&[1]).await;
    assert_eq!(file_name().await, "planted.pdf");
    scene.erase(&[2]).await;
    assert_eq!(file_name().await, "erased");
}

/// A person erases a large company: whatever else is written gets its turn.
async fn others_write_between_the_steps_of_a_large_erasure(database: Database) {
    let count = std::env::var("IVESK_WEBHOOK_TEST_ERASED").map_or(1_000, |count| {
        count
            .parse()
            .expect("IVESK_WEBHOOK_TEST_ERASED is a number")
    });
    let scene = Scene::new(database).await;
    let feed = company("1");
    let ids: Vec<String> = (0..count).map(|number| format!("{number:x>40}")).collect();
    for ids in ids.chunks(250) {
        let day = at(1);
        let page: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), day.as_str())).collect();
        scene.pull(&feed, &page).await;
    }
    let config = crate::support::destinations::config("http://127.0.0.1:9/");
    let subject = Subject::Company(feed.company.clone());
    let erasing = async {
        let (mut versions, mut after) = (0, None);
        loop {
            let (store, clock) = (&scene.store, &scene.clock);
            let part = erase(store, &config, clock, None, &subject, after).await;
            let part = part.expect("erased");
            versions += part.versions;
            after = part.next;
            if after.is_none() {
                return versions;
            }
        }
    };
    let mut erasing = std::pin::pin!(erasing);
    let (began, mut writes, mut longest) = (Instant::now(), 0, Duration::ZERO);
    let erased = loop {
        let asked = Instant::now();
        let change = DestinationChange::Skip(DeliverySelection::One(i64::MAX));
        tokio::select! {
            erased = &mut erasing => break erased,
            _ = scene.change(change) => {
                writes += 1;
                longest = longest.max(asked.elapsed());
            }
        }
    };
    eprintln!(
        "{count} versions in {:?}; {writes} writes meanwhile, the longest {longest:?}",
        began.elapsed()
    );
    assert_eq!(erased, count);
    // A step has a hundred versions.
    assert!(writes >= count / 200, "{writes}");
}

/// What is deleted stays in a SQLite file until it is overwritten.
#[tokio::test]
async fn no_byte_of_an_erased_version_is_left_in_the_file() {
    let scene = Scene::without_destination(Database::sqlite()).await;
    let large = "planted5e7".repeat(2_000);
    scene
        .pull(&company("1"), &[("a", &at(1)), (&large, &at(1))])
        .await;
    let file = scene.database.folder().join("test.db");
    let holds = || {
        let bytes = std::fs::read(&file).expect("readable");
        bytes.windows(10).any(|part| part == b"planted5e7")
    };
    scene.erase(&[1, 2]).await;
    scene.store.close().await.expect("it closes");
    assert!(!holds());
    let wal = std::fs::read(file.with_extension("db-wal"));
    assert!(wal.map_or(true, |wal| wal.is_empty()), "closing removes it");
}
