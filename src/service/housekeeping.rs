//! What is looked at every now and then: the disk's room, what is to be
//! forgotten, and one line on what was accepted.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::App;
use crate::store::{LATE_AFTER, Retention, RetentionOutcome, UploadFilter};

/// How often the disk's room is looked at.
const DISK_EVERY: Duration = Duration::from_secs(5);

/// How often the log says how many messages were accepted.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How long fresh links to files are kept: no link works for as long.
const LINKS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How often what is too old is removed.
const RETAIN_EVERY: Duration = Duration::from_secs(10 * 60);

/// How long it is remembered that there was an alarm.
const ALARMS_KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Looks at the disk's room: with less than `store.min_free_bytes`, messages
/// are answered 503 until there is more.
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
                     messages are answered 503 until there is room, and SNS sends them again for about half an hour"
                );
            } else {
                info!(free_bytes = free, "the store's disk has room again");
            }
        }
        Ok(None) => {
            app.health.set_disk_nearly_full(false);
        }
        // Messages find out by themselves whether the store takes them.
        Err(error) => warn!("the disk's room could not be read: {error}"),
    }
}

/// Removes what the settings no longer want kept, a bounded part of it.
pub async fn retain(app: &App) -> RetentionOutcome {
    let now = app.clock.now();
    let retention = Retention {
        notifications_before: now.before(app.config.retention.notifications),
        documents_before: now.before(app.config.retention.documents),
        destinations: app.config.destinations.keys().cloned().collect(),
        links_before: now.before(LINKS_KEPT),
        quarantine_before: now.before(app.config.retention.quarantine),
        alarms_before: now.before(ALARMS_KEPT),
    };
    match app.store.retain(retention).await {
        Ok(removed) => removed,
        Err(error) => {
            warn!("what is too old could not be removed: {error}");
            RetentionOutcome::default()
        }
    }
}

/// At most so many late uploads are counted.
const MOST_LATE: usize = 1_000;

/// Counts the uploads whose documents are late; the alarm tells of them.
pub async fn check_uploads(app: &App) {
    let filter = UploadFilter {
        after: 0,
        missing_since: Some(app.clock.now().before(LATE_AFTER)),
        limit: MOST_LATE,
    };
    match app.store.uploads(filter).await {
        Ok(late) => app.metrics.uploads_late(late.len()),
        Err(error) => warn!("late uploads could not be counted: {error}"),
    }
}

/// Keeps house until `shutdown` is canceled.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let started = Instant::now();
    let (mut disk, mut tell) = (started + DISK_EVERY, started + TELL_EVERY);
    let mut forget = started;
    loop {
        let next = disk.min(tell).min(forget);
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
            disk = now + DISK_EVERY;
        }
        if now >= tell {
            app.ingest.tally().tell();
            check_uploads(&app).await;
            tell = now + TELL_EVERY;
        }
        if now >= forget {
            // As long as there is more to remove, the next part follows soon.
            let removed = retain(&app).await;
            let more = removed != RetentionOutcome::default();
            forget = now + if more { DISK_EVERY } else { RETAIN_EVERY };
        }
    }
    app.ingest.tally().tell();
}
