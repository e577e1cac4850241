//! How well a session did lately.
//!
//! What counts are verified outcomes, not what a session says about itself. They are kept as facts, so many a day, and
//! weighed when somebody asks: so the order in which they come in does not matter, two records add up, and another
//! half-life needs no new data.

use std::collections::BTreeMap;

use s2_coordinator::{Timestamp, UtcDay};
use serde::{Deserialize, Serialize};

use crate::basis_points::BasisPoints;

/// How help has ended, as somebody other than the helper has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verified {
    /// It was of use.
    Success,
    /// It was not.
    Failure,
}

/// What an outcome of today weighs. Integers add up in any order.
const ONE: u64 = 1 << 32;

/// So many days at least are weighed without a division.
const TABLE_DAYS: u32 = 64;

/// How much outcomes of the past weigh today: half as much after each half-life, counted in UTC days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decay {
    today: UtcDay,
    /// The weights of the latest days, today's first.
    weights: Vec<u64>,
    /// How many half-lives these are.
    half_lives: u32,
}

impl Decay {
    /// The half-life unless another is set, in days.
    pub const HALF_LIFE_DAYS: u16 = 7;
    /// The longest half-life, in days: ten years.
    pub const LONGEST_HALF_LIFE_DAYS: u16 = 3_650;

    /// As of now, with a half-life of 7 days.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self::with_half_life(now, Self::HALF_LIFE_DAYS)
    }

    /// As of now, with a half-life of so many days: at least 1, at most 3,650.
    #[must_use]
    pub fn with_half_life(now: Timestamp, days: u16) -> Self {
        let half_life = u32::from(days.clamp(1, Self::LONGEST_HALF_LIFE_DAYS));
        let half_lives = TABLE_DAYS.div_ceil(half_life);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 2^31 and 2^32")]
        let first = |age: u32| ((-f64::from(age) / f64::from(half_life)).exp2() * ONE as f64).round() as u64;
        let weight = |age: u32| first(age % half_life) >> (age / half_life);
        Self { today: UtcDay::of(now), weights: (0..half_life * half_lives).map(weight).collect(), half_lives }
    }

    /// What an outcome of this day weighs. One from tomorrow is as good as new, since clocks differ; one from later than
    /// that is not believed.
    fn weight(&self, day: UtcDay) -> u64 {
        // Days to come are far beyond the end of the table.
        let age = self.today.as_days().wrapping_sub(day.as_days()) as usize;
        self.weights.get(age).copied().unwrap_or_else(|| self.weight_beyond(day))
    }

    /// The same for a day that the table does not have.
    #[cold]
    fn weight_beyond(&self, day: UtcDay) -> u64 {
        if day > self.today {
            return if day == self.today.next() { ONE } else { 0 };
        }
        let age = (self.today.as_days() - day.as_days()) as usize;
        let times = u32::try_from(age / self.weights.len()).unwrap_or(u32::MAX);
        self.weights[age % self.weights.len()].checked_shr(times.saturating_mul(self.half_lives)).unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Day {
    successes: u16,
    failures: u16,
}

/// What became of the help of one session in one domain.
///
/// Its *rate* is the mean of a Beta distribution over the outcomes, each weighing less the older it is, with one success
/// and one failure added to begin with: who has done nothing yet has ½, and a single outcome says little. A success never
/// lowers it, a failure never raises it.
///
/// ```
/// use s2_governor::{BasisPoints, Decay, TrackRecord, Verified};
///
/// let now = "2025-11-12T09:00:00Z".parse()?;
/// let mut record = TrackRecord::default();
/// assert_eq!(record.rate(&Decay::new(now)), BasisPoints::HALF);
/// record.record(Verified::Success, now);
/// assert_eq!(record.rate(&Decay::new(now)).get(), 6_666); // (1 + 1) ÷ (1 + 2)
/// let later = "2025-11-19T09:00:00Z".parse()?;
/// assert_eq!(record.rate(&Decay::new(later)).get(), 6_000); // (½ + 1) ÷ (½ + 2)
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<UtcDay, Day>", into = "BTreeMap<UtcDay, Day>")]
pub struct TrackRecord {
    /// In order.
    days: Vec<(UtcDay, Day)>,
}

impl TrackRecord {
    /// Adds an outcome. A day is one entry, with 65,535 outcomes of a kind at most; so a record grows by one entry a day, and
    /// [`TrackRecord::forget`] shortens it.
    pub fn record(&mut self, outcome: Verified, at: Timestamp) {
        let (successes, failures) = match outcome {
            Verified::Success => (1, 0),
            Verified::Failure => (0, 1),
        };
        self.add(UtcDay::of(at), Day { successes, failures });
    }

    fn add(&mut self, day: UtcDay, more: Day) {
        let nth = self.days.partition_point(|(other, _)| *other < day);
        match self.days.get_mut(nth) {
            Some((other, count)) if *other == day => {
                count.successes = count.successes.saturating_add(more.successes);
                count.failures = count.failures.saturating_add(more.failures);
            }
            _ => self.days.insert(nth, (day, more)),
        }
    }

    /// Adds the outcomes of another part of the same history.
    pub fn merge(&mut self, other: &TrackRecord) {
        other.days.iter().for_each(|(day, more)| self.add(*day, *more));
    }

    /// Forgets what is older than this day.
    pub fn forget(&mut self, before: UtcDay) {
        self.days.retain(|(day, _)| *day >= before);
    }

    /// Whether it has no outcome.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.days.is_empty()
    }

    /// The share of successes, rounded down.
    #[must_use]
    pub fn rate(&self, decay: &Decay) -> BasisPoints {
        // Weights of 32 bits and counts of 16: there are not enough days to go beyond 64.
        let (mut successes, mut failures) = (ONE, ONE);
        for (day, count) in &self.days {
            let weight = decay.weight(*day);
            successes += weight * u64::from(count.successes);
            failures += weight * u64::from(count.failures);
        }
        BasisPoints::ratio(successes.into(), u128::from(successes) + u128::from(failures))
    }
}

impl From<BTreeMap<UtcDay, Day>> for TrackRecord {
    fn from(days: BTreeMap<UtcDay, Day>) -> Self {
        Self { days: days.into_iter().collect() }
    }
}

impl From<TrackRecord> for BTreeMap<UtcDay, Day> {
    fn from(record: TrackRecord) -> Self {
        record.days.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn at(day: u64) -> Timestamp {
        Timestamp::EPOCH + Duration::from_secs(day * 86_400)
    }

    fn history(outcomes: &[(bool, u64)]) -> TrackRecord {
        let mut record = TrackRecord::default();
        for (success, day) in outcomes {
            record.record(if *success { Verified::Success } else { Verified::Failure }, at(*day));
        }
        record
    }

    proptest! {
        #[test]
        fn a_success_never_lowers_and_a_failure_never_raises(
            outcomes in prop::collection::vec((any::<bool>(), 0..400_u64), 0..40),
            (day, now) in (0..400_u64, 0..400_u64),
            half_life in 0..5_000_u16,
        ) {
            let decay = Decay::with_half_life(at(now), half_life);
            let rate = |more: &[(bool, u64)]| history(&[&outcomes, more].concat()).rate(&decay);
            prop_assert!(rate(&[(true, day)]) >= rate(&[]));
            prop_assert!(rate(&[(false, day)]) <= rate(&[]));
            prop_assert!(rate(&[]) <= BasisPoints::FULL);
        }

        #[test]
        fn the_order_of_outcomes_does_not_matter_and_parts_add_up(
            outcomes in prop::collection::vec((any::<bool>(), 0..60_u64), 0..40),
            part in 0..40_usize,
        ) {
            let whole = history(&outcomes);
            let reversed: Vec<_> = outcomes.iter().rev().copied().collect();
            prop_assert_eq!(&history(&reversed), &whole);
            let part = part.min(outcomes.len());
            let mut merged = history(&outcomes[part..]);
            merged.merge(&history(&outcomes[..part]));
            prop_assert_eq!(&merged, &whole);
            let stored = serde_json::to_string(&whole).unwrap();
            prop_assert_eq!(serde_json::from_str::<TrackRecord>(&stored).unwrap(), whole);
        }

        #[test]
        fn time_alone_brings_every_rate_towards_one_half(
            success in any::<bool>(), count in 1..50_usize, first in 0..100_u64, later in 0..100_u64,
        ) {
            let record = history(&vec![(success, 100); count]);
            let far = |day: u64| record.rate(&Decay::new(at(100 + day))).get().abs_diff(5_000);
            prop_assert!(far(first + later) <= far(first) + 1, "rounded down on both sides of one half");
        }
    }

    #[test]
    fn an_outcome_weighs_half_as_much_after_each_half_life() {
        let record = history(&[(true, 1_000)]);
        let rate = |day| record.rate(&Decay::new(at(day))).get();
        assert_eq!([1_000, 1_007, 1_014, 1_021].map(rate), [6_666, 6_000, 5_555, 5_294]);
        assert_eq!(rate(1_000 + 7 * 64), 5_000, "gone after 64 half-lives");
        assert_eq!(rate(100_000), 5_000);
        assert_eq!(record.rate(&Decay::with_half_life(at(1_030), 30)).get(), 6_000);
    }

    #[test]
    fn an_outcome_from_tomorrow_is_as_good_as_new_and_a_later_one_is_not_believed() {
        let record = history(&[(true, 1_000)]);
        assert_eq!(record.rate(&Decay::new(at(999))).get(), 6_666);
        assert_eq!(record.rate(&Decay::new(at(998))).get(), 5_000);
        let mut record = history(&[(false, 1_000)]);
        record.record(Verified::Success, Timestamp::MAX);
        assert_eq!(record.rate(&Decay::new(at(1_000))).get(), 3_333, "and it has pushed nothing else aside");
    }

    #[test]
    fn what_is_older_than_a_day_is_forgotten() {
        let mut record = history(&[(true, 10), (false, 20)]);
        record.forget(UtcDay::of(at(20)));
        assert_eq!(record, history(&[(false, 20)]));
        record.forget(UtcDay::of(at(21)));
        assert!(record.is_empty());
    }
}
