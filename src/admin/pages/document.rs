//! A document: the invoice as a person reads it, its file, its state at each destination with
//! what a person can do, its story, its versions and its JSON.

use std::fs::File;
use std::io::Read as _;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use bytes::Bytes;
use futures_util::stream;
use maud::{Markup, html};
use serde_json::Value;

use super::context::{PageContext, PageError, PageResult};
use super::documents::{Found, taking};
use super::labels::{self, Notice, Severity};
use super::language::{Language, Now};
use super::layout::{Column, PageBody, badge, button, folded, form_token_input, render, table};
use super::names::{Names, shown_field};
use crate::admin::problem::AdminError;
use crate::delivery::shown_file::{self, FileError};
use crate::domain::Company;
use crate::ivesk::Entry;
use crate::store::{
    DeliveryFilter, DeliveryRow, DeliveryState, DocumentRow, DocumentSearch, PlaceRow,
};
use crate::trace::{self, Step, Trace};
use crate::visible::foreign;

/// Maximum number of versions shown of one document.
const MAX_VERSIONS: u16 = 50;

/// Maximum number of lines shown of one document.
const MAX_LINES: usize = 500;

/// Maximum number of changes shown between two versions.
const MAX_CHANGES: usize = 50;

/// Longest JSON that is shown, in bytes.
const MAX_JSON: usize = 64 * 1024;

/// Bytes of a file that are sent at once.
const CHUNK: usize = 64 * 1024;

/// Fields that belong to a place of their own on the page, or mean nothing to a reader.
const PLACED: [&str; 24] = [
    "id",
    "url",
    "docnum",
    "doctype",
    "date",
    "duedate",
    "total",
    "subtotal",
    "vat",
    "currency",
    "line",
    "exportedat",
    "digitizedat",
    "sourcedata",
    "userdata",
    "sellerisfavorite",
    "buyerisfavorite",
    "sellerisperson",
    "buyerisperson",
    "sellerid",
    "buyerid",
    "separatevat",
    "hasreceipt",
    "report2isaf",
];

pub(super) async fn page(context: PageContext, path: Result<Path<i64>, PathRejection>) -> Response {
    let result = match path {
        Ok(Path(sequence)) => document(&context, sequence).await,
        Err(_) => Err(PageError(AdminError::UnknownRow)),
    };
    context.respond(result)
}

async fn document(context: &PageContext, sequence: i64) -> PageResult {
    let (app, language, now) = (&context.admin.app, context.viewer.language, context.now());
    let row = app.store.document(sequence).await?;
    let row = row.ok_or(AdminError::UnknownRow)?;
    let versions = app.store.search_documents(DocumentSearch {
        account: Some(row.feed.account.clone()),
        document_id: Some(row.document_id.clone()),
        versions: MAX_VERSIONS,
        ..DocumentSearch::default()
    });
    let versions = versions.await?.rows;
    let (account, id) = (row.feed.account.clone(), row.document_id.clone());
    let document_trace = trace::of_document(&app.store, account, id).await?;
    let current: Vec<i64> = versions
        .iter()
        .filter(|version| !version.superseded || version.sequence == sequence)
        .map(|version| version.sequence)
        .collect();
    let places = app.store.places(current).await?;
    let mut deliveries = Vec::new();
    for place in &places {
        let filter = DeliveryFilter {
            destination: Some(place.destination.clone()),
            sequence: Some(place.sequence),
            limit: 1,
            ..DeliveryFilter::default()
        };
        deliveries.push(app.store.deliveries(filter).await?.pop());
    }
    let names = Names::read(app, versions.iter().map(|row| &row.feed.company)).await?;
    let found = Found::from(row);
    let number = found.view.number.clone();
    let title = format!(
        "{} {}",
        language.pick("Document", "Dokumentas"),
        number.as_deref().unwrap_or(&found.row.document_id)
    );
    let entry = found.row.body.as_deref().and_then(Entry::parse);
    let newer = versions
        .iter()
        .filter(|version| !version.superseded && version.sequence > sequence)
        .map(|version| version.sequence)
        .max();
    Ok(PageBody {
        title,
        content: html! {
            @if found.row.erased_at.is_some() {
                p.notice.bad { (language.pick("This document was erased.", "Šis dokumentas ištrintas.")) }
            } @else if found.row.superseded && let Some(newer) = newer {
                p.notice.busy {
                    (language.pick("This version was replaced. ", "Ši versija pakeista. "))
                    a href={ "/documents/" (newer) } { (language.pick("Show the current one", "Rodyti dabartinę")) }
                }
            }
            @if let Some(entry) = &entry {
                (invoice(context, &found, entry, &names))
            } @else if found.row.erased_at.is_none() {
                p { (language.pick(
                    "Its contents are no longer kept; Įvesk.lt has them.",
                    "Dokumento turinys čia nebesaugomas; jį turi Įvesk.lt.",
                )) }
            }
            (delivery_section(context, &places, &deliveries, now))
            @if entry.is_some() && context.viewer.may_operate() { (report_form(context, &found, &places)) }
            (timeline(context, &document_trace, now))
            (versions_section(context, &versions, sequence, &names, now))
            @if let Some(body) = &found.row.body { (raw_json(language, body)) }
        },
        refresh: false,
    })
}

/// Renders the document as a person reads an invoice.
fn invoice(context: &PageContext, found: &Found, entry: &Entry<'_>, names: &Names) -> Markup {
    let language = context.viewer.language;
    let (row, view) = (&found.row, &found.view);
    let field = |name: &str| shown_field(entry, name);
    let money =
        |name: &str| field(name).map(|amount| language.amount(&amount, view.currency.as_deref()));
    let kind = field("doctype");
    let own = entry.side(&row.feed.company);
    use crate::ivesk::document::Side;
    let others: Vec<(String, String)> = entry
        .all()
        .filter(|(name, _)| !is_placed(name))
        .filter_map(|(name, _)| Some((name.to_owned(), field(name)?)))
        .take(MAX_CHANGES)
        .collect();
    html! {
        article.invoice {
            div.parties {
                (party(language, entry, "seller", language.pick("Seller", "Pardavėjas"), own == Some(Side::Seller)))
                (party(language, entry, "buyer", language.pick("Buyer", "Pirkėjas"), own == Some(Side::Buyer)))
            }
            dl.facts {
                (fact(language.pick("Number", "Numeris"), view.number.as_deref()))
                (fact(language.pick("Type", "Rūšis"), kind.as_deref().map(|kind| labels::document_type(language, kind).unwrap_or(kind))))
                (fact(language.pick("Date", "Data"), view.date.as_deref()))
                (fact(language.pick("Due", "Apmokėti iki"), field("duedate").as_deref().map(|day| day.get(..10).unwrap_or(day))))
                div {
                    dt { (language.pick("Company", "Įmonė")) }
                    dd {
                        @if row.feed.company == Company::mixed() { (labels::queue(language, row.feed.queue)) }
                        @else { (names.company(&row.feed.company)) }
                    }
                }
                @if context.admin.app.config.accounts.len() > 1 {
                    (fact(language.pick("Account", "Paskyra"), Some(row.feed.account.as_str())))
                }
                @for (name, value) in &others {
                    @match labels::field(language, name) {
                        Some(label) => { (fact(label, Some(value))) }
                        None => { div { dt lang="" { (name) } dd lang="" { (value) } } }
                    }
                }
                div { dt { "Įvesk.lt ID" } dd.code { (row.document_id) } }
            }
            (lines(language, entry, view.currency.as_deref()))
            dl.sums {
                @for (name, label) in [
                    ("subtotal", language.pick("Without VAT", "Suma be PVM")),
                    ("vat", language.pick("VAT", "PVM")),
                ] {
                    @if let Some(amount) = money(name) { div { dt { (label) } dd.amount { (amount) } } }
                }
                div.total { dt { (language.pick("Total", "Suma su PVM")) } dd.amount { (money("total").unwrap_or_else(|| "–".to_owned())) } }
            }
            @if entry.link().is_some() {
                p.file { a.action href={ "/documents/" (row.sequence) "/file" } { (language.pick("Open the file (PDF)", "Atidaryti failą (PDF)")) } }
            }
        }
    }
}

fn is_placed(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let of_party = [
        "name",
        "nameascii",
        "code",
        "vat",
        "address",
        "country",
        "iban",
    ];
    let is_of_party = ["seller", "buyer"].iter().any(|party| {
        name.strip_prefix(party)
            .is_some_and(|leaf| of_party.contains(&leaf))
    });
    is_of_party || PLACED.contains(&name.as_str())
}

fn fact(name: &str, value: Option<&str>) -> Markup {
    html! { @if let Some(value) = value { div { dt { (name) } dd { (value) } } } }
}

fn party(language: Language, entry: &Entry<'_>, party: &str, label: &str, is_own: bool) -> Markup {
    let field = |leaf: &str| shown_field(entry, &format!("{party}{leaf}"));
    html! {
        section.party aria-label=(label) {
            h2 { (label) @if is_own { " " span.badge.own { (language.pick("your company", "jūsų įmonė")) } } }
            p.name { (field("name").or_else(|| field("nameascii")).unwrap_or_else(|| "–".to_owned())) }
            @if let Some(code) = field("code") { p { (language.pick("Code ", "Kodas ")) span.code { (code) } } }
            @if let Some(vat) = field("vat") { p { (language.pick("VAT code ", "PVM kodas ")) span.code { (vat) } } }
            @if let Some(address) = field("address") { p { (address) } }
            @if let Some(country) = field("country") { p { (country) } }
            @if let Some(iban) = field("iban") { p { (language.pick("Account ", "Sąskaita ")) span.code { (iban) } } }
        }
    }
}

/// Renders the lines, with the columns that any of them has.
fn lines(language: Language, entry: &Entry<'_>, currency: Option<&str>) -> Markup {
    const COLUMNS: [(&str, &str); 10] = [
        ("code", ""),
        ("name", "main"),
        ("quantity", "number"),
        ("unit", ""),
        ("price", "number"),
        ("subtotal", "number"),
        ("vatpercent", "number"),
        ("vat", "number"),
        ("total", "number"),
        ("object", ""),
    ];
    let lines = entry.lines();
    let parsed: Vec<Entry<'_>> = lines
        .iter()
        .take(MAX_LINES)
        .filter_map(|line| Entry::parse(line.as_bytes()))
        .collect();
    let used: Vec<(&str, &str)> = COLUMNS
        .into_iter()
        .filter(|(name, _)| parsed.iter().any(|line| shown_field(line, name).is_some()))
        .collect();
    if used.is_empty() {
        return html! {};
    }
    let columns: Vec<Column<'_>> = used
        .iter()
        .map(|(name, class)| {
            Column::new(
                labels::field(language, name).unwrap_or(name),
                class_of(class),
            )
        })
        .collect();
    let rows = parsed.iter().map(|line| {
        let cells = used.iter().map(|(name, class)| {
            let value = shown_field(line, name).unwrap_or_default();
            let decimals = match *name {
                "quantity" | "vatpercent" => 0,
                _ => 2,
            };
            html! {
                @if *class == "number" { span.amount { (language.decimal(&value, decimals)) } } @else { (value) }
            }
        });
        cells.collect()
    });
    html! {
        div.lines { (table(language.pick("Lines", "Eilutės"), &columns, rows.collect())) }
        @if lines.len() > MAX_LINES {
            p.ago { (language.count(
                (lines.len() - MAX_LINES) as u64,
                ["more line is in the JSON", "more lines are in the JSON"],
                ["kita eilutė yra JSON", "kitos eilutės yra JSON", "kitų eilučių yra JSON"],
            )) }
        }
        @if let Some(currency) = currency { p.ago { (language.pick("Amounts in ", "Sumos ")) (currency) } }
    }
}

/// Returns a class of the style sheet by its name.
fn class_of(name: &str) -> &'static str {
    match name {
        "main" => "main",
        "number" => "number",
        _ => "",
    }
}

/// Renders the state at each destination, with what a person can do about it.
fn delivery_section(
    context: &PageContext,
    places: &[PlaceRow],
    deliveries: &[Option<DeliveryRow>],
    now: Now<'_>,
) -> Markup {
    let language = context.viewer.language;
    html! {
        section aria-labelledby="delivery" {
            h2 id="delivery" { (language.pick("Delivery", "Perdavimas")) }
            @if places.is_empty() {
                p { (language.pick("No destination takes this document: it is stored here.", "Šio dokumento neima nė vienas gavėjas: jis saugomas čia.")) }
            }
            ul.cards {
                @for (place, delivery) in places.iter().zip(deliveries) {
                    li { (place_card(context, place, delivery.as_ref(), now)) }
                }
            }
        }
    }
}

fn place_card(
    context: &PageContext,
    place: &PlaceRow,
    delivery: Option<&DeliveryRow>,
    now: Now<'_>,
) -> Markup {
    let (app, viewer, language) = (&context.admin.app, &context.viewer, context.viewer.language);
    let taking = taking(app, &place.destination);
    let (severity, word) = labels::delivery(language, place.state, taking);
    let name = place.destination.as_str();
    let sequence = place.sequence.to_string();
    let back = format!("/documents/{sequence}");
    let act = |action: &'static str, label: &str| {
        let fields = [
            ("destination", name),
            ("action", action),
            ("sequence", &*sequence),
            ("back", &*back),
        ];
        button(viewer, "/do/delivery", &fields, label, Some(name))
    };
    let is_configured = app.config.destinations.contains_key(&place.destination);
    use DeliveryState::{
        Deferred, Delivered, Held, Pending, Rejected, Skipped, Superseded, WaitingFile,
    };
    html! {
        p { strong { (name) } " " (badge(severity, word))
            @if let Some(at) = place.changed_at { " " (language.moment(at, now)) } }
        @if let Some(detail) = place.detail.as_deref().filter(|_| place.state != Delivered) {
            p.reason lang="" { (foreign(detail)) }
        }
        @if let Some(fix) = labels::delivery_fix(language, place.state) { p { (fix) } }
        @if let Some(at) = place.next_try_at.filter(|at| *at > now.at) {
            p { (language.pick("Tried again ", "Bus bandoma ")) (language.moment(at, now)) }
        }
        @if let Some(row) = delivery && row.attempts.len() > 1 {
            (folded("", language.pick("Attempts", "Bandymai"), &html! {
                ol.story { @for attempt in row.attempts.iter().rev() {
                    @let (severity, word) = labels::attempt(language, &attempt.result, taking);
                    li { (badge(severity, word)) " " (language.moment(attempt.ended_at, now))
                        @if attempt.times > 1 { " × " (language.number(attempt.times)) }
                        @if let Some(detail) = &attempt.detail { p lang="" { (foreign(detail)) } } }
                } }
            }))
        }
        @if viewer.may_operate() && is_configured {
            div.buttons {
                @match place.state {
                    Rejected | Deferred | WaitingFile => {
                        (act("retry", language.pick("Retry", "Perduoti iš naujo")))
                        (act("skip", language.pick("Skip", "Praleisti")))
                    }
                    Pending => { (act("skip", language.pick("Skip", "Praleisti"))) }
                    Held | Skipped => { (act("deliver", language.pick("Deliver", "Perduoti"))) }
                    Delivered => {
                        (folded("ask", language.pick("Deliver again…", "Perduoti dar kartą…"), &html! {
                            p { (language.pick(
                                "The destination has this version already, and may book it twice.",
                                "Gavėjas šią versiją jau turi ir gali apskaityti dukart.",
                            )) }
                            (act("deliver", language.pick("Deliver again", "Perduoti dar kartą")))
                        }))
                    }
                    Superseded => {}
                }
            }
        }
    }
}

/// Renders the form that tells the accountant about the document.
fn report_form(context: &PageContext, found: &Found, places: &[PlaceRow]) -> Markup {
    let language = context.viewer.language;
    let sequence = found.row.sequence;
    let rejected = places
        .iter()
        .find(|place| place.state == DeliveryState::Rejected);
    let reason = rejected.and_then(|place| place.detail.as_deref());
    html! {
        (folded("ask", language.pick("Report to the accountant…", "Pranešti buhalteriui…"), &html! {
            form.report method="post" action="/do/report" {
                (form_token_input(&context.viewer))
                input type="hidden" name="sequence" value=(sequence);
                label for="message" { (language.pick("What is wrong with the document", "Kas dokumente negerai")) }
                textarea id="message" name="message" rows="3" maxlength="300" required { (reason.map(foreign).unwrap_or_default()) }
                p.ago { (language.pick(
                    "The accountant sees these words beside the document at Įvesk.lt.",
                    "Šiuos žodžius buhalteris mato prie dokumento Įvesk.lt.",
                )) }
                button type="submit" { (language.pick("Report", "Pranešti")) }
            }
        }))
    }
}

/// Renders the document's steps in order.
fn timeline(context: &PageContext, trace: &Trace, now: Now<'_>) -> Markup {
    let language = context.viewer.language;
    html! {
        section aria-labelledby="timeline" {
            h2 id="timeline" { (language.pick("Timeline", "Dokumento eiga")) }
            ol.story {
                @for event in &trace.events {
                    li {
                        strong { (labels::step(language, event.step)) }
                        @if let Some(destination) = &event.destination { " " span.code { (destination) } }
                        @if event.times > 1 { " × " (language.number(event.times)) }
                        " " (language.moment(event.at, now))
                        @if let Some(detail) = event.detail.as_ref().filter(|_| !is_version(event.step)) {
                            p lang="" { (foreign(detail)) }
                        }
                    }
                }
            }
        }
    }
}

/// Returns true if a step is a version, which the page shows below.
const fn is_version(step: Step) -> bool {
    matches!(step, Step::Digitized | Step::Exported | Step::ReExported)
}

/// Renders the versions, newest first, each with what it changed.
fn versions_section(
    context: &PageContext,
    versions: &[DocumentRow],
    shown: i64,
    names: &Names,
    now: Now<'_>,
) -> Markup {
    let language = context.viewer.language;
    html! {
        section aria-labelledby="versions" {
            h2 id="versions" { (language.pick("Versions", "Versijos")) }
            ol.versions {
                @for (at, row) in versions.iter().enumerate() {
                    @let earlier = versions[at + 1..].iter().find(|other| other.feed == row.feed);
                    li {
                        p {
                            @if row.sequence == shown {
                                strong { (language.pick("Record No. ", "Įrašo Nr. ")) (row.sequence) }
                            } @else {
                                a href={ "/documents/" (row.sequence) } { (language.pick("Record No. ", "Įrašo Nr. ")) (row.sequence) }
                            }
                            ", " (labels::queue_of_version(language, row.feed.queue))
                            @if row.feed.company != Company::mixed() { ", " (names.company(&row.feed.company)) }
                            " " (version_state(language, row))
                        }
                        p.ago { (language.pick("Version ", "Versija ")) span.code { (row.version) }
                            ", " (language.pick("received ", "gauta ")) (language.time(row.stored_at, now)) }
                        @if let Some(earlier) = earlier { (changes(language, earlier, row)) }
                    }
                }
            }
        }
    }
}

fn version_state(language: Language, row: &DocumentRow) -> Markup {
    if row.erased_at.is_some() {
        badge(Severity::Neutral, language.pick("erased", "ištrinta"))
    } else if row.superseded {
        badge(
            Severity::Neutral,
            language.pick("superseded", "pakeista naujesne"),
        )
    } else {
        badge(Severity::Ok, language.pick("current", "dabartinė"))
    }
}

/// Renders what changed from one version to the next, field by field.
fn changes(language: Language, earlier: &DocumentRow, later: &DocumentRow) -> Markup {
    let changes = match (&earlier.body, &later.body) {
        (Some(before), Some(after)) => changed_fields(before, after),
        _ => {
            return html! {
                p.ago { (language.pick("What changed is no longer known.", "Kas pasikeitė, nebežinoma.")) }
            };
        }
    };
    let columns = [
        Column::new(language.pick("Field", "Laukas"), "main"),
        Column::new(language.pick("Before", "Buvo"), ""),
        Column::new(language.pick("Now", "Yra"), ""),
    ];
    let more = changes.len().saturating_sub(MAX_CHANGES);
    let is_empty = changes.is_empty();
    let rows = changes.into_iter().take(MAX_CHANGES).map(|change| {
        let value = |value: Option<String>| {
            html! { @match value { Some(value) => { span lang="" { (value) } } None => { "–" } } }
        };
        vec![
            html! {
                @match labels::field(language, &change.name) {
                    Some(label) => { (label) }
                    None => { code { (change.name) } }
                }
            },
            value(change.before),
            value(change.after),
        ]
    });
    html! {
        @if is_empty {
            p.ago { (language.pick("Nothing but its time changed.", "Pasikeitė tik laikas.")) }
        } @else {
            div.changes { (table(language.pick("What changed", "Kas pasikeitė"), &columns, rows.collect())) }
            @if more > 0 { p { "…" } }
        }
    }
}

/// A field that differs between two versions.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    name: String,
    before: Option<String>,
    after: Option<String>,
}

/// Returns the fields that differ, in the order of the later version. Times of export and links
/// differ always.
fn changed_fields(before: &[u8], after: &[u8]) -> Vec<Change> {
    let (Some(before), Some(after)) = (Entry::parse(before), Entry::parse(after)) else {
        return Vec::new();
    };
    let is_ignored = |name: &str| {
        ["url", "exportedat", "digitizedat"].contains(&name.to_ascii_lowercase().as_str())
    };
    let value = |entry: &Entry<'_>, name: &str| {
        let raw = entry.raw(name)?;
        Some(shown_field(entry, name).unwrap_or_else(|| foreign(raw)))
    };
    let later = after.all().map(|(name, _)| name);
    let removed = before
        .all()
        .map(|(name, _)| name)
        .filter(|name| after.raw(name).is_none());
    later
        .chain(removed)
        .filter(|name| !is_ignored(name) && before.raw(name) != after.raw(name))
        .map(|name| Change {
            name: name.to_owned(),
            before: value(&before, name),
            after: value(&after, name),
        })
        .filter(|change| change.before != change.after || change.before.is_some())
        .collect()
}

/// Renders the JSON as the vendor sent it, without links.
fn raw_json(language: Language, body: &[u8]) -> Markup {
    let shown = match serde_json::from_slice::<Value>(body) {
        Ok(mut value) if body.len() <= MAX_JSON => {
            cut_links(&mut value);
            serde_json::to_string_pretty(&value).unwrap_or_default()
        }
        Ok(_) => language
            .pick("It is too long to be shown.", "Per ilgas rodyti.")
            .to_owned(),
        Err(error) => foreign(&error.to_string()),
    };
    folded(
        "json",
        language.pick("JSON of Įvesk.lt", "Įvesk.lt JSON"),
        &html! { pre tabindex="0" { code lang="" { (shown) } } },
    )
}

/// Replaces links, which give access to everybody who has them.
fn cut_links(value: &mut Value) {
    match value {
        Value::String(text) if is_secret(text) => *text = "[…]".to_owned(),
        Value::Array(items) => items.iter_mut().for_each(cut_links),
        Value::Object(fields) => fields.values_mut().for_each(cut_links),
        _ => {}
    }
}

/// Returns true if a text is a link or holds a part of one that gives access.
fn is_secret(text: &str) -> bool {
    const PARTS: [&str; 5] = ["://", "signature=", "token=", "credential=", "accesskeyid="];
    let lower = text.to_ascii_lowercase();
    PARTS.iter().any(|part| lower.contains(part))
}

/// Returns the document's PDF, fetched with the checks of deliveries.
pub(super) async fn file(context: PageContext, path: Result<Path<i64>, PathRejection>) -> Response {
    let Ok(Path(sequence)) = path else {
        return context.error_page(&AdminError::UnknownRow);
    };
    match fetch(&context, sequence).await {
        Ok(Ok(response)) => response,
        Ok(Err(FileError::Expired)) => {
            let (store, now) = (&context.admin.app.store, context.now().at);
            match store.request_link(sequence, now).await {
                Ok(()) => {
                    let notice = Notice::LinkRequested.query();
                    Redirect::to(&format!("/documents/{sequence}?{notice}")).into_response()
                }
                Err(error) => context.error_page(&error.into()),
            }
        }
        Ok(Err(error)) => no_file(&context, sequence, &error),
        Err(error) => context.error_page(&error),
    }
}

async fn fetch(
    context: &PageContext,
    sequence: i64,
) -> Result<Result<Response, FileError>, AdminError> {
    let app = &context.admin.app;
    let row = app.store.document(sequence).await?;
    let row = row.ok_or(AdminError::UnknownRow)?;
    // Bounded together with exports: each may hold a file.
    let permit = context.admin.exports.clone().try_acquire_owned();
    let permit = permit.map_err(|_| {
        AdminError::Conflict("other files and tables are being sent; try again".into())
    })?;
    let listed = app.store.listed_link(sequence).await?;
    let entry = row.body.as_deref().and_then(Entry::parse);
    let own = entry.as_ref().and_then(Entry::link);
    let link = listed.as_ref().map(|link| &link.url).or(own.as_ref());
    let listed_at = listed.as_ref().map(|link| link.listed_at);
    let fetched = shown_file::fetch(&app.config.api, app.clock.clone(), link, listed_at).await;
    let file = match fetched {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    let view = Found::from(row).view;
    let name: String = view
        .number
        .unwrap_or_else(|| sequence.to_string())
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(80)
        .collect();
    let disposition = format!("inline; filename=\"{name}.pdf\"");
    let mut response =
        Body::from_stream(stream::unfold(Some((file, permit)), next_part)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/pdf"));
    if let Ok(disposition) = HeaderValue::from_str(&disposition) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    Ok(Ok(response))
}

/// A file that is being sent, and its place among those.
type Sent = Option<(File, tokio::sync::OwnedSemaphorePermit)>;

/// Reads the next part of a file; its last, if it can't be read, is the error.
async fn next_part(sent: Sent) -> Option<(std::io::Result<Bytes>, Sent)> {
    let (mut file, permit) = sent?;
    let read = tokio::task::spawn_blocking(move || {
        let mut part = vec![0; CHUNK];
        let read = file.read(&mut part);
        read.map(|length| {
            part.truncate(length);
            (file, part)
        })
    });
    match read.await.map_err(std::io::Error::other).flatten() {
        Ok((_, part)) if part.is_empty() => None,
        Ok((file, part)) => Some((Ok(part.into()), Some((file, permit)))),
        Err(error) => Some((Err(error), None)),
    }
}

/// Returns the page about a file that can't be shown.
fn no_file(context: &PageContext, sequence: i64, error: &FileError) -> Response {
    let language = context.viewer.language;
    let body = PageBody {
        title: language.pick("No file", "Failo nėra").to_owned(),
        content: html! {
            p.notice.bad role="alert" {
                @match error {
                    FileError::Missing(_) => { (language.pick("The document has no file that can be shown.", "Dokumentas neturi failo, kurį būtų galima parodyti.")) }
                    _ => { (language.pick("The file can't be fetched now; try again later.", "Failo dabar gauti nepavyko; bandykite vėliau.")) }
                }
            }
            p lang="en" { (foreign(&error.to_string())) }
            p { a href={ "/documents/" (sequence) } { (language.pick("Back to the document", "Atgal į dokumentą")) } }
        },
        refresh: false,
    };
    let page = render(&context.viewer, body);
    (StatusCode::BAD_GATEWAY, Html(page.into_string())).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_between_versions_is_told_by_field() {
        let before = br#"{"id":"1","docnum":"AB-1","total":"10.00","url":"https://a","buyername":"X","line":[{"total":1}]}"#;
        let after = br#"{"id":"1","docnum":"AB-1","total":"12.00","url":"https://b","line":[{"total":2}],"vat":2}"#;
        let change = |name: &str, before: Option<&str>, after: Option<&str>| Change {
            name: name.to_owned(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        assert_eq!(
            changed_fields(before, after),
            [
                change("total", Some("10.00"), Some("12.00")),
                change("line", Some(r#"[{"total":1}]"#), Some(r#"[{"total":2}]"#)),
                change("vat", None, Some("2")),
                change("buyername", Some("X"), None),
            ]
        );
    }

    #[test]
    fn the_json_is_shown_without_links() {
        let body = br#"{"id":"1","url":"https://files.example/x?Signature=secret","n":[{"u":"https://y"}]}"#;
        let shown = raw_json(Language::English, body).into_string();
        assert!(
            !shown.contains("secret") && !shown.contains("https"),
            "{shown}"
        );
        assert!(shown.contains("[…]"), "{shown}");
    }
}
