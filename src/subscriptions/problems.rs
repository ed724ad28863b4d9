//! What a person should know of or decide about subscriptions: in the log, `doctor`, alarms,
//! lists and pages alike.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::{error, warn};

use crate::config::{Config, is_loopback};
use crate::domain::{Account, Event, Timestamp};
use crate::sns::policy::TopicArn;
use crate::store::{SubscriptionRow, SubscriptionState};

/// Lifetime of SNS's confirmation tokens (AWS, API_Subscribe).
pub const TOKEN_LIFE: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// Time for which SNS may take to send its confirmation after a request.
const ANSWER_TIME: Duration = Duration::from_secs(2 * 60);

/// What to do about swapped targets.
const SWAPPED_TARGETS_FIX: &str = "subscribe each event with its own target, as `ivesk-webhook subscriptions create --print` \
     shows it, and ask Įvesk.lt to remove the wrong subscriptions";

/// Interval at which the log repeats a problem.
const REPEAT_EVERY: Duration = Duration::from_secs(6 * 60 * 60);

/// Something that a person should know of or decide.
#[derive(Clone, Copy, Debug)]
pub enum Problem<'r> {
    /// SNS offers a subscription to a topic that is not allowed.
    UnknownTopic(&'r SubscriptionRow),
    /// A subscription waits for approval.
    AwaitsApproval(&'r SubscriptionRow),
    /// A subscription could not be confirmed.
    Failed(&'r SubscriptionRow),
    /// A subscription has ended.
    Ended(&'r SubscriptionRow),
    /// A subscription is to the topic of the other event: the two targets are swapped.
    OtherTopic(&'r SubscriptionRow),
    /// An event that is configured has no confirmed subscription.
    Missing {
        /// The account.
        account: &'r Account,
        /// The event.
        event: Event,
        /// The subscription that was requested or is being confirmed, if there is one.
        waiting: Option<&'r SubscriptionRow>,
        /// True if `public.url` is on this machine, where SNS can't reach it.
        local: bool,
        /// True if an origin on this machine stands in for SNS (`sns.local_origins`).
        emulated: bool,
    },
}

/// Returns all problems, the most urgent first: unknown topics, then what else waits for a
/// person, then events without a subscription.
pub fn all<'r>(
    config: &'r Config,
    rows: &'r [SubscriptionRow],
    now: Timestamp,
) -> Vec<Problem<'r>> {
    let mut problems: Vec<Problem<'r>> = rows
        .iter()
        .filter_map(|row| match row.state {
            SubscriptionState::UnknownTopic if !is_stale_offer(row, rows, now) => {
                Some(Problem::UnknownTopic(row))
            }
            SubscriptionState::AwaitingApproval => Some(Problem::AwaitsApproval(row)),
            SubscriptionState::Failed if !is_replaced(row, rows) => Some(Problem::Failed(row)),
            SubscriptionState::Unsubscribed if !is_replaced(row, rows) => Some(Problem::Ended(row)),
            _ => None,
        })
        .collect();
    for (account, event) in configured_events(config) {
        let of_event = |row: &&SubscriptionRow| row.account == *account && row.event == event;
        let is_told = problems
            .iter()
            .filter_map(Problem::row)
            .any(|row| of_event(&row));
        let mut of_event = rows.iter().filter(of_event);
        let is_confirmed = |row: &SubscriptionRow| row.state == SubscriptionState::Confirmed;
        if is_told || of_event.clone().any(is_confirmed) {
            continue;
        }
        let waiting = of_event.rfind(|row| {
            matches!(
                row.state,
                SubscriptionState::Requested | SubscriptionState::Pending
            )
        });
        if waiting.is_none_or(|row| row.attempts > 0 || row.changed_at.after(ANSWER_TIME) <= now) {
            problems.push(Problem::Missing {
                account,
                event,
                waiting,
                local: is_loopback(&config.public.url),
                emulated: !config.sns.local_origins.is_empty(),
            });
        }
    }
    let swapped = rows
        .iter()
        .filter(|row| row.other_topic().is_some() && !is_put_right(row, rows));
    problems.extend(swapped.map(Problem::OtherTopic));
    problems.sort_by_key(Problem::urgency);
    problems
}

/// Returns the events that notifications are expected of: those that have a webhook, without
/// the digitized queue where it is not pulled.
fn configured_events(config: &Config) -> impl Iterator<Item = (&Account, Event)> {
    config.accounts.iter().flat_map(move |(account, settings)| {
        Event::ALL
            .into_iter()
            .filter(move |event| {
                (*event == Event::OnExported || settings.digitized)
                    && config.webhook_target(account, *event).is_some()
            })
            .map(move |event| (account, event))
    })
}

/// Returns true if another subscription has taken the place of one that failed or ended: a
/// confirmed one of its topic, or one of its webhook that was confirmed later.
fn is_replaced(row: &SubscriptionRow, rows: &[SubscriptionRow]) -> bool {
    rows.iter().any(|other| {
        other.state == SubscriptionState::Confirmed
            && other.account == row.account
            && other.event == row.event
            && (other.topic_arn == row.topic_arn || other.changed_at > row.changed_at)
    })
}

/// Returns true if the webhook of a subscription to the other event's topic has a confirmed one to
/// its own since, and the other one was not heard any more.
fn is_put_right(row: &SubscriptionRow, rows: &[SubscriptionRow]) -> bool {
    let last = row.last_heard_at.max(Some(row.changed_at));
    rows.iter().any(|other| {
        other.state == SubscriptionState::Confirmed
            && other.account == row.account
            && other.event == row.event
            && other.other_topic().is_none()
            && Some(other.changed_at) > last
    })
}

/// Returns true if an unknown topic is no longer worth a person's time: its token has
/// expired, and the event has a confirmed subscription.
fn is_stale_offer(row: &SubscriptionRow, rows: &[SubscriptionRow], now: Timestamp) -> bool {
    let has_expired = row
        .last_message_at
        .is_none_or(|sent| sent.after(TOKEN_LIFE) <= now);
    has_expired
        && rows.iter().any(|other| {
            other.state == SubscriptionState::Confirmed
                && other.account == row.account
                && other.event == row.event
        })
}

/// Returns the AWS account that owns a topic.
pub fn aws_account(topic_arn: &str) -> Option<&str> {
    TopicArn::parse(topic_arn).map(|topic| topic.account)
}

impl<'r> Problem<'r> {
    /// Returns the subscription that a person must decide about.
    pub const fn row(&self) -> Option<&'r SubscriptionRow> {
        match self {
            Self::UnknownTopic(row)
            | Self::AwaitsApproval(row)
            | Self::Failed(row)
            | Self::Ended(row)
            | Self::OtherTopic(row) => Some(row),
            Self::Missing { .. } => None,
        }
    }

    /// Returns the account and the event.
    pub const fn webhook(&self) -> (&'r Account, Event) {
        match self {
            Self::Missing { account, event, .. } => (account, *event),
            Self::UnknownTopic(row)
            | Self::AwaitsApproval(row)
            | Self::Failed(row)
            | Self::Ended(row)
            | Self::OtherTopic(row) => (&row.account, row.event),
        }
    }

    const fn urgency(&self) -> u8 {
        match self {
            Self::UnknownTopic(_) => 0,
            Self::AwaitsApproval(_) => 1,
            Self::Failed(_) => 2,
            Self::Ended(_) => 3,
            Self::OtherTopic(_) => 4,
            Self::Missing { .. } => 5,
        }
    }

    /// Returns true if nothing gets better without a person.
    pub const fn needs_person(&self) -> bool {
        match self {
            Self::Missing {
                waiting: Some(row), ..
            } => !matches!(row.state, SubscriptionState::Pending),
            // Nobody expects it on this machine.
            Self::Missing { local, .. } => !*local,
            _ => true,
        }
    }

    /// Returns what to do.
    pub fn fix(&self) -> String {
        match self {
            Self::UnknownTopic(row) => format!(
                "find out whether Įvesk.lt owns that AWS account. If it does, run `ivesk-webhook subscriptions approve {}`; \
                 otherwise somebody else knows the webhook's address: change its token",
                row.id
            ),
            Self::AwaitsApproval(row) => {
                format!("run `ivesk-webhook subscriptions approve {}`", row.id)
            }
            Self::Failed(_) => {
                "run `ivesk-webhook subscriptions create` to subscribe again".to_owned()
            }
            Self::Ended(row) => format!(
                "unless this was intended, run `ivesk-webhook subscriptions restore {}` within two days, or \
                 `ivesk-webhook subscriptions create`",
                row.id
            ),
            Self::OtherTopic(_) => SWAPPED_TARGETS_FIX.to_owned(),
            Self::Missing {
                local: true,
                emulated: false,
                ..
            } => "set `public.url` to the https address of your proxy or tunnel, then run \
                 `ivesk-webhook subscriptions create`"
                .to_owned(),
            Self::Missing { waiting: None, .. } => {
                "run `ivesk-webhook subscriptions create`".to_owned()
            }
            Self::Missing {
                waiting: Some(row), ..
            } => match row.state {
                SubscriptionState::Pending => {
                    "let this machine reach SNS (`ivesk-webhook doctor` checks that)".to_owned()
                }
                _ => "run `ivesk-webhook doctor`: SNS must reach `public.url`. Then run \
                      `ivesk-webhook subscriptions create` again"
                    .to_owned(),
            },
        }
    }
}

impl fmt::Display for Problem<'_> {
    /// Writes what was found, without what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (account, event) = self.webhook();
        let no_error = "no error was recorded";
        match self {
            Self::UnknownTopic(row) => {
                let topic_arn = row.topic_arn.as_deref().unwrap_or_default();
                let owner = aws_account(topic_arn).unwrap_or_default();
                write!(
                    f,
                    "subscription {} of {account}/{event} waits for a decision: SNS offers {topic_arn} of AWS account {owner}, \
                     which `sns.topics` does not allow, and its notifications are refused",
                    row.id
                )
            }
            Self::AwaitsApproval(row) => write!(
                f,
                "subscription {} of {account}/{event} waits for approval, and no notifications arrive until then",
                row.id
            ),
            Self::Failed(row) => write!(
                f,
                "subscription {} of {account}/{event} could not be confirmed: {}",
                row.id,
                row.last_error.as_deref().unwrap_or(no_error)
            ),
            Self::Ended(row) => write!(
                f,
                "subscription {} of {account}/{event} has ended, so its notifications have stopped",
                row.id
            ),
            Self::OtherTopic(row) => write!(
                f,
                "subscription {} of {account}/{event} is to the other event's topic, {}: the targets of the two \
                 subscriptions are swapped, and each notification triggers a pull of the wrong queue",
                row.id,
                row.topic_arn.as_deref().unwrap_or_default()
            ),
            Self::Missing { waiting: None, .. } => write!(
                f,
                "{account}/{event} has no subscription, so no notifications arrive"
            ),
            Self::Missing {
                waiting: Some(row), ..
            } => match row.state {
                SubscriptionState::Pending => write!(
                    f,
                    "subscription {} of {account}/{event} is not confirmed yet ({})",
                    row.id,
                    row.last_error.as_deref().unwrap_or(no_error)
                ),
                _ => write!(
                    f,
                    "subscription {} of {account}/{event} was requested at {}, and SNS has not asked to confirm it",
                    row.id, row.changed_at
                ),
            },
        }
    }
}

/// Logs problems: each at once when it begins, and then rarely.
#[derive(Default)]
pub(super) struct ProblemLog(Mutex<HashMap<String, Timestamp>>);

impl ProblemLog {
    /// Logs those that are new, or were last logged [`REPEAT_EVERY`] ago.
    pub(super) fn write(&self, problems: &[Problem<'_>], now: Timestamp) {
        // A panic leaves the times whole.
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *logged);
        for problem in problems {
            let key = format!("{:?} {}", problem.urgency(), key(problem));
            let last = before.get(&key).copied();
            // A moment in the future means that the clock was set back.
            let is_due = last.is_none_or(|last| last > now || last.after(REPEAT_EVERY) <= now);
            if is_due {
                write_line(problem);
            }
            let at = last.filter(|_| !is_due).unwrap_or(now);
            logged.insert(key, at);
        }
    }
}

/// Returns what a problem is about, without what changes while it lasts.
fn key(problem: &Problem<'_>) -> String {
    let (account, event) = problem.webhook();
    let row = match problem {
        Problem::Missing { waiting, .. } => *waiting,
        other => other.row(),
    };
    let row = row.map(|row| (row.id, row.state));
    format!("{account}/{event} {row:?}")
}

fn write_line(problem: &Problem<'_>) {
    let (account, event) = problem.webhook();
    let topic = problem.row().and_then(|row| row.topic_arn.as_deref());
    let fix = problem.fix();
    if problem.needs_person() {
        error!(%account, %event, sns.topic_arn = topic, "{problem}. Fix: {fix}");
    } else {
        warn!(%account, %event, sns.topic_arn = topic, "{problem}. Fix: {fix}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loopback, default_account};
    use SubscriptionState::{Confirmed, Failed, Pending, Requested, UnknownTopic, Unsubscribed};

    const TOPIC: &str = "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport";

    fn config() -> Config {
        let mut config = Config::for_loopback(Loopback {
            listen: ([127, 0, 0, 1], 0).into(),
            store: "test.db".into(),
            api_url: "http://127.0.0.1:9/".parse().expect("a URL"),
            api_key: "key".to_owned().into(),
            local_origins: Vec::new(),
            companies: Vec::new(),
        });
        for account in config.accounts.values_mut() {
            account.digitized = false;
        }
        config
    }

    fn minutes(number: u64) -> Timestamp {
        Timestamp::from_millis(0).after(Duration::from_secs(60 * number))
    }

    fn row(id: i64, state: SubscriptionState, changed_at: Timestamp) -> SubscriptionRow {
        SubscriptionRow {
            id,
            account: default_account(),
            event: Event::OnExported,
            name: None,
            topic_arn: Some(TOPIC.to_owned()),
            subscription_arn: None,
            state,
            created_at: changed_at,
            changed_at,
            last_message_at: Some(changed_at),
            last_heard_at: None,
            next_try_at: None,
            attempts: 0,
            last_error: None,
            subscribe_url: None,
            token: None,
        }
    }

    /// Returns the urgency and the row of each problem ten minutes after the start.
    fn urgencies(rows: &[SubscriptionRow]) -> Vec<(u8, Option<i64>)> {
        let config = config();
        all(&config, rows, minutes(10))
            .iter()
            .map(|problem| (problem.urgency(), problem.row().map(|row| row.id)))
            .collect()
    }

    #[test]
    fn an_event_is_missing_until_its_subscription_is_confirmed() {
        assert_eq!(urgencies(&[]), [(5, None)]);
        assert_eq!(urgencies(&[row(1, Requested, minutes(8))]), [(5, None)]);
        assert_eq!(urgencies(&[row(1, Requested, minutes(9))]), []);
        assert_eq!(urgencies(&[row(1, Pending, minutes(9))]), []);
        let mut tried = row(1, Pending, minutes(9));
        tried.attempts = 1;
        assert_eq!(urgencies(&[tried]), [(5, None)]);
        assert_eq!(urgencies(&[row(1, Confirmed, minutes(1))]), []);
        let mut other = row(1, Confirmed, minutes(1));
        other.event = Event::OnDigitized;
        other.topic_arn = Some(TOPIC.replace("export", "digitize"));
        assert_eq!(urgencies(&[other]), [(5, None)]);
    }

    #[test]
    fn what_is_missing_is_told_once() {
        assert_eq!(urgencies(&[row(1, Failed, minutes(1))]), [(2, Some(1))]);
        assert_eq!(
            urgencies(&[
                row(1, Unsubscribed, minutes(1)),
                row(2, Failed, minutes(2)),
                row(3, UnknownTopic, minutes(3))
            ]),
            [(0, Some(3)), (2, Some(2)), (3, Some(1))]
        );
    }

    #[test]
    fn a_confirmed_subscription_replaces_what_failed_or_ended() {
        let elsewhere = |mut row: SubscriptionRow| {
            row.topic_arn = Some(format!("{TOPIC}2"));
            row
        };
        let confirmed = row(2, Confirmed, minutes(5));
        for state in [Failed, Unsubscribed] {
            for (other, is_replaced) in [
                (row(1, state, minutes(1)), true),
                (row(1, state, minutes(9)), true),
                (elsewhere(row(1, state, minutes(1))), true),
                (elsewhere(row(1, state, minutes(9))), false),
            ] {
                let found = urgencies(&[other, confirmed.clone()]);
                assert_eq!(found.is_empty(), is_replaced, "{found:?}");
            }
        }
    }

    #[test]
    fn swapped_targets_are_told_until_they_are_put_right() {
        let swapped = |id, state, heard_at| SubscriptionRow {
            topic_arn: Some(TOPIC.replace("export", "digitize")),
            last_heard_at: Some(heard_at),
            ..row(id, state, minutes(1))
        };
        let told = [(4, Some(1))];
        assert_eq!(urgencies(&[swapped(1, Confirmed, minutes(2))]), told);
        let ours = row(2, Confirmed, minutes(5));
        for (heard_at, expected) in [(minutes(4), &[][..]), (minutes(6), &told)] {
            let rows = [swapped(1, Confirmed, heard_at), ours.clone()];
            assert_eq!(urgencies(&rows), expected);
        }
        for state in [Unsubscribed, Failed] {
            let found = urgencies(&[swapped(1, state, minutes(2)), ours.clone()]);
            assert_eq!(found, []);
        }
        let waiting = row(2, Pending, minutes(9));
        assert_eq!(
            urgencies(&[swapped(1, Confirmed, minutes(2)), waiting]),
            told
        );
    }

    #[test]
    fn an_unknown_topic_is_told_until_it_is_stale() {
        let unknown = row(1, UnknownTopic, minutes(0));
        let confirmed = row(2, Confirmed, minutes(5));
        let config = config();
        let later = minutes(0).after(TOKEN_LIFE);
        let both = [unknown.clone(), confirmed];
        assert_eq!(all(&config, &both, minutes(10)).len(), 1);
        assert_eq!(all(&config, &both, later).len(), 0);
        assert_eq!(all(&config, &[unknown], later).len(), 1);
    }
}
