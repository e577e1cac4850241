//! Providers fail alone: what the processes of a fleet agree about them, on both backends, and what holds when processes die,
//! the store is away, or everybody asks at once.

mod away;
mod isolation;
mod layers;
mod model;
mod processes;
mod race;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::{Config, Entry, Journal, ManualClock, MemoryStore, RedisStore, Value};
use s2_governor::{
    Board, BreakerSettings, BreakerState, CircuitBreaker, MemoryBoard, Permit, ProviderName, RedisBoard, Verdict,
    WhyOpen,
};
use s2_tests::redis::RedisFleet;
use s2_tests::servers::RedisServer;
use s2_tests::{MemoryFleet, START};

const MODELS: ProviderName = ProviderName::from_static("models");
const LONG: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(5);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Two processes of one fleet, on a clock that a test moves.
struct Fleet {
    boards: [Arc<dyn Board>; 2],
    journal: Arc<dyn Journal>,
    clock: Arc<ManualClock>,
    _server: Option<RedisServer>,
}

impl Fleet {
    fn in_memory() -> Self {
        let MemoryFleet { store, clock } = MemoryFleet::new(Config::default());
        let board = |store: &MemoryStore| Arc::new(MemoryBoard::new(store)) as Arc<dyn Board>;
        Self { boards: [board(&store), board(&store)], journal: Arc::new(store.journal()), clock, _server: None }
    }

    async fn on_redis() -> Self {
        let server = RedisServer::start_volatile();
        let RedisFleet { store, clock, name } = RedisFleet::new(&server, Config::default()).await;
        let other = RedisStore::builder(name).with_clock(Arc::clone(&clock)).connect(&server.url()).await;
        let board = |store: &RedisStore| Arc::new(RedisBoard::new(store)) as Arc<dyn Board>;
        let boards = [board(&store), board(&other.expect("another process"))];
        Self { boards, journal: Arc::new(store.journal()), clock, _server: Some(server) }
    }

    /// One on each backend.
    async fn each() -> [Self; 2] {
        [Self::in_memory(), Self::on_redis().await]
    }

    /// The breaker of a provider in each process.
    fn breakers(&self, settings: &BreakerSettings) -> [CircuitBreaker; 2] {
        let breaker = |board: &Arc<dyn Board>| CircuitBreaker::new(Arc::clone(board), MODELS, settings.clone());
        self.boards.each_ref().map(|board| breaker(board).expect("a breaker"))
    }

    async fn entries(&self) -> Vec<Entry> {
        let start = self.journal.start().await.expect("a journal");
        let entries = self.journal.entries(start, 500).await.expect("entries").items;
        entries.into_iter().filter(|entry| &*entry.component == "provider").collect()
    }

    /// What the journal tells of, but for failures.
    async fn told(&self) -> Vec<String> {
        let entries = self.entries().await;
        let told = entries.iter().filter(|entry| &*entry.operation != "failure");
        told.map(|entry| format!("{} {}", entry.operation, entry.subject)).collect()
    }
}

/// A parameter that is a number.
fn number(entry: &Entry, name: &str) -> i64 {
    match entry.params.get(name) {
        Some(Value::Int(number)) => *number,
        other => panic!("{name} of {entry:?} is {other:?}"),
    }
}

async fn permit(breaker: &CircuitBreaker) -> Permit {
    breaker.acquire().await.expect("a permit")
}

/// So many calls that fail.
async fn fail(breaker: &CircuitBreaker, times: u32) {
    for _ in 0..times {
        permit(breaker).await.failure("status 500");
    }
    breaker.flush().await.expect("a store");
}

/// Why the breaker refuses, and until when, in seconds since the start.
async fn refusal(breaker: &CircuitBreaker) -> (WhyOpen, Option<u64>) {
    let refused = breaker.acquire().await.expect_err("open");
    (refused.reason, refused.until.map(|until| until.since(START).as_secs()))
}

async fn refreshed(breaker: &CircuitBreaker) -> Verdict {
    breaker.flush().await.expect("a store");
    breaker.refresh().await.expect("a store")
}

fn is_half_open(verdict: &Verdict) -> bool {
    matches!(verdict.state, BreakerState::HalfOpen(_))
}
