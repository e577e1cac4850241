//! When: points in time and UTC days.
//!
//! Both are plain integers, because they cross Lua scripts, whose numbers are exact only up to 2^53. Microseconds
//! are what Redis' `TIME` gives and what fits there until the year 2255.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::invalid::Invalid;

const MICROS_PER_DAY: u64 = 24 * 60 * 60 * 1_000_000;

/// A point in time: microseconds since 1970-01-01T00:00:00Z, at most 2^53 − 1 (the year 2255).
///
/// Arithmetic saturates at both ends. As text and in JSON it is RFC 3339.
///
/// ```
/// use std::time::{Duration, SystemTime, UNIX_EPOCH};
/// use s2_coordinator::Timestamp;
///
/// let start: Timestamp = "2025-11-12T09:00:00Z".parse()?;
/// assert_eq!((start + Duration::from_millis(1500)).to_string(), "2025-11-12T09:00:01.5Z");
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Timestamp = Timestamp(0);
    /// The last point in time: 2^53 − 1 µs, 2255-06-05T23:47:34.740991Z.
    pub const MAX: Timestamp = Timestamp((1 << 53) - 1);

    /// `micros` microseconds after the epoch, at most [`Timestamp::MAX`].
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        if micros > Self::MAX.0 { Self::MAX } else { Self(micros) }
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long before this point `earlier` was; zero when it was not earlier.
    #[must_use]
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole microseconds, rounded up, so that a wait is never shorter than asked.
fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(duration.subsec_nanos().div_ceil(1000)))
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self::from_micros(self.0.saturating_add(micros(later)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(micros(earlier)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_micros(since.as_secs().saturating_mul(1_000_000).saturating_add(since.subsec_micros().into()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0).map_err(|_| fmt::Error)?;
        let time = jiff::Timestamp::from_microsecond(micros).map_err(|_| fmt::Error)?;
        fmt::Display::fmt(&time, f)
    }
}

impl FromStr for Timestamp {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |reason: &dyn fmt::Display| Invalid::new("timestamp", text, reason);
        let time: jiff::Timestamp = text.parse().map_err(|error| invalid(&error))?;
        match u64::try_from(time.as_microsecond()) {
            Ok(micros) if micros <= Self::MAX.0 => Ok(Self(micros)),
            _ => Err(invalid(&"not between the years 1970 and 2255")),
        }
    }
}

/// A calendar day in UTC, counted from 1970-01-01. As text and in JSON: `2025-11-12`.
///
/// ```
/// use s2_coordinator::{Timestamp, UtcDay};
///
/// let day = UtcDay::of("2025-11-12T23:59:59.999999Z".parse::<Timestamp>()?);
/// assert_eq!(day.to_string(), "2025-11-12");
/// assert_eq!(day.next().start().to_string(), "2025-11-13T00:00:00Z");
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UtcDay(u32);

impl UtcDay {
    /// The day that contains `time`.
    #[must_use]
    pub fn of(time: Timestamp) -> Self {
        // 2^53 µs are 104,249 days.
        Self(u32::try_from(time.0 / MICROS_PER_DAY).unwrap_or(u32::MAX))
    }

    /// Its first moment.
    #[must_use]
    pub fn start(self) -> Timestamp {
        Timestamp::from_micros(u64::from(self.0) * MICROS_PER_DAY)
    }

    /// The day after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Days since 1970-01-01.
    #[must_use]
    pub const fn as_days(self) -> u32 {
        self.0
    }
}

impl fmt::Display for UtcDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.start().to_string();
        f.pad(start.split('T').next().unwrap_or_default())
    }
}

impl FromStr for UtcDay {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let valid = text.len() == "2025-11-12".len();
        match format!("{text}T00:00:00Z").parse() {
            Ok(start) if valid => Ok(Self::of(start)),
            _ => Err(Invalid::new("UTC day", text, "expected a day such as 2025-11-12")),
        }
    }
}

macro_rules! serde_as_text {
    ($Name:ident) => {
        impl Serialize for $Name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $Name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

serde_as_text!(Timestamp);
serde_as_text!(UtcDay);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_keeps_every_microsecond(micros in 0..=Timestamp::MAX.as_micros()) {
            let time = Timestamp::from_micros(micros);
            prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
            let day = UtcDay::of(time);
            prop_assert_eq!(day.to_string().parse::<UtcDay>().unwrap(), day);
            prop_assert!(day.start() <= time);
            prop_assert!(time < day.next().start() || day.next().start() == Timestamp::MAX);
        }
    }

    #[test]
    fn time_saturates_and_never_wraps() {
        assert_eq!(Timestamp::MAX + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp::EPOCH - Duration::from_secs(1), Timestamp::EPOCH);
        assert_eq!(Timestamp::EPOCH.since(Timestamp::MAX), Duration::ZERO);
        assert_eq!((Timestamp::EPOCH + Duration::from_nanos(1)).as_micros(), 1);
        assert_eq!(Timestamp::from_micros(u64::MAX), Timestamp::MAX);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "yesterday", "1969-12-31T23:59:59Z", "2300-01-01T00:00:00Z", "2025-11-12"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text:?}");
        }
        for text in ["", "2025-13-01", "2025-11-12T00:00:00Z", "20251112", "+02025-1-1"] {
            assert!(text.parse::<UtcDay>().is_err(), "{text:?}");
        }
    }
}
