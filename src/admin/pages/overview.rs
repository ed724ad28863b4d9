//! Overview: one sentence of state, what needs a person, each part with its state and age, and the
//! last 24 hours.

use std::collections::BTreeMap;

use axum::response::Response;
use maud::{Markup, html};

use super::attention;
use super::chart::{bars, hours};
use super::context::{PageContext, PageError, PageResult};
use super::documents::{taking, url_encode};
use super::labels::{self, Severity, Taking};
use super::language::{Language, Now};
use super::layout::{Column, PageBody, badge, table};
use crate::app::App;
use crate::domain::Timestamp;
use crate::refusal::Refusal;
use crate::store::{
    Activity, DestinationRow, DocumentSearch, FeedCounts, HourCount, SubscriptionRow,
    SubscriptionState, UploadFilter,
};

/// Maximum number of refusal reasons shown; the others are added up.
const MAX_REASONS: usize = 6;

/// Maximum number of late uploads that are counted.
const MAX_UPLOADS: usize = 1_000;

pub(super) async fn page(context: PageContext) -> Response {
    let result = overview(&context).await;
    context.respond(result)
}

async fn overview(context: &PageContext) -> PageResult {
    let (app, language, now) = (&context.admin.app, context.viewer.language, context.now());
    let not_ready = app.ingest.readiness().await.err();
    let feeds = app.store.feed_counts().await?;
    let subscriptions = app.store.subscriptions().await?;
    let attention = attention::all(context, &subscriptions).await?;
    let hours = hours(now.at);
    let first = hours.first().copied().unwrap_or(now.at);
    let activity = app.store.activity(first).await?;
    let parts = parts(context, not_ready.as_ref(), feeds, &subscriptions).await?;
    Ok(PageBody {
        title: language.pick("Overview", "Apžvalga").to_owned(),
        content: html! {
            (sentence(app, language, not_ready.as_ref(), attention.count))
            @if !attention.items.is_empty() {
                section aria-labelledby="attention" {
                    h2 id="attention" { (language.pick("Needs attention", "Reikia jūsų dėmesio")) }
                    ul.attention { @for item in &attention.items { li { (item) } } }
                }
            }
            section aria-labelledby="parts" {
                h2 id="parts" { (language.pick("State", "Būsena")) }
                (parts)
            }
            section aria-labelledby="activity" {
                h2 id="activity" { (language.pick("Last 24 hours", "Paskutinės 24 valandos")) }
                div.charts {
                    (bars(language, language.pick("New document versions", "Naujos dokumentų versijos"), "plain", &hours,
                        |hour| count_at(&activity.documents, hour), now))
                    (bars(language, language.pick("Accepted messages", "Priimti pranešimai"), "good", &hours,
                        |hour| count_at(&activity.accepted, hour), now))
                    (bars(language, language.pick("Refused messages", "Atmesti pranešimai"), "bad", &hours,
                        |hour| refused_at(&activity, hour), now))
                }
                (reasons(language, &activity))
            }
        },
        refresh: true,
    })
}

/// Renders the state of everything in one sentence.
fn sentence(app: &App, language: Language, not_ready: Option<&Refusal>, count: usize) -> Markup {
    html! {
        @match (not_ready, count) {
            (Some(refusal), _) => {
                p.state.bad {
                    (badge(Severity::Problem, language.pick("Not ready", "Neveikia"))) " "
                    (language.pick("Messages are not accepted: ", "Pranešimai nepriimami: "))
                    (labels::not_ready(language, refusal.code())) "."
                    @if let Some(fault) = app.health.store_faults().unavailable {
                        " " span lang="en" { (fault.text) }
                    }
                }
            }
            (None, 0) => {
                p.state.good {
                    (badge(Severity::Ok, language.pick("All is well", "Viskas gerai"))) " "
                    (language.pick("Messages are accepted, and nothing needs your attention.", "Pranešimai priimami, jums nieko daryti nereikia."))
                }
            }
            (None, count) => {
                p.state.busy {
                    (badge(Severity::Pending, language.pick("Works", "Veikia"))) " "
                    (language.pick("Messages are accepted. ", "Pranešimai priimami. "))
                    (language.count(count as u64,
                        ["thing needs your attention", "things need your attention"],
                        ["dalykui reikia jūsų dėmesio", "dalykams reikia jūsų dėmesio", "dalykų reikia jūsų dėmesio"],
                    )) "."
                }
            }
        }
    }
}

/// Renders each part of the service with its state, what waits there, and when it last worked.
async fn parts(
    context: &PageContext,
    not_ready: Option<&Refusal>,
    feeds: FeedCounts,
    subscriptions: &[SubscriptionRow],
) -> Result<Markup, PageError> {
    let (app, language, now) = (&context.admin.app, context.viewer.language, context.now());
    let columns = [
        Column::new(language.pick("Part", "Dalis"), "main"),
        Column::new(language.pick("State", "Būsena"), "state"),
        Column::new(language.pick("Details", "Išsamiau"), ""),
        Column::new(language.pick("Last", "Paskutinį kartą"), "date"),
    ];
    let link = |path: &str, name: &str| html! { a href=(path) { (name) } };
    let last = |at: Option<Timestamp>| {
        html! {
            @match at { Some(at) => { (language.age(at, now)) } None => { span.ago { "–" } } }
        }
    };
    let mut rows = Vec::new();
    let heard = subscriptions
        .iter()
        .filter_map(|row| row.last_heard_at)
        .max();
    let confirmed = subscriptions
        .iter()
        .filter(|row| row.state == SubscriptionState::Confirmed)
        .count();
    rows.push(vec![
        link(
            "/subscriptions",
            language.pick("Notifications", "Pranešimai"),
        ),
        match not_ready {
            None => badge(Severity::Ok, language.pick("accepted", "priimami")),
            Some(_) => badge(
                Severity::Problem,
                language.pick("not accepted", "nepriimami"),
            ),
        },
        html! { (language.count(confirmed as u64,
        ["confirmed subscription", "confirmed subscriptions"],
        ["patvirtinta prenumerata", "patvirtintos prenumeratos", "patvirtintų prenumeratų"])) },
        last(heard),
    ]);
    rows.push(vec![
        link("/feeds", language.pick("Companies", "Įmonės")),
        match (feeds.paused, feeds.incomplete) {
            (0, 0) => badge(Severity::Ok, language.pick("active", "veikia")),
            (0, _) => badge(Severity::Problem, language.pick("incomplete", "gali trūkti")),
            _ => badge(Severity::Problem, language.pick("paused", "sustabdyta")),
        },
        html! {
            (language.count(feeds.of_companies(), ["company", "companies"], ["įmonė", "įmonės", "įmonių"]))
            @if feeds.paused > 0 { ", " a href="/feeds?state=paused" { (language.count(feeds.paused, ["paused", "paused"], ["sustabdyta", "sustabdytos", "sustabdytų"])) } }
            @if feeds.incomplete > 0 { ", " a href="/feeds?state=incomplete" { (language.count(feeds.incomplete, ["incomplete", "incomplete"], ["su galima spraga", "su galimomis spragomis", "su galimomis spragomis"])) } }
            @if feeds.missed_notifications > 0 { ", " (language.count(feeds.missed_notifications, ["missed notification", "missed notifications"], ["praleistas pranešimas", "praleisti pranešimai", "praleistų pranešimų"])) }
        },
        last(app.store.last_pull().await?),
    ]);
    let sequence = app.store.sequence().await?;
    let stored = u64::try_from(sequence.last).unwrap_or_default();
    let newest = DocumentSearch {
        versions: 1,
        ..DocumentSearch::default()
    };
    let newest = app.store.search_documents(newest).await?;
    rows.push(vec![
        link("/documents", language.pick("Documents", "Dokumentai")),
        badge(Severity::Ok, language.pick("stored", "saugomi")),
        html! { (language.count(stored, ["version", "versions"], ["versija", "versijos", "versijų"])) },
        last(newest.rows.first().map(|row| row.stored_at)),
    ]);
    for row in app.store.destinations().await? {
        // A destination that the settings no longer name receives nothing.
        if app.config.destinations.contains_key(&row.name) {
            rows.push(destination(context, &row, now));
        }
    }
    let late = app.store.uploads(UploadFilter {
        after: 0,
        missing_since: Some(app.config.upload.late_before(now.at)),
        limit: MAX_UPLOADS,
    });
    let late = late.await?.len() as u64;
    if late > 0 {
        rows.push(vec![
            link("/uploads", language.pick("Uploads", "Įkėlimai")),
            badge(Severity::Problem, language.pick("late", "vėluoja")),
            html! { (language.count(late, ["upload without a document", "uploads without documents"],
                ["failas be dokumento", "failai be dokumentų", "failų be dokumentų"])) },
            last(None),
        ]);
    }
    Ok(
        html! { div.parts { (table(language.pick("Parts and their states", "Dalys ir jų būsenos"), &columns, rows)) } },
    )
}

fn destination(context: &PageContext, row: &DestinationRow, now: Now<'_>) -> Vec<Markup> {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let name = url_encode(row.name.as_str());
    let (severity, word) = if row.paused.is_some() {
        (Severity::Problem, language.pick("paused", "sustabdyta"))
    } else if row.failing_since.is_some() {
        (Severity::Problem, language.pick("failing", "nepavyksta"))
    } else if row.rejected_now > 0 || row.deferred > 0 {
        (
            Severity::Problem,
            language.pick("documents to look at", "yra ką peržiūrėti"),
        )
    } else if row.waiting > 0 {
        (Severity::Pending, language.pick("delivering", "perduodama"))
    } else {
        (Severity::Ok, language.pick("active", "veikia"))
    };
    let rejects = taking(app, &row.name) == Taking::Accepts || row.rejected_now > 0;
    vec![
        html! { a href={ "/destinations#" (row.name) } { (language.pick("Destination ", "Gavėjas ")) (row.name) } },
        badge(severity, word),
        html! {
            (language.count(row.waiting, ["waiting", "waiting"], ["laukia", "laukia", "laukia"]))
            @if let Some(since) = row.waiting_since.filter(|_| row.waiting > 0) { " " span.ago { (language.age(since, now)) } }
            @if rejects && row.rejected_now > 0 {
                ", " a.problem href={ "/deliveries?destination=" (name) "&state=rejected" } {
                    (language.count(row.rejected_now, ["rejected", "rejected"], ["nepriimtas", "nepriimti", "nepriimtų"]))
                }
            }
            @if row.deferred > 0 {
                ", " a.problem href={ "/deliveries?destination=" (name) "&state=deferred" } {
                    (language.count(row.deferred, ["deferred", "deferred"], ["atidėtas", "atidėti", "atidėtų"]))
                }
            }
            @if row.held > 0 {
                ", " a href={ "/destinations#" (row.name) } {
                    (language.count(row.held, ["held", "held"], ["sulaikytas", "sulaikyti", "sulaikytų"]))
                }
            }
        },
        html! { @match row.last_success_at { Some(at) => { (language.age(at, now)) } None => { span.ago { "–" } } } },
    ]
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
            h3 { (language.pick("Why messages were refused", "Kodėl pranešimai atmesti")) }
            ul.reasons {
                @for (reason, count) in totals.iter().take(MAX_REASONS) {
                    li { (labels::refusal(language, reason).0) " " code { (reason) } " " strong { (language.number(*count)) } }
                }
                @if others > 0 {
                    li { (language.pick("others", "kitos")) " " strong { (language.number(others)) } }
                }
            }
            p { a href="/quarantine" { (language.pick("Show quarantine", "Rodyti karantiną")) } }
        }
    }
}
