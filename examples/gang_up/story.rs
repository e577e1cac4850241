//! What happened, as the journal, the bus and the ledger tell it. Nothing here was seen otherwise, so it is told alike of one
//! process and of several.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use s2_coordinator::{Entry, Position, Start, SwarmId, TaskId, Text, Timestamp, TraceToken};
use s2_core::{RESCUES, RescueEvent, S2};
use s2_governor::{BasisPoints, BudgetLedgerExt, Help, NanoUsd};

use crate::fleet::Given;
use crate::world::others;

/// How much is read at a time.
const PAGE: usize = 500;

/// Who was asked, and why, and who was not, and why not.
#[derive(Debug)]
pub(crate) struct Considered {
    pub(crate) time: Timestamp,
    pub(crate) asked: Vec<(SwarmId, Text)>,
    pub(crate) others: Vec<(SwarmId, Text)>,
}

/// What happened to a blocker.
#[derive(Debug)]
pub(crate) struct Story {
    /// How long it took from being blocked to the end, by the clock of the store.
    pub(crate) took: Duration,
    /// The journal, as far as it is about this.
    pub(crate) entries: Vec<Entry>,
    pub(crate) considered: Vec<Considered>,
    /// What SIP has got.
    pub(crate) given: Vec<Given>,
    /// What each of the others has spent.
    pub(crate) spent: BTreeMap<SwarmId, NanoUsd>,
}

impl Story {
    /// Waits until SIP is done, and reads what happened.
    pub(crate) async fn of(s2: &S2, blocked: TaskId, trace: TraceToken) -> Result<Self, Box<dyn Error>> {
        let outcome = s2.scheduler().wait(blocked).await?;
        let result = outcome.result().ok_or_else(|| format!("SIP's task is not done: {outcome:?}"))?;
        let given = result.json()?;
        let mut spent = BTreeMap::new();
        for session in others() {
            let balance = s2.ledger().balance(&session).await?;
            spent.insert(session, balance.spent);
        }
        let (entries, considered) = (entries(s2, trace).await?, considered(s2, blocked).await?);
        let took = first(&entries, blocked, "completed")?.since(first(&entries, blocked, "blocked")?);
        Ok(Self { took, entries, considered, given, spent })
    }

    /// What all of them have spent.
    pub(crate) fn cost(&self) -> NanoUsd {
        self.spent.values().fold(NanoUsd::ZERO, |sum, cost| sum.saturating_add(*cost))
    }

    /// What each has spent, and of how much use that was. Who has spent and given nothing has helped in vain.
    pub(crate) fn help(&self) -> impl Iterator<Item = Help> {
        self.spent.iter().map(|(session, cost)| Help::new(*cost, self.usefulness(session)))
    }

    fn usefulness(&self, session: &SwarmId) -> BasisPoints {
        let given = self.given.iter().filter(|given| given.by == *session);
        let (calls, useful) = given.fold((0, 0), |(calls, useful), given| (calls + given.calls, useful + given.useful));
        let share = u16::try_from(useful * 10_000 / calls.max(1)).ok();
        share.and_then(|share| BasisPoints::new(share).ok()).unwrap_or(BasisPoints::ZERO)
    }

    /// Who was asked, each time that helpers were looked for.
    pub(crate) fn choices(&self) -> Vec<Vec<SwarmId>> {
        self.considered.iter().map(|one| one.asked.iter().map(|(session, _)| session.clone()).collect()).collect()
    }
}

/// When this was first done to a task.
fn first(entries: &[Entry], task: TaskId, operation: &str) -> Result<Timestamp, String> {
    let task = task.to_string();
    let is_it = |entry: &&Entry| entry.subject.as_str() == task && entry.operation.as_str() == operation;
    let entry =
        entries.iter().find(is_it).ok_or_else(|| format!("the journal does not say that {task} was {operation}"))?;
    Ok(entry.time)
}

/// Everything that the journal says about a trace and its tasks.
async fn entries(s2: &S2, trace: TraceToken) -> Result<Vec<Entry>, Box<dyn Error>> {
    let (mut all, mut tasks, mut after) = (Vec::new(), BTreeSet::new(), s2.journal().start().await?);
    loop {
        let page = s2.journal().entries(after, PAGE).await?;
        if page.items.is_empty() {
            return Ok(all);
        }
        after = page.next;
        for entry in page.items {
            let is_of_it = entry.trace.is_some_and(|other| other.trace_id() == trace.trace_id());
            // What becomes of a task while it waits names the task only.
            let is_task = entry.component.as_str() == "task";
            if is_of_it && is_task {
                tasks.insert(entry.subject.clone());
            }
            if is_of_it || is_task && tasks.contains(&entry.subject) {
                all.push(entry);
            }
        }
    }
}

async fn considered(s2: &S2, task: TaskId) -> Result<Vec<Considered>, Box<dyn Error>> {
    let (mut all, mut after) = (Vec::new(), Position::ORIGIN);
    loop {
        let page = s2.bus().read(&RESCUES, Start::After(after), PAGE).await?;
        if page.items.is_empty() {
            return Ok(all);
        }
        after = page.next;
        for event in page.items {
            if let RescueEvent::Matched { blocked, helpers, others, .. } = event.json()?
                && blocked == task
            {
                all.push(Considered { time: event.time, asked: helpers, others });
            }
        }
    }
}
