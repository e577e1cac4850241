//! Tasks that wait for each other.
//!
//! A step can look only so far. What it suspects it marks, and says so with its answer; whoever hears of it reads the part of the
//! graph that matters, decides as the memory does, and has another step do it if the ring is still there. A ring cannot open by
//! itself: so what was read one after the other is true, unless somebody from outside has opened it, and that the step sees. If
//! a process dies on the way, the mark is there for the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use crate::dependency::TaskId;
use crate::error::Error;
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

/// A pass over all suspects, which begins after it was asked for.
pub(super) struct Pass {
    nth: u64,
    ended: watch::Receiver<u64>,
}

/// Says that nobody makes passes, also when the runtime was shut down on the way: then the next call has another made.
struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let passes = &self.0.passes;
        passes.runs.store(false, Ordering::Release);
        passes.ended.send_replace(passes.begun.load(Ordering::Acquire));
    }
}

impl Shared {
    /// Has somebody look at tasks that may wait for each other: here, in a task of its own, so that it does not depend on
    /// whether anybody waits for it. If it fails, they stay marked, and the next call has them looked at.
    pub(super) fn open_rings(self: &Arc<Self>) -> Pass {
        let nth = self.passes.begun.load(Ordering::Acquire) + 1;
        self.passes.wanted.fetch_max(nth, Ordering::AcqRel);
        let pass = Pass { nth, ended: self.passes.ended.subscribe() };
        if !self.passes.runs.swap(true, Ordering::AcqRel) {
            tokio::spawn(Arc::clone(self).make_passes());
        }
        pass
    }

    async fn make_passes(self: Arc<Self>) {
        let passes = &self.passes;
        loop {
            let running = Running(&self);
            let mut nth = 0;
            while passes.wanted.load(Ordering::Acquire) > nth {
                nth = passes.begun.fetch_add(1, Ordering::AcqRel) + 1;
                if let Err(error) = self.try_open_rings().await {
                    tracing::debug!(%error, "tasks may wait for each other; the next call looks again");
                }
                passes.ended.send_replace(nth);
            }
            drop(running);
            // Whoever asked in between has seen that it runs.
            if passes.wanted.load(Ordering::Acquire) <= nth || passes.runs.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }

    /// Waits until a pass has ended.
    pub(super) async fn opened(pass: Pass) {
        let Pass { nth, mut ended } = pass;
        // The sender lives as long as whoever waits.
        drop(ended.wait_for(|ended| *ended >= nth).await);
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
    async fn next_suspect(&self, cleared: Option<(TaskId, u64)>) -> Result<Option<Suspect>, Error> {
        let (task, mark) = cleared.unwrap_or_default();
        let mut call = self.call_again(TASKS_SUSPECTS);
        call.number(task);
        call.number(mark);
        call.number(PAGE);
        let mut answer = self.heard(call).await?;
        // This very step may have marked another.
        while answer.get(3).and_then(Reply::as_u64).is_some_and(|word| word > 0)
            && answer.get(1).and_then(Reply::as_list).is_some_and(<[_]>::is_empty)
        {
            let mut call = self.call_again(TASKS_SUSPECTS);
            [0, 0, PAGE].iter().for_each(|number| call.number(number));
            answer = self.heard(call).await?;
        }
        let unexpected = || Call::unexpected(TASKS_SUSPECTS, &answer);
        let said = answer.get(1).and_then(Reply::as_list).ok_or_else(unexpected)?;
        let [task, mark, found] = said else { return if said.is_empty() { Ok(None) } else { Err(unexpected()) } };
        let (task, mark) = (task.as_u64().ok_or_else(unexpected)?, mark.as_u64().ok_or_else(unexpected)?);
        let mut graph: WaitGraph = waiters(found).ok_or_else(unexpected)?.into_iter().collect();
        let missing = graph.missing();
        self.complete(&mut graph, missing).await?;
        Ok(Some(Suspect { task: TaskId::new(task), mark, graph }))
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
    let session = Some(said.get(2)?.as_str()?).filter(|name| !name.is_empty());
    let mut waiter = Waiter::new(TaskId::new(number(0)?), task::state(said.get(1)?)?);
    waiter.session = session.map(str::parse).transpose().ok()?;
    waiter.needs = if number(3)? == 1 { Needs::Any } else { Needs::All };
    waiter.blocked = Some(number(4)?).filter(|at| *at > 0).map(Timestamp::from_micros);
    waiter.again = number(5)? == 1;
    waiter.on = task::ids(said.get(6)?)?;
    Some(waiter)
}
