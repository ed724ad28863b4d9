//! Backups: an older one while the vendor and a destination went on, and automatic ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ivesk_webhook::alarms::Alarms;
use ivesk_webhook::config::StoreUrl;
use ivesk_webhook::doctor::{CheckResult, inside};
use ivesk_webhook::metrics::Metrics;
use ivesk_webhook::service::Service;
use ivesk_webhook::service::backups::{back_up, next_backup};
use ivesk_webhook::store::{AlarmKind, BackupFile, restore_backup};

use crate::support::deliveries::{drain, worker};
use crate::support::ledger::Ledger;
use crate::support::process::within;
use crate::support::puller::{Bench, COMPANY, exported, folder, hours, minutes, seconds};

#[tokio::test]
async fn an_older_backup_loses_no_document_and_books_none_twice() {
    let dir = folder();
    let file = dir.path().join("live.db");
    let url = StoreUrl::Sqlite(file.clone());
    let mut bench = Bench::with("", |config| config.store.url = url).await;
    bench.settle().await;
    let ledger = Ledger::start().await;
    let books = worker(&bench, "books", &ledger.destination()).await;
    let early = bench.export_and_pull(COMPANY, 3).await;
    drain(&books).await;
    let copy = BackupFile::named(dir.path(), "copy.db", false).expect("a name");
    bench.store().backup(copy.clone()).await.expect("a backup");

    // The vendor goes on: new documents, a new version of an old one, one that nobody announced.
    bench.clock.advance(minutes(5));
    bench.export_and_pull(COMPANY, 2).await;
    bench.re_export_and_pull(COMPANY, &early[0]).await;
    drain(&books).await;
    let accepted = ledger.accepted().len();
    assert_eq!(accepted, 6);
    drop(books);
    bench.close().await;
    bench.export_unannounced(COMPANY, 1);
    bench.clock.advance(minutes(5));
    restore_backup(&file, &copy.path(), bench.clock.now()).expect("restored");
    bench.restart().await;
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;

    let books = worker(&bench, "books", &ledger.destination()).await;
    bench.clock.advance(seconds(1));
    drain(&books).await;
    // The three versions after the backup came again, under their keys, and the new one once.
    assert_eq!(ledger.repeats(), 3);
    let versions = ledger.versions();
    assert_eq!(versions.len(), 7, "{versions:?}");
    let distinct: BTreeSet<_> = versions.iter().collect();
    assert_eq!(distinct.len(), 7);
    let truth: BTreeSet<String> = bench
        .truth(&exported(COMPANY))
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    let booked: BTreeSet<String> = versions.into_iter().map(|(id, _)| id).collect();
    assert_eq!(booked, truth);
}

#[tokio::test]
async fn automatic_backups_are_written_kept_and_missed() {
    let dir = folder();
    let backups = dir.path().join("backups");
    let day = hours(24);
    let (url, backup_dir) = (
        StoreUrl::Sqlite(dir.path().join("live.db")),
        backups.clone(),
    );
    let bench = Bench::with("", |config| {
        config.store.url = url;
        config.store.backup_dir = backup_dir;
        // Written by this test alone: the service would do it at once.
        config.store.backup_every = None;
        config.store.backup_keep = 2;
    })
    .await;
    let clock = &bench.clock;
    let store = Arc::clone(bench.store());
    let service = Service::start_with(bench.config.clone(), store, clock.clone()).await;
    let service = service.expect("the service starts");
    let app = service.app();
    assert_eq!(next_backup(app, day), Duration::ZERO, "there is none yet");
    for name in ["auto-mine.db", "ivesk.db"] {
        let file = BackupFile::named(&backups, name, false).expect("a name");
        app.store.backup(file).await.expect("backed up");
    }
    for _ in 0..3 {
        back_up(app).await.expect("written");
        assert_eq!(next_backup(app, day), day);
        clock.advance(day);
    }
    let entries = std::fs::read_dir(&backups).expect("a folder");
    let names = entries.map(|entry| {
        entry
            .expect("an entry")
            .file_name()
            .into_string()
            .expect("text")
    });
    let names: BTreeSet<String> = names.collect();
    let expected = [
        "auto-live-20261124T080000Z.db",
        "auto-live-20261125T080000Z.db",
        "auto-mine.db",
        "ivesk.db",
    ];
    assert_eq!(names, expected.map(str::to_owned).into());
    // A clock that was ahead when a backup was written: that one counts for nothing, and goes first.
    clock.advance(day);
    let ahead = backups.join("auto-live-20361125T080000Z.db");
    std::fs::copy(backups.join("auto-live-20261125T080000Z.db"), &ahead).expect("copied");
    assert_eq!(next_backup(app, hours(1)), Duration::ZERO);
    let written = back_up(app).await.expect("written");
    assert!(written.exists() && !ahead.exists());
    assert_eq!(next_backup(app, hours(1)), hours(1));
    std::fs::copy(&written, &ahead).expect("copied");

    let mut config = bench.config.clone();
    config.store.backup_every = Some(day);
    let alarms = Alarms::new(
        &config,
        Arc::clone(bench.store()),
        Arc::new(Metrics::new()),
        Arc::default(),
        clock.clone(),
    );
    let alarms = alarms.expect("alarms");
    let check = async || {
        let changes = alarms.check().await.expect("the store works");
        let of_backups = |rows: &[ivesk_webhook::store::AlarmRow]| {
            rows.iter().any(|alarm| alarm.kind == AlarmKind::Backup)
        };
        (of_backups(&changes.raised), of_backups(&changes.ended))
    };
    clock.advance(hours(47));
    assert_eq!(check().await, (false, false));
    clock.advance(hours(2));
    assert_eq!(check().await, (true, false));
    let line = serde_json::to_string(&inside::store(&config, false).await).expect("JSON");
    assert!(line.contains("\"backup\""), "{line}");
    let written = back_up(app).await.expect("written");
    assert_eq!(check().await, (false, true));
    // Old ones that could not be removed.
    for moment in ["20261101T080000Z", "20261102T080000Z"] {
        let old = backups.join(format!("auto-live-{moment}.db"));
        std::fs::copy(&written, old).expect("copied");
    }
    clock.advance(hours(1));
    assert_eq!(check().await, (true, false));
    back_up(app).await.expect("written");
    assert_eq!(check().await, (false, true));
    assert!(service.stop().await);
}

#[tokio::test]
async fn a_backup_that_would_fill_the_disk_is_not_written() {
    let dir = folder();
    let (url, backups) = (
        StoreUrl::Sqlite(dir.path().join("live.db")),
        dir.path().join("backups"),
    );
    let backup_dir = backups.clone();
    let bench = Bench::with("", |config| {
        config.store.url = url;
        config.store.backup_dir = backup_dir;
        config.store.backup_every = None;
        config.store.min_free_bytes = u64::MAX / 4;
    })
    .await;
    let (store, clock) = (Arc::clone(bench.store()), bench.clock.clone());
    let service = Service::start_with(bench.config.clone(), store, clock).await;
    let service = service.expect("the service starts");
    let error = back_up(service.app()).await.expect_err("no room");
    assert!(error.to_string().contains("min_free_bytes"), "{error}");
    assert!(!backups.exists());
    assert!(service.stop().await);
}

#[tokio::test]
async fn a_service_writes_its_first_backup_by_itself() {
    let dir = folder();
    let (url, backups) = (
        StoreUrl::Sqlite(dir.path().join("live.db")),
        dir.path().join("backups"),
    );
    let backup_dir = backups.clone();
    let bench = Bench::with("", |config| {
        config.store.url = url;
        config.store.backup_dir = backup_dir;
        config.store.backup_every = Some(hours(24));
    })
    .await;
    // A fresh installation has none yet, and nothing is wrong with it.
    let checks = inside::store(&bench.config, false).await;
    let of_backups = checks.iter().find(|check| check.check == "backup");
    assert_eq!(
        of_backups.map(|check| check.result),
        Some(CheckResult::Note)
    );
    let (store, clock) = (Arc::clone(bench.store()), bench.clock.clone());
    let service = Service::start_with(bench.config.clone(), store, clock).await;
    let service = service.expect("the service starts");
    let written = async {
        while !std::fs::read_dir(&backups).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with("auto-live-")
            })
        }) {
            tokio::task::yield_now().await;
        }
    };
    within("a backup", written).await;
    assert!(service.stop().await);
}
