//! A process may die while it tries whether a provider is back.

use crate::{LONG, MODELS, TICK};
use s2_coordinator::{RedisStore, SwarmId};
use s2_governor::{BreakerSettings, BreakerState, CircuitBreaker, Permit, RedisBoard, WhyOpen};
use s2_tests::redis::unique_name;
use s2_tests::servers::RedisServer;
use s2_tests::workers::{Worker, is_worker};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

fn settings() -> BreakerSettings {
    let mut settings = BreakerSettings::default();
    settings.open = Duration::from_millis(100);
    settings.probes = 1;
    settings.probe_timeout = Duration::from_secs(3);
    settings
}

async fn breaker(url: &str, fleet: SwarmId) -> CircuitBreaker {
    let store = RedisStore::connect(url, fleet).await.expect("a fleet");
    CircuitBreaker::new(Arc::new(RedisBoard::new(&store)), MODELS, settings()).expect("a breaker")
}

async fn next_permit(breaker: &CircuitBreaker) -> Permit {
    let begun = Instant::now();
    loop {
        match breaker.acquire().await {
            Ok(permit) => return permit,
            Err(refused) => assert!(begun.elapsed() < LONG, "{refused}"),
        }
        sleep(TICK).await;
    }
}

/// A worker's main: gets a probe, and never says what came of it.
#[test]
#[ignore = "a worker of the tests in this file"]
fn prober() {
    if !is_worker() {
        return;
    }
    let variable = |name| std::env::var(name).expect("a variable");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let breaker = breaker(&variable("URL"), SwarmId::new(variable("FLEET")).expect("a name")).await;
        let permit = next_permit(&breaker).await;
        println!("{}", permit.is_probe());
        std::future::pending::<()>().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_whose_process_was_killed_does_not_stay_out() {
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let breaker = breaker(&server.url(), name.clone()).await;
    for _ in 0..10 {
        breaker.acquire().await.expect("closed").failure("status 500");
    }
    breaker.flush().await.expect("a store");
    let mut worker = Worker::spawn("processes::prober", &[("URL", server.url()), ("FLEET", name.to_string())]);
    assert_eq!(worker.line(LONG).as_deref(), Some("true"));
    worker.kill();
    let refused = loop {
        match breaker.acquire().await {
            // It is told of it soon.
            Err(refused) if refused.reason == WhyOpen::Tripped => sleep(TICK).await,
            other => break other.expect_err("there may be one probe only"),
        }
    };
    assert_eq!(refused.reason, WhyOpen::Probing);
    let probe = next_permit(&breaker).await;
    assert!(probe.is_probe());
    assert_eq!(breaker.verdict().trips, 2, "the other one counts as failed");
    probe.success();
    assert_eq!(breaker.verdict().state, BreakerState::Closed);
}
