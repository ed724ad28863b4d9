//! Feeds: how each stands, and what a person does with them.

use axum::extract::Query;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::language::{Language, grouped};
use super::layout::{Middle, badge, button, marked, next_page, table};
use super::page::{ROWS, Shown, Visit};
use super::words::{self, Mood};
use crate::admin::feeds;
use crate::admin::paging::PageQuery;
use crate::domain::{Queue, Timestamp};
use crate::store::FeedRow;

/// Which page of a list.
#[derive(Deserialize)]
pub(super) struct Place {
    pub(super) after: Option<String>,
}

impl Place {
    /// The page of the API's list.
    pub(super) fn page(self) -> PageQuery {
        PageQuery {
            after: self.after,
            limit: Some(ROWS),
        }
    }
}

pub(super) async fn page(visit: Visit, Query(place): Query<Place>) -> Response {
    let shown = list(&visit, place).await;
    visit.show(shown)
}

async fn list(visit: &Visit, place: Place) -> Shown {
    let (app, visitor) = (&visit.admin.app, &visit.visitor);
    let (language, now) = (visitor.language, app.clock.now());
    let page = feeds::page_of(app, &place.page()).await?;
    let accounts = app.store.accounts().await?;
    let rows = page.rows.iter().map(|row| feed(visit, row, now)).collect();
    Ok(Middle {
        title: language.say("Feeds", "Srautai").to_owned(),
        body: html! {
            p { (language.say(
                "A feed is one list of Įvesk.lt's: the exported documents of a company, or all digitized ones.",
                "Srautas – vienas Įvesk.lt sąrašas: įmonės eksportuoti dokumentai arba visi suskaitmeninti.",
            )) }
            @if visitor.may_operate() {
                div.buttons {
                    (button(visitor, "/do/pull", &[], language.say("Pull all now", "Skaityti visus dabar"), None))
                }
            }
            @for row in accounts.iter().filter(|row| row.paused.is_some()) {
                p.notice.bad {
                    (row.account) ": " (marked(row.paused.map(|reason| words::feed_paused(language, reason)).unwrap_or_default()))
                    @if let Some(error) = &row.last_error { " – " span lang="en" { (error) } }
                }
                @if visitor.may_operate() {
                    (button(visitor, "/do/resume", &[("account", row.account.as_str())],
                        language.say("Resume the account", "Tęsti paskyrą"), Some(row.account.as_str())))
                }
            }
            @if page.rows.is_empty() {
                p { (language.say("No feed is known yet.", "Srautų dar nėra.")) }
            } @else {
                (table(language.say("Feeds", "Srautai"), &columns(language), rows))
            }
            (next_page(language, "/feeds", page.next.as_deref()))
        },
    })
}

fn columns(language: Language) -> [&'static str; 8] {
    [
        language.say("Feed", "Srautas"),
        language.say("State", "Būsena"),
        language.say("Up to date", "Atnaujinta"),
        language.say("Last page", "Paskutinis puslapis"),
        language.say("Versions", "Versijos"),
        language.say("Missed notifications", "Negauti pranešimai"),
        language.say("Cursor", "Žymeklis"),
        language.say("Actions", "Veiksmai"),
    ]
}

fn feed(visit: &Visit, row: &FeedRow, now: Timestamp) -> Vec<Markup> {
    let language = visit.visitor.language;
    vec![
        html! {
            strong { (row.feed.account) }
            " " (words::queue(language, row.feed.queue))
            @if row.feed.queue == Queue::Exported { " " strong { (row.feed.company) } }
        },
        state(language, row, now),
        language.maybe_moment(row.up_to_date_at, now),
        language.maybe_moment(row.last_page_at, now),
        html! { (grouped(row.documents)) },
        html! { (grouped(row.missed_notifications)) },
        html! { @if let Some(cursor) = &row.cursor { code { (cursor) } } @else { "–" } },
        actions(visit, row),
    ]
}

fn state(language: Language, row: &FeedRow, now: Timestamp) -> Markup {
    html! {
        @if let Some(reason) = row.paused {
            (badge(Mood::Bad, words::feed_paused(language, reason)))
        } @else if let Some(until) = row.waits_until.filter(|until| *until > now) {
            (badge(Mood::Busy, language.say("waits", "laukia"))) " " (language.moment(until, now))
        } @else if row.failures > 0 {
            (badge(Mood::Bad, language.say("fails", "nepavyksta")))
        } @else if row.up_to_date_at.is_none() {
            (badge(Mood::Busy, language.say("first pull", "pirmas skaitymas")))
        } @else {
            (badge(Mood::Good, language.say("works", "veikia")))
        }
        @if let Some(error) = &row.last_error { p.error lang="en" { (error) } }
    }
}

fn actions(visit: &Visit, row: &FeedRow) -> Markup {
    let (visitor, language) = (&visit.visitor, visit.visitor.language);
    let name = row.feed.to_string();
    let fields = [
        ("account", row.feed.account.as_str()),
        ("queue", row.feed.queue.as_str()),
        ("company", row.feed.company.as_str()),
    ];
    html! {
        @if visitor.may_operate() {
            div.buttons {
                (button(visitor, "/do/pull", &fields, language.say("Pull now", "Skaityti dabar"), Some(&name)))
                @if row.paused.is_some() {
                    (button(visitor, "/do/resume", &fields, language.say("Resume", "Tęsti"), Some(&name)))
                } @else {
                    (button(visitor, "/do/pause-feed", &fields, language.say("Pause", "Sustabdyti"), Some(&name)))
                }
            }
        }
    }
}
