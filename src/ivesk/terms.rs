//! The terms by which a document is found.

use std::collections::BTreeSet;

use super::document::Entry;
use crate::domain::Company;
use crate::domain::search_text::{
    amount_term, date_term, name_words, number_term, whole_term, words,
};

/// Most words of one field that count: of more, the first ones.
const MAX_WORDS: usize = 8;

/// The fields with names of parties.
const NAMES: [&str; 4] = [
    "sellername",
    "sellernameascii",
    "buyername",
    "buyernameascii",
];

/// The fields with codes of parties.
const CODES: [&str; 4] = ["sellercode", "sellervat", "buyercode", "buyervat"];

impl Entry<'_> {
    /// Returns the terms by which the document of a company is found: of its number, its parties'
    /// names and codes, its date and total, and what its file was uploaded with. At most some tens, of
    /// at most some tens of characters.
    pub fn terms(&self, company: &Company) -> BTreeSet<String> {
        let view = self.view();
        let mut terms = BTreeSet::new();
        if let Some(number) = self.fields.text("docnum") {
            terms.extend(number_term(&number));
            terms.extend(words(&number).into_iter().take(MAX_WORDS));
        }
        for name in NAMES.iter().filter_map(|field| self.fields.text(field)) {
            terms.extend(name_words(&name).into_iter().take(MAX_WORDS));
        }
        let codes = CODES.iter().filter_map(|field| self.fields.text(field));
        for code in codes.chain([company.as_str().to_owned()]) {
            terms.extend(words(&code).into_iter().take(MAX_WORDS));
        }
        terms.extend(view.date.as_deref().and_then(date_term));
        terms.extend(view.total.as_deref().and_then(amount_term));
        let of_upload = [self.fields.text("filename"), self.upload(), self.userdata()];
        terms.extend(
            of_upload
                .iter()
                .flatten()
                .filter_map(|text| whole_term(text)),
        );
        terms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SearchText;

    #[test]
    fn a_document_is_found_by_what_people_know_of_it() {
        let raw = r#"{"docnum":"SĄSK-0017","sellername":"UAB „Šarka“","sellernameascii":"UAB Sarka","sellercode":302320404,
            "sellervat":"LT100001234567","buyername":"Ąžuolo IĮ","total":"1210.00","date":"2026-11-28T00:00:00",
            "filename":"scan 7.pdf","userdata":"order 9"}"#;
        let entry = Entry::parse(raw.as_bytes()).expect("an object");
        let company = Company::parse("123456789").expect("a code");
        let terms = entry.terms(&company);
        let rank = |text: &str| SearchText::read(text).rank(&terms);
        for first in ["sask-0017", "SASK 0017", "Scan 7.pdf", "order 9"] {
            assert_eq!(rank(first), Some(1), "{first}");
        }
        for later in [
            "sąsk 17",
            "0017",
            "šarka",
            "UAB SARKA",
            "azuolo",
            "302320404",
            "LT302320404",
            "100001234567",
            "LT100001234567",
            "123456789",
            "1 210,00",
            "1210",
            "2026.11.28",
            "2026-11",
            "šarka 1 210,00 eur",
            "šar",
        ] {
            assert!(rank(later).is_some_and(|rank| rank > 1), "{later}");
        }
        for none in ["arka", "scan", "order", "pdf", "2026-11-29", "121", "uab"] {
            assert_eq!(rank(none), None, "{none}");
        }
    }

    #[test]
    fn a_hostile_document_has_few_short_terms() {
        let words: Vec<String> = (0..10_000)
            .map(|n| format!("w{}", "x".repeat(n % 200)))
            .collect();
        let long = words.join(" ");
        let raw = serde_json::json!({"docnum": long, "sellername": long, "sellernameascii": long, "buyername": long,
            "buyernameascii": long, "sellercode": long, "sellervat": long, "buyercode": long, "buyervat": long,
            "total": long, "date": long, "filename": long, "userdata": long});
        let raw = raw.to_string();
        let entry = Entry::parse(raw.as_bytes()).expect("an object");
        let terms = entry.terms(&Company::mixed());
        assert!(terms.len() <= 80, "{}", terms.len());
        assert!(terms.iter().all(|term| term.chars().count() <= 41));
    }
}
