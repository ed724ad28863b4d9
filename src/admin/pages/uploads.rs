//! Uploads: files sent to the vendor, and the documents made of them.

use axum::extract::Query;
use axum::response::Response;
use maud::{Markup, html};

use super::context::{PageContext, PageResult};
use super::feeds::ListQuery;
use super::labels;
use super::language::Now;
use super::layout::{PageBody, badge, folded, form_token_input, next_page, table};
use crate::admin::paging::{List, Page};
use crate::store::UploadRow;

/// Maximum number of uploads on one page: each may have a form.
const ROWS: usize = 25;

pub(super) async fn page(context: PageContext, Query(query): Query<ListQuery>) -> Response {
    let result = list(&context, query).await;
    context.respond(result)
}

async fn list(context: &PageContext, query: ListQuery) -> PageResult {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let now = context.now();
    let late_before = app.config.upload.late_before(now.at);
    let before = Some(query.page().row(List::UPLOADS)?).filter(|row| *row > 0);
    let rows = app.store.newest_uploads(before, ROWS + 1).await?;
    let page = Page::of(List::UPLOADS, rows, ROWS, |row| row.id);
    let columns = [
        language.pick("File", "Failas"),
        language.pick("State", "Būsena"),
        language.pick("Started", "Pradėta"),
        language.pick("Bytes", "Baitai"),
        language.pick("Documents", "Dokumentai"),
        language.pick("Actions", "Veiksmai"),
    ];
    let rows = page
        .rows
        .iter()
        .map(|row| upload(context, row, row.status(late_before), now))
        .collect();
    Ok(PageBody {
        title: language.pick("Uploads", "Įkėlimai").to_owned(),
        content: html! {
            @if page.rows.is_empty() {
                p { (language.pick("No uploads yet.", "Įkėlimų dar nėra.")) }
            } @else {
                (table(language.pick("Uploads, newest first", "Įkėlimai, naujausi viršuje"), &columns, rows))
            }
            (next_page(language, "/uploads", page.next.as_deref()))
        },
        refresh: false,
    })
}

fn upload(context: &PageContext, row: &UploadRow, status: &str, now: Now<'_>) -> Vec<Markup> {
    let language = context.viewer.language;
    let (severity, word) = labels::upload(language, status);
    vec![
        html! { strong { (row.file_name) } " " span.ago { (row.account) } },
        html! {
            (badge(severity, word))
            @if let Some(reason) = &row.settled_reason { p { (reason) } }
            @if let Some(error) = &row.last_error { p.error lang="en" { (error) } }
        },
        language.moment(row.created_at, now),
        html! { (language.number(row.size_bytes)) },
        html! {
            @if row.documents.is_empty() { "–" }
            @for id in &row.documents {
                a href={ "/documents?q=" (super::documents::url_encode(id)) } { (id) } " "
            }
        },
        html! {
            @if context.viewer.may_operate() && row.may_be_settled() {
                (folded("ask", language.pick("Settle…", "Nebelaukti…"), &settle_form(context, row)))
            }
        },
    ]
}

/// Renders the form for an upload of which no document will come.
fn settle_form(context: &PageContext, row: &UploadRow) -> Markup {
    let language = context.viewer.language;
    let field = format!("reason-{}", row.id);
    let label = language.pick("Settle", "Nebelaukti");
    html! {
        form method="post" action="/do/settle" {
            (form_token_input(&context.viewer))
            input type="hidden" name="id" value=(row.id);
            label for=(field) { (language.pick("Why no document will come", "Kodėl dokumento nebus")) }
            input id=(field) name="reason" type="text" maxlength="500" required;
            button type="submit" aria-label={ (label) ": " (row.file_name) } { (label) }
        }
    }
}
