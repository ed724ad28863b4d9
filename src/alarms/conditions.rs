//! The conditions of alarms; docs/alarms.md describes each.

use std::time::Duration;

use super::refusals::STORM_WINDOW;
use crate::config::Config;
use crate::domain::{DestinationName, Timestamp, counted};
use crate::metrics::{Refusals, StoreSnapshot, UnexpectedCount};
use crate::pull::BlockedQueue;
use crate::store::{
    AlarmKind, DestinationPauseReason, DestinationRow, FeedRow, Finding, IncompleteReason,
    PAGE_SIZE_NOTICE, UnannouncedDocuments,
};
use crate::subscriptions::problems::{self, Problem};

/// Largest number of active alarms of one kind. Those that are active stay, whatever begins.
const MAX_OF_A_KIND: usize = 100;

/// Largest number of feeds with one trouble that a check reads.
pub(super) const MAX_FEEDS: usize = 2_000;

/// Time for which documents may be stored without a notification before an alarm is raised.
pub(super) const SILENCE_AFTER: Duration = Duration::from_secs(15 * 60);

/// Refused messages of one event within [`STORM_WINDOW`] that raise an alarm.
const STORM_REFUSALS: u64 = 20;

/// Remaining validity of a signing certificate below which an alarm is raised. SNS presents a new
/// certificate weeks before the old one expires.
const MIN_CERTIFICATE_VALIDITY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The state of the service at one check.
pub(super) struct Facts {
    pub(super) stored: StoreSnapshot,
    /// Feeds in trouble: paused, incomplete, and not pulled for long; of each those that are in
    /// trouble longest, at most as many as [`MAX_FEEDS`].
    pub(super) paused: Vec<FeedRow>,
    pub(super) incomplete: Vec<FeedRow>,
    pub(super) behind: Vec<FeedRow>,
    /// Queues that can't be pulled, and how many of their feeds have a trigger waiting.
    pub(super) blocked: Vec<(BlockedQueue, u64)>,
    pub(super) unannounced_documents: Vec<UnannouncedDocuments>,
    pub(super) late_uploads: usize,
    pub(super) free_bytes: Option<u64>,
    /// When the newest automatic backup was written.
    pub(super) backed_up_at: Option<Timestamp>,
    /// Automatic backups beyond those that are kept.
    pub(super) backups_not_removed: usize,
    pub(super) refusals: Refusals,
    pub(super) unexpected: Vec<UnexpectedCount>,
    /// True for a while after the start of the service.
    pub(super) just_started: bool,
}

/// Returns all problems.
pub(super) fn findings(facts: &Facts, config: &Config) -> Vec<Finding> {
    let mut found = silence(facts);
    found.extend(subscriptions(facts, config));
    found.extend(paused(facts));
    found.extend(blocked(facts));
    found.extend(behind(facts, config));
    found.extend(incomplete(facts, config));
    found.extend(refused_storm(facts));
    found.extend(unexpected_requests(facts));
    found.extend(certificates(facts));
    found.extend(disk(facts, config));
    found.extend(backup(facts, config));
    found.extend(backups_not_removed(facts, config));
    found.extend(late_uploads(facts));
    found.extend(destinations(facts, config));
    found.extend(import_errors(facts));
    for kind in AlarmKind::ALL {
        let is_active = |finding: &Finding| {
            let mut alarms = facts.stored.alarms.iter();
            alarms.any(|alarm| alarm.kind == kind && alarm.subject == finding.subject)
        };
        let active = found
            .iter()
            .filter(|finding| finding.kind == kind && is_active(finding))
            .count();
        let mut room = MAX_OF_A_KIND.saturating_sub(active);
        found.retain(|finding| {
            if finding.kind != kind || is_active(finding) {
                return true;
            }
            let keep = room > 0;
            room -= usize::from(keep);
            keep
        });
    }
    found
}

fn finding(kind: AlarmKind, subject: impl ToString, text: String) -> Finding {
    Finding {
        kind,
        subject: subject.to_string(),
        text,
    }
}

/// Placeholder for an error that was not recorded.
const NO_ERROR: &str = "no error was recorded";

fn silence(facts: &Facts) -> Vec<Finding> {
    let minutes = SILENCE_AFTER.as_secs() / 60;
    let to_finding = |row: &UnannouncedDocuments| {
        let UnannouncedDocuments {
            account,
            queue,
            documents,
            ..
        } = row;
        let last = row.notified_at.map_or_else(
            || "none of its subscriptions has sent one".to_owned(),
            |at| format!("the last notification was sent at {at}"),
        );
        let text = format!(
            "no notifications announce documents of the {queue} queue of {account} ({documents} of \
             them for more than {minutes} minutes; {last}). Fix: run `ivesk-webhook doctor`, then \
             `ivesk-webhook subscriptions list`"
        );
        finding(AlarmKind::Silence, format!("{account}/{queue}"), text)
    };
    facts.unannounced_documents.iter().map(to_finding).collect()
}

fn subscriptions(facts: &Facts, config: &Config) -> Vec<Finding> {
    let problems = problems::all(config, &facts.stored.subscriptions, facts.stored.now);
    problems
        .iter()
        .filter_map(|problem| {
            // What is missing is told in the log and on the overview: it is how every
            // installation begins.
            let row = problem.row()?;
            let kind = match problem {
                Problem::Ended(_) => AlarmKind::Unsubscribed,
                Problem::OtherTopic(_) => AlarmKind::SwappedTargets,
                _ => AlarmKind::Unconfirmed,
            };
            let subject = format!("{}/{}/{}", row.account, row.event, row.id);
            let text = format!("{problem}. Fix: {}", problem.fix());
            Some(finding(kind, subject, text))
        })
        .collect()
}

fn paused(facts: &Facts) -> Vec<Finding> {
    let feeds = facts.paused.iter().filter_map(|row| {
        let (feed, reason) = (&row.feed, row.paused?);
        let (cause, fix) = (reason.cause()?, reason.fix(&feed.account, Some(feed)));
        let text = format!("{feed} is paused: {cause}. Fix: {fix}");
        Some(finding(AlarmKind::Paused, feed, text))
    });
    let accounts = facts.stored.accounts.iter().filter_map(|row| {
        let (account, reason) = (&row.account, row.paused?);
        let (cause, fix) = (reason.cause()?, reason.fix(account, None));
        let text = format!("account {account} is paused: {cause}. Fix: {fix}");
        Some(finding(AlarmKind::Paused, account, text))
    });
    accounts.chain(feeds).collect()
}

/// Returns the blocked queues that have a trigger waiting.
fn blocked(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (row, waiting) in &facts.blocked {
        if *waiting == 0 {
            continue;
        }
        let text = format!(
            "{}; {} waiting, and what triggered them is kept",
            row.cause_and_fix(),
            match waiting {
                1 => "1 feed is".to_owned(),
                _ => format!("{waiting} feeds are"),
            }
        );
        let subject = format!("{}/{}", row.account, row.queue);
        found.push(finding(AlarmKind::Blocked, subject, text));
    }
    found
}

fn behind(facts: &Facts, config: &Config) -> Vec<Finding> {
    let StoreSnapshot { now, alarms, .. } = &facts.stored;
    let limit = config.behind_after();
    let is_active = |row: &FeedRow| {
        let subject = row.feed.to_string();
        let mut alarms = alarms.iter();
        alarms.any(|alarm| alarm.kind == AlarmKind::Behind && alarm.subject == subject)
    };
    let feeds = facts.behind.iter();
    feeds
        .filter_map(|row| {
            // An incomplete feed has an alarm of another kind.
            let age = now.since(row.quiet_since());
            let counts = !facts.just_started || is_active(row);
            (counts && age > limit).then(|| {
                let (feed, hours) = (&row.feed, counted(age.as_secs() / 3_600, "hour"));
                let error = row.last_error.as_deref().unwrap_or(NO_ERROR);
                let text = format!(
                    "no pull of `{feed}` has ended for {hours} ({error}). Fix: read the log \
                     lines of this feed, then run `ivesk-webhook doctor`"
                );
                finding(AlarmKind::Behind, feed, text)
            })
        })
        .collect()
}

/// Returns the feeds that may lack documents. That the page size is not known is a notice first,
/// which the overview shows.
fn incomplete(facts: &Facts, config: &Config) -> Vec<Finding> {
    let now = facts.stored.now;
    let to_finding = |row: &FeedRow| {
        let (reason, since) = (row.incomplete?, row.incomplete_since?);
        let is_notice =
            reason == IncompleteReason::PageSizeUnknown && now.since(since) < PAGE_SIZE_NOTICE;
        let (feed, gaps) = (&row.feed, counted(row.gaps, "gap"));
        let (cause, fix) = reason.cause_and_fix();
        let text = format!(
            "documents of `{feed}` may be missing ({gaps}): {cause}. Fix: list the gaps with \
             `ivesk-webhook feeds gaps`; {fix}"
        );
        (!is_notice).then(|| finding(AlarmKind::Incomplete, feed, text))
    };
    let feeds = facts.incomplete.iter();
    feeds
        .filter(|row| config.accounts.contains_key(&row.feed.account))
        .filter_map(to_finding)
        .collect()
}

fn refused_storm(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for event in crate::domain::Event::ALL {
        let of_event = facts.refusals.iter().filter(|((of, _), _)| *of == event);
        let (mut all, mut most) = (0, (0, ""));
        for ((_, code), count) in of_event {
            all += count;
            most = most.max((*count, *code));
        }
        if all < STORM_REFUSALS {
            continue;
        }
        let (code, minutes) = (most.1, STORM_WINDOW.as_secs() / 60);
        let text = format!(
            "{all} messages of {event} were refused within {minutes} minutes, most of them as \
             `{code}`. Fix: see `{code}` in docs/refusals.md, then run `ivesk-webhook quarantine \
             retry --all`"
        );
        found.push(finding(AlarmKind::RefusedStorm, event, text));
    }
    found
}

fn unexpected_requests(facts: &Facts) -> Vec<Finding> {
    let losing = facts.unexpected.iter().filter(|count| count.loses_messages);
    losing
        .map(|count| {
            let row = count.kind.explanation();
            let text = format!(
                "SNS sends requests that reach no webhook, so their messages are lost: {}. Fix: {}",
                row.found, row.fix
            );
            finding(AlarmKind::UnexpectedRequests, row.code, text)
        })
        .collect()
}

fn certificates(facts: &Facts) -> Vec<Finding> {
    let StoreSnapshot {
        now, certificates, ..
    } = &facts.stored;
    let near = certificates
        .iter()
        .filter(|(_, expiry)| expiry.since(*now) < MIN_CERTIFICATE_VALIDITY);
    near.map(|(host, expiry)| {
        let text = format!(
            "the newest signing certificate of {host} expires at {expiry}, and SNS has presented \
             no newer one: messages will be refused from then on. Fix: check this machine's clock, \
             and that no proxy serves an old certificate"
        );
        finding(AlarmKind::Certificate, host, text)
    })
    .collect()
}

fn disk(facts: &Facts, config: &Config) -> Option<Finding> {
    let minimum = config.store.min_free_bytes;
    let free = facts.free_bytes?;
    (free < config.store.alarm_free_bytes()).then(|| {
        let text = format!(
            "the store's disk has {free} bytes free; below {minimum} (`store.min_free_bytes`) \
             messages are answered 503 and nothing is pulled. Fix: free some space"
        );
        finding(AlarmKind::Disk, "store", text)
    })
}

/// Returns that no automatic backup was written for long. After a start the one that is due is
/// written first.
fn backup(facts: &Facts, config: &Config) -> Option<Finding> {
    let every = config.store.backup_every?;
    let now = facts.stored.now;
    let overdue = facts
        .backed_up_at
        .is_none_or(|at| now.since(at) > every.saturating_mul(2));
    let mut alarms = facts.stored.alarms.iter();
    let is_active = alarms.any(|alarm| alarm.kind == AlarmKind::Backup);
    (overdue && (!facts.just_started || is_active)).then(|| {
        let last = facts.backed_up_at.map_or_else(
            || "there is none".to_owned(),
            |at| format!("the newest one is of {at}"),
        );
        let folder = config.store.backup_dir.display();
        let text = format!(
            "no backup was written to {folder} in time ({last}). Fix: read the log lines about backups; the folder \
             needs free space, and the service's user must be able to write there"
        );
        finding(AlarmKind::Backup, "store", text)
    })
}

/// Returns that automatic backups stay that are no longer kept.
fn backups_not_removed(facts: &Facts, config: &Config) -> Option<Finding> {
    let count = facts.backups_not_removed;
    (count > 0).then(|| {
        let (folder, keep) = (config.store.backup_dir.display(), config.store.backup_keep);
        let text = format!(
            "{} in {folder} beyond the {keep} of `store.backup_keep` can't be removed, and more fill the disk. Fix: let \
             the service's user remove files there, and remove the oldest",
            counted(u64::try_from(count).unwrap_or(u64::MAX), "backup")
        );
        finding(AlarmKind::Backup, "old backups", text)
    })
}

fn late_uploads(facts: &Facts) -> Option<Finding> {
    let count = facts.late_uploads;
    (count > 0).then(|| {
        let text = format!(
            "{} uploaded longer than `upload.late_after` ago (working hours) without a document since. Fix: list \
             them with `ivesk-webhook uploads list --late`, look for them in Įvesk.lt's upload window, and settle \
             those that it rejected with `ivesk-webhook uploads settle ID --reason TEXT`",
            match count {
                1 => "1 file was".to_owned(),
                _ => format!("{count} files were"),
            }
        );
        finding(AlarmKind::UploadsLate, "uploads", text)
    })
}

/// Returns the accounts whose import errors are not sent.
fn import_errors(facts: &Facts) -> Vec<Finding> {
    let paused = facts.stored.import_error_paths.iter();
    paused
        .map(|row| {
            finding(
                AlarmKind::ImportErrors,
                &row.account,
                format!("{}. Fix: {}", row.found(), row.fix()),
            )
        })
        .collect()
}

fn rejects(name: &DestinationName, of: &str, waiting: u64) -> String {
    format!(
        "destination {name} gives the same rejection again and again; delivery of {of} is paused; document \
         versions waiting: {waiting}. Fix: `ivesk-webhook deliveries list --destination {name} --state rejected` \
         shows its words; correct the cause, then run `ivesk-webhook destinations resume {name}` and \
         `ivesk-webhook deliveries retry {name} --state rejected`"
    )
}

fn destinations(facts: &Facts, config: &Config) -> Vec<Finding> {
    let StoreSnapshot {
        now, destinations, ..
    } = &facts.stored;
    let limit = config.alarms.destination_after;
    let configured = destinations
        .iter()
        .filter(|row| config.destinations.contains_key(&row.name));
    let to_finding = |row: &DestinationRow| {
        let (name, waiting) = (&row.name, row.waiting);
        let error = row.last_error.as_deref().unwrap_or(NO_ERROR);
        let text = match (row.paused, row.failing_since) {
            (Some(DestinationPauseReason::ByHand), _) => return None,
            (Some(DestinationPauseReason::Closed), _) => format!(
                "destination {name} is closed ({error}); document versions waiting: {waiting}. Fix: \
                 once it accepts documents again, run `ivesk-webhook destinations resume {name}`"
            ),
            (None, Some(since)) if now.since(since) > limit => format!(
                "destination {name} has been unavailable since {since} ({error}); document versions \
                 waiting: {waiting}. Fix: correct the error; delivery then resumes automatically"
            ),
            (Some(DestinationPauseReason::Rejections), _) => {
                rejects(name, "several companies", waiting)
            }
            (None, _) if row.paused_lanes > 0 => {
                rejects(name, &counted(row.paused_lanes, "feed"), waiting)
            }
            (None, _) => match row.failing_lanes_since {
                Some(since) if now.since(since) > limit => fails_for(row, since),
                _ => return None,
            },
        };
        Some(finding(AlarmKind::Destination, name, text))
    };
    configured
        .flat_map(|row| to_finding(row).into_iter().chain(deferred(row)))
        .collect()
}

/// Returns that a destination accepts documents, and those of some feeds not.
fn fails_for(row: &DestinationRow, since: Timestamp) -> String {
    let (name, feeds) = (&row.name, counted(row.failing_lanes, "feed"));
    format!(
        "destination {name} accepts documents, but has accepted none of {feeds} since {since}. Fix: \
         `ivesk-webhook destinations list {name}` shows which, and the error; correct it, and delivery resumes \
         automatically, or run `ivesk-webhook deliveries skip` for a document that it can't take"
    )
}

/// Returns that documents can't be delivered to a destination that accepts others.
fn deferred(row: &DestinationRow) -> Option<Finding> {
    let (name, count) = (&row.name, row.deferred);
    (count > 0 && row.paused.is_none()).then(|| {
        let documents = counted(count, "document");
        let text = format!(
            "{documents} can't be delivered to destination {name}, which accepts others; tried again daily. Fix: \
             `ivesk-webhook deliveries list --destination {name} --state deferred` shows why; correct the cause, then \
             run `ivesk-webhook deliveries retry {name} --state deferred`, or `deliveries skip`"
        );
        finding(AlarmKind::Destination, format!("{name}/deferred"), text)
    })
}
