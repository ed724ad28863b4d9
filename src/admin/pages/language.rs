//! The two languages of the pages, and their number and time formats.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT_LANGUAGE;
use maud::{Markup, html};

use super::session::cookie;
use crate::domain::Timestamp;

/// Age up to which a moment is shown as "just now".
const NOW_WINDOW: Duration = Duration::from_secs(10);

/// Name of the cookie that stores the language.
pub(super) const COOKIE_NAME: &str = "ivesk_lang";

/// A language of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    English,
    Lithuanian,
}

impl Language {
    /// Returns the language of a request: the one chosen before, otherwise the browser's
    /// preferred one.
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        if let Some(language) = cookie(headers, COOKIE_NAME).and_then(Self::parse) {
            return language;
        }
        let preferred = headers
            .get(ACCEPT_LANGUAGE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        // Browsers list them in the order of preference.
        preferred
            .split(',')
            .filter_map(|one| Self::parse(one.trim().get(..2)?))
            .next()
            .unwrap_or(Self::English)
    }

    /// Parses `en` or `lt`.
    pub(super) fn parse(code: &str) -> Option<Self> {
        match code {
            "en" => Some(Self::English),
            "lt" => Some(Self::Lithuanian),
            _ => None,
        }
    }

    /// Returns `en` or `lt`.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Lithuanian => "lt",
        }
    }

    /// Returns the one of two texts that is in this language.
    pub(super) const fn pick<'t>(self, english: &'t str, lithuanian: &'t str) -> &'t str {
        match self {
            Self::English => english,
            Self::Lithuanian => lithuanian,
        }
    }

    /// Returns a number with its noun. The Lithuanian forms are those for 1, 2 and 10
    /// (1 diena, 2 dienos, 10 dienų).
    pub(super) fn count(self, number: u64, english: [&str; 2], lithuanian: [&str; 3]) -> String {
        let word = match self {
            Self::English => english[usize::from(number != 1)],
            Self::Lithuanian => lithuanian[lithuanian_form(number)],
        };
        format!("{} {word}", grouped(number))
    }

    /// Renders a moment with its distance from now.
    pub(super) fn moment(self, at: Timestamp, now: Timestamp) -> Markup {
        let text = at.to_string();
        let minutes = text.get(..16).unwrap_or(&text).replace('T', " ");
        html! {
            time datetime=(text) { (minutes) " UTC" }
            " " span.ago { "(" (self.relative_time(at, now)) ")" }
        }
    }

    /// Renders a moment, or "never".
    pub(super) fn optional_moment(self, at: Option<Timestamp>, now: Timestamp) -> Markup {
        match at {
            Some(at) => self.moment(at, now),
            None => html! { span.ago { (self.pick("never", "niekada")) } },
        }
    }

    /// Returns the day of a moment (UTC).
    pub(super) fn day(self, at: Timestamp) -> String {
        at.to_string().get(..10).unwrap_or_default().to_owned()
    }

    fn relative_time(self, at: Timestamp, now: Timestamp) -> String {
        let past = at <= now;
        if past && now.since(at) < NOW_WINDOW {
            return self.pick("just now", "ką tik").to_owned();
        }
        let seconds = if past { now.since(at) } else { at.since(now) }.as_secs();
        let (number, unit) = match seconds {
            0..120 => (seconds, self.pick("s", "s")),
            120..7_200 => (seconds / 60, self.pick("min", "min.")),
            7_200..172_800 => (seconds / 3_600, self.pick("h", "val.")),
            _ => (seconds / 86_400, self.pick("d", "d.")),
        };
        match (self, past) {
            (Self::English, true) => format!("{number} {unit} ago"),
            (Self::English, false) => format!("in {number} {unit}"),
            (Self::Lithuanian, true) => format!("prieš {number} {unit}"),
            (Self::Lithuanian, false) => format!("po {number} {unit}"),
        }
    }
}

/// Returns the index of the Lithuanian noun form that follows a number.
fn lithuanian_form(number: u64) -> usize {
    match (number % 100, number % 10) {
        (11..=19, _) | (_, 0) => 2,
        (_, 1) => 0,
        _ => 1,
    }
}

/// Returns the digits in groups of three, separated by no-break spaces.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{a0}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lithuanian_plurals_are_correct() {
        let days = |n| Language::Lithuanian.count(n, ["day", "days"], ["diena", "dienos", "dienų"]);
        assert_eq!(days(1), "1 diena");
        assert_eq!(days(2), "2 dienos");
        assert_eq!(days(10), "10 dienų");
        assert_eq!(days(11), "11 dienų");
        assert_eq!(days(21), "21 diena");
        assert_eq!(days(112), "112 dienų");
        assert_eq!(days(1_234_567), "1\u{a0}234\u{a0}567 dienos");
        assert_eq!(
            Language::English.count(1, ["day", "days"], ["", "", ""]),
            "1 day"
        );
    }

    #[test]
    fn the_readers_choice_overrides_the_browsers_language() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().expect("a value"));
            }
            Language::from_headers(&headers)
        };
        assert_eq!(of(&[]), Language::English);
        assert_eq!(
            of(&[("accept-language", "lt-LT,lt;q=0.9,en;q=0.8")]),
            Language::Lithuanian
        );
        assert_eq!(
            of(&[("accept-language", "de,en;q=0.8,lt;q=0.5")]),
            Language::English
        );
        let both = [("accept-language", "lt"), ("cookie", "ivesk_lang=en")];
        assert_eq!(of(&both), Language::English);
    }

    #[test]
    fn a_relative_time_shows_the_distance_from_now() {
        let now = Timestamp::from_millis(1_790_000_000_000);
        let minute = Duration::from_secs(60);
        let far = |language: Language, at| language.relative_time(at, now);
        assert_eq!(far(Language::English, now.before(5 * minute)), "5 min ago");
        assert_eq!(
            far(Language::Lithuanian, now.before(180 * minute)),
            "prieš 3 val."
        );
        assert_eq!(
            far(Language::Lithuanian, now.after(5 * minute)),
            "po 5 min."
        );
        assert_eq!(far(Language::Lithuanian, now), "ką tik");
    }
}
