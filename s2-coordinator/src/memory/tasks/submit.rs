//! Submitting tasks.

use std::sync::Arc;

use crate::dependency::{OnFailure, TaskId};
use crate::entry::Record;
use crate::error::Error;
use crate::memory::effects::Effects;
use crate::memory::tasks::plan::{Plan, Planned, Target};
use crate::memory::tasks::slot::{Slot, State};
use crate::memory::tasks::{Tasks, Timer};
use crate::new_task::NewTask;
use crate::order::OrderKey;
use crate::outcome::{Cause, Outcome};
use crate::task::{Accepted, Submitted, Task, TaskState};
use crate::text::Text;

/// What a task does because of one that it was to wait for and that is over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Fails(TaskId),
    OnHold(TaskId),
    Goes,
}

impl Tasks {
    pub(in crate::memory) fn submit(&mut self, tasks: &[NewTask], fx: &mut Effects) -> Result<Vec<Submitted>, Error> {
        let plan = self.plan(tasks, None, false, &fx.config.limits)?;
        Ok(self.accept(tasks, &plan, fx))
    }

    /// Writes a batch that was planned in this step.
    pub(super) fn accept(&mut self, tasks: &[NewTask], planned: &[Planned], fx: &mut Effects) -> Vec<Submitted> {
        let first = fx.numbers(planned.iter().filter_map(Planned::as_new).count());
        let mut next = first;
        let mut ids: Vec<Submitted> = Vec::with_capacity(planned.len());
        for planned in planned {
            ids.push(match planned {
                Planned::Duplicate(id) => Submitted { id: *id, duplicate: true },
                Planned::Same(nth) => Submitted { id: ids[*nth].id, duplicate: true },
                Planned::New(_) => {
                    next += 1;
                    Submitted { id: TaskId::new(next - 1), duplicate: false }
                }
            });
        }
        let id_of = |target: &Target| match target {
            Target::Known(id) => *id,
            Target::Nth(nth) => ids[*nth].id,
        };
        let new = || planned.iter().enumerate().filter_map(|(nth, planned)| Some((nth, planned.as_new()?)));
        for (nth, plan) in new() {
            let after = plan.after.iter().map(|(target, on_failure)| (id_of(target), *on_failure)).collect();
            self.add(&tasks[nth], plan, ids[nth].id, after, fx);
        }
        for (nth, _) in new() {
            self.begin_task(ids[nth].id, false, fx);
        }
        ids
    }

    fn add(&mut self, new: &NewTask, plan: &Plan, id: TaskId, after: Vec<(TaskId, OnFailure)>, fx: &mut Effects) {
        let config = &fx.config;
        let path = if config.critical_path { plan.path } else { 0 };
        let (attempts, lease) = (config.attempts, config.lease);
        let accepted = Accepted { id, now: fx.now, after, depth: plan.depth, path, attempts, lease };
        let new = NewTask { parent: plan.parent, ..new.clone() };
        let assignee = new.assignee.clone();
        let mut task = Task::accepted(new, accepted);
        let (class, requires) = self.queues.enter_class(&task.requires);
        task.requires = requires;
        let key = OrderKey::new(task.start, task.priority, config.priority_step);
        // It is not among the others yet.
        let entry = Record::new("task", "submitted", Text::number(id.get()))
            .with("kind", task.kind.to_text())
            .with("priority", task.priority.as_str())
            .with("source", task.source.to_text())
            .with_trace(task.trace);
        fx.journal(match task.parent {
            Some(parent) => entry.with("parent", parent.get()),
            None => entry,
        });
        if let Some(parent) = task.parent.and_then(|parent| self.slots.get_mut(&parent)) {
            parent.children += 1;
        }
        if let Some(key) = &task.key {
            self.keys.insert(key.clone(), id);
        }
        if let Some(deadline) = task.deadline {
            self.arm(deadline, Timer::Deadline(id), fx);
        }
        let mut slot = Slot::new(Arc::new(task), class, key);
        slot.assignee = assignee;
        self.order.insert(id);
        self.slots.insert(id, Box::new(slot));
        self.counts[TaskState::Waiting as usize] += 1;
    }

    /// Lets a task that is new, or as new, wait for what is not finished, or go on. If it is `redriven`, somebody has decided
    /// that it need not be on hold.
    pub(super) fn begin_task(&mut self, id: TaskId, redriven: bool, fx: &mut Effects) {
        let Some(after) = self.slots.get(&id).map(|slot| slot.task.after.clone()) else { return };
        let mut verdict = Verdict::Goes;
        for &(on, on_failure) in &after {
            match self.slots.get(&on).map(|other| other.outcome()) {
                Some(None) => self.add_edge(id, on, on_failure),
                Some(Some(Outcome::Done(_))) | None => {}
                Some(Some(_)) => match (on_failure, verdict) {
                    (OnFailure::Fail, Verdict::Goes | Verdict::OnHold(_)) => verdict = Verdict::Fails(on),
                    (OnFailure::Hold, Verdict::Goes) if !redriven => verdict = Verdict::OnHold(on),
                    _ => {}
                },
            }
        }
        match verdict {
            Verdict::Fails(task) => self.fail(id, Cause::Dependency { task }, fx),
            Verdict::OnHold(task) => self.put_on_hold(id, task, fx),
            Verdict::Goes => self.proceed(id, fx),
        }
    }

    /// Gives tasks that failed, were cancelled or are on hold all their attempts anew.
    pub(in crate::memory) fn redrive(&mut self, ids: &[TaskId], fx: &mut Effects) -> Result<Vec<Submitted>, Error> {
        let mut answers: Vec<Submitted> = Vec::with_capacity(ids.len());
        for &id in ids {
            let slot = self.slot(id)?;
            let is_failed = match &slot.state {
                State::OnHold(_) => true,
                State::Finished(outcome, _) => outcome.result().is_none(),
                _ => false,
            };
            let duplicate = slot.redriven && !is_failed || answers.iter().any(|other| other.id == id);
            if !duplicate && !is_failed {
                let expected = "only one that has failed, was cancelled or is on hold can be redriven";
                return Err(Error::WrongState { task: id, state: slot.state(), expected });
            }
            answers.push(Submitted { id, duplicate });
            if duplicate {
                continue;
            }
            let unfinished = slot.task.after.iter().map(|(on, _)| *on).filter(|on| self.is_unfinished(*on));
            if let Some(cycle) = self.path_to(id, unfinished) {
                return Err(Error::DependencyCycle { cycle });
            }
            if matches!(slot.state, State::OnHold(_)) {
                continue;
            }
            let stands_in_the_way = slot.task.after.iter().find(|(on, on_failure)| {
                let failed =
                    self.slots.get(on).and_then(|other| other.outcome()).is_some_and(|it| it.result().is_none());
                let is_redriven = || answers.iter().any(|other| other.id == *on && !other.duplicate);
                *on_failure == OnFailure::Fail && failed && !is_redriven()
            });
            if let Some((on, _)) = stands_in_the_way {
                let state = self.slot(*on)?.state();
                let expected = "redrive it before what depends on it";
                return Err(Error::WrongState { task: *on, state, expected });
            }
        }
        let anew = answers.iter().filter(|answer| !answer.duplicate).filter_map(|answer| self.slots.get(&answer.id));
        let anew: Vec<_> = anew.filter(|slot| slot.outcome().is_some()).map(|slot| &slot.task.requires).collect();
        self.check_room(&anew, 0, &fx.config.limits)?;
        for answer in answers.iter().filter(|answer| !answer.duplicate) {
            self.revive(answer.id, fx);
        }
        Ok(answers)
    }

    fn revive(&mut self, id: TaskId, fx: &mut Effects) {
        let Some(slot) = self.slots.get(&id) else { return };
        let (was_on_hold, bytes) = (matches!(slot.state, State::OnHold(_)), slot.weight());
        fx.journal(self.record("redriven", id));
        let (requires, deadline) = (slot.task.requires.clone(), slot.task.deadline);
        if !was_on_hold {
            self.finished_bytes -= bytes;
            let (class, _) = self.queues.enter_class(&requires);
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.class = class;
            }
            // What was overdue may take its time now.
            if let Some(at) = deadline.filter(|at| *at > fx.now) {
                self.arm(at, Timer::Deadline(id), fx);
            }
        }
        self.change(id, fx, |slot, _| {
            (slot.blocked_by, slot.released) = (None, None);
            slot.state = State::Waiting;
        });
        let Some(slot) = self.slots.get_mut(&id) else { return };
        (slot.failures, slot.redriven, slot.since) = (0, true, fx.now.max(slot.task.start));
        slot.history.clear();
        let before = slot.key;
        slot.key = Self::key_of(slot, fx);
        if was_on_hold {
            // Somebody has decided: what failed counts as done, what is not finished is waited for.
            self.pass_on(id, before);
            let Some(slot) = self.slots.get(&id) else { return };
            let waits = |on: TaskId| slot.waits.iter().any(|(other, _)| *other == on);
            let again = slot.task.after.iter().filter(|(on, _)| self.is_unfinished(*on) && !waits(*on));
            for (on, on_failure) in again.copied().collect::<Vec<_>>() {
                self.add_edge(id, on, on_failure);
            }
            self.proceed(id, fx);
        } else {
            self.begin_task(id, true, fx);
        }
    }
}
