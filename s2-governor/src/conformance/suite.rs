//! Running the cases.

use std::sync::Arc;

use s2_coordinator::conformance::{ForeignCase, Report, run_cases};

use crate::conformance::harness::Backend;
use crate::conformance::harness::Case;
use crate::error::Error;

const SUITES: &[(&str, &[Case])] = &[
    ("reserve", crate::conformance::reserve::CASES),
    ("settle", crate::conformance::settle::CASES),
    ("expiry", crate::conformance::expiry::CASES),
    ("levels", crate::conformance::levels::CASES),
    ("days", crate::conformance::days::CASES),
    ("accounts", crate::conformance::accounts::CASES),
];

/// Runs every case, each on a fresh fleet, one after the other.
///
/// Call it within a tokio runtime; with several worker threads, races are real.
///
/// # Panics
///
/// When `S2_CONFORMANCE` selects no case at all.
pub async fn run(backend: Arc<dyn Backend>) -> Report {
    let all = SUITES.iter().flat_map(|(suite, cases)| cases.iter().map(move |case| (suite, case)));
    run_cases(all.map(|(suite, case)| -> ForeignCase<Error> {
        let (backend, run) = (Arc::clone(&backend), case.run);
        (format!("{suite}::{}", case.name), Box::pin(async move { run(backend.fleet().await).await }))
    }))
    .await
}
