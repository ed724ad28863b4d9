//! Moments, and the clock that returns them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[cfg_attr(
    feature = "utoipa",
    schema(value_type = String, format = DateTime, examples("2026-11-23T08:00:00.000Z"))
)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Returns the moment `millis` milliseconds after 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since 1970-01-01T00:00:00Z.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Parses an RFC 3339 date and time; digits past the millisecond are cut off.
    ///
    /// Returns `None` if `text` is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let millis = moment.unix_timestamp_nanos().div_euclid(1_000_000);
        i64::try_from(millis).ok().map(Self)
    }

    /// Returns the moment `delay` later, or the last one that exists.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        let millis = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// Returns the moment `delay` earlier, or the first one that exists.
    #[must_use]
    pub fn before(self, delay: Duration) -> Self {
        let millis = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// Returns the beginning of its hour, in UTC.
    #[must_use]
    pub fn hour(self) -> Self {
        Self(self.0.saturating_sub(self.0.rem_euclid(60 * 60 * 1000)))
    }

    /// Returns the time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// Writes RFC 3339 in UTC with milliseconds: `2026-11-23T08:00:00.000Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = time::macros::format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        );
        let text = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .ok()
            .and_then(|moment| moment.format(format).ok());
        match text {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} ms", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom("it is not a moment such as `2027-01-31T00:00:00Z`")
        })
    }
}

/// A source of the present time: the machine's clock, or one that a test sets.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
    /// Another clock, and the milliseconds to add to it.
    Corrected(Arc<Clock>, Arc<AtomicI64>),
}

/// The correction of a [`Clock::corrected`] clock.
#[derive(Clone, Debug)]
pub struct Correction(Arc<AtomicI64>);

impl Correction {
    /// Sets the number of milliseconds to add.
    pub fn set(&self, millis: i64) {
        self.0.store(millis, Ordering::SeqCst);
    }
}

impl Clock {
    /// Returns the machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Returns a clock that shows `start` until it is set; its clones share the time.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start.as_millis()))))
    }

    /// Returns a clock that follows this one, with a correction that is zero at first.
    pub fn corrected(&self) -> (Self, Correction) {
        let millis = Arc::new(AtomicI64::new(0));
        let corrected = Source::Corrected(Arc::new(self.clone()), Arc::clone(&millis));
        (Self(corrected), Correction(millis))
    }

    /// Returns true if the clock moves only when it is set.
    pub fn is_manual(&self) -> bool {
        match &self.0 {
            Source::System => false,
            Source::Manual(_) => true,
            Source::Corrected(clock, _) => clock.is_manual(),
        }
    }

    /// Returns the present moment.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the system"
    )]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => {
                let nanos = OffsetDateTime::now_utc().unix_timestamp_nanos();
                Timestamp(i64::try_from(nanos.div_euclid(1_000_000)).unwrap_or(i64::MAX))
            }
            Source::Manual(millis) => Timestamp(millis.load(Ordering::SeqCst)),
            Source::Corrected(clock, correction) => {
                let now = clock.now().as_millis();
                Timestamp(now.saturating_add(correction.load(Ordering::SeqCst)))
            }
        }
    }

    /// Moves a manual clock forward.
    ///
    /// # Panics
    ///
    /// On the machine's clock.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            Source::System => panic!("the machine's clock cannot be advanced"),
            Source::Manual(millis) => {
                millis.store(self.now().after(by).as_millis(), Ordering::SeqCst);
            }
            Source::Corrected(clock, _) => clock.advance(by),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_prints_milliseconds_and_reads_back() {
        let moment = Timestamp::parse("2019-11-26T14:30:47.373+02:00").expect("a valid timestamp");
        assert_eq!(moment.to_string(), "2019-11-26T12:30:47.373Z");
        assert_eq!(Timestamp::parse(&moment.to_string()), Some(moment));
    }

    #[test]
    fn an_hour_begins_at_or_before_each_of_its_moments() {
        for (text, hour) in [
            ("2026-11-23T08:00:00.000Z", "2026-11-23T08:00:00.000Z"),
            ("2026-11-23T08:59:59.999Z", "2026-11-23T08:00:00.000Z"),
            ("2026-11-23T09:00:00.001Z", "2026-11-23T09:00:00.000Z"),
            ("1969-12-31T23:30:00.000Z", "1969-12-31T23:00:00.000Z"),
        ] {
            let moment = Timestamp::parse(text).unwrap();
            assert_eq!(moment.hour().to_string(), hour);
        }
    }

    #[test]
    fn a_corrected_clock_follows_the_other_by_its_correction() {
        let second = Duration::from_secs(1);
        let start = Timestamp::from_millis(1_000_000);
        let clock = Clock::manual(start);
        let (corrected, correction) = clock.corrected();
        assert_eq!(corrected.now(), start);

        correction.set(-250);
        clock.advance(second);
        assert_eq!(corrected.now(), Timestamp::from_millis(1_000_750));
        corrected.advance(second);
        assert_eq!(clock.now(), start.after(2 * second));
    }

    #[test]
    fn only_a_manual_clock_moves_by_being_set() {
        let manual = Clock::manual(Timestamp::from_millis(0));
        for (clock, is_manual) in [(Clock::system(), false), (manual, true)] {
            assert_eq!(clock.is_manual(), is_manual);
            assert_eq!(clock.corrected().0.is_manual(), is_manual);
        }
    }
}
