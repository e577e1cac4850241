//! Tasks that wait for each other, and those that wait for too long.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use crate::dependency::TaskId;
use crate::entry::Record;
use crate::escalation::NewEscalation;
use crate::lease::Preempted;
use crate::memory::effects::Effects;
use crate::memory::tasks::slot::{Released, Slot, State};
use crate::memory::tasks::{Tasks, list, named};
use crate::name::Subject;
use crate::outcome::Cause;
use crate::release::{Way, longest_waiter};
use crate::severity::Severity;
use crate::text::Text;
use crate::time::millis;
use crate::waits::{WaitGraph, Waiter};

impl Tasks {
    /// Looks whether tasks that have lost a way out wait for ever, and sees that they do not. Only such a task can have closed a
    /// ring, and then it is in it.
    pub(super) fn check_suspects(&mut self, fx: &mut Effects) {
        while let Some(id) = self.suspects.pop_first() {
            if !self.may_wait_for_itself(id) {
                continue;
            }
            let mut graph: WaitGraph = self.waiters(&[id], usize::MAX).into_iter().collect();
            while let Some(ring) = graph.ring_from(id) {
                let Some(freed) = self.open_ring(&ring, fx) else { break };
                graph.remove(freed);
            }
        }
    }

    /// Searches from both sides at once, what it waits for and what waits for it: most often one of them ends soon.
    fn may_wait_for_itself(&self, id: TaskId) -> bool {
        let mut seen = [HashSet::new(), HashSet::new()];
        let mut ways: [Vec<Box<dyn Iterator<Item = TaskId> + '_>>; 2] = [Vec::new(), Vec::new()];
        let next = |side: usize, id: TaskId| -> Box<dyn Iterator<Item = TaskId> + '_> {
            match self.slots.get(&id).filter(|slot| slot.outcome().is_none()) {
                Some(slot) if side == 0 => Box::new(slot.waits.iter().map(|(on, _)| *on)),
                Some(slot) => Box::new(slot.dependants.iter().map(|(_, dependant)| *dependant)),
                None => Box::new(std::iter::empty()),
            }
        };
        for (side, ways) in ways.iter_mut().enumerate() {
            ways.push(next(side, id));
        }
        loop {
            for side in 0..2 {
                let Some(way) = ways[side].last_mut() else { return false };
                match way.next() {
                    Some(found) if found == id => return true,
                    Some(found) if seen[side].insert(found) => ways[side].push(next(side, found)),
                    Some(_) => {}
                    None => drop(ways[side].pop()),
                }
            }
        }
    }

    /// These tasks and what they wait for, and so on, the nearest first: at most so many.
    pub(in crate::memory) fn waiters(&self, tasks: &[TaskId], most: usize) -> Vec<Waiter> {
        let mut seen: HashSet<TaskId> = tasks.iter().copied().collect();
        let mut next: VecDeque<TaskId> = seen.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let mut found = Vec::new();
        while found.len() < most
            && let Some(id) = next.pop_front()
        {
            let Some(slot) = self.slots.get(&id) else { continue };
            let waiter = slot.waiter();
            next.extend(waiter.on.iter().filter(|on| seen.insert(**on)));
            found.push(waiter);
        }
        found
    }

    /// Lets somebody in a ring go on, and answers who that is; nobody, if that is for a person to decide.
    fn open_ring(&mut self, ring: &[&Waiter], fx: &mut Effects) -> Option<TaskId> {
        let cycle: Vec<TaskId> = ring.iter().map(|waiter| waiter.task).collect();
        let first = *cycle.first()?;
        let from = |id: TaskId| {
            let mut cycle = cycle.clone();
            let nth = cycle.iter().position(|task| *task == id)?;
            cycle.rotate_left(nth);
            Some(cycle)
        };
        let way = Arc::clone(&fx.release).release(ring);
        let entry = Record::new("deadlock", "detected", Text::number(first.get())).with("cycle", list(&cycle));
        fx.journal(entry.with_severity(Severity::High));
        let freed = match way {
            Some(Way::Proceed(id)) if ring.iter().any(|waiter| waiter.task == id && waiter.is_releasable()) => {
                self.preempt(id, from(id)?, fx);
                id
            }
            Some(Way::Abort(id)) if cycle.contains(&id) => {
                self.fail(id, Cause::Deadlock { cycle: from(id)? }, fx);
                id
            }
            _ => {
                let id = longest_waiter(ring)?;
                self.leave_to_a_person(id, from(id)?, fx);
                return Some(id);
            }
        };
        fx.journal(Record::new("deadlock", "resolved", Text::number(first.get())).with("task", freed.get()));
        Some(freed)
    }

    /// A task waits for nothing but a person any more.
    fn leave_to_a_person(&mut self, id: TaskId, cycle: Vec<TaskId>, fx: &mut Effects) {
        ask("deadlock", id, "tasks wait for each other, and none may go on", &cycle, fx);
        if self.slots.get(&id).is_some_and(|slot| matches!(slot.state, State::Waiting)) {
            // Its session is gone: there is nobody to wait.
            return self.preempt(id, cycle, fx);
        }
        self.drop_edges(id);
        if let Some(Slot { state: State::Blocked(blocked), .. }) = self.slots.get_mut(&id).map(|slot| &mut **slot) {
            blocked.cycle = cycle;
        }
    }

    /// A task that somebody has blocked goes on without what it waits for.
    pub(super) fn preempt(&mut self, id: TaskId, cycle: Vec<TaskId>, fx: &mut Effects) {
        let Some(wait) = self.slots.get(&id).and_then(|slot| slot.wait().cloned()) else { return };
        let waited = fx.now.since(wait.since);
        let entry = self.record("preempted", id).with("session", named(&wait.by.session)).with("cycle", list(&cycle));
        fx.journal(entry.with("waited_ms", millis(waited)).with_severity(Severity::High));
        self.drop_edges(id);
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.released = Some(Box::new(Released {
            preempted: Preempted::new(cycle, waited),
            is_latest: true,
            failures: slot.failures,
            reason: wait.reason.clone(),
            from: slot.answers.clone(),
        }));
        if matches!(slot.state, State::Blocked(_)) {
            self.set(id, State::Resumable(Box::new(wait), fx.now + fx.config.resume_window), fx);
        } else {
            // Its session is gone, and others take it up.
            self.make_ready(id, fx.now, fx);
        }
        self.progress.happened(fx.now);
        self.tell(id, fx);
    }
}

/// Asks a person about a task. If there are too many such questions already, what the journal says must do.
pub(super) fn ask(what: &str, id: TaskId, reason: &'static str, tasks: &[TaskId], fx: &mut Effects) {
    let Ok(key) = Subject::new(format!("{what}:{id}")) else { return };
    let payload = serde_json::to_vec(tasks).unwrap_or_default();
    drop(fx.escalate(NewEscalation::new(key, reason).with_payload(payload)));
}
