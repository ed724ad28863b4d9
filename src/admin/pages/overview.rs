//! Whether all is well, what waits for a person, and what came lately.

use std::collections::BTreeMap;

use axum::response::Response;
use maud::{Markup, html};

use super::chart::{bars, hours};
use super::concerns;
use super::language::Language;
use super::layout::{Middle, badge};
use super::page::{Shown, Visit};
use super::words::{self, Mood};
use crate::app::App;
use crate::domain::Timestamp;
use crate::store::{Activity, HourCount};

/// Kinds of refusal that are named; the others are counted together.
const REASONS: usize = 6;

pub(super) async fn page(visit: Visit) -> Response {
    let shown = overview(&visit.admin.app, visit.visitor.language).await;
    visit.show(shown)
}

async fn overview(app: &App, language: Language) -> Shown {
    let now = app.clock.now();
    let not_ready = app.ingest.readiness().await.err();
    let feeds = app.store.feeds().await?;
    let subscriptions = app.store.subscriptions().await?;
    let concerns = concerns::all(app, language, &feeds, &subscriptions).await?;
    let shown_hours = hours(now);
    let first = shown_hours.first().copied().unwrap_or(now);
    let activity = app.store.activity(first).await?;
    let sequence = app.store.sequence().await?;
    let documents = u64::try_from(sequence.last).unwrap_or_default();
    let lost: u64 = feeds.iter().map(|row| row.missed_notifications).sum();
    Ok(Middle {
        title: language.say("Overview", "Apžvalga").to_owned(),
        body: html! {
            p.state {
                @match &not_ready {
                    None => {
                        (badge(Mood::Good, language.say("Ready", "Veikia")))
                        " " (language.say("Messages are accepted.", "Pranešimai priimami."))
                    }
                    Some(refusal) => {
                        (badge(Mood::Bad, language.say("Not ready", "Neveikia")))
                        " " (language.say("Messages are not accepted: ", "Pranešimai nepriimami: "))
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
                    (bars(language, language.say("Refused messages", "Atmesti pranešimai"), "bad", &shown_hours,
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
                    (number(language.say("Missed notifications", "Negauti pranešimai"), lost, "/feeds"))
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

/// Why messages were refused, the most frequent reasons first.
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
            h3 { (language.say("Why messages were refused", "Kodėl pranešimai atmesti")) }
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
