//! The ledgers in memory and on Redis keep every promise: the same cases, unchanged.

use std::sync::Arc;

use s2_governor::conformance::{Backend, run};
use s2_tests::redis::Redis;
use s2_tests::{Memory, counts};

async fn the_suite_passes(backend: impl Backend + Clone, rounds: u32) {
    for round in 1..=rounds {
        let report = run(Arc::new(backend.clone())).await;
        println!("round {round}: {report}");
        assert!(report.failed.is_empty(), "{report}");
        assert!(report.passed.len() >= 94, "cases are missing: {report}");
    }
}

#[tokio::test]
async fn in_memory_on_one_thread() {
    the_suite_passes(Memory, counts(2, 20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_memory_on_many_threads() {
    the_suite_passes(Memory, counts(2, 20)).await;
}

#[tokio::test]
async fn on_redis_on_one_thread() {
    the_suite_passes(Redis::volatile(), counts(1, 20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_redis_on_many_threads() {
    the_suite_passes(Redis::volatile(), counts(1, 20)).await;
}
