//! Records when tokens and sessions were last used.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::debug;

use crate::app::App;
use crate::store::Used;

/// Records uses beside the requests, one at a time: no request waits for it, and a store that
/// hangs collects none.
pub(super) struct Uses(Arc<Semaphore>);

impl Uses {
    /// Creates a recorder.
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Records a use, unless another one is being recorded.
    pub(super) fn record(&self, app: &Arc<App>, used: Used) {
        let Ok(turn) = Arc::clone(&self.0).try_acquire_owned() else {
            return;
        };
        let store = Arc::clone(&app.store);
        tokio::spawn(async move {
            if let Err(error) = store.record_use(used).await {
                debug!("failed to record the use of a token or session: {error}");
            }
            drop(turn);
        });
    }
}
