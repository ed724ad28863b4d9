//! Whether all is well, what waits for a person, and what came lately.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::response::Response;
use maud::{Markup, html};

use super::certificates;
use super::chart::{bars, hours};
use super::language::Language;
use super::layout::{Middle, Mood, badge, marked};
use super::{Shown, Visit, words};
use crate::domain::Timestamp;
use crate::handoff::worker::wants;
use crate::pull::blocked;
use crate::service::App;
use crate::store::{
    Activity, FeedRow, HourCount, LATE_AFTER, SubscriptionRow, SubscriptionState, UploadFilter,
};

/// Kinds of refusal that are named; the others are counted together.
const REASONS: usize = 6;

/// Feeds of which each that is parked is named.
const NAMED: usize = 10;

/// A feed that was not up to date for so long waits for a person.
const STALE_AFTER: Duration = Duration::from_secs(2 * 60 * 60);

pub(super) async fn page(visit: Visit) -> Response {
    let shown = overview(&visit.admin.app, visit.visitor.language).await;
    visit.show(shown)
}

async fn overview(app: &App, language: Language) -> Shown {
    let now = app.clock.now();
    let not_ready = app.ingest.readiness().await.err();
    let feeds = app.store.feeds().await?;
    let subscriptions = app.store.subscriptions().await?;
    let concerns = concerns(app, language, &feeds, &subscriptions, now).await?;
    let shown_hours = hours(now);
    let first = shown_hours.first().copied().unwrap_or(now);
    let activity = app.store.activity(first).await?;
    let sequence = app.store.sequence().await?;
    let documents = u64::try_from(sequence.last).unwrap_or_default();
    let lost: u64 = feeds.iter().map(|row| row.lost_hints).sum();
    Ok(Middle {
        title: language.say("Overview", "Apžvalga").to_owned(),
        body: html! {
            p.state {
                @match &not_ready {
                    None => {
                        (badge(Mood::Good, language.say("Ready", "Veikia")))
                        " " (language.say("Deliveries are accepted.", "Pranešimai priimami."))
                    }
                    Some(refusal) => {
                        (badge(Mood::Bad, language.say("Not ready", "Neveikia")))
                        " " (language.say("Deliveries are not accepted: ", "Pranešimai nepriimami: "))
                        (words::not_ready(language, refusal.code())) "."
                    }
                }
            }
            section aria-labelledby="concerns" {
                h2 id="concerns" { (language.say("What waits for you", "Reikia jūsų dėmesio")) }
                @if concerns.is_empty() {
                    p { (language.say("Nothing.", "Nieko daryti nereikia.")) }
                } @else {
                    ul.concerns { @for concern in &concerns { li { (concern) } } }
                }
            }
            section aria-labelledby="lately" {
                h2 id="lately" { (language.say("The last 24 hours", "Paskutinės 24 valandos")) }
                div.charts {
                    (bars(language, language.say("Accepted messages", "Priimti pranešimai"), "good", &shown_hours,
                        |hour| count_at(&activity.accepted, hour)))
                    (bars(language, language.say("Refused deliveries", "Atmesti pranešimai"), "bad", &shown_hours,
                        |hour| refused_at(&activity, hour)))
                    (bars(language, language.say("New document versions", "Naujos dokumentų versijos"), "plain", &shown_hours,
                        |hour| count_at(&activity.documents, hour)))
                }
                (reasons(language, &activity))
            }
            section aria-labelledby="all" {
                h2 id="all" { (language.say("In all", "Iš viso")) }
                dl.numbers {
                    (number(language.say("Document versions", "Dokumentų versijos"), documents, "/documents"))
                    (number(language.say("Feeds", "Srautai"), feeds.len() as u64, "/feeds"))
                    (number(language.say("Lost hints", "Negauti pranešimai"), lost, "/feeds"))
                    (number(language.say("Subscriptions", "Prenumeratos"), subscriptions.len() as u64, "/subscriptions"))
                }
            }
        },
    })
}

fn number(name: &str, value: u64, path: &str) -> Markup {
    html! { div { dt { (name) } dd { a href=(path) { (super::language::grouped(value)) } } } }
}

fn count_at(counts: &[HourCount], hour: Timestamp) -> u64 {
    let at = counts.iter().find(|count| count.hour == hour);
    at.map_or(0, |count| count.count)
}

fn refused_at(activity: &Activity, hour: Timestamp) -> u64 {
    let at = activity.refused.iter().filter(|count| count.hour == hour);
    at.map(|count| count.count).sum()
}

/// Why deliveries were refused, the most frequent reasons first.
fn reasons(language: Language, activity: &Activity) -> Markup {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for refused in &activity.refused {
        *totals.entry(&refused.reason).or_default() += refused.count;
    }
    let mut totals: Vec<(&str, u64)> = totals.into_iter().collect();
    totals.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let others: u64 = totals.iter().skip(REASONS).map(|(_, count)| count).sum();
    html! {
        @if !totals.is_empty() {
            h3 { (language.say("Why deliveries were refused", "Kodėl pranešimai atmesti")) }
            ul.reasons {
                @for (reason, count) in totals.iter().take(REASONS) {
                    li { code { (reason) } " " (super::language::grouped(*count)) }
                }
                @if others > 0 {
                    li { (language.say("others", "kitos")) " " (super::language::grouped(others)) }
                }
            }
            p { a href="/quarantine" { (language.say("To the quarantine", "Į karantiną")) } }
        }
    }
}

/// What a person should look at, each with the way there.
async fn concerns(
    app: &App,
    language: Language,
    feeds: &[FeedRow],
    subscriptions: &[SubscriptionRow],
    now: Timestamp,
) -> Result<Vec<Markup>, crate::store::StoreError> {
    let mut concerns = Vec::new();
    let mut tell = |path: &str, what: Markup| {
        concerns.push(html! { (what) " " a href=(path) { (language.say("Look", "Žiūrėti")) } });
    };
    for one in blocked(&app.config) {
        tell(
            "/feeds",
            html! {
                (one.account) ", " (words::queue(language, one.queue)) ": "
                (marked(words::missing(language, one.missing))) "."
            },
        );
    }
    for row in app.store.accounts().await? {
        if let Some(reason) = row.parked {
            tell(
                "/feeds",
                html! { (row.account) ": " (marked(words::parked(language, reason))) "." },
            );
        }
    }
    let parked = feeds.iter().filter_map(|row| Some((row, row.parked?)));
    for (row, reason) in parked.clone().take(NAMED) {
        tell(
            "/feeds",
            html! { (row.feed) ": " (marked(words::parked(language, reason))) "." },
        );
    }
    let unnamed = parked.count().saturating_sub(NAMED);
    if unnamed > 0 {
        let feeds = language.count(
            unnamed as u64,
            ["more feed is parked", "more feeds are parked"],
            [
                "srautas dar sustabdytas",
                "srautai dar sustabdyti",
                "srautų dar sustabdyta",
            ],
        );
        tell("/feeds", html! { (feeds) "." });
    }
    let stale = feeds.iter().filter(|row| {
        row.parked.is_none()
            && row
                .up_to_date_at
                .is_some_and(|at| now.since(at) > STALE_AFTER)
    });
    let stale = stale.count();
    if stale > 0 {
        let feeds = language.count(
            stale as u64,
            [
                "feed was not up to date for two hours",
                "feeds were not up to date for two hours",
            ],
            [
                "srautas neatnaujintas daugiau nei dvi valandas",
                "srautai neatnaujinti daugiau nei dvi valandas",
                "srautų neatnaujinta daugiau nei dvi valandas",
            ],
        );
        tell("/feeds", html! { (feeds) "." });
    }
    for row in subscriptions {
        let waits = matches!(
            row.state,
            SubscriptionState::AwaitingApproval | SubscriptionState::Unsubscribed
        );
        if waits {
            let (_, word) = words::subscription(language, row.state);
            tell(
                "/subscriptions",
                html! {
                    (language.say("Subscription", "Prenumerata")) " " (row.account) "/" (row.event) ": " (word) "."
                },
            );
        }
    }
    let late = app.store.uploads(UploadFilter {
        after: 0,
        missing_since: Some(now.before(LATE_AFTER)),
        limit: 1_000,
    });
    let late = late.await?.len();
    if late > 0 {
        let uploads = language.count(
            late as u64,
            [
                "upload has brought no document for 12 hours",
                "uploads have brought no document for 12 hours",
            ],
            [
                "įkeltas failas per 12 valandų netapo dokumentu",
                "įkelti failai per 12 valandų netapo dokumentais",
                "įkeltų failų per 12 valandų netapo dokumentais",
            ],
        );
        tell("/uploads", html! { (uploads) "." });
    }
    for row in app.store.sinks().await? {
        if !app.config.sinks.contains_key(&row.name) {
            continue;
        }
        if let Some(reason) = row.paused {
            tell(
                "/sinks",
                html! { (row.name) ": " (words::paused(language, reason)) "." },
            );
        } else if let Some(since) = row.failing_since {
            tell(
                "/sinks",
                html! {
                    (row.name) ": " (language.say("takes nothing since ", "nieko nepriima nuo "))
                    (language.moment(since, now)) "."
                },
            );
        }
        let wants = wants(&app.config.sinks[&row.name]);
        let held = app.store.held_feeds(row.name.clone(), wants).await?;
        if !held.is_empty() {
            let feeds = language.count(
                held.len() as u64,
                [
                    "feed waits until you say where the hand-off begins",
                    "feeds wait until you say where the hand-off begins",
                ],
                [
                    "srautas laukia, kol nurodysite, nuo kur perduoti",
                    "srautai laukia, kol nurodysite, nuo kur perduoti",
                    "srautų laukia, kol nurodysite, nuo kur perduoti",
                ],
            );
            tell("/sinks", html! { (row.name) ": " (feeds) "." });
        }
        if row.rejected_now > 0 {
            let rejected = language.count(
                row.rejected_now,
                ["document stands rejected", "documents stand rejected"],
                [
                    "dokumentas nepriimtas",
                    "dokumentai nepriimti",
                    "dokumentų nepriimta",
                ],
            );
            tell("/sinks", html! { (row.name) ": " (rejected) "." });
        }
    }
    if let Some(day) = certificates::ending(&app.store.certificates().await?, now) {
        tell(
            "/certificates",
            html! {
                (language.say("The certificate in use ends on ", "Naudojamas sertifikatas baigiasi "))
                (language.day(day)) "."
            },
        );
    }
    Ok(concerns)
}
