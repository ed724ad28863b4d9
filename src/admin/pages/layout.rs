//! What every page has around its middle, and the parts that they are put together of.

use maud::{DOCTYPE, Markup, html};

use super::language::Language;
use super::visitor::{PROOF, Visitor};
use super::words::Mood;
use crate::admin::problem::AdminError;

/// What is a page's own.
pub(super) struct Middle {
    pub(super) title: String,
    pub(super) body: Markup,
}

/// Pages of the menu: path, English and Lithuanian name.
const MENU: [(&str, &str, &str); 9] = [
    ("/", "Overview", "Apžvalga"),
    ("/feeds", "Feeds", "Srautai"),
    ("/documents", "Documents", "Dokumentai"),
    ("/destinations", "Delivery", "Perdavimas"),
    ("/uploads", "Uploads", "Įkėlimai"),
    ("/subscriptions", "Subscriptions", "Prenumeratos"),
    ("/quarantine", "Quarantine", "Karantinas"),
    ("/certificates", "Certificates", "Sertifikatai"),
    ("/alarms", "Alarms", "Įspėjimai"),
];

/// The whole page.
pub(super) fn whole(visitor: &Visitor, middle: Middle) -> Markup {
    let language = visitor.language;
    html! {
        (DOCTYPE)
        html lang=(language.code()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (middle.title) " – ivesk-webhook" }
                link rel="stylesheet" href="/style.css";
                link rel="icon" href="/icon.svg" type="image/svg+xml";
            }
            body {
                a.skip href="#middle" { (language.say("To the content", "Prie turinio")) }
                header {
                    a.brand href="/" { "ivesk-webhook" }
                    @if visitor.rights.is_some() { (menu(visitor)) }
                    div.tools {
                        (languages(visitor))
                        @if visitor.has_session {
                            (button(visitor, "/logout", &[], language.say("Log out", "Atsijungti"), None))
                        }
                    }
                }
                main id="middle" tabindex="-1" {
                    h1 { (middle.title) }
                    @if let Some(notice) = &visitor.notice {
                        p.notice.good[notice.is_good()].bad[!notice.is_good()] role="status" {
                            (notice.say(language))
                        }
                    }
                    (middle.body)
                }
                footer { "ivesk-webhook " (env!("CARGO_PKG_VERSION")) }
            }
        }
    }
}

fn menu(visitor: &Visitor) -> Markup {
    let language = visitor.language;
    let is_here = |path: &str| match path {
        "/" => visitor.path == "/",
        path => visitor.path.starts_with(path),
    };
    html! {
        nav aria-label=(language.say("Pages", "Puslapiai")) {
            ul {
                @for (path, english, lithuanian) in MENU {
                    li {
                        a href=(path) aria-current=[is_here(path).then_some("page")] {
                            (language.say(english, lithuanian))
                        }
                    }
                }
            }
        }
    }
}

/// The way to the other language.
fn languages(visitor: &Visitor) -> Markup {
    let (code, name) = match visitor.language {
        Language::English => ("lt", "Lietuviškai"),
        Language::Lithuanian => ("en", "English"),
    };
    html! {
        a.language href={ "?lang=" (code) } lang=(code) hreflang=(code) { (name) }
    }
}

/// A form of one button. `about` is what it is about, for those who don't see where it
/// stands.
pub(super) fn button(
    visitor: &Visitor,
    action: &str,
    fields: &[(&str, &str)],
    label: &str,
    about: Option<&str>,
) -> Markup {
    let spoken = about.map(|about| format!("{label}: {about}"));
    html! {
        form method="post" action=(action) {
            (proof(visitor))
            @for (name, value) in fields {
                input type="hidden" name=(name) value=(value);
            }
            button type="submit" aria-label=[spoken] { (label) }
        }
    }
}

/// What shows that a form was made for this visitor.
pub(super) fn proof(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name=(PROOF) value=(visitor.proof); }
}

/// Text in which what stands between backticks is to be typed as it is.
pub(super) fn marked(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// A word that stands out, for how something stands. Color says nothing that it does not.
pub(super) fn badge(mood: Mood, word: &str) -> Markup {
    let class = match mood {
        Mood::Good => "badge good",
        Mood::Busy => "badge busy",
        Mood::Bad => "badge bad",
    };
    html! { span class=(class) { (marked(word)) } }
}

/// A table; on a narrow screen each row stands as a card of its own, with the columns'
/// names beside their values. Roles are given, since that takes them from some readers.
pub(super) fn table(caption: &str, columns: &[&str], rows: Vec<Vec<Markup>>) -> Markup {
    html! {
        table role="table" {
            caption { (caption) }
            thead role="rowgroup" {
                tr role="row" {
                    @for column in columns { th role="columnheader" scope="col" { (column) } }
                }
            }
            tbody role="rowgroup" {
                @for row in rows {
                    tr role="row" {
                        @for (column, value) in columns.iter().zip(row) {
                            td role="cell" data-label=(column) { div { (value) } }
                        }
                    }
                }
            }
        }
    }
}

/// The way to the next page of a list; `path` holds its other parameters.
pub(super) fn next_page(language: Language, path: &str, next: Option<&str>) -> Markup {
    html! {
        @if let Some(next) = next {
            p { a.next href={ (path) (if path.contains('?') { '&' } else { '?' }) "after=" (next) } {
                (language.say("Next page", "Kitas puslapis"))
            } }
        }
    }
}

/// A page that tells why there is no other.
pub(super) fn failure(visitor: &Visitor, error: &AdminError) -> Middle {
    let language = visitor.language;
    let (_, code) = error.answer();
    Middle {
        title: language.say("It did not work", "Nepavyko").to_owned(),
        body: html! {
            p.notice.bad role="alert" {
                @match language {
                    Language::English => (marked(&error.to_string())),
                    Language::Lithuanian => {
                        (super::words::problem(code)) " "
                        span lang="en" { "(" (marked(&error.to_string())) ")" }
                    }
                }
            }
            p { a href="/" { (language.say("To the overview", "Į apžvalgą")) } }
        },
    }
}
