//! Handing tasks out.

use std::sync::Arc;
use std::task::Waker;

use crate::dependency::TaskId;
use crate::error::Error;
use crate::lease::{Claim, Grant, Incarnation, Lease, Token, lease_end};
use crate::limits::check;
use crate::memory::effects::Effects;
use crate::memory::tasks::slot::{Hold, State};
use crate::memory::tasks::{Tasks, named};
use crate::memory::wait::Ticket;
use crate::swarm::SwarmId;
use crate::time::Timestamp;

impl Tasks {
    /// What a session can have at once; nothing where it would have to wait. A claim that is repeated has its answer, also if
    /// nothing of it is left.
    pub(in crate::memory) fn take(&mut self, claim: &Claim, fx: &mut Effects) -> Result<Option<Vec<Grant>>, Error> {
        let (limits, number) = (&fx.config.limits, claim.by.number);
        limits.check_claim(claim.max)?;
        let session = self.sessions.check(&claim.by)?;
        if let Some(leases) = session.requests.granted(claim.request) {
            return Ok(Some(self.still_held(leases, fx.now)));
        }
        let has = session.held.len();
        check("leases", || format!("session {}", claim.by.session), has + 1, limits.leases)?;
        let room = claim.max.min(limits.leases - has);
        // Most claims are for one.
        let mut granted = Vec::with_capacity(1);
        while granted.len() < room
            && let Some(id) = self.next_for(number, fx)
        {
            granted.extend(self.grant(id, &claim.by, None, fx));
        }
        if granted.is_empty() {
            return Ok(None);
        }
        if let Some(session) = self.sessions.get_mut(number) {
            let (slots, held, now) = (&self.slots, &session.held, fx.now);
            let is_held = |lease: &Lease| {
                let slot = slots.get(&lease.task).filter(|_| held.contains(&lease.task));
                slot.is_some_and(|slot| slot.hold_of(lease.token, now).is_ok())
            };
            session.requests.remember(claim.request, granted.iter().map(|grant| grant.lease).collect(), is_held);
        }
        Ok(Some(granted))
    }

    /// What was granted once, as far as it is still held.
    fn still_held(&self, leases: &[Lease], now: Timestamp) -> Vec<Grant> {
        let held = |lease: &Lease| {
            let slot = self.slots.get(&lease.task)?;
            slot.hold_of(lease.token, now).ok().and_then(|_| slot.grant())
        };
        leases.iter().filter_map(held).collect()
    }

    /// What a session does next: what it may resume and what is in its own queue, then what is in any queue, and if it has
    /// nothing at all, what it can steal.
    fn next_for(&mut self, number: u64, fx: &mut Effects) -> Option<TaskId> {
        let session = self.sessions.get(number)?;
        let (kind, name) = (session.kind, &session.incarnation.session);
        let skip = |task: TaskId| session.refuses(task);
        let may = |class| self.queues.may(kind, class);
        let resumable = session.resumable.iter().copied().find(|place| {
            let state = self.slots.get(&place.task).map(|slot| &slot.state);
            matches!(state, Some(State::Resumable(blocked, _)) if !blocked.awaited)
        });
        let own = self.own.first(name, may, skip);
        if let Some(place) = resumable.into_iter().chain(own).min() {
            return Some(place.task);
        }
        let skip: Option<&dyn Fn(TaskId) -> bool> = if session.refuses_any() { Some(&skip) } else { None };
        if let Some(place) = self.queues.first(kind, skip) {
            return Some(place.task);
        }
        if !session.held.is_empty() {
            return None;
        }
        let (task, from) = self.theft(number, fx)?;
        let name = &self.sessions.get(number)?.incarnation.session;
        fx.journal(self.record("stolen", task).with("from", named(&from)).with("to", named(name)));
        self.change(task, fx, |slot, _| slot.assignee = None);
        Some(task)
    }

    /// What a session would steal, and from whom.
    pub(super) fn theft(&self, number: u64, fx: &Effects) -> Option<(TaskId, SwarmId)> {
        let session = self.sessions.get(number)?;
        let may = |class| self.queues.may(session.kind, class);
        let skip = |task| session.refuses(task);
        self.own.steal(&session.incarnation.session, fx.config.steal_above, may, skip)
    }

    /// Gives a task to a session.
    pub(super) fn grant(
        &mut self,
        id: TaskId,
        by: &Incarnation,
        resumes: Option<Token>,
        fx: &mut Effects,
    ) -> Option<Grant> {
        let token = Token::new(fx.number());
        let slot = self.slots.get(&id)?;
        let attempt = slot.failures + 1;
        let mut grant = Grant::new(Arc::clone(&slot.task), attempt, token, fx.now, slot.answers.clone());
        grant.deadline = grant.deadline.min(fx.now + fx.config.progress);
        grant.preempted = slot.preempted().map(Box::new);
        fx.journal(
            self.record("claimed", id)
                .with("session", named(&by.session))
                .with("token", token.get())
                .with("attempt", attempt),
        );
        let hold = Hold {
            by: by.clone(),
            token,
            started: fx.now,
            deadline: grant.deadline,
            expires: grant.expires,
            progressed: fx.now,
            resumes,
        };
        self.progress.happened(fx.now);
        self.change(id, fx, |slot, _| {
            (slot.blocked_by, slot.was_claimed) = (None, true);
            slot.state = State::Claimed(hold);
        });
        Some(grant)
    }

    /// What a session gets back that had blocked it; nothing while that has to wait.
    pub(in crate::memory) fn resume(
        &mut self,
        by: &Incarnation,
        lease: &Lease,
        fx: &mut Effects,
    ) -> Result<Option<Grant>, Error> {
        self.sessions.check(by)?;
        let stale = Error::StaleLease { task: lease.task, held: lease.token, current: None };
        let Some(slot) = self.slots.get(&lease.task) else { return Err(stale) };
        match &slot.state {
            State::Claimed(hold) if hold.by == *by && hold.resumes == Some(lease.token) => return Ok(slot.grant()),
            State::Blocked(blocked) if blocked.by == *by && blocked.token == lease.token => return Ok(None),
            State::Resumable(blocked, _) if blocked.by == *by && blocked.token == lease.token => {}
            // Nobody else has come for it.
            State::Ready if slot.blocked_by.as_ref().is_some_and(|it| it.by == *by && it.token == lease.token) => {}
            _ => return Err(slot.stale(lease.token)),
        }
        Ok(self.grant(lease.task, by, Some(lease.token), fx))
    }

    /// Renews a claim, perhaps because of progress.
    pub(in crate::memory) fn renew(
        &mut self,
        lease: &Lease,
        progress: bool,
        fx: &mut Effects,
    ) -> Result<Timestamp, Error> {
        let stale = || Error::StaleLease { task: lease.task, held: lease.token, current: None };
        let slot = self.slots.get(&lease.task).ok_or_else(stale)?;
        let mut hold = slot.hold_of(lease.token, fx.now)?.clone();
        if progress {
            hold.progressed = fx.now;
            self.progress.happened(fx.now);
        }
        let stalls = hold.progressed + fx.config.progress;
        hold.deadline = lease_end(fx.now, slot.task.lease, hold.expires).min(stalls);
        let deadline = hold.deadline;
        self.set(lease.task, State::Claimed(hold), fx);
        Ok(deadline)
    }

    /// Queues a waiting claim.
    pub(in crate::memory) fn wait_to_claim(&mut self, by: &Incarnation, ticket: Ticket, waker: &Waker) {
        if let Ok(session) = self.sessions.check(by) {
            self.queues.wait(session.kind, ticket, by.number, waker);
        }
    }

    /// A waiting claim leaves the queue. If it had been woken, others are for whatever is there that they can take. One that
    /// found nothing and comes back leaves nothing of its session's own.
    pub(in crate::memory) fn stop_waiting_to_claim(&mut self, by: &Incarnation, ticket: Ticket, comes_back: bool) {
        let kind = self.sessions.get(by.number).map(|session| session.kind);
        if self.queues.stop_waiting(kind, ticket) {
            return;
        }
        self.stealable = true;
        if !comes_back {
            self.nudged.push(by.number);
        }
    }

    /// Queues somebody who wants to know what becomes of a task.
    pub(in crate::memory) fn watch(&mut self, id: TaskId, handle: u64, ticket: Ticket, waker: &Waker) {
        self.watchers.entry(id).or_default().register(ticket, handle, waker);
    }

    pub(in crate::memory) fn stop_watching(&mut self, id: TaskId, ticket: Ticket) {
        let Some(list) = self.watchers.get_mut(&id) else { return };
        list.remove(ticket);
        if list.is_empty() {
            self.watchers.remove(&id);
        }
    }

    /// Wakes everybody who waits on a handle that was closed.
    pub(in crate::memory) fn close(&mut self, handle: u64, fx: &mut Effects) {
        fx.wake(self.queues.wake_all());
        for list in self.watchers.values_mut() {
            fx.wake(list.all(|other| other == handle));
        }
        self.watchers.retain(|_, list| !list.is_empty());
    }
}
