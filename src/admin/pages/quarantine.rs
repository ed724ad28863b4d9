//! The quarantine: refused messages, and judging them anew.

use axum::extract::Query;
use axum::response::Response;
use maud::{Markup, html};

use super::feeds::Place;
use super::language::grouped;
use super::layout::{Middle, button, next_page, table};
use super::page::{ROWS, Shown, Visit};
use super::words;
use crate::admin::paging::{List, Page};
use crate::domain::Timestamp;
use crate::store::QuarantineRow;

pub(super) async fn page(visit: Visit, Query(place): Query<Place>) -> Response {
    let shown = list(&visit, place).await;
    visit.show(shown)
}

async fn list(visit: &Visit, place: Place) -> Shown {
    let (app, visitor) = (&visit.admin.app, &visit.visitor);
    let (language, now) = (visitor.language, app.clock.now());
    let after = place.page().row(List::QUARANTINE)?;
    let rows = app.store.quarantine(after, ROWS + 1).await?;
    let page = Page::of(List::QUARANTINE, rows, ROWS, |row| row.id);
    let columns = [
        language.say("Number", "Numeris"),
        language.say("Came", "Gauta"),
        language.say("Webhook", "Adresas"),
        language.say("Why it was refused", "Kodėl atmesta"),
        language.say("Bytes", "Baitai"),
        language.say("Actions", "Veiksmai"),
    ];
    let rows = page
        .rows
        .iter()
        .map(|row| message(visit, row, now))
        .collect();
    Ok(Middle {
        title: language.say("Quarantine", "Karantinas").to_owned(),
        body: html! {
            p { (language.say(
                "Messages that were refused, oldest first. Once a setting was put right they can be judged anew, as of the time they came.",
                "Atmesti pranešimai, seniausi viršuje. Pataisius nustatymus, juos galima vertinti iš naujo pagal gavimo laiką.",
            )) }
            @if page.rows.is_empty() {
                p { (language.say("It is empty.", "Tuščia.")) }
            } @else {
                @if visitor.may_operate() {
                    div.buttons {
                        (button(visitor, "/do/retry", &[], language.say("Retry all", "Vertinti visus iš naujo"), None))
                    }
                }
                (table(language.say("Refused messages", "Atmesti pranešimai"), &columns, rows))
            }
            (next_page(language, "/quarantine", page.next.as_deref()))
        },
    })
}

fn message(visit: &Visit, row: &QuarantineRow, now: Timestamp) -> Vec<Markup> {
    let (visitor, language) = (&visit.visitor, visit.visitor.language);
    let id = row.id.to_string();
    vec![
        html! { (row.id) },
        language.moment(row.received_at, now),
        html! { strong { (row.account) } " " (words::event(language, row.event)) },
        html! { code { (row.reason) } },
        html! { (grouped(row.size_bytes)) },
        html! {
            @if visitor.may_operate() {
                (button(visitor, "/do/retry", &[("id", &id)], language.say("Retry", "Vertinti iš naujo"), Some(&id)))
            }
        },
    ]
}
