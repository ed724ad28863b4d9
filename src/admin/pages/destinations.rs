//! Destinations: how far the delivery has come, what waits, and starting, pausing, trying again.

use axum::response::Response;
use maud::{Markup, html};

use super::language::grouped;
use super::layout::{Middle, badge, button, proof};
use super::page::{Shown, Visit};
use super::words::{self, Mood};
use crate::admin::destinations::all_destinations;
use crate::config::{DestinationConfig, DestinationKind};
use crate::domain::Timestamp;
use crate::store::{DestinationRow, HeldFeed};

/// Feeds that are held and named.
const NAMED: usize = 20;

pub(super) async fn page(visit: Visit) -> Response {
    let shown = list(&visit).await;
    visit.show(shown)
}

async fn list(visit: &Visit) -> Shown {
    let (app, language) = (&visit.admin.app, visit.visitor.language);
    let now = app.clock.now();
    let mut sections = Vec::new();
    for one in all_destinations(app).await? {
        // One that the settings name no more is given nothing, and nothing can be done to it.
        if let Some(config) = app.config.destinations.get(&one.row.name) {
            sections.push(destination(visit, &one.row, config, &one.held, now));
        }
    }
    Ok(Middle {
        title: language.say("Delivery", "Perdavimas").to_owned(),
        body: html! {
            @if sections.is_empty() {
                p { (language.say(
                    "The settings name no destination: documents are kept here and delivered to nobody.",
                    "Nustatymuose nėra gavėjų: dokumentai saugomi čia ir niekam neperduodami.",
                )) }
            }
            @for section in sections { (section) }
        },
    })
}

fn kind(visit: &Visit, config: &DestinationConfig) -> &'static str {
    let language = visit.visitor.language;
    match config.kind {
        DestinationKind::Http { .. } => language.say("HTTP POST", "HTTP POST"),
        DestinationKind::Command { .. } => language.say("a command", "komanda"),
        DestinationKind::Folder { .. } => language.say("a folder", "aplankas"),
        DestinationKind::List => language.say("a program that asks", "programa, kuri klausia"),
    }
}

fn destination(
    visit: &Visit,
    row: &DestinationRow,
    config: &DestinationConfig,
    held: &[HeldFeed],
    now: Timestamp,
) -> Markup {
    let language = visit.visitor.language;
    let behind = u64::try_from(row.behind).unwrap_or_default();
    html! {
        section.destination aria-label=(row.name) {
            h2 { (row.name) }
            p.state {
                (state(visit, row, now)) " " (kind(visit, config)) ", " (words::queue(language, config.queue))
                @if let Some(error) = &row.last_error { span.error lang="en" { " " (error) } }
            }
            dl.numbers {
                (number(language.say("Delivered", "Įtraukta į apskaitą"), row.delivered))
                (number(language.say("Stands rejected", "Nepriimta"), row.rejected_now))
                (number(language.say("Behind", "Dar neperžiūrėta"), behind))
                div { dt { (language.say("Last success", "Paskutinį kartą pavyko")) } dd { (language.maybe_moment(row.last_success_at, now)) } }
            }
            (held_feeds(visit, row, held))
            @if visit.visitor.may_operate() { (actions(visit, row, held)) }
        }
    }
}

fn number(name: &str, value: u64) -> Markup {
    html! { div { dt { (name) } dd { (grouped(value)) } } }
}

fn state(visit: &Visit, row: &DestinationRow, now: Timestamp) -> Markup {
    let language = visit.visitor.language;
    html! {
        @if let Some(reason) = row.paused {
            (badge(Mood::Bad, words::destination_paused(language, reason)))
        } @else if let Some(since) = row.failing_since {
            (badge(Mood::Bad, language.say("fails", "nepavyksta"))) " "
            (language.say("since ", "nuo ")) (language.moment(since, now))
        } @else {
            (badge(Mood::Good, language.say("works", "veikia")))
        }
    }
}

/// Feeds that wait for a person to let them begin.
fn held_feeds(visit: &Visit, row: &DestinationRow, held: &[HeldFeed]) -> Markup {
    let language = visit.visitor.language;
    let label = format!(
        "{} {}",
        language.say("Held feeds of", "Sulaikyti srautai:"),
        row.name
    );
    html! {
        @if !held.is_empty() {
            p { (language.say(
                "The first pull of these feeds is held until you say where the delivery begins; or years of booked invoices would be booked again:",
                "Šių srautų pirmas skaitymas sulaikytas, kol nurodysite, nuo kur perduoti; kitaip seniai apskaityti dokumentai būtų apskaityti dar kartą:",
            )) }
            ul aria-label=(label) {
                @for one in held.iter().take(NAMED) {
                    li { (one.feed) " – " (language.count(one.documents, ["version", "versions"], ["versija", "versijos", "versijų"])) }
                }
                @if held.len() > NAMED { li { "…" } }
            }
        }
    }
}

fn actions(visit: &Visit, row: &DestinationRow, held: &[HeldFeed]) -> Markup {
    let (visitor, language) = (&visit.visitor, visit.visitor.language);
    let name = row.name.as_str();
    let one = |what: &'static str, label| {
        button(
            visitor,
            "/do/destination",
            &[("destination", name), ("what", what)],
            label,
            Some(name),
        )
    };
    let since = format!("since-{name}");
    html! {
        div.buttons {
            @if row.paused.is_some() || row.failing_since.is_some() {
                (one("resume", language.say("Resume", "Tęsti")))
            }
            @if row.paused.is_none() { (one("pause", language.say("Pause", "Pristabdyti"))) }
            @if row.rejected_now > 0 {
                (one("retry", language.say("Retry rejected", "Perduoti nepriimtus dar kartą")))
            }
            @if !held.is_empty() {
                (one("deliver_history", language.say("Start with everything", "Perduoti viską")))
                (one("start_now", language.say("Start from now on", "Perduoti tik naujus")))
            }
        }
        @if !held.is_empty() {
            form.search method="post" action="/do/destination" {
                (proof(visitor))
                input type="hidden" name="destination" value=(name);
                input type="hidden" name="what" value="start_since";
                div {
                    label for=(since) { (language.say("Start with versions since", "Perduoti versijas nuo")) }
                    input id=(since) name="since" type="date" required;
                }
                button type="submit" { (language.say("Start", "Pradėti")) }
            }
        }
    }
}
