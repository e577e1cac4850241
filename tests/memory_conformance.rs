//! The fleet in memory keeps every promise: again and again, on one thread, on many, and on a machine that is busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use s2_coordinator::conformance::run;
use s2_tests::{Memory, counts};

async fn the_suite_passes() {
    for round in 1..=counts(2, 20) {
        let report = run(Arc::new(Memory)).await;
        println!("round {round}: {report}");
        assert!(report.failed.is_empty(), "{report}");
        assert!(report.left_out.is_empty(), "memory promises everything: {report}");
        assert!(report.passed.len() >= 288, "cases are missing: {report}");
    }
}

#[tokio::test]
async fn on_one_thread() {
    the_suite_passes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_many_threads() {
    the_suite_passes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load() {
    let busy = Arc::new(AtomicBool::new(true));
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let loops: Vec<_> = (0..2 * cores)
        .map(|_| {
            let busy = Arc::clone(&busy);
            thread::spawn(move || while busy.load(Ordering::Relaxed) {})
        })
        .collect();
    the_suite_passes().await;
    busy.store(false, Ordering::Relaxed);
    loops.into_iter().for_each(|busy| busy.join().expect("no panic"));
}
