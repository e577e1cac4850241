//! Tasks that wait for each other.
//!
//! A step can look only so far. What it suspects it marks, and says so with its answer; whoever hears of it reads the part of the
//! graph that matters, decides as the memory does, and has another step do it if the ring is still there. A ring cannot open by
//! itself: so what was read one after the other is true, unless somebody from outside has opened it, and that the step sees. If
//! a process dies on the way, the mark is there for the next.

use std::sync::Arc;

use crate::dependency::TaskId;
use crate::error::Error;
use crate::redis::passes::Pass;
use crate::redis::reply::Reply;
use crate::redis::scripts::{TASKS_RELEASE, TASKS_SUSPECTS, TASKS_WAITS};
use crate::redis::store::{Call, Shared};
use crate::redis::task;
use crate::release::{Way, longest_waiter};
use crate::time::Timestamp;
use crate::waits::{Needs, WaitGraph, Waiter};

/// How many tasks are read in one step.
const PAGE: usize = 250;
/// How often a ring that others change meanwhile is looked at anew before others are.
const TRIES: usize = 10;

/// A task that may wait for itself, the mark that says so, and what it waits for.
struct Suspect {
    task: TaskId,
    mark: u64,
    graph: WaitGraph,
}

/// Whoever makes passes over all suspects. A runtime that ends may drop it at any time.
struct Opener {
    shared: Arc<Shared>,
    is_done: bool,
}

impl Opener {
    async fn run(mut self) {
        while let Some(nth) = self.shared.passes.begin() {
            if let Err(error) = self.shared.try_open_rings().await {
                tracing::debug!(%error, "tasks may wait for each other; the next call looks again");
            }
            self.shared.passes.end(nth);
        }
        self.is_done = true;
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        if !self.is_done {
            self.shared.passes.abandon();
        }
    }
}

impl Shared {
    /// Has somebody look at tasks that may wait for each other: apart from whoever calls, so that it does not depend on
    /// whether the call is polled. If it fails, they stay marked, and the next call has them looked at.
    pub(super) fn open_rings(self: &Arc<Self>) -> Pass {
        let pass = self.passes.ask();
        if pass.is_first {
            // Made here, not in the task, which may be dropped before its first poll.
            self.spawn(Opener { shared: Arc::clone(self), is_done: false }.run());
        }
        pass
    }

    async fn try_open_rings(&self) -> Result<(), Error> {
        let mut cleared = None;
        while let Some(mut suspect) = self.next_suspect(cleared).await? {
            cleared = Some((suspect.task, suspect.mark));
            let mut tries = 0;
            while let Some(ring) = suspect.graph.ring_from(suspect.task) {
                let witness = suspect.graph.witness(&ring);
                if let Some(freed) = self.open_ring(&ring, &witness).await? {
                    suspect.graph.remove(freed);
                } else if tries < TRIES {
                    tries += 1;
                    suspect.graph = WaitGraph::default();
                    self.complete(&mut suspect.graph, vec![suspect.task]).await?;
                } else {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Runs a call, and sees to what its step has made due.
    async fn heard(&self, call: Call<'_>) -> Result<Reply, Error> {
        let answer = call.answer().await?;
        if let Some(due) = answer.get(2).and_then(Reply::as_u64) {
            self.arm(Timestamp::from_micros(due));
        }
        Ok(answer)
    }

    /// The next task that may wait for itself, after this one was looked at.
    async fn next_suspect(&self, mut cleared: Option<(TaskId, u64)>) -> Result<Option<Suspect>, Error> {
        loop {
            let (task, mark) = cleared.take().unwrap_or_default();
            let mut call = self.call_again(TASKS_SUSPECTS);
            call.number(task);
            call.number(mark);
            call.number(PAGE);
            let answer = self.heard(call).await?;
            let unexpected = || Call::unexpected(TASKS_SUSPECTS, &answer);
            let (task, mark, found) = match answer.get(1).and_then(Reply::as_list).ok_or_else(unexpected)? {
                [task, mark, found] => (task.as_u64(), mark.as_u64(), waiters(found)),
                // This very step may have marked another.
                [] if answer.get(3).and_then(Reply::as_u64).is_some_and(|word| word > 0) => continue,
                [] => return Ok(None),
                _ => return Err(unexpected()),
            };
            let task = TaskId::new(task.ok_or_else(unexpected)?);
            let mut graph: WaitGraph = found.ok_or_else(unexpected)?.into_iter().collect();
            let missing = graph.missing();
            self.complete(&mut graph, missing).await?;
            return Ok(Some(Suspect { task, mark: mark.ok_or_else(unexpected)?, graph }));
        }
    }

    /// Reads these tasks, and all that they wait for.
    async fn complete(&self, graph: &mut WaitGraph, mut wanted: Vec<TaskId>) -> Result<(), Error> {
        while !wanted.is_empty() {
            for batch in wanted.chunks(PAGE) {
                let mut call = self.call_again(TASKS_WAITS);
                call.number(PAGE);
                batch.iter().for_each(|task| call.number(task));
                let answer = self.heard(call).await?;
                let found = answer.get(1).and_then(waiters);
                graph.extend(found.ok_or_else(|| Call::unexpected(TASKS_WAITS, &answer))?);
            }
            let missing = graph.missing();
            // What is not known any more is over.
            wanted = if missing == wanted { Vec::new() } else { missing };
        }
        Ok(())
    }

    /// Lets somebody in a ring go on, and answers who that is; nobody, if it is open by now.
    async fn open_ring(&self, ring: &[&Waiter], witness: &[&Waiter]) -> Result<Option<TaskId>, Error> {
        let within = |id: TaskId| ring.iter().find(|waiter| waiter.task == id);
        let (how, who) = match Arc::clone(&self.release).release(ring) {
            Some(Way::Proceed(id)) if within(id).is_some_and(|waiter| waiter.is_releasable()) => ("proceed", id),
            Some(Way::Abort(id)) if within(id).is_some() => ("abort", id),
            _ => ("ask", longest_waiter(ring).unwrap_or_default()),
        };
        let mut call = self.call_again(TASKS_RELEASE);
        call.arg(how);
        call.number(who);
        call.number(ring.len());
        ring.iter().for_each(|waiter| call.number(waiter.task));
        for waiter in witness {
            call.number(waiter.task);
            call.number(waiter.on.len());
            waiter.on.iter().for_each(|on| call.number(on));
        }
        let answer = self.heard(call).await?;
        let happened = answer.get(1).and_then(Reply::as_int).ok_or_else(|| Call::unexpected(TASKS_RELEASE, &answer))?;
        Ok((happened == 1).then_some(who))
    }
}

/// Tasks that wait, as a script tells of them.
pub(super) fn waiters(said: &Reply) -> Option<Vec<Waiter>> {
    said.as_list()?.iter().map(waiter).collect()
}

fn waiter(said: &Reply) -> Option<Waiter> {
    let number = |nth: usize| said.get(nth)?.as_u64();
    let mut waiter = Waiter::new(TaskId::new(number(0)?), task::state(said.get(1)?)?);
    waiter.session = task::session(said.get(2)?)?;
    waiter.needs = if number(3)? == 1 { Needs::Any } else { Needs::All };
    waiter.blocked = Some(number(4)?).filter(|at| *at > 0).map(Timestamp::from_micros);
    waiter.again = number(5)? == 1;
    waiter.on = task::ids(said.get(6)?)?;
    Some(waiter)
}
