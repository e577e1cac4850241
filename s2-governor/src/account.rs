//! Whose money it is, and how much is left.

use std::fmt;
use std::str::FromStr;

use s2_coordinator::{Invalid, SwarmId, Text, UtcDay};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::money::NanoUsd;

/// What a session or swarm may spend on one UTC day.
///
/// As text, and in JSON and YAML: an amount such as `"$50.00"`, `"unlimited"` or `"default"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Limit {
    /// That of the settings for whoever is named by a spend, a session; for a swarm, none of its own.
    #[default]
    Default,
    /// So much.
    PerDay(NanoUsd),
    /// As much as there is: $9,007,199.254740991.
    Unlimited,
}

impl Limit {
    /// The amount, if it is said here.
    #[must_use]
    pub const fn amount(self) -> Option<NanoUsd> {
        match self {
            Self::Default => None,
            Self::PerDay(amount) => Some(amount),
            Self::Unlimited => Some(NanoUsd::MAX),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.pad("default"),
            Self::PerDay(amount) => fmt::Display::fmt(amount, f),
            Self::Unlimited => f.pad("unlimited"),
        }
    }
}

impl FromStr for Limit {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "default" => Ok(Self::Default),
            "unlimited" => Ok(Self::Unlimited),
            amount => amount.parse().map(Self::PerDay),
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How much of a limit is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Less than what people are warned at.
    #[default]
    Within,
    /// As much as people are warned at, 80 % unless set otherwise.
    Warned,
    /// All of it, or more.
    Exhausted,
}

impl Level {
    /// The level of `spent` out of `limit`, warned at so many percent. Exact to the nano; nothing at all of nothing is
    /// exhausted.
    ///
    /// ```
    /// use s2_governor::{Level, NanoUsd};
    ///
    /// let limit = NanoUsd::from_dollars(50);
    /// assert_eq!(Level::of("39.999999999".parse()?, limit, 80), Level::Within);
    /// assert_eq!(Level::of(NanoUsd::from_dollars(40), limit, 80), Level::Warned);
    /// assert_eq!(Level::of(limit, limit, 80), Level::Exhausted);
    /// # Ok::<(), s2_coordinator::Invalid>(())
    /// ```
    #[must_use]
    pub const fn of(spent: NanoUsd, limit: NanoUsd, warn_percent: u8) -> Self {
        let (spent, limit) = (spent.as_nanos() as u128, limit.as_nanos() as u128);
        if spent >= limit {
            Self::Exhausted
        } else if spent * 100 >= limit * warn_percent as u128 {
            Self::Warned
        } else {
            Self::Within
        }
    }
}

/// What stands on one account: that of a session or swarm on one UTC day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Balance {
    /// Whose.
    pub swarm: SwarmId,
    /// When.
    pub day: UtcDay,
    /// What it may spend; [`NanoUsd::MAX`] where nothing limits it.
    pub limit: NanoUsd,
    /// What it has spent, presumed costs included.
    pub spent: NanoUsd,
    /// What reservations hold.
    pub held: NanoUsd,
    /// The part of `spent` that nobody has reported: reservations that expired. What is reported later corrects it.
    pub presumed: NanoUsd,
    /// The highest level that was announced under this limit.
    pub level: Level,
    /// Why its sessions should stop claiming, if they should.
    pub halted: Option<Text>,
}

impl Balance {
    /// An account on which nothing has happened.
    #[must_use]
    pub const fn empty(swarm: SwarmId, day: UtcDay, limit: NanoUsd) -> Self {
        let (spent, held, presumed) = (NanoUsd::ZERO, NanoUsd::ZERO, NanoUsd::ZERO);
        Self { swarm, day, limit, spent, held, presumed, level: Level::Within, halted: None }
    }

    /// What can still be reserved: the limit less what is spent and held, at least zero.
    #[must_use]
    pub const fn available(&self) -> NanoUsd {
        self.limit.saturating_sub(self.spent.saturating_add(self.held))
    }

    /// By how much what is spent and held exceeds the limit.
    #[must_use]
    pub const fn overrun(&self) -> NanoUsd {
        self.spent.saturating_add(self.held).saturating_sub(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_exact_to_the_nano() {
        let nanos = NanoUsd::from_nanos;
        for (spent, limit, percent, level) in [
            (0, 0, 80, Level::Exhausted),
            (0, 1, 80, Level::Within),
            (3, 4, 75, Level::Warned),
            (2, 4, 75, Level::Within),
            (3, 4, 76, Level::Within),
            (4, 4, 80, Level::Exhausted),
            (5, 4, 80, Level::Exhausted),
            (7_999_999_999, 10_000_000_000, 80, Level::Within),
            (8_000_000_000, 10_000_000_000, 80, Level::Warned),
            (NanoUsd::MAX.as_nanos() - 1, NanoUsd::MAX.as_nanos(), 100, Level::Within),
            (NanoUsd::MAX.as_nanos(), NanoUsd::MAX.as_nanos(), 100, Level::Exhausted),
        ] {
            assert_eq!(Level::of(nanos(spent), nanos(limit), percent), level, "{spent} of {limit} at {percent} %");
        }
    }

    #[test]
    fn a_limit_is_text() {
        for (text, limit) in [
            ("default", Limit::Default),
            ("unlimited", Limit::Unlimited),
            ("$50.00", Limit::PerDay(NanoUsd::from_dollars(50))),
        ] {
            assert_eq!(text.parse(), Ok(limit));
            assert_eq!(serde_json::to_value(limit).unwrap(), text);
        }
        assert!("none".parse::<Limit>().is_err());
    }
}
