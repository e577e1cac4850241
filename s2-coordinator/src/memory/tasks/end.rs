//! Ending claims.

use std::collections::HashMap;
use std::sync::Arc;

use crate::dependency::{OnFailure, TaskId, TaskRef};
use crate::ending::{Blocker, Ended, Ending, Retry};
use crate::error::Error;
use crate::lease::{Claim, Lease};
use crate::memory::effects::Effects;
use crate::memory::tasks::deadlock::ask;
use crate::memory::tasks::plan::{Planned, Target};
use crate::memory::tasks::slot::{Blocked, Hold, State};
use crate::memory::tasks::{Tasks, Timer, list, named};
use crate::memory::topics::Topics;
use crate::outcome::{Cause, Completion, Outcome, Run, RunEnd};
use crate::scheduler::EndedAll;
use crate::text::Text;
use crate::time::Timestamp;
use crate::waits::Needs;

/// How many tasks a check for cycles looks at.
const LOOK_AT: usize = 10_000;

impl Tasks {
    pub(in crate::memory) fn end(
        &mut self,
        endings: Vec<(Lease, Ending)>,
        next: Option<&Claim>,
        topics: &mut Topics,
        fx: &mut Effects,
    ) -> Result<EndedAll, Error> {
        fx.config.limits.check_endings(&endings)?;
        if let Some(claim) = next {
            fx.config.limits.check_claim(claim.max)?;
            self.sessions.check(&claim.by)?;
        }
        let ended = endings.into_iter().map(|(lease, ending)| self.end_one(lease, ending, topics, fx)).collect();
        // What follows may be what is claimed.
        self.work(fx);
        let granted = match next.map(|claim| self.take(claim, fx)) {
            // The session has too many; what it has ended is ended all the same.
            None | Some(Err(Error::LimitExceeded { .. })) => Vec::new(),
            Some(granted) => granted?.unwrap_or_default(),
        };
        Ok(EndedAll { ended, granted })
    }

    fn end_one(&mut self, lease: Lease, ending: Ending, topics: &mut Topics, fx: &mut Effects) -> Result<Ended, Error> {
        let stale = || Error::StaleLease { task: lease.task, held: lease.token, current: None };
        let slot = self.slots.get(&lease.task).ok_or_else(stale)?;
        if let Some(before) = slot.answer(lease.token, &ending, fx.now)? {
            return Ok(before);
        }
        let hold = slot.hold_of(lease.token, fx.now)?.clone();
        fx.config.limits.check_ending(&ending)?;
        match ending {
            Ending::Complete(completion) => self.complete(lease.task, &hold, completion, topics, fx),
            Ending::Fail { reason, retry } => Ok(self.fail_attempt(lease.task, &hold, reason, retry, fx)),
            Ending::Release => Ok(self.release(lease.task, &hold, fx)),
            Ending::Refuse { reason, delay } => {
                let until = fx.now + delay.unwrap_or_else(|| fx.config.backoff.delay(1, &mut fx.random));
                let ended = Ended::Refused { until };
                self.end_claim(lease.task, ended.clone(), fx);
                self.back_off(lease.task, hold.by.number, until, fx);
                let entry = self.record("refused", lease.task).with("session", named(&hold.by.session));
                fx.journal(entry.with("token", hold.token.get()).with("reason", reason));
                // Others may take it, also from its own queue.
                self.open_to_all(lease.task, fx);
                Ok(ended)
            }
            Ending::Block(blocker) => self.block(lease.task, &hold, &blocker, fx),
        }
    }

    /// A session is not offered a task for a while.
    fn back_off(&mut self, id: TaskId, number: u64, until: Timestamp, fx: &mut Effects) {
        let Some(session) = self.sessions.get_mut(number) else { return };
        let before = session.refused_until(id).map(|at| (at, id));
        let forgotten = session.refuse(id, until);
        if forgotten.is_some() {
            self.nudged.push(number);
        }
        for (at, task) in before.into_iter().chain(forgotten) {
            self.timers.remove(&(at, Timer::Offer(task, number)));
        }
        self.arm(until, Timer::Offer(id, number), fx);
    }

    /// A task is ready for whoever is eligible.
    pub(super) fn open_to_all(&mut self, id: TaskId, fx: &mut Effects) {
        self.change(id, fx, |slot, _| {
            slot.assignee = None;
            slot.state = State::Ready;
        });
        self.tell(id, fx);
    }

    fn complete(
        &mut self,
        id: TaskId,
        hold: &Hold,
        completion: Completion,
        topics: &mut Topics,
        fx: &mut Effects,
    ) -> Result<Ended, Error> {
        let Completion { result, tasks, events } = completion;
        let plan = self.plan(&tasks, Some(id), true, &fx.config.limits)?;
        let events: Arc<[_]> = if events.is_empty() { Arc::default() } else { topics.publish(&events, fx)?.into() };
        let mut entry =
            self.record("completed", id).with("session", named(&hold.by.session)).with("token", hold.token.get());
        for (name, value) in result.evidence.iter() {
            entry = entry.with(Text::new(name), value.clone());
        }
        let tasks: Arc<[_]> = if tasks.is_empty() { Arc::default() } else { self.accept(&tasks, &plan, fx).into() };
        let ended = Ended::Completed { tasks, events };
        self.end_claim(id, ended.clone(), fx);
        self.finish(id, Outcome::Done(result), entry, fx);
        Ok(ended)
    }

    fn fail_attempt(&mut self, id: TaskId, hold: &Hold, reason: Text, retry: Retry, fx: &mut Effects) -> Ended {
        let Some(slot) = self.slots.get_mut(&id) else { return Ended::Failed };
        slot.failures += 1;
        let end = RunEnd::Failed { reason: reason.clone() };
        slot.history.push(Run::new(hold.by.session.clone(), hold.token, hold.started, fx.now, end));
        let (failures, is_last) = (slot.failures, slot.failures >= slot.task.attempts);
        let delay = match retry {
            Retry::Never => None,
            _ if is_last => None,
            Retry::After(delay) => Some(delay),
            Retry::Backoff => Some(fx.config.backoff.delay(failures, &mut fx.random)),
        };
        let Some(at) = delay.map(|delay| fx.now + delay) else {
            self.end_claim(id, Ended::Failed, fx);
            self.fail(id, if retry == Retry::Never { Cause::Fatal } else { Cause::Attempts }, fx);
            return Ended::Failed;
        };
        let ended = Ended::Retrying { at };
        self.end_claim(id, ended.clone(), fx);
        let entry = self.record("retried", id).with("session", named(&hold.by.session)).with("token", hold.token.get());
        fx.journal(entry.with("failures", failures).with("reason", reason));
        self.retry_at(id, at, fx);
        self.tell(id, fx);
        ended
    }

    /// A task is tried again from then on.
    pub(super) fn retry_at(&mut self, id: TaskId, at: Timestamp, fx: &mut Effects) {
        if at <= fx.now {
            return self.make_ready(id, fx.now, fx);
        }
        self.change(id, fx, |slot, fx| {
            slot.since = at;
            slot.key = Self::key_of(slot, fx);
            slot.state = State::Delayed(at);
        });
    }

    fn release(&mut self, id: TaskId, hold: &Hold, fx: &mut Effects) -> Ended {
        self.end_claim(id, Ended::Released, fx);
        let entry = self.record("released", id).with("session", named(&hold.by.session));
        fx.journal(entry.with("token", hold.token.get()));
        self.set(id, State::Ready, fx);
        self.tell(id, fx);
        Ended::Released
    }

    fn block(&mut self, id: TaskId, hold: &Hold, blocker: &Blocker, fx: &mut Effects) -> Result<Ended, Error> {
        let plan = self.plan(&blocker.help, Some(id), false, &fx.config.limits)?;
        let new = plan.iter().filter_map(Planned::as_new).flat_map(|plan| &plan.after);
        let after = new.filter_map(|(target, _)| match target {
            Target::Known(id) => Some(*id),
            Target::Nth(_) => None,
        });
        // Help that is there already, under its key, may be the task itself.
        let there = plan.iter().filter_map(|planned| match planned {
            Planned::Duplicate(id) => Some(*id),
            _ => None,
        });
        for on in &blocker.on {
            self.slot(*on)?;
        }
        if blocker.on.iter().copied().chain(there).any(|on| on == id) {
            return Err(Error::DependencyCycle { cycle: vec![TaskRef::Id(id)] });
        }
        // What is submitted must be able to start. What is there may wait for this task: that is a deadlock, and ends.
        if let Some(cycle) = self.path_to(id, after) {
            return Err(Error::DependencyCycle { cycle });
        }
        let help: Arc<[_]> = self.accept(&blocker.help, &plan, fx).into();
        let mut waits: Vec<TaskId> = help.iter().map(|help| help.id).chain(blocker.on.iter().copied()).collect();
        waits.sort_unstable();
        waits.dedup();
        let ended = Ended::Blocked { help };
        self.end_claim(id, ended.clone(), fx);
        let again = self.slots.get(&id).is_some_and(|slot| slot.is_blocked_again(&waits, blocker));
        fx.journal(
            self.record("blocked", id)
                .with("session", named(&hold.by.session))
                .with("token", hold.token.get())
                .with("reason", blocker.reason.clone())
                .with("requires", blocker.requires.to_string())
                .with("on", list(&waits)),
        );
        let blocked = Box::new(Blocked {
            by: hold.by.clone(),
            token: hold.token,
            reason: blocker.reason.clone(),
            requires: blocker.requires.clone(),
            awaited: blocker.awaited,
            needs: blocker.needs,
            since: fx.now,
            again,
            cycle: Vec::new(),
        });
        self.set(id, State::Blocked(blocked.clone()), fx);
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.answers.clone_from(&waits);
            slot.blocked_by = Some(blocked);
            if let Some(released) = &mut slot.released {
                released.is_latest = false;
            }
        }
        if again {
            ask("blocked_again", id, "a task was released and is blocked on the same again", &waits, fx);
        }
        let is_done =
            |on: &TaskId| self.slots.get(on).and_then(|slot| slot.outcome()).is_some_and(|it| it.result().is_some());
        let enough = blocker.needs == Needs::Any && waits.iter().any(is_done);
        let unfinished: Vec<TaskId> = waits.iter().copied().filter(|on| !enough && self.is_unfinished(*on)).collect();
        for &on in &unfinished {
            self.add_edge(id, on, OnFailure::Run);
        }
        self.suspects.insert(id);
        if self.sessions.check(&hold.by).is_err() {
            self.desert(id, fx);
        } else if !waits.is_empty() && unfinished.is_empty() {
            self.proceed(id, fx);
        }
        self.tell(id, fx);
        Ok(ended)
    }

    /// A way from one of these tasks to `id` along what they wait for, if there is one.
    pub(super) fn path_to(&self, id: TaskId, from: impl Iterator<Item = TaskId>) -> Option<Vec<TaskRef>> {
        let mut came_from = HashMap::new();
        let mut next: Vec<TaskId> = Vec::new();
        for task in from {
            if came_from.insert(task, None).is_none() {
                next.push(task);
            }
        }
        while let Some(at) = next.pop() {
            if at == id {
                let ways = std::iter::successors(Some(at), |at| came_from.get(at).copied().flatten());
                let mut cycle: Vec<TaskRef> = ways.map(TaskRef::Id).collect();
                cycle.reverse();
                cycle.rotate_right(1);
                return Some(cycle);
            }
            if came_from.len() > LOOK_AT {
                return None;
            }
            for (on, _) in self.slots.get(&at).into_iter().flat_map(|slot| &slot.waits) {
                if !came_from.contains_key(on) {
                    came_from.insert(*on, Some(at));
                    next.push(*on);
                }
            }
        }
        None
    }

    /// If the session that had blocked a task is gone, whoever is eligible takes it up when the help is there.
    pub(super) fn desert(&mut self, id: TaskId, fx: &mut Effects) {
        let Some(slot) = self.slots.get(&id) else { return };
        let (State::Blocked(blocked) | State::Resumable(blocked, _)) = &slot.state else { return };
        if self.sessions.check(&blocked.by).is_ok() {
            return;
        }
        if matches!(slot.state, State::Resumable(..)) {
            self.set(id, State::Ready, fx);
        } else {
            self.set(id, State::Waiting, fx);
            self.proceed(id, fx);
        }
        self.tell(id, fx);
    }

    /// Nobody cares for a claim any more.
    pub(in crate::memory) fn abandon(&mut self, lease: &Lease, fx: &mut Effects) {
        let Some(slot) = self.slots.get_mut(&lease.task) else { return };
        match &mut slot.state {
            // Also one that was resumed, and nobody has heard of it.
            State::Claimed(hold) if hold.token == lease.token || hold.resumes == Some(lease.token) => {
                let hold = hold.clone();
                self.release(lease.task, &hold, fx);
            }
            State::Blocked(blocked) if blocked.token == lease.token => blocked.awaited = false,
            State::Resumable(blocked, _) if blocked.token == lease.token => {
                blocked.awaited = false;
                self.nudged.push(blocked.by.number);
            }
            _ => {}
        }
    }

    pub(super) fn is_unfinished(&self, id: TaskId) -> bool {
        self.slots.get(&id).is_some_and(|slot| slot.outcome().is_none())
    }
}
