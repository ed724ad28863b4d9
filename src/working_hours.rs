//! Working time in Lithuania: Monday to Friday 8:00 to 17:00, except public holidays.
//!
//! Computed, so that no time zone database is needed: Lithuania follows the European Union's
//! summer time (Directive 2000/84/EC), which begins on the last Sunday of March and ends on that
//! of October. Both are days off, so no working day has two offsets.

use std::time::Duration;

use time::{Date, Month, Weekday};

use crate::domain::Timestamp;

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The day's first working hour, in local time.
const OPENS_MS: i64 = 8 * HOUR_MS;
/// The hour at which the working day ends, in local time.
const CLOSES_MS: i64 = 17 * HOUR_MS;

/// Local time is so far ahead of UTC in winter.
const WINTER_MS: i64 = 2 * HOUR_MS;
/// Local time is so far ahead of UTC in summer.
const SUMMER_MS: i64 = 3 * HOUR_MS;

/// The Julian day of 1970-01-01.
const EPOCH_DAY: i64 = 2_440_588;

/// Public holidays on the same day each year (Labor Code of Lithuania, article 123). The others
/// are Sundays, and Easter Monday.
const HOLIDAYS: [(Month, u8); 12] = [
    (Month::January, 1),
    (Month::February, 16),
    (Month::March, 11),
    (Month::May, 1),
    (Month::June, 24),
    (Month::July, 6),
    (Month::August, 15),
    (Month::November, 1),
    (Month::November, 2),
    (Month::December, 24),
    (Month::December, 25),
    (Month::December, 26),
];

/// Returns the earliest moment since which no more than `span` of working time has passed at
/// `now`: what was begun sooner has taken longer.
pub fn before(now: Timestamp, span: Duration) -> Timestamp {
    let now = now.as_millis();
    let mut left = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let mut day = date_of(now.saturating_add(SUMMER_MS));
    while let Some(date) = day {
        if is_working_day(date) {
            let opens = instant(date, OPENS_MS);
            let closes = instant(date, CLOSES_MS).min(now);
            let worked = closes.saturating_sub(opens).max(0);
            if left < worked {
                return Timestamp::from_millis(closes - left);
            }
            left -= worked;
        }
        day = date.previous_day();
    }
    // Before the first year that has a date.
    Timestamp::from_millis(i64::MIN)
}

/// Returns the date of a local time, in milliseconds since 1970.
fn date_of(local: i64) -> Option<Date> {
    let day = local.div_euclid(DAY_MS).checked_add(EPOCH_DAY)?;
    Date::from_julian_day(i32::try_from(day).ok()?).ok()
}

/// Returns the moment at which it is `local` on a day, in milliseconds since 1970.
fn instant(date: Date, local: i64) -> i64 {
    let midnight = (i64::from(date.to_julian_day()) - EPOCH_DAY) * DAY_MS;
    let offset = if is_summer(date) {
        SUMMER_MS
    } else {
        WINTER_MS
    };
    midnight + local - offset
}

/// Returns true if a weekday is within summer time.
fn is_summer(date: Date) -> bool {
    let changes = [Month::March, Month::October].map(|month| last_sunday(date.year(), month));
    matches!(changes, [Some(begins), Some(ends)] if begins < date && date < ends)
}

/// Returns the last Sunday of a month that has 31 days.
fn last_sunday(year: i32, month: Month) -> Option<Date> {
    let last = Date::from_calendar_date(year, month, 31).ok()?;
    let since = i32::from(last.weekday().number_days_from_sunday());
    Date::from_julian_day(last.to_julian_day() - since).ok()
}

fn is_working_day(date: Date) -> bool {
    let is_weekend = matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday);
    let is_holiday = HOLIDAYS.contains(&(date.month(), date.day()))
        || date
            .previous_day()
            .is_some_and(|day| easter(day.year()) == Some(day));
    !is_weekend && !is_holiday
}

/// Returns Easter Sunday of the Gregorian calendar, by the algorithm of Meeus, Jones and Butcher.
fn easter(year: i32) -> Option<Date> {
    let golden = year % 19;
    let (century, of_century) = (year / 100, year % 100);
    let skipped = (century - (century + 8) / 25 + 1) / 3;
    let moon = (19 * golden + century - century / 4 - skipped + 15) % 30;
    let weekday = (32 + 2 * (century % 4) + 2 * (of_century / 4) - moon - of_century % 4) % 7;
    let late = (golden + 11 * moon + 22 * weekday) / 451;
    let day = moon + weekday - 7 * late + 114;
    let month = Month::try_from(u8::try_from(day / 31).ok()?).ok()?;
    Date::from_calendar_date(year, month, u8::try_from(day % 31 + 1).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect(text)
    }

    #[test]
    fn twelve_working_hours_skip_nights_weekends_and_holidays() {
        let hours = Duration::from_secs(12 * 60 * 60);
        for (sent, over, why) in [
            (
                "2026-11-24T08:00+02:00",
                "2026-11-25T11:00+02:00",
                "a night",
            ),
            (
                "2026-11-27T16:00+02:00",
                "2026-12-01T10:00+02:00",
                "a weekend",
            ),
            (
                "2026-11-28T12:00+02:00",
                "2026-12-01T11:00+02:00",
                "sent on Saturday",
            ),
            (
                "2026-12-23T16:00+02:00",
                "2026-12-29T10:00+02:00",
                "Christmas",
            ),
            (
                "2026-02-13T16:00+02:00",
                "2026-02-18T10:00+02:00",
                "February 16",
            ),
            (
                "2026-04-02T16:00+03:00",
                "2026-04-07T10:00+03:00",
                "Easter Monday",
            ),
            (
                "2027-03-26T16:00+02:00",
                "2027-03-31T10:00+03:00",
                "Easter, and summer time",
            ),
            (
                "2026-03-27T16:00+02:00",
                "2026-03-31T10:00+03:00",
                "summer time",
            ),
            (
                "2026-10-23T16:00+03:00",
                "2026-10-27T10:00+02:00",
                "winter time",
            ),
            (
                "2026-06-23T16:00+03:00",
                "2026-06-26T10:00+03:00",
                "St. John's Day",
            ),
        ] {
            let (sent, over) = (
                at(&sent.replace('+', ":00+")),
                at(&over.replace('+', ":00+")),
            );
            assert!(before(over, hours) <= sent, "{why}: not sooner");
            let later = over.after(Duration::from_millis(1));
            assert!(before(later, hours) > sent, "{why}: not later");
        }
    }

    #[test]
    fn what_was_sent_at_night_counts_from_the_next_morning() {
        let hour = Duration::from_secs(60 * 60);
        let (evening, morning) = (at("2026-11-24T15:00:00Z"), at("2026-11-25T06:00:00Z"));
        assert_eq!(before(morning.after(hour), hour), evening);
        assert_eq!(before(morning, Duration::ZERO), evening);
    }

    #[test]
    fn easter_is_where_the_calendars_have_it() {
        for (year, month, day) in [
            (2024, Month::March, 31),
            (2025, Month::April, 20),
            (2026, Month::April, 5),
            (2027, Month::March, 28),
            (2038, Month::April, 25),
            (2285, Month::March, 22),
        ] {
            let date = Date::from_calendar_date(year, month, day).ok();
            assert_eq!(easter(year), date, "{year}");
        }
    }

    proptest! {
        #[test]
        fn a_later_moment_never_means_an_earlier_limit(
            now in 0..8_000_000_000_000_i64, later in 0..DAY_MS * 10, hours in 0..500_u64
        ) {
            let span = Duration::from_secs(hours * 60 * 60);
            let [first, second] = [now, now + later].map(|now| before(Timestamp::from_millis(now), span));
            prop_assert!(first <= second);
            prop_assert!(second <= Timestamp::from_millis(now + later));
        }
    }
}
