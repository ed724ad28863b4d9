//! Documents: looking for them, and what became of one.

use axum::extract::{Path, Query};
use axum::response::Response;
use maud::{Markup, html};
use url::form_urlencoded;

use super::layout::{Middle, badge, next_page, table};
use super::page::{PageError, ROWS, Shown, Visit};
use super::words::{self, Mood};
use crate::admin::documents::{FoundDocument, SearchQuery, find};
use crate::admin::problem::AdminError;
use crate::domain::{Queue, Timestamp};
use crate::store::DocumentSearch;
use crate::trace::{self, Trace};

/// Versions of one document that are shown.
const VERSIONS: u16 = 50;

pub(super) async fn list(visit: Visit, Query(asked): Query<Asked>) -> Response {
    let shown = search(&visit, asked).await;
    visit.show(shown)
}

/// What the form of the page asks for.
#[derive(Clone, Default, serde::Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    q: String,
    #[serde(default)]
    queue: String,
    #[serde(default)]
    company: String,
    after: Option<String>,
}

impl Asked {
    /// The page's address without its place.
    fn path(&self) -> String {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("q", &self.q)
            .append_pair("queue", &self.queue)
            .append_pair("company", &self.company)
            .finish();
        format!("/documents?{query}")
    }
}

/// Text as it stands in an address.
pub(super) fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn search(visit: &Visit, asked: Asked) -> Shown {
    let language = visit.visitor.language;
    let wanted = SearchQuery {
        q: Some(asked.q.clone()),
        account: None,
        queue: Queue::parse(&asked.queue),
        company: Some(asked.company.clone()),
        after: asked.after.clone(),
        limit: Some(ROWS),
    };
    let page = find(&visit.admin.app, &wanted).await?;
    let now = visit.admin.app.clock.now();
    let columns = [
        language.say("Number", "Numeris"),
        language.say("Date", "Data"),
        language.say("Seller", "Pardavėjas"),
        language.say("Buyer", "Pirkėjas"),
        language.say("Total", "Suma"),
        language.say("Queue", "Eilė"),
        language.say("Company", "Įmonė"),
        language.say("Stored", "Gauta"),
    ];
    let rows = page
        .rows
        .iter()
        .map(|found| row(visit, found, now))
        .collect();
    Ok(Middle {
        title: language.say("Documents", "Dokumentai").to_owned(),
        body: html! {
            (search_form(visit, &asked))
            @if page.rows.is_empty() {
                p { @if page.next.is_some() {
                    (language.say(
                        "None among the newest 2,000 versions; older ones may hold it.",
                        "Tarp naujausių 2 000 versijų nerasta; gali būti tarp senesnių.",
                    ))
                } @else {
                    (language.say("There are none.", "Nerasta."))
                } }
            } @else {
                (table(language.say("Document versions, the newest first", "Dokumentų versijos, naujausios viršuje"), &columns, rows))
            }
            (next_page(language, &asked.path(), page.next.as_deref()))
        },
    })
}

fn search_form(visit: &Visit, asked: &Asked) -> Markup {
    let language = visit.visitor.language;
    html! {
        form.search method="get" action="/documents" role="search" {
            div {
                label for="q" { (language.say("Number, id, seller or buyer", "Numeris, id, pardavėjas ar pirkėjas")) }
                input id="q" name="q" type="search" maxlength="100" value=(asked.q);
            }
            div {
                label for="company" { (language.say("Company code", "Įmonės kodas")) }
                input id="company" name="company" type="text" maxlength="64" value=(asked.company);
            }
            div {
                label for="queue" { (language.say("Queue", "Eilė")) }
                select id="queue" name="queue" {
                    option value="" { (language.say("both", "abi")) }
                    @for queue in Queue::ALL {
                        option value=(queue) selected[asked.queue == queue.as_str()] {
                            (words::queue(language, queue))
                        }
                    }
                }
            }
            button type="submit" { (language.say("Search", "Ieškoti")) }
        }
    }
}

fn row(visit: &Visit, found: &FoundDocument, now: Timestamp) -> Vec<Markup> {
    let language = visit.visitor.language;
    let view = &found.view;
    let text = |text: &Option<String>| html! { (text.as_deref().unwrap_or("–")) };
    vec![
        html! {
            a href={ "/documents/" (found.row.sequence) } {
                (view.number.as_deref().unwrap_or(&found.row.document_id))
            }
            @if found.row.superseded { " " (badge(Mood::Busy, language.say("superseded", "pakeista"))) }
        },
        text(&view.date),
        text(&view.seller),
        text(&view.buyer),
        total(view.total.as_deref(), view.currency.as_deref()),
        html! { (words::queue(language, found.row.feed.queue)) },
        html! { (found.row.feed.company) },
        language.moment(found.row.stored_at, now),
    ]
}

fn total(total: Option<&str>, currency: Option<&str>) -> Markup {
    html! { (total.unwrap_or("–")) @if let Some(currency) = currency { " " (currency) } }
}

pub(super) async fn one(
    visit: Visit,
    path: Result<Path<i64>, axum::extract::rejection::PathRejection>,
) -> Response {
    let shown = match path {
        Ok(Path(sequence)) => document(&visit, sequence).await,
        Err(_) => Err(PageError(AdminError::UnknownRow)),
    };
    visit.show(shown)
}

async fn document(visit: &Visit, sequence: i64) -> Shown {
    let (app, language) = (&visit.admin.app, visit.visitor.language);
    let now = app.clock.now();
    let here = DocumentSearch {
        before: sequence.checked_add(1),
        versions: 1,
        ..DocumentSearch::default()
    };
    let row = app
        .store
        .search_documents(here)
        .await?
        .rows
        .into_iter()
        .find(|row| row.sequence == sequence);
    let row = row.ok_or(AdminError::UnknownRow)?;
    let versions = app.store.search_documents(DocumentSearch {
        account: Some(row.feed.account.clone()),
        document_id: Some(row.document_id.clone()),
        versions: VERSIONS,
        ..DocumentSearch::default()
    });
    let versions: Vec<FoundDocument> = versions
        .await?
        .rows
        .into_iter()
        .map(FoundDocument::from)
        .collect();
    let traces = trace::find(&*app.store, &row.document_id).await?;
    let found = FoundDocument::from(row);
    let story = traces.into_iter().find(|trace| {
        trace.account == found.row.feed.account
            && trace.document_id.as_ref() == Some(&found.row.document_id)
    });
    let view = &found.view;
    let title = format!(
        "{} {}",
        language.say("Document", "Dokumentas"),
        view.number.as_deref().unwrap_or(&found.row.document_id)
    );
    let fields = [
        (
            language.say("Id at Įvesk.lt", "Id Įvesk.lt sistemoje"),
            Some(found.row.document_id.as_str()),
        ),
        (language.say("Date", "Data"), view.date.as_deref()),
        (language.say("Seller", "Pardavėjas"), view.seller.as_deref()),
        (language.say("Buyer", "Pirkėjas"), view.buyer.as_deref()),
    ];
    Ok(Middle {
        title,
        body: html! {
            dl.facts {
                @for (name, value) in fields { div { dt { (name) } dd { (value.unwrap_or("–")) } } }
                div { dt { (language.say("Total", "Suma")) } dd { (total(view.total.as_deref(), view.currency.as_deref())) } }
                div { dt { (language.say("Account", "Paskyra")) } dd { (found.row.feed.account) } }
            }
            @if let Some(story) = &story { (told(visit, story, now)) }
            (versions_table(visit, &versions, now))
        },
    })
}

/// What became of the document, in order.
fn told(visit: &Visit, story: &Trace, now: Timestamp) -> Markup {
    let language = visit.visitor.language;
    html! {
        h2 { (language.say("What became of it", "Kas jam nutiko")) }
        ol.story {
            @for event in &story.events {
                li {
                    strong { (words::step(language, event.step)) }
                    @if let Some(destination) = &event.destination { " " (destination) }
                    @if event.times > 1 { " × " (event.times) }
                    " " (language.moment(event.at, now))
                    @if let Some(detail) = &event.detail { p lang="en" { (detail) } }
                }
            }
        }
    }
}

fn versions_table(visit: &Visit, versions: &[FoundDocument], now: Timestamp) -> Markup {
    let language = visit.visitor.language;
    let columns = [
        language.say("Sequence", "Eilės numeris"),
        language.say("Version", "Versija"),
        language.say("Queue", "Eilė"),
        language.say("Company", "Įmonė"),
        language.say("Stored", "Gauta"),
        language.say("State", "Būsena"),
    ];
    let rows = versions.iter().map(|found| {
        let row = &found.row;
        let state = if row.superseded {
            badge(Mood::Busy, language.say("superseded", "pakeista"))
        } else {
            badge(Mood::Good, language.say("current", "dabartinė"))
        };
        vec![
            html! { a href={ "/documents/" (row.sequence) } { (row.sequence) } },
            html! { (row.version) },
            html! { (words::queue(language, row.feed.queue)) },
            html! { (row.feed.company) },
            language.moment(row.stored_at, now),
            state,
        ]
    });
    table(
        language.say("Versions", "Versijos"),
        &columns,
        rows.collect(),
    )
}
