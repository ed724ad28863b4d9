//! What a search compares: terms, folded alike of a document's fields and of what a person writes.
//!
//! A word is in small letters without marks (`š` is `s`), and another one begins where letters and digits
//! meet: `SĄSK-0001` has the words `sask` and `1`. A term of another kind begins with a sign that no
//! word has: a whole number of a document (`#sask0001`), an amount (`=121.1`), a date
//! (`@2026-11-28`), or the digest of a text that is compared as a whole (`:…`).

use std::collections::BTreeSet;
use std::ops::Bound;

use aws_lc_rs::digest::{SHA256, digest};

use crate::hex::hex;

/// Longest word and longest number of a document, in characters: what is longer is cut.
const MAX_CHARS: usize = 40;

/// Characters of a text that are looked at: a field of a document may have millions.
const MAX_TEXT_CHARS: usize = 1_000;

/// Words of a search that count: of more, the first ones.
const MAX_WORDS: usize = 10;

/// Fewest digits after `LT` that make it a VAT code.
const VAT_DIGITS: usize = 9;

/// Longest amount as it is written, in bytes.
const MAX_AMOUNT_BYTES: usize = 60;

/// Longest date as it is written, in bytes.
const MAX_DATE_BYTES: usize = 11;

/// Most digits of an amount.
const MAX_DIGITS: usize = 18;

/// Most parts between spaces of which an amount consists, such as `1 234 567,00 EUR`.
const MAX_PARTS: usize = 6;

/// Fewest letters, and fewest digits, of which a longer word may begin.
const MIN_BEGINNING: [usize; 2] = [2, 3];

/// Words that say which kind of company it is, or that a number follows. They tell nobody from
/// another.
const COMMON: &[&str] = &[
    "uab",
    "ab",
    "mb",
    "ii",
    "vsi",
    "vi",
    "si",
    "bi",
    "tub",
    "kub",
    "kb",
    "zub",
    "zuk",
    "as",
    "ou",
    "sia",
    "oy",
    "oyj",
    "gmbh",
    "ag",
    "ltd",
    "limited",
    "llc",
    "inc",
    "sarl",
    "srl",
    "spa",
    "bv",
    "uzdaroji",
    "akcine",
    "bendrove",
    "mazoji",
    "bendrija",
    "individuali",
    "imone",
    "viesoji",
    "istaiga",
    "nr",
];

/// Returns the words of a text, in their order.
pub fn words(text: &str) -> Vec<String> {
    let words = read_words(text).into_iter();
    words.map(|word| word.text).collect()
}

/// A word of a text.
struct Word {
    text: String,
    /// True if there were zeros before it: then it is no beginning of a longer number.
    is_padded: bool,
}

fn read_words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    for token in tokens(text) {
        let pieces = pieces(&token);
        for (index, piece) in pieces.iter().enumerate() {
            let next = pieces.get(index + 1).filter(|next| is_number(next));
            let is_vat =
                index == 0 && *piece == "lt" && next.is_some_and(|next| next.len() >= VAT_DIGITS);
            if !is_vat {
                words.push(Word {
                    text: word(piece),
                    is_padded: piece.len() > 1 && piece.starts_with('0'),
                });
            }
        }
    }
    words
}

/// Returns the words of a name that tell it from others, or all if there are none.
pub fn name_words(text: &str) -> Vec<String> {
    let words = words(text);
    let (common, own): (Vec<_>, Vec<_>) = words
        .into_iter()
        .partition(|word| COMMON.contains(&word.as_str()));
    if own.is_empty() { common } else { own }
}

/// Returns the words of a part of a search. What stands beside digits is a part of a number, also if
/// it is common: `AB-17`.
fn telling_words(part: &str) -> Vec<Word> {
    let mut words = read_words(part);
    if !part.bytes().any(|byte| byte.is_ascii_digit()) {
        words.retain(|word| !COMMON.contains(&word.text.as_str()));
    }
    words
}

/// Returns the term of a document's whole number, whatever stands between its letters and digits.
pub fn number_term(text: &str) -> Option<String> {
    let number: String = tokens(text).concat().chars().take(MAX_CHARS).collect();
    (!number.is_empty()).then(|| format!("#{number}"))
}

/// Returns the term of a text that is compared as a whole, such as the name of a file; `None` if it is
/// empty or long.
pub fn whole_term(text: &str) -> Option<String> {
    let text = text.trim();
    if text.is_empty() || text.chars().nth(MAX_TEXT_CHARS).is_some() {
        return None;
    }
    let text = text.to_lowercase();
    let digest = digest(&SHA256, text.as_bytes());
    Some(format!(":{}", hex(&digest.as_ref()[..16])))
}

/// Returns the term of an amount, whatever its sign: a decimal number as programs write it, or one
/// as people do.
pub fn amount_term(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > MAX_AMOUNT_BYTES {
        return None;
    }
    let unsigned = text.strip_prefix(['-', '+', '−']).unwrap_or(text);
    if let Some((whole, decimals)) = unsigned.split_once('.')
        && are_digits(whole)
        && are_digits(decimals)
    {
        return amount(whole, decimals);
    }
    written_amount(text)
}

/// Returns the term of an amount as people write it: `1 210,00`, `1,210.00`, `121.1 EUR`.
fn written_amount(text: &str) -> Option<String> {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    let text = match (lower.strip_suffix("eur"), lower.strip_prefix("eur")) {
        (Some(rest), _) | (_, Some(rest)) => rest,
        _ => &lower,
    };
    let text = text.trim_matches(|c: char| c == '€' || c.is_whitespace());
    let text = text
        .strip_prefix(['-', '+', '−'])
        .unwrap_or(text)
        .trim_start();
    if let Some(whole) = grouped(text) {
        return amount(&whole, "");
    }
    let (whole, decimals) = text.rsplit_once(['.', ','])?;
    are_digits(decimals).then_some(())?;
    amount(&grouped(whole)?, decimals)
}

/// Returns the digits of a whole number, whose thousands may stand apart.
fn grouped(text: &str) -> Option<String> {
    let is_between = |c: char| c.is_whitespace() || matches!(c, '.' | ',' | '\'' | '’');
    let mut groups = text.split(is_between);
    let first = groups.next().filter(|group| are_digits(group))?;
    let mut digits = first.to_owned();
    for group in groups {
        if first.len() > 3 || group.len() != 3 || !are_digits(group) {
            return None;
        }
        digits.push_str(group);
    }
    Some(digits)
}

fn amount(whole: &str, decimals: &str) -> Option<String> {
    let whole = whole.trim_start_matches('0');
    let decimals = decimals.trim_end_matches('0');
    if whole.len() + decimals.len() > MAX_DIGITS {
        return None;
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if decimals.is_empty() { "" } else { "." };
    Some(format!("={whole}{point}{decimals}"))
}

/// Returns the term of a day: `2026-11-28`, `2026.11.28`, `28/11/2026`.
pub fn date_term(text: &str) -> Option<String> {
    match *date_parts(text)?.as_slice() {
        [year, month, day] if (1..=31).contains(&day) => {
            Some(format!("@{year:04}-{month:02}-{day:02}"))
        }
        _ => None,
    }
}

/// Returns what the terms of a month's days begin with.
fn month_prefix(text: &str) -> Option<String> {
    match *date_parts(text)?.as_slice() {
        [year, month] => Some(format!("@{year:04}-{month:02}-")),
        _ => None,
    }
}

/// Returns the year, the month and the day, if there is one.
fn date_parts(text: &str) -> Option<Vec<u16>> {
    let text = text.trim();
    if text.len() > MAX_DATE_BYTES {
        return None;
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let sign = text.chars().find(|c| matches!(c, '-' | '.' | '/'))?;
    let parts: Vec<&str> = text.split(sign).collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let mut numbers = Vec::new();
    for part in &parts {
        are_digits(part).then_some(())?;
        numbers.push(part.parse().ok()?);
    }
    match lengths[..] {
        [4, 1..=2, 1..=2] | [4, 2] => {}
        [1..=2, 1..=2, 4] => numbers.reverse(),
        _ => return None,
    }
    ((1900..2200).contains(&numbers[0]) && (1..=12).contains(&numbers[1])).then_some(numbers)
}

fn are_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns true if a piece is a number: it begins with a digit.
fn is_number(piece: &str) -> bool {
    piece.starts_with(|c: char| c.is_ascii_digit())
}

/// Returns a piece as a word: of a number without the zeros before it.
fn word(piece: &str) -> String {
    let piece = match piece.trim_start_matches('0') {
        "" if is_number(piece) => "0",
        rest if is_number(piece) => rest,
        _ => piece,
    };
    piece.chars().take(MAX_CHARS).collect()
}

/// Returns the runs of letters and digits in a text, folded.
fn tokens(text: &str) -> Vec<String> {
    let text = text.chars().take(MAX_TEXT_CHARS);
    let text: Vec<char> = text.filter(|c| !is_passed_over(*c)).collect();
    let is_part = |at: Option<usize>| {
        at.and_then(|at| text.get(at))
            .is_some_and(|c| c.is_alphanumeric())
    };
    let is_letter = |at: usize| text.get(at).is_some_and(|c| c.is_alphabetic());
    let mut tokens = Vec::new();
    let mut token = String::new();
    for (at, c) in text.iter().enumerate() {
        if c.is_alphanumeric() {
            fold(*c, &mut token);
            continue;
        }
        // `U.A.B.` is one word.
        let is_abbreviation = *c == '.'
            && at > 0
            && is_letter(at - 1)
            && is_letter(at + 1)
            && !is_part(at.checked_sub(2))
            && !is_part(Some(at + 2));
        if !is_abbreviation && !token.is_empty() {
            tokens.push(std::mem::take(&mut token));
        }
    }
    if !token.is_empty() {
        tokens.push(token);
    }
    tokens
}

/// Returns true for characters that neither belong to words nor part them: accents that follow their
/// letter, apostrophes, and what is invisible.
fn is_passed_over(c: char) -> bool {
    matches!(
        c,
        '\u{300}'..='\u{36f}' | '\'' | '’' | '‘' | 'ʼ' | '`' | '´'
    ) || (!c.is_control() && !c.is_whitespace() && crate::visible::is_invisible(c))
}

/// Adds a letter or digit in small letters without marks.
fn fold(c: char, to: &mut String) {
    for c in c.to_lowercase() {
        let folded = match c {
            '0'..='9' | 'a'..='z' => c,
            'à'..='å' | 'ā' | 'ă' | 'ą' => 'a',
            'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => 'c',
            'ď' | 'đ' | 'ð' => 'd',
            'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => 'e',
            'ĝ' | 'ğ' | 'ġ' | 'ģ' => 'g',
            'ĥ' | 'ħ' => 'h',
            'ì'..='ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => 'i',
            'ĵ' => 'j',
            'ķ' => 'k',
            'ĺ' | 'ļ' | 'ľ' | 'ŀ' | 'ł' => 'l',
            'ñ' | 'ń' | 'ņ' | 'ň' => 'n',
            'ò'..='ö' | 'ø' | 'ō' | 'ŏ' | 'ő' => 'o',
            'ŕ' | 'ŗ' | 'ř' => 'r',
            'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => 's',
            'ţ' | 'ť' | 'ŧ' | 'ț' => 't',
            'ù'..='ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => 'u',
            'ŵ' => 'w',
            'ý' | 'ÿ' | 'ŷ' => 'y',
            'ź' | 'ż' | 'ž' => 'z',
            'ß' => {
                to.push('s');
                's'
            }
            'æ' => {
                to.push('a');
                'e'
            }
            'œ' => {
                to.push('o');
                'e'
            }
            // `İ` in small letters is `i` and a dot.
            '\u{300}'..='\u{36f}' => continue,
            _ => c,
        };
        to.push(folded);
    }
}

/// Returns the pieces of a token: runs of digits, and of anything else.
fn pieces(token: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut before = None;
    for (at, c) in token.char_indices() {
        let is_digit = c.is_ascii_digit();
        if before.is_some_and(|before| before != is_digit) {
            pieces.push(&token[start..at]);
            start = at;
        }
        before = Some(is_digit);
    }
    if start < token.len() {
        pieces.push(&token[start..]);
    }
    pieces
}

/// Terms of which a document has at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyOf {
    /// Whole terms.
    pub terms: Vec<String>,
    /// What other terms begin with.
    pub beginnings: Vec<String>,
}

impl AnyOf {
    fn matches(&self, terms: &BTreeSet<String>) -> bool {
        let begins = |beginning: &String| {
            let range = (Bound::Included(beginning.as_str()), Bound::Unbounded);
            let first = terms.range::<str, _>(range).next();
            first.is_some_and(|term| term.starts_with(beginning))
        };
        self.terms.iter().any(|term| terms.contains(term)) || self.beginnings.iter().any(begins)
    }
}

/// What a document needs to have to be found: one of each of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllOf(Vec<AnyOf>);

impl AllOf {
    /// Returns the terms of which one each is needed.
    pub fn parts(&self) -> &[AnyOf] {
        &self.0
    }

    fn matches(&self, terms: &BTreeSet<String>) -> bool {
        self.0.iter().all(|part| part.matches(terms))
    }
}

/// The text of a search.
///
/// It is read in several ways. A document has the rank of the first one that finds it: 1 if its whole
/// number is the text, or what else is compared as a whole; then those that have the dates and amounts
/// in the text; those that have all its words; last those that have words which begin with them. Rank
/// 0 is for those that the text identifies: by their ids, which are no terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchText {
    text: String,
    readings: Vec<AllOf>,
}

impl SearchText {
    /// Reads what a person has written.
    pub fn read(text: &str) -> Self {
        let text = text.trim();
        let mut words: Vec<Word> = text.split_whitespace().flat_map(telling_words).collect();
        if words.is_empty() {
            words = read_words(text);
        }
        let mut seen = BTreeSet::new();
        words.retain(|word| seen.insert(word.text.clone()));
        words.truncate(MAX_WORDS);
        let whole = words.iter().map(|word| AnyOf {
            terms: word_terms(&word.text),
            beginnings: Vec::new(),
        });
        let whole = AllOf(whole.collect());
        let beginning = AllOf(words.iter().map(begun).collect());
        let exact: Vec<String> = [number_term(text), whole_term(text)]
            .into_iter()
            .flatten()
            .collect();
        let exact = AllOf(vec![AnyOf {
            terms: exact,
            beginnings: Vec::new(),
        }]);
        let mut readings = vec![exact];
        readings.extend(dates_and_amounts(text));
        if !words.is_empty() {
            if whole != beginning {
                readings.push(whole);
            }
            readings.push(beginning);
        }
        Self {
            text: text.to_owned(),
            readings,
        }
    }

    /// Returns the text without spaces around it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the ids that the text may be.
    pub fn ids(&self) -> Vec<String> {
        unique(vec![self.text.clone(), self.text.to_lowercase()])
    }

    /// Returns the ways to read it, in the order of their ranks from 1 on.
    pub fn readings(&self) -> &[AllOf] {
        &self.readings
    }

    /// Returns the rank of a document with these terms; `None` if they don't match.
    pub fn rank(&self, terms: &BTreeSet<String>) -> Option<usize> {
        let found = self
            .readings
            .iter()
            .position(|reading| reading.matches(terms));
        found.map(|at| at + 1)
    }
}

/// Returns the terms of a whole word, which may be an amount.
fn word_terms(word: &str) -> Vec<String> {
    let amount = are_digits(word).then(|| amount(word, "")).flatten();
    [word.to_owned()].into_iter().chain(amount).collect()
}

/// Returns the terms of a word that others may begin with.
fn begun(word: &Word) -> AnyOf {
    let Word { text, is_padded } = word;
    let [letters, digits] = MIN_BEGINNING;
    let least = if is_number(text) { digits } else { letters };
    let may_begin = !is_padded && text.chars().count() >= least;
    AnyOf {
        terms: word_terms(text),
        beginnings: may_begin.then(|| text.clone()).into_iter().collect(),
    }
}

/// Reads a text whose parts may be dates and amounts; `None` if no part is.
fn dates_and_amounts(text: &str) -> Option<AllOf> {
    let parts: Vec<&str> = text.split_whitespace().take(MAX_WORDS * 2).collect();
    let mut all = Vec::new();
    let (mut at, mut is_any) = (0, false);
    while let Some(part) = parts.get(at) {
        let one = |term: String| AnyOf {
            terms: vec![term],
            beginnings: Vec::new(),
        };
        at += 1;
        if let Some(date) = date_term(part) {
            all.push(one(date));
        } else if let Some(month) = month_prefix(part) {
            all.push(AnyOf {
                terms: Vec::new(),
                beginnings: vec![month],
            });
        } else if let Some((amount, count)) = leading_amount(&parts[at - 1..]) {
            all.push(one(amount));
            at += count - 1;
        } else {
            all.extend(telling_words(part).iter().map(begun));
            continue;
        }
        is_any = true;
    }
    all.truncate(MAX_WORDS);
    is_any.then_some(AllOf(all))
}

/// Returns the amount that these parts begin with, and how many they are. A plain whole number is a
/// word, which may be an amount anyway.
fn leading_amount(parts: &[&str]) -> Option<(String, usize)> {
    for count in (1..=parts.len().min(MAX_PARTS)).rev() {
        let text = parts[..count].join(" ");
        let amount = (text.len() <= MAX_AMOUNT_BYTES).then(|| written_amount(&text));
        if let Some(amount) = amount.flatten().filter(|_| !are_digits(&text)) {
            return Some((amount, count));
        }
    }
    None
}

fn unique(texts: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut texts = texts;
    texts.retain(|text| seen.insert(text.clone()));
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_folded_in_case_marks_quotes_and_forms() {
        for (text, expected) in [
            ("UAB „Šarka“", &["sarka"][..]),
            ("uab \"SARKA\"", &["sarka"]),
            ("Uždaroji akcinė bendrovė Šarka", &["sarka"]),
            ("U.A.B. Šarka", &["sarka"]),
            ("IĮ «Ąžuolų ūkis»", &["azuolu", "ukis"]),
            ("VšĮ S\u{30c}arka", &["sarka"]),
            ("J. Jonaičio IĮ", &["j", "jonaicio"]),
            ("O'Neill & Co-op", &["oneill", "co", "op"]),
            ("Œuvre Straße İzmir", &["oeuvre", "strasse", "izmir"]),
            ("soft\u{ad}hyphen", &["softhyphen"]),
            ("a\nb", &["a", "b"]),
            ("UAB", &["uab"]),
            ("LT100001234567", &["100001234567"]),
            ("LT 100001234567", &["lt", "100001234567"]),
            ("SF-000017/A", &["sf", "17", "a"]),
            ("000", &["0"]),
            ("„%_\"' –", &[]),
        ] {
            // Of `IĮ` the letters are `ii`.
            assert_eq!(name_words(text), expected, "{text}");
        }
    }

    #[test]
    fn a_number_is_the_same_however_its_parts_are_written() {
        let same = ["SĄSK-1", "sask 1", "Sąsk1", "SASK/1", " sąsk–1 "];
        for number in same {
            assert_eq!(number_term(number).as_deref(), Some("#sask1"), "{number}");
        }
        assert_ne!(number_term("SĄSK-01"), number_term("SĄSK-1"));
        assert_eq!(number_term("%_'"), None);
    }

    #[test]
    fn amounts_are_read_as_people_and_programs_write_them() {
        for (text, expected) in [
            ("1210.00", Some("=1210")),
            ("1 210,00", Some("=1210")),
            ("1\u{a0}210,00 €", Some("=1210")),
            ("1,210.00 EUR", Some("=1210")),
            ("1.210,5", Some("=1210.5")),
            ("-121.10", Some("=121.1")),
            ("0.05", Some("=0.05")),
            ("12.345", Some("=12.345")),
            ("1 210", Some("=1210")),
            ("2026.11.28", None),
            ("28.11.2026", None),
            ("1.2.3", None),
            ("12a", None),
            ("", None),
            ("€", None),
            (",50", None),
        ] {
            assert_eq!(amount_term(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn dates_are_read_in_their_usual_forms() {
        for text in [
            "2026-11-28",
            "2026.11.28.",
            "2026/11/28",
            "28.11.2026",
            "28/11/2026",
        ] {
            assert_eq!(date_term(text).as_deref(), Some("@2026-11-28"), "{text}");
        }
        for text in [
            "2026-13-01",
            "2026-11-32",
            "2026-11",
            "1-2-3",
            "2026-11-28T10",
            "0999-01-01",
            "-",
        ] {
            assert_eq!(date_term(text), None, "{text}");
        }
        assert_eq!(month_prefix("2026.11").as_deref(), Some("@2026-11-"));
    }

    fn rank(search: &str, terms: &[&str]) -> Option<usize> {
        let terms = terms.iter().map(|term| (*term).to_owned()).collect();
        SearchText::read(search).rank(&terms)
    }

    #[test]
    fn whole_numbers_rank_first_then_words_then_beginnings() {
        let document = [
            "#sf4711",
            "sf",
            "4711",
            "sarka",
            "=1210",
            "@2026-11-28",
            "302320404",
        ];
        for (search, expected) in [
            ("SF 4711", Some(1)),
            ("sf-4711", Some(1)),
            ("4711", Some(2)),
            ("uab „Šarka“", Some(2)),
            ("šarka 004711", Some(2)),
            ("sark", Some(3)),
            ("47", None),
            ("471", Some(3)),
            ("arka", None),
            ("LT302320404", Some(2)),
            ("Šarka 1 210,00", Some(2)),
            ("1 210,00 EUR sark", Some(2)),
            ("1210", Some(2)),
            ("2026-11-28", Some(2)),
            ("28.11.2026 šarka", Some(2)),
            ("2026.11", Some(2)),
            ("UAB Šarka 2026.11", Some(2)),
            ("AB-4711", None),
            ("00471", None),
            ("AB 4711", Some(2)),
            ("2026-12", None),
            ("", None),
            ("%", None),
        ] {
            assert_eq!(rank(search, &document), expected, "{search}");
        }
    }

    #[test]
    fn of_ten_thousand_words_ten_count() {
        let many = "sarka ".repeat(10_000) + &"word ".repeat(10_000);
        let text = SearchText::read(&many);
        assert!(
            text.readings()
                .iter()
                .all(|reading| reading.parts().len() <= MAX_WORDS)
        );
        let many: Vec<String> = (0..10_000).map(|n| format!("{n},50")).collect();
        let text = SearchText::read(&many.join(" "));
        assert!(
            text.readings()
                .iter()
                .all(|reading| reading.parts().len() <= MAX_WORDS)
        );
    }

    proptest! {
        #[test]
        fn folding_twice_is_folding_once(text in "\\PC{0,60}") {
            let once = words(&text).join(" ");
            prop_assert_eq!(words(&once).join(" "), once);
        }

        #[test]
        fn words_hold_no_signs_and_are_bounded(text in any::<String>()) {
            for word in words(&text) {
                prop_assert!(!word.is_empty() && word.chars().count() <= MAX_CHARS);
                prop_assert!(word.chars().all(char::is_alphanumeric), "{word:?}");
            }
            let _ = (amount_term(&text), date_term(&text), SearchText::read(&text));
        }

        #[test]
        fn an_amount_is_found_in_every_writing(cents in 0_u64..10_000_000_000) {
            let (whole, rest) = (cents / 100, cents % 100);
            let mut spaced = String::new();
            for (at, digit) in whole.to_string().chars().rev().enumerate() {
                if at > 0 && at % 3 == 0 {
                    spaced.insert(0, ' ');
                }
                spaced.insert(0, digit);
            }
            let stored = amount_term(&format!("{whole}.{rest:02}"));
            prop_assert_eq!(&amount_term(&format!("{spaced},{rest:02}")), &stored);
            prop_assert_eq!(&amount_term(&format!("{spaced},{rest:02} €")), &stored);
            prop_assert_eq!(&amount_term(&format!("{whole},{rest:02}")), &stored);
        }

        #[test]
        fn a_number_finds_itself_first(number in "[A-ZĄČŠŽ]{0,4}[-/ ]?[0-9]{1,8}") {
            let terms: BTreeSet<String> = number_term(&number).into_iter().chain(words(&number)).collect();
            prop_assert_eq!(SearchText::read(&number.to_lowercase()).rank(&terms), Some(1));
        }
    }
}
