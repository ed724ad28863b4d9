//! Automatic backups: one every `store.backup_every`, of which the newest are kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::app::App;
use crate::backoff;
use crate::config::StoreUrl;
use crate::store::{AutomaticBackups, StoreError, check_room_for_backup};

/// Writes one backup, and removes those that are no longer kept; returns its path.
///
/// # Errors
///
/// If it can't be written, or the disk would be too full then. Nothing is removed then.
pub async fn back_up(app: &App) -> Result<PathBuf, StoreError> {
    let settings = &app.config.store;
    let now = app.clock.now();
    let backups = AutomaticBackups::of(settings);
    let file = backups.file(now);
    let path = file.path();
    if let StoreUrl::Sqlite(database) = &settings.url {
        check_room_for_backup(database, &settings.backup_dir, settings.min_free_bytes)?;
    }
    app.store.backup(file).await?;
    match backups.remove_old(settings.backup_keep, &path, now) {
        Ok(removed) => info!(
            removed,
            "wrote the backup {}, and removed {removed} old ones",
            path.display()
        ),
        Err(error) => error!(
            "wrote the backup {}, and failed to remove old ones, which fill the disk: {error}. Fix: let the service's \
             user remove them",
            path.display()
        ),
    }
    Ok(path)
}

/// Returns the time until the next backup, by the newest one that is there.
pub fn next_backup(app: &App, every: Duration) -> Duration {
    // If the folder can't be read, writing one finds the reason.
    let newest = AutomaticBackups::of(&app.config.store)
        .newest(app.clock.now())
        .ok()
        .flatten();
    newest.map_or(Duration::ZERO, |(at, _)| {
        at.after(every).since(app.clock.now()).min(every)
    })
}

/// Writes backups until `shutdown` is canceled; one that is being written is left unfinished then,
/// and removed by the next.
pub async fn run(app: Arc<App>, every: Duration, shutdown: CancellationToken) {
    // Fewer may be kept than before the restart.
    let (backups, now) = (AutomaticBackups::of(&app.config.store), app.clock.now());
    if let Ok(Some((_, newest))) = backups.newest(now) {
        // If it fails, an alarm tells.
        let _ = backups.remove_old(app.config.store.backup_keep, &newest, now);
    }
    let mut failures = 0;
    let back_up_forever = async {
        loop {
            let wait = match failures {
                0 => next_backup(&app, every),
                _ => backoff::BACKUP.delay(failures - 1, backoff::jitter()),
            };
            sleep(wait).await;
            match back_up(&app).await {
                Ok(_) => failures = 0,
                Err(error) => {
                    failures += 1;
                    error!("failed to write a backup; retrying: {error}");
                }
            }
        }
    };
    shutdown.run_until_cancelled(back_up_forever).await;
}
