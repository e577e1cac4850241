//! By hand: scores, exclusions, ties, and the six sessions of the seeds.

use std::time::Duration;

use s2_coordinator::{SessionState, UtcDay};
use s2_governor::{
    BasisPoints, Bond, Bonds, Candidate, Excluded, Help, Matcher, NanoUsd, Need, Passed, RescuePolicy, TrackRecords,
    Verified, Waste, Weights,
};

use crate::{NOW, candidate, id, need, set};

/// The names of the helpers for a need, the best first.
fn helpers(matcher: &Matcher<'_>, need: &Need, candidates: &[Candidate]) -> Vec<String> {
    let choice = matcher.choose(need, candidates);
    assert_eq!(choice.helpers.len() + choice.others.len(), candidates.len(), "everybody is accounted for");
    choice.helpers.iter().map(|helper| helper.candidate.session.to_string()).collect()
}

#[test]
fn scores_are_as_computed_by_hand() {
    // Required, offered, successes, failures; domain, tools, recent success, total; whether 7,000 are reached.
    type Case<'a> = (&'a [&'a str], &'a [&'a str], [u32; 2], [u16; 4], bool);
    let cases: &[Case<'_>] = &[
        // Nothing required: all of nothing.
        (&[], &[], [0, 0], [10_000, 10_000, 5_000, 9_000], true),
        (&[], &["a"], [0, 0], [10_000, 10_000, 5_000, 9_000], true),
        // One domain.
        (&["a"], &["a"], [0, 0], [10_000, 10_000, 5_000, 9_000], true),
        (&["a"], &["a:b"], [0, 0], [10_000, 10_000, 5_000, 9_000], true),
        (&["a"], &[], [0, 0], [0, 10_000, 5_000, 4_000], false),
        (&["a:b"], &["a:c"], [0, 0], [0, 10_000, 5_000, 4_000], false),
        (&["a:b"], &["a"], [0, 0], [5_000, 10_000, 5_000, 6_500], false),
        (&["a:b:c"], &["a"], [0, 0], [2_500, 10_000, 5_000, 5_250], false),
        (&["a:b:c"], &["a:b"], [0, 0], [5_000, 10_000, 5_000, 6_500], false),
        // Two and three.
        (&["a", "b"], &["a"], [0, 0], [5_000, 10_000, 5_000, 6_500], false),
        (&["a", "b", "c"], &["a", "b"], [0, 0], [6_666, 10_000, 5_000, 7_333], true),
        (&["a", "b", "c"], &["a"], [0, 0], [3_333, 10_000, 5_000, 5_666], false),
        (&["a:x", "b"], &["a", "b"], [0, 0], [7_500, 10_000, 5_000, 7_750], true),
        // Tools.
        (&["tool:rust"], &[], [0, 0], [10_000, 0, 5_000, 6_000], false),
        (&["tool:rust"], &["tool"], [0, 0], [10_000, 5_000, 5_000, 7_500], true),
        (&["a", "tool:rust"], &["a", "tool:rust"], [0, 0], [10_000, 10_000, 5_000, 9_000], true),
        (&["a", "tool:rust"], &["a", "tool:go"], [0, 0], [10_000, 0, 5_000, 6_000], false),
        (&["a", "tool:rust"], &["tool:rust"], [0, 0], [0, 10_000, 5_000, 4_000], false),
        (&["a", "tool:rust", "tool:go"], &["a", "tool:go"], [0, 0], [10_000, 5_000, 5_000, 7_500], true),
        // A tool is no domain, and a domain is no tool.
        (&["a"], &["tool:a"], [0, 0], [0, 10_000, 5_000, 4_000], false),
        (&["toolbox:rust"], &["toolbox:rust"], [0, 0], [10_000, 10_000, 5_000, 9_000], true),
        // Recent success.
        (&["a"], &["a"], [1, 0], [10_000, 10_000, 6_666, 9_333], true),
        (&["a"], &["a"], [0, 1], [10_000, 10_000, 3_333, 8_666], true),
        (&["a"], &["a"], [8, 0], [10_000, 10_000, 9_000, 9_800], true),
        (&["a"], &["a"], [0, 8], [10_000, 10_000, 1_000, 8_200], true),
        // What it takes to get over the line, and to stay on it.
        (&["a:b"], &["a"], [3, 1], [5_000, 10_000, 6_666, 6_833], false),
        (&["a:b"], &["a"], [2, 0], [5_000, 10_000, 7_500, 7_000], true),
        (&["a:b"], &["a"], [8, 3], [5_000, 10_000, 6_923, 6_884], false),
        (&["a", "tool:rust"], &["a"], [8, 0], [10_000, 0, 9_000, 6_800], false),
    ];
    for (required, offered, [successes, failures], [domain, tool, success, total], fits) in cases {
        let (policy, need, candidates) = (RescuePolicy::default(), need(required), [candidate("helper", offered)]);
        let mut records = TrackRecords::default();
        for (outcome, count) in [(Verified::Success, *successes), (Verified::Failure, *failures)] {
            (0..count).for_each(|_| records.record(&candidates[0].session, &need, outcome, NOW));
        }
        let matcher = Matcher::new(&policy, NOW).with_records(&records);
        let score = matcher.assess(&need, &candidates[0]).score;
        let parts = [score.domain, score.tool, score.success, score.total].map(BasisPoints::get);
        assert_eq!(parts, [*domain, *tool, *success, *total], "{offered:?} for {required:?}: {score}");
        assert_eq!(helpers(&matcher, &need, &candidates).len(), usize::from(*fits), "{offered:?} for {required:?}");
    }
}

#[test]
fn other_weights_and_another_threshold_give_other_helpers() {
    let mut policy = RescuePolicy::default();
    let (need, generalist) = (need(&["a:b"]), [candidate("generalist", &["a"])]);
    assert!(helpers(&Matcher::new(&policy, NOW), &need, &generalist).is_empty(), "65 %");
    policy.min_capability_match = BasisPoints::from_percent(65);
    assert_eq!(helpers(&Matcher::new(&policy, NOW), &need, &generalist), ["generalist"]);
    policy.min_capability_match = BasisPoints::from_percent(70);
    let [half, none] = [BasisPoints::from_percent(40), BasisPoints::ZERO];
    policy.expertise_scoring = Weights::new(half, half.rest(), none).expect("a sum of 1");
    assert_eq!(helpers(&Matcher::new(&policy, NOW), &need, &generalist), ["generalist"], "80 %");
    policy.max_rescuers_per_blocker = 0;
    assert!(helpers(&Matcher::new(&policy, NOW), &need, &generalist).is_empty(), "nobody is wanted");
}

#[test]
fn whoever_cannot_help_is_excluded_whatever_the_score() {
    let (cent, dollar) = (NanoUsd::from_cents(1), NanoUsd::from_dollars(1));
    let able = || candidate("helper", &["a"]);
    let legal = need(&["a"]).with_mandatory(set(&["legal"]));
    for (need, candidate, excluded) in [
        (need(&["a"]), able(), None),
        (need(&["a"]), candidate("blocked", &["a"]), Some(Excluded::Itself)),
        (need(&["a"]), able().with_lost(true), Some(Excluded::Lost)),
        (need(&["a"]), able().with_halted(true), Some(Excluded::Halted)),
        (need(&["a"]), able().with_halted(true).with_lost(true), Some(Excluded::Lost)),
        (need(&["a"]), able().with_cost(dollar).with_headroom(dollar), None),
        (need(&["a"]), able().with_cost(dollar).with_headroom(cent), Some(Excluded::NoHeadroom)),
        (need(&["a"]), able().with_headroom(NanoUsd::ZERO), None),
        (need(&["a"]), able().with_state(SessionState::Working), Some(Excluded::Busy)),
        (need(&["a"]).with_preemption(true), able().with_state(SessionState::Working), None),
        (need(&["a"]).with_preemption(true), able().with_lost(true), Some(Excluded::Lost)),
        (need(&["a"]), able().with_state(SessionState::WaitingOn), None),
        (need(&["a"]), able().with_state(SessionState::Blocked), None),
        (legal.clone(), able(), Some(Excluded::MandatoryMissing)),
        (legal.clone(), candidate("helper", &["a", "legal:contracts"]), None),
        (legal, candidate("helper", &["a", "legality"]), Some(Excluded::MandatoryMissing)),
    ] {
        let (policy, candidates) = (RescuePolicy::default(), [candidate]);
        let choice = Matcher::new(&policy, NOW).choose(&need, &candidates);
        match excluded {
            None => assert_eq!(choice.helpers.len(), 1, "{candidates:?}"),
            Some(_) => {
                let (assessment, passed) = &choice.others[0];
                assert_eq!(assessment.excluded, excluded, "{candidates:?}");
                assert_eq!(Some(*passed), excluded.map(Passed::Excluded), "{candidates:?}");
            }
        }
    }
}

#[test]
fn ties_are_broken_by_bond_then_load_then_cost_then_name() {
    let (cent, dollar) = (NanoUsd::from_cents(1), NanoUsd::from_dollars(1));
    let mut bonds = Bonds::default();
    for (nth, bond) in Bond::ALL.into_iter().enumerate() {
        bonds.declare(id("blocked"), id(&format!("bond-{nth}")), bond);
    }
    let able = |session: &str| candidate(session, &["a"]);
    // From the best to the worst; each is worse than the one before it for another reason.
    let ranked = [
        candidate("z-best", &["a", "b"]).with_load(9).with_cost(dollar),
        able("bond-0/z").with_load(9).with_cost(dollar),
        able("bond-1/z").with_load(8).with_cost(dollar),
        able("bond-2/z").with_load(7),
        able("bond-3/z").with_load(6),
        able("bond-4/z").with_load(5),
        able("c").with_load(3).with_cost(dollar),
        able("d").with_load(4),
        able("b").with_load(4).with_cost(cent),
        able("x").with_load(4).with_cost(cent),
    ];
    let need = need(&["a", "b", "a:x", "a:y"]);
    let mut policy = RescuePolicy::default();
    (policy.max_rescuers_per_blocker, policy.min_capability_match) = (10, BasisPoints::ZERO);
    let matcher = Matcher::new(&policy, NOW).with_bonds(&bonds);
    let names: Vec<String> = ranked.iter().map(|candidate| candidate.session.to_string()).collect();
    let mut shuffled = ranked.to_vec();
    for _ in 0..ranked.len() {
        shuffled.rotate_left(3);
        assert_eq!(helpers(&matcher, &need, &shuffled), names);
        shuffled.swap(1, 7);
    }
    policy.max_rescuers_per_blocker = 2;
    assert_eq!(helpers(&Matcher::new(&policy, NOW).with_bonds(&bonds), &need, &shuffled), names[..2]);
}

#[test]
fn those_who_work_come_after_all_who_are_free() {
    let free = [candidate("free-1", &["a"]), candidate("free-2", &[])];
    let works = candidate("works", &["a", "b"]).with_state(SessionState::Working);
    let need = need(&["a", "b", "a:c"]).with_preemption(true);
    let mut policy = RescuePolicy::default();
    policy.min_capability_match = BasisPoints::from_percent(60);
    let all = [works, free[0].clone(), free[1].clone()];
    assert_eq!(helpers(&Matcher::new(&policy, NOW), &need, &all), ["free-1", "works"]);
    policy.max_rescuers_per_blocker = 1;
    assert_eq!(helpers(&Matcher::new(&policy, NOW), &need, &all), ["free-1"], "nobody is taken away without need");
}

#[test]
fn a_session_that_is_listed_twice_helps_once_as_what_is_better() {
    let twice = [
        candidate("a", &["x"]).with_load(5),
        candidate("b", &["x"]).with_load(3),
        candidate("a", &["x"]).with_load(1),
        candidate("a", &["x"]).with_load(2),
        candidate("c", &["x"]).with_load(4),
    ];
    let policy = RescuePolicy::default();
    let matcher = Matcher::new(&policy, NOW);
    let need = need(&["x"]);
    assert_eq!(helpers(&matcher, &need, &twice), ["a", "b"]);
    assert_eq!(matcher.choose(&need, &twice).helpers[0].candidate.load, 1);
}

#[test]
fn an_old_failure_is_forgiven_and_a_half_life_says_how_soon() {
    let (policy, need, session) = (RescuePolicy::default(), need(&["a"]), id("helper"));
    let mut records = TrackRecords::default();
    records.record(&session, &need, Verified::Failure, NOW);
    let candidate = Candidate::new(session, set(&["a"]));
    let week = NOW + Duration::from_secs(7 * 86_400);
    let success = |matcher: Matcher<'_>| matcher.with_records(&records).assess(&need, &candidate).score.success.get();
    assert_eq!(success(Matcher::new(&policy, NOW)), 3_333);
    assert_eq!(success(Matcher::new(&policy, week)), 4_000);
    assert_eq!(success(Matcher::new(&policy, week).with_half_life(1)), 4_980);
    assert_eq!(success(Matcher::new(&policy, week).with_half_life(3_650)), 3_334);
    records.forget(UtcDay::of(week));
    assert_eq!(records, TrackRecords::default());
}

/// The sessions that could help SIP, and of how much use each was.
fn seeds() -> [(Candidate, BasisPoints); 5] {
    let cost = NanoUsd::from_cents(40);
    [
        ("ndi", &["integration:ndi", "integration:sip", "telephony:protocols", "tool:rust"][..], 100),
        ("webrtc", &["integration:webrtc", "integration:sip", "telephony:protocols", "tool:rust"], 100),
        ("h323", &["integration:h323", "telephony:legacy"], 10),
        ("cli", &["cli:tooling", "tool:python"], 5),
        ("talent", &["talent:matching"], 0),
    ]
    .map(|(name, offered, useful)| (candidate(name, offered).with_cost(cost), BasisPoints::from_percent(useful)))
}

#[test]
fn the_right_two_help_sip_and_nothing_is_wasted() {
    let (policy, sessions) = (RescuePolicy::default(), seeds());
    let mut candidates: Vec<Candidate> = sessions.iter().map(|(candidate, _)| candidate.clone()).collect();
    let offered = &["integration:sip", "telephony:protocols", "tool:rust"];
    candidates.push(candidate("sip", offered).with_state(SessionState::Blocked));
    let need = Need::new(id("sip"), &set(&["integration:sip", "telephony:protocols"]));
    let choice = Matcher::new(&policy, NOW).choose(&need, &candidates);
    let picked: Vec<&str> = choice.helpers.iter().map(|helper| helper.candidate.session.as_str()).collect();
    assert_eq!(picked, ["ndi", "webrtc"]);
    let passed: Vec<_> = choice.others.iter().map(|(other, why)| (other.candidate.session.as_str(), *why)).collect();
    let below = Passed::BelowThreshold;
    let expected = [("h323", below), ("cli", below), ("talent", below), ("sip", Passed::Excluded(Excluded::Itself))];
    assert_eq!(passed, expected);

    let waste = |names: &[&str]| {
        let helped = sessions.iter().filter(|(candidate, _)| names.contains(&candidate.session.as_str()));
        helped.map(|(candidate, useful)| Help::new(candidate.cost, *useful)).collect::<Waste>().share()
    };
    assert_eq!(waste(&picked), BasisPoints::ZERO);
    assert_eq!(waste(&["ndi", "webrtc", "h323", "cli", "talent"]), BasisPoints::from_percent(57));
}
