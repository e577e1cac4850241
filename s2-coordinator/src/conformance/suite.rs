//! Selecting, running and reporting the cases.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::conformance::harness::{Backend, Case, Given, Guarantee};

const SUITES: &[(&str, &[Case])] = &[
    ("tasks", crate::conformance::scheduler::submit::CASES),
    ("claim", crate::conformance::scheduler::claim::CASES),
    ("fencing", crate::conformance::scheduler::fencing::CASES),
    ("order", crate::conformance::scheduler::order::CASES),
    ("dependencies", crate::conformance::scheduler::dependencies::CASES),
    ("failures", crate::conformance::scheduler::failures::CASES),
    ("block", crate::conformance::scheduler::block::CASES),
    ("deadlock", crate::conformance::scheduler::deadlock::CASES),
    ("liveness", crate::conformance::scheduler::liveness::CASES),
    ("steal", crate::conformance::scheduler::steal::CASES),
    ("why", crate::conformance::scheduler::why::CASES),
    ("guard", crate::conformance::scheduler::guard::CASES),
    ("registry", crate::conformance::scheduler::registry::CASES),
    ("publish", crate::conformance::publish::CASES),
    ("delivery", crate::conformance::delivery::CASES),
    ("settle", crate::conformance::settle::CASES),
    ("attempts", crate::conformance::attempts::CASES),
    ("commit", crate::conformance::commit::CASES),
    ("dead_letters", crate::conformance::dead_letters::CASES),
    ("replay", crate::conformance::replay::CASES),
    ("retention", crate::conformance::retention::CASES),
    ("lifecycle", crate::conformance::lifecycle::CASES),
    ("journal", crate::conformance::journal::CASES),
    ("inbox", crate::conformance::inbox::CASES),
];

/// No case takes anywhere near this long, unless it hangs.
const HANGS: Duration = Duration::from_secs(120);

/// What the cases said.
#[derive(Clone, Debug, Default)]
#[must_use = "a report that nobody reads proves nothing"]
pub struct Report {
    /// Cases that passed.
    pub passed: Vec<String>,
    /// Cases that failed, and why.
    pub failed: Vec<(String, String)>,
    /// Cases that need what the backend does not promise, and what that is.
    pub left_out: Vec<(String, Guarantee)>,
}

impl Report {
    fn cases_without(&self, guarantee: Guarantee) -> impl Iterator<Item = &str> {
        self.left_out.iter().filter(move |(_, missing)| *missing == guarantee).map(|(case, _)| case.as_str())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &guarantee in Guarantee::ALL {
            let cases: Vec<&str> = self.cases_without(guarantee).collect();
            if !cases.is_empty() {
                writeln!(f, "left out without {guarantee:?}: {}", cases.join(", "))?;
            }
        }
        for (case, why) in &self.failed {
            writeln!(f, "FAILED {case}: {why}")?;
        }
        let (passed, failed, left_out) = (self.passed.len(), self.failed.len(), self.left_out.len());
        write!(f, "conformance: {passed} passed, {failed} failed, {left_out} left out")
    }
}

/// Runs every case that the backend's guarantees select, each on fresh fleets, one after the other.
///
/// Call it within a tokio runtime; with several worker threads, races are real.
///
/// # Panics
///
/// When `S2_CONFORMANCE` selects no case at all.
pub async fn run(backend: Arc<dyn Backend>) -> Report {
    let wanted = std::env::var("S2_CONFORMANCE").unwrap_or_default();
    let mut report = Report::default();
    for (suite, case) in SUITES.iter().flat_map(|(suite, cases)| cases.iter().map(move |case| (suite, case))) {
        let name = format!("{suite}::{}", case.name);
        if !name.contains(&wanted) {
            continue;
        }
        match case.needs.iter().find(|need| !backend.guarantees().contains(need)) {
            Some(missing) => report.left_out.push((name, *missing)),
            None => match run_one(case, Given { backend: Arc::clone(&backend) }).await {
                Ok(()) => report.passed.push(name),
                Err(why) => report.failed.push((name, why)),
            },
        }
    }
    let cases = report.passed.len() + report.failed.len() + report.left_out.len();
    assert!(cases > 0, "no case is called {wanted:?}");
    report
}

async fn run_one(case: &Case, given: Given) -> Result<(), String> {
    // A task of its own turns a failed assertion into an answer.
    let mut task = tokio::spawn((case.run)(given));
    match tokio::time::timeout(HANGS, &mut task).await {
        Err(_) => {
            task.abort();
            Err(format!("hangs: not done after {HANGS:?}"))
        }
        Ok(Ok(outcome)) => outcome.map_err(|error| {
            let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
            causes.fold(format!("{}: {error}", error.code()), |text, cause| format!("{text}: {cause}"))
        }),
        Ok(Err(failed)) => match failed.try_into_panic() {
            Err(cancelled) => Err(cancelled.to_string()),
            Ok(panic) => Err(panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_else(|| "panicked".to_owned())),
        },
    }
}
