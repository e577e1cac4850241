//! Many threads ask at once.

use crate::{Fleet, MODELS, TICK, fail, permit, refreshed, seconds};
use async_trait::async_trait;
use s2_coordinator::{Clock, Random, Record, Timestamp};
use s2_governor::{
    Board, BreakerSettings, BreakerState, CircuitBreaker, Error, ProviderName, Swapped, Verdict, Versioned, WhyOpen,
    Window,
};
use s2_tests::chaos::below;
use s2_tests::counts;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

const PROBES: u32 = 3;

fn settings() -> BreakerSettings {
    let mut settings = BreakerSettings::default();
    settings.window = Window::Calls(20);
    settings.probes = PROBES;
    (settings.open, settings.longest_open) = (seconds(1), seconds(4));
    // No probe is over before it is settled: the clock runs fast here.
    settings.probe_timeout = seconds(24 * 60 * 60);
    settings.slow_call = seconds(24 * 60 * 60);
    settings
}

#[derive(Debug, Default)]
struct Tally {
    out: AtomicUsize,
    most: AtomicUsize,
    probes: AtomicUsize,
    broken: AtomicBool,
}

/// A board that lets nobody through, and then everybody.
#[derive(Debug)]
struct Gate {
    board: Arc<dyn Board>,
    before: Semaphore,
    after: Semaphore,
}

#[async_trait]
impl Board for Gate {
    async fn read(&self, provider: &ProviderName) -> Result<Versioned, Error> {
        self.board.read(provider).await
    }

    async fn swap(
        &self,
        provider: &ProviderName,
        expected: u64,
        verdict: &Verdict,
        record: Option<Record>,
    ) -> Result<Swapped, Error> {
        drop(self.before.acquire().await);
        let swapped = self.board.swap(provider, expected, verdict, record).await;
        drop(self.after.acquire().await);
        swapped
    }

    async fn note(&self, provider: &ProviderName, record: Record, every: Duration) -> Result<Option<Timestamp>, Error> {
        self.board.note(provider, record, every).await
    }

    fn changes(&self, provider: &ProviderName) -> Result<watch::Receiver<u64>, Error> {
        self.board.changes(provider)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.board.clock()
    }
}

#[tokio::test]
async fn whoever_gives_up_asking_for_a_probe_leaves_none_behind() {
    for granted in [false, true] {
        let fleet = Fleet::in_memory();
        let [one, _] = fleet.breakers(&settings());
        fail(&one, 10).await;
        fleet.clock.advance(seconds(1));
        let (before, after) = (Semaphore::new(usize::from(granted)), Semaphore::new(0));
        let gate = Arc::new(Gate { board: Arc::clone(&fleet.boards[1]), before, after });
        let other = CircuitBreaker::new(Arc::<Gate>::clone(&gate), MODELS, settings()).expect("a breaker");
        {
            let mut asking = pin!(other.acquire());
            for _ in 0..10 {
                assert!(poll_fn(|cx| Poll::Ready(asking.as_mut().poll(cx).is_pending())).await);
            }
        }
        assert_eq!(refreshed(&one).await.probes.len(), usize::from(granted), "it does not know of it yet");
        gate.before.close();
        gate.after.close();
        other.flush().await.expect("a store");
        assert_eq!(refreshed(&one).await.probes.len(), 0);
        assert!(permit(&other).await.is_probe());
    }
}

/// Asks so many times; a broken provider fails every call.
async fn ask(breaker: CircuitBreaker, tally: Arc<Tally>, mut random: Random, times: u32) {
    let mut asked = 0;
    while asked < times {
        match breaker.acquire().await {
            Ok(permit) => {
                asked += 1;
                let is_probe = permit.is_probe();
                if is_probe {
                    let out = tally.out.fetch_add(1, Ordering::SeqCst) + 1;
                    tally.most.fetch_max(out, Ordering::SeqCst);
                    tally.probes.fetch_add(1, Ordering::SeqCst);
                }
                for _ in 0..below(&mut random, 4) {
                    tokio::task::yield_now().await;
                }
                if is_probe {
                    tally.out.fetch_sub(1, Ordering::SeqCst);
                }
                match below(&mut random, 10) {
                    0 => drop(permit),
                    _ if tally.broken.load(Ordering::SeqCst) => permit.failure("status 500"),
                    _ => permit.success(),
                }
            }
            Err(refused) => {
                assert_ne!(refused.reason, WhyOpen::StoreAway);
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn race(fleet: &Fleet, times: u32) {
    let (breakers, tally) = (fleet.breakers(&settings()), Arc::new(Tally::default()));
    tally.broken.store(true, Ordering::SeqCst);
    let asking: Vec<_> = (0..16)
        .map(|nth| {
            let breaker = breakers[nth % 2].clone();
            tokio::spawn(ask(breaker, Arc::clone(&tally), Random::from_seed(nth as u64), times))
        })
        .collect();
    let mut round = 0_u32;
    while asking.iter().any(|asking| !asking.is_finished()) {
        fleet.clock.advance(seconds(1));
        round += 1;
        tally.broken.store(!round.is_multiple_of(5), Ordering::SeqCst);
        tokio::time::sleep(TICK).await;
    }
    for asking in asking {
        asking.await.expect("no panic");
    }
    assert!(tally.most.load(Ordering::SeqCst) <= PROBES as usize, "{tally:?}");
    assert!(tally.probes.load(Ordering::SeqCst) > 0, "{tally:?}");
    // All is over, so nothing is stuck: a few calls that go well close it.
    for _ in 0..2 * PROBES {
        fleet.clock.advance(seconds(4));
        for breaker in &breakers {
            breaker.flush().await.expect("a store");
            breaker.refresh().await.expect("a store");
        }
        breakers[0].acquire().await.expect("a permit").success();
    }
    breakers[0].flush().await.expect("a store");
    let verdict = breakers[1].refresh().await.expect("a store");
    assert_eq!((&verdict.state, verdict.probes.len()), (&BreakerState::Closed, 0), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn never_more_probes_than_may_however_many_ask() {
    race(&Fleet::in_memory(), counts(1_000, 20_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn never_more_probes_than_may_over_two_processes() {
    race(&Fleet::on_redis().await, counts(300, 5_000)).await;
}
