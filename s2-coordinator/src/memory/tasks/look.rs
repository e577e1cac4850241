//! What there is to see.

use crate::dependency::TaskId;
use crate::error::Error;
use crate::lease::{Lease, Loss};
use crate::memory::tasks::Tasks;
use crate::memory::tasks::slot::{Slot, State};
use crate::outcome::Outcome;
use crate::registry::{SessionInfo, SessionState, Stats, Tasks as Which};
use crate::scheduler::TaskPage;
use crate::swarm::SwarmId;
use crate::task::{TaskState, TaskStatus};
use crate::why::{Link, Why};

/// How many tasks a listing looks at in one step.
const LOOK_AT: usize = 10_000;
/// How many tasks are counted that come before another.
const AHEAD: usize = 1_000;
/// How many tasks are named that another waits for.
const NAMED: usize = 20;

impl Tasks {
    pub(in crate::memory) fn stats(&self) -> Stats {
        Stats { tasks: self.counts, sessions: self.sessions.len() as u64, classes: self.queues.class_count() as u64 }
    }

    pub(in crate::memory) fn status(&self, id: TaskId) -> Result<TaskStatus, Error> {
        self.slot(id).map(Slot::status)
    }

    pub(in crate::memory) fn outcome(&self, id: TaskId) -> Result<Option<Outcome>, Error> {
        self.slot(id).map(|slot| slot.outcome().cloned())
    }

    /// Why a claim is over; nothing while it is not.
    pub(in crate::memory) fn loss(&self, lease: &Lease) -> Option<Loss> {
        match self.slots.get(&lease.task) {
            Some(slot) => slot.loss(lease.token),
            None => Some(Loss::Forgotten),
        }
    }

    pub(in crate::memory) fn list(&self, which: &Which, most: usize) -> TaskPage {
        let from = which.after.map_or(TaskId::default(), TaskId::next);
        let mut page = TaskPage { items: Vec::new(), next: None };
        for (nth, id) in self.order.range(from..).enumerate() {
            if page.items.len() == which.limit.unwrap_or(most) || nth == LOOK_AT {
                return page;
            }
            page.next = Some(*id);
            let matching = self.slots.get(id).filter(|slot| matches(slot, which));
            page.items.extend(matching.map(|slot| slot.status()));
        }
        page.next = None;
        page
    }

    pub(in crate::memory) fn list_sessions(&self, after: Option<&SwarmId>, limit: usize) -> Vec<SessionInfo> {
        let describe = |session: &crate::memory::tasks::sessions::Session| {
            let mut info = SessionInfo::new(session.incarnation.clone(), session.offers.clone());
            info.load = session.held.len();
            info.queued = self.own.len(&session.incarnation.session);
            info.blocked = session.blocked.len();
            let waits = |id| self.slots.get(id).is_some_and(|slot| !slot.waits.is_empty());
            info.state = match (info.load, info.blocked) {
                (1.., _) => SessionState::Working,
                (0, 0) => SessionState::Idle,
                (0, _) if session.blocked.iter().take(100).any(waits) => SessionState::WaitingOn,
                (0, _) => SessionState::Blocked,
            };
            info
        };
        self.sessions.after(after).take(limit).map(describe).collect()
    }

    pub(in crate::memory) fn why(&self, id: TaskId) -> Result<Why, Error> {
        let slot = self.slot(id)?;
        Ok(match &slot.state {
            State::Waiting => {
                let (on, count) = self.waits(slot);
                let chain = self.chain(slot);
                let deserted = slot.wait().map(|wait| wait.by.session.clone());
                Why::Waiting { on, count, chain, deserted }
            }
            State::Delayed(until) => match slot.history.last() {
                None => Why::NotYet { start: *until },
                Some(run) => Why::BacksOff { until: *until, failures: slot.failures, reason: run.end.reason() },
            },
            State::Ready => self.why_ready(slot),
            State::Resumable(blocked, until) => {
                Why::Resumable { session: blocked.by.session.clone(), until: *until, preempted: slot.preempted() }
            }
            State::Claimed(hold) if self.sessions.get(hold.by.number).is_none() => {
                Why::Lost { by: hold.by.clone(), lease: slot.lease(hold.token), deadline: hold.deadline }
            }
            State::Claimed(hold) => Why::Running {
                by: hold.by.clone(),
                lease: slot.lease(hold.token),
                since: hold.started,
                deadline: hold.deadline,
                progressed: hold.progressed,
            },
            State::Blocked(blocked) if !blocked.cycle.is_empty() => Why::Deadlocked {
                session: blocked.by.session.clone(),
                reason: blocked.reason.clone(),
                since: blocked.since,
                cycle: blocked.cycle.clone(),
            },
            State::Blocked(blocked) => {
                let (on, count) = self.waits(slot);
                let chain = self.chain(slot);
                Why::Blocked {
                    session: blocked.by.session.clone(),
                    reason: blocked.reason.clone(),
                    requires: blocked.requires.clone(),
                    on,
                    count,
                    needs: blocked.needs,
                    since: blocked.since,
                    chain,
                }
            }
            State::OnHold(because) => Why::OnHold { because: *because },
            State::Finished(Outcome::Done(_), _) => Why::Done,
            State::Finished(Outcome::Failed { cause, history }, _) => {
                let reason = history.last().map(|run| run.end.reason());
                Why::Failed { cause: cause.clone(), reason }
            }
            State::Finished(Outcome::Cancelled { reason }, _) => Why::Cancelled { reason: reason.clone() },
        })
    }

    /// The first task that another waits for, what that one waits for, and so on.
    fn chain(&self, slot: &Slot) -> Vec<Link> {
        let first = |slot: &Slot| slot.waits.iter().map(|(on, _)| *on).min().and_then(|on| self.slots.get(&on));
        let chain = std::iter::successors(first(slot), |slot| first(slot)).take(NAMED);
        chain.map(|slot| Link { task: slot.id(), state: slot.state(), session: slot.session().cloned() }).collect()
    }

    /// What a task waits for: the first few by number and where they are, and how many there are.
    fn waits(&self, slot: &Slot) -> (Vec<(TaskId, TaskState)>, u64) {
        let mut waits: Vec<TaskId> = slot.waits.iter().map(|(on, _)| *on).collect();
        waits.sort_unstable();
        let state = |id: TaskId| Some((id, self.slots.get(&id)?.state()));
        let count = waits.len() as u64;
        (waits.into_iter().take(NAMED).filter_map(state).collect(), count)
    }

    fn why_ready(&self, slot: &Slot) -> Why {
        let requires = &slot.task.requires;
        if let Some(name) = &slot.assignee {
            let Some(session) = self.sessions.named(name) else { return Why::Absent { session: name.clone() } };
            if let Some(until) = session.refused_until(slot.id()) {
                return Why::Refused { until };
            }
            let ahead = self.own.ahead(name, slot.class, slot.place(), AHEAD) as u64;
            return Why::Assigned { session: name.clone(), ahead };
        }
        let all = || self.sessions.after(None);
        let mut eligible = all().filter(|session| self.queues.may(session.kind, slot.class)).peekable();
        if eligible.peek().is_none() {
            let others = all().filter(|session| requires.is_dedicated() || !session.offers.is_dedicated());
            let lacks = others.map(|session| (session.offers.missing(requires), &session.incarnation.session));
            return match lacks.min_by_key(|(missing, name)| (missing.len(), *name)) {
                Some((missing, closest)) => Why::NotCapable { closest: closest.clone(), missing },
                None => Why::NoSession,
            };
        }
        let refused: Vec<_> = eligible.map(|session| session.refused_until(slot.id())).collect();
        if let Some(until) = refused.iter().copied().collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().min()) {
            return Why::Refused { until };
        }
        let ready = self.queues.class(slot.class).map(|class| class.ready.range(..slot.place()).take(AHEAD).count());
        Why::Queued { ahead: ready.unwrap_or(0) as u64, eligible: refused.len() as u64 }
    }
}

fn matches(slot: &Slot, which: &Which) -> bool {
    which.state.is_none_or(|state| slot.state() == state)
        && which.kind.as_ref().is_none_or(|kind| slot.task.kind == *kind)
        && which.parent.is_none_or(|parent| slot.task.parent == Some(parent))
        && which.session.as_ref().is_none_or(|session| slot.session() == Some(session))
}
