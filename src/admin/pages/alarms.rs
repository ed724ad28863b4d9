//! Active alarms.

use axum::response::Response;
use maud::html;

use super::context::{PageContext, PageResult, ROWS};
use super::labels;
use super::layout::{PageBody, table, with_code};
use crate::admin::alarms::active_alarms;

pub(super) async fn page(context: PageContext) -> Response {
    let result = list(&context).await;
    context.respond(result)
}

async fn list(context: &PageContext) -> PageResult {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let now = context.now();
    let alarms = active_alarms(app, ROWS).await?;
    let columns = [
        language.pick("Alarm", "Įspėjimas"),
        language.pick("Subject", "Objektas"),
        language.pick("Since", "Nuo"),
        language.pick("Fix", "Ką daryti"),
    ];
    let rows = alarms.iter().map(|row| {
        vec![
            html! { strong { (labels::alarm(language, row.kind)) } },
            html! { (row.subject) },
            language.moment(row.raised_at, now),
            html! {
                span lang="en" { (with_code(&row.text)) }
                @if let Some(error) = &row.last_error {
                    p.error lang="en" { (error) }
                }
            },
        ]
    });
    let rows: Vec<_> = rows.collect();
    Ok(PageBody {
        title: language.pick("Alarms", "Įspėjimai").to_owned(),
        content: html! {
            @if rows.is_empty() {
                p { (language.pick("No active alarms.", "Aktyvių įspėjimų nėra.")) }
            } @else {
                (table(language.pick("Active alarms", "Aktyvūs įspėjimai"), &columns, rows))
            }
        },
        refresh: false,
    })
}
