//! How providers are treated: every default in one place.
//!
//! Settings are data, so that a host can keep them in a file: durations are whole milliseconds there, and their names end
//! with `_ms`.

use std::time::Duration;

use s2_coordinator::Invalid;
use serde::{Deserialize, Serialize};

/// The most calls that a window of calls may count.
const MOST_CALLS: u32 = 10_000;
/// The longest time of any kind: 24 h.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Which calls decide whether a breaker trips. What it holds is bounded: a byte for each call, or ten sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// The last so many, at most 10,000.
    Calls(u32),
    /// Those of so long until now. It moves in tenths.
    #[serde(rename = "last_ms", with = "millis")]
    Last(Duration),
}

/// When a breaker opens, for how long, and how it is found out that the provider is back. Each process counts its own calls;
/// what follows from them holds for all.
///
/// ```
/// use s2_governor::{BreakerSettings, Window};
///
/// let mut settings = BreakerSettings::default();
/// settings.window = Window::Calls(20);
/// settings.check()?;
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BreakerSettings {
    /// Which calls decide: the last 100.
    pub window: Window,
    /// How many there must be before anything is decided: 10.
    pub minimum_calls: u32,
    /// It opens when so many of a hundred failed: 50.
    pub failure_percent: u32,
    /// It opens when so many of a hundred were slow, failed or not: 100.
    pub slow_percent: u32,
    /// From when on a call is slow: 60 s. A call that is given up after that long counts, too.
    #[serde(rename = "slow_call_ms", with = "millis")]
    pub slow_call: Duration,
    /// For how long it stays open at first: 30 s. Each time that it opens again without having closed, twice as long.
    #[serde(rename = "open_ms", with = "millis")]
    pub open: Duration,
    /// For how long at most: 10 min.
    #[serde(rename = "longest_open_ms", with = "millis")]
    pub longest_open: Duration,
    /// How many calls then try whether the provider is back, over all processes: 5. The same percentages decide.
    pub probes: u32,
    /// When a probe that says nothing counts as failed: 2 min. Its process may have died.
    #[serde(rename = "probe_timeout_ms", with = "millis")]
    pub probe_timeout: Duration,
    /// For how long nobody asks a provider that says 429 and not for how long: 5 s.
    #[serde(rename = "cool_down_ms", with = "millis")]
    pub cool_down: Duration,
    /// For how long at most, whatever it says: 10 min. After that it is asked once more.
    #[serde(rename = "longest_cool_down_ms", with = "millis")]
    pub longest_cool_down: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            window: Window::Calls(100),
            minimum_calls: 10,
            failure_percent: 50,
            slow_percent: 100,
            slow_call: seconds(60),
            open: seconds(30),
            longest_open: seconds(600),
            probes: 5,
            probe_timeout: seconds(120),
            cool_down: seconds(5),
            longest_cool_down: seconds(600),
        }
    }
}

impl BreakerSettings {
    /// Checks everything that can be wrong.
    ///
    /// # Errors
    ///
    /// [`Invalid`] that names the setting, its value and the range.
    pub fn check(&self) -> Result<(), Invalid> {
        let counted = match self.window {
            Window::Calls(calls) => count("window", calls, MOST_CALLS).map(|()| calls),
            Window::Last(last) => time("window", last).map(|()| MOST_CALLS),
        }?;
        count("minimum_calls", self.minimum_calls, counted)?;
        count("failure_percent", self.failure_percent, 100)?;
        count("slow_percent", self.slow_percent, 100)?;
        count("probes", self.probes, 100)?;
        time("slow_call", self.slow_call)?;
        time("longest_open", self.longest_open)?;
        time("probe_timeout", self.probe_timeout)?;
        time("longest_cool_down", self.longest_cool_down)?;
        between("open", self.open, self.longest_open)?;
        between("cool_down", self.cool_down, self.longest_cool_down)
    }
}

/// How many calls to a provider are on their way at once, and how many wait. Each process has its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BulkheadSettings {
    /// How many calls are on their way at once: 10.
    pub concurrent: u32,
    /// How many wait for their turn: 1,000. May be none.
    pub waiting: u32,
    /// For how long they do at most: for ever unless set.
    #[serde(rename = "longest_wait_ms", with = "millis::optional")]
    pub longest_wait: Option<Duration>,
}

impl Default for BulkheadSettings {
    fn default() -> Self {
        Self { concurrent: 10, waiting: 1_000, longest_wait: None }
    }
}

impl BulkheadSettings {
    /// Checks everything that can be wrong.
    ///
    /// # Errors
    ///
    /// [`Invalid`] that names the setting, its value and the range.
    pub fn check(&self) -> Result<(), Invalid> {
        count("concurrent", self.concurrent, 10_000)?;
        if self.waiting > 1_000_000 {
            return Err(Invalid::new("waiting", &self.waiting.to_string(), "must be from 0 to 1000000"));
        }
        self.longest_wait.map_or(Ok(()), |wait| time("longest_wait", wait))
    }
}

/// How one provider is treated.
///
/// ```
/// use s2_governor::ProviderSettings;
///
/// let settings: ProviderSettings = serde_json::from_str(r#"{"bulkhead": {"concurrent": 4}, "breaker": {"open_ms": 5000}}"#)?;
/// assert_eq!((settings.bulkhead.concurrent, settings.breaker.probes), (4, 5));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ProviderSettings {
    /// How many calls at once.
    pub bulkhead: BulkheadSettings,
    /// When to leave it alone.
    pub breaker: BreakerSettings,
}

impl ProviderSettings {
    /// Sets how many calls at once.
    #[must_use]
    pub fn with_bulkhead(mut self, bulkhead: BulkheadSettings) -> Self {
        self.bulkhead = bulkhead;
        self
    }

    /// Sets when to leave it alone.
    #[must_use]
    pub fn with_breaker(mut self, breaker: BreakerSettings) -> Self {
        self.breaker = breaker;
        self
    }

    /// Checks everything that can be wrong.
    ///
    /// # Errors
    ///
    /// [`Invalid`] that names the setting, its value and the range.
    pub fn check(&self) -> Result<(), Invalid> {
        self.bulkhead.check()?;
        self.breaker.check()
    }
}

fn count(setting: &'static str, value: u32, most: u32) -> Result<(), Invalid> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(Invalid::new(setting, &value.to_string(), format!("must be from 1 to {most}")))
}

fn time(setting: &'static str, value: Duration) -> Result<(), Invalid> {
    between(setting, value, LONGEST)
}

fn between(setting: &'static str, value: Duration, most: Duration) -> Result<(), Invalid> {
    if value >= Duration::from_millis(1) && value <= most {
        return Ok(());
    }
    Err(Invalid::new(setting, &format!("{value:?}"), format!("must be from 1ms to {most:?}")))
}

/// Durations as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }

    pub(super) mod optional {
        use super::{Deserialize, Deserializer, Duration, Serializer};

        pub(in super::super) fn serialize<S: Serializer>(
            duration: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match duration {
                Some(duration) => super::serialize(duration, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut ProviderSettings);

    #[test]
    fn what_is_out_of_range_is_refused_and_named() {
        let cases: [(Change, &str); 9] = [
            (|s| s.breaker.failure_percent = 0, r#"invalid failure_percent "0": must be from 1 to 100"#),
            (|s| s.breaker.slow_percent = 101, r#"invalid slow_percent "101": must be from 1 to 100"#),
            (|s| s.breaker.window = Window::Calls(5), r#"invalid minimum_calls "10": must be from 1 to 5"#),
            (|s| s.breaker.window = Window::Calls(10_001), r#"invalid window "10001": must be from 1 to 10000"#),
            (
                |s| s.breaker.window = Window::Last(Duration::ZERO),
                r#"invalid window "0ns": must be from 1ms to 86400s"#,
            ),
            (|s| s.breaker.open = Duration::MAX, "must be from 1ms to 600s"),
            (|s| s.breaker.probes = 0, r#"invalid probes "0": must be from 1 to 100"#),
            (|s| s.bulkhead.concurrent = 0, r#"invalid concurrent "0": must be from 1 to 10000"#),
            (|s| s.bulkhead.longest_wait = Some(Duration::ZERO), r#"invalid longest_wait "0ns": must be from"#),
        ];
        for (change, said) in cases {
            let mut settings = ProviderSettings::default();
            settings.check().unwrap();
            change(&mut settings);
            let error = settings.check().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn settings_are_data() {
        let mut settings = ProviderSettings::default();
        settings.breaker.window = Window::Last(Duration::from_secs(60));
        settings.bulkhead.longest_wait = Some(Duration::from_secs(5));
        let text = serde_json::to_string(&settings).unwrap();
        assert!(text.contains(r#""window":{"last_ms":60000}"#) && text.contains(r#""longest_wait_ms":5000"#), "{text}");
        assert_eq!(serde_json::from_str::<ProviderSettings>(&text).unwrap(), settings);
        assert!(serde_json::from_str::<ProviderSettings>(r#"{"breaker": {"opne_ms": 5}}"#).is_err());
    }
}
