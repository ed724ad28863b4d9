//! Uploads: files sent to the vendor, and the documents made of them.

use axum::extract::Query;
use axum::response::Response;
use maud::{Markup, html};

use super::context::{PageContext, PageResult, ROWS};
use super::feeds::ListQuery;
use super::labels;
use super::language::grouped;
use super::layout::{PageBody, badge, next_page, table};
use crate::admin::paging::{List, Page};
use crate::domain::Timestamp;
use crate::store::UploadRow;

pub(super) async fn page(context: PageContext, Query(query): Query<ListQuery>) -> Response {
    let result = list(&context, query).await;
    context.respond(result)
}

async fn list(context: &PageContext, query: ListQuery) -> PageResult {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let now = app.clock.now();
    let before = Some(query.page().row(List::UPLOADS)?).filter(|row| *row > 0);
    let rows = app.store.newest_uploads(before, ROWS + 1).await?;
    let page = Page::of(List::UPLOADS, rows, ROWS, |row| row.id);
    let columns = [
        language.pick("File", "Failas"),
        language.pick("State", "Būsena"),
        language.pick("Started", "Pradėta"),
        language.pick("Bytes", "Baitai"),
        language.pick("Documents", "Dokumentai"),
    ];
    let rows = page
        .rows
        .iter()
        .map(|row| upload(context, row, now))
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
    })
}

fn upload(context: &PageContext, row: &UploadRow, now: Timestamp) -> Vec<Markup> {
    let language = context.viewer.language;
    let (severity, word) = labels::upload(language, row.status(now));
    vec![
        html! { strong { (row.file_name) } " " span.ago { (row.account) } },
        html! {
            (badge(severity, word))
            @if let Some(error) = &row.last_error { p.error lang="en" { (error) } }
        },
        language.moment(row.created_at, now),
        html! { (grouped(row.size_bytes)) },
        html! {
            @if row.documents.is_empty() { "–" }
            @for id in &row.documents {
                a href={ "/documents?q=" (super::documents::url_encode(id)) } { (id) } " "
            }
        },
    ]
}
