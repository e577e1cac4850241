//! How much of what is required somebody offers.
//!
//! Not the overlap of two sets (Jaccard): that punishes whoever knows more than is asked for.

use s2_coordinator::{Capabilities, Capability};

use crate::basis_points::BasisPoints;

/// The worth of a path that is offered in full; halved for each level that is missing. A path has 16 words at most, so at
/// most 15 levels are missing, and no half is ever lost.
const WHOLE: u64 = 1 << Capability::DEPTH;

/// The mean of what is offered for each required path, rounded down: 1 for the path itself or something below it, one half
/// for each level that is missing if only something above it is offered, and nothing for its neighbours. All, if nothing is
/// required.
pub(crate) fn coverage(required: &Capabilities, offered: &Capabilities) -> BasisPoints {
    if required.is_empty() {
        return BasisPoints::FULL;
    }
    let covered: u64 = required.iter().map(|wanted| best(wanted.as_str(), offered)).sum();
    BasisPoints::divided(covered * u64::from(BasisPoints::FULL.get()) / WHOLE, required.len() as u64)
}

fn best(wanted: &str, offered: &Capabilities) -> u64 {
    offered.iter().map(|offered| worth(wanted, offered.as_str())).max().unwrap_or(0)
}

/// As [`Capability::covers`], in both directions with one comparison: this is what a choice among a thousand sessions
/// spends its time with.
fn worth(wanted: &str, offered: &str) -> u64 {
    let (wanted, offered) = (wanted.as_bytes(), offered.as_bytes());
    if let Some((start, below)) = offered.split_at_checked(wanted.len()) {
        // Neighbours mostly end differently.
        let is_below = start.last() == wanted.last() && matches!(below.first(), None | Some(b':')) && start == wanted;
        return if is_below { WHOLE } else { 0 };
    }
    let (start, missing) = wanted.split_at(offered.len());
    if missing[0] != b':' || start != offered {
        return 0;
    }
    WHOLE >> missing.iter().filter(|byte| **byte == b':').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_required_path_counts_as_the_best_that_is_offered_for_it() {
        let deepest = ["a"; 16].join(":");
        for (required, offered, covered) in [
            (&["a:b"][..], &["a:b"][..], 10_000),
            (&["a:b"], &["a:b:c"], 10_000),
            (&["a:b"], &["a"], 5_000),
            (&["a:b:c"], &["a"], 2_500),
            (&["a:b:c"], &["a", "a:b"], 5_000),
            (&["a:b:c:d"], &["a"], 1_250),
            (&["a:b"], &["a:c"], 0),
            (&["a:b"], &["a:bc"], 0),
            (&["a:b"], &["b"], 0),
            (&["a:b"], &[], 0),
            (&[], &[], 10_000),
            (&[], &["a"], 10_000),
            (&["a", "b"], &["a"], 5_000),
            (&["a", "b", "c"], &["a", "b"], 6_666),
            (&["a", "b:c"], &["a", "b"], 7_500),
            (&["a", "A", "a"], &["a", "a"], 10_000),
            (&[&deepest], &["a"], 0),
            (&[&deepest, "b"], &["a", "b"], 5_000),
        ] {
            let set = |paths: &[&str]| Capabilities::new(paths).unwrap();
            assert_eq!(coverage(&set(required), &set(offered)).get(), covered, "{offered:?} for {required:?}");
        }
    }
}
