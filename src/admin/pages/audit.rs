//! What people and programs did.

use axum::extract::Query;
use axum::response::Response;
use maud::html;
use serde::Deserialize;

use super::context::{PageContext, PageResult, ROWS};
use super::layout::{PageBody, next_page, table};
use crate::admin::audit;
use crate::admin::paging::PageQuery;

/// Parameters of the page.
#[derive(Deserialize)]
pub(super) struct Parameters {
    after: Option<String>,
}

pub(super) async fn page(context: PageContext, Query(parameters): Query<Parameters>) -> Response {
    let result = list(&context, parameters).await;
    context.respond(result)
}

async fn list(context: &PageContext, parameters: Parameters) -> PageResult {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let now = context.now();
    let query = PageQuery {
        after: parameters.after,
        limit: Some(ROWS),
    };
    let page = audit::read(app, &query).await?;
    let columns = [
        language.pick("When", "Kada"),
        language.pick("Who", "Kas"),
        language.pick("Action", "Veiksmas"),
        language.pick("Subject", "Objektas"),
    ];
    let rows = page.rows.iter().map(|row| {
        vec![
            language.moment(row.at, now),
            html! { (row.actor) },
            html! { code { (row.action) } },
            html! {
                (row.subject)
                @if let Some(detail) = &row.detail { " (" span lang="en" { (detail) } ")" }
            },
        ]
    });
    let rows: Vec<_> = rows.collect();
    Ok(PageBody {
        title: language.pick("Audit list", "Veiksmų sąrašas").to_owned(),
        content: html! {
            @if rows.is_empty() {
                p { (language.pick("No actions yet.", "Veiksmų dar nėra.")) }
            } @else {
                (table(language.pick("Actions, newest first", "Veiksmai, naujausi viršuje"), &columns, rows))
                (next_page(language, "/audit", page.next.as_deref()))
            }
        },
        refresh: false,
    })
}
