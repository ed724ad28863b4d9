//! Reads the vendor's versions and cursors as moments.
//!
//! One moment has one canonical text whatever the vendor's digits, offset or form, so that it is
//! one version; canonical texts are ordered like the moments that they name.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};
use sns_messages::time::Timestamp;
use time::{Date, Month, PrimitiveDateTime, UtcOffset};

/// Longest text that is read.
const MAX_BYTES: usize = 100;

/// Fewest and most digits of an integer that is read as a moment. Shorter ones are counters or
/// offsets in a list: as moments they would all be in the first years after 1970.
const INTEGER_DIGITS: std::ops::RangeInclusive<usize> = 9..=15;

/// Length of a canonical text without a fraction.
const SECONDS_LENGTH: usize = "2026-11-01T00:00:01".len();

/// The first integer that counts milliseconds; smaller ones count seconds.
const FIRST_MILLIS: u64 = 100_000_000_000;

/// A moment at full precision, in UTC: `2026-11-01T00:00:01.12`, without a zone and without
/// zeros at the end. Orders by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(String);

/// The form in which a text names a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MomentForm {
    /// A date and a time.
    DateTime,
    /// An integer: seconds since 1970.
    Seconds,
    /// An integer: milliseconds since 1970.
    Millis,
}

impl Moment {
    /// Reads a date and time (any number of digits; `Z`, an offset, or no zone, which means
    /// UTC; a space instead of `T`) or an integer (below 10^11 seconds since 1970, else
    /// milliseconds).
    ///
    /// Returns `None` for any other text.
    pub fn read(text: &str) -> Option<Self> {
        match form(text)? {
            MomentForm::DateTime => DateTime::read(text)?.moment(),
            MomentForm::Seconds => Self::of(text.trim().parse().ok()?, ""),
            MomentForm::Millis => {
                let millis: i64 = text.trim().parse().ok()?;
                Self::of(millis / 1_000, &format!("{:03}", millis % 1_000))
            }
        }
    }

    /// Returns the canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the moment, cut off at the millisecond.
    pub fn timestamp(&self) -> Option<Timestamp> {
        let (seconds, fraction) = self.parts()?;
        let millis: String = fraction.chars().chain("000".chars()).take(3).collect();
        Some(Timestamp::from_millis(
            seconds * 1_000 + millis.parse::<i64>().ok()?,
        ))
    }

    /// Returns the moment with at most this many digits after the seconds.
    fn cut(&self, digits: usize) -> &str {
        let end = SECONDS_LENGTH + if digits == 0 { 0 } else { 1 + digits };
        let text = self.0.get(..end).unwrap_or(&self.0);
        match text.len() {
            SECONDS_LENGTH => text,
            _ => text.trim_end_matches('0').trim_end_matches('.'),
        }
    }

    /// Writes it in a form; a finer moment is cut off.
    pub fn written_as(&self, form: MomentForm) -> Option<String> {
        Some(match form {
            MomentForm::DateTime => format!("{}Z", self.0),
            MomentForm::Seconds => self.parts()?.0.to_string(),
            MomentForm::Millis => self.timestamp()?.as_millis().to_string(),
        })
    }

    /// Returns the seconds since 1970, and the digits after them.
    fn parts(&self) -> Option<(i64, &str)> {
        let DateTime {
            local, fraction, ..
        } = DateTime::read(&self.0)?;
        Some((local.assume_utc().unix_timestamp(), fraction))
    }

    fn of(seconds: i64, fraction: &str) -> Option<Self> {
        let utc = time::OffsetDateTime::from_unix_timestamp(seconds).ok()?;
        Self::at(PrimitiveDateTime::new(utc.date(), utc.time()), fraction)
    }

    fn at(utc: PrimitiveDateTime, fraction: &str) -> Option<Self> {
        if !(0..=9999).contains(&utc.year()) {
            return None;
        }
        let mut text = written(utc, 'T');
        let fraction = fraction.trim_end_matches('0');
        if !fraction.is_empty() {
            text.push('.');
            text.push_str(fraction);
        }
        Some(Self(text))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the form of a text that may name a moment.
pub fn form(text: &str) -> Option<MomentForm> {
    let text = text.trim();
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return (text.len() <= MAX_BYTES && text.contains('-')).then_some(MomentForm::DateTime);
    }
    if !INTEGER_DIGITS.contains(&text.len()) {
        return None;
    }
    let number: u64 = text.parse().ok()?;
    Some(match number {
        ..FIRST_MILLIS => MomentForm::Seconds,
        FIRST_MILLIS.. => MomentForm::Millis,
    })
}

/// Returns `text` in the form of `like`, with no more digits after the seconds. A moment that is
/// finer is cut off.
pub fn in_form_of(text: &str, like: &str) -> Option<String> {
    let wanted = form(like)?;
    let moment = Moment::read(text)?;
    let text = match form(text) == Some(wanted) {
        true => text.to_owned(),
        false => moment.written_as(wanted)?,
    };
    let digits = digits(like)?;
    match DateTime::read(&text) {
        Some(one) if one.fraction.len() > digits => {
            Some(one.written(one.local, one.fraction.get(..digits)?))
        }
        _ => Some(text),
    }
}

/// Compares two texts as moments, at the coarser precision of both as they are written: if one of
/// them has no fraction, by the second. Returns `None` if one of them names no moment.
pub fn compare_coarsely(a: &str, b: &str) -> Option<Ordering> {
    let digits = digits(a)?.min(digits(b)?);
    let (a, b) = (Moment::read(a)?, Moment::read(b)?);
    Some(a.cut(digits).cmp(b.cut(digits)))
}

/// Returns the number of digits after the seconds of a text that names a moment.
fn digits(text: &str) -> Option<usize> {
    Some(match form(text)? {
        MomentForm::DateTime => DateTime::read(text)?.fraction.len(),
        MomentForm::Seconds => 0,
        MomentForm::Millis => 3,
    })
}

/// Returns the text of the next moment after `text`, by the smallest step of its own precision and
/// in its own form.
pub fn step_after(text: &str) -> Option<String> {
    match form(text)? {
        MomentForm::DateTime => DateTime::read(text)?.stepped(),
        MomentForm::Seconds | MomentForm::Millis => {
            let next = text.trim().parse::<u64>().ok()?.checked_add(1)?;
            Some(next.to_string())
        }
    }
}

/// The parts of a date and time.
struct DateTime<'a> {
    local: PrimitiveDateTime,
    /// `T`, `t` or a space.
    separator: char,
    /// The digits after the seconds.
    fraction: &'a str,
    /// The zone as written, with the space before it.
    zone: &'a str,
    offset: UtcOffset,
}

impl<'a> DateTime<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let text = text.trim();
        if !text.is_ascii() {
            return None;
        }
        let (date, rest) = (text.get(..10)?, text.get(10..)?);
        let separator = rest.chars().next()?;
        if !matches!(separator, 'T' | 't' | ' ') {
            return None;
        }
        let (time, rest) = (rest.get(1..9)?, rest.get(9..)?);
        let year: i32 = number(date.get(..4)?)?;
        let day: u8 = number(date.get(8..)?)?;
        let month = Month::try_from(number::<u8>(date.get(5..7)?)?).ok()?;
        let [hour, minute, second] = [0, 3, 6].map(|at| number::<u8>(&time[at..at + 2]));
        let separators = [&date[4..5], &date[7..8], &time[2..3], &time[5..6]];
        if separators != ["-", "-", ":", ":"] {
            return None;
        }
        let time = time::Time::from_hms(hour?, minute?, second?).ok()?;
        let date = Date::from_calendar_date(year, month, day).ok()?;
        let (fraction, zone) = match rest.strip_prefix(['.', ',']) {
            Some(rest) => {
                let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                (digits > 0).then(|| rest.split_at(digits))?
            }
            None => ("", rest),
        };
        Some(Self {
            local: PrimitiveDateTime::new(date, time),
            separator,
            fraction,
            zone,
            offset: offset(zone.trim_start())?,
        })
    }

    fn moment(&self) -> Option<Moment> {
        let offset = time::Duration::seconds(i64::from(self.offset.whole_seconds()));
        Moment::at(self.local.checked_sub(offset)?, self.fraction)
    }

    fn stepped(&self) -> Option<String> {
        let mut digits: Vec<u8> = self.fraction.bytes().collect();
        let mut carry = true;
        for digit in digits.iter_mut().rev() {
            carry = *digit == b'9';
            *digit = if carry { b'0' } else { *digit + 1 };
            if !carry {
                break;
            }
        }
        let second = time::Duration::seconds(i64::from(carry));
        // Fails after the year 9999.
        let local = self.local.checked_add(second)?;
        Some(self.written(local, std::str::from_utf8(&digits).ok()?))
    }

    /// Writes another moment as this one is written.
    fn written(&self, local: PrimitiveDateTime, fraction: &str) -> String {
        let point = if fraction.is_empty() { "" } else { "." };
        let seconds = written(local, self.separator);
        format!("{seconds}{point}{fraction}{}", self.zone)
    }
}

/// Writes a date and time up to the second.
fn written(moment: PrimitiveDateTime, separator: char) -> String {
    format!(
        "{:04}-{:02}-{:02}{separator}{:02}:{:02}:{:02}",
        moment.year(),
        u8::from(moment.month()),
        moment.day(),
        moment.hour(),
        moment.minute(),
        moment.second()
    )
}

/// Reads digits; nothing else, not even a sign.
fn number<N: std::str::FromStr>(digits: &str) -> Option<N> {
    let all = digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok())?
}

/// Reads `Z`, `+02`, `+0200`, `+02:00` or nothing, which is UTC.
fn offset(zone: &str) -> Option<UtcOffset> {
    if matches!(zone, "" | "Z" | "z") {
        return Some(UtcOffset::UTC);
    }
    let sign = match zone.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = match &zone[1..] {
        digits if digits.len() == 2 => (digits, "00"),
        digits if digits.len() == 4 => digits.split_at(2),
        digits => digits
            .split_once(':')
            .filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2)?,
    };
    let (hours, minutes) = (number::<i8>(hours)?, number::<i8>(minutes)?);
    // `UtcOffset` refuses more than 59 minutes itself, but takes up to 25 hours.
    (hours <= 23).then(|| UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<String> {
        Moment::read(text).map(|moment| moment.as_str().to_owned())
    }

    #[test]
    fn one_moment_has_one_text_in_whichever_form() {
        for text in [
            "2026-11-01T00:00:01.12Z",
            "2026-11-01T00:00:01.120Z",
            "2026-11-01T00:00:01.120000000000Z",
            "2026-11-01t00:00:01.12z",
            "2026-11-01T00:00:01.12",
            "2026-11-01 00:00:01.120",
            "2026-11-01T02:00:01.12+02:00",
            "2026-11-01T02:00:01.12+0200",
            "2026-11-01T02:00:01.12+02",
            "2026-11-01 02:00:01,12 +0200",
            "2026-10-31T19:30:01.12-04:30",
            "1793491201120",
        ] {
            assert_eq!(
                read(text).as_deref(),
                Some("2026-11-01T00:00:01.12"),
                "{text}"
            );
        }
        assert_eq!(read("1793491201").as_deref(), Some("2026-11-01T00:00:01"));
        assert_eq!(
            read("2026-11-01T00:00:01.1234567890123Z").as_deref(),
            Some("2026-11-01T00:00:01.1234567890123"),
            "no digit is cut off"
        );
    }

    #[test]
    fn other_texts_are_no_moments() {
        for text in [
            "",
            "1",
            "12345678",
            "b2s=",
            "2026-11-01",
            "2026-11-01T00:00",
            "2026-13-01T00:00:00Z",
            "2026-11-01T24:00:00Z",
            "2026-11-01T00:00:60Z",
            "2026-11-01T00:00:00.Z",
            "2026-11-01T00:00:00+2",
            "2026-11-01T00:00:00+2:00",
            "2026-11-01T00:00:00+02:0",
            "2026-11-01T00:00:00+002:00",
            "2026-11-01T00:00:00+02:000",
            "2026-11-01T00:00:00+24:00",
            "2026-11-01T00:00:00+02:60",
            "2026-11-01T00:00:00+99:00",
            "2026-11-01X00:00:00",
            "2026-11-01T00:00:00 UTC",
            "+026-11-01T00:00:00Z",
            "1234567890123456",
            "-1793491201",
            "1793491201.5",
            "9999-12-31T23:59:59-23:00",
            "ąąąąą-ąą-ąą",
            "2026-11-01Tąąąą",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_text_of_a_hundred_bytes_is_read_and_a_longer_one_is_not() {
        let start = "2026-11-01T00:00:01.";
        let longest = format!("{start}{:1>1$}", "", MAX_BYTES - start.len());
        assert_eq!(read(&format!(" {longest} ")), Some(longest.clone()));
        assert_eq!(read(&format!("{longest}1")), None);
    }

    #[test]
    fn a_text_that_can_name_no_moment_has_no_form() {
        for (text, expected) in [
            ("2026-11-01T00:00:01Z", Some(MomentForm::DateTime)),
            ("1793491201", Some(MomentForm::Seconds)),
            ("99999999999", Some(MomentForm::Seconds)),
            ("100000000000", Some(MomentForm::Millis)),
            ("12345678", None),
            ("b2s=", None),
            (&"-".repeat(MAX_BYTES + 1), None),
        ] {
            assert_eq!(form(text), expected, "{text}");
        }
    }

    #[test]
    fn a_moment_is_cut_off_after_its_seconds() {
        let moment = Moment::read("2026-11-01T00:00:10.1203Z").unwrap();
        for (digits, expected) in [
            (0, "2026-11-01T00:00:10"),
            (1, "2026-11-01T00:00:10.1"),
            (3, "2026-11-01T00:00:10.12"),
            (9, "2026-11-01T00:00:10.1203"),
        ] {
            assert_eq!(moment.cut(digits), expected);
        }
        assert_eq!(moment.to_string(), moment.as_str());
    }

    #[test]
    fn a_step_is_the_smallest_of_the_texts_own_precision() {
        for (text, next) in [
            ("2026-11-01T00:00:01.120Z", "2026-11-01T00:00:01.121Z"),
            ("2026-11-01T00:00:01.999Z", "2026-11-01T00:00:02.000Z"),
            ("2026-12-31 23:59:59+0200", "2027-01-01 00:00:00+0200"),
            ("2026-11-01T00:00:01.9", "2026-11-01T00:00:02.0"),
            ("1793491201", "1793491202"),
            ("1793491201120", "1793491201121"),
        ] {
            assert_eq!(step_after(text).as_deref(), Some(next), "{text}");
        }
        assert_eq!(step_after("b2s="), None);
        assert_eq!(step_after("9999-12-31T23:59:59Z"), None);
    }

    #[test]
    fn a_moment_is_written_in_another_form() {
        let text = "2026-11-01T00:00:01.1259Z";
        assert_eq!(
            in_form_of(text, "1793491200").as_deref(),
            Some("1793491201")
        );
        assert_eq!(
            in_form_of(text, "1793491200000").as_deref(),
            Some("1793491201125")
        );
        assert_eq!(
            in_form_of(text, "2026-11-01 00:00:00.00000").as_deref(),
            Some(text)
        );
        assert_eq!(
            in_form_of(text, "2026-11-01 00:00:00,125").as_deref(),
            Some("2026-11-01T00:00:01.125Z")
        );
        assert_eq!(
            in_form_of(text, "2026-11-01 00:00:00").as_deref(),
            Some("2026-11-01T00:00:01Z")
        );
        assert_eq!(
            in_form_of("1793491201125", "2026-11-01T00:00:00.1Z").as_deref(),
            Some("2026-11-01T00:00:01.1Z")
        );
        // One that is no finer stays as it is written.
        let comma = "2026-11-01 00:00:01,125";
        assert_eq!(in_form_of(comma, text).as_deref(), Some(comma));
        assert_eq!(in_form_of(comma, comma).as_deref(), Some(comma));
        assert_eq!(in_form_of(text, "b2s="), None);
    }

    #[test]
    fn moments_are_compared_as_far_as_both_are_written() {
        let fine = "2026-11-01T00:00:01.125Z";
        for (other, order) in [
            ("2026-11-01T00:00:01Z", Ordering::Equal),
            ("2026-11-01T02:00:01.12+0200", Ordering::Equal),
            ("1793491201", Ordering::Equal),
            ("1793491201125", Ordering::Equal),
            ("2026-11-01T00:00:01.12599Z", Ordering::Equal),
            ("2026-11-01T00:00:01.120Z", Ordering::Greater),
            ("1793491200", Ordering::Greater),
            ("1793491201126", Ordering::Less),
            ("2026-11-01T00:00:02Z", Ordering::Less),
        ] {
            assert_eq!(compare_coarsely(fine, other), Some(order), "{other}");
            assert_eq!(compare_coarsely(other, fine), Some(order.reverse()));
        }
        assert_eq!(compare_coarsely(fine, "b2s="), None);
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic(text in "[0-9TtZz :.,+-]{0,40}", other in "\\PC{0,40}") {
            for text in [&text, &other] {
                let _ = Moment::read(text).map(|moment| moment.timestamp());
                let _ = step_after(text);
                let _ = in_form_of(text, &other);
                let _ = compare_coarsely(text, &other);
            }
        }

        /// Canonical texts order as the moments do, and a step is the next one.
        #[test]
        fn canonical_texts_are_ordered_like_moments(
            [a, b] in [-30_000_000_000_000_i64..200_000_000_000_000, -30_000_000_000_000_i64..200_000_000_000_000],
        ) {
            let text = |millis: i64| Timestamp::from_millis(millis).to_string();
            let moment = |millis| Moment::read(&text(millis)).expect("a moment");
            prop_assert_eq!(a.cmp(&b), moment(a).cmp(&moment(b)));
            prop_assert_eq!(moment(a).timestamp(), Some(Timestamp::from_millis(a)));
            prop_assert_eq!(step_after(&text(a)), Some(text(a + 1)));
            prop_assert_eq!(Moment::read(moment(a).as_str()), Some(moment(a)));
        }
    }
}
