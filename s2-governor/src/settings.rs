//! How a ledger behaves, and its limits.

use std::time::Duration;

use s2_coordinator::Invalid;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::account::Limit;
use crate::error::Error;
use crate::money::NanoUsd;

/// The settings of a ledger. In JSON and YAML times are seconds, and what is not said has its default.
///
/// ```
/// use s2_governor::{LedgerSettings, Limit, NanoUsd};
///
/// let settings: LedgerSettings = serde_json::from_str(r#"{"session_limit": "$5.00", "ttl_s": 120}"#)?;
/// assert_eq!(settings.session_limit, Limit::PerDay(NanoUsd::from_dollars(5)));
/// assert_eq!(settings.warn_percent, 80);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LedgerSettings {
    /// What a session may spend on a UTC day unless a limit of its own is set: $50.
    pub session_limit: Limit,
    /// At how many percent of its limit an account is warned about: 80.
    pub warn_percent: u8,
    /// For how long a reservation holds: 10 min.
    #[serde(rename = "ttl_s", with = "seconds")]
    pub ttl: Duration,
    /// The longest that a reservation may hold, or be extended by: 24 h.
    #[serde(rename = "longest_ttl_s", with = "seconds")]
    pub longest_ttl: Duration,
    /// For how many days after its own the accounts of a day are kept: 7.
    pub kept_days: u32,
    /// Of how many ended spends the first answer is remembered, within the window of idempotency: 100,000.
    pub remembered: usize,
    /// Reservations that may be open or presumed at a time: 1,000,000.
    pub open: usize,
    /// Accounts that may be kept: 1,000,000.
    pub accounts: usize,
    /// Sessions and swarms that may have a limit of their own, or be halted: 100,000.
    pub rules: usize,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self {
            session_limit: Limit::PerDay(NanoUsd::from_dollars(50)),
            warn_percent: 80,
            ttl: Duration::from_secs(10 * 60),
            longest_ttl: Duration::from_secs(24 * 60 * 60),
            kept_days: 7,
            remembered: 100_000,
            open: 1_000_000,
            accounts: 1_000_000,
            rules: 100_000,
        }
    }
}

impl LedgerSettings {
    /// Checks the settings; ledgers call it when they are made.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] that names the setting, its value and its range.
    pub fn check(&self) -> Result<(), Error> {
        let invalid = |what, value: String, range: &str| Err(Invalid::new(what, &value, range).into());
        if self.session_limit == Limit::Default {
            return invalid("session_limit", "default".to_owned(), "expected an amount or unlimited");
        }
        if !(1..=100).contains(&self.warn_percent) {
            return invalid("warn_percent", self.warn_percent.to_string(), "expected 1 to 100");
        }
        if self.longest_ttl.is_zero() || self.longest_ttl > Duration::from_secs(30 * 24 * 60 * 60) {
            return invalid(
                "longest_ttl",
                format!("{:?}", self.longest_ttl),
                "expected more than 0 and at most 30 days",
            );
        }
        if self.ttl.is_zero() || self.ttl > self.longest_ttl {
            let range = format!("expected more than 0 and at most longest_ttl, {:?}", self.longest_ttl);
            return invalid("ttl", format!("{:?}", self.ttl), &range);
        }
        let counts = [
            ("kept_days", u64::from(self.kept_days), 3_650),
            ("remembered", self.remembered as u64, 10_000_000),
            ("open", self.open as u64, 10_000_000),
            ("accounts", self.accounts as u64, 10_000_000),
            ("rules", self.rules as u64, 10_000_000),
        ];
        match counts.into_iter().find(|(_, count, most)| !(1..=*most).contains(count)) {
            Some((what, count, most)) => invalid(what, count.to_string(), &format!("expected 1 to {most}")),
            None => Ok(()),
        }
    }

    /// What a session may spend that has no limit of its own.
    #[must_use]
    pub fn session_limit(&self) -> NanoUsd {
        self.session_limit.amount().unwrap_or(NanoUsd::ZERO)
    }

    /// For how long a reservation is to hold.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] or [`Error::Invalid`] when that is too long, or no time at all.
    pub fn check_ttl(&self, ttl: Option<Duration>) -> Result<Duration, Error> {
        let ttl = ttl.unwrap_or(self.ttl);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        if ttl.is_zero() {
            return Err(Invalid::new("ttl", "0s", "a reservation must hold for some time").into());
        }
        if ttl <= self.longest_ttl {
            return Ok(ttl);
        }
        Err(Error::LimitExceeded {
            limit: "longest_ttl",
            what: "the ttl of a reservation in ms".to_owned(),
            actual: millis(ttl),
            max: millis(self.longest_ttl),
        })
    }
}

mod seconds {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        duration.as_secs().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_refused_and_named() {
        let wrong = |change: fn(&mut LedgerSettings), named: &str| {
            let mut settings = LedgerSettings::default();
            change(&mut settings);
            let error = settings.check().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        };
        wrong(|it| it.session_limit = Limit::Default, r#"session_limit "default""#);
        wrong(|it| it.warn_percent = 0, r#"warn_percent "0": expected 1 to 100"#);
        wrong(|it| it.warn_percent = 101, r#"warn_percent "101": expected 1 to 100"#);
        wrong(|it| it.ttl = Duration::ZERO, r#"ttl "0ns": expected more than 0"#);
        wrong(|it| it.ttl = it.longest_ttl + Duration::from_secs(1), r#"ttl "86401s""#);
        wrong(|it| it.longest_ttl = Duration::from_secs(1 << 40), "at most 30 days");
        wrong(|it| it.kept_days = 0, r#"kept_days "0": expected 1 to 3650"#);
        wrong(|it| it.remembered = 0, r#"remembered "0""#);
        wrong(|it| it.open = 0, r#"open "0""#);
        wrong(|it| it.accounts = usize::MAX, "expected 1 to 10000000");
        assert!(LedgerSettings::default().check().is_ok());
    }

    #[test]
    fn settings_are_read_and_written() {
        let text = serde_json::to_string(&LedgerSettings::default()).unwrap();
        assert_eq!(serde_json::from_str::<LedgerSettings>(&text).unwrap(), LedgerSettings::default());
        assert_eq!(serde_json::from_str::<LedgerSettings>("{}").unwrap(), LedgerSettings::default());
        let wrong = serde_json::from_str::<LedgerSettings>(r#"{"sesion_limit": "$1"}"#).unwrap_err();
        assert!(wrong.to_string().contains("sesion_limit"), "{wrong}");
    }
}
