//! The frame of every page, and the elements that pages are built from.

use std::borrow::Cow;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::labels::Severity;
use super::language::Language;
use super::viewer::{FORM_TOKEN_FIELD, Viewer};
use crate::admin::problem::AdminError;
use crate::visible::{escaped, is_invisible};

/// Title and content of one page.
pub(super) struct PageBody {
    pub(super) title: String,
    pub(super) content: Markup,
    /// True if the page shows what changes by itself: the script refreshes it.
    pub(super) refresh: bool,
}

/// Menu entries: path, English and Lithuanian name. First what a bookkeeper looks at, then the
/// connection to Įvesk.lt.
const MENU: [(&str, &str, &str); 11] = [
    ("/", "Overview", "Apžvalga"),
    ("/documents", "Documents", "Dokumentai"),
    ("/destinations", "Delivery", "Perdavimas"),
    ("/import-errors", "Import errors", "Importo klaidos"),
    ("/feeds", "Companies", "Įmonės"),
    ("/uploads", "Uploads", "Įkėlimai"),
    ("/alarms", "Alarms", "Įspėjimai"),
    ("/subscriptions", "Subscriptions", "Prenumeratos"),
    ("/quarantine", "Quarantine", "Karantinas"),
    ("/certificates", "Certificates", "Sertifikatai"),
    ("/audit", "Audit list", "Veiksmų sąrašas"),
];

/// Renders a whole page. What is invisible in it is shown as an escape: it can only come from
/// documents, messages and names that others wrote.
pub(super) fn render(viewer: &Viewer, body: PageBody) -> Markup {
    let page = frame(viewer, body).into_string();
    let is_hidden = |c: char| is_invisible(c) && c != '\n' && c != '\t';
    match escaped(&page, is_hidden) {
        Cow::Borrowed(_) => PreEscaped(page),
        Cow::Owned(shown) => PreEscaped(shown),
    }
}

fn frame(viewer: &Viewer, body: PageBody) -> Markup {
    let language = viewer.language;
    html! {
        (DOCTYPE)
        html lang=(language.code()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (body.title) " – ivesk-webhook" }
                link rel="stylesheet" href="/style.css";
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                script src="/pages.js" defer {}
            }
            body {
                a.skip href="#main" { (language.pick("Skip to content", "Pereiti prie turinio")) }
                header {
                    a.brand href="/" { "ivesk-webhook" }
                    @if viewer.rights.is_some() { (find(viewer)) }
                    div.tools {
                        (languages(viewer))
                        @if viewer.has_session {
                            (button(viewer, "/logout", &[], language.pick("Log out", "Atsijungti"), None))
                        }
                    }
                }
                @if viewer.rights.is_some() { (menu(viewer)) }
                main id="main" tabindex="-1" data-refresh=[body.refresh.then_some("30")] {
                    h1 { (body.title) }
                    @if let Some(notice) = &viewer.notice {
                        p.notice.good[notice.is_success()].bad[!notice.is_success()] role="status" {
                            (with_code(&notice.text(language)))
                        }
                    }
                    (body.content)
                }
                footer { "ivesk-webhook " (env!("CARGO_PKG_VERSION")) }
            }
        }
    }
}

/// Renders the search for documents, which `/` on the keyboard reaches.
fn find(viewer: &Viewer) -> Markup {
    let language = viewer.language;
    html! {
        form.find method="get" action="/documents" role="search" {
            input id="find" name="q" type="search" maxlength="100" aria-keyshortcuts="/"
                aria-label=(language.pick("Find a document by number, partner or code", "Rasti dokumentą pagal numerį, partnerį ar kodą"))
                placeholder=(language.pick("Find a document…", "Rasti dokumentą…"));
            button type="submit" { (language.pick("Find", "Rasti")) }
        }
    }
}

fn menu(viewer: &Viewer) -> Markup {
    let language = viewer.language;
    let is_here = |path: &str| match path {
        "/" => viewer.path == "/",
        "/destinations" => viewer.path.starts_with(path) || viewer.path == "/deliveries",
        path => viewer.path.starts_with(path),
    };
    html! {
        nav aria-label=(language.pick("Pages", "Puslapiai")) {
            ul {
                @for (path, english, lithuanian) in MENU {
                    li {
                        a href=(path) aria-current=[is_here(path).then_some("page")] {
                            (language.pick(english, lithuanian))
                        }
                    }
                }
            }
        }
    }
}

/// Renders the link to the other language.
fn languages(viewer: &Viewer) -> Markup {
    let (code, name) = match viewer.language {
        Language::English => ("lt", "Lietuviškai"),
        Language::Lithuanian => ("en", "English"),
    };
    html! {
        a.language href={ "?lang=" (code) } lang=(code) hreflang=(code) { (name) }
    }
}

/// Renders a form with one button. `about` names the row that it belongs to, for screen
/// readers.
pub(super) fn button(
    viewer: &Viewer,
    action: &str,
    fields: &[(&str, &str)],
    label: &str,
    about: Option<&str>,
) -> Markup {
    let aria_label = about.map(|about| format!("{label}: {about}"));
    html! {
        form method="post" action=(action) {
            (form_token_input(viewer))
            @for (name, value) in fields {
                input type="hidden" name=(name) value=(value);
            }
            button type="submit" aria-label=[aria_label] { (label) }
        }
    }
}

/// Renders the hidden field with the viewer's form token.
pub(super) fn form_token_input(viewer: &Viewer) -> Markup {
    html! { input type="hidden" name=(FORM_TOKEN_FIELD) value=(viewer.form_token); }
}

/// Renders text, with `code` elements for the parts between backticks.
pub(super) fn with_code(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// Renders a state as a badge. The word carries the meaning; shape and color only repeat it.
pub(super) fn badge(severity: Severity, word: &str) -> Markup {
    let class = match severity {
        Severity::Ok => "badge good",
        Severity::Pending => "badge busy",
        Severity::Problem => "badge bad",
        Severity::Neutral => "badge",
    };
    html! { span class=(class) { (with_code(word)) } }
}

/// A column of a table.
#[derive(Clone, Debug)]
pub(super) struct Column<'a> {
    name: &'a str,
    class: &'static str,
    /// The address that sorts by it, and the order that it has now.
    sort: Option<(String, Option<Order>)>,
}

/// The order of a table's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Ascending,
    Descending,
}

impl<'a> Column<'a> {
    /// Returns a column whose cells have a class of the style sheet.
    pub(super) const fn new(name: &'a str, class: &'static str) -> Self {
        Self {
            name,
            class,
            sort: None,
        }
    }

    /// Returns the same column with the address that sorts by it.
    pub(super) fn sorted(self, address: String, order: Option<Order>) -> Self {
        Self {
            sort: Some((address, order)),
            ..self
        }
    }
}

impl<'a> From<&'a str> for Column<'a> {
    fn from(name: &'a str) -> Self {
        Self::new(name, "")
    }
}

/// Renders a table. On a narrow screen CSS shows each row as a card, with the column names
/// beside the values; the explicit roles keep it a table for screen readers.
pub(super) fn table<'a, C: Clone + Into<Column<'a>>>(
    caption: &str,
    columns: &[C],
    rows: Vec<Vec<Markup>>,
) -> Markup {
    let columns: Vec<Column<'a>> = columns.iter().cloned().map(Into::into).collect();
    html! {
        table role="table" {
            caption { (caption) }
            thead role="rowgroup" {
                tr role="row" { @for column in &columns { (head(column)) } }
            }
            tbody role="rowgroup" {
                @for row in rows {
                    tr role="row" {
                        @for (column, value) in columns.iter().zip(row) {
                            td class=(column.class) role="cell" data-label=(column.name) { div { (value) } }
                        }
                    }
                }
            }
        }
    }
}

fn head(column: &Column<'_>) -> Markup {
    let order = column.sort.as_ref().and_then(|(_, order)| *order);
    let order = order.map(|order| match order {
        Order::Ascending => "ascending",
        Order::Descending => "descending",
    });
    html! {
        th class=(column.class) role="columnheader" scope="col" aria-sort=[order] {
            @match &column.sort {
                Some((address, _)) => { a.sort href=(address) { (column.name) } }
                None => { (column.name) }
            }
        }
    }
}

/// Renders what is rarely used behind a summary, such as buttons that ask before they act.
pub(super) fn folded(class: &str, summary: &str, content: &Markup) -> Markup {
    html! {
        details class=(class) {
            summary { (summary) }
            div.folded { (content) }
        }
    }
}

/// Renders an ARN that breaks behind its colons only.
pub(super) fn arn(name: &str) -> Markup {
    html! { code.arn { @for part in name.split_inclusive(':') { (part) wbr; } } }
}

/// Renders the link to the next page of a list; `path` holds its other parameters.
pub(super) fn next_page(language: Language, path: &str, next: Option<&str>) -> Markup {
    html! {
        @if let Some(next) = next {
            p { a.next href={ (path) (if path.contains('?') { '&' } else { '?' }) "after=" (next) } {
                (language.pick("Next page", "Kitas puslapis"))
            } }
        }
    }
}

/// Returns the content of an error page.
pub(super) fn error_body(viewer: &Viewer, error: &AdminError) -> PageBody {
    let language = viewer.language;
    let (_, code) = error.answer();
    PageBody {
        title: language.pick("Request failed", "Nepavyko").to_owned(),
        content: html! {
            p.notice.bad role="alert" {
                @match language {
                    Language::English => (with_code(&error.to_string())),
                    Language::Lithuanian => {
                        (super::labels::problem(code)) " "
                        span lang="en" { "(" (with_code(&error.to_string())) ")" }
                    }
                }
            }
            p { a href="/" { (language.pick("Back to the overview", "Į apžvalgą")) } }
        },
        refresh: false,
    }
}
