//! What help has cost in vain.

use serde::{Deserialize, Serialize};

use crate::basis_points::BasisPoints;
use crate::money::NanoUsd;

/// Help that somebody gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Help {
    /// What it cost.
    pub cost: NanoUsd,
    /// Of how much use it was: 1 if it solved the blocker, 0 if it did not. Found out afterwards, never taken from whoever
    /// chose the helper. Nothing, if nobody could have solved it.
    pub usefulness: Option<BasisPoints>,
}

impl Help {
    /// Help for a blocker that somebody could solve.
    #[must_use]
    pub const fn new(cost: NanoUsd, usefulness: BasisPoints) -> Self {
        Self { cost, usefulness: Some(usefulness) }
    }

    /// Help for a blocker that nobody could solve.
    #[must_use]
    pub const fn unsolvable(cost: NanoUsd) -> Self {
        Self { cost, usefulness: None }
    }
}

/// The part of what help has cost that was in vain: Σ cost × (1 − usefulness) ÷ Σ cost. It is exact; help for blockers that
/// nobody could solve is left out.
///
/// ```
/// use s2_governor::{BasisPoints, Help, NanoUsd, Waste};
///
/// // Five helpers of equal price, as useful as the seeds found them: 100 %, 100 %, 10 %, 5 % and not at all.
/// let useful = [100, 100, 10, 5, 0].map(BasisPoints::from_percent);
/// let waste: Waste = useful.map(|useful| Help::new(NanoUsd::from_cents(40), useful)).into_iter().collect();
/// assert_eq!(waste.share(), BasisPoints::from_percent(57));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waste {
    /// In nano-dollars.
    spent: u128,
    /// In ten-thousandths of nano-dollars.
    wasted: u128,
}

impl Waste {
    /// Adds help that was given.
    pub fn add(&mut self, help: Help) {
        let Some(usefulness) = help.usefulness else { return };
        let cost = u128::from(help.cost.as_nanos());
        self.spent += cost;
        self.wasted += cost * u128::from(usefulness.rest().get());
    }

    /// The share of what was spent, rounded up: waste never looks smaller than it is. Nothing, if nothing was spent.
    #[must_use]
    pub fn share(&self) -> BasisPoints {
        let whole = self.spent * u128::from(BasisPoints::FULL.get());
        // What is left, rounded down.
        if whole == 0 { BasisPoints::ZERO } else { BasisPoints::ratio(whole - self.wasted, whole).rest() }
    }
}

impl Extend<Help> for Waste {
    fn extend<I: IntoIterator<Item = Help>>(&mut self, help: I) {
        help.into_iter().for_each(|help| self.add(help));
    }
}

impl FromIterator<Help> for Waste {
    fn from_iter<I: IntoIterator<Item = Help>>(help: I) -> Self {
        let mut waste = Self::default();
        waste.extend(help);
        waste
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share() -> impl Strategy<Value = BasisPoints> {
        (0..=10_000_u16).prop_map(|share| BasisPoints::new(share).unwrap())
    }

    proptest! {
        #[test]
        fn usefulness_lowers_waste_and_who_solves_everything_wastes_nothing(
            help in prop::collection::vec((1..=NanoUsd::MAX.as_nanos(), share()), 1..20),
        ) {
            let help = help.iter().map(|(cost, useful)| Help::new(NanoUsd::from_nanos(*cost), *useful));
            let all = |useful: BasisPoints| help.clone().map(|help| Help::new(help.cost, useful)).collect::<Waste>();
            let waste = help.clone().collect::<Waste>().share();
            prop_assert_eq!(all(BasisPoints::FULL).share(), BasisPoints::ZERO);
            prop_assert_eq!(all(BasisPoints::ZERO).share(), BasisPoints::FULL);
            let least = help.clone().filter_map(|help| help.usefulness).min().unwrap();
            prop_assert!(waste <= least.rest());
            prop_assert_eq!(all(least).share(), least.rest());
        }
    }

    #[test]
    fn waste_is_weighed_by_cost_and_rounded_up() {
        let help = |nanos, useful| Help::new(NanoUsd::from_nanos(nanos), BasisPoints::from_percent(useful));
        for (all, share) in [
            (vec![], 0),
            (vec![help(0, 0)], 0),
            (vec![help(3, 100), help(1, 0)], 2_500),
            (vec![help(2, 100), help(1, 0)], 3_334),
            (vec![help(NanoUsd::MAX.as_nanos(), 100), help(1, 0)], 1),
            (vec![help(1, 100), Help::unsolvable(NanoUsd::MAX)], 0),
            (vec![help(1, 50), Help::unsolvable(NanoUsd::MAX)], 5_000),
        ] {
            assert_eq!(all.iter().copied().collect::<Waste>().share().get(), share, "{all:?}");
        }
    }
}
