//! Announces faults of the store itself.
//!
//! The store can't keep these alarms, so they are in memory: each replica announces its own,
//! and a restart announces them again if they are still there.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::notifier::Notifier;
use crate::backoff;
use crate::domain::{Clock, Timestamp};
use crate::receiver::health::StoreFaults;
use crate::store::{AlarmNotice, AlarmRow};

/// Sends a notice when a fault of the store begins and when it ends, until `shutdown` is
/// canceled; a notice that fails is retried.
pub(super) async fn announce(
    mut faults: watch::Receiver<StoreFaults>,
    notifier: &Notifier,
    clock: &Clock,
    shutdown: &CancellationToken,
) {
    let mut announced = Vec::new();
    let mut failures = 0;
    loop {
        let active = faults.borrow_and_update().alarms();
        let sent = announce_changes(notifier, &mut announced, active, clock.now()).await;
        failures = if sent { 0 } else { failures + 1 };
        let retry = async {
            if sent {
                std::future::pending::<()>().await;
            }
            sleep(delay(failures)).await;
        };
        tokio::select! {
            changed = faults.changed() => if changed.is_err() { return },
            () = retry => {}
            () = shutdown.cancelled() => return,
        }
    }
}

fn delay(failures: u32) -> Duration {
    backoff::ALARM.delay(failures.saturating_sub(1), 0.0)
}

/// Announces the differences between `announced`, which is updated, and `active`; returns
/// false if one of the notices failed.
async fn announce_changes(
    notifier: &Notifier,
    announced: &mut Vec<AlarmRow>,
    active: Vec<AlarmRow>,
    now: Timestamp,
) -> bool {
    let mut all_sent = true;
    let mut kept = Vec::new();
    for alarm in announced.drain(..) {
        if active.iter().any(|other| other.kind == alarm.kind) {
            kept.push(alarm);
            continue;
        }
        let ended = AlarmRow {
            ended_at: Some(now),
            ..alarm.clone()
        };
        if !send(notifier, ended, true).await {
            all_sent = false;
            kept.push(alarm);
        }
    }
    *announced = kept;
    for alarm in active {
        if announced.iter().any(|other| other.kind == alarm.kind) {
            continue;
        }
        if send(notifier, alarm.clone(), false).await {
            announced.push(alarm);
        } else {
            all_sent = false;
        }
    }
    all_sent
}

async fn send(notifier: &Notifier, alarm: AlarmRow, over: bool) -> bool {
    let (kind, subject) = (alarm.kind.as_str(), alarm.subject.clone());
    let notice = AlarmNotice {
        alarm,
        over,
        fence: 0,
    };
    match notifier.send(&notice, None).await {
        Ok(()) => {
            info!(alarm = kind, %subject, over, "sent the notice of alarm {kind} of {subject}");
            true
        }
        Err(error) => {
            warn!(alarm = kind, %subject, over, "failed to send the notice of alarm {kind} of {subject}; it is retried: {error}");
            false
        }
    }
}
