//! What follows for other tasks: edges that are settled, keys that are inherited, tasks that are over.

use crate::dependency::{OnFailure, TaskId};
use crate::ending::Ended;
use crate::entry::Record;
use crate::lease::Loss;
use crate::memory::effects::Effects;
use crate::memory::tasks::slot::{Blocked, State};
use crate::memory::tasks::{Chore, Tasks, Timer, named};
use crate::order::OrderKey;
use crate::outcome::{Cause, Outcome};
use crate::severity::Severity;
use crate::waits::Needs;

impl Tasks {
    /// Makes a task wait for another one, which lends it its key.
    pub(super) fn add_edge(&mut self, id: TaskId, on: TaskId, on_failure: OnFailure) {
        let Some(key) = self.slots.get_mut(&id).map(|slot| {
            slot.waits.push((on, on_failure));
            slot.key
        }) else {
            return;
        };
        if let Some(other) = self.slots.get_mut(&on) {
            other.dependants.insert((key, id));
            if key < other.key {
                self.chores.push_back(Chore::Rekey(on));
            }
        }
    }

    /// A task waits for nothing any more; what it had lent is given back.
    pub(super) fn drop_edges(&mut self, id: TaskId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let key = slot.key;
        for (on, _) in std::mem::take(&mut slot.waits) {
            if let Some(other) = self.slots.get_mut(&on)
                && other.dependants.remove(&(key, id))
                && other.key == key
            {
                self.give_back(on, key);
            }
        }
    }

    /// Something that waits for a task does not lend it this key any more. Where tasks wait for each other, each may have the key
    /// of the others, which they have from it: then all of them forget it before any gets another.
    fn give_back(&mut self, id: TaskId, key: OrderKey) {
        let first = self.slots.get(&id).and_then(|slot| slot.dependants.first());
        let may_be_its_own = first.is_some_and(|(other, _)| *other == key);
        self.chores.push_front(if may_be_its_own { Chore::Reset(id) } else { Chore::Rekey(id) });
    }

    /// Does chores as far as this step may.
    pub(super) fn work(&mut self, fx: &mut Effects) {
        while self.units > 0
            && let Some(chore) = self.chores.pop_front()
        {
            match chore {
                Chore::Rekey(id) => self.rekey(id, fx),
                Chore::Reset(id) => self.reset(id, fx),
                Chore::Desert(id) => self.desert(id, fx),
                Chore::Sift(name) => {
                    let kind = self.sessions.named(&name).map(|session| session.kind);
                    let may_not = |class| kind.is_none_or(|kind| !self.queues.may(kind, class));
                    let Some(place) = self.own.first(&name, may_not, |_| false) else { continue };
                    self.change(place.task, fx, |slot, _| slot.assignee = None);
                    self.chores.push_back(Chore::Sift(name));
                }
                Chore::Release(id) => {
                    // One that was redriven meanwhile tells the rest when it is finished again.
                    let over = self.slots.get_mut(&id).filter(|slot| slot.outcome().is_some());
                    let next = over.and_then(|slot| slot.dependants.pop_first());
                    let Some((_, dependant)) = next else { continue };
                    // The others after what follows from this one: a chain is as urgent as a crowd.
                    self.chores.push_back(Chore::Release(id));
                    self.settle_edge(dependant, id, fx);
                }
            }
            self.units -= 1;
        }
    }

    /// Gives a task the smallest key of what waits for it, or its own back.
    fn rekey(&mut self, id: TaskId, fx: &mut Effects) {
        let Some(slot) = self.slots.get(&id) else { return };
        let (before, after) = (slot.key, Self::key_of(slot, fx));
        if before == after || slot.outcome().is_some() {
            return;
        }
        self.change(id, fx, |slot, _| slot.key = after);
        self.pass_on(id, before);
    }

    /// Gives a task its own key, and later the smallest of what waits for it.
    fn reset(&mut self, id: TaskId, fx: &mut Effects) {
        let Some(slot) = self.slots.get(&id) else { return };
        let (before, after) = (slot.key, Self::own_key(slot, fx));
        if before == after || slot.outcome().is_some() {
            return;
        }
        self.change(id, fx, |slot, _| slot.key = after);
        self.pass_on(id, before);
        self.chores.push_back(Chore::Rekey(id));
    }

    /// A task that waits for others has another key now.
    pub(super) fn pass_on(&mut self, id: TaskId, before: OrderKey) {
        let Some(slot) = self.slots.get(&id) else { return };
        let (after, waits) = (slot.key, slot.waits.clone());
        for (on, _) in waits {
            if let Some(other) = self.slots.get_mut(&on)
                && other.dependants.remove(&(before, id))
            {
                other.dependants.insert((after, id));
                if after < other.key {
                    self.chores.push_back(Chore::Rekey(on));
                } else if before == other.key {
                    self.give_back(on, before);
                }
            }
        }
    }

    /// A task is finished; what depends on it hears of it.
    fn settle_edge(&mut self, id: TaskId, on: TaskId, fx: &mut Effects) {
        let is_done = self.slots.get(&on).and_then(|slot| slot.outcome()).is_some_and(|it| it.result().is_some());
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let edge = slot.waits.iter().position(|(other, _)| *other == on).map(|nth| slot.waits.remove(nth));
        let Some((_, on_failure)) = edge else { return };
        match on_failure {
            OnFailure::Fail if !is_done => self.fail(id, Cause::Dependency { task: on }, fx),
            OnFailure::Hold if !is_done => self.put_on_hold(id, on, fx),
            OnFailure::Run if slot.wait().is_some_and(|wait| wait.needs == Needs::Any) => {
                if is_done {
                    self.drop_edges(id);
                } else {
                    // One way out less.
                    self.suspects.insert(id);
                }
                self.proceed(id, fx);
            }
            _ => self.proceed(id, fx),
        }
    }

    pub(super) fn put_on_hold(&mut self, id: TaskId, because: TaskId, fx: &mut Effects) {
        self.set(id, State::OnHold(because), fx);
        fx.journal(self.record("on_hold", id).with("because", because.get()).with_severity(Severity::Medium));
        self.tell(id, fx);
    }

    /// A task goes on if there is nothing left to wait for.
    pub(super) fn proceed(&mut self, id: TaskId, fx: &mut Effects) {
        let Some(slot) = self.slots.get(&id).filter(|slot| slot.waits.is_empty()) else { return };
        match &slot.state {
            State::Waiting if slot.task.start > fx.now => {
                let start = slot.task.start;
                self.set(id, State::Delayed(start), fx);
            }
            State::Waiting => self.make_ready(id, fx.now, fx),
            // Its session is gone, and others take it up.
            State::Blocked(blocked) if self.sessions.check(&blocked.by).is_err() => {
                self.make_ready(id, fx.now, fx);
                self.tell(id, fx);
            }
            State::Blocked(blocked) => {
                let blocked = blocked.clone();
                self.offer_resumption(id, blocked, fx);
            }
            _ => {}
        }
    }

    /// The help is there: the session that had the task may resume it first.
    pub(super) fn offer_resumption(&mut self, id: TaskId, blocked: Box<Blocked>, fx: &mut Effects) {
        let waited_for = self.slots.get(&id).map_or(0, |slot| slot.answers.len());
        fx.journal(
            self.record("unblocked", id)
                .with("session", named(&blocked.by.session))
                .with("waited_for", waited_for as u64),
        );
        self.set(id, State::Resumable(blocked, fx.now + fx.config.resume_window), fx);
        self.tell(id, fx);
    }

    /// A task is given up on.
    pub(super) fn fail(&mut self, id: TaskId, cause: Cause, fx: &mut Effects) {
        let entry = self.record("failed", id);
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let entry = entry.with("failures", slot.failures);
        let entry = match &cause {
            Cause::Attempts => entry.with("cause", "attempts"),
            Cause::Fatal => entry.with("cause", "fatal"),
            Cause::Overdue => entry.with("cause", "overdue"),
            Cause::Dependency { task } => entry.with("cause", "dependency").with("dependency", task.get()),
            Cause::Deadlock { .. } => entry.with("cause", "deadlock"),
        };
        let history = std::mem::take(&mut slot.history);
        self.finish(id, Outcome::Failed { cause, history }, entry.with_severity(Severity::Medium), fx);
    }

    /// A task is over.
    pub(super) fn finish(&mut self, id: TaskId, outcome: Outcome, entry: Record, fx: &mut Effects) {
        let loss = match &outcome {
            Outcome::Done(_) => Loss::Ended,
            Outcome::Failed { .. } => Loss::Overdue,
            Outcome::Cancelled { reason } => Loss::Cancelled { reason: reason.clone() },
        };
        self.lose(id, loss);
        self.drop_edges(id);
        self.set(id, State::Finished(outcome, fx.now), fx);
        let Some(slot) = self.slots.get(&id) else { return };
        let (class, bytes, at) = (slot.class, slot.weight(), slot.task.deadline);
        if !slot.dependants.is_empty() {
            self.chores.push_back(Chore::Release(id));
        }
        if let Some(at) = at {
            self.timers.remove(&(at, Timer::Deadline(id)));
        }
        self.queues.leave_class(class);
        self.finished.push_back((fx.now, id));
        self.finished_bytes += bytes;
        fx.journal(entry);
        self.tell(id, fx);
    }

    /// A session ends its claim of a task. The task is still to be moved.
    pub(super) fn end_claim(&mut self, id: TaskId, ended: Ended, fx: &Effects) {
        self.progress.happened(fx.now);
        if let Some(slot) = self.slots.get_mut(&id)
            && let Some(token) = slot.hold().map(|hold| hold.token)
        {
            slot.ended_by_holder(token, ended);
        }
    }
}
