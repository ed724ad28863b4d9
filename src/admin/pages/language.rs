//! The two languages of the pages, and their number and time formats.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT_LANGUAGE;
use maud::{Markup, html};
use tz::{DateTime, TimeZoneRef, UtcDateTime};

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
        format!("{}\u{a0}{word}", self.number(number))
    }

    /// Returns a whole number with its digits in groups of three.
    pub(super) fn number(self, number: u64) -> String {
        self.grouped(&number.to_string())
    }

    fn grouped(self, digits: &str) -> String {
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(match self {
                    Self::English => ',',
                    Self::Lithuanian => '\u{a0}',
                });
            }
            text.push(digit);
        }
        text
    }

    /// Returns a decimal number as the reader writes it, with at least `decimals` of them and none
    /// rounded; as it is if it is no plain number.
    pub(super) fn decimal(self, text: &str, decimals: usize) -> String {
        let trimmed = text.trim();
        let (sign, unsigned) = match trimmed.strip_prefix('-') {
            Some(unsigned) => ("\u{2212}", unsigned),
            None => ("", trimmed),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
            return text.to_owned();
        }
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        let point = self.pick(".", ",");
        let mut shown = format!("{sign}{}", self.grouped(whole));
        if !fraction.is_empty() || decimals > 0 {
            shown.push_str(point);
            shown.push_str(fraction);
            shown.extend(std::iter::repeat_n(
                '0',
                decimals.saturating_sub(fraction.len()),
            ));
        }
        shown
    }

    /// Returns an amount of money as the reader writes it, its currency after it.
    pub(super) fn amount(self, total: &str, currency: Option<&str>) -> String {
        let number = self.decimal(total, 2);
        match currency {
            Some(currency) => format!("{number}\u{a0}{currency}"),
            None => number,
        }
    }

    /// Renders a moment with its distance from now.
    pub(super) fn moment(self, at: Timestamp, now: Now<'_>) -> Markup {
        html! {
            (self.time(at, now)) " "
            span.ago { "(" (self.relative_time(at, now.at)) ")" }
        }
    }

    /// Renders a moment's day and time of day.
    pub(super) fn time(self, at: Timestamp, now: Now<'_>) -> Markup {
        html! { time datetime=(at.to_string()) { (now.local(at)) } }
    }

    /// Renders the distance of a moment from now, with the moment as its title.
    pub(super) fn age(self, at: Timestamp, now: Now<'_>) -> Markup {
        html! {
            time datetime=(at.to_string()) title=(now.local(at)) { (self.relative_time(at, now.at)) }
        }
    }

    /// Renders a moment, or "never".
    pub(super) fn optional_moment(self, at: Option<Timestamp>, now: Now<'_>) -> Markup {
        match at {
            Some(at) => self.moment(at, now),
            None => html! { span.ago { (self.pick("never", "niekada")) } },
        }
    }

    /// Returns the day of a moment.
    pub(super) fn day(self, at: Timestamp, now: Now<'_>) -> String {
        now.local(at).get(..10).unwrap_or_default().to_owned()
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
            (Self::English, true) => format!("{number}\u{a0}{unit} ago"),
            (Self::English, false) => format!("in {number}\u{a0}{unit}"),
            (Self::Lithuanian, true) => format!("prieš {number}\u{a0}{unit}"),
            (Self::Lithuanian, false) => format!("po {number}\u{a0}{unit}"),
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

/// The present moment, and the time zone of the pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now<'z> {
    pub(super) at: Timestamp,
    pub(super) zone: TimeZoneRef<'z>,
}

impl Now<'_> {
    /// Returns day and time of day of a moment, as in `2026-11-28 14:05`; in UTC beyond every
    /// calendar.
    pub(super) fn local(self, at: Timestamp) -> String {
        let Some(local) = self.project(at) else {
            return at.to_string();
        };
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}",
            local.year(),
            local.month(),
            local.month_day(),
            local.hour(),
            local.minute()
        )
    }

    /// Returns the first day of this month.
    pub(super) fn first_of_month(self) -> String {
        let today = self.local(self.at);
        format!("{}-01", today.get(..7).unwrap_or_default())
    }

    /// Returns the moment at which a day (`YYYY-MM-DD`) begins in the time zone; `None` if it is no
    /// day.
    pub(super) fn start_of_day(self, day: &str) -> Option<Timestamp> {
        let midnight = Timestamp::parse(&format!("{day}T00:00:00Z"))?;
        // The offset at midnight: two steps reach it, whatever the zone.
        let mut start = midnight;
        for _ in 0..2 {
            let offset = i64::from(self.project(start)?.local_time_type().ut_offset());
            start = Timestamp::from_millis(midnight.as_millis() - offset * 1000);
        }
        Some(start)
    }

    fn project(self, at: Timestamp) -> Option<DateTime> {
        let moment = UtcDateTime::from_timespec(at.as_millis().div_euclid(1000), 0).ok()?;
        moment.project(self.zone).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lithuanian_plurals_are_correct() {
        let days = |n| Language::Lithuanian.count(n, ["day", "days"], ["diena", "dienos", "dienų"]);
        assert_eq!(days(1), "1\u{a0}diena");
        assert_eq!(days(2), "2\u{a0}dienos");
        assert_eq!(days(10), "10\u{a0}dienų");
        assert_eq!(days(11), "11\u{a0}dienų");
        assert_eq!(days(21), "21\u{a0}diena");
        assert_eq!(days(112), "112\u{a0}dienų");
        assert_eq!(days(1_234_567), "1\u{a0}234\u{a0}567\u{a0}dienos");
        assert_eq!(
            Language::English.count(1, ["day", "days"], ["", "", ""]),
            "1\u{a0}day"
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
        assert_eq!(
            far(Language::English, now.before(5 * minute)),
            "5\u{a0}min ago"
        );
        assert_eq!(
            far(Language::Lithuanian, now.before(180 * minute)),
            "prieš 3\u{a0}val."
        );
        assert_eq!(
            far(Language::Lithuanian, now.after(5 * minute)),
            "po 5\u{a0}min."
        );
        assert_eq!(far(Language::Lithuanian, now), "ką tik");
    }

    #[test]
    fn money_is_written_as_the_reader_writes_it() {
        let both = |text: &str| {
            [Language::English, Language::Lithuanian]
                .map(|language| language.amount(text, Some("EUR")))
        };
        assert_eq!(
            both("2805.95"),
            ["2,805.95\u{a0}EUR", "2\u{a0}805,95\u{a0}EUR"]
        );
        assert_eq!(both("7"), ["7.00\u{a0}EUR", "7,00\u{a0}EUR"]);
        assert_eq!(
            both("-1234567.8901"),
            [
                "\u{2212}1,234,567.8901\u{a0}EUR",
                "\u{2212}1\u{a0}234\u{a0}567,8901\u{a0}EUR"
            ]
        );
        for odd in ["1e9", "12,50", "", "abc", ".5"] {
            assert_eq!(both(odd)[0], format!("{odd}\u{a0}EUR"), "{odd}");
        }
        assert_eq!(Language::Lithuanian.decimal("21", 0), "21");
        assert_eq!(Language::Lithuanian.decimal("0.5", 0), "0,5");
    }

    #[test]
    fn times_are_those_of_the_pages_zone() {
        let zone = tz::TimeZone::from_posix_tz("EET-2EEST,M3.5.0/3,M10.5.0/4").expect("rules");
        let now = Now {
            at: Timestamp::parse("2026-11-30T22:30:00Z").expect("a moment"),
            zone: zone.as_ref(),
        };
        assert_eq!(now.local(now.at), "2026-12-01 00:30");
        assert_eq!(now.first_of_month(), "2026-12-01");
        let start = |day: &str| now.start_of_day(day).map(|at| at.to_string());
        assert_eq!(
            start("2026-12-01").as_deref(),
            Some("2026-11-30T22:00:00.000Z")
        );
        assert_eq!(
            start("2026-07-01").as_deref(),
            Some("2026-06-30T21:00:00.000Z")
        );
        assert_eq!(start("tomorrow"), None);
    }
}
