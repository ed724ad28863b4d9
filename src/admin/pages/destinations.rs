//! Destinations: progress of the delivery, held feeds, and the buttons to start, pause, resume
//! and retry.

use axum::response::Response;
use maud::{Markup, html};

use super::context::{PageContext, PageResult};
use super::labels::{self, Severity};
use super::language::grouped;
use super::layout::{PageBody, badge, button, form_token_input};
use crate::admin::destinations::all_destinations;
use crate::config::{DestinationConfig, DestinationKind};
use crate::domain::Timestamp;
use crate::store::{DestinationRow, HeldFeed, RunState};

/// Maximum number of held feeds listed.
const MAX_LISTED: usize = 20;

pub(super) async fn page(context: PageContext) -> Response {
    let result = list(&context).await;
    context.respond(result)
}

async fn list(context: &PageContext) -> PageResult {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let now = app.clock.now();
    let mut sections = Vec::new();
    for one in all_destinations(app).await? {
        // A destination that the settings no longer name receives nothing and has no actions.
        if let Some(config) = app.config.destinations.get(&one.row.name) {
            sections.push(destination(context, &one.row, config, &one.held, now));
        }
    }
    Ok(PageBody {
        title: language.pick("Delivery", "Perdavimas").to_owned(),
        content: html! {
            @if sections.is_empty() {
                p { (language.pick(
                    "No destination is configured: documents are stored here and not delivered.",
                    "Nustatymuose nėra gavėjų: dokumentai saugomi čia ir neperduodami.",
                )) }
            }
            @for section in sections { (section) }
        },
    })
}

fn kind(context: &PageContext, config: &DestinationConfig) -> &'static str {
    let language = context.viewer.language;
    match config.kind {
        DestinationKind::Http { .. } => language.pick("HTTP POST", "HTTP POST"),
        DestinationKind::Command { .. } => language.pick("a command", "komanda"),
        DestinationKind::Folder { .. } => language.pick("a folder", "aplankas"),
        DestinationKind::List => language.pick("a list for a program", "sąrašas programai"),
    }
}

fn destination(
    context: &PageContext,
    row: &DestinationRow,
    config: &DestinationConfig,
    held: &[HeldFeed],
    now: Timestamp,
) -> Markup {
    let language = context.viewer.language;
    let behind = u64::try_from(row.behind).unwrap_or_default();
    html! {
        section.destination aria-label=(row.name) {
            h2 { (row.name) }
            p.state {
                (state(context, row, now)) " " (kind(context, config)) ", " (labels::queue(language, config.queue))
                @if let Some(error) = &row.last_error { span.error lang="en" { " " (error) } }
            }
            dl.numbers {
                (number(language.pick("Delivered", "Perduota"), row.delivered))
                (number(language.pick("Rejected", "Nepriimta"), row.rejected_now))
                (number(language.pick("Behind", "Laukia perdavimo"), behind))
                div { dt { (language.pick("Last success", "Paskutinis sėkmingas perdavimas")) } dd { (language.optional_moment(row.last_success_at, now)) } }
            }
            (held_feeds(context, row, held))
            @if context.viewer.may_operate() { (actions(context, row, held)) }
        }
    }
}

fn number(name: &str, value: u64) -> Markup {
    html! { div { dt { (name) } dd { (grouped(value)) } } }
}

fn state(context: &PageContext, row: &DestinationRow, now: Timestamp) -> Markup {
    let language = context.viewer.language;
    html! {
        @match row.state(now) {
            RunState::Paused { .. } => {
                (badge(Severity::Problem, row.paused.map(|reason| labels::destination_pause_reason(language, reason)).unwrap_or_default()))
            }
            RunState::Failing { since } => {
                (badge(Severity::Problem, language.pick("failing", "nepavyksta")))
                @if let Some(since) = since { " " (language.pick("since ", "nuo ")) (language.moment(since, now)) }
            }
            RunState::Waiting { until } => {
                (badge(Severity::Pending, language.pick("waiting", "laukia"))) " " (language.moment(until, now))
            }
            RunState::Active => (badge(Severity::Ok, language.pick("active", "veikia"))),
            RunState::Removed { since } => {
                (badge(Severity::Pending, language.pick("removed", "pašalinta"))) " " (language.moment(since, now))
            }
        }
    }
}

/// Renders the feeds that are held until a person starts them.
fn held_feeds(context: &PageContext, row: &DestinationRow, held: &[HeldFeed]) -> Markup {
    let language = context.viewer.language;
    let label = format!(
        "{} {}",
        language.pick("Held feeds of", "Sulaikyti srautai:"),
        row.name
    );
    html! {
        @if !held.is_empty() {
            p { (language.pick(
                "The history of these feeds is held until you choose where delivery starts. Otherwise invoices that were booked long ago would be booked again:",
                "Šių srautų istorija sulaikyta, kol nurodysite, nuo kada perduoti. Kitaip seniai apskaityti dokumentai būtų apskaityti dar kartą:",
            )) }
            ul aria-label=(label) {
                @for one in held.iter().take(MAX_LISTED) {
                    li { (one.feed) " – " (language.count(one.documents, ["version", "versions"], ["versija", "versijos", "versijų"])) }
                }
                @if held.len() > MAX_LISTED { li { "…" } }
            }
        }
    }
}

fn actions(context: &PageContext, row: &DestinationRow, held: &[HeldFeed]) -> Markup {
    let (viewer, language) = (&context.viewer, context.viewer.language);
    let name = row.name.as_str();
    let one = |action: &'static str, label| {
        button(
            viewer,
            "/do/destination",
            &[("destination", name), ("action", action)],
            label,
            Some(name),
        )
    };
    let since = format!("since-{name}");
    html! {
        div.buttons {
            @if row.paused.is_some() || row.failing_since.is_some() {
                (one("resume", language.pick("Resume", "Tęsti")))
            }
            @if row.paused.is_none() { (one("pause", language.pick("Pause", "Sustabdyti"))) }
            @if row.rejected_now > 0 {
                (one("retry", language.pick("Retry rejected", "Perduoti nepriimtus iš naujo")))
            }
            @if !held.is_empty() {
                (one("deliver_history", language.pick("Deliver everything", "Perduoti viską")))
                (one("start_now", language.pick("Deliver only new versions", "Perduoti tik naujas versijas")))
            }
        }
        @if !held.is_empty() {
            form.search method="post" action="/do/destination" {
                (form_token_input(viewer))
                input type="hidden" name="destination" value=(name);
                input type="hidden" name="action" value="start_since";
                div {
                    label for=(since) { (language.pick("Deliver versions since", "Perduoti versijas nuo")) }
                    input id=(since) name="since" type="date" required;
                }
                button type="submit" { (language.pick("Start", "Pradėti")) }
            }
        }
    }
}
