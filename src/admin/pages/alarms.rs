//! Alarms that are on.

use axum::response::Response;
use maud::html;

use super::layout::{Middle, marked, table};
use super::page::{ROWS, Shown, Visit};
use super::words;
use crate::store::AlarmFilter;

pub(super) async fn page(visit: Visit) -> Response {
    let shown = list(&visit).await;
    visit.show(shown)
}

async fn list(visit: &Visit) -> Shown {
    let (app, language) = (&visit.admin.app, visit.visitor.language);
    let now = app.clock.now();
    let on = app.store.alarms(AlarmFilter {
        active: true,
        after: 0,
        limit: ROWS,
    });
    let on = on.await?;
    let columns = [
        language.say("Alarm", "Įspėjimas"),
        language.say("Of what", "Kur"),
        language.say("Since", "Nuo"),
        language.say("What to do", "Ką daryti"),
    ];
    let rows = on.iter().map(|row| {
        vec![
            html! { strong { (words::alarm(language, row.kind)) } },
            html! { (row.subject) },
            language.moment(row.raised_at, now),
            html! {
                span lang="en" { (marked(&row.text)) }
                @if let Some(error) = &row.last_error {
                    p.error lang="en" { (error) }
                }
            },
        ]
    });
    let rows: Vec<_> = rows.collect();
    Ok(Middle {
        title: language.say("Alarms", "Įspėjimai").to_owned(),
        body: html! {
            @if rows.is_empty() {
                p { (language.say("None is on.", "Įspėjimų nėra.")) }
            } @else {
                (table(language.say("Alarms that are on", "Galiojantys įspėjimai"), &columns, rows))
            }
        },
    })
}
