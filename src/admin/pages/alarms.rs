//! Active alarms.

use axum::response::Response;
use maud::{Markup, html};

use super::context::{PageContext, PageResult, ROWS};
use super::labels;
use super::language::Language;
use super::layout::{PageBody, folded, table, with_code};
use super::names::Names;
use crate::admin::alarms::active_alarms;
use crate::domain::{Company, Queue};
use crate::store::AlarmRow;

pub(super) async fn page(context: PageContext) -> Response {
    let result = list(&context).await;
    context.respond(result)
}

async fn list(context: &PageContext) -> PageResult {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let now = context.now();
    let mut alarms = active_alarms(app, ROWS).await?;
    alarms.sort_by_key(|row| std::cmp::Reverse(row.raised_at));
    let companies: Vec<Company> = alarms
        .iter()
        .filter_map(|row| company(&row.subject))
        .collect();
    let names = Names::read(app, companies.iter()).await?;
    let columns = [
        language.pick("Alarm", "Įspėjimas"),
        language.pick("Subject", "Objektas"),
        language.pick("Since", "Nuo"),
        language.pick("Fix", "Ką daryti"),
    ];
    let rows = alarms.iter().map(|row| {
        vec![
            html! { strong { (labels::alarm(language, row.kind, &row.subject)) } },
            html! {
                @match company(&row.subject) {
                    Some(company) => { (names.company(&company)) }
                    None => { (labels::alarm_subject(&row.subject)) }
                }
            },
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

/// Returns the company whose feed an alarm is about.
fn company(subject: &str) -> Option<Company> {
    let mut parts = subject.splitn(3, '/').skip(1);
    let queue = parts.next().and_then(Queue::parse);
    let code = parts.next().filter(|_| queue == Some(Queue::Exported));
    Company::parse(code?).ok()
}

/// Renders what to do about an alarm, with the page of its subject.
fn fix(language: Language, row: &AlarmRow) -> Markup {
    let (fix, path) = labels::alarm_fix(language, row.kind, &row.subject);
    let details = html! {
        p lang="en" { (with_code(&row.text)) }
        @if let Some(error) = &row.last_error { p.error lang="en" { (error) } }
    };
    html! {
        p { (with_code(fix)) " " a href=(path) { (language.pick("Show", "Rodyti")) } }
        (folded("", language.pick("Details", "Išsamiau"), &details))
    }
}
