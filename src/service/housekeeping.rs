//! Periodic work: checks the disk's free space, removes what retention no longer keeps,
//! and logs a summary of accepted messages.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::app::App;
use crate::erasure;
use crate::store::{Retention, RetentionOutcome, StoreError, UploadFilter};

/// Interval between checks of the disk's free space.
const DISK_INTERVAL: Duration = Duration::from_secs(5);

/// Interval between checks that a message could be stored.
const STORE_INTERVAL: Duration = Duration::from_secs(2);

/// Interval between checks of the whole database.
const INTEGRITY_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Interval between summaries of accepted messages.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);

/// Interval between removals.
const RETENTION_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Pause between removals while there is more to remove.
const RETENTION_PAUSE: Duration = Duration::from_millis(250);

/// Pause between removals while they pass documents that a destination needs.
const PASSING_PAUSE: Duration = Duration::from_secs(5);

/// Retention of fresh links to files and of upload locations, longer than any is valid.
const LINK_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Retention of alarms that are over.
const ALARM_RETENTION: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Retention of counts by hour, of which people see a day.
const TALLY_RETENTION: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// Most late uploads that are counted.
const MAX_LATE_UPLOADS: usize = 1_000;

/// Checks the disk's free space: with less than `store.min_free_bytes`, messages are
/// answered 503 until there is more.
pub async fn check_disk(app: &App) {
    let minimum = app.config.store.min_free_bytes;
    match app.store.free_bytes().await {
        Ok(Some(free)) => {
            app.metrics.free_bytes(free);
            let nearly_full = free < minimum;
            if !app.health.set_disk_nearly_full(nearly_full) {
                return;
            }
            if nearly_full {
                error!(
                    free_bytes = free,
                    "the store's disk has {free} bytes left, less than `store.min_free_bytes` = {minimum}: \
                     messages are answered 503 until space is freed, and SNS retries them for about half an hour"
                );
            } else {
                info!(
                    free_bytes = free,
                    "the store's disk has enough free space again"
                );
            }
        }
        Ok(None) => {
            app.health.set_disk_nearly_full(false);
        }
        // Messages are refused anyway if the store can't commit them.
        Err(error) => warn!("failed to read the disk's free space: {error}"),
    }
}

/// Removes a bounded number of rows that are older than the retention settings, and
/// returns how many.
pub async fn retain(app: &App) -> RetentionOutcome {
    let now = app.clock.now();
    let retention = Retention {
        notifications_before: now.before(app.config.retention.notifications),
        documents_before: now.before(app.config.retention.documents),
        destinations: app.config.destinations.keys().cloned().collect(),
        links_before: now.before(LINK_RETENTION),
        quarantine_before: now.before(app.config.retention.quarantine),
        alarms_before: now.before(ALARM_RETENTION),
        tallies_before: now.before(TALLY_RETENTION),
    };
    match app.store.retain(retention).await {
        Ok(removed) => removed,
        Err(error) => {
            warn!("failed to remove old rows: {error}");
            RetentionOutcome::default()
        }
    }
}

/// Removes files of erased documents that could not be removed before: their disk was not
/// mounted, or the service ended.
async fn remove_erased_files(app: &App) {
    match erasure::remove_files(&app.store, &app.config, None).await {
        Ok(outcome) => {
            for left in outcome.left {
                let (destination, files, problem) = (left.destination, left.files, left.problem);
                warn!(%destination, files, "{files} files of erased documents remain at destination `{destination}`: {problem}");
            }
        }
        Err(error) => warn!("failed to read which files of erased documents remain: {error}"),
    }
}

/// Counts the uploads whose documents are late, for metrics.
pub async fn check_uploads(app: &App) {
    let filter = UploadFilter {
        after: 0,
        missing_since: Some(app.config.upload.late_before(app.clock.now())),
        limit: MAX_LATE_UPLOADS,
    };
    match app.store.uploads(filter).await {
        Ok(late) => app.metrics.uploads_late(late.len()),
        Err(error) => warn!("failed to count late uploads: {error}"),
    }
}

/// Checks at short intervals that a message could be stored, until `shutdown` is canceled.
/// A fault is logged, and an alarm is raised, also while nobody asks for `/readyz`.
pub async fn check_store(app: Arc<App>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        // Recorded in `app.health` and logged by the check itself.
        let _ = app.ingest.readiness().await;
        shutdown.run_until_cancelled(sleep(STORE_INTERVAL)).await;
    }
}

/// Checks the whole database for damage, once at the start and then daily, until `shutdown`
/// is canceled.
pub async fn check_integrity(app: Arc<App>, shutdown: CancellationToken) {
    let check = async {
        loop {
            match app.store.check_integrity().await {
                Ok(()) => {
                    app.health.set_damaged(None, app.clock.now());
                }
                Err(error @ StoreError::Corrupt { .. }) => {
                    error!("{error}");
                    app.health
                        .set_damaged(Some(error.to_string()), app.clock.now());
                }
                Err(error) => warn!("failed to check the database for damage: {error}"),
            }
            sleep(INTEGRITY_INTERVAL).await;
        }
    };
    shutdown.run_until_cancelled(check).await;
}

/// Runs until `shutdown` is canceled.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let started = Instant::now();
    let (mut disk, mut summary) = (started + DISK_INTERVAL, started + SUMMARY_INTERVAL);
    let (mut retention, mut erased_files) = (started, started);
    loop {
        let next = disk.min(summary).min(retention).min(erased_files);
        if shutdown
            .run_until_cancelled(sleep_until(next))
            .await
            .is_none()
        {
            break;
        }
        let now = Instant::now();
        if now >= disk {
            check_disk(&app).await;
            disk = now + DISK_INTERVAL;
        }
        if now >= summary {
            app.ingest.log().summarize();
            check_uploads(&app).await;
            summary = now + SUMMARY_INTERVAL;
        }
        if now >= retention {
            let removed = retain(&app).await;
            let pause = match removed {
                RetentionOutcome { more: true, .. } => RETENTION_PAUSE,
                RetentionOutcome { goes_on: true, .. } => PASSING_PAUSE,
                _ => RETENTION_INTERVAL,
            };
            retention = Instant::now() + pause;
        }
        if now >= erased_files {
            remove_erased_files(&app).await;
            erased_files = Instant::now() + RETENTION_INTERVAL;
        }
    }
    app.ingest.log().summarize();
}
