//! Laws of matching, for any need and any session.

use proptest::prelude::*;
use proptest::sample::subsequence;
use s2_coordinator::{Capabilities, Capability, SessionState, SwarmId};
use s2_governor::{
    Assessment, BasisPoints, Bond, Bonds, Candidate, Matcher, NanoUsd, Need, RescuePolicy, TrackRecords, Verified,
};

use crate::{NOW, id};

/// A few words, so that paths meet.
fn capability() -> impl Strategy<Value = Capability> {
    let word = prop::sample::select(vec!["a", "b", "tool"]);
    prop::collection::vec(word, 1..4).prop_map(|words| Capability::new(words.join(":")).expect("a path"))
}

pub(crate) fn paths(most: usize) -> impl Strategy<Value = Vec<Capability>> {
    prop::collection::vec(capability(), 0..=most)
}

pub(crate) fn capabilities(most: usize) -> impl Strategy<Value = Capabilities> {
    paths(most).prop_map(Capabilities::from)
}

fn need() -> impl Strategy<Value = Need> {
    (capabilities(4), capabilities(1))
        .prop_map(|(required, mandatory)| Need::new(id("fleet/blocked"), &required).with_mandatory(mandatory))
}

/// Often the same, so that ties come up.
pub(crate) fn candidates(most: usize) -> impl Strategy<Value = Vec<Candidate>> {
    let session = (0..6_u8, capabilities(3), 0..3_usize, 0..3_u64, any::<bool>());
    let session = session.prop_map(|(name, offered, load, cost, works)| {
        let state = if works { SessionState::Working } else { SessionState::Idle };
        let (swarm, cost) = (id(&format!("fleet/s{name}")), NanoUsd::from_nanos(cost));
        Candidate::new(swarm, offered).with_load(load).with_cost(cost).with_state(state)
    });
    prop::collection::vec(session, 0..=most)
}

fn outcomes() -> impl Strategy<Value = Vec<(u8, bool)>> {
    prop::collection::vec((0..6_u8, any::<bool>()), 0..12)
}

fn verified(success: bool) -> Verified {
    if success { Verified::Success } else { Verified::Failure }
}

fn records(outcomes: &[(u8, bool)], need: &Need) -> TrackRecords {
    let mut records = TrackRecords::default();
    for (session, success) in outcomes {
        records.record(&id(&format!("fleet/s{session}")), need, verified(*success), NOW);
    }
    records
}

pub(crate) fn bonds(declared: &[(u8, usize)]) -> Bonds {
    let mut bonds = Bonds::default();
    for (session, bond) in declared {
        bonds.declare(id("fleet/blocked"), id(&format!("fleet/s{session}")), Bond::ALL[*bond]);
    }
    bonds
}

fn names(helpers: &[Assessment<'_>]) -> Vec<SwarmId> {
    helpers.iter().map(|helper| helper.candidate.session.clone()).collect()
}

proptest! {
    #[test]
    fn knowing_more_never_lowers_a_score_nor_excludes(
        need in need(), known in paths(4), more in paths(3), outcomes in outcomes(),
    ) {
        let records = records(&outcomes, &need);
        let policy = RescuePolicy::default();
        let matcher = Matcher::new(&policy, NOW).with_records(&records);
        let knows = |known: &[Capability]| Candidate::new(id("fleet/s1"), known.to_vec().into());
        let (one, other) = (knows(&known), knows(&[known, more].concat()));
        let (before, after) = (matcher.assess(&need, &one), matcher.assess(&need, &other));
        prop_assert!(before.score.domain <= after.score.domain);
        prop_assert!(before.score.tool <= after.score.tool);
        prop_assert!(before.score.total <= after.score.total);
        prop_assert!(before.excluded.is_some() || after.excluded.is_none());
        prop_assert!(after.missing().len() <= before.missing().len());
    }

    #[test]
    fn failure_never_helps_and_success_never_hurts(
        need in need(), known in capabilities(4), outcomes in outcomes(), success in any::<bool>(),
    ) {
        let policy = RescuePolicy::default();
        let candidate = Candidate::new(id("fleet/s1"), known);
        let total = |outcomes: &[(u8, bool)]| {
            let records = records(outcomes, &need);
            Matcher::new(&policy, NOW).with_records(&records).assess(&need, &candidate).score.total
        };
        let (before, after) = (total(&outcomes), total(&[&outcomes[..], &[(1, success)]].concat()));
        if success { prop_assert!(after >= before) } else { prop_assert!(after <= before) }
        prop_assert_eq!(total(&[&outcomes[..], &[(2, success)]].concat()), before, "what others do changes nothing");
    }

    #[test]
    fn order_and_duplicates_do_not_matter(
        required in paths(4), known in paths(4), outcomes in outcomes(), twice in subsequence(vec![0, 1, 2, 3], 0..4),
    ) {
        let again = |paths: &[Capability]| -> Capabilities {
            let twice = twice.iter().filter_map(|nth| paths.get(*nth));
            twice.chain(paths.iter().rev()).cloned().collect()
        };
        let policy = RescuePolicy::default();
        let score = |required: &Capabilities, known: Capabilities| {
            let need = Need::new(id("fleet/blocked"), required);
            let records = records(&outcomes, &need);
            Matcher::new(&policy, NOW).with_records(&records).assess(&need, &Candidate::new(id("fleet/s1"), known)).score
        };
        let once = score(&required.clone().into(), known.clone().into());
        prop_assert_eq!(score(&again(&required), again(&known)), once);
    }

    #[test]
    fn a_score_is_a_share_and_the_threshold_belongs_to_those_who_fit(
        need in need(), known in capabilities(4), outcomes in outcomes(),
    ) {
        let need = need.with_mandatory(Capabilities::default());
        let records = records(&outcomes, &need);
        let candidates = [Candidate::new(id("fleet/s1"), known)];
        let mut policy = RescuePolicy::default();
        let score = Matcher::new(&policy, NOW).with_records(&records).assess(&need, &candidates[0]).score;
        for part in [score.domain, score.tool, score.success, score.total] {
            prop_assert!(part <= BasisPoints::FULL);
        }
        let mut is_picked = |least: u16| {
            policy.min_capability_match = BasisPoints::new(least).unwrap();
            Matcher::new(&policy, NOW).with_records(&records).choose(&need, &candidates).helpers.len() == 1
        };
        prop_assert!(is_picked(score.total.get()));
        if score.total < BasisPoints::FULL {
            prop_assert!(!is_picked(score.total.get() + 1));
        }
    }

    #[test]
    fn the_best_are_chosen_however_the_candidates_are_listed(
        need in need(), candidates in candidates(8), outcomes in outcomes(), preempts in any::<bool>(),
        declared in prop::collection::vec((0..6_u8, 0..5_usize), 0..4), most in 0..4_usize, least in 0..10_000_u16,
    ) {
        let (records, bonds) = (records(&outcomes, &need), bonds(&declared));
        let need = need.with_preemption(preempts);
        let mut policy = RescuePolicy::default();
        policy.max_rescuers_per_blocker = most;
        policy.min_capability_match = BasisPoints::new(least).unwrap();
        let matcher = Matcher::new(&policy, NOW).with_records(&records).with_bonds(&bonds);
        // In words: all who fit, in the order that is promised, each session once.
        let mut fit: Vec<_> = candidates.iter().map(|candidate| matcher.assess(&need, candidate)).collect();
        fit.retain(|one| one.excluded.is_none() && one.score.total.get() >= least);
        fit.sort_by_key(|one| {
            let works = one.candidate.state == SessionState::Working;
            let bond = one.bond.map_or(5, |bond| Bond::ALL.iter().position(|other| *other == bond).unwrap());
            let Candidate { session, load, cost, .. } = one.candidate;
            (works, 10_000 - one.score.total.get(), bond, *load, *cost, session.clone())
        });
        let mut expected: Vec<SwarmId> = Vec::new();
        for name in names(&fit) {
            if expected.len() < most && !expected.contains(&name) {
                expected.push(name);
            }
        }
        prop_assert_eq!(names(&matcher.choose(&need, &candidates).helpers), expected.clone());
        let reversed: Vec<_> = candidates.iter().rev().chain(&candidates).cloned().collect();
        prop_assert_eq!(names(&matcher.choose(&need, &reversed).helpers), expected.clone());
        // One need is the simplest assignment.
        let needs = [need];
        prop_assert_eq!(names(&matcher.assign(&needs, &candidates).unwrap()[0]), expected);
    }
}
