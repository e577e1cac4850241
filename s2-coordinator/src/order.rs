//! Which task comes first: one key.
//!
//! Strict priorities starve: while P0 tasks keep coming, a P3 task never starts. Ageing with a rate is hard to foresee.
//! Here a task's key is the moment it became ready plus a *step* for each level below P0, and the smallest key comes
//! first: within a step priorities are strict, and nothing is overtaken by a task that became ready more than the
//! difference of levels × step later. So a P3 task starts at the latest when everything that became ready in the three
//! steps after it has started.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::priority::Priority;
use crate::time::Timestamp;

/// Where a task stands in the order; the smallest comes first, and of equal ones the one that was submitted first.
///
/// ```
/// use std::time::Duration;
/// use s2_coordinator::{OrderKey, Priority, Timestamp};
///
/// let step = Duration::from_secs(600);
/// let noon = Timestamp::EPOCH + Duration::from_secs(12 * 3600);
/// let waiting = OrderKey::new(noon, Priority::P3, step);
/// assert!(OrderKey::new(noon + 2 * step, Priority::P0, step) < waiting);
/// assert!(OrderKey::new(noon + 4 * step, Priority::P0, step) > waiting);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderKey(u64);

/// Strict keys hold the priority's level above these bits, and below them the time since [`STRICT_SINCE`]: so they, too,
/// fit what scripts keep exact, until the year 2091.
const STRICT_BITS: u32 = 51;
/// 2020-01-01T00:00:00Z.
const STRICT_SINCE: u64 = 1_577_836_800_000_000;

impl OrderKey {
    /// The step that makes priorities strict: nothing of a lower priority starts while something of a higher one is there.
    pub const STRICT: Duration = Duration::MAX;

    /// The longest step that is not strict: a year.
    pub const LONGEST_STEP: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    /// The key of a task that became ready at `ready`.
    #[must_use]
    pub fn new(ready: Timestamp, priority: Priority, step: Duration) -> Self {
        let level = priority.level();
        if step == Self::STRICT {
            let since = ready.as_micros().saturating_sub(STRICT_SINCE).min((1 << STRICT_BITS) - 1);
            return Self((u64::from(level) << STRICT_BITS) + since);
        }
        Self((ready + step.saturating_mul(level.into())).as_micros())
    }

    /// The key with this number.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The key as a number, at most 2^53 − 1.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{P0, P1, P2, P3};

    const STEP: Duration = Duration::from_secs(600);

    /// Whether a task of one priority that is ready some seconds after noon comes before another.
    fn first(step: Duration, (one, at): (Priority, u64), (other, later): (Priority, u64)) -> bool {
        let noon = Timestamp::from_micros(1_762_938_000_000_000);
        let key = |priority, seconds| OrderKey::new(noon + Duration::from_secs(seconds), priority, step);
        key(one, at) < key(other, later)
    }

    #[test]
    fn within_a_step_priorities_are_strict_and_beyond_it_time_is() {
        for (nth, (one, other, comes_first)) in [
            // The same priority: whoever was ready first.
            ((P0, 0), (P0, 1), true),
            ((P3, 1), (P3, 0), false),
            ((P2, 0), (P2, 100_000), true),
            // One level: 600 s.
            ((P0, 0), (P1, 0), true),
            ((P1, 0), (P0, 599), false),
            ((P1, 0), (P0, 601), true),
            ((P2, 0), (P1, 599), false),
            ((P2, 0), (P1, 601), true),
            ((P3, 0), (P2, 599), false),
            ((P3, 0), (P2, 601), true),
            // Two: 1,200 s.
            ((P2, 0), (P0, 1_199), false),
            ((P2, 0), (P0, 1_201), true),
            ((P3, 0), (P1, 1_199), false),
            ((P3, 0), (P1, 1_201), true),
            // Three: 1,800 s.
            ((P3, 0), (P0, 1_799), false),
            ((P3, 0), (P0, 1_801), true),
            // Whoever is ahead anyway stays so.
            ((P0, 0), (P3, 0), true),
            ((P0, 1_799), (P3, 0), true),
            ((P0, 1_801), (P3, 0), false),
            ((P1, 0), (P3, 100_000), true),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(first(STEP, one, other), comes_first, "case {nth}: {one:?} before {other:?}");
        }
    }

    #[test]
    fn at_exactly_a_step_the_keys_are_equal_and_the_sequence_decides() {
        assert!(!first(STEP, (P1, 0), (P0, 600)));
        assert!(!first(STEP, (P0, 600), (P1, 0)));
    }

    #[test]
    fn without_a_step_only_time_counts_and_with_an_endless_one_priorities_are_strict() {
        for (one, other, comes_first) in [((P3, 0), (P0, 1), true), ((P0, 1), (P3, 0), false)] {
            assert_eq!(first(Duration::ZERO, one, other), comes_first);
            assert_eq!(first(OrderKey::STRICT, one, other), !comes_first);
        }
        for year in 0..60 {
            assert!(first(OrderKey::STRICT, (P2, year * 31_536_000), (P3, 0)));
        }
        assert!(first(OrderKey::STRICT, (P1, 0), (P1, 1)));
        assert!(OrderKey::new(Timestamp::MAX, P3, OrderKey::STRICT).get() < 1 << 53);
    }
}
