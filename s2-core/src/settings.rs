//! What a host may set, in one file.

use std::collections::BTreeMap;
use std::time::Duration;

use s2_coordinator::{Invalid, SwarmId};
use s2_governor::{Bonds, LedgerSettings, Limit, NanoUsd, ProviderName, ProviderSettings, RescuePolicy};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The settings of a fleet. What is not said has its default, and an unknown key is refused. What is in the seeds' policy files
/// fits as it is.
///
/// ```
/// use s2_core::Settings;
/// use s2_governor::NanoUsd;
///
/// let settings: Settings = serde_saphyr::from_str(
///     "
///     rescue_policy:
///       max_rescuers_per_blocker: 2
///       min_capability_match: 0.70
///     budget:
///       session_limit: $20.00
///     limits:
///       telephony: $200.00
///     providers:
///       models: { bulkhead: { concurrent: 4 } }
///     bonds:
///       - { between: [telephony/sip, telephony/ndi], bond: peers }
///     help:
///       timeout_s: 120
///       enough: first
///     ",
/// )?;
/// assert_eq!(settings.help.timeout.as_secs(), 120);
/// assert_eq!(settings.help.cost, NanoUsd::ZERO);
/// # Ok::<(), serde_saphyr::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// Who helps, and how many.
    pub rescue_policy: RescuePolicy,
    /// How help is asked for.
    pub help: HelpSettings,
    /// How swarms stand to each other.
    pub bonds: Bonds,
    /// How the ledger behaves.
    pub budget: LedgerSettings,
    /// What sessions and swarms may spend each day, besides what `budget` says.
    pub limits: BTreeMap<SwarmId, Limit>,
    /// The providers that sessions may ask, each with its bulkhead and breaker.
    pub providers: BTreeMap<ProviderName, ProviderSettings>,
}

/// When there is enough help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enough {
    /// With the first result that is accepted; the others are cancelled.
    #[default]
    First,
    /// With the results of all who were asked.
    All,
}

/// How help is asked for. In files times are seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HelpSettings {
    /// How long a helper may take before somebody else is asked: 5 min.
    #[serde(rename = "timeout_s", with = "seconds")]
    pub timeout: Duration,
    /// When there is enough: with the first result that is accepted.
    pub enough: Enough,
    /// What a helper must have left to spend: nothing.
    pub cost: NanoUsd,
    /// How often it is looked for helpers again while there are none: each 5 s.
    #[serde(rename = "look_again_s", with = "seconds")]
    pub look_again: Duration,
    /// Whether this process may organise help; one process of the fleet does at a time: yes.
    pub organise: bool,
    /// After how many days an outcome of help counts half: 7.
    pub half_life_days: u16,
}

impl Default for HelpSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5 * 60),
            enough: Enough::First,
            cost: NanoUsd::ZERO,
            look_again: Duration::from_secs(5),
            organise: true,
            half_life_days: 7,
        }
    }
}

impl Settings {
    /// Checks everything that can be wrong; a fleet calls it when it is built.
    ///
    /// # Errors
    ///
    /// [`Invalid`] that names the setting, its value and its range.
    pub fn check(&self) -> Result<(), Error> {
        self.rescue_policy.check()?;
        self.budget.check()?;
        self.providers.values().try_for_each(ProviderSettings::check)?;
        let day = Duration::from_secs(24 * 60 * 60);
        for (what, time) in [("help.timeout_s", self.help.timeout), ("help.look_again_s", self.help.look_again)] {
            if time.is_zero() || time > day {
                return Err(Invalid::new(what, &format!("{time:?}"), "expected more than 0 and at most a day").into());
            }
        }
        let most = s2_governor::Decay::LONGEST_HALF_LIFE_DAYS;
        if !(1..=most).contains(&self.help.half_life_days) {
            let days = self.help.half_life_days.to_string();
            return Err(Invalid::new("help.half_life_days", &days, format!("expected 1 to {most}")).into());
        }
        Ok(())
    }
}

mod seconds {
    use super::{Deserialize, Duration, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        duration.as_secs().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}
