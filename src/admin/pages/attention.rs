//! What needs a person, as `ivesk-webhook status` tells it: unknown topics first, then the newest
//! first, each with what to do and its page.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::context::PageContext;
use super::labels;
use super::language::{Language, Now};
use super::layout::{arn, button, folded, with_code};
use super::names::Names;
use crate::admin::alarms::active_alarms;
use crate::admin::problem::AdminError;
use crate::admin::status::needs_person;
use crate::api::status::NeedsPerson;
use crate::domain::{Company, Timestamp};
use crate::pull::blocked_queues;
use crate::store::{AlarmKind, FeedRow, FeedTrouble, SubscriptionRow, SubscriptionState};
use crate::subscriptions::problems::{self, Problem, aws_account};

/// Maximum number of items of one kind.
const MAX_LISTED: usize = 3;

/// Maximum number of alarms whose beginning is looked up.
const MAX_ALARMS: usize = 1_000;

/// What needs a person.
pub(super) struct Attention {
    /// The number of all of it.
    pub(super) count: usize,
    /// What is shown of it.
    pub(super) items: Vec<Markup>,
}

/// Returns everything that needs a person.
pub(super) async fn all(
    context: &PageContext,
    subscriptions: &[SubscriptionRow],
) -> Result<Attention, AdminError> {
    let (app, now) = (&context.admin.app, context.now());
    let mut feeds = Vec::new();
    for trouble in [
        FeedTrouble::Paused,
        FeedTrouble::Failing,
        FeedTrouble::Incomplete,
    ] {
        feeds.extend(app.store.feeds_in_trouble(trouble, MAX_ALARMS).await?);
    }
    let problems = problems::all(&app.config, subscriptions, now.at);
    let needed = needs_person(app, &problems).await?;
    let alarms = active_alarms(app, MAX_ALARMS).await?;
    let count = needed.len();
    let mut items: Vec<(Urgency, Markup)> = Vec::new();
    // What `needs_person` says of subscriptions in words of its own.
    let is_told = |problem: &&Problem<'_>| !matches!(problem, Problem::Missing { local: true, .. });
    for problem in problems.iter().filter(is_told) {
        let urgency = match problem {
            Problem::UnknownTopic(row) => Urgency::First(row.changed_at),
            problem => Urgency::Since(problem.row().map(|row| row.changed_at)),
        };
        items.push((urgency, of_subscription(context, problem, now)));
    }
    let mut by_kind: BTreeMap<&str, usize> = BTreeMap::new();
    let companies = feeds.iter().map(|row| &row.feed.company);
    let names = match needed.is_empty() {
        true => Names::default(),
        false => Names::read(app, companies).await?,
    };
    for one in needed.iter().filter(|one| one.kind != "subscription") {
        let listed = by_kind.entry(&one.kind).or_default();
        *listed += 1;
        if *listed > MAX_LISTED {
            continue;
        }
        let Some(kind) = AlarmKind::parse(&one.kind) else {
            continue;
        };
        let alarm = alarms
            .iter()
            .find(|alarm| alarm.kind == kind && alarm.subject == one.subject);
        let since = alarm.map(|alarm| alarm.raised_at);
        let item = Item {
            kind,
            one,
            since,
            feed: feeds.iter().find(|row| row.feed.to_string() == one.subject),
        };
        items.push((Urgency::Since(since), item.render(context, &names, now)));
    }
    items.sort_by_key(|(urgency, _)| *urgency);
    let mut items: Vec<Markup> = items.into_iter().map(|(_, item)| item).collect();
    for (kind, listed) in by_kind {
        if let (Some(kind), Some(more)) = (AlarmKind::parse(kind), listed.checked_sub(MAX_LISTED))
            && more > 0
        {
            items.push(more_of(context.viewer.language, kind, more));
        }
    }
    Ok(Attention { count, items })
}

/// The order of what needs a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// Who owns an unknown topic must be decided while its token is valid.
    First(Timestamp),
    /// The newest first; what has no time began just now.
    Since(Option<Timestamp>),
}

impl Urgency {
    fn key(self) -> (u8, i64) {
        match self {
            Self::First(at) => (0, -at.as_millis()),
            Self::Since(None) => (1, i64::MIN),
            Self::Since(Some(at)) => (1, -at.as_millis()),
        }
    }
}

impl PartialOrd for Urgency {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Urgency {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// Something that needs a person, beside subscriptions.
struct Item<'a> {
    kind: AlarmKind,
    one: &'a NeedsPerson,
    since: Option<Timestamp>,
    /// The feed that it is about.
    feed: Option<&'a FeedRow>,
}

impl Item<'_> {
    fn render(&self, context: &PageContext, names: &Names, now: Now<'_>) -> Markup {
        let (viewer, language) = (&context.viewer, context.viewer.language);
        let (fix, path) = labels::alarm_fix(language, self.kind, &self.one.subject);
        html! {
            p {
                strong { (self.subject(language, names)) } ": "
                @match self.reason(context) {
                    Some(reason) => { (with_code(reason)) }
                    None => { (labels::alarm(language, self.kind, &self.one.subject)) }
                }
                @if let Some(since) = self.since { " " span.ago { (language.age(since, now)) } }
            }
            p { (with_code(fix)) }
            div.buttons {
                @if let Some(row) = self.feed.filter(|row| row.paused.is_some() && viewer.may_operate()) {
                    (button(viewer, "/do/resume", &[
                        ("account", row.feed.account.as_str()),
                        ("queue", row.feed.queue.as_str()),
                        ("company", row.feed.company.as_str()),
                    ], language.pick("Resume", "Tęsti"), Some(&self.one.subject)))
                }
                a.action href=(path) { (language.pick("Show", "Rodyti")) span.hidden { ": " (self.one.subject) } }
                (folded("", language.pick("Details", "Išsamiau"), &html! { p lang="en" { (with_code(&self.one.text)) } }))
            }
        }
    }

    fn subject(&self, language: Language, names: &Names) -> Markup {
        html! {
            @match self.feed {
                Some(row) if row.feed.company != Company::mixed() => { (names.company(&row.feed.company)) }
                Some(row) => { (labels::queue(language, row.feed.queue)) }
                None => { (labels::alarm_subject(&self.one.subject)) }
            }
        }
    }

    /// Returns the cause, where the kind alone does not tell it.
    fn reason(&self, context: &PageContext) -> Option<&'static str> {
        let language = context.viewer.language;
        match (self.kind, self.feed) {
            (AlarmKind::Paused, Some(row)) => {
                Some(labels::feed_pause_reason(language, row.paused?))
            }
            (AlarmKind::Blocked, _) => {
                let blocked = blocked_queues(&context.admin.app.config);
                let mut blocked = blocked.iter();
                let one = blocked
                    .find(|one| format!("{}/{}", one.account, one.queue) == self.one.subject)?;
                Some(labels::missing_setting(language, one.missing))
            }
            _ => None,
        }
    }
}

/// Renders how many more there are of a kind.
fn more_of(language: Language, kind: AlarmKind, more: usize) -> Markup {
    let (_, path) = labels::alarm_fix(language, kind, "");
    html! {
        p {
            (language.count(more as u64, ["more:", "more:"], ["kitas:", "kiti:", "kitų:"])) " "
            (labels::alarm(language, kind, "")) " "
            a href=(path) { (language.pick("Show all", "Rodyti visus")) }
        }
    }
}

fn of_subscription(context: &PageContext, problem: &Problem<'_>, now: Now<'_>) -> Markup {
    let language = context.viewer.language;
    html! {
        p { (problem_text(language, problem, now)) }
        div.buttons { a.action href="/subscriptions" { (language.pick("Show", "Rodyti")) } }
    }
}

/// Renders what a person should know of or decide about subscriptions.
fn problem_text(language: Language, problem: &Problem<'_>, now: Now<'_>) -> Markup {
    let (account, event) = problem.webhook();
    let subscription = |state| {
        let (_, word) = labels::subscription(language, state);
        let label = language.pick("Subscription", "Prenumerata");
        html! { (label) " " (account) "/" (event) ": " (word) "." }
    };
    match problem {
        Problem::UnknownTopic(row) => {
            let topic_arn = row.topic_arn.as_deref().unwrap_or_default();
            html! {
                (account) "/" (event) ": "
                (labels::unknown_topic(language, aws_account(topic_arn).unwrap_or_default()))
                " " (arn(topic_arn)) "."
            }
        }
        Problem::AwaitsApproval(row) | Problem::Failed(row) | Problem::Ended(row) => {
            subscription(row.state)
        }
        Problem::OtherTopic(row) => html! {
            (account) "/" (event) ": "
            (language.pick(
                "subscribed to the other event's topic, so the targets are swapped:",
                "užsakyta kito įvykio tema, taigi gavimo adresai sukeisti:",
            ))
            " " (arn(row.topic_arn.as_deref().unwrap_or_default())) "."
        },
        Problem::Missing {
            waiting: Some(row), ..
        } if row.state == SubscriptionState::Pending => subscription(row.state),
        Problem::Missing {
            waiting: Some(row), ..
        } => {
            let (before, after) = (
                language.pick("requested", "užsakyta"),
                with_code(language.pick(
                    "and SNS has not asked to confirm it. `ivesk-webhook doctor` finds the cause.",
                    "bet SNS neprašė jos patvirtinti. Priežastį randa komanda „ivesk-webhook doctor“.",
                )),
            );
            let label = language.pick("Subscription", "Prenumerata");
            html! {
                (label) " " (account) "/" (event) ": " (before) " " (language.moment(row.changed_at, now)) ", " (after)
            }
        }
        Problem::Missing { local, .. } => {
            let text = if *local {
                language.pick(
                    "no subscription. `public.url` is on this machine, where SNS can't reach it.",
                    "prenumeratos nėra. `public.url` yra šio kompiuterio adresas, kurio SNS nepasiekia.",
                )
            } else {
                language.pick(
                    "no subscription, so no notifications arrive. `ivesk-webhook subscriptions create` requests one from Įvesk.lt.",
                    "prenumeratos nėra, todėl pranešimai negaunami. Komanda „ivesk-webhook subscriptions create“ užsako ją iš Įvesk.lt.",
                )
            };
            html! { (account) "/" (event) ": " (with_code(text)) }
        }
    }
}
