//! Random histories of a breaker: never more probes than may, never stuck, no word of what is past.

use crate::{Fleet, seconds};
use proptest::prelude::*;
use s2_governor::{BreakerSettings, BreakerState, CallOutcome, CircuitBreaker, ForcedTo, Permit, Verdict, Window};
use s2_tests::counts;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Act {
    Acquire(usize),
    Settle(usize, CallOutcome),
    /// The process dies with it, as far as the permit is concerned.
    Vanish(usize),
    Force(usize, Option<ForcedTo>),
    Advance(u64),
}

fn outcome() -> impl Strategy<Value = CallOutcome> {
    prop_oneof![
        3 => Just(CallOutcome::Success),
        5 => Just(CallOutcome::Failure("no".into())),
        1 => (0_u64..5_000).prop_map(|ms| CallOutcome::Throttled(Some(Duration::from_millis(ms)))),
        2 => Just(CallOutcome::Ignored),
    ]
}

/// Mostly nothing: while something is forced, nothing else happens.
fn forced() -> impl Strategy<Value = Option<ForcedTo>> {
    prop_oneof![12 => Just(None), 1 => Just(Some(ForcedTo::Open)), 1 => Just(Some(ForcedTo::Closed))]
}

fn act() -> impl Strategy<Value = Act> {
    let nth = || 0_usize..16;
    prop_oneof![
        12 => nth().prop_map(Act::Acquire),
        8 => (nth(), outcome()).prop_map(|(nth, outcome)| Act::Settle(nth, outcome)),
        1 => nth().prop_map(Act::Vanish),
        1 => (nth(), forced())
            .prop_map(|(nth, to)| Act::Force(nth, to)),
        3 => (0_u64..3_000).prop_map(Act::Advance),
    ]
}

fn settings() -> BreakerSettings {
    let mut settings = BreakerSettings::default();
    settings.window = Window::Calls(6);
    settings.minimum_calls = 3;
    settings.probes = 3;
    settings.slow_call = seconds(5);
    (settings.open, settings.longest_open) = (seconds(2), seconds(8));
    settings.probe_timeout = seconds(10);
    (settings.cool_down, settings.longest_cool_down) = (seconds(1), seconds(4));
    settings
}

/// Which probes there are by the book: granted, neither settled nor over.
#[derive(Default)]
struct Book {
    permits: Vec<(Permit, u64)>,
    vanished: Vec<u64>,
}

const TIMEOUT_MS: u64 = 10_000;

impl Book {
    fn take(&mut self, nth: usize) -> Option<(Permit, u64)> {
        (!self.permits.is_empty()).then(|| self.permits.swap_remove(nth % self.permits.len()))
    }

    fn probes(&self, now: u64) -> usize {
        let held = self.permits.iter().filter(|(permit, _)| permit.is_probe()).map(|(_, at)| at);
        held.chain(&self.vanished).filter(|at| **at + TIMEOUT_MS > now).count()
    }
}

/// What a result may change: nothing, if the call began before the last change of state.
fn said_nothing(before: &Verdict, after: &Verdict) -> bool {
    (before.generation, &before.state, before.trips) == (after.generation, &after.state, after.trips)
}

async fn run(acts: Vec<Act>) -> Result<(), TestCaseError> {
    let fleet = Fleet::in_memory();
    let breakers = fleet.breakers(&settings());
    let (mut book, mut now) = (Book::default(), 0_u64);
    // In which generation each call began.
    let mut began = Vec::<u64>::new();
    let agree = async |breaker: &CircuitBreaker| {
        breaker.flush().await.expect("memory");
        for breaker in &breakers {
            breaker.refresh().await.expect("memory");
        }
        breakers[0].verdict()
    };
    for act in acts {
        let (before, mut stale) = (breakers[0].verdict(), false);
        let mut settle = |book: &mut Book, began: &mut Vec<u64>, nth: usize| {
            let place = nth % began.len().max(1);
            let (permit, at) = book.take(nth)?;
            let generation = began.swap_remove(place);
            stale = generation != before.generation || at + TIMEOUT_MS <= now && permit.is_probe();
            Some((permit, at))
        };
        match act {
            Act::Acquire(nth) => {
                if let Ok(permit) = breakers[nth % 2].acquire().await {
                    began.push(breakers[nth % 2].verdict().generation);
                    book.permits.push((permit, now));
                }
            }
            Act::Settle(nth, outcome) => {
                if let Some((permit, _)) = settle(&mut book, &mut began, nth) {
                    permit.settle(outcome);
                }
            }
            Act::Vanish(nth) => {
                if let Some((permit, at)) = settle(&mut book, &mut began, nth) {
                    if permit.is_probe() {
                        book.vanished.push(at);
                    }
                    std::mem::forget(permit);
                }
            }
            Act::Force(nth, Some(to)) => {
                breakers[nth % 2].force(to, "ada", "because").await.expect("memory");
                // What a person says ends them all.
                (book, began) = Default::default();
            }
            Act::Force(nth, None) => {
                breakers[nth % 2].clear("ada").await.expect("memory");
                if before.forced.is_some() {
                    (book, began) = Default::default();
                }
            }
            Act::Advance(ms) => {
                now += ms;
                fleet.clock.advance(Duration::from_millis(ms));
            }
        }
        agree(&breakers[0]).await;
        let after = agree(&breakers[1]).await;
        prop_assert_eq!(&after, &breakers[1].verdict(), "they agree");
        prop_assert!(book.probes(now) <= 3, "{} probes", book.probes(now));
        prop_assert!(after.probes.len() <= 3);
        // A stale result can at most have others found out that are over.
        let expires = before.probes.iter().any(|probe| probe.until <= fleet.boards[0].clock().now());
        if stale && !expires {
            prop_assert!(said_nothing(&before, &after), "{before:?} became {after:?}");
        }
    }
    // Whatever has happened, a provider that does well is asked again soon.
    breakers[0].clear("ada").await.expect("memory");
    std::mem::forget(book.permits);
    for _ in 0..20 {
        fleet.clock.advance(seconds(10));
        agree(&breakers[0]).await;
        if let Ok(permit) = breakers[0].acquire().await {
            permit.success();
        }
    }
    prop_assert_eq!(agree(&breakers[0]).await.state, BreakerState::Closed);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(counts(200, 10_000)))]

    #[test]
    fn every_history_keeps_the_rules(acts in prop::collection::vec(act(), 1..400)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(run(acts))?;
    }
}
