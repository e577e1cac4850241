//! A provider of models goes down for a while, a search engine does not. Nobody waits for the one, and nobody notices at the
//! other.
//!
//! ```sh
//! cargo run --example circuit_breaker
//! ```
//!
//! Time is moved by hand, so that minutes pass at once; who is asked, when, and what comes of it is decided by the breakers.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::{Clock, Journal, ManualClock, MemoryStore, Position, Timestamp};
use s2_governor::{
    BreakerState, CallOutcome, MemoryBoard, Provider, ProviderName, ProviderSettings, Providers, Refused, Verdict,
};

const MODELS: ProviderName = ProviderName::from_static("models");
const SEARCH: ProviderName = ProviderName::from_static("search");

const TICK: Duration = Duration::from_secs(1);
/// When models are down, in seconds since the beginning, and when they have too much to do.
const DOWN: std::ops::Range<u64> = 10..75;
const BUSY: std::ops::Range<u64> = 170..180;
const END: u64 = 220;

/// What a provider answers, so many seconds after the beginning.
fn answer(provider: &ProviderName, second: u64) -> CallOutcome {
    match second {
        _ if *provider == SEARCH => CallOutcome::Success,
        second if DOWN.contains(&second) => CallOutcome::Failure("status 500".into()),
        second if BUSY.contains(&second) => CallOutcome::Throttled(Some(Duration::from_secs(15))),
        _ => CallOutcome::Success,
    }
}

#[derive(Debug, Default)]
struct Tally {
    successes: u32,
    failures: u32,
    throttled: u32,
    refused: u32,
}

/// What was said last of each provider, so that it is said once.
#[derive(Debug, Default)]
struct Timeline {
    said: BTreeMap<ProviderName, (u64, Option<Timestamp>)>,
}

impl Timeline {
    fn look(&mut self, provider: &Provider, second: u64, now: Timestamp) {
        let (name, verdict) = (provider.breaker().provider(), provider.breaker().verdict());
        let state = (verdict.generation, verdict.cool_down);
        if self.said.insert(name.clone(), state) != Some(state) {
            println!("{second:>4} s  {name:<7} {}", describe(&verdict, now));
        }
    }
}

/// Four sessions ask, as long as they may.
async fn ask(
    provider: &Provider,
    second: u64,
    tally: &mut Tally,
    mut look: impl FnMut(),
) -> Result<(), s2_governor::Error> {
    for _ in 0..4 {
        match provider.admit().await {
            Ok(admission) => {
                look();
                let outcome = answer(provider.breaker().provider(), second);
                match outcome {
                    CallOutcome::Failure(_) => tally.failures += 1,
                    CallOutcome::Throttled(_) => tally.throttled += 1,
                    _ => tally.successes += 1,
                }
                admission.permit.settle(outcome);
            }
            Err(Refused::BreakerOpen(_)) => tally.refused += 1,
            Err(full @ Refused::BulkheadFull(_)) => return Err(full.into()),
        }
        look();
    }
    provider.breaker().flush().await
}

fn describe(verdict: &Verdict, now: Timestamp) -> String {
    let cooling = verdict.cool_down.filter(|until| *until > now);
    match (&verdict.state, cooling) {
        (BreakerState::Open { until }, _) => format!("open, for {} s", until.since(now).as_secs()),
        (BreakerState::HalfOpen(found), _) => format!("half-open, {} probes are back", found.back),
        (BreakerState::Closed, Some(until)) => format!("closed, cooling down for {} s", until.since(now).as_secs()),
        (BreakerState::Closed, None) => "closed".to_owned(),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let clock = Arc::new(ManualClock::new("2025-11-12T09:00:00Z".parse()?));
    let store = MemoryStore::builder().with_clock(Arc::clone(&clock)).build()?;
    let start = clock.now();

    let providers = Providers::new(Arc::new(MemoryBoard::new(&store)));
    for name in [MODELS, SEARCH] {
        providers.isolate(name, ProviderSettings::default())?;
    }
    let unknown = providers.get("build-farm").err().ok_or("nobody has isolated it")?;
    println!("{}: {unknown}\n", unknown.code());

    let mut tallies: BTreeMap<ProviderName, Tally> = BTreeMap::new();
    let mut timeline = Timeline::default();
    for second in 0..=END {
        for provider in providers.all() {
            let name = provider.breaker().provider().clone();
            let tally = tallies.entry(name).or_default();
            let look = || timeline.look(&provider, second, clock.now());
            ask(&provider, second, tally, look).await?;
        }
        clock.advance(TICK);
    }

    println!("\nThe journal says:");
    for entry in store.journal().entries(Position::ORIGIN, 500).await?.items {
        let params = entry.params.iter().map(|(name, value)| Ok(format!("{name} {}", serde_json::to_string(value)?)));
        let params = params.collect::<Result<Vec<_>, serde_json::Error>>()?.join(", ");
        let at = entry.time.since(start).as_secs();
        println!("{at:>4} s  {}.{:<10} {}: {params}", entry.component, entry.operation, entry.subject);
    }

    println!();
    for (name, Tally { successes, failures, throttled, refused }) in &tallies {
        println!("{name}: {successes} successes, {failures} failures, {throttled} throttled, {refused} not made");
    }
    let models = &tallies[&MODELS];
    let down = DOWN.count() as u32 * 4;
    println!("Without a breaker, {down} calls would have failed instead of {}", models.failures);
    let undisturbed = tallies[&SEARCH].refused == 0 && tallies[&SEARCH].failures == 0;
    let is_back = providers.get("models")?.breaker().verdict().state == BreakerState::Closed;
    if undisturbed && is_back && models.failures < down {
        println!("The search engine was not disturbed, and models are back");
        return Ok(());
    }
    Err("the breakers did not do what they should".into())
}
