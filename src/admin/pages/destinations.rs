//! Destinations: progress of the delivery, what is held, and the buttons to start, stop, pause,
//! resume and retry.

use axum::extract::Query;
use axum::response::Response;
use maud::{Markup, html};

use super::context::{PageContext, PageResult};
use super::labels::{self, Severity};
use super::language::grouped;
use super::layout::{PageBody, badge, button};
use crate::admin::destinations::plan_start;
use crate::api::destinations::{Start, StartPlan};
use crate::config::DestinationConfig;
use crate::domain::Timestamp;
use crate::store::{DestinationRow, RunState};

/// Maximum number of feeds listed of a start.
const MAX_LISTED: usize = 20;

/// Fields of the form that asks what a start would deliver.
#[derive(Clone, Default, serde::Deserialize)]
pub(super) struct StartQuery {
    /// The destination; empty if none is asked about.
    #[serde(default)]
    start: String,
    /// A day; empty for the beginning.
    #[serde(default)]
    since: String,
    /// A company's code; empty for all.
    #[serde(default)]
    company: String,
}

impl StartQuery {
    fn start(&self) -> Start {
        let since = self.since.trim();
        Start {
            from: match since {
                "" => "all".to_owned(),
                day => format!("{day}T00:00:00Z"),
            },
            account: None,
            company: Some(self.company.trim().to_owned()).filter(|code| !code.is_empty()),
        }
    }
}

pub(super) async fn page(context: PageContext, Query(query): Query<StartQuery>) -> Response {
    let result = list(&context, &query).await;
    context.respond(result)
}

async fn list(context: &PageContext, query: &StartQuery) -> PageResult {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let now = app.clock.now();
    let mut sections = Vec::new();
    for row in app.store.destinations().await? {
        // A destination that the settings no longer name receives nothing and has no actions.
        if let Some(config) = app.config.destinations.get(&row.name) {
            let start = query.start();
            let plan = match row.name.as_str() == query.start {
                true => Some((plan_start(app, &query.start, &start).await?, start)),
                false => None,
            };
            sections.push(destination(context, &row, config, plan.as_ref(), now));
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

fn destination(
    context: &PageContext,
    row: &DestinationRow,
    config: &DestinationConfig,
    plan: Option<&(StartPlan, Start)>,
    now: Timestamp,
) -> Markup {
    let language = context.viewer.language;
    html! {
        section.destination aria-label=(row.name) {
            h2 { (row.name) }
            p.state {
                (state(context, row, now)) " " code { (config.kind.as_str()) } ", " (labels::queue(language, config.queue))
                @if let Some(error) = &row.last_error { span.error lang="en" { " " (error) } }
            }
            dl.numbers {
                (number(language.pick("Delivered", "Perduota"), row.delivered))
                (number(language.pick("Rejected", "Nepriimta"), row.rejected_now))
                (number(language.pick("Waiting", "Laukia perdavimo"), row.waiting))
                (number(language.pick("Deferred", "Atidėta"), row.deferred))
                (number(language.pick("Waiting for a file", "Laukia failo"), row.waiting_file))
                (number(language.pick("Held as history", "Sulaikyta istorija"), row.held))
                div { dt { (language.pick("Last success", "Paskutinis sėkmingas perdavimas")) } dd { (language.optional_moment(row.last_success_at, now)) } }
            }
            @if row.failing_lanes + row.paused_lanes > 0 {
                p { (language.pick("Feeds that fail: ", "Srautų, kurių nepavyksta perduoti: ")) (grouped(row.failing_lanes))
                    (language.pick("; paused: ", "; sustabdytų: ")) (grouped(row.paused_lanes)) "." }
            }
            @if row.unknown_lanes > 0 {
                p { (language.pick(
                    "Feeds that wait until an answer of Įvesk.lt shows its clock: ",
                    "Srautų, kurie laukia, kol Įvesk.lt atsakymas parodys jos laikrodį: ",
                )) (grouped(row.unknown_lanes)) "." }
            }
            p { a href={ "/deliveries?destination=" (row.name) "&state=rejected" } { (language.pick("Deliveries", "Perdavimai")) } }
            @if context.viewer.may_operate() {
                (actions(context, row))
                (history(context, row, plan))
            }
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

/// Renders the form that asks what a start would deliver, or the answer with its button.
fn history(
    context: &PageContext,
    row: &DestinationRow,
    plan: Option<&(StartPlan, Start)>,
) -> Markup {
    let (viewer, language) = (&context.viewer, context.viewer.language);
    let name = row.name.as_str();
    if let Some((plan, start)) = plan {
        let documents = language.count(
            plan.documents,
            ["document", "documents"],
            ["dokumentą", "dokumentus", "dokumentų"],
        );
        let label = format!("{} {documents}", language.pick("Deliver", "Perduoti"));
        let company = start.company.as_deref().unwrap_or_default();
        let fields = [
            ("destination", name),
            ("action", "start"),
            ("from", &start.from),
            ("company", company),
        ];
        return html! {
            p { (language.pick("This start would deliver:", "Pradėjus būtų perduota:")) }
            ul {
                @for one in plan.feeds.iter().take(MAX_LISTED) {
                    li {
                        (one.feed) " – " (language.count(one.documents, ["document", "documents"], ["dokumentas", "dokumentai", "dokumentų"]))
                        ", " (one.oldest.as_deref().unwrap_or_default()) " – " (one.newest.as_deref().unwrap_or_default())
                    }
                }
                @if plan.feeds.len() > MAX_LISTED { li { "…" } }
                @if plan.feeds.is_empty() { li { (language.pick("nothing", "nieko")) } }
            }
            div.buttons { (button(viewer, "/do/destination", &fields, &label, Some(name))) }
        };
    }
    let (since, company) = (format!("since-{name}"), format!("company-{name}"));
    html! {
        p { (language.pick(
            "Documents from before this destination was known are history, and are held: invoices that were booked long ago would be booked again.",
            "Dokumentai, buvę iki šio gavėjo, yra istorija ir sulaikyti: kitaip seniai apskaityti dokumentai būtų apskaityti dar kartą.",
        )) }
        form.search method="get" action="/destinations" {
            input type="hidden" name="start" value=(name);
            div {
                label for=(since) { (language.pick("Deliver history since (empty: all)", "Perduoti istoriją nuo (tuščia: visą)")) }
                input id=(since) name="since" type="date";
            }
            div {
                label for=(company) { (language.pick("Company (empty: all)", "Įmonė (tuščia: visos)")) }
                input id=(company) name="company" maxlength="64";
            }
            button type="submit" { (language.pick("Count", "Suskaičiuoti")) }
        }
    }
}

fn actions(context: &PageContext, row: &DestinationRow) -> Markup {
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
    let may_resume = row.paused.is_some()
        || row.failing_since.is_some()
        || row.failing_lanes + row.paused_lanes > 0;
    html! {
        div.buttons {
            @if may_resume { (one("resume", language.pick("Resume", "Tęsti"))) }
            @if row.paused.is_none() { (one("pause", language.pick("Pause", "Sustabdyti"))) }
            @if row.rejected_now > 0 {
                (one("retry", language.pick("Retry rejected", "Perduoti nepriimtus iš naujo")))
            }
            @if row.started_lanes > 0 {
                (one("stop", language.pick("Stop delivering history", "Nebeperduoti istorijos")))
            }
        }
    }
}
