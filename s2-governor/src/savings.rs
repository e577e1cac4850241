//! What choosing models has saved.
//!
//! Compared is what the calls cost with what the same tokens would have cost at the dearest model that could have done
//! each. Sums are kept, not percentages: percentages of calls cannot be added.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::basis_points::BasisPoints;
use crate::money::NanoUsd;

/// The cost of some calls, and of the same calls at the baseline.
///
/// ```
/// use s2_governor::{BasisPoints, NanoUsd, Savings};
///
/// let simple = Savings::of_call(NanoUsd::from_cents(8), NanoUsd::from_cents(100));
/// assert_eq!((simple.saved(), simple.saved_share()), (NanoUsd::from_cents(92), BasisPoints::from_percent(92)));
///
/// let complex = Savings::of_call(NanoUsd::from_cents(100), NanoUsd::from_cents(100));
/// let both = simple.checked_add(complex).expect("less than $9,007,199");
/// assert_eq!(both.to_string(), "2 calls for $1.08 instead of $2.00: 46 % saved");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Savings {
    /// How many calls.
    pub calls: u64,
    /// What they cost.
    pub spent: NanoUsd,
    /// What they would have cost at the baseline.
    pub would_have_cost: NanoUsd,
}

impl Savings {
    /// One call.
    #[must_use]
    pub const fn of_call(spent: NanoUsd, would_have_cost: NanoUsd) -> Self {
        Self { calls: 1, spent, would_have_cost }
    }

    /// Both together, unless a sum is more than [`NanoUsd::MAX`].
    #[must_use]
    pub fn checked_add(self, other: Savings) -> Option<Savings> {
        Some(Self {
            calls: self.calls.checked_add(other.calls)?,
            spent: self.spent.checked_add(other.spent)?,
            would_have_cost: self.would_have_cost.checked_add(other.would_have_cost)?,
        })
    }

    /// The difference; zero when the calls cost more than the baseline.
    #[must_use]
    pub const fn saved(&self) -> NanoUsd {
        self.would_have_cost.saturating_sub(self.spent)
    }

    /// The difference as a share of the baseline's cost, rounded down; nothing when there was no cost.
    #[must_use]
    pub fn saved_share(&self) -> BasisPoints {
        BasisPoints::ratio(self.saved().as_nanos().into(), self.would_have_cost.as_nanos().into())
    }
}

impl fmt::Display for Savings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, spent, would_have_cost } = self;
        write!(f, "{calls} calls for {spent} instead of {would_have_cost}: {} saved", self.saved_share())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_share_is_never_more_than_what_was_saved(
            spent in 0..=NanoUsd::MAX.as_nanos(),
            would_have_cost in 0..=NanoUsd::MAX.as_nanos(),
        ) {
            let (spent, would_have_cost) = (NanoUsd::from_nanos(spent), NanoUsd::from_nanos(would_have_cost));
            let savings = Savings::of_call(spent, would_have_cost);
            prop_assert_eq!(savings.saved(), would_have_cost.saturating_sub(spent));
            let exact = u128::from(savings.saved().as_nanos()) * 10_000;
            let (share, whole) = (u128::from(savings.saved_share().get()), u128::from(would_have_cost.as_nanos()));
            prop_assert!(share <= 10_000 && share * whole <= exact && (whole == 0 || exact < (share + 1) * whole));
        }
    }

    #[test]
    fn what_cost_more_saved_nothing_and_still_counts() {
        let cents = NanoUsd::from_cents;
        let loss = Savings::of_call(cents(30), cents(10));
        assert_eq!((loss.saved(), loss.saved_share()), (NanoUsd::ZERO, BasisPoints::ZERO));
        let both = loss.checked_add(Savings::of_call(cents(10), cents(90))).unwrap();
        assert_eq!((both.saved(), both.saved_share()), (cents(60), BasisPoints::from_percent(60)));
    }

    #[test]
    fn a_sum_that_is_too_large_is_not_made_up() {
        let most = Savings::of_call(NanoUsd::MAX, NanoUsd::MAX);
        assert_eq!(most.checked_add(Savings::of_call(NanoUsd::from_nanos(1), NanoUsd::ZERO)), None);
        assert_eq!(most.checked_add(Savings::default()), Some(most));
        assert_eq!(Savings::default().saved_share(), BasisPoints::ZERO);
    }
}
