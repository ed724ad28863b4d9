//! Looks for what other replicas have left to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::app::App;
use crate::pull::Puller;

/// Interval between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Wakes the workers while there is something to pull or to deliver, until `shutdown` is canceled:
/// another replica may have stored it, or may have ended before it was done.
pub(super) async fn watch(app: Arc<App>, puller: Arc<Puller>, shutdown: CancellationToken) {
    let destinations: Vec<_> = app.config.destinations.keys().cloned().collect();
    while shutdown
        .run_until_cancelled(sleep(INTERVAL))
        .await
        .is_some()
    {
        let request = puller.lease_request();
        let looked = app.store.look_for_work(request, destinations.clone()).await;
        if let Err(error) = looked {
            // The workers find it too, and report it.
            debug!("failed to look for what other replicas have left: {error}");
        }
    }
}
