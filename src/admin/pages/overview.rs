//! Overview: readiness, problems that need a person, and the last 24 hours.

use std::collections::BTreeMap;

use axum::response::Response;
use maud::{Markup, html};

use super::attention;
use super::chart::{bars, hours};
use super::context::{PageContext, PageResult};
use super::labels::{self, Severity};
use super::language::Language;
use super::layout::{PageBody, badge};
use crate::app::App;
use crate::domain::Timestamp;
use crate::store::{Activity, HourCount};

/// Maximum number of refusal reasons shown; the others are added up.
const MAX_REASONS: usize = 6;

pub(super) async fn page(context: PageContext) -> Response {
    let result = overview(&context.admin.app, context.viewer.language).await;
    context.respond(result)
}

async fn overview(app: &App, language: Language) -> PageResult {
    let now = app.clock.now();
    let not_ready = app.ingest.readiness().await.err();
    let feeds = app.store.feed_counts().await?;
    let subscriptions = app.store.subscriptions().await?;
    let attention = attention::all(app, language, feeds, &subscriptions).await?;
    let hours = hours(now);
    let first = hours.first().copied().unwrap_or(now);
    let activity = app.store.activity(first).await?;
    let sequence = app.store.sequence().await?;
    let documents = u64::try_from(sequence.last).unwrap_or_default();
    Ok(PageBody {
        title: language.pick("Overview", "Apžvalga").to_owned(),
        content: html! {
            p.state {
                @match &not_ready {
                    None => {
                        (badge(Severity::Ok, language.pick("Ready", "Veikia")))
                        " " (language.pick("Messages are accepted.", "Pranešimai priimami."))
                    }
                    Some(refusal) => {
                        (badge(Severity::Problem, language.pick("Not ready", "Neveikia")))
                        " " (language.pick("Messages are not accepted: ", "Pranešimai nepriimami: "))
                        (labels::not_ready(language, refusal.code())) "."
                        @if let Some(fault) = app.health.store_faults().unavailable {
                            " " span lang="en" { (fault.text) }
                        }
                    }
                }
            }
            section aria-labelledby="attention" {
                h2 id="attention" { (language.pick("Needs attention", "Reikia jūsų dėmesio")) }
                @if attention.is_empty() {
                    p { (language.pick("Nothing needs your attention.", "Nieko daryti nereikia.")) }
                } @else {
                    ul.attention { @for item in &attention { li { (item) } } }
                }
            }
            section aria-labelledby="activity" {
                h2 id="activity" { (language.pick("Last 24 hours", "Paskutinės 24 valandos")) }
                div.charts {
                    (bars(language, language.pick("Accepted messages", "Priimti pranešimai"), "good", &hours,
                        |hour| count_at(&activity.accepted, hour)))
                    (bars(language, language.pick("Refused messages", "Atmesti pranešimai"), "bad", &hours,
                        |hour| refused_at(&activity, hour)))
                    (bars(language, language.pick("New document versions", "Naujos dokumentų versijos"), "plain", &hours,
                        |hour| count_at(&activity.documents, hour)))
                }
                (reasons(language, &activity))
            }
            section aria-labelledby="totals" {
                h2 id="totals" { (language.pick("Totals", "Iš viso")) }
                dl.numbers {
                    (number(language.pick("Document versions", "Dokumentų versijos"), documents, "/documents"))
                    (number(language.pick("Feeds", "Srautai"), feeds.known, "/feeds"))
                    (number(language.pick("Missed notifications", "Praleisti pranešimai"), feeds.missed_notifications, "/feeds"))
                    (number(language.pick("Subscriptions", "Prenumeratos"), subscriptions.len() as u64, "/subscriptions"))
                }
            }
        },
    })
}

fn number(name: &str, value: u64, path: &str) -> Markup {
    html! { div { dt { (name) } dd { a href=(path) { (super::language::grouped(value)) } } } }
}

fn count_at(counts: &[HourCount], hour: Timestamp) -> u64 {
    let count = counts.iter().find(|count| count.hour == hour);
    count.map_or(0, |count| count.count)
}

fn refused_at(activity: &Activity, hour: Timestamp) -> u64 {
    let counts = activity.refused.iter().filter(|count| count.hour == hour);
    counts.map(|count| count.count).sum()
}

/// Renders the reasons of refused messages, most frequent first.
fn reasons(language: Language, activity: &Activity) -> Markup {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for refused in &activity.refused {
        *totals.entry(&refused.reason).or_default() += refused.count;
    }
    let mut totals: Vec<(&str, u64)> = totals.into_iter().collect();
    totals.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let others: u64 = totals
        .iter()
        .skip(MAX_REASONS)
        .map(|(_, count)| count)
        .sum();
    html! {
        @if !totals.is_empty() {
            h3 { (language.pick("Reasons of refused messages", "Pranešimų atmetimo priežastys")) }
            ul.reasons {
                @for (reason, count) in totals.iter().take(MAX_REASONS) {
                    li { code { (reason) } " " (super::language::grouped(*count)) }
                }
                @if others > 0 {
                    li { (language.pick("others", "kitos")) " " (super::language::grouped(others)) }
                }
            }
            p { a href="/quarantine" { (language.pick("Show quarantine", "Rodyti karantiną")) } }
        }
    }
}
