//! The scheduler of a [`MemoryStore`](crate::MemoryStore).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use async_trait::async_trait;
use tracing::instrument;

use crate::clock::Clock;
use crate::dependency::TaskId;
use crate::ending::{Ending, Retry};
use crate::error::Error;
use crate::lease::{Claim, Grant, Incarnation, Lease, Loss};
use crate::limits::{Limits, check};
use crate::memory::handle::Handle;
use crate::memory::store::{Inner, MemoryStore};
use crate::memory::timer;
use crate::memory::wait::Ticket;
use crate::new_task::NewTask;
use crate::outcome::Outcome;
use crate::registry::{Profile, SessionInfo, Stats, Tasks};
use crate::scheduler::{EndedAll, Leases, Scheduler, TaskPage};
use crate::swarm::SwarmId;
use crate::task::{Submitted, TaskStatus};
use crate::text::Text;
use crate::time::Timestamp;
use crate::waits::Waiter;
use crate::why::Why;

/// A [`Scheduler`] of a fleet in memory. Clones are the same handle: closing one closes all.
#[derive(Clone, Debug)]
pub struct MemoryScheduler {
    store: MemoryStore,
    handle: Arc<Handle>,
}

impl MemoryStore {
    /// A scheduler of this fleet. Each call makes another handle, which can be closed on its own.
    #[must_use]
    pub fn scheduler(&self) -> MemoryScheduler {
        let id = self.with(|inner| inner.fx.number());
        MemoryScheduler { store: self.clone(), handle: Arc::new(Handle::new(id)) }
    }
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug)]
enum For<'a> {
    /// Something to do.
    Claim(&'a Incarnation),
    /// News of a task.
    News(TaskId),
}

/// Somebody who waits. One that was woken but is dropped before it took anything wakes the next.
struct Waiting<'a> {
    scheduler: &'a MemoryScheduler,
    what: For<'a>,
    ticket: Option<Ticket>,
}

impl Waiting<'_> {
    fn register(&mut self, inner: &mut Inner, waker: &Waker) {
        let ticket = inner.fx.ticket(self.ticket);
        self.ticket = Some(ticket);
        match self.what {
            For::Claim(by) => inner.tasks.wait_to_claim(by, ticket, waker),
            For::News(task) => inner.tasks.watch(task, self.scheduler.handle.id, ticket, waker),
        }
    }

    /// Leaves the queue, perhaps to come back at once. Who had been woken may take something else than it was woken for, or
    /// nothing: others are woken for whatever it leaves.
    fn leave(&self, inner: &mut Inner, comes_back: bool) {
        let Some(ticket) = self.ticket else { return };
        match self.what {
            For::Claim(by) => inner.tasks.stop_waiting_to_claim(by, ticket, comes_back),
            For::News(task) => inner.tasks.stop_watching(task, ticket),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.scheduler.store.with(|inner| self.leave(inner, false));
        }
    }
}

impl MemoryScheduler {
    /// Runs a step, unless the handle is closed.
    fn step<R>(&self, act: impl FnOnce(&mut Inner) -> Result<R, Error>) -> Result<R, Error> {
        self.store.with(|inner| if self.handle.is_closed() { Err(Error::Closed) } else { act(inner) })
    }

    fn limits(&self) -> &Limits {
        &self.store.config().limits
    }

    /// Tries in a step, and again whenever there may be something else to find, until there is an answer.
    async fn wait_for<T>(
        &self,
        what: For<'_>,
        mut attempt: impl FnMut(&mut Inner) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let mut waiting = Waiting { scheduler: self, what, ticket: None };
        poll_fn(|cx| {
            // Whoever waits needs the timer; if its runtime is gone, this one's will do.
            timer::ensure(self.store.shared())?;
            let answer = self.store.with(|inner| {
                let answer = if self.handle.is_closed() { Err(Error::Closed) } else { attempt(inner) };
                let answer = answer.transpose();
                waiting.leave(inner, answer.is_none());
                match answer {
                    Some(answer) => {
                        waiting.ticket = None;
                        Poll::Ready(answer)
                    }
                    None => {
                        waiting.register(inner, cx.waker());
                        Poll::Pending
                    }
                }
            });
            if answer.is_pending() {
                // Its runtime may have ended just before this waiter was queued, and so have woken all but this one.
                timer::ensure(self.store.shared())?;
            }
            answer
        })
        .await
    }
}

#[async_trait]
impl Leases for MemoryScheduler {
    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(endings = endings.len()))]
    async fn end(&self, endings: Vec<(Lease, Ending)>, next: Option<&Claim>) -> Result<EndedAll, Error> {
        self.store.with(|inner| {
            let next = next.filter(|_| !self.handle.is_closed());
            inner.tasks.end(endings, next, &mut inner.topics, &mut inner.fx)
        })
    }

    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(leases = leases.len()))]
    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Result<Timestamp, Error>>, Error> {
        check("batch", || "a batch of renewals".into(), leases.len(), self.limits().batch)?;
        Ok(self.store.with(|inner| leases.iter().map(|lease| inner.tasks.renew(lease, false, &mut inner.fx)).collect()))
    }

    async fn progress(&self, lease: &Lease) -> Result<Timestamp, Error> {
        self.store.with(|inner| inner.tasks.renew(lease, true, &mut inner.fx))
    }

    async fn lost(&self, lease: &Lease) -> Result<Loss, Error> {
        self.wait_for(For::News(lease.task), |inner| Ok(inner.tasks.loss(lease))).await
    }

    fn abandon(&self, lease: &Lease) {
        self.store.with(|inner| inner.tasks.abandon(lease, &mut inner.fx));
    }

    fn fail_soon(&self, lease: &Lease, reason: Text) {
        let fail = vec![(*lease, Ending::Fail { reason, retry: Retry::Backoff })];
        // A claim that is over needs no end.
        drop(self.store.with(|inner| inner.tasks.end(fail, None, &mut inner.topics, &mut inner.fx)));
    }
}

#[async_trait]
impl Scheduler for MemoryScheduler {
    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(tasks = tasks.len()))]
    async fn submit(&self, tasks: &[NewTask]) -> Result<Vec<Submitted>, Error> {
        self.step(|inner| inner.tasks.submit(tasks, &mut inner.fx))
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(session = %profile.session))]
    async fn enter(&self, profile: &Profile) -> Result<Incarnation, Error> {
        self.step(|inner| inner.tasks.enter(profile, &mut inner.fx))
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(session = %session.session))]
    async fn leave(&self, session: &Incarnation) -> Result<bool, Error> {
        Ok(self.store.with(|inner| inner.tasks.leave(session, &mut inner.fx)))
    }

    fn leave_soon(&self, session: &Incarnation) {
        self.store.with(|inner| inner.tasks.leave(session, &mut inner.fx));
    }

    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(session = %claim.by.session))]
    async fn claim(&self, claim: &Claim) -> Result<Vec<Grant>, Error> {
        let granted = self.wait_for(For::Claim(&claim.by), |inner| inner.tasks.take(claim, &mut inner.fx));
        match granted.await {
            Err(Error::Closed | Error::StaleSession { current: None, .. }) => Ok(Vec::new()),
            granted => granted,
        }
    }

    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(session = %claim.by.session))]
    async fn take(&self, claim: &Claim) -> Result<Vec<Grant>, Error> {
        self.step(|inner| inner.tasks.take(claim, &mut inner.fx)).map(Option::unwrap_or_default)
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(session = %session.session, task = %lease.task))]
    async fn resume(&self, session: &Incarnation, lease: &Lease) -> Result<Grant, Error> {
        self.wait_for(For::News(lease.task), |inner| inner.tasks.resume(session, lease, &mut inner.fx)).await
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(%task))]
    async fn unblock(&self, task: TaskId) -> Result<bool, Error> {
        self.step(|inner| inner.tasks.unblock(task, &mut inner.fx))
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(%task))]
    async fn assign(&self, task: TaskId, session: Option<&SwarmId>) -> Result<(), Error> {
        self.step(|inner| inner.tasks.assign(task, session, &mut inner.fx))
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(%task))]
    async fn cancel(&self, task: TaskId, reason: Text) -> Result<bool, Error> {
        self.step(|inner| inner.tasks.cancel(task, reason, &mut inner.fx))
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(tasks = tasks.len()))]
    async fn redrive(&self, tasks: &[TaskId]) -> Result<Vec<Submitted>, Error> {
        check("batch", || "a batch of redrives".into(), tasks.len(), self.limits().batch)?;
        self.step(|inner| inner.tasks.redrive(tasks, &mut inner.fx))
    }

    async fn task(&self, task: TaskId) -> Result<TaskStatus, Error> {
        self.step(|inner| inner.tasks.status(task))
    }

    async fn list(&self, which: &Tasks) -> Result<TaskPage, Error> {
        let most = self.limits().batch;
        self.limits().check_page(which.limit.unwrap_or(most))?;
        self.step(|inner| Ok(inner.tasks.list(which, most)))
    }

    async fn sessions(&self, after: Option<&SwarmId>, limit: usize) -> Result<Vec<SessionInfo>, Error> {
        self.limits().check_page(limit)?;
        self.step(|inner| Ok(inner.tasks.list_sessions(after, limit)))
    }

    async fn stats(&self) -> Result<Stats, Error> {
        self.step(|inner| Ok(inner.tasks.stats()))
    }

    async fn outcome(&self, task: TaskId) -> Result<Option<Outcome>, Error> {
        self.step(|inner| inner.tasks.outcome(task))
    }

    async fn wait(&self, task: TaskId) -> Result<Outcome, Error> {
        self.wait_for(For::News(task), |inner| inner.tasks.outcome(task)).await
    }

    async fn waits(&self, tasks: &[TaskId]) -> Result<Vec<Waiter>, Error> {
        let most = self.limits().batch;
        check("batch", || "a batch of tasks".into(), tasks.len(), most)?;
        self.step(|inner| Ok(inner.tasks.waiters(tasks, most)))
    }

    async fn why(&self, task: TaskId) -> Result<Why, Error> {
        self.step(|inner| inner.tasks.why(task))
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(self.store.clock())
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    async fn close(&self) -> Result<(), Error> {
        self.store.with(|inner| {
            self.handle.close();
            inner.tasks.close(self.handle.id, &mut inner.fx);
        });
        Ok(())
    }
}
