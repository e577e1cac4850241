//! The store is away, or has lost what it held.

use crate::{LONG, MODELS, TICK};
use s2_coordinator::{Journal, RedisStore};
use s2_governor::{BreakerSettings, BreakerState, CircuitBreaker, RedisBoard, WhyOpen};
use s2_tests::redis::unique_name;
use s2_tests::servers::RedisServer;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

async fn breaker(server: &RedisServer, open: Duration) -> (RedisStore, CircuitBreaker) {
    let store = RedisStore::connect(&server.url(), unique_name()).await.expect("a fleet");
    let mut settings = BreakerSettings::default();
    (settings.open, settings.probes) = (open, 1);
    let breaker = CircuitBreaker::new(Arc::new(RedisBoard::new(&store)), MODELS, settings).expect("a breaker");
    (store, breaker)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_a_process_goes_by_what_it_knows_and_probes_wait() {
    let server = RedisServer::start();
    let (store, breaker) = breaker(&server, Duration::from_millis(200)).await;
    breaker.acquire().await.expect("closed").success();
    server.stop();
    let begun = Instant::now();
    for _ in 0..9 {
        breaker.acquire().await.expect("closed").failure("status 500");
    }
    assert_eq!(breaker.acquire().await.expect_err("it has opened by itself").reason, WhyOpen::Tripped);
    assert!(begun.elapsed() < Duration::from_secs(2), "no call has waited for the store: {:?}", begun.elapsed());
    let refused = loop {
        match breaker.acquire().await {
            Err(refused) if refused.reason == WhyOpen::Tripped => sleep(TICK).await,
            other => break other.expect_err("nobody counts probes"),
        }
    };
    assert_eq!(refused.reason, WhyOpen::StoreAway);
    assert!(refused.until.is_some());
    server.resume();
    let probe = loop {
        match breaker.acquire().await {
            Ok(probe) => break probe,
            Err(refused) => assert!(begun.elapsed() < LONG, "{refused}"),
        }
        sleep(TICK).await;
    };
    assert!(probe.is_probe());
    probe.success();
    breaker.flush().await.expect("a store");
    let entries = store.journal().entries(s2_coordinator::Position::ORIGIN, 500).await.expect("entries").items;
    let told: Vec<_> = entries.iter().map(|entry| entry.operation.as_str()).filter(|told| *told != "failure").collect();
    assert_eq!(told, ["open", "half_open", "close"], "what happened meanwhile is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_has_forgotten_everything_closes_nothing() {
    let server = RedisServer::start_volatile();
    let (_store, breaker) = breaker(&server, Duration::from_secs(1)).await;
    for _ in 0..10 {
        breaker.acquire().await.expect("closed").failure("status 500");
    }
    breaker.flush().await.expect("a store");
    let before = breaker.verdict();
    assert!(matches!(before.state, BreakerState::Open { .. }));
    assert_eq!(server.command(&["FLUSHALL"]), "OK");
    assert_eq!(breaker.refresh().await.expect("a store"), before);
    let begun = Instant::now();
    let probe = loop {
        match breaker.acquire().await {
            Ok(probe) => break probe,
            Err(refused) => assert!(refused.reason == WhyOpen::Tripped && begun.elapsed() < LONG, "{refused}"),
        }
        sleep(TICK).await;
    };
    assert!(probe.is_probe() && begun.elapsed() > Duration::from_millis(500));
    probe.success();
    breaker.flush().await.expect("a store");
    assert_eq!(breaker.refresh().await.expect("a store").state, BreakerState::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_go_well_ask_the_store_nothing() {
    let server = RedisServer::start_volatile();
    let (_store, breaker) = breaker(&server, Duration::from_secs(1)).await;
    breaker.acquire().await.expect("closed").success();
    let commands = || server.info("total_commands_processed").parse::<u64>().expect("a number");
    let before = commands();
    for _ in 0..10_000 {
        breaker.acquire().await.expect("closed").success();
    }
    // But for signs of life, and what asks for this number.
    assert!(commands() - before < 20, "{} commands", commands() - before);
}
