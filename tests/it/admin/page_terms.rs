//! The words of the pages: every term, in both languages, is in the glossary, and nothing is left
//! untranslated.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;

use crate::admin::pages_full::pages;
use crate::support::app::TestApp;
use crate::support::full_store::full_store;

/// The glossary: a term in English, a tab, the same in Lithuanian. `#` is any number.
const GLOSSARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/pages/glossary.tsv");

/// Elements whose text is a term.
const TERMS: [&str; 14] = [
    "h1",
    "h2",
    "h3",
    "th",
    "button",
    "summary",
    "label",
    "legend",
    "option",
    "dt",
    "figcaption",
    "caption",
    "title",
    "strong",
];

/// Elements whose text is a sentence.
const SENTENCES: [&str; 3] = ["p", "li", "div"];

/// A text of a page with the element that it is in.
#[derive(Clone, Debug)]
struct Text {
    element: String,
    text: String,
}

/// Returns the text of each element of a page, in order, without those in other languages and of
/// data.
fn texts(page: &str) -> Vec<Text> {
    let mut texts: Vec<Text> = Vec::new();
    // The open elements: name, true if what is in it is not ours, and its text.
    let mut open: Vec<(String, bool, usize)> = Vec::new();
    let mut rest = page;
    while let Some((text, after)) = rest.split_once('<') {
        let (tag, after) = after.split_once('>').expect("a tag ends");
        let is_ours = !open.iter().any(|(_, foreign, _)| *foreign);
        if let Some((_, _, at)) = open.last()
            && is_ours
        {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let whole = &mut texts[*at].text;
            if !whole.is_empty() && !text.is_empty() {
                whole.push(' ');
            }
            whole.push_str(&text);
        }
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            while let Some((closed, ..)) = open.pop() {
                if closed == name {
                    break;
                }
            }
            continue;
        }
        let name: String = tag
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric())
            .collect();
        let void = ["input", "meta", "link", "br", "img", "rect", "line", "wbr"];
        let is_foreign = !is_ours || is_data(&name, tag);
        for attribute in ["aria-label=\"", "placeholder=\"", "data-label=\""] {
            if let Some((_, value)) = tag.split_once(attribute)
                && !is_foreign
            {
                let value = value.split('"').next().unwrap_or_default();
                // What follows a colon names the row.
                let value = value.split(": ").next().unwrap_or_default();
                texts.push(Text {
                    element: "label".to_owned(),
                    text: value.to_owned(),
                });
            }
        }
        if tag.starts_with('!') || void.contains(&name.as_str()) {
            continue;
        }
        if !is_foreign {
            texts.push(Text {
                element: name.clone(),
                text: String::new(),
            });
        }
        open.push((name, is_foreign, texts.len().saturating_sub(1)));
    }
    texts
}

/// Returns true if an element shows data, or words in a language that it names.
fn is_data(name: &str, tag: &str) -> bool {
    let has = |class: &str| {
        tag.split_once("class=\"").is_some_and(|(_, classes)| {
            let classes = classes.split('"').next().unwrap_or_default();
            classes.split(' ').any(|one| one == class)
        })
    };
    let of_other_language = name != "html" && tag.contains(" lang");
    of_other_language
        || matches!(name, "code" | "pre" | "time" | "script" | "style" | "svg")
        || ["name", "code", "amount", "brand", "to", "choice", "ago"]
            .iter()
            .any(|class| has(class))
}

/// Replaces numbers by `#`.
fn without_numbers(text: &str) -> String {
    let mut shown = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if !c.is_ascii_digit() {
            shown.push(if c == '\u{a0}' { ' ' } else { c });
            continue;
        }
        while let Some(next) = chars.peek().copied() {
            if next.is_ascii_digit() || matches!(next, ',' | '.' | ':' | '-') {
                chars.next();
                continue;
            }
            // A group of digits follows.
            let mut ahead = chars.clone();
            ahead.next();
            if matches!(next, ' ' | '\u{a0}') && ahead.next().is_some_and(|c| c.is_ascii_digit()) {
                chars.next();
                continue;
            }
            break;
        }
        shown.push('#');
    }
    shown
}

async fn read(app: &TestApp, path: &str, language: &str) -> String {
    let mark = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{mark}lang={language}");
    let response = app.admin_request(Method::GET, &path).send().await;
    let text = response.expect("an answer").text().await.expect("text");
    // Names that are data.
    text.replace(" – ivesk-webhook</title>", "</title>")
        .replace("Gedimino pr. 9, LT-01103 Vilnius", "")
        .replace("apskaita", "…")
        .replace("archyvas", "…")
        .replace("VILNIUSVANDENYS-", "")
        .replace("AB-", "")
        .replace("&amp;", "&")
        .replace("&quot;", "\"")
}

fn is_term(element: &str, text: &str) -> bool {
    TERMS.contains(&element) || element == "a" || (element == "span" && text.chars().count() < 60)
}

#[tokio::test]
async fn every_term_of_every_page_is_in_the_glossary() {
    let app = full_store().await;
    let glossary = std::fs::read_to_string(GLOSSARY).expect("readable");
    let glossary: BTreeSet<(String, String)> = glossary
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .map(|line| {
            let (english, lithuanian) = line.split_once('\t').expect("a tab");
            (english.to_owned(), lithuanian.to_owned())
        })
        .collect();
    let mut paths: Vec<String> = pages().into_iter().map(|(_, path)| path).collect();
    for path in [
        "/documents?q=nothing",
        "/documents/999999",
        "/feeds?q=nothing",
        "/feeds?state=paused",
        "/feeds?state=removed",
        "/deliveries?destination=apskaita&state=deferred",
        "/deliveries?destination=apskaita&state=waiting_file",
        "/deliveries?destination=nobody&state=rejected",
        "/quarantine/999999",
    ] {
        paths.push(path.to_owned());
    }
    let (mut unknown, mut untranslated) = (BTreeMap::new(), BTreeSet::new());
    for path in paths {
        let english = texts(&read(&app, &path, "en").await);
        let lithuanian = texts(&read(&app, &path, "lt").await);
        assert_eq!(
            english.len(),
            lithuanian.len(),
            "{path}: {:?}",
            english
                .iter()
                .zip(&lithuanian)
                .find(|(one, other)| one.element != other.element)
        );
        for (one, other) in english.iter().zip(&lithuanian) {
            assert_eq!(one.element, other.element, "{path}: {one:?} {other:?}");
            let pair = (without_numbers(&one.text), without_numbers(&other.text));
            let has_letters = pair.0.chars().any(char::is_alphabetic);
            if !has_letters || glossary.contains(&pair) {
                continue;
            }
            if pair.0 == pair.1 {
                let words = pair.0.split_whitespace().count();
                if SENTENCES.contains(&one.element.as_str()) && words > 2 {
                    untranslated.insert(format!("{path}: {}", one.text));
                }
                // Data: the same in both languages.
                continue;
            }
            if is_term(&one.element, &pair.0) {
                unknown.insert(pair, path.clone());
            }
        }
    }
    let unknown: Vec<String> = unknown
        .into_iter()
        .map(|((english, lithuanian), path)| format!("{english}\t{lithuanian}\t{path}"))
        .collect();
    if let Some(file) = std::env::var_os("IVESK_WEBHOOK_TEST_TERMS") {
        std::fs::write(file, unknown.join("\n")).expect("writable");
    }
    assert!(untranslated.is_empty(), "untranslated: {untranslated:#?}");
    assert!(
        unknown.is_empty(),
        "not in the glossary:\n{}",
        unknown.join("\n")
    );
}
