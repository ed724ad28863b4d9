//! Alarms without any other system: what a person should know of is said once when it
//! begins and once when it is over, in the log, on the admin listener, and to the
//! address or the command that the settings name.
//!
//! [`Alarms::look`] is the one step that finds what is wrong and [`Alarms::tell`] the one
//! that tells it elsewhere; [`run`] only decides when to call them. What is on and what is
//! still to be told stands in rows, so a restart repeats nothing and replicas share it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{Config, DestinationConfig, HistoryMode};
use crate::delivery::worker::filter;
use crate::domain::{Clock, DestinationName, Timestamp};
use crate::metrics::{Metrics, Refusals, StoreStep, Stored};
use crate::store::{
    AlarmChanges, AlarmNotice, AlarmObservation, HeldFeed, LATE_AFTER, NoticeEnd, SharedStore,
    StoreError, UploadFilter,
};

mod command;
mod conditions;
mod notifier;

use conditions::Facts;
use notifier::Notifier;

/// How often it is looked whether something is wrong.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Refused messages within this time are counted together.
pub const STORM_WINDOW: Duration = Duration::from_secs(10 * 60);

/// How long after a start feeds may be brought up to date before one of them is behind:
/// nothing pulled them while nothing ran.
const SETTLING: Duration = Duration::from_secs(15 * 60);

/// The most late uploads that are counted.
const MOST_LATE: usize = 1_000;

/// How long one process may take to tell an alarm before another one tries.
const NOTICE_LEASE: Duration = Duration::from_secs(2 * 60);

/// How long after a failure an alarm is told again; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(15);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// After so many failures, about a day, an alarm is not told any more.
const MOST_ATTEMPTS: u32 = 100;

/// Alarms told in one turn, so that the next look is not put off for long.
const A_TURN: usize = 20;

/// What telling one alarm came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was taken.
    Taken,
    /// It was not, and is tried again later or given up.
    Failed,
    /// Nothing is to be told now.
    Nothing,
}

/// Finds what is wrong, and tells it.
pub struct Alarms {
    config: Config,
    store: SharedStore,
    metrics: Arc<Metrics>,
    clock: Clock,
    notifier: Option<Notifier>,
    refusals: Mutex<Recent>,
    started_at: Timestamp,
}

impl Alarms {
    /// The alarms of `config`.
    ///
    /// # Errors
    ///
    /// Where the machine offers no TLS.
    pub fn new(
        config: &Config,
        store: SharedStore,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Result<Self, reqwest::Error> {
        let refusals = Recent::starting_from(metrics.refusals(), clock.now());
        Ok(Self {
            notifier: Notifier::of(&config.alarms)?,
            config: config.clone(),
            store,
            metrics,
            refusals: Mutex::new(refusals),
            started_at: clock.now(),
            clock,
        })
    }

    /// Looks whether anything is wrong; what has begun or is over is logged.
    ///
    /// # Errors
    ///
    /// The store's: nothing was changed then.
    pub async fn look(&self) -> Result<AlarmChanges, StoreError> {
        let facts = self.metrics.timed(StoreStep::Read, self.facts()).await?;
        let look = AlarmObservation {
            now: facts.stored.now,
            found: conditions::judge(&facts, &self.config),
            tell: self.notifier.is_some(),
        };
        let changes = self.store.update_alarms(look).await?;
        for alarm in &changes.raised {
            let (kind, subject) = (alarm.kind.as_str(), &alarm.subject);
            error!(alarm = kind, %subject, id = alarm.id, "alarm {kind} of {subject}: {}", alarm.text);
        }
        for alarm in &changes.ended {
            let (kind, subject) = (alarm.kind.as_str(), &alarm.subject);
            info!(alarm = kind, %subject, id = alarm.id, "alarm {kind} of {subject} is over");
        }
        Ok(changes)
    }

    async fn facts(&self) -> Result<Facts, StoreError> {
        let now = self.clock.now();
        let late = UploadFilter {
            after: 0,
            missing_since: Some(now.before(LATE_AFTER)),
            limit: MOST_LATE,
        };
        let silent_since = now.before(self.config.alarms.silence_after);
        Ok(Facts {
            stored: Stored::read(self.store.as_ref(), now).await?,
            unannounced_documents: self.store.unannounced_documents(silent_since).await?,
            late_uploads: self.store.uploads(late).await?.len(),
            held: self.held().await?,
            free_bytes: self.store.free_bytes().await?,
            settling: now.since(self.started_at) < SETTLING,
            refusals: self
                .refusals
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .within_window(self.metrics.refusals(), now),
        })
    }

    async fn held(&self) -> Result<Vec<(DestinationName, Vec<HeldFeed>)>, StoreError> {
        let mut held = Vec::new();
        let waits = |destination: &DestinationConfig| destination.history == HistoryMode::Hold;
        for (name, destination) in self
            .config
            .destinations
            .iter()
            .filter(|(_, destination)| waits(destination))
        {
            let feeds = self
                .store
                .held_feeds(name.clone(), filter(destination))
                .await?;
            held.push((name.clone(), feeds));
        }
        Ok(held)
    }

    /// Tells one alarm to whom the settings name, if one is due.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn tell(&self) -> Result<Told, StoreError> {
        let Some(notifier) = &self.notifier else {
            return Ok(Told::Nothing);
        };
        let now = self.clock.now();
        let Some(notice) = self.store.lease_notice(now, NOTICE_LEASE).await? else {
            return Ok(Told::Nothing);
        };
        let outcome = notifier.tell(&notice).await;
        let told = match &outcome {
            Ok(()) => Told::Taken,
            Err(_) => Told::Failed,
        };
        let end = self.judge_attempt(&notice, outcome);
        self.store.end_notice(notice, end, self.clock.now()).await?;
        Ok(told)
    }

    fn judge_attempt(&self, notice: &AlarmNotice, outcome: Result<(), String>) -> NoticeEnd {
        let alarm = &notice.alarm;
        let (kind, subject, failures) = (alarm.kind.as_str(), &alarm.subject, alarm.attempts);
        match outcome {
            Ok(()) => {
                info!(alarm = kind, %subject, id = alarm.id, over = notice.over, "told alarm {kind} of {subject}");
                NoticeEnd::Told
            }
            Err(error) if failures + 1 >= MOST_ATTEMPTS => {
                error!(alarm = kind, %subject, id = alarm.id, "gave up telling alarm {kind} of {subject}: {error}; check `[alarms]`");
                NoticeEnd::GivenUp { error }
            }
            Err(error) => {
                warn!(alarm = kind, %subject, id = alarm.id, "alarm {kind} of {subject} could not be told and is told again: {error}");
                NoticeEnd::TryAgain {
                    at: self.clock.now().after(pause(failures)),
                    error,
                }
            }
        }
    }
}

/// How long to wait after one more failure than these.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(1 << failures.min(10))
        .min(LONGEST_PAUSE)
}

/// Looks and tells until `shutdown` is canceled.
pub async fn run(alarms: Alarms, shutdown: CancellationToken) {
    loop {
        if let Err(error) = turn(&alarms, &shutdown).await {
            warn!("alarms could not be looked after: {error}");
        }
        if shutdown
            .run_until_cancelled(sleep(LOOK_EVERY))
            .await
            .is_none()
        {
            return;
        }
    }
}

async fn turn(alarms: &Alarms, shutdown: &CancellationToken) -> Result<(), StoreError> {
    alarms.look().await?;
    for _ in 0..A_TURN {
        if shutdown.is_cancelled() || alarms.tell().await? == Told::Nothing {
            break;
        }
    }
    Ok(())
}

/// Refused messages as counted at each look of the last while.
struct Recent {
    counted: VecDeque<(Timestamp, Refusals)>,
}

impl Recent {
    fn starting_from(refusals: Refusals, now: Timestamp) -> Self {
        Self {
            counted: VecDeque::from([(now, refusals)]),
        }
    }

    /// Those within the window, given how many there have been by `now`.
    fn within_window(&mut self, refusals: Refusals, now: Timestamp) -> Refusals {
        let begin = now.before(STORM_WINDOW);
        // The newest count from before the window is where it begins.
        while self.counted.len() > 1 && self.counted[1].0 <= begin {
            self.counted.pop_front();
        }
        let before = self.counted.front().map(|(_, counted)| counted);
        let lately = refusals.iter().map(|(what, count)| {
            let before = before.and_then(|before| before.get(what)).unwrap_or(&0);
            (*what, count - before)
        });
        let lately = lately.filter(|(_, count)| *count > 0).collect();
        self.counted.push_back((now, refusals));
        lately
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Event;

    #[test]
    fn refusals_leave_the_window_when_they_are_too_old() {
        let what = (Event::OnExported, "signature_mismatch");
        let counted = |count: u64| Refusals::from([(what, count)]);
        let minute = |n: u64| Timestamp::from_millis(0).after(Duration::from_secs(60 * n));
        let mut recent = Recent::starting_from(Refusals::new(), minute(0));
        assert_eq!(recent.within_window(counted(5), minute(1)), counted(5));
        assert_eq!(recent.within_window(counted(8), minute(9)), counted(8));
        assert_eq!(recent.within_window(counted(8), minute(12)), counted(3));
        assert_eq!(
            recent.within_window(counted(8), minute(20)),
            Refusals::new()
        );
    }

    #[test]
    fn the_backoff_doubles_up_to_fifteen_minutes() {
        let seconds: Vec<u64> = [0, 1, 5, 6, 50].map(|n| pause(n).as_secs()).to_vec();
        assert_eq!(seconds, [15, 30, 480, 900, 900]);
    }
}
