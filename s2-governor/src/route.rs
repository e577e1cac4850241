//! What a task asks of a model, and which one it gets.
//!
//! A refusal is an answer that the caller must handle, not an error: a task whose floor cannot be paid waits, is handed
//! back, or goes to a person, and only its host knows which. Every answer says of every tier why or why not.

use std::fmt;

use s2_coordinator::{Capabilities, Text};
use serde::{Deserialize, Serialize};

use crate::basis_points::BasisPoints;
use crate::money::NanoUsd;
use crate::quality::Quality;

/// What a budget still has: its limit, and what of it is neither spent nor held. Of several budgets, the tightest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headroom {
    /// The limit.
    pub limit: NanoUsd,
    /// What is available of it.
    pub available: NanoUsd,
}

impl Headroom {
    /// So much available of so much.
    #[must_use]
    pub const fn new(limit: NanoUsd, available: NanoUsd) -> Self {
        Self { limit, available }
    }

    /// Whether less than this share of the limit is available; exact.
    pub(crate) fn is_below(self, share: BasisPoints) -> bool {
        let times = |amount: NanoUsd, share: BasisPoints| u128::from(amount.as_nanos()) * u128::from(share.get());
        times(self.available, BasisPoints::FULL) < times(self.limit, share)
    }
}

/// What one call is to be like.
///
/// ```
/// use s2_governor::{Headroom, NanoUsd, Quality, RouteRequest};
///
/// let request = RouteRequest::new(Quality::new(3), 12_000, 1_000)
///     .with_floor(Quality::new(2))
///     .with_headroom(Headroom::new(NanoUsd::from_dollars(50), NanoUsd::from_dollars(4)));
/// assert!(request.floor < request.wanted);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteRequest {
    /// The quality that the task should have, if the budget allows. Not below the floor.
    pub wanted: Quality,
    /// The quality below which the task must not be done; as `wanted` unless said otherwise.
    pub floor: Quality,
    /// How many tokens of input the call has at most.
    pub input_tokens: u64,
    /// How many tokens of output it may have.
    pub max_output_tokens: u64,
    /// What the model must offer beyond answering.
    pub requires: Capabilities,
    /// What the budget has; without it, the budget is not asked.
    pub headroom: Option<Headroom>,
}

impl RouteRequest {
    /// A call of this quality, and none lower, with at most so many tokens.
    #[must_use]
    pub fn new(quality: Quality, input_tokens: u64, max_output_tokens: u64) -> Self {
        let requires = Capabilities::default();
        Self { wanted: quality, floor: quality, input_tokens, max_output_tokens, requires, headroom: None }
    }

    /// Sets the quality below which the task must not be done. A floor above what is wanted raises that.
    #[must_use]
    pub fn with_floor(mut self, floor: Quality) -> Self {
        self.floor = floor;
        self.wanted = self.wanted.max(floor);
        self
    }

    /// Sets what the model must offer beyond answering.
    #[must_use]
    pub fn with_requires(mut self, requires: Capabilities) -> Self {
        self.requires = requires;
        self
    }

    /// Says what the budget has.
    #[must_use]
    pub fn with_headroom(mut self, headroom: Headroom) -> Self {
        self.headroom = Some(headroom);
        self
    }
}

/// Which model does it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Route {
    /// This one.
    Chosen(Choice),
    /// None that can do it can be paid from what is available.
    Unaffordable {
        /// The cheapest of those that are not below the floor.
        model: Text,
        /// The most that the call would cost.
        estimate: NanoUsd,
        /// What the budget has.
        available: NanoUsd,
    },
    /// None can do it, whatever the budget: each is below the floor, too small, or lacks something.
    Unsuitable,
}

/// The model that does it, and the one that it is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Choice {
    /// The model.
    pub model: Text,
    /// How good it is.
    pub quality: Quality,
    /// The most that the call costs: what to reserve.
    pub estimate: NanoUsd,
    /// The dearest model that could have done it: what a fleet without a choice of models would ask for everything.
    pub baseline: Text,
    /// The most that the call would cost there; never less than `estimate`.
    pub baseline_estimate: NanoUsd,
}

/// Why a tier was chosen or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Fitness {
    /// It was chosen.
    Chosen,
    /// It would do, but another costs less or comes first.
    Dearer,
    /// It costs more than the budget has.
    Unaffordable,
    /// It is above the floor, but lower than need be.
    BelowTarget,
    /// It is below the floor.
    BelowFloor,
    /// It takes fewer tokens than the call may have.
    TooSmall {
        /// How many it takes.
        context_tokens: u64,
    },
    /// It does not offer what the task requires.
    Lacks(Capabilities),
}

impl fmt::Display for Fitness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen => f.write_str("chosen"),
            Self::Dearer => f.write_str("dearer"),
            Self::Unaffordable => f.write_str("more than is available"),
            Self::BelowTarget => f.write_str("lower than need be"),
            Self::BelowFloor => f.write_str("below the floor"),
            Self::TooSmall { context_tokens } => write!(f, "takes {context_tokens} tokens only"),
            Self::Lacks(missing) => write!(f, "lacks {missing}"),
        }
    }
}

/// A tier that was considered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Considered {
    /// The model.
    pub model: Text,
    /// How good it is.
    pub quality: Quality,
    /// The most that the call would cost.
    pub estimate: NanoUsd,
    /// Why or why not.
    pub verdict: Fitness,
}

/// Which model does it, and why. As text: every tier in the order of preference, with its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Decision {
    /// The answer.
    pub route: Route,
    /// The quality that was looked for in the end: between the floor and what was wanted.
    pub target: Quality,
    /// All tiers: the cheapest first, of equal ones the better, then by name.
    pub considered: Vec<Considered>,
}

impl Decision {
    /// The choice, if there is one.
    #[must_use]
    pub fn chosen(&self) -> Option<&Choice> {
        match &self.route {
            Route::Chosen(choice) => Some(choice),
            Route::Unaffordable { .. } | Route::Unsuitable => None,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "quality {}", self.target)?;
        self.considered.iter().enumerate().try_for_each(|(nth, tier)| {
            let mark = if nth == 0 { ':' } else { ';' };
            write!(f, "{mark} {} ({}, {}) {}", tier.model, tier.quality, tier.estimate, tier.verdict)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_compared_exactly() {
        let of_fifty = |available| Headroom::new(NanoUsd::from_dollars(50), available);
        let tenner = NanoUsd::from_dollars(10);
        let (least, fifth) = (BasisPoints::new(1).unwrap(), BasisPoints::from_percent(20));
        assert!(!of_fifty(tenner).is_below(fifth));
        assert!(of_fifty(tenner.saturating_sub(NanoUsd::from_nanos(1))).is_below(fifth));
        assert!(!Headroom::new(NanoUsd::MAX, NanoUsd::MAX).is_below(BasisPoints::FULL));
        assert!(Headroom::new(NanoUsd::MAX, NanoUsd::ZERO).is_below(least));
    }

    #[test]
    fn a_floor_raises_what_is_wanted() {
        let request = RouteRequest::new(Quality::new(1), 1, 1).with_floor(Quality::new(2));
        assert_eq!((request.wanted, request.floor), (Quality::new(2), Quality::new(2)));
    }
}
