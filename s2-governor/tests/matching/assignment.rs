//! Several who are blocked: the best of all assignments, as trying them all finds it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use s2_coordinator::{Capabilities, SessionState, SwarmId};
use s2_governor::{Assessment, BasisPoints, Bond, Bonds, Candidate, Matcher, NanoUsd, Need, RescuePolicy};

use crate::{NOW, candidate, id, need, set};

/// What an assignment is judged by: value, needs that are helped, bonds, places in the order of load, cost and name. More
/// is better.
type Worth = (u128, usize, usize, usize);

fn worth(pair: &Assessment<'_>, fit: &[&Candidate]) -> Worth {
    let key = |one: &Candidate| (one.load, one.cost, one.session.clone());
    let behind = fit.iter().filter(|other| key(other) >= key(pair.candidate)).count();
    let closeness = pair.bond.map_or(0, |bond| 5 - Bond::ALL.iter().position(|other| *other == bond).unwrap());
    let value = u128::from(pair.need.value.clamp(1, (1 << 53) - 1));
    (u128::from(pair.score.total.get()) * value, 0, closeness, behind)
}

fn sum(one: Worth, other: Worth) -> Worth {
    (one.0 + other.0, one.1 + other.1, one.2 + other.2, one.3 + other.3)
}

/// Tries everything for the candidates from the `nth` on: no help, or help for each need that has a place. `places` are how
/// many each has, and `helped` how many of them are taken.
fn best(worths: &[Vec<Option<Worth>>], nth: usize, places: usize, helped: &mut [usize]) -> Worth {
    let Some(of_candidate) = worths.get(nth) else { return Worth::default() };
    let mut most = best(worths, nth + 1, places, helped);
    for (need, worth) in of_candidate.iter().enumerate() {
        if let Some(worth) = worth.filter(|_| helped[need] < places) {
            let first = (0, usize::from(helped[need] == 0), 0, 0);
            helped[need] += 1;
            most = most.max(sum(sum(worth, first), best(worths, nth + 1, places, helped)));
            helped[need] -= 1;
        }
    }
    most
}

fn needs(most: usize) -> impl Strategy<Value = Vec<Need>> {
    let one = (crate::laws::capabilities(2), prop_oneof![0..4_u64, Just(u64::MAX), any::<u64>()]);
    prop::collection::vec(one, 0..=most).prop_map(|all| {
        let need = |(nth, (required, value)): (usize, (Capabilities, u64))| {
            Need::new(id(&format!("swarm-{nth}/blocked")), &required).with_value(value)
        };
        all.into_iter().enumerate().map(need).collect()
    })
}

fn candidates(most: usize) -> impl Strategy<Value = Vec<Candidate>> {
    let one = (crate::laws::capabilities(3), 0..3_usize, 0..2_u64);
    prop::collection::vec(one, 0..=most).prop_map(|all| {
        let one = |(nth, (offered, load, cost)): (usize, (Capabilities, usize, u64))| {
            let session = id(&format!("fleet-{}/s{nth}", nth % 3));
            Candidate::new(session, offered).with_load(load).with_cost(NanoUsd::from_nanos(cost))
        };
        all.into_iter().enumerate().map(one).collect()
    })
}

fn bonds(declared: &[(usize, usize, usize)]) -> Bonds {
    let mut bonds = Bonds::default();
    for (swarm, fleet, bond) in declared {
        bonds.declare(id(&format!("swarm-{swarm}")), id(&format!("fleet-{fleet}")), Bond::ALL[*bond]);
    }
    bonds
}

fn pairs(helpers: &[Vec<Assessment<'_>>]) -> BTreeSet<(SwarmId, SwarmId)> {
    let pair = |helper: &Assessment<'_>| (helper.need.blocked.clone(), helper.candidate.session.clone());
    helpers.iter().flatten().map(pair).collect()
}

/// Compares an assignment with the best of all, and with itself in another order.
fn check(needs: &[Need], candidates: &[Candidate], bonds: &Bonds, places: usize, least: u16) {
    let mut policy = RescuePolicy::default();
    policy.max_rescuers_per_blocker = places;
    policy.min_capability_match = BasisPoints::new(least).unwrap();
    let matcher = Matcher::new(&policy, NOW).with_bonds(bonds);
    let helpers = matcher.assign(needs, candidates).unwrap();

    let mut helping = BTreeSet::new();
    for (need, helpers) in needs.iter().zip(&helpers) {
        assert!(helpers.len() <= places);
        for helper in helpers {
            assert_eq!(helper.need, need);
            assert!(helper.excluded.is_none() && helper.score.total.get() >= least, "{helper}");
            assert!(helping.insert(&helper.candidate.session), "{} helps twice", helper.candidate.session);
        }
    }
    let fits = |pair: &Assessment<'_>| pair.excluded.is_none() && pair.score.total.get() >= least;
    let fits_any = |one: &&Candidate| needs.iter().any(|need| fits(&matcher.assess(need, one)));
    let fit: Vec<&Candidate> = candidates.iter().filter(fits_any).collect();
    let worth_of = |candidate, need| Some(matcher.assess(need, candidate)).filter(fits).map(|pair| worth(&pair, &fit));
    let row = |candidate| needs.iter().map(|need| worth_of(candidate, need)).collect();
    let worths: Vec<Vec<Option<Worth>>> = fit.iter().map(|one| row(one)).collect();
    let pairs_found = helpers.iter().flatten().map(|pair| worth(pair, &fit)).fold(Worth::default(), sum);
    let found = sum(pairs_found, (0, helpers.iter().filter(|helpers| !helpers.is_empty()).count(), 0, 0));
    assert_eq!(found, best(&worths, 0, places, &mut vec![0; needs.len()]), "{needs:?} {candidates:?}");

    let (needs, candidates): (Vec<_>, Vec<_>) =
        (needs.iter().rev().cloned().collect(), candidates.iter().rev().chain(candidates).cloned().collect());
    assert_eq!(pairs(&matcher.assign(&needs, &candidates).unwrap()), pairs(&helpers), "in another order");
}

proptest! {
    #[test]
    fn an_assignment_is_worth_as_much_as_the_best_of_all(
        needs in needs(7), candidates in candidates(7), least in 0..8_000_u16,
        declared in prop::collection::vec((0..7_usize, 0..3_usize, 0..5_usize), 0..4),
    ) {
        check(&needs, &candidates, &bonds(&declared), 1, least);
    }

    #[test]
    fn so_it_is_when_several_may_help_each(
        needs in needs(4), candidates in candidates(6), places in 0..4_usize, least in 0..8_000_u16,
        declared in prop::collection::vec((0..4_usize, 0..3_usize, 0..5_usize), 0..4),
    ) {
        check(&needs, &candidates, &bonds(&declared), places, least);
    }
}

/// Who helps each need, by name.
fn assigned(policy: &RescuePolicy, needs: &[Need], candidates: &[Candidate]) -> Vec<Vec<String>> {
    let helpers = Matcher::new(policy, NOW).assign(needs, candidates).unwrap();
    let names = |all: &Vec<Assessment<'_>>| all.iter().map(|one| one.candidate.session.to_string()).collect();
    helpers.iter().map(names).collect()
}

#[test]
fn the_only_expert_goes_where_nobody_else_can() {
    let needs = [need(&["a"]), Need::new(id("other"), &set(&["b"]))];
    let all = [candidate("both", &["a", "b"]), candidate("one", &["a"])];
    assert_eq!(assigned(&RescuePolicy::default(), &needs, &all), [["one"], ["both"]]);
}

#[test]
fn what_is_worth_more_is_helped_first_and_by_more() {
    let blocked = |name: &str, value| Need::new(id(name), &set(&["a"])).with_value(value);
    let all = ["x", "y", "z"].map(|name| candidate(name, &["a"]));
    let policy = RescuePolicy::default();
    let counts = |values: [u64; 2]| {
        let needs = [blocked("one", values[0]), blocked("two", values[1])];
        assigned(&policy, &needs, &all).iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(counts([1, 2]), [1, 2]);
    assert_eq!(counts([Need::HIGHEST_VALUE, Need::HIGHEST_VALUE - 1]), [2, 1]);
    assert_eq!(counts([0, 0]), [2, 1], "who is worth nothing is helped all the same, the first by name first");
}

#[test]
fn those_who_work_are_assigned_what_those_who_are_free_leave() {
    let works = candidate("works", &["a", "b"]).with_state(SessionState::Working);
    let free = candidate("free", &["a"]);
    let needs = [
        need(&["a"]).with_preemption(true),
        Need::new(id("old"), &set(&["b"])).with_preemption(true),
        Need::new(id("young"), &set(&["b"])).with_value(1_000),
    ];
    let all = [works, free];
    let expected: [&[&str]; 3] = [&["free"], &["works"], &[]];
    assert_eq!(assigned(&RescuePolicy::default(), &needs, &all), expected);
}

#[test]
fn nobody_and_nothing_are_no_trouble() {
    let policy = RescuePolicy::default();
    assert_eq!(assigned(&policy, &[], &[candidate("a", &[])]), [[""; 0]; 0]);
    assert_eq!(assigned(&policy, &[need(&["a"])], &[]), [[""; 0]]);
    assert_eq!(assigned(&policy, &[need(&["a"]), need(&["b"])], &[candidate("c", &["c"])]), [[""; 0], [""; 0]]);
}

#[test]
fn what_is_too_large_is_refused_and_named() {
    let needs: Vec<Need> = (0..1_001).map(|nth| Need::new(id(&format!("blocked-{nth}")), &set(&[]))).collect();
    let all: Vec<Candidate> = (0..2_000).map(|nth| candidate(&format!("s-{nth}"), &[])).collect();
    let policy = RescuePolicy::default();
    let error = Matcher::new(&policy, NOW).assign(&needs, &all).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid assignment \"2002 places for 2000 sessions\": more than 4000000 pairs at a time"
    );
}
