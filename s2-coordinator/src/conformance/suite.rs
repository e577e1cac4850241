//! Selecting, running and reporting the cases.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::conformance::harness::{Backend, Case, Given, Guarantee};

const SUITES: &[(&str, &[Case])] = &[
    ("tasks", crate::conformance::scheduler::submit::CASES),
    ("claim", crate::conformance::scheduler::claim::CASES),
    ("waiting", crate::conformance::scheduler::waiting::CASES),
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
    fn add(&mut self, name: String, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.passed.push(name),
            Err(why) => self.failed.push((name, why)),
        }
    }

    fn check(&self) {
        let cases = self.passed.len() + self.failed.len() + self.left_out.len();
        assert!(cases > 0, "no case is called {:?}", wanted());
    }

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

/// A case of a contract of another crate: its name, and what it does on fleets of its own.
pub type ForeignCase<E> = (String, Pin<Box<dyn Future<Output = Result<(), E>> + Send>>);

/// Runs every case that the backend's guarantees select, each on fresh fleets, one after the other.
///
/// Call it within a tokio runtime; with several worker threads, races are real.
///
/// # Panics
///
/// When `S2_CONFORMANCE` selects no case at all.
pub async fn run(backend: Arc<dyn Backend>) -> Report {
    let mut report = Report::default();
    for (suite, case) in SUITES.iter().flat_map(|(suite, cases)| cases.iter().map(move |case| (suite, case))) {
        let name = format!("{suite}::{}", case.name);
        if !is_wanted(&name) {
            continue;
        }
        match case.needs.iter().find(|need| !backend.guarantees().contains(need)) {
            Some(missing) => report.left_out.push((name, *missing)),
            None => report.add(name, run_one((case.run)(Given { backend: Arc::clone(&backend) })).await),
        }
    }
    report.check();
    report
}

/// Runs the cases of another crate's contract as [`run`] does those of this one.
///
/// # Panics
///
/// When `S2_CONFORMANCE` selects no case at all.
pub async fn run_cases<E: Error + Send + 'static>(cases: impl IntoIterator<Item = ForeignCase<E>>) -> Report {
    let mut report = Report::default();
    for (name, case) in cases {
        if is_wanted(&name) {
            report.add(name, run_one(case).await);
        }
    }
    report.check();
    report
}

/// The part that the names of cases must have.
fn wanted() -> String {
    std::env::var("S2_CONFORMANCE").unwrap_or_default()
}

fn is_wanted(name: &str) -> bool {
    name.contains(&wanted())
}

fn cause<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    (**error).source()
}

async fn run_one<E: Error + Send + 'static>(
    case: impl Future<Output = Result<(), E>> + Send + 'static,
) -> Result<(), String> {
    // A task of its own turns a failed assertion into an answer.
    let mut task = tokio::spawn(case);
    match tokio::time::timeout(HANGS, &mut task).await {
        Err(_) => {
            task.abort();
            Err(format!("hangs: not done after {HANGS:?}"))
        }
        Ok(Ok(outcome)) => outcome.map_err(|error| {
            let causes = std::iter::successors(error.source(), cause);
            causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
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
