//! Documents: search, and the timeline and versions of one.

use axum::extract::{Path, Query};
use axum::response::Response;
use maud::{Markup, html};
use url::form_urlencoded;

use super::context::{PageContext, PageError, PageResult, ROWS};
use super::labels::{self, Severity};
use super::language::Language;
use super::layout::{PageBody, badge, next_page, table};
use crate::admin::documents::find;
use crate::admin::export::{columns_of, respond};
use crate::admin::problem::AdminError;
use crate::api::documents::{ExportQuery, FoundDocument, SearchQuery};
use crate::domain::{Queue, Timestamp};
use crate::export::cells::{Decimal, Encoding};
use crate::export::table::{Format, Separator};
use crate::store::DocumentSearch;
use crate::trace::{self, Trace};

/// Maximum number of versions shown of one document.
const MAX_VERSIONS: u16 = 50;

pub(super) async fn list(context: PageContext, Query(query): Query<DocumentQuery>) -> Response {
    let result = search(&context, query).await;
    context.respond(result)
}

/// Fields of the search form.
#[derive(Clone, Default, serde::Deserialize)]
pub(super) struct DocumentQuery {
    #[serde(default)]
    q: String,
    #[serde(default)]
    queue: String,
    #[serde(default)]
    company: String,
    after: Option<String>,
}

impl DocumentQuery {
    /// Returns the page's address without the position in the list.
    fn path(&self) -> String {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("q", &self.q)
            .append_pair("queue", &self.queue)
            .append_pair("company", &self.company)
            .finish();
        format!("/documents?{query}")
    }

    /// Returns the address of the table of these documents.
    fn export_path(&self) -> String {
        self.path().replacen("/documents?", "/documents/export?", 1)
    }
}

/// Returns the documents of the list as a table for a spreadsheet in the viewer's language.
pub(super) async fn export(context: PageContext, Query(query): Query<DocumentQuery>) -> Response {
    let (separator, decimal) = match context.viewer.language {
        Language::English => (Separator::Comma, Decimal::Point),
        Language::Lithuanian => (Separator::Semicolon, Decimal::Comma),
    };
    let query = ExportQuery {
        format: Some(Format::Csv),
        separator: Some(separator),
        decimal: Some(decimal),
        encoding: Some(Encoding::Utf8Bom),
        q: Some(query.q),
        queue: Queue::parse(&query.queue),
        company: Some(query.company),
        ..ExportQuery::default()
    };
    let answered = async { respond(&context.admin, query.clone(), columns_of(&query)?).await };
    answered
        .await
        .unwrap_or_else(|error| context.error_page(&error))
}

/// Encodes text for a URL's query.
pub(super) fn url_encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn search(context: &PageContext, query: DocumentQuery) -> PageResult {
    let language = context.viewer.language;
    let search = SearchQuery {
        q: Some(query.q.clone()),
        account: None,
        queue: Queue::parse(&query.queue),
        company: Some(query.company.clone()),
        after: query.after.clone(),
        limit: Some(ROWS),
    };
    let page = find(&context.admin.app, &search).await?;
    let now = context.admin.app.clock.now();
    let columns = [
        language.pick("Number", "Numeris"),
        language.pick("Date", "Data"),
        language.pick("Seller", "Pardavėjas"),
        language.pick("Buyer", "Pirkėjas"),
        language.pick("Total", "Suma"),
        language.pick("Queue", "Eilė"),
        language.pick("Company", "Įmonė"),
        language.pick("Stored", "Gauta"),
    ];
    let rows = page
        .rows
        .iter()
        .map(|found| row(context, found, now))
        .collect();
    Ok(PageBody {
        title: language.pick("Documents", "Dokumentai").to_owned(),
        content: html! {
            (search_form(context, &query))
            @if page.rows.is_empty() {
                p { @if page.next.is_some() {
                    (language.pick(
                        "No match among the newest 2,000 versions; continue with older ones on the next page.",
                        "Tarp naujausių 2 000 versijų nerasta; ieškokite tarp senesnių kitame puslapyje.",
                    ))
                } @else {
                    (language.pick("No documents found.", "Dokumentų nerasta."))
                } }
            } @else {
                (table(language.pick("Document versions, newest first", "Dokumentų versijos, naujausios viršuje"), &columns, rows))
            }
            (next_page(language, &query.path(), page.next.as_deref()))
            p {
                a href=(query.export_path()) {
                    (language.pick("Download as CSV", "Atsisiųsti CSV"))
                }
                " "
                (language.pick(
                    "All that match, in their current versions.",
                    "Visi atitinkantys dokumentai, dabartinės jų versijos.",
                ))
            }
        },
    })
}

fn search_form(context: &PageContext, query: &DocumentQuery) -> Markup {
    let language = context.viewer.language;
    html! {
        form.search method="get" action="/documents" role="search" {
            div {
                label for="q" { (language.pick("Number, ID, seller or buyer", "Numeris, ID, pardavėjas arba pirkėjas")) }
                input id="q" name="q" type="search" maxlength="100" value=(query.q);
            }
            div {
                label for="company" { (language.pick("Company code", "Įmonės kodas")) }
                input id="company" name="company" type="text" maxlength="64" value=(query.company);
            }
            div {
                label for="queue" { (language.pick("Queue", "Eilė")) }
                select id="queue" name="queue" {
                    option value="" { (language.pick("both", "abi")) }
                    @for queue in Queue::ALL {
                        option value=(queue) selected[query.queue == queue.as_str()] {
                            (labels::queue(language, queue))
                        }
                    }
                }
            }
            button type="submit" { (language.pick("Search", "Ieškoti")) }
        }
    }
}

fn row(context: &PageContext, found: &FoundDocument, now: Timestamp) -> Vec<Markup> {
    let language = context.viewer.language;
    let view = &found.view;
    let text = |text: &Option<String>| html! { (text.as_deref().unwrap_or("–")) };
    vec![
        html! {
            a href={ "/documents/" (found.row.sequence) } {
                (view.number.as_deref().unwrap_or(&found.row.document_id))
            }
            @if found.row.erased_at.is_some() {
                " " (badge(Severity::Pending, language.pick("erased", "ištrinta")))
            } @else if found.row.superseded {
                " " (badge(Severity::Pending, language.pick("superseded", "pakeista")))
            }
        },
        text(&view.date),
        text(&view.seller),
        text(&view.buyer),
        total(view.total.as_deref(), view.currency.as_deref()),
        html! { (labels::queue(language, found.row.feed.queue)) },
        html! { (found.row.feed.company) },
        language.moment(found.row.stored_at, now),
    ]
}

fn total(total: Option<&str>, currency: Option<&str>) -> Markup {
    html! { (total.unwrap_or("–")) @if let Some(currency) = currency { " " (currency) } }
}

pub(super) async fn one(
    context: PageContext,
    path: Result<Path<i64>, axum::extract::rejection::PathRejection>,
) -> Response {
    let result = match path {
        Ok(Path(sequence)) => document(&context, sequence).await,
        Err(_) => Err(PageError(AdminError::UnknownRow)),
    };
    context.respond(result)
}

async fn document(context: &PageContext, sequence: i64) -> PageResult {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let now = app.clock.now();
    let by_sequence = DocumentSearch {
        before: sequence.checked_add(1),
        versions: 1,
        ..DocumentSearch::default()
    };
    let row = app
        .store
        .search_documents(by_sequence)
        .await?
        .rows
        .into_iter()
        .find(|row| row.sequence == sequence);
    let row = row.ok_or(AdminError::UnknownRow)?;
    let versions = app.store.search_documents(DocumentSearch {
        account: Some(row.feed.account.clone()),
        document_id: Some(row.document_id.clone()),
        versions: MAX_VERSIONS,
        ..DocumentSearch::default()
    });
    let versions: Vec<FoundDocument> = versions
        .await?
        .rows
        .into_iter()
        .map(FoundDocument::from)
        .collect();
    let traces = trace::find(&app.store, &row.document_id).await?;
    let found = FoundDocument::from(row);
    let document_trace = traces.into_iter().find(|trace| {
        trace.account == found.row.feed.account
            && trace.document_id.as_ref() == Some(&found.row.document_id)
    });
    let view = &found.view;
    let title = format!(
        "{} {}",
        language.pick("Document", "Dokumentas"),
        view.number.as_deref().unwrap_or(&found.row.document_id)
    );
    let fields = [
        (
            language.pick("Įvesk.lt ID", "Įvesk.lt ID"),
            Some(found.row.document_id.as_str()),
        ),
        (language.pick("Date", "Data"), view.date.as_deref()),
        (
            language.pick("Seller", "Pardavėjas"),
            view.seller.as_deref(),
        ),
        (language.pick("Buyer", "Pirkėjas"), view.buyer.as_deref()),
    ];
    Ok(PageBody {
        title,
        content: html! {
            dl.facts {
                @for (name, value) in fields { div { dt { (name) } dd { (value.unwrap_or("–")) } } }
                div { dt { (language.pick("Total", "Suma")) } dd { (total(view.total.as_deref(), view.currency.as_deref())) } }
                div { dt { (language.pick("Account", "Paskyra")) } dd { (found.row.feed.account) } }
            }
            @if let Some(trace) = &document_trace { (timeline(context, trace, now)) }
            (versions_table(context, &versions, now))
        },
    })
}

/// Renders the document's steps in order.
fn timeline(context: &PageContext, trace: &Trace, now: Timestamp) -> Markup {
    let language = context.viewer.language;
    html! {
        h2 { (language.pick("Timeline", "Dokumento eiga")) }
        ol.story {
            @for event in &trace.events {
                li {
                    strong { (labels::step(language, event.step)) }
                    @if let Some(destination) = &event.destination { " " (destination) }
                    @if event.times > 1 { " × " (event.times) }
                    " " (language.moment(event.at, now))
                    @if let Some(detail) = &event.detail { p lang="en" { (detail) } }
                }
            }
        }
    }
}

fn versions_table(context: &PageContext, versions: &[FoundDocument], now: Timestamp) -> Markup {
    let language = context.viewer.language;
    let columns = [
        language.pick("Sequence", "Įrašo Nr."),
        language.pick("Version", "Versija"),
        language.pick("Queue", "Eilė"),
        language.pick("Company", "Įmonė"),
        language.pick("Stored", "Gauta"),
        language.pick("State", "Būsena"),
    ];
    let rows = versions.iter().map(|found| {
        let row = &found.row;
        let state = if row.erased_at.is_some() {
            badge(Severity::Pending, language.pick("erased", "ištrinta"))
        } else if row.superseded {
            badge(Severity::Pending, language.pick("superseded", "pakeista"))
        } else {
            badge(Severity::Ok, language.pick("current", "dabartinė"))
        };
        vec![
            html! { a href={ "/documents/" (row.sequence) } { (row.sequence) } },
            html! { (row.version) },
            html! { (labels::queue(language, row.feed.queue)) },
            html! { (row.feed.company) },
            language.moment(row.stored_at, now),
            state,
        ]
    });
    table(
        language.pick("Versions", "Versijos"),
        &columns,
        rows.collect(),
    )
}
