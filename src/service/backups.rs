//! Automatic backups: one every `store.backup_every`, of which the newest are kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::app::App;
use crate::backoff;
use crate::store::{BackupFile, StoreError, automatic_backups, remove_old_backups};

/// Writes one backup, and removes those that are no longer kept; returns its path.
///
/// # Errors
///
/// If it can't be written. Nothing is removed then.
pub async fn back_up(app: &App) -> Result<PathBuf, StoreError> {
    let settings = &app.config.store;
    let file = BackupFile::automatic(&settings.backup_dir, app.clock.now());
    let path = file.path();
    app.store.backup(file).await?;
    match remove_old_backups(&settings.backup_dir, settings.backup_keep) {
        Ok(removed) => info!(
            removed,
            "wrote the backup {}, and removed {removed} old ones",
            path.display()
        ),
        Err(error) => warn!(
            "wrote the backup {}, and failed to remove old ones: {error}",
            path.display()
        ),
    }
    Ok(path)
}

/// Returns the time until the next backup, by the newest one that is there.
pub fn next_backup(app: &App, every: Duration) -> Duration {
    let newest = match automatic_backups(&app.config.store.backup_dir) {
        Ok(mut backups) => backups.pop(),
        // Writing one finds the reason.
        Err(_) => None,
    };
    newest.map_or(Duration::ZERO, |(at, _)| {
        at.after(every).since(app.clock.now()).min(every)
    })
}

/// Writes backups until `shutdown` is canceled; one that is being written is left unfinished then,
/// and removed by the next.
pub async fn run(app: Arc<App>, every: Duration, shutdown: CancellationToken) {
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
