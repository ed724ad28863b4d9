//! Documents: one row each, with its state at each destination, searched, filtered and sorted by
//! the page's address.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::Query;
use axum::response::Response;
use maud::{Markup, html};
use url::form_urlencoded;

use super::context::{PageContext, PageError, PageResult, ROWS};
use super::labels::{self, Severity, Taking};
use super::language::{Language, Now};
use super::layout::{Column, Order, PageBody, badge, table};
use super::names::{Names, shown_field};
use crate::admin::documents::{find, listed, place_of};
use crate::admin::export::{columns_of, respond, respond_with};
use crate::admin::feeds::parse_company;
use crate::admin::paging::List;
use crate::admin::problem::AdminError;
use crate::api::PageQuery;
use crate::api::documents::{ExportQuery, SearchQuery};
use crate::app::App;
use crate::config::DestinationKind;
use crate::domain::{Company, DestinationName, Queue, Timestamp};
use crate::export::cells::{Decimal, Encoding};
use crate::export::stream::Documents;
use crate::export::table::{Format, Separator};
use crate::ivesk::Entry;
use crate::ivesk::view::View;
use crate::store::{DeliveryState, DocumentRow, Place, PlaceRow, SiblingRow, TextMatches};

/// Versions that one read of the store brings.
const BATCH: usize = 250;

/// Maximum number of reads for one page.
const MAX_BATCHES: usize = 20;

/// Maximum number of versions that are looked at for one page: so many are sorted, or in a filtered
/// table for a spreadsheet.
const MAX_EXAMINED: usize = BATCH * MAX_BATCHES;

/// Maximum number of companies in the list of choices.
const MAX_CHOICES: usize = 500;

/// A document that was found.
pub(super) struct Found {
    /// Its version.
    pub(super) row: DocumentRow,
    /// Fields of the document; empty once retention has removed its body.
    pub(super) view: View,
}

impl From<DocumentRow> for Found {
    fn from(row: DocumentRow) -> Self {
        Self {
            view: row.body.as_deref().map(View::read).unwrap_or_default(),
            row,
        }
    }
}

pub(super) async fn list(context: PageContext, Query(query): Query<DocumentQuery>) -> Response {
    let result = page(&context, query).await;
    context.respond(result)
}

/// Fields of the search form, as in the page's address.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(super) struct DocumentQuery {
    #[serde(default)]
    q: String,
    #[serde(default)]
    queue: String,
    #[serde(default)]
    company: String,
    /// A day: documents dated then or later.
    #[serde(default)]
    since: String,
    /// A day: documents dated then or earlier.
    #[serde(default)]
    until: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    destination: String,
    /// A document's type.
    #[serde(default)]
    r#type: String,
    /// A column, with `-` before it in descending order; empty for the newest first.
    #[serde(default)]
    sort: String,
    /// The number of sorted documents before the page.
    #[serde(default)]
    skip: usize,
    after: Option<String>,
}

impl DocumentQuery {
    /// Returns the page's address with other sorting and without a position.
    fn sorted_by(&self, sort: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [
            ("q", self.q.as_str()),
            ("company", &self.company),
            ("since", &self.since),
            ("until", &self.until),
            ("state", &self.state),
            ("destination", &self.destination),
            ("type", &self.r#type),
            ("queue", &self.queue),
            ("sort", sort),
        ] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        match query.finish() {
            query if query.is_empty() => "/documents".to_owned(),
            query => format!("/documents?{query}"),
        }
    }

    /// Returns the page's address without the position in the list.
    fn path(&self) -> String {
        self.sorted_by(&self.sort)
    }

    /// Returns the address of these documents from a place in the list on.
    fn path_from(&self, after: Option<&str>) -> String {
        let path = self.path();
        match after {
            // Cursors need no escaping in a query.
            Some(after) if path.contains('?') => format!("{path}&after={after}"),
            Some(after) => format!("{path}?after={after}"),
            None => path,
        }
    }

    /// Returns the address of the table of these documents: of sorted ones, those that are sorted.
    fn export_path(&self) -> String {
        let after = self.after.as_deref().filter(|_| self.column().is_some());
        let path = self.path_from(after);
        path.replacen("/documents", "/documents/export", 1)
    }

    fn is_searched(&self) -> bool {
        !self.q.trim().is_empty()
    }

    /// Returns true if a table of these documents holds all of them.
    fn is_exported_whole(&self) -> bool {
        !self.is_filtered() && self.column().is_none()
    }

    /// Returns true if more than text, queue and company select the documents.
    fn is_filtered(&self) -> bool {
        let others = [
            &self.since,
            &self.until,
            &self.state,
            &self.destination,
            &self.r#type,
        ];
        others.iter().any(|value| !value.is_empty())
    }

    fn column(&self) -> Option<(SortBy, Order)> {
        let (name, order) = match self.sort.strip_prefix('-') {
            Some(name) => (name, Order::Descending),
            None => (self.sort.as_str(), Order::Ascending),
        };
        SortBy::parse(name).map(|column| (column, order))
    }
}

/// A column by which documents are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SortBy {
    Number,
    Date,
    Partner,
    Company,
    Amount,
}

impl SortBy {
    const ALL: [(&'static str, Self); 5] = [
        ("number", Self::Number),
        ("date", Self::Date),
        ("partner", Self::Partner),
        ("company", Self::Company),
        ("amount", Self::Amount),
    ];

    fn parse(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|(known, _)| *known == name).map(|(_, one)| one)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Date => "date",
            Self::Partner => "partner",
            Self::Company => "company",
            Self::Amount => "amount",
        }
    }
}

/// Returns the documents of the list as a table for a spreadsheet in the viewer's language.
pub(super) async fn export(context: PageContext, Query(query): Query<DocumentQuery>) -> Response {
    let answered = table_of(&context, &query).await;
    answered.unwrap_or_else(|error| context.error_page(&error))
}

async fn table_of(context: &PageContext, query: &DocumentQuery) -> Result<Response, AdminError> {
    let (separator, decimal) = match context.viewer.language {
        Language::English => (Separator::Comma, Decimal::Point),
        Language::Lithuanian => (Separator::Semicolon, Decimal::Comma),
    };
    let export = ExportQuery {
        format: Some(Format::Csv),
        separator: Some(separator),
        decimal: Some(decimal),
        encoding: Some(Encoding::Utf8Bom),
        q: Some(query.q.clone()),
        queue: Queue::parse(&query.queue),
        company: Some(query.company.clone()),
        ..ExportQuery::default()
    };
    let columns = columns_of(&export)?;
    if query.is_exported_whole() {
        return respond(&context.admin, export, columns).await;
    }
    let listing = sorted(context, query, MAX_EXAMINED).await?;
    // A table that lacks documents says so by its name.
    let name = match listing.looked_at.filter(|_| listing.is_cut) {
        Some((oldest, _)) if !query.is_searched() => {
            let day = context.viewer.language.day(oldest, context.now());
            format!("documents-received-since-{day}")
        }
        Some(_) => "documents-that-fit-best".to_owned(),
        None => "documents".to_owned(),
    };
    let rows = listing.rows.into_iter().map(|document| document.found.row);
    let documents = Documents::These(rows.collect());
    respond_with(&context.admin, &export, columns, documents, &name).await
}

/// Returns the newest documents of the list in the order of the address.
async fn sorted(
    context: &PageContext,
    query: &DocumentQuery,
    limit: usize,
) -> Result<Listing, AdminError> {
    let selection = Selection::read(query)?;
    let mut listing = read(context, query, &selection, limit).await?;
    if let Some((column, order)) = query.column() {
        let companies = listing.rows.iter();
        let companies = companies.map(|document| &document.found.row.feed.company);
        let names = Names::read(&context.admin.app, companies).await?;
        sort_rows(&mut listing.rows, column, order, &names);
    }
    Ok(listing)
}

/// Encodes text for a URL's query.
pub(super) fn url_encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// A row of the list: a document in its newest version.
pub(super) struct ListedDocument {
    found: Found,
    kind: Option<String>,
    /// Its states, those of its other current versions among them.
    places: Vec<PlaceRow>,
}

/// What is selected beside text, queue and company.
struct Selection {
    queue: Option<Queue>,
    company: Option<Company>,
    since: String,
    until: String,
    state: Option<DeliveryState>,
    destination: Option<DestinationName>,
    kind: String,
}

impl Selection {
    fn read(query: &DocumentQuery) -> Result<Self, AdminError> {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let company = given(&query.company);
        let destination = given(&query.destination);
        let destination = destination
            .map(|name| DestinationName::parse(&name))
            .transpose();
        Ok(Self {
            queue: Queue::parse(&query.queue),
            company: company.as_deref().map(parse_company).transpose()?,
            since: query.since.trim().to_owned(),
            until: query.until.trim().to_owned(),
            state: DeliveryState::parse(&query.state),
            destination: destination.map_err(|error| AdminError::BadRequest(error.to_string()))?,
            kind: query.r#type.trim().to_owned(),
        })
    }

    /// Returns true if a version of this queue and company is one of those that are looked at.
    fn covers(&self, queue: Queue, company: &Company) -> bool {
        self.queue.is_none_or(|one| one == queue)
            && self.company.as_ref().is_none_or(|one| one == company)
    }

    fn matches(&self, document: &ListedDocument, now: Now<'_>) -> bool {
        // A document without a date counts by the day of its arrival.
        let stored = now.local(document.found.row.stored_at);
        let date = document.found.view.date.as_deref();
        let date = date.unwrap_or(stored.get(..10).unwrap_or_default());
        let is_here = |place: &PlaceRow| {
            self.state.is_none_or(|state| place.state == state)
                && (self.destination.as_ref()).is_none_or(|name| place.destination == *name)
        };
        let anywhere = self.state.is_none() && self.destination.is_none();
        (self.since.is_empty() || date >= self.since.as_str())
            && (self.until.is_empty() || date <= self.until.as_str())
            && (self.kind.is_empty() || document.kind.as_deref() == Some(self.kind.as_str()))
            && (anywhere || document.places.iter().any(is_here))
    }

    /// Returns the state whose versions an index finds.
    fn rare_state(&self) -> Option<DeliveryState> {
        self.state.filter(|state| {
            matches!(
                state,
                DeliveryState::Rejected
                    | DeliveryState::Deferred
                    | DeliveryState::WaitingFile
                    | DeliveryState::Skipped
            )
        })
    }
}

/// Documents of the list, and the place where it continues.
#[derive(Default)]
struct Listing {
    rows: Vec<ListedDocument>,
    next: Option<Place>,
    /// True if there may be more.
    is_cut: bool,
    /// When the last and the first version that was looked at were stored.
    looked_at: Option<(Timestamp, Timestamp)>,
    /// True if more words begin with one of the text than were looked at.
    is_incomplete: bool,
}

/// Reads the documents of a page: the search of [`find`], or an index of states, then what the
/// selection leaves of it, one row for each document.
async fn read(
    context: &PageContext,
    query: &DocumentQuery,
    selection: &Selection,
    limit: usize,
) -> Result<Listing, AdminError> {
    let (app, now) = (&context.admin.app, context.now());
    let place = PageQuery {
        after: query.after.clone(),
        limit: None,
    };
    let mut after = place_of(&place)?;
    let mut listing = Listing::default();
    let is_searched = query.is_searched();
    // All that a search finds is shown, unless more than the text selects it.
    let wanted = match is_searched && !query.is_filtered() {
        true => BATCH.min(limit.saturating_add(1)),
        false => BATCH,
    };
    for _ in 0..MAX_BATCHES {
        let batch = candidates(app, query, selection, after, wanted).await?;
        listing.is_incomplete |= batch.incomplete;
        let places: BTreeMap<i64, Place> = batch
            .rows
            .iter()
            .map(|(place, row)| (row.sequence, *place))
            .collect();
        if let (Some((_, first)), Some((_, last))) = (batch.rows.first(), batch.rows.last()) {
            let newest = listing
                .looked_at
                .map_or(first.stored_at, |(_, newest)| newest);
            listing.looked_at = Some((last.stored_at, newest));
        }
        let found = batch.rows.into_iter().map(|(_, row)| Found::from(row));
        let mut last = None;
        for document in complete(app, found.collect(), selection, is_searched).await? {
            if !selection.matches(&document, now) {
                continue;
            }
            if listing.rows.len() == limit {
                // This document is the first of the next page.
                listing.next = last.or(after);
                listing.is_cut = true;
                return Ok(listing);
            }
            last = places.get(&document.found.row.sequence).copied();
            listing.rows.push(document);
        }
        after = batch.next;
        if after.is_none() {
            break;
        }
    }
    listing.next = after;
    listing.is_cut = after.is_some();
    Ok(listing)
}

/// Returns the next versions that text, queue, company or state may select, newest first, and
/// where they continue.
async fn candidates(
    app: &App,
    query: &DocumentQuery,
    selection: &Selection,
    after: Option<Place>,
    wanted: usize,
) -> Result<TextMatches, AdminError> {
    let is_searched = query.is_searched();
    if let Some(state) = selection.rare_state().filter(|_| !is_searched) {
        let names: Vec<&DestinationName> = match &selection.destination {
            Some(name) => vec![name],
            None => app.config.destinations.keys().collect(),
        };
        let mut rows = Vec::new();
        let before = after.map_or(i64::MAX, |place| place.before);
        for name in names {
            let company = selection.company.clone();
            let found = app
                .store
                .documents_in_state(name.clone(), state, company, before, BATCH);
            rows.extend(found.await?);
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.sequence));
        rows.dedup_by_key(|row| row.sequence);
        rows.truncate(BATCH);
        let next = rows.last().map(|row| row.sequence);
        let next = next.filter(|_| rows.len() == BATCH);
        return Ok(listed(rows, next));
    }
    let search = SearchQuery {
        q: Some(query.q.clone()),
        account: None,
        queue: selection.queue,
        company: Some(query.company.trim().to_owned()),
        ..SearchQuery::default()
    };
    find(app, &search, after, wanted).await
}

/// Returns the documents of these versions with their states, each document once: in the newest
/// of its versions that the selection covers, or in the one that a search has found.
async fn complete(
    app: &App,
    batch: Vec<Found>,
    selection: &Selection,
    is_searched: bool,
) -> Result<Vec<ListedDocument>, AdminError> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let sequences: Vec<i64> = batch.iter().map(|found| found.row.sequence).collect();
    let mut siblings: BTreeMap<i64, Vec<SiblingRow>> = BTreeMap::new();
    for row in app.store.siblings(sequences.clone()).await? {
        siblings.entry(row.of).or_default().push(row);
    }
    let of = |sequence| {
        siblings
            .get(&sequence)
            .map(Vec::as_slice)
            .unwrap_or_default()
    };
    let is_newest = |found: &Found| {
        let newer = |row: &SiblingRow| {
            row.sequence > found.row.sequence && selection.covers(row.queue, &row.company)
        };
        // A search returns each document once.
        is_searched || (!found.row.superseded && !of(found.row.sequence).iter().any(newer))
    };
    let batch: Vec<Found> = batch.into_iter().filter(is_newest).collect();
    let looked_at: BTreeSet<i64> = batch
        .iter()
        .flat_map(|found| {
            let others = of(found.row.sequence).iter().map(|row| row.sequence);
            others.chain([found.row.sequence])
        })
        .collect();
    let mut places: BTreeMap<i64, Vec<PlaceRow>> = BTreeMap::new();
    for row in app.store.places(looked_at.into_iter().collect()).await? {
        places.entry(row.sequence).or_default().push(row);
    }
    let documents = batch.into_iter().map(|found| {
        let sequence = found.row.sequence;
        let others = of(sequence).iter().map(|row| row.sequence);
        let versions = [sequence].into_iter().chain(others);
        let places = versions
            .filter_map(|version| places.get(&version))
            .flatten();
        let entry = found.row.body.as_deref().and_then(Entry::parse);
        ListedDocument {
            kind: entry.and_then(|entry| shown_field(&entry, "doctype")),
            places: places.cloned().collect(),
            found,
        }
    });
    Ok(documents.collect())
}

async fn page(context: &PageContext, query: DocumentQuery) -> PageResult {
    let (app, language, now) = (&context.admin.app, context.viewer.language, context.now());
    let sort = query.column();
    let limit = if sort.is_some() { MAX_EXAMINED } else { ROWS };
    let mut listing = sorted(context, &query, limit).await?;
    let kinds: BTreeSet<String> = listing
        .rows
        .iter()
        .filter_map(|document| document.kind.clone())
        .collect();
    // The list goes on behind what was looked at.
    let behind = listing
        .next
        .map(|place| query.path_from(Some(&List::DOCUMENTS.cursor(place))));
    let sorted_count = listing.rows.len() as u64;
    let companies = listing
        .rows
        .iter()
        .map(|document| &document.found.row.feed.company);
    let names = Names::read(app, companies).await?;
    let mut next = behind.clone().filter(|_| sort.is_none());
    if sort.is_some() {
        let shown = query.skip.saturating_add(ROWS);
        next = (listing.rows.len() > shown).then(|| {
            let path = query.path_from(query.after.as_deref());
            format!("{path}&skip={shown}")
        });
        listing.rows = listing
            .rows
            .into_iter()
            .skip(query.skip)
            .take(ROWS)
            .collect();
    }
    let columns = columns(language, &query);
    let caption = match sort {
        Some(_) => language.pick("Documents, sorted", "Dokumentai, surikiuoti"),
        None => language.pick("Documents, newest first", "Dokumentai, naujausi viršuje"),
    };
    let rows = listing
        .rows
        .iter()
        .map(|document| row(context, document, &names, now))
        .collect();
    Ok(PageBody {
        title: language.pick("Documents", "Dokumentai").to_owned(),
        content: html! {
            (search_form(context, &query, &kinds).await?)
            @if listing.rows.is_empty() {
                p.empty { @if behind.is_some() {
                    (language.pick(
                        "No match among the newest documents; continue with older ones on the next page.",
                        "Tarp naujausių dokumentų nerasta; ieškokite tarp senesnių kitame puslapyje.",
                    ))
                } @else {
                    (language.pick("No documents found.", "Dokumentų nerasta."))
                } }
            } @else {
                @if sort.is_some() && (behind.is_some() || query.after.is_some()) {
                    p.notice.busy {
                        (sorted_part(&query, sorted_count, listing.looked_at, language, now))
                        @if let Some(behind) = &behind {
                            " " a href=(behind) { (match query.is_searched() {
                                false => language.pick("Sort older ones", "Rikiuoti senesnius"),
                                true => language.pick("Sort the next ones", "Rikiuoti kitus"),
                            }) }
                        }
                    }
                }
                @if listing.is_incomplete {
                    p.ago { (language.pick(
                        "Too many words begin with what you wrote: write more letters to find the rest.",
                        "Per daug žodžių prasideda tuo, ką parašėte: parašykite daugiau raidžių, kad rastumėte likusius.",
                    )) }
                }
                div.documents { (table(caption, &columns, rows)) }
            }
            p.below {
                @if let Some(next) = next.as_ref().or(behind.as_ref()) {
                    a.next href=(next) { (language.pick("Next page", "Kitas puslapis")) }
                    " "
                }
                a href=(query.export_path()) { (language.pick("Download as CSV", "Atsisiųsti CSV")) }
                " " span.ago { @if query.is_exported_whole() {
                    (language.pick("All documents of this list.", "Visi šio sąrašo dokumentai."))
                } @else if sort.is_some() {
                    (language.pick("The documents that are sorted.", "Surikiuoti dokumentai."))
                } @else {
                    (language.pick(
                        "What this list shows among the newest 5,000 documents; if there are older ones, the file's name says so.",
                        "Šio sąrašo dokumentai iš 5\u{a0}000 naujausių; jei yra senesnių, tai nurodo failo pavadinimas.",
                    ))
                } }
            }
        },
        refresh: false,
    })
}

/// Says which documents are sorted, if not all of the list.
fn sorted_part(
    query: &DocumentQuery,
    count: u64,
    looked_at: Option<(Timestamp, Timestamp)>,
    language: Language,
    now: Now<'_>,
) -> Markup {
    let documents = language.count(count, ["document", "documents"], ["", "", ""]);
    // A search does not find them in the order of their arrival.
    let looked_at = looked_at.filter(|_| !query.is_searched());
    html! {
        @match (language, looked_at) {
            (Language::English, Some((oldest, newest))) => {
                "Only the " (documents) " received from " (language.time(oldest, now)) " to " (language.time(newest, now)) " are sorted."
            }
            (Language::Lithuanian, Some((oldest, newest))) => {
                "Rikiuojami tik dokumentai, gauti nuo " (language.time(oldest, now)) " iki " (language.time(newest, now))
                " (" (language.number(count)) ")."
            }
            (Language::English, None) => { "Only the " (documents) " that fit the search best are sorted." }
            (Language::Lithuanian, None) => {
                "Rikiuojami tik dokumentai, labiausiai atitinkantys paiešką (" (language.number(count)) ")."
            }
        }
    }
}

fn sort_rows(rows: &mut [ListedDocument], column: SortBy, order: Order, names: &Names) {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().to_lowercase();
    match column {
        SortBy::Number => rows.sort_by_cached_key(|row| text(&row.found.view.number)),
        SortBy::Date => rows.sort_by_cached_key(|row| text(&row.found.view.date)),
        SortBy::Partner => rows
            .sort_by_cached_key(|row| (text(&row.found.view.seller), text(&row.found.view.buyer))),
        SortBy::Company => {
            rows.sort_by_cached_key(|row| names.text(&row.found.row.feed.company).to_lowercase())
        }
        SortBy::Amount => {
            rows.sort_by_cached_key(|row| row.found.view.total.as_deref().and_then(sortable))
        }
    }
    if order == Order::Descending {
        rows.reverse();
    }
}

/// Returns an amount as a number that orders as it does: in millionths. `None` if it is no plain
/// number, or too large.
fn sortable(amount: &str) -> Option<i128> {
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let number: i128 = format!("{whole}{digits}").parse().ok()?;
    Some(number)
}

fn columns<'a>(language: Language, query: &DocumentQuery) -> Vec<Column<'a>> {
    let now = query.column();
    let sorted = |name: &'a str, class, by: SortBy| {
        let order = now
            .filter(|(column, _)| *column == by)
            .map(|(_, order)| order);
        let next = match order {
            Some(Order::Ascending) => format!("-{}", by.name()),
            _ => by.name().to_owned(),
        };
        Column::new(name, class).sorted(query.sorted_by(&next), order)
    };
    vec![
        sorted(
            language.pick("Document", "Dokumentas"),
            "main",
            SortBy::Number,
        ),
        sorted(language.pick("Date", "Data"), "date", SortBy::Date),
        sorted(
            language.pick("Seller and buyer", "Pardavėjas ir pirkėjas"),
            "parties",
            SortBy::Partner,
        ),
        sorted(
            language.pick("Company", "Įmonė"),
            "company",
            SortBy::Company,
        ),
        sorted(language.pick("Amount", "Suma"), "number", SortBy::Amount),
        Column::new(language.pick("Delivery", "Perdavimas"), "state"),
        Column::new(language.pick("Received", "Gauta"), "received").sorted(
            query.sorted_by(""),
            now.is_none().then_some(Order::Descending),
        ),
    ]
}

fn row(
    context: &PageContext,
    document: &ListedDocument,
    names: &Names,
    now: Now<'_>,
) -> Vec<Markup> {
    let language = context.viewer.language;
    let (row, view) = (&document.found.row, &document.found.view);
    let kind = document.kind.as_deref();
    vec![
        html! {
            a href={ "/documents/" (row.sequence) } { (view.number.as_deref().unwrap_or(&row.document_id)) }
            @if row.erased_at.is_some() {
                " " (badge(Severity::Neutral, language.pick("erased", "ištrinta")))
            } @else if let Some(kind) = kind {
                @match labels::document_type(language, kind) {
                    Some(label) => { " " span.kind { (label) } }
                    None => { " " span.kind lang="" { (kind) } }
                }
            }
        },
        html! { span.nowrap { (view.date.as_deref().unwrap_or("–")) } },
        html! {
            @if view.seller.is_none() && view.buyer.is_none() { "–" } @else {
                span.name { (view.seller.as_deref().unwrap_or("–")) }
                span.to { span.arrow aria-hidden="true" { "→ " } (view.buyer.as_deref().unwrap_or("–")) }
            }
        },
        html! {
            @if row.feed.company == Company::mixed() {
                span.ago { (labels::queue(language, row.feed.queue)) }
            } @else { (names.company(&row.feed.company)) }
        },
        html! {
            @match &view.total {
                Some(total) => { span.amount { (language.amount(total, view.currency.as_deref())) } }
                None => { "–" }
            }
        },
        states(context, &document.places),
        received(language, row.stored_at, now),
    ]
}

fn received(language: Language, at: Timestamp, now: Now<'_>) -> Markup {
    html! { span.nowrap { (language.age(at, now)) } }
}

/// Renders a document's state at each destination.
fn states(context: &PageContext, places: &[PlaceRow]) -> Markup {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let several = app.config.destinations.len() > 1;
    // The states of several versions at one destination: the most urgent.
    let mut shown: BTreeMap<&DestinationName, &PlaceRow> = BTreeMap::new();
    for place in places {
        let kept = shown.entry(&place.destination).or_insert(place);
        if urgency(place.state) > urgency(kept.state) {
            *kept = place;
        }
    }
    html! {
        @if shown.is_empty() { span.ago { (language.pick("stored only", "tik saugoma")) } }
        @for (name, place) in shown {
            @let (severity, word) = labels::delivery(language, place.state, taking(app, name));
            span.place {
                (badge(severity, word))
                @if several { " " span.code { (name) } }
            }
        }
    }
}

const fn urgency(state: DeliveryState) -> u8 {
    match state {
        DeliveryState::Rejected => 7,
        DeliveryState::Deferred => 6,
        DeliveryState::WaitingFile => 5,
        DeliveryState::Pending => 4,
        DeliveryState::Delivered => 3,
        DeliveryState::Held => 2,
        DeliveryState::Skipped => 1,
        DeliveryState::Superseded => 0,
    }
}

/// Returns what a destination does with documents.
pub(super) fn taking(app: &App, name: &DestinationName) -> Taking {
    match app.config.destinations.get(name).map(|one| &one.kind) {
        Some(DestinationKind::Folder { .. }) => Taking::Keeps,
        _ => Taking::Accepts,
    }
}

async fn search_form(
    context: &PageContext,
    query: &DocumentQuery,
    kinds: &BTreeSet<String>,
) -> Result<Markup, PageError> {
    let (app, language) = (&context.admin.app, context.viewer.language);
    let mut kinds = kinds.clone();
    if !query.r#type.is_empty() {
        kinds.insert(query.r#type.clone());
    }
    let feeds = app.store.feed_page(None, MAX_CHOICES).await?;
    let mut companies: Vec<&Company> = feeds
        .iter()
        .filter(|row| row.feed.queue == Queue::Exported && row.feed.company != Company::mixed())
        .map(|row| &row.feed.company)
        .collect();
    companies.sort_unstable();
    companies.dedup();
    companies.truncate(MAX_CHOICES);
    let names = Names::read(app, companies.iter().copied()).await?;
    let mut companies: Vec<(String, &str)> = companies
        .into_iter()
        .map(|company| (names.text(company), company.as_str()))
        .collect();
    companies.sort_by_cached_key(|(name, _)| name.to_lowercase());
    let is_known = companies.iter().any(|(_, code)| *code == query.company);
    let more = !query.since.is_empty()
        || !query.until.is_empty()
        || !query.destination.is_empty()
        || !query.r#type.is_empty()
        || !query.queue.is_empty();
    Ok(html! {
        form.search.filters method="get" action="/documents" {
            div.wide {
                label for="q" { (language.pick("Number, partner, code, amount, date or file", "Numeris, partneris, kodas, suma, data ar failas")) }
                input id="q" name="q" type="search" maxlength="100" value=(query.q);
            }
            div.wide {
                label for="company" { (language.pick("Company", "Įmonė")) }
                select id="company" name="company" {
                    option value="" { (language.pick("all", "visos")) }
                    @if !query.company.is_empty() && !is_known {
                        option value=(query.company) selected { (query.company) }
                    }
                    @for (name, code) in &companies {
                        option value=(code) selected[*code == query.company] { (name) }
                    }
                }
            }
            div {
                label for="state" { (language.pick("State", "Būsena")) }
                select id="state" name="state" {
                    option value="" { (language.pick("all", "visos")) }
                    @for state in DeliveryState::ALL {
                        option value=(state.as_str()) selected[state.as_str() == query.state] {
                            (labels::delivery(language, state, Taking::Accepts).1)
                        }
                    }
                }
            }
            details.more open[more] {
                summary { (language.pick("More filters", "Daugiau filtrų")) }
                div.folded {
                    div {
                        label for="since" { (language.pick("Dated from", "Data nuo")) }
                        input id="since" name="since" type="date" value=(query.since);
                    }
                    div {
                        label for="until" { (language.pick("to", "iki")) }
                        input id="until" name="until" type="date" value=(query.until);
                    }
                    div {
                        label for="destination" { (language.pick("Destination", "Gavėjas")) }
                        select id="destination" name="destination" {
                            option value="" { (language.pick("all", "visi")) }
                            @for name in app.config.destinations.keys() {
                                option value=(name) selected[name.as_str() == query.destination] { (name) }
                            }
                        }
                    }
                    div {
                        label for="type" { (language.pick("Type", "Rūšis")) }
                        select id="type" name="type" {
                            option value="" { (language.pick("all", "visos")) }
                            @for kind in &kinds {
                                option value=(kind) selected[*kind == query.r#type] {
                                    (labels::document_type(language, kind).unwrap_or(kind))
                                }
                            }
                        }
                    }
                    div {
                        label for="queue" { (language.pick("Stage", "Etapas")) }
                        select id="queue" name="queue" {
                            option value="" { (language.pick("both", "abu")) }
                            @for queue in Queue::ALL {
                                option value=(queue) selected[query.queue == queue.as_str()] {
                                    (labels::queue(language, queue))
                                }
                            }
                        }
                    }
                }
            }
            @if query.column().is_some() { input type="hidden" name="sort" value=(query.sort); }
            button.primary type="submit" { (language.pick("Search", "Ieškoti")) }
            @if query.path() != "/documents" {
                a.reset href="/documents" { (language.pick("Show all", "Rodyti visus")) }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_sorted_as_numbers() {
        let mut amounts = ["9.5", "-3", "100", "9.49", "abc", "0.000001"];
        amounts.sort_by_key(|amount| sortable(amount));
        assert_eq!(amounts, ["abc", "-3", "0.000001", "9.49", "9.5", "100"]);
    }

    #[test]
    fn filters_and_sorting_are_in_the_address() {
        let query = DocumentQuery {
            q: "AB 1".to_owned(),
            state: "rejected".to_owned(),
            sort: "-amount".to_owned(),
            skip: 50,
            ..DocumentQuery::default()
        };
        assert_eq!(
            query.path(),
            "/documents?q=AB+1&state=rejected&sort=-amount"
        );
        assert_eq!(query.column(), Some((SortBy::Amount, Order::Descending)));
        assert_eq!(DocumentQuery::default().path(), "/documents");
    }
}
