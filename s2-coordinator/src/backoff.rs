//! How long to wait before another attempt.
//!
//! Doubling gives a struggling party room; jitter keeps those who failed together from returning together. Half of
//! the delay is fixed, so a retry is never immediate by chance.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// Doubling delays from `base` to `max`, of which the upper half is random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// The delay after the first attempt.
    pub base: Duration,
    /// The longest delay.
    pub max: Duration,
}

impl Default for Backoff {
    /// 1 s, doubling up to 5 min.
    fn default() -> Self {
        Self { base: Duration::from_secs(1), max: Duration::from_secs(5 * 60) }
    }
}

impl Backoff {
    /// The delay after attempt number `attempt` (1 is the first): between half of
    /// `min(max, base × 2^(attempt − 1))` and all of it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use s2_coordinator::{Backoff, Random};
    ///
    /// let delay = Backoff::default().delay(3, &mut Random::from_seed(1));
    /// assert!(delay >= Duration::from_secs(2) && delay <= Duration::from_secs(4));
    /// ```
    pub fn delay(&self, attempt: u32, random: &mut Random) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let full = self.base.saturating_mul(1 << doublings).min(self.max);
        let half = full / 2;
        half + random.duration_up_to(full - half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_stay_between_half_and_full_and_stop_at_the_longest() {
        let mut random = Random::from_seed(7);
        for (attempt, full) in [(0, 1), (1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (u32::MAX, 300)] {
            let full = Duration::from_secs(full);
            for _ in 0..100 {
                let delay = Backoff::default().delay(attempt, &mut random);
                assert!(delay >= full / 2 && delay <= full, "{attempt}: {delay:?}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_delays() {
        let delays = |seed| {
            let mut random = Random::from_seed(seed);
            (1..10).map(|attempt| Backoff::default().delay(attempt, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
    }
}
