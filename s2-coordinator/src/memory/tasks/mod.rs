//! The tasks of a fleet: pure and synchronous.
//!
//! Each task is in one [`State`](slot::State), and [`Tasks::change`] is the one place where that changes and the indices with
//! it: queues, timers, what sessions have. What follows from a change for other tasks, however many, is a *chore*: a step
//! does up to 500 units of them, and later steps do the rest.

mod slot;
mod queue;
mod own;
mod requests;
mod sessions;
mod flow;
mod progress;
mod deadlock;
mod plan;
mod submit;
mod claim;
mod end;
mod control;
mod registry;
mod sweep;
mod look;

use std::collections::{BTreeSet, VecDeque};

use foldhash::HashMap;

use crate::dependency::{TaskId, TaskRef};
use crate::entry::{Record, Value};
use crate::error::Error;
use crate::lease::Loss;
use crate::memory::effects::Effects;
use crate::memory::tasks::own::OwnQueues;
use crate::memory::tasks::progress::Progress;
use crate::memory::tasks::queue::Queues;
use crate::memory::tasks::sessions::Sessions;
use crate::memory::tasks::slot::{Slot, State};
use crate::memory::wait::WaitList;
use crate::name::IdempotencyKey;
use crate::order::OrderKey;
use crate::swarm::SwarmId;
use crate::task::TaskState;
use crate::text::Text;
use crate::time::Timestamp;

/// How many other tasks a step changes at most because of what it did.
const UNITS: usize = 500;
/// How much of what is due a step does at most. What is overdue is done by the next one, which follows at once.
const DUE: usize = 1_000;

/// Something that is due at a point in time. Of what is due at the same, the smallest is done first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A claim ends.
    Lease(TaskId),
    /// A task must be done.
    Deadline(TaskId),
    /// A task may start.
    Start(TaskId),
    /// A task may be resumed by anybody.
    Window(TaskId),
    /// A task is offered again to a session that refused it.
    Offer(TaskId, u64),
    /// A task has been blocked for too long.
    Wait(TaskId),
}

/// What is left to do after a change.
#[derive(Clone, Debug)]
enum Chore {
    /// Tell what depends on a finished task.
    Release(TaskId),
    /// Give a task the smallest key of what waits for it.
    Rekey(TaskId),
    /// Give a task its own key.
    Reset(TaskId),
    /// Give what a session that is gone had blocked to others.
    Desert(TaskId),
    /// Give what is in the own queue of a session to everybody, as far as it is not there or cannot do it.
    Sift(SwarmId),
}

#[derive(Debug, Default)]
pub(in crate::memory) struct Tasks {
    slots: HashMap<TaskId, Box<Slot>>,
    /// All tasks in the order in which they were submitted.
    order: BTreeSet<TaskId>,
    keys: HashMap<IdempotencyKey, TaskId>,
    queues: Queues,
    own: OwnQueues,
    sessions: Sessions,
    timers: BTreeSet<(Timestamp, Timer)>,
    chores: VecDeque<Chore>,
    /// Tasks that may wait for ever from now on.
    suspects: BTreeSet<TaskId>,
    /// When anything last made progress, and whether a person knows that it is too long ago.
    progress: Progress,
    /// How many units of chores this step may still do.
    units: usize,
    /// How much of what is due it may still do.
    due: usize,
    /// Finished tasks, in the order in which they finished.
    finished: VecDeque<(Timestamp, TaskId)>,
    finished_bytes: u64,
    counts: [u64; TaskState::ALL.len()],
    /// Who wants to know what becomes of a task.
    watchers: HashMap<TaskId, WaitList>,
    /// Sessions for which there is something of their own.
    nudged: Vec<u64>,
    /// Whether there may be something to steal.
    stealable: bool,
}

impl Tasks {
    fn slot(&self, id: TaskId) -> Result<&Slot, Error> {
        self.slots.get(&id).map(|slot| &**slot).ok_or(Error::UnknownTask { task: TaskRef::Id(id) })
    }

    fn arm(&mut self, at: Timestamp, timer: Timer, fx: &mut Effects) {
        self.timers.insert((at, timer));
        fx.arm(at);
    }

    /// Moves a task from one state to another.
    fn set(&mut self, id: TaskId, state: State, fx: &mut Effects) {
        self.change(id, fx, |slot, _| slot.state = state);
    }

    /// Changes a task while it stands in no index: the one place where indices change.
    fn change(&mut self, id: TaskId, fx: &mut Effects, change: impl FnOnce(&mut Slot, &Effects)) {
        self.unindex(id, fx);
        let Some(slot) = self.slots.get_mut(&id) else { return };
        change(slot, fx);
        self.counts[slot.state() as usize] += 1;
        self.index(id, fx);
    }

    fn unindex(&mut self, id: TaskId, fx: &Effects) {
        let Some(slot) = self.slots.get(&id) else { return };
        self.counts[slot.state() as usize] -= 1;
        match &slot.state {
            State::OnHold(_) | State::Finished(..) => {}
            State::Waiting => {
                if let Some(at) = slot.wait().and_then(|wait| wait.patience(&fx.config)) {
                    self.timers.remove(&(at, Timer::Wait(id)));
                }
            }
            State::Ready => self.dequeue(id),
            State::Delayed(at) => drop(self.timers.remove(&(*at, Timer::Start(id)))),
            State::Resumable(blocked, until) => {
                self.timers.remove(&(*until, Timer::Window(id)));
                if let Some(session) = self.sessions.get_mut(blocked.by.number) {
                    session.resumable.remove(&slot.place());
                }
            }
            State::Claimed(hold) => {
                self.timers.remove(&(hold.deadline, Timer::Lease(id)));
                let Some(session) = self.sessions.get_mut(hold.by.number) else { return };
                session.held.remove(&id);
                if session.held.is_empty() && self.own.is_any_above(fx.config.steal_above) {
                    self.nudged.push(hold.by.number);
                }
            }
            State::Blocked(blocked) => {
                if let Some(at) = blocked.patience(&fx.config) {
                    self.timers.remove(&(at, Timer::Wait(id)));
                }
                if let Some(session) = self.sessions.get_mut(blocked.by.number) {
                    session.blocked.remove(&id);
                }
            }
        }
    }

    fn index(&mut self, id: TaskId, fx: &mut Effects) {
        let Some(slot) = self.slots.get(&id) else { return };
        match &slot.state {
            State::OnHold(_) | State::Finished(..) => {}
            State::Waiting => {
                if let Some(at) = slot.wait().and_then(|wait| wait.patience(&fx.config)) {
                    self.arm(at, Timer::Wait(id), fx);
                }
            }
            State::Ready => self.enqueue(id, fx),
            &State::Delayed(at) => self.arm(at, Timer::Start(id), fx),
            State::Resumable(blocked, until) => {
                let (number, until, awaited) = (blocked.by.number, *until, blocked.awaited);
                if let Some(session) = self.sessions.get_mut(number) {
                    session.resumable.insert(slot.place());
                }
                if !awaited {
                    self.nudged.push(number);
                }
                self.arm(until, Timer::Window(id), fx);
            }
            State::Claimed(hold) => {
                let (number, deadline) = (hold.by.number, hold.deadline);
                if let Some(session) = self.sessions.get_mut(number) {
                    session.held.insert(id);
                }
                self.arm(deadline, Timer::Lease(id), fx);
            }
            State::Blocked(blocked) => {
                let patience = blocked.patience(&fx.config);
                if let Some(session) = self.sessions.get_mut(blocked.by.number) {
                    session.blocked.insert(id);
                }
                if let Some(at) = patience {
                    self.arm(at, Timer::Wait(id), fx);
                }
            }
        }
    }

    /// Puts a task that is ready into its queue.
    fn enqueue(&mut self, id: TaskId, fx: &Effects) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let session = slot.assignee.as_ref().and_then(|assignee| self.sessions.named(assignee));
        // A session that is there and cannot do it, or that had it and is gone, would keep it for ever.
        let keeps = session.map_or(!slot.was_claimed, |session| self.queues.may(session.kind, slot.class));
        if !keeps {
            slot.assignee = None;
        }
        let Some(assignee) = &slot.assignee else { return self.queues.insert(slot.class, slot.place()) };
        self.own.insert(assignee, slot.class, slot.place(), slot.task.priority);
        self.nudged.extend(session.map(|session| session.incarnation.number));
        self.stealable |= self.own.len(assignee) > fx.config.steal_above;
    }

    fn dequeue(&mut self, id: TaskId) {
        let Some(slot) = self.slots.get(&id) else { return };
        match &slot.assignee {
            Some(assignee) => self.own.remove(assignee, slot.class, slot.place(), slot.task.priority),
            None => self.queues.remove(slot.class, slot.place()),
        }
    }

    fn own_key(slot: &Slot, fx: &Effects) -> OrderKey {
        OrderKey::new(slot.since, slot.task.priority, fx.config.priority_step)
    }

    /// The key of a task: its own, or that of what waits for it, if that is smaller.
    fn key_of(slot: &Slot, fx: &Effects) -> OrderKey {
        let own = Self::own_key(slot, fx);
        slot.dependants.first().map_or(own, |(key, _)| own.min(*key))
    }

    /// A task can be done from now on, and counts as ready since then.
    fn make_ready(&mut self, id: TaskId, since: Timestamp, fx: &mut Effects) {
        self.change(id, fx, |slot, fx| {
            slot.since = since;
            slot.key = Self::key_of(slot, fx);
            slot.state = State::Ready;
        });
    }

    /// Ends the claim of a task that its session did not end itself. The task is still to be moved.
    fn lose(&mut self, id: TaskId, loss: Loss) {
        if let Some(slot) = self.slots.get_mut(&id)
            && let Some(token) = slot.hold().map(|hold| hold.token)
        {
            slot.was_lost(token, loss);
        }
    }

    /// Whoever wants to know what becomes of a task looks again.
    fn tell(&mut self, id: TaskId, fx: &mut Effects) {
        if let Some(mut watchers) = self.watchers.remove(&id) {
            fx.wake(watchers.all(|_| true));
        }
    }

    /// Does what this step has left to do, and wakes who waits for what it did. Every step ends with it.
    pub(in crate::memory) fn conclude(&mut self, fx: &mut Effects) {
        self.work(fx);
        while self.chores.is_empty() && !self.suspects.is_empty() {
            self.check_suspects(fx);
            self.work(fx);
        }
        if self.chores.is_empty() && !self.finished.is_empty() {
            // What is finished may be forgotten from now on.
            fx.arm(self.next_due(fx));
        }
        self.watch_progress(fx);
        let sessions = &self.sessions;
        let refuses_all = |number: u64, class: &queue::Class| {
            let session = sessions.get(number).filter(|session| session.refuses_any());
            session.is_some_and(|session| class.ready.iter().all(|place| session.refuses(place.task)))
        };
        fx.wake(self.queues.wake(&refuses_all));
        for number in std::mem::take(&mut self.nudged) {
            let kind = self.sessions.get(number).and_then(|session| self.queues.kind_mut(session.kind));
            fx.wake(kind.and_then(|kind| kind.waiting.first(|other| other == number)));
        }
        if std::mem::take(&mut self.stealable) && self.own.is_any_above(fx.config.steal_above) {
            let is_idle = |number: u64| self.sessions.get(number).is_some_and(|session| session.held.is_empty());
            let steals = |number: u64| is_idle(number) && self.theft(number, fx).is_some();
            if let Some((ticket, kind)) = self.queues.longest_waiter(steals) {
                fx.wake(self.queues.kind_mut(kind).and_then(|kind| kind.waiting.take(ticket)));
            }
        }
    }

    /// Begins a step: what earlier ones have left over is done, up to a point.
    pub(in crate::memory) fn begin(&mut self, fx: &mut Effects) {
        (self.units, self.due) = (UNITS, DUE);
        if !self.chores.is_empty() {
            self.conclude(fx);
        }
    }

    /// Whether there is something left over that should be done soon.
    pub(in crate::memory) fn has_chores(&self) -> bool {
        !self.chores.is_empty()
    }

    /// An entry about a task.
    fn record(&self, operation: &'static str, id: TaskId) -> Record {
        let trace = self.slots.get(&id).and_then(|slot| slot.task.trace);
        Record::new("task", operation, Text::number(id.get())).with_trace(trace)
    }

    /// Wakes everybody who waits for anything.
    pub(in crate::memory) fn wake_all(&mut self, fx: &mut Effects) {
        fx.wake(self.queues.wake_all());
        let watchers = std::mem::take(&mut self.watchers);
        fx.wake(watchers.into_values().flat_map(|mut list| list.all(|_| true)));
    }
}

/// A name as a parameter of an entry.
fn named(name: &SwarmId) -> Text {
    name.to_text()
}

/// Tasks as a parameter of an entry.
fn list(tasks: &[TaskId]) -> Value {
    Value::List(tasks.iter().map(|task| task.get().into()).collect())
}
