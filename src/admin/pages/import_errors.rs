//! Import errors: what the accountant at Įvesk.lt is told about rejected documents.

use axum::extract::Query;
use axum::response::Response;
use maud::{Markup, html};

use super::context::{PageContext, PageResult, ROWS};
use super::deliveries::views;
use super::feeds::ListQuery;
use super::labels;
use super::language::Now;
use super::layout::{PageBody, badge, button, next_page, table, with_code};
use super::names::Names;
use crate::admin::paging::{List, Page};
use crate::ivesk::view::View;
use crate::store::{ImportErrorPathRow, ImportErrorRow, ImportErrorState};

pub(super) async fn page(context: PageContext, Query(query): Query<ListQuery>) -> Response {
    let result = list(&context, query).await;
    context.respond(result)
}

async fn list(context: &PageContext, query: ListQuery) -> PageResult {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let now = context.now();
    let before = Some(query.page().row(List::IMPORT_ERRORS)?).filter(|row| *row > 0);
    let rows = app.store.newest_import_errors(before, ROWS + 1).await?;
    let page = Page::of(List::IMPORT_ERRORS, rows, ROWS, |row| row.id);
    let paused = app.store.paused_import_error_paths().await?;
    let columns = [
        language.pick("Document", "Dokumentas"),
        language.pick("State", "Būsena"),
        language.pick("Rejected", "Nepriimta"),
        language.pick("Text for the accountant", "Tekstas buhalteriui"),
        language.pick("Actions", "Veiksmai"),
    ];
    let companies = page.rows.iter().filter_map(|row| row.company.as_ref());
    let names = Names::read(app, companies).await?;
    let views = views(app, page.rows.iter().map(|row| row.sequence)).await?;
    let rows = page
        .rows
        .iter()
        .map(|row| import_error(context, row, views.get(&row.sequence), &names, now))
        .collect();
    let unset = app.config.api.import_error_path.is_none() && !page.rows.is_empty();
    Ok(PageBody {
        title: language.pick("Import errors", "Importo klaidos").to_owned(),
        content: html! {
            @for path in &paused { (paused_path(context, path, now)) }
            @if unset {
                p { (with_code(language.pick(
                    "They wait until `api.import_error_path` is set.",
                    "Jos laukia, kol bus nurodytas „api.import_error_path“.",
                ))) }
            }
            @if page.rows.is_empty() {
                p { (language.pick("No import errors yet.", "Importo klaidų dar nėra.")) }
            } @else {
                (table(language.pick("Import errors, newest first", "Importo klaidos, naujausios viršuje"), &columns, rows))
            }
            (next_page(language, "/import-errors", page.next.as_deref()))
        },
        refresh: false,
    })
}

/// Renders why an account's import errors are not sent, with the way out.
fn paused_path(context: &PageContext, row: &ImportErrorPathRow, now: Now<'_>) -> Markup {
    let language = context.viewer.language;
    let text = with_code(language.pick(
        "Not sent: Įvesk.lt does not find `api.import_error_path`. Correct it and restart.",
        "Nesiunčiama: Įvesk.lt neranda „api.import_error_path“. Pataisykite ir paleiskite iš naujo.",
    ));
    html! {
        div.notice.bad {
            p { strong { (row.account) } ": " (text) }
            @if let Some(error) = &row.last_error { p.error lang="en" { code { (row.path) } ": " (error) } }
            @if let Some(at) = row.retry_at {
                p { (language.pick("One is tried again: ", "Viena bandoma dar kartą: ")) (language.moment(at, now)) }
            }
            @if context.viewer.may_operate() {
                (button(&context.viewer, "/do/import-error", &[("action", "resume"), ("account", row.account.as_str())],
                    language.pick("Send again now", "Siųsti dabar"), Some(row.account.as_str())))
            }
        }
    }
}

fn import_error(
    context: &PageContext,
    row: &ImportErrorRow,
    view: Option<&View>,
    names: &Names,
    now: Now<'_>,
) -> Vec<Markup> {
    let language = context.viewer.language;
    let (severity, word) = labels::import_error(language, row.state);
    let id = row.id.to_string();
    let number = view.and_then(|view| view.number.as_deref());
    let number = number.unwrap_or(&row.document_id);
    let form = |action, label| {
        button(
            &context.viewer,
            "/do/import-error",
            &[("action", action), ("id", &id)],
            label,
            Some(number),
        )
    };
    let may_retry = row.state != ImportErrorState::Sent && row.company.is_some();
    let may_discard = matches!(
        row.state,
        ImportErrorState::Pending | ImportErrorState::Refused
    );
    vec![
        html! {
            a href={ "/documents/" (row.sequence) } { (number) }
            @if let Some(company) = &row.company { " " (names.company(company)) }
        },
        html! {
            (badge(severity, word))
            @if let Some(error) = &row.last_error { p.error lang="en" { (error) } }
        },
        language.moment(row.created_at, now),
        html! { (row.message) },
        html! {
            @if context.viewer.may_operate() {
                @if may_retry { (form("retry", language.pick("Send now", "Siųsti dabar"))) }
                @if may_discard { (form("discard", language.pick("Don't send", "Nesiųsti"))) }
            }
        },
    ]
}
