//! Quarantine: refused messages, and the buttons to retry them.

use axum::extract::Query;
use axum::response::Response;
use maud::{Markup, html};

use super::context::{PageContext, PageResult, ROWS};
use super::feeds::ListQuery;
use super::labels;
use super::language::grouped;
use super::layout::{PageBody, button, next_page, table};
use crate::admin::paging::{List, Page};
use crate::domain::Timestamp;
use crate::store::QuarantineRow;

pub(super) async fn page(context: PageContext, Query(query): Query<ListQuery>) -> Response {
    let result = list(&context, query).await;
    context.respond(result)
}

async fn list(context: &PageContext, query: ListQuery) -> PageResult {
    let (app, viewer) = (&context.admin.app, &context.viewer);
    let (language, now) = (viewer.language, app.clock.now());
    let after = query.page().row(List::QUARANTINE)?;
    let rows = app.store.quarantine(after, ROWS + 1).await?;
    let page = Page::of(List::QUARANTINE, rows, ROWS, |row| row.id);
    let columns = [
        language.pick("No.", "Nr."),
        language.pick("Received", "Gauta"),
        language.pick("Webhook", "Webhook adresas"),
        language.pick("Reason", "Atmetimo priežastis"),
        language.pick("Bytes", "Baitai"),
        language.pick("Actions", "Veiksmai"),
    ];
    let rows = page
        .rows
        .iter()
        .map(|row| message(context, row, now))
        .collect();
    Ok(PageBody {
        title: language.pick("Quarantine", "Karantinas").to_owned(),
        content: html! {
            p { (language.pick(
                "Refused messages, oldest first. After you have fixed the cause, retry them: they are verified again as of the time they were received.",
                "Atmesti pranešimai, seniausi viršuje. Pašalinę priežastį tikrinkite juos iš naujo: tikrinama pagal gavimo laiką.",
            )) }
            @if page.rows.is_empty() {
                p { (language.pick("The quarantine is empty.", "Karantinas tuščias.")) }
            } @else {
                @if viewer.may_operate() {
                    div.buttons {
                        (button(viewer, "/do/retry", &[], language.pick("Retry all", "Tikrinti visus iš naujo"), None))
                    }
                }
                (table(language.pick("Refused messages", "Atmesti pranešimai"), &columns, rows))
            }
            (next_page(language, "/quarantine", page.next.as_deref()))
        },
    })
}

fn message(context: &PageContext, row: &QuarantineRow, now: Timestamp) -> Vec<Markup> {
    let (viewer, language) = (&context.viewer, context.viewer.language);
    let id = row.id.to_string();
    vec![
        html! { (row.id) },
        language.moment(row.received_at, now),
        html! { strong { (row.account) } " " (labels::event(language, row.event)) },
        html! {
            code { (row.reason) }
            @if let Some(topic_arn) = &row.topic_arn { p { code { (topic_arn) } } }
        },
        html! { (grouped(row.size_bytes)) },
        html! {
            @if viewer.may_operate() {
                (button(viewer, "/do/retry", &[("id", &id)], language.pick("Retry", "Tikrinti iš naujo"), Some(&id)))
            }
        },
    ]
}
