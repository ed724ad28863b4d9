//! Moments as people read them: the local time, and how long ago.

use std::time::Duration;

use tz::{TimeZone, UtcDateTime};

use super::style;
use crate::domain::Timestamp;

/// Distance within which a moment is "just now".
const NOW: Duration = Duration::from_secs(5);

/// Distance within which the time of day is enough.
const SAME_DAY: Duration = Duration::from_secs(12 * 60 * 60);

/// Returns a moment as in `14:05 (5 min ago)`, in the time zone of this machine, or of the variable
/// `TZ`.
pub(super) fn shown(at: Timestamp, now: Timestamp) -> String {
    in_zone(at, now, &style::time_zone())
}

/// Returns a moment as in `2026-11-28 14:05:09`, in the same time zone.
pub(super) fn exact(at: Timestamp) -> String {
    exact_in_zone(at, &style::time_zone())
}

fn exact_in_zone(at: Timestamp, zone: &TimeZone) -> String {
    let seconds = at.as_millis().div_euclid(1000).rem_euclid(60);
    match local(at, zone) {
        Some((day, time)) => {
            let (time, zone) = time.split_once(' ').unwrap_or((&time, ""));
            let text = format!("{day} {time}:{seconds:02} {zone}");
            text.trim_end().to_owned()
        }
        None => at.to_string(),
    }
}

fn in_zone(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let distance = relative(at, now);
    match local(at, zone) {
        Some((day, time)) if distance_of(at, now) > SAME_DAY => {
            format!("{day} {time} ({distance})")
        }
        Some((_, time)) => format!("{time} ({distance})"),
        None => format!("{at} ({distance})"),
    }
}

fn distance_of(at: Timestamp, now: Timestamp) -> Duration {
    at.since(now).max(now.since(at))
}

/// Returns the distance from now, such as `5 min ago` or `in 2 h`.
fn relative(at: Timestamp, now: Timestamp) -> String {
    let distance = distance_of(at, now);
    if distance < NOW && at <= now {
        return "just now".to_owned();
    }
    let seconds = distance.as_secs();
    let (number, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7_200 => (seconds / 60, "min"),
        7_200..172_800 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    match at <= now {
        true => format!("{number} {unit} ago"),
        false => format!("in {number} {unit}"),
    }
}

/// Returns day and time of day; `None` for a moment that is beyond every calendar.
fn local(at: Timestamp, zone: &TimeZone) -> Option<(String, String)> {
    let moment = UtcDateTime::from_timespec(at.as_millis().div_euclid(1000), 0).ok()?;
    let moment = moment.project(zone.as_ref()).ok()?;
    let offset = moment.local_time_type().ut_offset();
    let day = format!(
        "{:04}-{:02}-{:02}",
        moment.year(),
        moment.month(),
        moment.month_day()
    );
    // Readers in Lithuania would take it for theirs.
    let zone = if offset == 0 { " UTC" } else { "" };
    let time = format!("{:02}:{:02}{zone}", moment.hour(), moment.minute());
    Some((day, time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a moment")
    }

    #[test]
    fn a_moment_has_its_distance_and_the_local_time() {
        let vilnius = TimeZone::from_posix_tz("EET-2EEST,M3.5.0/3,M10.5.0/4").expect("a zone");
        let utc = TimeZone::utc();
        let now = moment("2026-07-10T12:00:00Z");
        for (at, zone, expected) in [
            ("2026-07-10T11:59:58Z", &vilnius, "14:59 (just now)"),
            ("2026-07-10T11:55:00Z", &vilnius, "14:55 (5 min ago)"),
            ("2026-07-10T12:30:00Z", &vilnius, "15:30 (in 30 min)"),
            ("2026-07-10T11:55:00Z", &utc, "11:55 UTC (5 min ago)"),
            (
                "2026-07-09T20:00:00Z",
                &vilnius,
                "2026-07-09 23:00 (16 h ago)",
            ),
            ("2026-07-10T12:00:03Z", &vilnius, "15:00 (in 3 s)"),
            // Winter time.
            (
                "2026-01-09T22:30:00Z",
                &vilnius,
                "2026-01-10 00:30 (181 d ago)",
            ),
        ] {
            assert_eq!(in_zone(moment(at), now, zone), expected, "{at}");
        }
        let at = moment("2026-07-09T20:00:07.9Z");
        assert_eq!(exact_in_zone(at, &vilnius), "2026-07-09 23:00:07");
        assert_eq!(exact_in_zone(at, &utc), "2026-07-09 20:00:07 UTC");
    }
}
