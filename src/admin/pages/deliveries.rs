//! Deliveries: each version at each destination, with its state and the reason.

use axum::extract::Query;
use axum::response::Response;
use maud::html;
use serde::Deserialize;

use super::context::{PageContext, PageResult, ROWS};
use super::documents::url_encode;
use super::labels;
use super::layout::{PageBody, next_page, table};
use crate::admin::destinations::read_deliveries;
use crate::api::deliveries::DeliveryQuery;
use crate::store::DeliveryState;

/// Parameters of the page.
#[derive(Deserialize)]
pub(super) struct Parameters {
    #[serde(default)]
    destination: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    company: String,
    after: Option<String>,
}

pub(super) async fn page(context: PageContext, Query(parameters): Query<Parameters>) -> Response {
    let result = list(&context, parameters).await;
    context.respond(result)
}

async fn list(context: &PageContext, parameters: Parameters) -> PageResult {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let now = app.clock.now();
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let query = DeliveryQuery {
        destination: given(&parameters.destination),
        state: DeliveryState::parse(&parameters.state),
        company: given(&parameters.company),
        after: parameters.after.clone(),
        limit: Some(ROWS),
    };
    let page = read_deliveries(app, query).await?;
    let columns = [
        language.pick("Document", "Dokumentas"),
        language.pick("Company", "Įmonė"),
        language.pick("Destination", "Gavėjas"),
        language.pick("State", "Būsena"),
        language.pick("Since", "Nuo"),
        language.pick("Reason", "Priežastis"),
    ];
    let rows = page.rows.iter().map(|row| {
        vec![
            html! { a href={ "/documents/" (row.sequence) } { (row.document_id) } },
            html! { (row.feed.company.as_str()) },
            html! { (row.destination) },
            html! { (labels::delivery_state(language, row.state)) },
            language.moment(row.changed_at, now),
            html! { @if let Some(detail) = &row.detail { span lang="" { (detail) } } },
        ]
    });
    let rows: Vec<_> = rows.collect();
    let path = format!(
        "/deliveries?destination={}&state={}&company={}",
        url_encode(&parameters.destination),
        url_encode(&parameters.state),
        url_encode(&parameters.company)
    );
    Ok(PageBody {
        title: language.pick("Deliveries", "Perdavimai").to_owned(),
        content: html! {
            form.search method="get" action="/deliveries" {
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
                                (labels::delivery_state(language, state))
                            }
                        }
                    }
                }
                div {
                    label for="company" { (language.pick("Company", "Įmonė")) }
                    input id="company" name="company" maxlength="64" value=(parameters.company);
                }
                button type="submit" { (language.pick("Show", "Rodyti")) }
            }
            @if rows.is_empty() {
                p { (language.pick("No deliveries.", "Perdavimų nėra.")) }
            } @else {
                (table(language.pick("Deliveries, oldest first", "Perdavimai, seniausi viršuje"), &columns, rows))
                (next_page(language, &path, page.next.as_deref()))
            }
        },
    })
}
