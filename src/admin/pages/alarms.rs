//! Active alarms.

use axum::response::Response;
use maud::{Markup, html};

use super::context::{PageContext, PageResult, ROWS};
use super::labels;
use super::language::Language;
use super::layout::{PageBody, folded, table, with_code};
use crate::admin::alarms::active_alarms;
use crate::store::AlarmRow;

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
            fix(language, row),
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

/// Renders what to do about an alarm, with the page of its subject.
fn fix(language: Language, row: &AlarmRow) -> Markup {
    let (fix, path) = labels::alarm_fix(language, row.kind);
    let details = html! {
        p lang="en" { (with_code(&row.text)) }
        @if let Some(error) = &row.last_error { p.error lang="en" { (error) } }
    };
    html! {
        p { (with_code(fix)) " " a href=(path) { (language.pick("Show", "Rodyti")) } }
        (folded("", language.pick("Details", "Išsamiau"), &details))
    }
}
