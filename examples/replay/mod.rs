//! Real issues, outcomes and events, replayed by the real scheduler, ledger and matcher in virtual time.
//!
//! | input | what is replayed |
//! |---|---|
//! | an issue export (beads JSONL) | all of its work, by sessions that pretend to work, under three [policies](Policy) |
//! | a folder of outcome files | asking the best first: what one, two and three tries solve |
//! | events of a swarm | its attempts, and what leases, a progress deadline and helpers [change](Change) |
//!
//! The modules are listed in reading order.

// What is read.
mod lines;
mod issues;
mod outcomes;
mod attempts;
// What it is replayed on.
mod fleet;
mod progress;
// Issues.
mod world;
mod sim;
mod work;
mod policy;
mod check;
mod graph;
// Outcomes.
mod tries;
// Events.
mod change;
mod history;
mod rescue;
// What is said.
mod report;
mod args;

use s2_coordinator::Timestamp;

pub use args::{Arguments, USAGE};
pub use attempts::{Attempt, Attempts, Facts};
pub use change::{Change, ChangeRun, HistoryRun};
pub use graph::{GraphRun, PolicyRun};
pub use issues::{Issue, Issues, Read};
pub use lines::BadLine;
pub use outcomes::{Outcomes, OutcomesRead, Tried};
pub use policy::Policy;
pub use progress::Bar;
pub use report::Report;
pub use tries::{AllTries, Tries};
pub use world::World;

/// What can go wrong; for people.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// 2025-11-12T09:00:00Z: where virtual time begins. Recorded events bring their own.
const START: Timestamp = Timestamp::from_micros(1_762_938_000_000_000);

/// Replays whatever the arguments name.
///
/// # Errors
///
/// When something cannot be read, or a run does not keep what is promised.
pub async fn replay(arguments: &Arguments) -> Result<Report, Failure> {
    let (mut bar, mut report) = (Bar::new(), Report::default());
    let outcomes = arguments.outcomes.as_deref().map(Outcomes::read).transpose()?;
    if let Some(path) = &arguments.issues {
        let issues = Issues::read(path)?;
        let run = graph::run(&issues, outcomes.as_ref(), arguments.sessions, arguments.seed, &mut bar);
        report.graph = Some(run.await?);
    }
    if let Some(outcomes) = outcomes {
        bar.begin("the best first");
        report.tries = Some(tries::run(&outcomes, &mut bar).await?);
        report.outcomes = Some(outcomes.read);
    }
    if let Some(path) = &arguments.events {
        report.history = Some(change::run(&Attempts::read(path)?, &mut bar).await?);
    }
    report.say_what_is_synthetic();
    Ok(report)
}
