//! The fleet on Redis keeps every promise that the fleet in memory keeps: the same cases, unchanged.

use std::sync::Arc;

use s2_coordinator::conformance::run;
use s2_tests::counts;
use s2_tests::redis::Redis;

async fn the_suite_passes(rounds: u32) {
    for round in 1..=rounds {
        let report = run(Arc::new(Redis::volatile())).await;
        println!("round {round}: {report}");
        assert!(report.failed.is_empty(), "{report}");
        assert!(report.left_out.is_empty(), "Redis promises everything: {report}");
        assert!(report.passed.len() >= 288, "cases are missing: {report}");
    }
}

#[tokio::test]
async fn on_one_thread() {
    the_suite_passes(counts(1, 20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_many_threads() {
    the_suite_passes(counts(1, 20)).await;
}
