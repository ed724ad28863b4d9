//! Feeds: states, and the buttons to pull, pause and resume.

use axum::extract::Query;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::context::{PageContext, PageResult, ROWS};
use super::labels::{self, Severity};
use super::language::{Language, grouped};
use super::layout::{PageBody, badge, button, next_page, table, with_code};
use crate::admin::feeds;
use crate::admin::paging::PageQuery;
use crate::domain::{Queue, Timestamp};
use crate::store::{AccountRow, FeedRow, RunState};

/// Position in a list, from the page's query.
#[derive(Deserialize)]
pub(super) struct ListQuery {
    pub(super) after: Option<String>,
}

impl ListQuery {
    /// Returns the query of the API's list.
    pub(super) fn page(self) -> PageQuery {
        PageQuery {
            after: self.after,
            limit: Some(ROWS),
        }
    }
}

pub(super) async fn page(context: PageContext, Query(query): Query<ListQuery>) -> Response {
    let result = list(&context, query).await;
    context.respond(result)
}

async fn list(context: &PageContext, query: ListQuery) -> PageResult {
    let (app, viewer) = (&context.admin.app, &context.viewer);
    let (language, now) = (viewer.language, app.clock.now());
    let page = feeds::page_of(app, &query.page()).await?;
    let accounts = app.store.accounts().await?;
    let rows = page
        .rows
        .iter()
        .map(|row| feed(context, row, row.account(&accounts), now))
        .collect();
    Ok(PageBody {
        title: language.pick("Feeds", "Srautai").to_owned(),
        content: html! {
            p { (language.pick(
                "A feed is one list of documents at Įvesk.lt: those exported for one company, or all digitized ones.",
                "Srautas – vienas Įvesk.lt dokumentų sąrašas: vienos įmonės eksportuoti dokumentai arba visi suskaitmeninti.",
            )) }
            @if viewer.may_operate() {
                div.buttons {
                    (button(viewer, "/do/pull", &[], language.pick("Pull all now", "Gauti visus dabar"), None))
                }
            }
            @for row in accounts.iter().filter(|row| row.paused.is_some()) {
                p.notice.bad {
                    (row.account) ": " (with_code(row.paused.map(|reason| labels::feed_pause_reason(language, reason)).unwrap_or_default()))
                    @if let Some(error) = &row.last_error { " – " span lang="en" { (error) } }
                }
                @if viewer.may_operate() {
                    (button(viewer, "/do/resume", &[("account", row.account.as_str())],
                        language.pick("Resume account", "Tęsti paskyros skaitymą"), Some(row.account.as_str())))
                }
            }
            @if page.rows.is_empty() {
                p { (language.pick("No feeds yet.", "Srautų dar nėra.")) }
            } @else {
                (table(language.pick("Feeds", "Srautai"), &columns(language), rows))
            }
            (next_page(language, "/feeds", page.next.as_deref()))
        },
    })
}

fn columns(language: Language) -> [&'static str; 8] {
    [
        language.pick("Feed", "Srautas"),
        language.pick("State", "Būsena"),
        language.pick("Up to date", "Atnaujinta"),
        language.pick("Last page", "Paskutinis puslapis"),
        language.pick("Versions", "Versijos"),
        language.pick("Missed notifications", "Praleisti pranešimai"),
        language.pick("Cursor", "Skaitymo vieta"),
        language.pick("Actions", "Veiksmai"),
    ]
}

fn feed(
    context: &PageContext,
    row: &FeedRow,
    account: Option<&AccountRow>,
    now: Timestamp,
) -> Vec<Markup> {
    let language = context.viewer.language;
    vec![
        html! {
            strong { (row.feed.account) }
            " " (labels::queue(language, row.feed.queue))
            @if row.feed.queue == Queue::Exported { " " strong { (row.feed.company) } }
        },
        state(language, row, account, now),
        language.optional_moment(row.up_to_date_at, now),
        language.optional_moment(row.last_page_at, now),
        html! { (grouped(row.documents)) },
        html! { (grouped(row.missed_notifications)) },
        html! { @if let Some(cursor) = &row.cursor { code { (cursor) } } @else { "–" } },
        actions(context, row),
    ]
}

fn state(
    language: Language,
    row: &FeedRow,
    account: Option<&AccountRow>,
    now: Timestamp,
) -> Markup {
    let reason = row.paused.or(account.and_then(|account| account.paused));
    html! {
        @match row.state(account, now) {
            RunState::Paused { .. } => {
                (badge(Severity::Problem, reason.map(|reason| labels::feed_pause_reason(language, reason)).unwrap_or_default()))
            }
            RunState::Removed { .. } => {
                (badge(Severity::Pending, language.pick("removed", "pašalintas")))
                @if row.pending_notifications > 0 {
                    p { (language.count(
                        row.pending_notifications,
                        ["notification since its last pull", "notifications since its last pull"],
                        ["pranešimas nuo paskutinio skaitymo", "pranešimai nuo paskutinio skaitymo", "pranešimų nuo paskutinio skaitymo"],
                    )) }
                }
            }
            RunState::Waiting { until } => {
                (badge(Severity::Pending, language.pick("waiting", "laukia"))) " " (language.moment(until, now))
            }
            RunState::Failing { .. } => (badge(Severity::Problem, language.pick("failing", "nepavyksta"))),
            RunState::Active if row.pulled_at.is_none() => {
                (badge(Severity::Pending, language.pick("first pull", "pirmas skaitymas")))
            }
            RunState::Active => (badge(Severity::Ok, language.pick("active", "veikia"))),
        }
        @if let Some(reason) = row.incomplete {
            p { (badge(Severity::Problem, language.pick("incomplete", "neišsamus")))
                " " (with_code(labels::incomplete_reason(language, reason))) }
        }
        @if let Some(error) = &row.last_error { p.error lang="en" { (error) } }
    }
}

fn actions(context: &PageContext, row: &FeedRow) -> Markup {
    let (viewer, language) = (&context.viewer, context.viewer.language);
    let name = row.feed.to_string();
    let fields = [
        ("account", row.feed.account.as_str()),
        ("queue", row.feed.queue.as_str()),
        ("company", row.feed.company.as_str()),
    ];
    html! {
        @if viewer.may_operate() {
            div.buttons {
                @if row.is_known() {
                    (button(viewer, "/do/pull", &fields, language.pick("Pull now", "Gauti dabar"), Some(&name)))
                }
                @if row.paused.is_some() || !row.is_known() {
                    (button(viewer, "/do/resume", &fields, language.pick("Resume", "Tęsti"), Some(&name)))
                } @else {
                    (button(viewer, "/do/pause-feed", &fields, language.pick("Pause", "Sustabdyti"), Some(&name)))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Account, Feed};
    use crate::store::FeedPauseReason;

    #[test]
    fn a_feed_of_a_paused_account_is_not_shown_as_active() {
        let account = Account::parse("default").expect("a name");
        let now = Timestamp::parse("2026-11-28T08:00:00Z").expect("a moment");
        let row = FeedRow {
            feed: Feed::digitized(account.clone()),
            known_at: now,
            cursor: None,
            last_page_at: Some(now),
            pulled_at: Some(now),
            up_to_date_at: Some(now),
            first_complete_at: Some(now),
            incomplete: None,
            incomplete_since: None,
            documents: 1,
            missed_notifications: 0,
            gaps: 0,
            unreadable: 0,
            paused: None,
            waits_until: None,
            failures: 0,
            last_error: None,
            triggers: Vec::new(),
            removed_at: None,
            pending_notifications: 0,
        };
        let mut account = AccountRow {
            account,
            paused: None,
            waits_until: None,
            failures: 0,
            last_error: None,
        };
        let shown =
            |account: &AccountRow| state(Language::English, &row, Some(account), now).into_string();
        assert!(shown(&account).contains("active"));
        account.paused = Some(FeedPauseReason::Unauthorized);
        let paused = shown(&account);
        let reason = labels::feed_pause_reason(Language::English, FeedPauseReason::Unauthorized);
        assert!(
            paused.contains(&html! { (reason) }.into_string()),
            "{paused}"
        );
        assert!(!paused.contains("active"), "{paused}");
    }
}
