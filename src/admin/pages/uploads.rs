//! Uploads: what was given to the vendor, and what became of it.

use axum::extract::Query;
use axum::response::Response;
use maud::{Markup, html};

use super::feeds::Place;
use super::language::grouped;
use super::layout::{Middle, badge, next_page, table};
use super::page::{ROWS, Shown, Visit};
use super::words;
use crate::admin::paging::{List, Page};
use crate::domain::Timestamp;
use crate::store::UploadRow;

pub(super) async fn page(visit: Visit, Query(place): Query<Place>) -> Response {
    let shown = list(&visit, place).await;
    visit.show(shown)
}

async fn list(visit: &Visit, place: Place) -> Shown {
    let (app, language) = (&visit.admin.app, visit.visitor.language);
    let now = app.clock.now();
    let before = Some(place.page().row(List::UPLOADS)?).filter(|row| *row > 0);
    let rows = app.store.newest_uploads(before, ROWS + 1).await?;
    let page = Page::of(List::UPLOADS, rows, ROWS, |row| row.id);
    let columns = [
        language.say("File", "Failas"),
        language.say("State", "Būsena"),
        language.say("Begun", "Pradėta"),
        language.say("Bytes", "Baitai"),
        language.say("Documents", "Dokumentai"),
    ];
    let rows = page
        .rows
        .iter()
        .map(|row| upload(visit, row, now))
        .collect();
    Ok(Middle {
        title: language.say("Uploads", "Įkėlimai").to_owned(),
        body: html! {
            @if page.rows.is_empty() {
                p { (language.say("Nothing was uploaded yet.", "Dar nieko neįkelta.")) }
            } @else {
                (table(language.say("Uploads, the newest first", "Įkėlimai, naujausi viršuje"), &columns, rows))
            }
            (next_page(language, "/uploads", page.next.as_deref()))
        },
    })
}

fn upload(visit: &Visit, row: &UploadRow, now: Timestamp) -> Vec<Markup> {
    let language = visit.visitor.language;
    let (mood, word) = words::upload(language, row.status(now));
    vec![
        html! { strong { (row.file_name) } " " span.ago { (row.account) } },
        html! {
            (badge(mood, word))
            @if let Some(error) = &row.last_error { p.error lang="en" { (error) } }
        },
        language.moment(row.created_at, now),
        html! { (grouped(row.size_bytes)) },
        html! {
            @if row.documents.is_empty() { "–" }
            @for id in &row.documents {
                a href={ "/documents?q=" (super::documents::encoded(id)) } { (id) } " "
            }
        },
    ]
}
