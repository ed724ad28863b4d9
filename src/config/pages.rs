//! `[pages]`: the pages for people.

use tz::TimeZone;

use super::layers::{Layers, show};

/// The name of the default time zone.
const VILNIUS: &str = "Europe/Vilnius";

/// The same by its rules, for machines without a time zone database: the European Union's summer
/// time (Directive 2000/84/EC).
const VILNIUS_RULES: &str = "EET-2EEST,M3.5.0/3,M10.5.0/4";

/// Settings of the pages.
#[derive(Clone, Debug)]
pub struct PagesConfig {
    /// `pages.time_zone`, default `Europe/Vilnius`: the zone in which the pages show times.
    pub time_zone: TimeZone,
}

impl Default for PagesConfig {
    fn default() -> Self {
        Self {
            time_zone: zone(VILNIUS).unwrap_or_else(|_| TimeZone::utc()),
        }
    }
}

/// Reads `[pages]`.
pub(super) fn read(layers: &mut Layers<'_>) -> PagesConfig {
    let default = (VILNIUS.to_owned(), PagesConfig::default().time_zone);
    let (_, time_zone) = layers.text(
        "pages.time_zone",
        default,
        |name| zone(name).map(|zone| (name.to_owned(), zone)),
        |(name, _)| show(name),
    );
    PagesConfig { time_zone }
}

/// Returns a time zone by its name in the tz database.
fn zone(name: &str) -> Result<TimeZone, String> {
    let name = name.trim();
    if name.is_empty() || name.starts_with(['/', ':', '.']) {
        return Err(format!(
            "`{name}` is not the name of a time zone, such as {VILNIUS}"
        ));
    }
    let named = TimeZone::from_posix_tz(name);
    match (named, name) {
        (Ok(zone), _) => Ok(zone),
        (Err(_), "UTC") => Ok(TimeZone::utc()),
        (Err(_), VILNIUS) => {
            TimeZone::from_posix_tz(VILNIUS_RULES).map_err(|error| error.to_string())
        }
        (Err(_), _) => Err(format!(
            "the time zone `{name}` is not known on this machine; use a name such as {VILNIUS}, and install `tzdata` \
             if it is right"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(zone: &TimeZone, seconds: i64) -> i32 {
        let found = zone.find_local_time_type(seconds);
        found.expect("a time").ut_offset()
    }

    #[test]
    fn vilnius_is_known_without_a_time_zone_database() {
        let by_rules = TimeZone::from_posix_tz(VILNIUS_RULES).expect("rules");
        // 2026-01-15, 2026-07-15, and around both changes of 2026.
        for seconds in [
            1_768_435_200,
            1_784_073_600,
            1_774_745_999,
            1_774_746_001,
            1_792_889_999,
            1_792_890_001,
        ] {
            let by_name = PagesConfig::default().time_zone;
            assert_eq!(offset(&by_rules, seconds), offset(&by_name, seconds));
        }
        assert_eq!(offset(&by_rules, 1_768_435_200), 7_200);
        assert_eq!(offset(&by_rules, 1_784_073_600), 10_800);
    }

    #[test]
    fn a_zone_that_does_not_exist_is_refused() {
        for name in ["", "Europe/Vilniuss", "/etc/passwd", "../x"] {
            assert!(zone(name).is_err(), "{name}");
        }
        assert!(zone("UTC").is_ok());
    }
}
