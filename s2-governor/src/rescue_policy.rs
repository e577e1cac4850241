//! When somebody is helped, by how many, and by whom.

use std::time::Duration;

use s2_coordinator::Invalid;

use crate::basis_points::BasisPoints;
use crate::score::Weights;

/// How the fleet helps whoever is blocked. The names are the keys in files; see [`PolicyFile`](crate::PolicyFile).
///
/// ```
/// use std::time::Duration;
/// use s2_governor::{BasisPoints, RescuePolicy};
///
/// let policy = RescuePolicy::default();
/// assert_eq!(policy.max_rescuers_per_blocker, 2);
/// assert_eq!(policy.min_capability_match, BasisPoints::from_percent(70));
/// // Blocked for more than half an hour, and more than half of the fleet has nothing to do.
/// assert!(policy.may_preempt(Duration::from_secs(31 * 60), 6, 10));
/// assert!(!policy.may_preempt(Duration::from_secs(31 * 60), 5, 10));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RescuePolicy {
    /// How many may help one that is blocked: 2. From 1 to 100.
    pub max_rescuers_per_blocker: usize,
    /// The least score of a helper: 0.70. Who has exactly that may help.
    pub min_capability_match: BasisPoints,
    /// What a score consists of.
    pub expertise_scoring: Weights,
    /// Whether a session that works may be recruited, if all of the conditions hold: yes.
    pub preemption_allowed: bool,
    /// When that is.
    pub preemption_conditions: PreemptionConditions,
}

/// When a session that works may be recruited: if all of this holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PreemptionConditions {
    /// Somebody is blocked for more than so many minutes: 30. At most a year.
    pub age_minutes: u32,
    /// More than so many hundredths of the sessions are idle: 50. At most 100.
    pub idle_fleet_percent: u8,
}

impl Default for RescuePolicy {
    fn default() -> Self {
        Self {
            max_rescuers_per_blocker: 2,
            min_capability_match: BasisPoints::from_percent(70),
            expertise_scoring: Weights::default(),
            preemption_allowed: true,
            preemption_conditions: PreemptionConditions::default(),
        }
    }
}

impl Default for PreemptionConditions {
    fn default() -> Self {
        Self { age_minutes: 30, idle_fleet_percent: 50 }
    }
}

impl RescuePolicy {
    /// The largest `max_rescuers_per_blocker`.
    pub const MOST_RESCUERS: usize = 100;

    /// Whether a session that works may be recruited for somebody who has been blocked for `blocked`, in a fleet of so many
    /// sessions of which so many are idle.
    #[must_use]
    pub fn may_preempt(&self, blocked: Duration, idle: usize, sessions: usize) -> bool {
        let PreemptionConditions { age_minutes, idle_fleet_percent } = self.preemption_conditions;
        let is_old = blocked > Duration::from_secs(u64::from(age_minutes) * 60);
        let is_idle = idle as u128 * 100 > sessions as u128 * u128::from(idle_fleet_percent);
        self.preemption_allowed && is_old && is_idle
    }

    /// Checks everything that can be wrong with one that was not read from a file; what is read is checked.
    ///
    /// # Errors
    ///
    /// [`Invalid`] that names the setting, its value and its range.
    pub fn check(&self) -> Result<(), Invalid> {
        let PreemptionConditions { age_minutes, idle_fleet_percent } = self.preemption_conditions;
        check("max_rescuers_per_blocker", self.max_rescuers_per_blocker as u64, RESCUERS)?;
        check("age_minutes", age_minutes.into(), AGE_MINUTES)?;
        check("idle_fleet_percent", idle_fleet_percent.into(), IDLE_PERCENT)
    }
}

pub(crate) type Range = std::ops::RangeInclusive<u64>;
pub(crate) const RESCUERS: Range = 1..=RescuePolicy::MOST_RESCUERS as u64;
pub(crate) const AGE_MINUTES: Range = 0..=365 * 24 * 60;
pub(crate) const IDLE_PERCENT: Range = 0..=100;

fn check(field: &'static str, value: u64, range: Range) -> Result<(), Invalid> {
    if range.contains(&value) {
        return Ok(());
    }
    let reason = format!("expected a whole number from {} to {}", range.start(), range.end());
    Err(Invalid::new(field, &value.to_string(), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_conditions_must_hold_and_both_are_strict() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let mut policy = RescuePolicy::default();
        for (blocked, idle, sessions, may) in [
            (minutes(30), 6, 10, false),
            (minutes(30) + Duration::from_nanos(1), 6, 10, true),
            (minutes(31), 5, 10, false),
            (minutes(31), 51, 100, true),
            (minutes(31), 50, 100, false),
            (minutes(31), 0, 0, false),
            (Duration::MAX, usize::MAX, usize::MAX, true),
            (Duration::ZERO, 10, 10, false),
        ] {
            assert_eq!(policy.may_preempt(blocked, idle, sessions), may, "{blocked:?}, {idle} of {sessions}");
        }
        policy.preemption_allowed = false;
        assert!(!policy.may_preempt(Duration::MAX, 10, 10));
    }

    #[test]
    fn what_is_out_of_range_is_refused_and_named() {
        type Change = fn(&mut RescuePolicy);
        let cases: [(Change, &str); 4] = [
            (
                |p| p.max_rescuers_per_blocker = 0,
                "invalid max_rescuers_per_blocker \"0\": expected a whole number from 1 to 100",
            ),
            (
                |p| p.max_rescuers_per_blocker = 101,
                "invalid max_rescuers_per_blocker \"101\": expected a whole number from 1 to 100",
            ),
            (
                |p| p.preemption_conditions.age_minutes = 525_601,
                "invalid age_minutes \"525601\": expected a whole number from 0 to 525600",
            ),
            (
                |p| p.preemption_conditions.idle_fleet_percent = 101,
                "invalid idle_fleet_percent \"101\": expected a whole number from 0 to 100",
            ),
        ];
        for (change, message) in cases {
            let mut policy = RescuePolicy::default();
            change(&mut policy);
            assert_eq!(policy.check().unwrap_err().to_string(), message);
        }
        assert!(RescuePolicy::default().check().is_ok());
    }
}
