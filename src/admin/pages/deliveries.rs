//! Deliveries in one state: each version at each destination with the reason, and the buttons to
//! retry and skip one, several or all.

use std::collections::BTreeMap;

use axum::extract::Query;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::context::{PageContext, PageResult, ROWS};
use super::destinations::configured;
use super::documents::{taking, url_encode};
use super::labels::{self, Taking};
use super::language::Now;
use super::layout::{Column, PageBody, badge, folded, form_token_input, next_page, table};
use super::names::Names;
use crate::admin::destinations::read_deliveries;
use crate::admin::problem::AdminError;
use crate::api::deliveries::DeliveryQuery;
use crate::app::App;
use crate::domain::Company;
use crate::ivesk::view::View;
use crate::store::{DeliveryRow, DeliveryState};
use crate::visible::foreign;

/// Parameters of the page.
#[derive(Clone, Default, Deserialize)]
pub(super) struct Parameters {
    #[serde(default)]
    destination: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    company: String,
    after: Option<String>,
}

impl Parameters {
    fn path(&self) -> String {
        format!(
            "/deliveries?destination={}&state={}&company={}",
            url_encode(&self.destination),
            url_encode(&self.state),
            url_encode(&self.company)
        )
    }
}

pub(super) async fn page(context: PageContext, Query(parameters): Query<Parameters>) -> Response {
    let result = list(&context, parameters).await;
    context.respond(result)
}

async fn list(context: &PageContext, parameters: Parameters) -> PageResult {
    let (app, language, now) = (&context.admin.app, context.viewer.language, context.now());
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let state = DeliveryState::parse(&parameters.state);
    let query = DeliveryQuery {
        destination: given(&parameters.destination),
        state,
        company: given(&parameters.company),
        after: parameters.after.clone(),
        limit: Some(ROWS),
    };
    let page = read_deliveries(app, query).await?;
    let names = Names::read(app, page.rows.iter().map(|row| &row.feed.company)).await?;
    let sequences = page.rows.iter().map(|row| row.sequence);
    let mut views = views(app, sequences).await?;
    let selection = selection(context, &parameters, state).await?;
    let mut columns = vec![
        Column::new(language.pick("Document", "Dokumentas"), "main"),
        Column::new(
            language.pick("Seller and buyer", "Pardavėjas ir pirkėjas"),
            "parties",
        ),
        Column::new(language.pick("Company", "Įmonė"), "company"),
        Column::new(language.pick("Amount", "Suma"), "number"),
        Column::new(language.pick("State", "Būsena"), "state"),
        Column::new(language.pick("Reason", "Priežastis"), "reason"),
    ];
    if selection.is_some() {
        columns.insert(
            0,
            Column::new(language.pick("Choose", "Pasirinkti"), "choose"),
        );
    }
    let rows: Vec<Vec<Markup>> = page
        .rows
        .iter()
        .map(|row| {
            let view = views.remove(&row.sequence).unwrap_or_default();
            let mut cells = cells(context, row, &view, &names, now);
            if selection.is_some() {
                let name = view.number.as_deref().unwrap_or(&row.document_id);
                cells.insert(
                    0,
                    html! {
                        input type="checkbox" name="sequence" value=(row.sequence)
                            aria-label={ (language.pick("Choose", "Pasirinkti")) " " (name) };
                    },
                );
            }
            cells
        })
        .collect();
    let is_empty = rows.is_empty();
    let caption = language.pick("Deliveries, oldest first", "Perdavimai, seniausi viršuje");
    let rows = html! { div.deliveries { (table(caption, &columns, rows)) } };
    Ok(PageBody {
        title: language.pick("Deliveries", "Perdavimai").to_owned(),
        content: html! {
            (filters(context, &parameters))
            @if let Some(fix) = state.and_then(|state| labels::delivery_fix(language, state)) { p { (fix) } }
            @if is_empty {
                p.empty { (language.pick("No deliveries.", "Perdavimų nėra.")) }
            } @else if let Some(selection) = &selection {
                form.select method="post" action="/do/delivery" {
                    (form_token_input(&context.viewer))
                    input type="hidden" name="destination" value=(parameters.destination);
                    input type="hidden" name="state" value=(parameters.state);
                    input type="hidden" name="company" value=(parameters.company);
                    input type="hidden" name="back" value=(parameters.path());
                    (rows)
                    (selection)
                }
            } @else { (rows) }
            @if !is_empty { (next_page(language, &parameters.path(), page.next.as_deref())) }
        },
        refresh: false,
    })
}

/// Returns what these versions say of themselves.
pub(super) async fn views(
    app: &App,
    sequences: impl Iterator<Item = i64>,
) -> Result<BTreeMap<i64, View>, AdminError> {
    let mut views = BTreeMap::new();
    for sequence in sequences {
        let version = app.store.document(sequence).await?;
        let body = version.and_then(|version| version.body);
        let view = body.as_deref().map(View::read).unwrap_or_default();
        views.insert(sequence, view);
    }
    Ok(views)
}

fn cells(
    context: &PageContext,
    row: &DeliveryRow,
    view: &View,
    names: &Names,
    now: Now<'_>,
) -> Vec<Markup> {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let (severity, word) = labels::delivery(language, row.state, taking(app, &row.destination));
    vec![
        html! { a href={ "/documents/" (row.sequence) } { (view.number.as_deref().unwrap_or(&row.document_id)) } },
        html! {
            span.name { (view.seller.as_deref().unwrap_or("–")) }
            span.to { span.arrow aria-hidden="true" { "→ " } (view.buyer.as_deref().unwrap_or("–")) }
        },
        html! {
            @if row.feed.company == Company::mixed() { (labels::queue(language, row.feed.queue)) }
            @else { (names.company(&row.feed.company)) }
        },
        html! {
            @match &view.total {
                Some(total) => { span.amount { (language.amount(total, view.currency.as_deref())) } }
                None => { "–" }
            }
        },
        html! {
            (badge(severity, word)) " "
            span.ago { (row.destination) ", " (language.age(row.changed_at, now)) }
        },
        html! { @if let Some(detail) = &row.detail { span lang="" { (foreign(detail)) } } },
    ]
}

fn filters(context: &PageContext, parameters: &Parameters) -> Markup {
    let (app, language) = (&context.admin.app, context.viewer.language);
    html! {
        form.search.filters method="get" action="/deliveries" {
            div {
                label for="destination" { (language.pick("Destination", "Gavėjas")) }
                select id="destination" name="destination" {
                    option value="" { (language.pick("all", "visi")) }
                    @for name in app.config.destinations.keys() {
                        option value=(name) selected[name.as_str() == parameters.destination] { (name) }
                    }
                }
            }
            div {
                label for="state" { (language.pick("State", "Būsena")) }
                select id="state" name="state" {
                    option value="" { (language.pick("all", "visos")) }
                    @for state in DeliveryState::ALL {
                        option value=(state.as_str()) selected[state.as_str() == parameters.state] {
                            (labels::delivery(language, state, Taking::Accepts).1)
                        }
                    }
                }
            }
            div {
                label for="company" { (language.pick("Company code", "Įmonės kodas")) }
                input id="company" name="company" maxlength="64" value=(parameters.company);
            }
            button.primary type="submit" { (language.pick("Show", "Rodyti")) }
        }
    }
}

/// Renders the buttons for the chosen deliveries and for all of the list; `None` where nobody may
/// press them, or they would do nothing.
async fn selection(
    context: &PageContext,
    parameters: &Parameters,
    state: Option<DeliveryState>,
) -> Result<Option<Markup>, super::context::PageError> {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let Some(state) = state.filter(|_| context.viewer.may_operate()) else {
        return Ok(None);
    };
    let (may_retry, may_skip) = match state {
        DeliveryState::Rejected | DeliveryState::Deferred | DeliveryState::WaitingFile => {
            (true, true)
        }
        DeliveryState::Skipped => (true, false),
        DeliveryState::Pending => (false, true),
        _ => return Ok(None),
    };
    let Ok(name) = configured(app, &parameters.destination) else {
        return Ok(None);
    };
    let destinations = app.store.destinations().await?;
    let row = destinations.iter().find(|one| one.name == name);
    let count = row.map(|one| match state {
        DeliveryState::Rejected => one.rejected_now,
        DeliveryState::Deferred => one.deferred,
        DeliveryState::WaitingFile => one.waiting_file,
        _ => 0,
    });
    // The count is that of all companies.
    let count = count.filter(|count| *count > 0 && parameters.company.trim().is_empty());
    let all = match count {
        Some(count) => language.count(
            count,
            ["document", "documents"],
            ["dokumentą", "dokumentus", "dokumentų"],
        ),
        None => language
            .pick("all of this list", "visus šio sąrašo")
            .to_owned(),
    };
    let retry = language.pick("Retry", "Perduoti iš naujo");
    let skip = language.pick("Skip", "Praleisti");
    Ok(Some(html! {
        div.buttons.chosen {
            @if may_retry { button type="submit" name="action" value="retry" { (language.pick("Retry chosen", "Pasirinktus perduoti iš naujo")) } }
            @if may_skip { button type="submit" name="action" value="skip" { (language.pick("Skip chosen", "Pasirinktus praleisti")) } }
            @if may_retry {
                (folded("ask", language.pick("Retry all…", "Visus perduoti iš naujo…"), &html! {
                    p { (language.pick("Only useful once the cause is corrected at the destination.", "Verta tik pašalinus priežastį pas gavėją.")) }
                    button type="submit" name="action" value="retry_all" { (retry) " " (all) }
                }))
            }
            @if may_skip {
                (folded("ask", language.pick("Skip all…", "Visus praleisti…"), &html! {
                    p { (language.pick("They will not be delivered; book them by hand if they are needed.", "Jie nebus perduoti; reikalingus apskaitykite ranka.")) }
                    button type="submit" name="action" value="skip_all" { (skip) " " (all) }
                }))
            }
        }
    }))
}
