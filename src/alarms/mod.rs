//! Raises alarms about problems that need a person, and notifies people of them.
//!
//! Each alarm is reported once when it is raised and once when it ends: in the log, on the
//! admin listener, and to the URL, the command or the mailbox that the settings name.
//!
//! [`Alarms::check`] is the step that finds problems and [`Alarms::notify`] the one that
//! sends notices; [`run`] decides when to call them. Alarms and pending notices are in rows,
//! so a restart repeats nothing and replicas share the work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::backoff;
use crate::config::Config;
use crate::domain::{Account, Clock, Queue, Timestamp};
use crate::egress::SetupError;
use crate::metrics::{Metrics, Refusals, StoreSnapshot, StoreStep};
use crate::pull::{BlockedQueue, blocked_queues};
use crate::receiver::health::Health;
use crate::store::{
    AlarmChanges, AlarmFilter, AlarmKind, AlarmNotice, AlarmObservation, AutomaticBackups, FeedRow,
    FeedTrouble, Finding, NoticeEnd, SharedStore, Store, StoreError, UploadFilter,
};

mod conditions;
mod email;
mod notifier;
mod refusals;
mod store_faults;

use conditions::Facts;
use notifier::Notifier;
use refusals::RefusalWindow;

/// Interval of checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Time after a start during which no feed counts as behind: nothing pulled them while the
/// service was stopped.
const STARTUP_GRACE: Duration = Duration::from_secs(15 * 60);

/// Largest number of late uploads that are counted.
const MAX_LATE_UPLOADS: usize = 1_000;

/// Time that one process may take to send a notice before another one tries.
const NOTICE_LEASE: Duration = Duration::from_secs(2 * 60);

/// Attempts, over about a day, after which a notice is given up.
const MAX_ATTEMPTS: u32 = 100;

/// Largest number of active alarms that is told.
const MAX_ACTIVE: usize = 1_000;

/// Largest number of notices between two checks.
const MAX_NOTICES: usize = 20;

/// The result of sending one notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyOutcome {
    /// The notice was accepted.
    Sent,
    /// The notice failed; it is retried later or given up.
    Failed,
    /// No notice is due.
    Nothing,
}

/// Checks for problems, and sends notices of alarms.
pub struct Alarms {
    config: Config,
    store: SharedStore,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    clock: Clock,
    notifier: Option<Notifier>,
    refusals: Mutex<RefusalWindow>,
    started_at: Timestamp,
}

impl Alarms {
    /// Creates the alarms that `config` describes.
    ///
    /// # Errors
    ///
    /// Fails if the machine has no TLS roots.
    pub fn new(
        config: &Config,
        store: SharedStore,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        clock: Clock,
    ) -> Result<Self, SetupError> {
        let refusals = RefusalWindow::starting_from(metrics.refusals(), clock.now());
        Ok(Self {
            notifier: Notifier::from_settings(config)?,
            config: config.clone(),
            store,
            metrics,
            health,
            refusals: Mutex::new(refusals),
            started_at: clock.now(),
            clock,
        })
    }

    /// Checks for problems; logs and stores alarms that begin or end.
    ///
    /// # Errors
    ///
    /// Fails if the store does; nothing is changed then.
    pub async fn check(&self) -> Result<AlarmChanges, StoreError> {
        let facts = self.metrics.timed(StoreStep::Read, self.facts()).await?;
        let observation = AlarmObservation {
            now: facts.stored.now,
            found: conditions::findings(&facts, &self.config),
            notify: self.notifier.is_some(),
        };
        let changes = self.store.update_alarms(observation).await?;
        for alarm in &changes.raised {
            let (kind, subject) = (alarm.kind.as_str(), &alarm.subject);
            error!(alarm = kind, %subject, id = alarm.id, "alarm {kind} of {subject}: {}", alarm.text);
        }
        for alarm in &changes.ended {
            let (kind, subject) = (alarm.kind.as_str(), &alarm.subject);
            info!(alarm = kind, %subject, id = alarm.id, "alarm {kind} of {subject} has ended");
        }
        Ok(changes)
    }

    async fn facts(&self) -> Result<Facts, StoreError> {
        let now = self.clock.now();
        let facts = facts(&self.config, self.store.as_ref(), &self.metrics, now).await?;
        Ok(Facts {
            just_started: now.since(self.started_at) < STARTUP_GRACE,
            refusals: self
                .refusals
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .count(self.metrics.refusals(), now),
            ..facts
        })
    }

    /// Sends one notice to the configured target, if one is due.
    ///
    /// # Errors
    ///
    /// Fails if the store does.
    pub async fn notify(&self) -> Result<NotifyOutcome, StoreError> {
        let Some(notifier) = &self.notifier else {
            return Ok(NotifyOutcome::Nothing);
        };
        let now = self.clock.now();
        let Some(notice) = self.store.lease_notice(now, NOTICE_LEASE).await? else {
            return Ok(NotifyOutcome::Nothing);
        };
        let active = match notifier.tells_active() {
            true => Some(self.active().await?),
            false => None,
        };
        let result = notifier.send(&notice, active).await;
        let outcome = match &result {
            Ok(()) => NotifyOutcome::Sent,
            Err(_) => NotifyOutcome::Failed,
        };
        let end = self.notice_end(&notice, result);
        self.store.end_notice(notice, end, self.clock.now()).await?;
        Ok(outcome)
    }

    /// Returns the number of active alarms.
    async fn active(&self) -> Result<usize, StoreError> {
        let filter = AlarmFilter {
            active: true,
            after: 0,
            limit: MAX_ACTIVE,
        };
        Ok(self.store.alarms(filter).await?.len())
    }

    fn notice_end(&self, notice: &AlarmNotice, result: Result<(), String>) -> NoticeEnd {
        let alarm = &notice.alarm;
        let (kind, subject, failures) = (alarm.kind.as_str(), &alarm.subject, alarm.attempts);
        match result {
            Ok(()) => {
                info!(alarm = kind, %subject, id = alarm.id, over = notice.over, "sent the notice of alarm {kind} of {subject}");
                NoticeEnd::Sent
            }
            Err(error) if failures + 1 >= MAX_ATTEMPTS => {
                error!(alarm = kind, %subject, id = alarm.id, "gave up sending the notice of alarm {kind} of {subject}: {error}. Fix: check `[alarms]` in the settings");
                NoticeEnd::GivenUp { error }
            }
            Err(error) => {
                warn!(alarm = kind, %subject, id = alarm.id, "failed to send the notice of alarm {kind} of {subject}; it is retried: {error}");
                NoticeEnd::TryAgain {
                    at: self.clock.now().after(backoff::ALARM.delay(failures, 0.0)),
                    error,
                }
            }
        }
    }
}

/// Returns the problems that exist at this moment, whether or not a check has found them yet.
///
/// # Errors
///
/// Fails if the store does.
pub async fn current(
    config: &Config,
    store: &Store,
    metrics: &Metrics,
    now: Timestamp,
) -> Result<Vec<Finding>, StoreError> {
    let facts = facts(config, store, metrics, now).await?;
    let mut found = conditions::findings(&facts, config);
    // Only the process that was sent the messages knows of these.
    let of_processes = facts.stored.alarms.into_iter().filter(|alarm| {
        matches!(
            alarm.kind,
            AlarmKind::RefusedStorm | AlarmKind::UnexpectedRequests
        )
    });
    for alarm in of_processes {
        let is_same =
            |finding: &Finding| finding.kind == alarm.kind && finding.subject == alarm.subject;
        if !found.iter().any(is_same) {
            found.push(Finding {
                kind: alarm.kind,
                subject: alarm.subject,
                text: alarm.text,
            });
        }
    }
    Ok(found)
}

/// Reads the state of a service that has been running for long and refuses no messages.
async fn facts(
    config: &Config,
    store: &Store,
    metrics: &Metrics,
    now: Timestamp,
) -> Result<Facts, StoreError> {
    let late = UploadFilter {
        after: 0,
        missing_since: Some(config.upload.late_before(now)),
        limit: MAX_LATE_UPLOADS,
    };
    let silent_since = now.before(conditions::SILENCE_AFTER);
    let stored = StoreSnapshot::read_without_feeds(store, now).await?;
    let in_trouble = |trouble| store.feeds_in_trouble(trouble, conditions::MAX_FEEDS);
    let mut blocked = Vec::new();
    for row in blocked_queues(config) {
        let waiting = store.waiting_feeds(row.account.clone(), row.queue).await?;
        blocked.push((row, waiting));
    }
    Ok(Facts {
        paused: in_trouble(FeedTrouble::Paused).await?,
        incomplete: in_trouble(FeedTrouble::Incomplete).await?,
        behind: feeds_behind(config, store, &stored, &blocked).await?,
        blocked,
        stored,
        unannounced_documents: store.unannounced_documents(silent_since).await?,
        late_uploads: store.uploads(late).await?.len(),
        free_bytes: store.free_bytes().await?,
        backed_up_at: backed_up_at(config, now),
        backups_not_removed: backups_not_removed(config, now),
        unexpected: metrics.unexpected_requests(now),
        just_started: false,
        refusals: Refusals::default(),
    })
}

/// Returns the feeds of which no pull has ended for long, but those with an alarm of another kind:
/// paused ones, and those of paused accounts and blocked queues.
async fn feeds_behind(
    config: &Config,
    store: &Store,
    stored: &StoreSnapshot,
    blocked: &[(BlockedQueue, u64)],
) -> Result<Vec<FeedRow>, StoreError> {
    let before = stored.now.before(config.behind_after());
    let is_paused = |account: &Account| {
        let mut accounts = stored.accounts.iter();
        accounts.any(|row| row.account == *account && row.paused.is_some())
    };
    let is_blocked = |account: &Account, queue: Queue| {
        let mut blocked = blocked.iter();
        blocked.any(|(row, _)| row.account == *account && row.queue == queue)
    };
    let mut behind = Vec::new();
    for account in config.accounts.keys().filter(|account| !is_paused(account)) {
        for queue in Queue::ALL {
            if !is_blocked(account, queue) {
                let (account, limit) = (account.clone(), conditions::MAX_FEEDS);
                behind.extend(
                    store
                        .feeds_not_pulled(account, queue, before, limit)
                        .await?,
                );
            }
        }
    }
    Ok(behind)
}

/// Returns when the newest automatic backup was written; `None` if there is none.
fn backed_up_at(config: &Config, now: Timestamp) -> Option<Timestamp> {
    config.store.backup_every?;
    let newest = AutomaticBackups::of(&config.store).newest(now).ok()?;
    newest.map(|(at, _)| at)
}

/// Returns the number of automatic backups that could not be removed.
fn backups_not_removed(config: &Config, now: Timestamp) -> usize {
    let backups = AutomaticBackups::of(&config.store);
    match config.store.backup_every {
        // A folder that can't be read has an alarm: no newest backup is found in it.
        Some(_) => backups
            .not_removed(config.store.backup_keep, now)
            .unwrap_or(0),
        None => 0,
    }
}

/// Checks and notifies until `shutdown` is canceled.
pub async fn run(alarms: Alarms, shutdown: CancellationToken) {
    let checks = check_at_intervals(&alarms, &shutdown);
    let faults = async {
        if let Some(notifier) = &alarms.notifier {
            let faults = alarms.health.watch_store();
            store_faults::announce(faults, notifier, &alarms.clock, &shutdown).await;
        }
    };
    tokio::join!(checks, faults);
}

async fn check_at_intervals(alarms: &Alarms, shutdown: &CancellationToken) {
    loop {
        if let Err(error) = check_and_notify(alarms, shutdown).await {
            warn!("failed to check the alarms: {error}");
            if let StoreError::Corrupt { .. } = error {
                let now = alarms.clock.now();
                alarms.health.set_damaged(Some(error.to_string()), now);
            }
        }
        if shutdown
            .run_until_cancelled(sleep(CHECK_INTERVAL))
            .await
            .is_none()
        {
            return;
        }
    }
}

async fn check_and_notify(alarms: &Alarms, shutdown: &CancellationToken) -> Result<(), StoreError> {
    alarms.check().await?;
    for _ in 0..MAX_NOTICES {
        if shutdown.is_cancelled() || alarms.notify().await? == NotifyOutcome::Nothing {
            break;
        }
    }
    Ok(())
}
