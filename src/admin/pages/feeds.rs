//! Companies: each feed with its company's name, its state, its gaps, and the buttons to pull,
//! pause, resume and remove it.

use axum::extract::Query;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::context::{PageContext, PageResult, ROWS};
use super::documents::url_encode;
use super::gaps;
use super::labels::{self, Severity};
use super::language::{Language, Now};
use super::layout::{Column, PageBody, badge, button, folded, next_page, table, with_code};
use super::names::Names;
use crate::admin::feeds::page_of;
use crate::admin::paging::{List, Page, PageQuery};
use crate::admin::problem::AdminError;
use crate::domain::{Company, Feed, Queue};
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

/// What the list of companies shows.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct FeedQuery {
    #[serde(default)]
    q: String,
    #[serde(default)]
    state: String,
    after: Option<String>,
}

impl FeedQuery {
    fn is_filtered(&self) -> bool {
        !(self.q.trim().is_empty() && self.state.is_empty())
    }
}

/// The states by which companies are chosen.
const STATES: [&str; 6] = [
    "active",
    "waiting",
    "failing",
    "paused",
    "incomplete",
    "removed",
];

fn state_label(language: Language, state: &str) -> &'static str {
    match state {
        "active" => language.pick("active", "veikia"),
        "waiting" => language.pick("waiting", "laukia"),
        "failing" => language.pick("failing", "nepavyksta"),
        "paused" => language.pick("paused", "sustabdyta"),
        "incomplete" => language.pick("incomplete", "gali trūkti"),
        _ => language.pick("removed", "pašalinta"),
    }
}

fn is_in(row: &FeedRow, account: Option<&AccountRow>, now: Now<'_>, wanted: &str) -> bool {
    let state = match row.state(account, now.at) {
        RunState::Active => "active",
        RunState::Waiting { .. } => "waiting",
        RunState::Failing { .. } => "failing",
        RunState::Paused { .. } => "paused",
        RunState::Removed { .. } => "removed",
    };
    state == wanted || (wanted == "incomplete" && row.incomplete.is_some())
}

pub(super) async fn page(context: PageContext, Query(query): Query<FeedQuery>) -> Response {
    let result = list(&context, query).await;
    context.respond(result)
}

/// Returns a page of the feeds that a search finds, and their number. Names are in documents, so all
/// feeds are read.
async fn filtered(
    context: &PageContext,
    query: &FeedQuery,
    accounts: &[AccountRow],
) -> Result<(Page<FeedRow>, u64), AdminError> {
    let (app, now) = (&context.admin.app, context.now());
    let mut feeds = app.store.feeds().await?;
    let text = query.q.trim().to_lowercase();
    if !query.state.is_empty() {
        feeds.retain(|row| is_in(row, row.account(accounts), now, &query.state));
    }
    if !text.is_empty() {
        let names = Names::read(app, feeds.iter().map(|row| &row.feed.company)).await?;
        feeds.retain(|row| names.mentions(&row.feed, &text));
    }
    let place = PageQuery {
        after: query.after.clone(),
        limit: None,
    };
    let skip = usize::try_from(place.row(List::FEEDS)?).unwrap_or_default();
    let of_companies = feeds
        .iter()
        .filter(|row| row.feed.company != Company::mixed());
    let found = of_companies.count() as u64;
    let numbered = feeds.into_iter().enumerate().skip(skip).collect();
    let page = Page::of(List::FEEDS, numbered, ROWS, |(at, _): &(usize, FeedRow)| {
        at + 1
    });
    Ok((page.map(|(_, row)| row), found))
}

async fn list(context: &PageContext, query: FeedQuery) -> PageResult {
    let (app, viewer) = (&context.admin.app, &context.viewer);
    let (language, now) = (viewer.language, context.now());
    let accounts = app.store.accounts().await?;
    let counts = app.store.feed_counts().await?;
    let all = counts.known + counts.removed;
    let (page, found) = match query.is_filtered() {
        true => filtered(context, &query, &accounts).await?,
        false => {
            let place = ListQuery {
                after: query.after.clone(),
            };
            (
                page_of(app, &place.page()).await?,
                all.saturating_sub(counts.mixed),
            )
        }
    };
    let companies = page.rows.iter().map(|row| &row.feed.company);
    let names = Names::read(app, companies).await?;
    let gaps = gaps::open(context).await?;
    let rows: Vec<Vec<Markup>> = page
        .rows
        .iter()
        .map(|row| {
            feed(
                context,
                row,
                row.account(&accounts),
                &names,
                accounts.len() > 1,
                now,
            )
        })
        .collect();
    let path = format!(
        "/feeds?q={}&state={}",
        url_encode(&query.q),
        url_encode(&query.state)
    );
    Ok(PageBody {
        title: language.pick("Companies", "Įmonės").to_owned(),
        content: html! {
            @for row in accounts.iter().filter(|row| row.paused.is_some()) {
                div.notice.bad {
                    p { (row.account) ": " (with_code(row.paused.map(|reason| labels::feed_pause_reason(language, reason)).unwrap_or_default()))
                        @if let Some(error) = &row.last_error { " – " span lang="" { (error) } } }
                    @if viewer.may_operate() {
                        (button(viewer, "/do/resume", &[("account", row.account.as_str())],
                            language.pick("Resume account", "Tęsti paskyros skaitymą"), Some(row.account.as_str())))
                    }
                }
            }
            (gaps::section(context, &gaps, now).await?)
            form.search.filters method="get" action="/feeds" {
                div.wide {
                    label for="q" { (language.pick("Name or code", "Pavadinimas arba kodas")) }
                    input id="q" name="q" type="search" maxlength="100" value=(query.q);
                }
                div {
                    label for="state" { (language.pick("State", "Būsena")) }
                    select id="state" name="state" {
                        option value="" { (language.pick("all", "visos")) }
                        @for state in STATES {
                            option value=(state) selected[state == query.state] { (state_label(language, state)) }
                        }
                    }
                }
                button.primary type="submit" { (language.pick("Search", "Ieškoti")) }
            }
            @if all == 0 {
                p.empty { (language.pick("No companies yet: they appear with their first document.", "Įmonių dar nėra: jos atsiranda su pirmu dokumentu.")) }
            } @else if rows.is_empty() {
                p.empty { (language.pick("No company found.", "Įmonių nerasta.")) }
            } @else {
                p.ago { (language.count(found, ["company", "companies"], ["įmonė", "įmonės", "įmonių"])) }
                div.feeds { (table(language.pick("Companies", "Įmonės"), &columns(language), rows)) }
            }
            (next_page(language, &path, page.next.as_deref()))
            @if viewer.may_operate() && all > 0 {
                div.buttons {
                    (button(viewer, "/do/pull", &[], language.pick("Pull all now", "Gauti visus dabar"), None))
                }
            }
        },
        refresh: false,
    })
}

fn columns(language: Language) -> [Column<'static>; 5] {
    [
        Column::new(language.pick("Company", "Įmonė"), "main"),
        Column::new(language.pick("State", "Būsena"), "state"),
        Column::new(language.pick("Documents", "Dokumentai"), "number"),
        Column::new(
            language.pick("Missed notifications", "Praleisti pranešimai"),
            "number missed",
        ),
        Column::new(language.pick("Actions", "Veiksmai"), "actions"),
    ]
}

fn feed(
    context: &PageContext,
    row: &FeedRow,
    account: Option<&AccountRow>,
    names: &Names,
    several_accounts: bool,
    now: Now<'_>,
) -> Vec<Markup> {
    let language = context.viewer.language;
    let documents = format!(
        "/documents?company={}",
        url_encode(row.feed.company.as_str())
    );
    vec![
        html! {
            @if row.feed.company == Company::mixed() {
                span.name { (labels::queue(language, row.feed.queue)) }
            } @else { (names.company(&row.feed.company)) }
            @if several_accounts { " " span.ago { (row.feed.account) } }
        },
        state(language, row, account, now),
        html! {
            @if row.feed.company == Company::mixed() { (language.number(row.documents)) }
            @else { a href=(documents) { (language.number(row.documents)) } }
        },
        html! { (language.number(row.missed_notifications)) },
        actions(context, row, names),
    ]
}

fn state(language: Language, row: &FeedRow, account: Option<&AccountRow>, now: Now<'_>) -> Markup {
    let reason = row.paused.or(account.and_then(|account| account.paused));
    html! {
        @match row.state(account, now.at) {
            RunState::Paused { .. } => {
                (badge(Severity::Problem, language.pick("paused", "sustabdyta")))
                @if let Some(reason) = reason { p { (with_code(labels::feed_pause_reason(language, reason))) } }
            }
            RunState::Removed { since } => {
                (badge(Severity::Neutral, language.pick("removed", "pašalinta"))) " " span.ago { (language.age(since, now)) }
                @if row.pending_notifications > 0 {
                    p { (language.count(
                        row.pending_notifications,
                        ["notification since its last pull", "notifications since its last pull"],
                        ["pranešimas nuo paskutinio skaitymo", "pranešimai nuo paskutinio skaitymo", "pranešimų nuo paskutinio skaitymo"],
                    )) }
                }
            }
            RunState::Waiting { until } => {
                (badge(Severity::Pending, language.pick("waiting", "laukia"))) " " span.ago { (language.age(until, now)) }
            }
            RunState::Failing { .. } => (badge(Severity::Problem, language.pick("failing", "nepavyksta"))),
            RunState::Active if row.pulled_at.is_none() => {
                (badge(Severity::Pending, language.pick("first pull", "pirmas skaitymas")))
            }
            RunState::Active => {
                (badge(Severity::Ok, language.pick("active", "veikia")))
                @if let Some(at) = row.up_to_date_at { " " span.ago { (language.age(at, now)) } }
            }
        }
        @if let Some(reason) = row.incomplete {
            p { (badge(Severity::Problem, language.pick("incomplete", "gali trūkti")))
                " " (with_code(labels::incomplete_reason(language, reason))) }
        }
        @if let Some(error) = &row.last_error { p.error lang="" { (error) } }
    }
}

/// Returns the form fields that name a feed.
fn fields(feed: &Feed) -> [(&'static str, &str); 3] {
    [
        ("account", feed.account.as_str()),
        ("queue", feed.queue.as_str()),
        ("company", feed.company.as_str()),
    ]
}

fn actions(context: &PageContext, row: &FeedRow, names: &Names) -> Markup {
    let (app, viewer, language) = (&context.admin.app, &context.viewer, context.viewer.language);
    let name = match row.feed.company == Company::mixed() {
        true => row.feed.to_string(),
        false => names.text(&row.feed.company),
    };
    let fields = fields(&row.feed);
    let is_paused = row.paused.is_some() || !row.is_known();
    // One destination that may hold documents of this company.
    let holding = app
        .config
        .destinations
        .iter()
        .find(|(_, one)| one.queue == row.feed.queue);
    let start = holding.filter(|_| row.feed.queue == Queue::Exported && row.is_known());
    html! {
        @if viewer.may_operate() {
            details.menu {
                summary aria-label={ (language.pick("Actions", "Veiksmai")) ": " (name) } { (language.pick("Actions", "Veiksmai")) }
                div.folded {
                    @if row.is_known() {
                        (button(viewer, "/do/pull", &fields, language.pick("Pull now", "Gauti dabar"), Some(&name)))
                    }
                    @if is_paused {
                        (button(viewer, "/do/resume", &fields, language.pick("Resume", "Tęsti"), Some(&name)))
                    } @else {
                        (button(viewer, "/do/pause-feed", &fields, language.pick("Pause", "Sustabdyti"), Some(&name)))
                    }
                    @if let Some((destination, _)) = start {
                        form method="get" action={ "/destinations#" (destination) } {
                            input type="hidden" name="start" value=(destination);
                            input type="hidden" name="company" value=(row.feed.company);
                            label { (language.pick("Deliver from", "Perduoti nuo"))
                                " " input name="since" type="date" value=(context.now().first_of_month()); }
                            button type="submit" aria-label={ (language.pick("Start delivery", "Pradėti perdavimą")) ": " (name) } {
                                (language.pick("Start delivery", "Pradėti perdavimą"))
                            }
                        }
                    }
                    @if row.is_known() {
                        (folded("ask", language.pick("Remove…", "Pašalinti…"), &html! {
                            p { (language.pick(
                                "No more documents of it are pulled; those that are here stay. Resume brings it back.",
                                "Nauji dokumentai nebegaunami; esantys lieka. Grąžinama mygtuku „Tęsti“.",
                            )) }
                            (button(viewer, "/do/remove-feed", &fields, language.pick("Remove", "Pašalinti"), Some(&name)))
                        }))
                    }
                    @if let Some(cursor) = &row.cursor {
                        p.ago { (language.pick("Cursor ", "Skaitymo vieta ")) span.code { (cursor) } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Account, Feed, Timestamp};
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
        let zone = tz::TimeZone::utc();
        let now = Now {
            at: now,
            zone: zone.as_ref(),
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
