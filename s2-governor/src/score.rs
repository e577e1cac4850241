//! How well somebody fits what is needed.

use std::fmt;

use s2_coordinator::Invalid;

use crate::basis_points::BasisPoints;

/// How much each part counts: half for the domain, 0.30 for the tools and 0.20 for recent success unless set otherwise. They
/// sum to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Weights {
    domain: BasisPoints,
    tool: BasisPoints,
    success: BasisPoints,
}

impl Weights {
    /// Weights of domain, tools and recent success.
    ///
    /// # Errors
    ///
    /// [`Invalid`] unless they sum to 1.
    pub fn new(domain: BasisPoints, tool: BasisPoints, success: BasisPoints) -> Result<Self, Invalid> {
        let sum: u32 = [domain, tool, success].iter().map(|weight| u32::from(weight.get())).sum();
        if sum != u32::from(BasisPoints::FULL.get()) {
            let weights = format!("{domain} domain, {tool} tools, {success} recent success");
            return Err(Invalid::new("expertise_scoring", &weights, "the weights must sum to 1"));
        }
        Ok(Self { domain, tool, success })
    }

    /// The weight of the domain.
    #[must_use]
    pub const fn domain(&self) -> BasisPoints {
        self.domain
    }

    /// The weight of tools.
    #[must_use]
    pub const fn tool(&self) -> BasisPoints {
        self.tool
    }

    /// The weight of recent success.
    #[must_use]
    pub const fn success(&self) -> BasisPoints {
        self.success
    }

    /// The score of somebody with these parts.
    #[must_use]
    pub fn score(&self, domain: BasisPoints, tool: BasisPoints, success: BasisPoints) -> Score {
        let parts = [(self.domain, domain), (self.tool, tool), (self.success, success)];
        let sum: u64 = parts.iter().map(|(weight, part)| u64::from(weight.get()) * u64::from(part.get())).sum();
        Score { domain, tool, success, total: BasisPoints::divided(sum, BasisPoints::FULL.get().into()) }
    }
}

impl Default for Weights {
    fn default() -> Self {
        let [domain, tool, success] = [50, 30, 20].map(BasisPoints::from_percent);
        Self { domain, tool, success }
    }
}

/// How well somebody fits what is needed, in parts and in total.
///
/// Each part is rounded down, and so is the total: the weighted sum of the parts as they are shown.
///
/// ```
/// use s2_governor::{BasisPoints, Weights};
///
/// // All of the domain, no tool needed, and nothing known about the past.
/// let score = Weights::default().score(BasisPoints::FULL, BasisPoints::FULL, BasisPoints::HALF);
/// assert_eq!(score.total.get(), 9_000);
/// assert_eq!(score.to_string(), "90 %: domain 100 %, tools 100 %, recent success 50 %");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Score {
    /// How much of the required domain is offered.
    pub domain: BasisPoints,
    /// How much of the required tools is offered.
    pub tool: BasisPoints,
    /// How well it did lately with something similar; ½ if nobody knows.
    pub success: BasisPoints,
    /// The weighted sum.
    pub total: BasisPoints,
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, tool, success, total } = self;
        write!(f, "{total}: domain {domain}, tools {tool}, recent success {success}")
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
        fn a_better_part_never_lowers_the_total(
            (one, other) in (share(), share()),
            parts in [share(), share(), share()],
            better in (0..3_usize, share()),
        ) {
            let one = one.min(other.rest());
            let rest = BasisPoints::new(10_000 - one.get() - other.get().min(10_000 - one.get())).unwrap();
            let other = BasisPoints::new(10_000 - one.get() - rest.get()).unwrap();
            let weights = Weights::new(one, other, rest).unwrap();
            let total = |[domain, tool, success]: [BasisPoints; 3]| weights.score(domain, tool, success).total;
            let mut raised = parts;
            raised[better.0] = raised[better.0].max(better.1);
            prop_assert!(total(raised) >= total(parts));
            prop_assert!(total(parts) <= *parts.iter().max().unwrap());
            prop_assert!(total(parts).get() + 1 > parts.iter().min().unwrap().get());
        }
    }

    #[test]
    fn weights_that_do_not_sum_to_one_are_refused_and_named() {
        let [half, third] = [50, 33].map(BasisPoints::from_percent);
        let error = Weights::new(half, third, third).unwrap_err().to_string();
        assert!(
            error.contains("expertise_scoring") && error.contains("33 % tools") && error.contains("sum to 1"),
            "{error}"
        );
    }
}
