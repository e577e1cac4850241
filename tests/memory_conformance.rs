//! The fleet in memory keeps every promise, on one thread and under races on many.

use std::sync::Arc;

use s2_coordinator::conformance::run;
use s2_tests::Memory;

async fn the_suite_passes() {
    let report = run(Arc::new(Memory)).await;
    println!("{report}");
    assert!(report.failed.is_empty(), "{report}");
    assert!(report.left_out.is_empty(), "memory promises everything: {report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_many_threads() {
    the_suite_passes().await;
}

#[tokio::test]
async fn on_one_thread() {
    the_suite_passes().await;
}
