//! A session of a fleet: it claims tasks.

use std::sync::Arc;

use async_trait::async_trait;

use crate::dependency::TaskId;
use crate::error::Error;
use crate::held::{CompletedAll, Core, Held, NotEnded};
use crate::lease::{Claim, Incarnation};
use crate::limits::check;
use crate::new_task::NewTask;
use crate::outcome::Completion;
use crate::registry::{Profile, Tasks};
use crate::scheduler::Scheduler;
use crate::task::{Submitted, TaskState};
use crate::waits::WaitGraph;

/// How many tasks a graph of waits has at most.
const MOST_WAITERS: usize = 100_000;

/// A session that has entered a fleet. Clones are the same session; several of its tasks may claim at once. It leaves when the
/// last clone, and the last guard of a task that it has, is dropped.
///
/// What it has is renewed by a task on the runtime of its first claim, or of the next one if that has ended.
#[derive(Clone, Debug)]
pub struct Session {
    core: Arc<Core>,
}

impl Session {
    /// Enters the fleet. An older session of this name is superseded.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::enter`].
    ///
    /// # Cancel safety
    ///
    /// As [`Scheduler::enter`].
    pub async fn enter(scheduler: Arc<dyn Scheduler>, profile: &Profile) -> Result<Self, Error> {
        let incarnation = scheduler.enter(profile).await?;
        Ok(Self { core: Arc::new(Core::new(scheduler, incarnation)) })
    }

    /// Which session it is.
    #[must_use]
    pub fn incarnation(&self) -> &Incarnation {
        &self.core.incarnation
    }

    /// A request for at most `max` tasks under a number of its own, for those who claim by [`Scheduler::claim`] and renew for
    /// themselves.
    #[must_use]
    pub fn request(&self, max: usize) -> Claim {
        self.core.request(max)
    }

    /// Waits for the next task. `None` when the session has left or its scheduler was closed.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::claim`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: when the future is dropped before it is ready, nothing was claimed.
    pub async fn claim(&self) -> Result<Option<Held>, Error> {
        Ok(self.claim_batch(1).await?.pop())
    }

    /// Waits until there is something to do, and claims up to `max` tasks. Empty when the session has left or its scheduler
    /// was closed.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::claim`].
    ///
    /// # Cancel safety
    ///
    /// As [`Session::claim`].
    pub async fn claim_batch(&self, max: usize) -> Result<Vec<Held>, Error> {
        self.core.check_runtime()?;
        let granted = self.core.scheduler.claim(&self.request(max)).await?;
        granted.into_iter().map(|grant| self.core.guard(grant)).collect()
    }

    /// The next task if there is one at once.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::take`].
    ///
    /// # Cancel safety
    ///
    /// What was claimed by a future that is dropped comes back when its lease ends.
    pub async fn try_claim(&self) -> Result<Option<Held>, Error> {
        self.core.check_runtime()?;
        let granted = self.core.scheduler.take(&self.request(1)).await?;
        granted.into_iter().next().map(|grant| self.core.guard(grant)).transpose()
    }

    /// Completes several tasks and claims up to `next` more, in one call. Answers for each task in order.
    ///
    /// # Errors
    ///
    /// As [`Leases::end`](crate::Leases::end); then the guards are given back.
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; what was not completed is released.
    pub async fn complete_all(
        &self,
        done: Vec<(Held, Completion)>,
        next: usize,
    ) -> Result<CompletedAll, NotEnded<Vec<Held>>> {
        self.core.complete_all(done, next).await
    }

    /// Leaves: waiting claims end with nothing, and what it had blocked goes to others. Tasks that it holds may be ended all
    /// the same. Repeating it is safe.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::leave`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the session completes it.
    pub async fn leave(&self) -> Result<(), Error> {
        self.core.scheduler.leave(&self.core.incarnation).await.map(drop)
    }
}

/// What follows from the verbs of a scheduler.
#[async_trait]
pub trait SchedulerExt: Scheduler {
    /// Submits one task.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::submit`].
    ///
    /// # Cancel safety
    ///
    /// As [`Scheduler::submit`].
    async fn submit_one(&self, task: &NewTask) -> Result<Submitted, Error> {
        let submitted = self.submit(std::slice::from_ref(task)).await?;
        let unanswered = || Error::Backend { retryable: false, source: "no answer for a submitted task".into() };
        submitted.into_iter().next().ok_or_else(unanswered)
    }

    /// Enters the fleet as a session.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::enter`].
    ///
    /// # Cancel safety
    ///
    /// As [`Scheduler::enter`].
    async fn join(&self, profile: &Profile) -> Result<Session, Error>
    where
        Self: Clone,
    {
        Session::enter(Arc::new(self.clone()), profile).await
    }

    /// These tasks and everything that they wait for; without any, everything that waits. Of a fleet that goes on meanwhile it
    /// is not one moment's picture.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::waits`]; [`Error::LimitExceeded`] when there are more than 100,000 of them.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn wait_graph(&self, tasks: &[TaskId]) -> Result<WaitGraph, Error> {
        let mut wanted = tasks.to_vec();
        for state in [TaskState::Blocked, TaskState::Waiting] {
            let mut which = tasks.is_empty().then(|| Tasks::all().with_state(state));
            while let Some(listed) = which {
                let page = self.list(&listed).await?;
                wanted.extend(page.items.iter().map(|status| status.task.id));
                which = page.next.map(|next| listed.after(next));
            }
        }
        let mut graph = WaitGraph::default();
        while !wanted.is_empty() {
            for batch in wanted.chunks(100) {
                graph.extend(self.waits(batch).await?);
                check("tasks", || "the graph".into(), graph.len(), MOST_WAITERS)?;
            }
            // What is missing and not known any more is over.
            let missing = graph.missing();
            wanted = if missing == wanted { Vec::new() } else { missing };
        }
        Ok(graph)
    }
}

impl<S: Scheduler + ?Sized> SchedulerExt for S {}
