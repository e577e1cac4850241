//! Fleets made up at random: how much of what help costs is wasted.
//!
//! Whether help was of use is decided by what a session really knows. The matcher sees what the session says about itself.

use s2_coordinator::Capabilities;
use s2_governor::{BasisPoints, Candidate, Help, Matcher, NanoUsd, Need, RescuePolicy, Waste};

use crate::{NOW, id};

const FLEETS: u64 = 1_000;
const FIELDS: u64 = 8;
const TOPICS: u64 = 6;
const TOOLS: u64 = 6;

/// Pseudo-random numbers, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    fn topics(&mut self, field: u64, count: u64) -> Vec<String> {
        (0..count).map(|_| format!("field-{field}:topic-{}", self.below(TOPICS))).collect()
    }

    fn tools(&mut self, count: u64) -> Vec<String> {
        (0..count).map(|_| format!("tool:tool-{}", self.below(TOOLS))).collect()
    }
}

struct Session {
    /// What it really knows.
    knows: Capabilities,
    /// What it says.
    candidate: Candidate,
}

/// A specialist of one field, with a smattering of another. Of what it knows, it says the wrong thing in so many of a hundred
/// cases.
fn session(numbers: &mut Numbers, nth: u64, false_percent: u64) -> Session {
    let (field, other) = (numbers.below(FIELDS), numbers.below(FIELDS));
    let (topics, few, tools) = (numbers.between(2, 5), numbers.below(3), numbers.between(1, 3));
    let knows = [numbers.topics(field, topics), numbers.topics(other, few), numbers.tools(tools)].concat();
    let says: Vec<String> = knows
        .iter()
        .map(|path| match numbers.below(100) < false_percent {
            true if path.starts_with("tool") => numbers.tools(1).remove(0),
            true => numbers.topics(field, 1).remove(0),
            false => path.clone(),
        })
        .collect();
    let offered = Capabilities::new(says).expect("capabilities");
    let cost = NanoUsd::from_cents(numbers.between(5, 100));
    let candidate = Candidate::new(id(&format!("fleet/session-{nth}")), offered);
    let load = usize::try_from(numbers.below(4)).expect("small");
    Session {
        knows: Capabilities::new(knows).expect("capabilities"),
        candidate: candidate.with_cost(cost).with_load(load),
    }
}

/// What each blocker of a fleet was helped with: everybody, anybody, or those who match.
#[derive(Default)]
struct Wasted {
    all: Waste,
    random: Waste,
    matched: Waste,
    helped: u64,
    solvable: u64,
}

/// How useful a session is: 1 if it knows everything that is needed, else 0.
fn solves(session: &Session, required: &Capabilities) -> BasisPoints {
    if session.knows.satisfy(required) { BasisPoints::FULL } else { BasisPoints::ZERO }
}

fn rescue(numbers: &mut Numbers, sessions: &[Session], wasted: &mut Wasted) {
    let (field, topics, tools) = (numbers.below(FIELDS), numbers.between(1, 3), numbers.below(2));
    let required = [numbers.topics(field, topics), numbers.tools(tools)].concat();
    let required = Capabilities::new(required).expect("capabilities");
    let help = |session: &Session| Help::new(session.candidate.cost, solves(session, &required));
    if sessions.iter().all(|session| solves(session, &required) == BasisPoints::ZERO) {
        return;
    }
    let policy = RescuePolicy::default();
    let need = Need::new(id("blocked"), &required);
    let candidates: Vec<Candidate> = sessions.iter().map(|session| session.candidate.clone()).collect();
    let choice = Matcher::new(&policy, NOW).choose(&need, &candidates);
    for helper in &choice.helpers {
        let session = sessions.iter().find(|session| session.candidate.session == helper.candidate.session);
        wasted.matched.add(help(session.expect("a helper is one of them")));
    }
    for _ in 0..choice.helpers.len() {
        let any = usize::try_from(numbers.below(sessions.len() as u64)).expect("small");
        wasted.random.add(help(&sessions[any]));
    }
    wasted.all.extend(sessions.iter().map(help));
    wasted.solvable += 1;
    wasted.helped += u64::from(!choice.helpers.is_empty());
}

fn fleets(false_percent: u64) -> Wasted {
    let mut wasted = Wasted::default();
    for seed in 0..FLEETS {
        let mut numbers = Numbers(seed);
        let size = numbers.between(10, 60);
        let sessions: Vec<Session> = (0..size).map(|nth| session(&mut numbers, nth, false_percent)).collect();
        (0..5).for_each(|_| rescue(&mut numbers, &sessions, &mut wasted));
    }
    let Wasted { all, random, matched, helped, solvable } = &wasted;
    println!(
        "{false_percent} % false skills: waste {} matched, {} random, {} all; {helped} of {solvable} blockers that somebody \
         could solve were helped",
        matched.share(),
        random.share(),
        all.share()
    );
    wasted
}

#[test]
fn matched_help_wastes_less_than_a_twentieth_where_sessions_tell_the_truth() {
    let wasted = fleets(0);
    assert!(wasted.solvable > 1_000, "{}", wasted.solvable);
    assert_eq!(wasted.helped, wasted.solvable, "who knows everything is always found");
    assert!(wasted.matched.share() < BasisPoints::from_percent(5), "{}", wasted.matched.share());
    assert!(wasted.random.share() > BasisPoints::from_percent(50), "{}", wasted.random.share());
}

#[test]
fn false_skills_are_reported_only() {
    let wasted = fleets(20);
    assert!(wasted.matched.share() < wasted.random.share());
}
