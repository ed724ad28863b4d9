//! What counts as wrong. Each alarm is described in docs/alarms.md.

use std::time::Duration;

use crate::config::{AlarmsConfig, Config};
use crate::domain::{DestinationName, counted};
use crate::metrics::{Refusals, Stored};
use crate::pull::blocked;
use crate::store::{
    AlarmKind, DestinationPauseReason, DestinationRow, FeedPauseReason, FeedRow, Finding, HeldFeed,
    SubscriptionState, UnannouncedDocuments,
};

/// Alarms of one kind that are on at a time, at the most.
const MOST_OF_A_KIND: usize = 100;

/// What is known at the moment of a look.
pub(super) struct Facts {
    pub(super) stored: Stored,
    pub(super) unannounced_documents: Vec<UnannouncedDocuments>,
    pub(super) late_uploads: usize,
    /// Destinations of the settings, with the feeds that are held there.
    pub(super) held: Vec<(DestinationName, Vec<HeldFeed>)>,
    pub(super) free_bytes: Option<u64>,
    pub(super) refusals: Refusals,
    /// Whether the service has started lately.
    pub(super) settling: bool,
}

/// All that is wrong.
pub(super) fn judge(facts: &Facts, config: &Config) -> Vec<Finding> {
    let settings = &config.alarms;
    let mut found = silence(facts, settings);
    found.extend(unsubscribed(facts));
    found.extend(paused(facts));
    found.extend(blocked_queues(facts, config));
    found.extend(behind(facts, config));
    found.extend(refused_storm(facts, settings));
    found.extend(certificates(facts, settings));
    found.extend(disk(facts, config));
    found.extend(late_uploads(facts));
    found.extend(destinations(facts, config));
    found.extend(held(facts));
    for kind in AlarmKind::ALL {
        let mut room = MOST_OF_A_KIND;
        found.retain(|finding| {
            let keep = finding.kind != kind || room > 0;
            room -= usize::from(finding.kind == kind && room > 0);
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

fn silence(facts: &Facts, settings: &AlarmsConfig) -> Vec<Finding> {
    let minutes = settings.silence_after.as_secs() / 60;
    let tell = |row: &UnannouncedDocuments| {
        let UnannouncedDocuments {
            account,
            queue,
            documents,
            ..
        } = row;
        let last = row.notified_at.map_or_else(
            || "none ever came".to_owned(),
            |at| format!("the last one came at {at}"),
        );
        let text = format!(
            "documents of the {queue} queue of {account} are found without a notification \
             ({documents} of them for more than {minutes} minutes; {last}): run `ivesk-webhook \
             doctor`, then `ivesk-webhook subscriptions list`"
        );
        finding(AlarmKind::Silence, format!("{account}/{queue}"), text)
    };
    facts.unannounced_documents.iter().map(tell).collect()
}

fn unsubscribed(facts: &Facts) -> Vec<Finding> {
    let subscriptions = facts.stored.subscriptions.iter();
    let ended = subscriptions.filter(|row| row.state == SubscriptionState::Unsubscribed);
    ended
        .map(|row| {
            let (id, account, event) = (row.id, &row.account, row.event);
            let text = format!(
                "subscription {id} of {account}/{event} has ended and no more notifications of it \
                 come: if nobody here wanted that, run `ivesk-webhook subscriptions restore {id}`"
            );
            finding(
                AlarmKind::Unsubscribed,
                format!("{account}/{event}/{id}"),
                text,
            )
        })
        .collect()
}

/// What to do about something that the vendor's answers paused; none where a person did.
fn remedy(reason: FeedPauseReason) -> Option<&'static str> {
    match reason {
        FeedPauseReason::ByHand => None,
        FeedPauseReason::Unauthorized => {
            Some("Įvesk.lt refuses the API key (401): put a new one in its place")
        }
        FeedPauseReason::Forbidden => Some(
            "Įvesk.lt says that the API key may not read this (403): ask for the right, or take \
             the company out of the settings",
        ),
        FeedPauseReason::NotFound => Some(
            "Įvesk.lt knows no such queue (404): check the company's code and `api.exported_path`",
        ),
        FeedPauseReason::CompanyFilterIgnored => Some(
            "Įvesk.lt gave another company's documents: check `api.exported_path` with \
             `ivesk-webhook doctor --company`",
        ),
    }
}

fn paused(facts: &Facts) -> Vec<Finding> {
    let text = |subject: &str, remedy: &str| {
        format!("{subject} is not pulled: {remedy}, then run `ivesk-webhook feeds resume`")
    };
    let feeds = facts.stored.feeds.iter().filter_map(|row| {
        let (feed, remedy) = (row.feed.to_string(), remedy(row.paused?)?);
        Some(finding(AlarmKind::Paused, &feed, text(&feed, remedy)))
    });
    let accounts = facts.stored.accounts.iter().filter_map(|row| {
        let (account, remedy) = (row.account.to_string(), remedy(row.paused?)?);
        let what = format!("account {account}");
        Some(finding(AlarmKind::Paused, account, text(&what, remedy)))
    });
    accounts.chain(feeds).collect()
}

/// Queues for which something waits.
fn blocked_queues(facts: &Facts, config: &Config) -> Vec<Finding> {
    let waits = |row: &FeedRow| !row.triggers.is_empty();
    let mut found = Vec::new();
    for row in blocked(config) {
        let feeds = facts.stored.feeds.iter();
        let of_queue =
            feeds.filter(|feed| feed.feed.account == row.account && feed.feed.queue == row.queue);
        let waiting = of_queue.filter(|feed| waits(feed)).count();
        if waiting == 0 {
            continue;
        }
        let (account, queue) = (&row.account, row.queue);
        let setting = match row.missing {
            "api_key" => "the account's API key",
            _ => "`api.exported_path`",
        };
        let text = format!(
            "the {queue} queue of {account} is not pulled, and {waiting} of its feeds wait: set \
             {setting}; hints are kept until then"
        );
        found.push(finding(
            AlarmKind::Blocked,
            format!("{account}/{queue}"),
            text,
        ));
    }
    found
}

fn behind(facts: &Facts, config: &Config) -> Vec<Finding> {
    let Stored {
        now,
        accounts,
        alarms,
        ..
    } = &facts.stored;
    let longest = config.pull.reconcile_every + config.alarms.behind_after;
    let blocked = blocked(config);
    // What has an alarm of its own has one already.
    let is_told_otherwise = |row: &&FeedRow| {
        let paused = accounts
            .iter()
            .any(|account| account.account == row.feed.account && account.paused.is_some());
        let queue = |row: &&FeedRow| (row.feed.account.clone(), row.feed.queue);
        let blocked = blocked
            .iter()
            .any(|blocked| (blocked.account.clone(), blocked.queue) == queue(row));
        row.paused.is_some() || paused || blocked
    };
    let is_on = |row: &FeedRow| {
        let subject = row.feed.to_string();
        let mut alarms = alarms.iter();
        alarms.any(|alarm| alarm.kind == AlarmKind::Behind && alarm.subject == subject)
    };
    let feeds = facts.stored.feeds.iter();
    feeds
        .filter(|row| !is_told_otherwise(row) && config.accounts.contains_key(&row.feed.account))
        .filter_map(|row| {
            let age = now.since(row.up_to_date_at?);
            let judged = !facts.settling || is_on(row);
            (judged && age > longest).then(|| {
                let (feed, hours) = (&row.feed, hours(age));
                let error = row.last_error.as_deref().unwrap_or("no error is known");
                let text = format!(
                    "`{feed}` has not been up to date for {hours} hours ({error}): read what the \
                     log says of it, then run `ivesk-webhook doctor`"
                );
                finding(AlarmKind::Behind, feed, text)
            })
        })
        .collect()
}

fn hours(span: Duration) -> u64 {
    span.as_secs() / 3_600
}

fn refused_storm(facts: &Facts, settings: &AlarmsConfig) -> Vec<Finding> {
    let mut found = Vec::new();
    for event in crate::domain::Event::ALL {
        let of_event = facts.refusals.iter().filter(|((of, _), _)| *of == event);
        let (mut all, mut most) = (0, (0, ""));
        for ((_, code), count) in of_event {
            all += count;
            most = most.max((*count, *code));
        }
        if all < settings.refusals {
            continue;
        }
        let (code, minutes) = (most.1, super::STORM_WINDOW.as_secs() / 60);
        let text = format!(
            "{all} messages of {event} were refused within {minutes} minutes, most of them \
             as `{code}`: docs/refusals.md says what that means; once it is fixed, run \
             `ivesk-webhook quarantine retry --all`"
        );
        found.push(finding(AlarmKind::RefusedStorm, event, text));
    }
    found
}

fn certificates(facts: &Facts, settings: &AlarmsConfig) -> Vec<Finding> {
    let Stored {
        now, certificates, ..
    } = &facts.stored;
    let near = certificates
        .iter()
        .filter(|(_, last)| last.since(*now) < settings.certificate_left);
    near.map(|(host, last)| {
        let text = format!(
            "the newest signing certificate of {host} ends at {last}, and SNS has shown no newer \
             one: messages are refused from then on; check this machine's clock, and that no \
             proxy keeps an old certificate"
        );
        finding(AlarmKind::Certificate, host, text)
    })
    .collect()
}

fn disk(facts: &Facts, config: &Config) -> Option<Finding> {
    let minimum = config.store.min_free_bytes;
    let free = facts.free_bytes?;
    (free < config.alarms.free_bytes.max(minimum)).then(|| {
        let text = format!(
            "the store's disk has {free} bytes left: free some space; below {minimum} \
             (`store.min_free_bytes`) messages are answered 503"
        );
        finding(AlarmKind::Disk, "store", text)
    })
}

fn late_uploads(facts: &Facts) -> Option<Finding> {
    let count = facts.late_uploads;
    (count > 0).then(|| {
        let text = format!(
            "no document has come of {count} files that were uploaded more than 12 hours ago: \
             `ivesk-webhook uploads list --late` names them; ask Įvesk.lt"
        );
        finding(AlarmKind::UploadsLate, "uploads", text)
    })
}

/// Feeds whose first pull has ended: until then nobody knows what there is to decide.
fn held(facts: &Facts) -> Vec<Finding> {
    let told = |(name, feeds): &(DestinationName, Vec<HeldFeed>)| {
        let waiting = feeds
            .iter()
            .filter(|feed| feed.complete && feed.documents > 0);
        let (feeds, documents) = waiting.fold((0_u64, 0), |(feeds, documents), feed| {
            (feeds + 1, documents + feed.documents)
        });
        (documents > 0).then(|| {
            let text = format!(
                "{} of {} held at destination {name}: run `ivesk-webhook destinations start {name}` with --all, \
                 --from-now or --since, for one company with --company",
                counted(documents, "document"),
                counted(feeds, "feed"),
            );
            finding(AlarmKind::Held, name, text)
        })
    };
    facts.held.iter().filter_map(told).collect()
}

fn destinations(facts: &Facts, config: &Config) -> Vec<Finding> {
    let Stored {
        now, destinations, ..
    } = &facts.stored;
    let longest = config.alarms.destination_after;
    let ours = destinations
        .iter()
        .filter(|row| config.destinations.contains_key(&row.name));
    let wrong = |row: &DestinationRow| {
        let (name, behind) = (&row.name, row.behind);
        let error = row.last_error.as_deref().unwrap_or("no error is known");
        let text = match (row.paused, row.failing_since) {
            (Some(DestinationPauseReason::ByHand), _) => return None,
            (Some(DestinationPauseReason::Closed), _) => format!(
                "destination {name} wants nothing any more ({error}), and {behind} versions wait: fix \
                 it, then run `ivesk-webhook destinations resume {name}`"
            ),
            (None, Some(since)) if now.since(since) > longest => format!(
                "destination {name} has taken nothing since {since} ({error}), and {behind} versions \
                 wait: fix what it says; it goes on by itself then"
            ),
            (None, _) => return None,
        };
        Some(finding(AlarmKind::Destination, name, text))
    };
    ours.filter_map(wrong).collect()
}
