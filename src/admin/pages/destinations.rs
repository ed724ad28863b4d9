//! Destinations: progress of the delivery, what is held of each company, and the buttons to
//! start, stop, pause, resume and retry.

use axum::extract::RawQuery;
use axum::response::Response;
use maud::{Markup, html};
use url::form_urlencoded;

use super::context::{PageContext, PageError, PageResult};
use super::documents::{taking, url_encode};
use super::labels::{self, Severity, Taking};
use super::language::Now;
use super::layout::{Column, PageBody, badge, button, folded, form_token_input, table};
use super::names::Names;
use crate::admin::destinations::plan_start;
use crate::admin::problem::AdminError;
use crate::api::destinations::{Start, StartPlan, StartPreview};
use crate::app::App;
use crate::config::{DestinationConfig, DestinationKind};
use crate::domain::{Company, DestinationName, Queue};
use crate::store::{DeliveryState, DestinationRow, LaneRow, RunState};

/// Maximum number of companies listed of a start.
const MAX_LISTED: usize = 20;

/// Maximum number of companies that are started at once by name.
pub(super) const MAX_CHOSEN: usize = 500;

/// Maximum number of lanes whose held documents are shown.
const MAX_LANES: usize = 1_000;

/// Lanes that one read of the store brings.
const LANES: usize = 500;

/// Fields of the form that asks what a start would deliver.
#[derive(Clone, Debug, Default)]
struct StartQuery {
    /// The destination; empty if none is asked about.
    start: String,
    /// A day; empty for the beginning.
    since: String,
    /// Codes of companies; empty for all.
    companies: Vec<String>,
}

impl StartQuery {
    fn read(query: &str) -> Self {
        let mut read = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.trim();
            match name.as_ref() {
                "start" => value.clone_into(&mut read.start),
                "since" => value.clone_into(&mut read.since),
                "company" if !value.is_empty() && read.companies.len() < MAX_CHOSEN => {
                    read.companies.push(value.to_owned());
                }
                _ => {}
            }
        }
        read
    }

    /// Returns the point from which history is delivered: a day begins in the pages' time zone.
    fn from(&self, now: Now<'_>) -> Result<String, AdminError> {
        match self.since.as_str() {
            "" => Ok("all".to_owned()),
            day => now
                .start_of_day(day)
                .map(|moment| moment.to_string())
                .ok_or_else(|| AdminError::BadRequest(format!("`{day}` is not a day"))),
        }
    }
}

/// What a start of chosen companies would deliver.
struct Plan {
    query: StartQuery,
    from: String,
    documents: u64,
    feeds: Vec<StartPreview>,
}

pub(super) async fn page(context: PageContext, RawQuery(query): RawQuery) -> Response {
    let query = StartQuery::read(query.as_deref().unwrap_or_default());
    let result = list(&context, &query).await;
    context.respond(result)
}

async fn list(context: &PageContext, query: &StartQuery) -> PageResult {
    let (app, language, now) = (&context.admin.app, context.viewer.language, context.now());
    let mut sections = Vec::new();
    for row in app.store.destinations().await? {
        // A destination that the settings no longer name receives nothing and has no actions.
        if let Some(config) = app.config.destinations.get(&row.name) {
            let plan = match row.name.as_str() == query.start {
                true => Some(plan(app, query, now).await?),
                false => None,
            };
            let lanes = lanes(app, &row).await?;
            let companies = lanes.iter().map(|lane| &lane.feed.company);
            let names = Names::read(app, companies).await?;
            let held = Held { lanes, names };
            sections.push(destination(
                context,
                &row,
                config,
                &held,
                plan.as_ref(),
                now,
            ));
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
        refresh: query.start.is_empty(),
    })
}

/// Returns what a start of the chosen companies would deliver.
async fn plan(app: &App, query: &StartQuery, now: Now<'_>) -> Result<Plan, PageError> {
    let from = query.from(now)?;
    let mut plan = Plan {
        query: query.clone(),
        from: from.clone(),
        documents: 0,
        feeds: Vec::new(),
    };
    let mut add = |one: StartPlan| {
        plan.documents += one.documents;
        plan.feeds.extend(one.feeds);
    };
    for company in chosen(&query.companies) {
        let start = Start {
            from: from.clone(),
            account: None,
            company,
        };
        add(plan_start(app, &query.start, &start).await?);
    }
    Ok(plan)
}

/// Returns the companies to start, `None` for all of them.
pub(super) fn chosen(companies: &[String]) -> Vec<Option<String>> {
    match companies {
        [] => vec![None],
        companies => companies.iter().cloned().map(Some).collect(),
    }
}

/// The lanes of a destination that hold documents, or whose delivery fails.
struct Held {
    lanes: Vec<LaneRow>,
    names: Names,
}

/// Reads the lanes that a person may want to see.
async fn lanes(app: &App, row: &DestinationRow) -> Result<Vec<LaneRow>, AdminError> {
    if row.held + row.failing_lanes + row.paused_lanes == 0 {
        return Ok(Vec::new());
    }
    let (mut lanes, mut after) = (Vec::new(), 0);
    loop {
        let batch = app.store.lanes(row.name.clone(), after, LANES).await?;
        let Some((last, _)) = batch.last() else {
            break;
        };
        (after, lanes) = (*last, {
            let found = batch.into_iter().map(|(_, lane)| lane);
            lanes.extend(
                found.filter(|lane| lane.held > 0 || lane.failures > 0 || lane.paused.is_some()),
            );
            lanes
        });
        if lanes.len() >= MAX_LANES {
            lanes.truncate(MAX_LANES);
            break;
        }
    }
    Ok(lanes)
}

fn kind(context: &PageContext, config: &DestinationConfig) -> &'static str {
    let language = context.viewer.language;
    match config.kind {
        DestinationKind::Http { .. } => language.pick("an accounting system", "apskaitos sistema"),
        DestinationKind::Command { .. } => language.pick("a command", "komanda"),
        DestinationKind::Folder { .. } => language.pick("a folder", "aplankas"),
        DestinationKind::List => language.pick("a list for a program", "sąrašas programai"),
    }
}

fn destination(
    context: &PageContext,
    row: &DestinationRow,
    config: &DestinationConfig,
    held: &Held,
    plan: Option<&Plan>,
    now: Now<'_>,
) -> Markup {
    let language = context.viewer.language;
    let taking = taking(&context.admin.app, &row.name);
    let name = url_encode(row.name.as_str());
    let documents =
        |state: DeliveryState| format!("/deliveries?destination={name}&state={}", state.as_str());
    html! {
        section.destination id=(row.name) aria-label=(row.name) {
            h2 { (row.name) " " (state(context, row, now)) }
            p.ago { (kind(context, config)) ", " (labels::queue(language, config.queue)) " " (language.pick("documents", "dokumentai")) }
            @if let Some(error) = &row.last_error { p.error lang="" { (error) } }
            dl.numbers {
                (number(context, match taking {
                    Taking::Keeps => language.pick("Delivered", "Perduota"),
                    Taking::Accepts => language.pick("Accepted", "Priimta"),
                }, row.delivered, &documents(DeliveryState::Delivered), Severity::Ok))
                (number(context, language.pick("Waiting", "Laukia perdavimo"), row.waiting,
                    &format!("/documents?destination={name}&state=pending"), Severity::Pending))
                @if taking == Taking::Accepts || row.rejected_now > 0 {
                    (number(context, language.pick("Rejected", "Nepriimta"), row.rejected_now,
                        &documents(DeliveryState::Rejected), Severity::Problem))
                }
                @if row.deferred > 0 {
                    (number(context, language.pick("Deferred", "Atidėta"), row.deferred,
                        &documents(DeliveryState::Deferred), Severity::Problem))
                }
                @if row.waiting_file > 0 {
                    (number(context, language.pick("Waiting for the file", "Laukia failo"), row.waiting_file,
                        &documents(DeliveryState::WaitingFile), Severity::Pending))
                }
                (number(context, language.pick("Held", "Sulaikyta"), row.held,
                    &format!("/documents?destination={name}&state=held"), Severity::Neutral))
                div {
                    dt { (language.pick("Last success", "Paskutinis pavykęs")) }
                    dd { @match row.last_success_at {
                        Some(at) => { (language.age(at, now)) }
                        None => { (language.pick("never", "niekada")) }
                    } }
                }
            }
            @if let Some(since) = row.waiting_since.filter(|_| row.waiting > 0) {
                p.ago { (language.pick("The oldest waits since ", "Seniausias laukia nuo ")) (language.moment(since, now)) }
            }
            @if row.unknown_lanes > 0 {
                p { (language.count(row.unknown_lanes,
                    ["company waits until Įvesk.lt answers once", "companies wait until Įvesk.lt answers once"],
                    ["įmonė laukia pirmo Įvesk.lt atsakymo", "įmonės laukia pirmo Įvesk.lt atsakymo", "įmonių laukia pirmo Įvesk.lt atsakymo"],
                )) "." }
            }
            (troubled(context, row, held, now))
            @if context.viewer.may_operate() {
                (actions(context, row, plan.is_some()))
                @match plan {
                    Some(plan) => (start_plan(context, row, plan, held)),
                    None => (history(context, row, config, held, now)),
                }
            }
        }
    }
}

fn number(context: &PageContext, name: &str, value: u64, path: &str, severity: Severity) -> Markup {
    let shown = context.viewer.language.number(value);
    let class = match severity {
        Severity::Problem if value > 0 => "problem",
        _ => "",
    };
    html! {
        div class=(class) { dt { (name) } dd { @if value > 0 { a href=(path) { (shown) } } @else { (shown) } } }
    }
}

fn state(context: &PageContext, row: &DestinationRow, now: Now<'_>) -> Markup {
    let language = context.viewer.language;
    html! {
        @match row.state(now.at) {
            RunState::Paused { .. } => {
                (badge(Severity::Problem, row.paused.map(|reason| labels::destination_pause_reason(language, reason)).unwrap_or_default()))
            }
            RunState::Failing { since } => {
                (badge(Severity::Problem, language.pick("failing", "nepavyksta")))
                @if let Some(since) = since { " " span.ago { (language.pick("since ", "nuo ")) (language.time(since, now)) } }
            }
            RunState::Waiting { until } => {
                (badge(Severity::Pending, language.pick("waiting until", "laukia iki"))) " " span.ago { (language.time(until, now)) }
            }
            RunState::Active => (badge(Severity::Ok, language.pick("active", "veikia"))),
            RunState::Removed { since } => {
                (badge(Severity::Neutral, language.pick("removed", "pašalinta"))) " " span.ago { (language.time(since, now)) }
            }
        }
    }
}

/// Renders the companies whose documents fail at this destination, with the reason.
fn troubled(context: &PageContext, row: &DestinationRow, held: &Held, now: Now<'_>) -> Markup {
    let language = context.viewer.language;
    let troubled: Vec<&LaneRow> = held
        .lanes
        .iter()
        .filter(|lane| lane.failures > 0 || lane.paused.is_some())
        .collect();
    if troubled.is_empty() {
        return html! {};
    }
    let columns = [
        Column::new(language.pick("Company", "Įmonė"), "main"),
        Column::new(language.pick("State", "Būsena"), "state"),
        Column::new(language.pick("Since", "Nuo"), "date"),
        Column::new(language.pick("Reason", "Priežastis"), "reason"),
    ];
    let rows = troubled.iter().take(MAX_LISTED).map(|lane| {
        vec![
            company(context, &held.names, &lane.feed.company, lane.feed.queue),
            match lane.paused {
                Some(_) => badge(
                    Severity::Problem,
                    language.pick(
                        "paused: rejected again and again",
                        "sustabdyta: vis nepriimama",
                    ),
                ),
                None => badge(Severity::Problem, language.pick("failing", "nepavyksta")),
            },
            language.optional_moment(lane.failing_since, now),
            html! { @if let Some(error) = &lane.last_error { span lang="" { (error) } } },
        ]
    });
    html! {
        h3 { (language.pick("Companies whose documents fail", "Įmonės, kurių dokumentų perduoti nepavyksta")) }
        (table(language.pick("Companies whose documents fail", "Įmonės, kurių dokumentų perduoti nepavyksta"), &columns, rows.collect()))
        @if troubled.len() > MAX_LISTED {
            p { (language.count((row.failing_lanes + row.paused_lanes).saturating_sub(MAX_LISTED as u64),
                ["more company", "more companies"], ["kita įmonė", "kitos įmonės", "kitų įmonių"])) }
        }
    }
}

fn company(context: &PageContext, names: &Names, company: &Company, queue: Queue) -> Markup {
    html! {
        @if *company == Company::mixed() { (labels::queue(context.viewer.language, queue)) }
        @else { (names.company(company)) }
    }
}

/// Renders the form that chooses companies and a day, and counts what a start would deliver.
fn history(
    context: &PageContext,
    row: &DestinationRow,
    config: &DestinationConfig,
    held: &Held,
    now: Now<'_>,
) -> Markup {
    let language = context.viewer.language;
    let name = row.name.as_str();
    let since = format!("since-{name}");
    let mut holding: Vec<&LaneRow> = held.lanes.iter().filter(|lane| lane.held > 0).collect();
    holding.sort_by_key(|lane| std::cmp::Reverse(lane.held));
    if row.held == 0 && row.started_lanes == 0 {
        return html! {};
    }
    html! {
        div.held {
            h3 { (language.pick("Held documents", "Sulaikyti dokumentai")) " " (language.number(row.held)) }
            p { (language.pick(
                "They are from before the delivery of their company began, and were probably booked then. Choose the companies and the day from which to deliver them.",
                "Jie ankstesni nei jų įmonės perdavimo pradžia, tad greičiausiai jau apskaityti. Pasirinkite įmones ir dieną, nuo kurios perduoti.",
            )) }
            form.start method="get" action={ "/destinations#" (name) } {
                input type="hidden" name="start" value=(name);
                @if config.queue == Queue::Exported && !holding.is_empty() {
                    fieldset {
                        legend { (language.pick("Companies (none chosen: all)", "Įmonės (nepasirinkus: visos)")) }
                        div.choices {
                            @for lane in &holding {
                                label.choice {
                                    input type="checkbox" name="company" value=(lane.feed.company);
                                    span { (company(context, &held.names, &lane.feed.company, lane.feed.queue)) }
                                    span.amount { (language.number(lane.held)) }
                                }
                            }
                        }
                    }
                }
                div.row {
                    div {
                        label for=(since) { (language.pick("From this day (empty: all)", "Nuo šios dienos (tuščia: visus)")) }
                        input id=(since) name="since" type="date" value=(now.first_of_month());
                    }
                    button type="submit" { (language.pick("Count", "Suskaičiuoti")) }
                }
            }
        }
    }
}

/// Renders what a start would deliver, and the button that does.
fn start_plan(context: &PageContext, row: &DestinationRow, plan: &Plan, held: &Held) -> Markup {
    let (viewer, language) = (&context.viewer, context.viewer.language);
    let name = row.name.as_str();
    let documents = language.count(
        plan.documents,
        ["document", "documents"],
        ["dokumentą", "dokumentus", "dokumentų"],
    );
    let label = format!("{} {documents}", language.pick("Deliver", "Perduoti"));
    let companies = plan.query.companies.join("\n");
    let day = |text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        text.get(..10).unwrap_or(text).to_owned()
    };
    html! {
        div.confirm role="group" aria-label=(language.pick("Confirm", "Patvirtinkite")) {
            h3 { (language.pick("This would be delivered", "Būtų perduota")) }
            @if plan.feeds.is_empty() {
                p { (language.pick("Nothing: these documents were delivered already, or are not history.", "Nieko: šie dokumentai jau perduoti arba nėra sulaikyti.")) }
            } @else {
                ul {
                    @for one in plan.feeds.iter().take(MAX_LISTED) {
                        li {
                            (company(context, &held.names, &one.feed.company, one.feed.queue)) ": "
                            (language.count(one.documents, ["document", "documents"], ["dokumentas", "dokumentai", "dokumentų"]))
                            ", " span.nowrap { (day(&one.oldest)) " – " (day(&one.newest)) }
                        }
                    }
                    @if plan.feeds.len() > MAX_LISTED {
                        li { (language.count((plan.feeds.len() - MAX_LISTED) as u64,
                            ["more company", "more companies"], ["kita įmonė", "kitos įmonės", "kitų įmonių"])) }
                    }
                }
                p { (language.pick(
                    "Each is sent to this destination at once. Documents that were booked by hand would be booked twice.",
                    "Visi iškart siunčiami šiam gavėjui. Ranka jau apskaityti dokumentai būtų apskaityti dukart.",
                )) }
            }
            div.buttons {
                @if !plan.feeds.is_empty() {
                    form method="post" action="/do/destination" {
                        (form_token_input(viewer))
                        input type="hidden" name="destination" value=(name);
                        input type="hidden" name="action" value="start";
                        input type="hidden" name="from" value=(plan.from);
                        input type="hidden" name="companies" value=(companies);
                        button.primary type="submit" aria-label={ (label) ": " (name) } { (label) }
                    }
                }
                a.action href={ "/destinations#" (name) } { (language.pick("Cancel", "Atšaukti")) }
            }
        }
    }
}

fn actions(context: &PageContext, row: &DestinationRow, is_planning: bool) -> Markup {
    let (viewer, language) = (&context.viewer, context.viewer.language);
    let name = row.name.as_str();
    let one = |action: &'static str, label: &str| {
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
        @if !is_planning {
            div.buttons {
                @if may_resume { (one("resume", language.pick("Resume", "Tęsti"))) }
                @if row.paused.is_none() { (one("pause", language.pick("Pause", "Sustabdyti"))) }
                @if row.rejected_now > 0 {
                    @let documents = language.count(row.rejected_now, ["rejected document", "rejected documents"],
                        ["nepriimtą dokumentą", "nepriimtus dokumentus", "nepriimtų dokumentų"]);
                    (folded("ask", language.pick("Retry rejected…", "Nepriimtus perduoti iš naujo…"), &html! {
                        p { (language.pick("Only useful once the cause is corrected at the destination.", "Verta tik pašalinus priežastį pas gavėją.")) }
                        (one("retry", &format!("{} {documents}", language.pick("Retry", "Perduoti iš naujo"))))
                    }))
                }
                @if row.started_lanes > 0 {
                    (one("stop", language.pick("Stop delivering held documents", "Nebeperduoti sulaikytų")))
                }
            }
        }
    }
}

/// Returns the name of a configured destination.
pub(super) fn configured(app: &App, name: &str) -> Result<DestinationName, AdminError> {
    let name = DestinationName::parse(name).map_err(|_| AdminError::UnknownRow)?;
    match app.config.destinations.contains_key(&name) {
        true => Ok(name),
        false => Err(AdminError::UnknownRow),
    }
}
