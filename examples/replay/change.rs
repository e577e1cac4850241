//! What leases, a progress deadline and helpers would have changed: the recorded attempts again, by the real scheduler.
//!
//! Kept as recorded: when an item is first given, to whom; for how long each attempt holds it and how that ends. Changed: who
//! stops an attempt that comes to nothing, and when the next one begins.
//!
//! * *as recorded*: somebody resets it, and somebody gives it to the next worker.
//! * *leases*: a worker renews as long as it gives any sign of life in the record; 30 s after the last one the item is free, and
//!   the next idle worker claims it.
//! * *progress deadline*: besides, the item is free when the worker has done nothing with it for 30 min.
//! * *gang up*: besides, it then goes to the best two idle workers at once: the next two recorded attempts, side by side.
//!
//! Attempts that were closed are taken to have been alive and to have reported progress: they came to something.

use std::fmt;
use std::time::Duration;

use s2_coordinator::Config;
use serde::Serialize;

use crate::replay::Failure;
use crate::replay::attempts::{Attempt, Attempts, Facts};
use crate::replay::history::History;
use crate::replay::progress::Bar;

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Nothing.
    AsRecorded,
    /// Claims end 30 s after the last sign of life.
    Leases,
    /// Besides, claims end after 30 min without progress.
    ProgressDeadline,
    /// Besides, those who fit best help.
    GangUp,
}

impl Change {
    /// All of them.
    pub const ALL: [Change; 4] = [Self::AsRecorded, Self::Leases, Self::ProgressDeadline, Self::GangUp];
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AsRecorded => "as recorded",
            Self::Leases => "leases",
            Self::ProgressDeadline => "+ progress deadline",
            Self::GangUp => "+ gang up",
        })
    }
}

/// What a change comes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangeRun {
    /// Which one.
    pub change: Change,
    /// Items that two or more workers had.
    pub twice: usize,
    /// How often a worker had an item.
    pub attempts: usize,
    /// Of these, those that came to nothing.
    pub in_vain: usize,
    /// For how long these held their items.
    pub in_vain_h: f64,
    /// For how long items lay about between two attempts.
    pub waiting_h: f64,
    /// From the first attempt at an item to its end, all items together.
    pub until_closed_h: f64,
    /// Items that were closed, each time.
    pub closed: usize,
    /// What of the help was in vain, in percent; nothing, if nobody helped.
    pub waste_percent: Option<f64>,
    /// Items that two workers had at a time without one helping the other, or that were closed twice.
    pub duplicates: usize,
}

/// What the changes come to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HistoryRun {
    /// What the record says.
    pub facts: Facts,
    /// Closed attempts that a progress deadline would have stopped, had the workers reported nothing but what is recorded.
    pub must_report: usize,
    /// One run for each change.
    pub changes: Vec<ChangeRun>,
}

/// Replays the attempts with each change.
///
/// # Errors
///
/// When the scheduler does not do what it promises.
pub(super) async fn run(attempts: &Attempts, bar: &mut Bar) -> Result<HistoryRun, Failure> {
    let mut changes = Vec::new();
    for change in Change::ALL {
        bar.begin(change.to_string());
        let mut history = History::new(attempts, change).await?;
        history.run(bar).await.map_err(|error| format!("{change}: {error}"))?;
        changes.push(history.conclude().await?);
    }
    check(&attempts.facts, &changes[0])?;
    let deadline = Config::default().progress;
    let all = attempts.chains.iter().flat_map(|(_, chain)| chain);
    let must_report = all.filter(|attempt| attempt.closed && longest_silence(attempt) > deadline).count();
    Ok(HistoryRun { facts: attempts.facts.clone(), must_report, changes })
}

/// With nothing changed, the scheduler must come to what the record says.
fn check(facts: &Facts, run: &ChangeRun) -> Result<(), Failure> {
    let recorded = (facts.twice, facts.attempts, facts.reset, facts.reset_h, facts.closed);
    let replayed = (run.twice, run.attempts, run.in_vain, run.in_vain_h, run.closed);
    if recorded == replayed {
        return Ok(());
    }
    Err(format!("the record says {recorded:?}, and the scheduler came to {replayed:?}").into())
}

fn longest_silence(attempt: &Attempt) -> Duration {
    let (mut longest, mut before) = (Duration::ZERO, Duration::ZERO);
    for at in attempt.reports.iter().chain([&attempt.held]) {
        longest = longest.max(at.saturating_sub(before));
        before = *at;
    }
    longest
}
