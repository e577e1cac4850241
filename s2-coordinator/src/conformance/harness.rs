//! How cases are selected, run and reported.

use std::fmt;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::bus::EventBus;
use crate::config::Config;
use crate::conformance as suites;
use crate::error::Error;
use crate::inbox::Inbox;
use crate::journal::Journal;

/// What a backend may or may not promise. Without any, it publishes, delivers to groups and acks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Guarantee {
    /// A batch is published whole or not at all, and limits are enforced.
    AtomicBatch,
    /// Idempotency keys work.
    Idempotency,
    /// Attempts are counted, deliveries time out, crashed consumers' events come back.
    Redelivery,
    /// Only the current delivery settles, and repeated settles are answered alike.
    Fencing,
    /// Events that cannot be handled become dead letters that can be redriven and purged.
    DeadLetters,
    /// Outputs are published together with the ack.
    Commit,
    /// Topics can be read and tailed.
    Replay,
    /// History is trimmed, but never what a group has not settled.
    Retention,
    /// State changes are journalled.
    Journal,
    /// Escalations are kept.
    Inbox,
}

impl Guarantee {
    /// All of them.
    pub const ALL: [Guarantee; 10] = [
        Self::AtomicBatch,
        Self::Idempotency,
        Self::Redelivery,
        Self::Fencing,
        Self::DeadLetters,
        Self::Commit,
        Self::Replay,
        Self::Retention,
        Self::Journal,
        Self::Inbox,
    ];
}

/// Makes fleets to test.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// A fresh fleet that shares nothing with any other.
    async fn fleet(&self, config: Config) -> Box<dyn Fleet>;

    /// What it promises: everything unless it says otherwise.
    fn guarantees(&self) -> &[Guarantee] {
        &Guarantee::ALL
    }
}

/// One fleet. Dropping it ends it.
#[async_trait]
pub trait Fleet: Debug + Send + Sync + 'static {
    /// Another bus of this fleet, which can be closed on its own.
    fn bus(&self) -> Arc<dyn EventBus>;

    /// Its inbox; needed only with [`Guarantee::Inbox`].
    fn inbox(&self) -> Arc<dyn Inbox>;

    /// Its journal; needed only with [`Guarantee::Journal`].
    fn journal(&self) -> Arc<dyn Journal>;

    /// Moves the fleet's clock forward; where it cannot be moved, waits.
    async fn advance(&self, by: Duration);
}

/// What a case starts from.
#[derive(Clone, Debug)]
pub(super) struct Given {
    backend: Arc<dyn Backend>,
}

impl Given {
    pub(super) async fn fleet(&self) -> Box<dyn Fleet> {
        self.backend.fleet(Config::default()).await
    }

    pub(super) async fn fleet_with(&self, change: impl FnOnce(&mut Config)) -> Box<dyn Fleet> {
        let mut config = Config::default();
        change(&mut config);
        self.backend.fleet(config).await
    }
}

/// What a case answers. Most fail by an assertion; an unexpected error of the backend fails it, too.
pub(super) type Outcome = Result<(), Error>;

type Run = fn(Given) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) needs: &'static [Guarantee],
    pub(super) run: Run,
}

/// Lists the cases of a module with the guarantees that each needs.
macro_rules! cases {
    ($($name:ident: [$($need:ident),*];)*) => {
        pub(super) const CASES: &[crate::conformance::harness::Case] = &[$(
            crate::conformance::harness::Case {
                name: stringify!($name),
                needs: &[$(crate::conformance::harness::Guarantee::$need),*],
                run: |given| Box::pin($name(given)),
            },
        )*];
    };
}
pub(super) use cases;

const SUITES: &[(&str, &[Case])] = &[
    ("publish", suites::publish::CASES),
    ("delivery", suites::delivery::CASES),
    ("settle", suites::settle::CASES),
    ("attempts", suites::attempts::CASES),
    ("commit", suites::commit::CASES),
    ("dead_letters", suites::dead_letters::CASES),
    ("replay", suites::replay::CASES),
    ("retention", suites::retention::CASES),
    ("lifecycle", suites::lifecycle::CASES),
    ("journal", suites::journal::CASES),
    ("inbox", suites::inbox::CASES),
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
        for guarantee in Guarantee::ALL {
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
        Ok(Ok(outcome)) => outcome.map_err(|error| format!("{}: {error}", error.code())),
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
