//! Fleets made up at random: how much sooner a blocker is resolved by help that fits, and how much of its price is wasted.
//!
//! Who is asked, and who after that, comes out of real rescues. How long help takes does not: whoever knows all that is needed
//! solves the blocker in a time of its own, anybody else finds after that time that it cannot.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use s2_coordinator::{Capabilities, MemoryStore, Random};
use s2_core::{S2, TaskError};
use s2_governor::{BasisPoints, Help, NanoUsd, Waste};
use s2_tests::chaos::below;
use s2_tests::counts;

use crate::kit::{answers, blocked, chosen, helper, invite, settings};

/// How many help at once: the seeds' rule.
const HELPERS: usize = 2;

const NEEDED: &[&str] = &["field:topic-0", "field:topic-1", "tool:tool-0"];

#[derive(Clone, Debug)]
struct Member {
    name: &'static str,
    knows: Vec<String>,
    /// In minutes.
    takes: u64,
}

impl Member {
    fn solves(&self) -> bool {
        Capabilities::new(&self.knows).expect("capabilities").satisfy(&Capabilities::new(NEEDED).expect("capabilities"))
    }
}

/// Names that live as long as the program; there are few.
const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

/// Six to twelve sessions, each with a few of eight topics and three tools; one at least can help.
fn fleet(random: &mut Random) -> Vec<Member> {
    let size = 6 + usize::try_from(below(random, 7)).expect("small");
    let mut members: Vec<Member> = NAMES[..size]
        .iter()
        .map(|name| {
            let topics = 1 + below(random, 4);
            let mut knows: Vec<String> = (0..topics).map(|_| format!("field:topic-{}", below(random, 8))).collect();
            knows.push(format!("tool:tool-{}", below(random, 3)));
            Member { name, knows, takes: 1 + below(random, 10) }
        })
        .collect();
    let expert = usize::try_from(below(random, size as u64)).expect("small");
    members[expert].knows.extend(NEEDED.iter().map(|path| (*path).to_owned()));
    members
}

/// When the blocker is resolved if these are asked in this order, so many at a time, and what that wastes.
fn resolve(order: &[&Member]) -> (u64, Vec<Help>) {
    let (mut helps, mut next) = (Vec::new(), order.iter());
    let mut working = BinaryHeap::new();
    let mut ask = |working: &mut BinaryHeap<_>, now: u64| {
        if let Some(member) = next.next() {
            let useful = if member.solves() { BasisPoints::FULL } else { BasisPoints::ZERO };
            helps.push(Help::new(NanoUsd::from_cents(10), useful));
            working.push(Reverse((now + member.takes, member.solves())));
        }
    };
    (0..HELPERS).for_each(|_| ask(&mut working, 0));
    while let Some(Reverse((now, solved))) = working.pop() {
        if solved {
            return (now, helps);
        }
        ask(&mut working, now);
    }
    panic!("nobody solved it");
}

/// Whom a real fleet asks, in order: until somebody helps, everybody who cannot says so.
async fn asked(members: &[Member]) -> Vec<String> {
    let s2 = S2::builder().with_settings(settings(|_| {})).on_memory(&MemoryStore::new()).await.expect("a fleet");
    for member in members {
        let (skills, solves) = (member.knows.clone(), member.solves());
        let skills: Vec<&str> = skills.iter().map(String::as_str).collect();
        helper(&s2, member.name, &skills, move |asked| async move {
            if solves { Ok(asked.helper.to_string()) } else { Err(TaskError::fatal("I do not know")) }
        })
        .await;
    }
    blocked(&s2, "sip", NEEDED).await;
    let task = invite(&s2, "sip").await;
    assert_eq!(answers(&s2, task).await.len(), 1);
    let asked = chosen(&s2).await;
    s2.shutdown(std::time::Duration::from_secs(1)).await;
    asked
}

fn shuffled<'a>(members: &'a [Member], random: &mut Random) -> Vec<&'a Member> {
    let mut left: Vec<&Member> = members.iter().collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        order.push(left.swap_remove(usize::try_from(below(random, left.len() as u64)).expect("small")));
    }
    order
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn matched_help_is_sooner_and_wastes_next_to_nothing() {
    let fleets = counts(100, 1_000);
    let (mut matched, mut random) = ((0, Waste::default()), (0, Waste::default()));
    let mut all = Waste::default();
    for seed in 0..fleets {
        let mut numbers = Random::from_seed(seed.into());
        let members: Arc<[Member]> = fleet(&mut numbers).into();
        let by_name: HashMap<&str, &Member> = members.iter().map(|member| (member.name, member)).collect();
        let order: Vec<&Member> = asked(&members).await.iter().map(|name| by_name[name.as_str()]).collect();
        let (time, helps) = resolve(&order);
        matched.0 += time;
        matched.1.extend(helps);
        let (time, helps) = resolve(&shuffled(&members, &mut numbers));
        random.0 += time;
        random.1.extend(helps);
        let useful = |member: &Member| if member.solves() { BasisPoints::FULL } else { BasisPoints::ZERO };
        all.extend(members.iter().map(|member| Help::new(NanoUsd::from_cents(10), useful(member))));
    }
    println!(
        "{fleets} fleets: resolved after {} minutes in all, {} with random help; wasted {}, {} with random help, {} if all help",
        matched.0,
        random.0,
        matched.1.share(),
        random.1.share(),
        all.share()
    );
    assert!(matched.0 * 100 <= random.0 * 75, "a quarter sooner at least: {} and {}", matched.0, random.0);
    assert!(matched.1.share() < BasisPoints::from_percent(5), "{}", matched.1.share());
    assert!(random.1.share() > BasisPoints::from_percent(50), "{}", random.1.share());
}
