//! A task in the hands of a session.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::ending::{Blocker, Ended, Ending, Retry};
use crate::error::Error;
use crate::lease::{Claim, Grant, Incarnation, Lease, Loss};
use crate::outcome::Completion;
use crate::renewals::Renewals;
use crate::scheduler::Scheduler;
use crate::task::{Submitted, Task};
use crate::text::Text;

/// What a session and the guards of its tasks share. The session leaves when nobody has it any more.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) scheduler: Arc<dyn Scheduler>,
    pub(crate) incarnation: Incarnation,
    requests: AtomicU64,
    renewals: Arc<Renewals>,
}

impl Core {
    pub(crate) fn new(scheduler: Arc<dyn Scheduler>, incarnation: Incarnation) -> Self {
        Self { scheduler, incarnation, requests: AtomicU64::new(0), renewals: Arc::default() }
    }

    pub(crate) fn request(&self, max: usize) -> Claim {
        let request = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        Claim { by: self.incarnation.clone(), request, max }
    }

    /// Fails where nothing could be guarded. Called before anything is claimed.
    pub(crate) fn check_runtime(&self) -> Result<(), Error> {
        Handle::try_current().map(drop).map_err(|_| Error::NoRuntime)
    }

    /// Guards a task that was granted.
    pub(crate) fn guard(self: &Arc<Self>, grant: Grant) -> Result<Held, Error> {
        let held = Held { grant, core: Some(Arc::clone(self)) };
        self.renewals.keep(&self.scheduler, &held.grant)?;
        Ok(held)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.scheduler.leave_soon(&self.incarnation);
        self.renewals.close();
    }
}

/// A task that a session has, and the right to say what becomes of it.
///
/// The claim is renewed in the background until it is ended; only who makes no [progress](Held::progress) for half an hour loses
/// it. Dropped, it is released at once, without an attempt: so a handler that is cancelled gives the task back. Dropped by a
/// panic, it ends with a failed attempt. A process that dies gives nothing back; then the lease ends, and that counts as an
/// attempt.
///
/// The verbs that end the claim take the guard, and give it back in [`NotEnded`] if they fail.
#[derive(Debug)]
#[must_use = "a task that is held and dropped is released"]
pub struct Held {
    grant: Grant,
    /// Nothing once the claim has ended.
    core: Option<Arc<Core>>,
}

impl Deref for Held {
    type Target = Grant;

    fn deref(&self) -> &Grant {
        &self.grant
    }
}

/// A claim that was not ended, or several, and why: the guards are given back.
#[derive(Debug, thiserror::Error)]
#[error("the claim was not ended")]
pub struct NotEnded<H = Held> {
    /// What is still held, unless the error says that it is not.
    pub held: H,
    /// What went wrong.
    #[source]
    pub error: Box<Error>,
}

impl<H> NotEnded<H> {
    fn new(held: H, error: Error) -> Self {
        Self { held, error: Box::new(error) }
    }
}

impl<H> From<NotEnded<H>> for Error {
    /// Releases what is held.
    fn from(not_ended: NotEnded<H>) -> Self {
        *not_ended.error
    }
}

impl Held {
    /// Ends the claim in any way: what the other methods are short for.
    ///
    /// # Errors
    ///
    /// As [`Leases::end`](crate::Leases::end).
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it may or may not have happened; if not, the task is released.
    pub async fn end(self, ending: Ending) -> Result<Ended, NotEnded> {
        self.end_and_claim(ending, 0).await.map(|(ended, _)| ended)
    }

    /// The task is done.
    ///
    /// # Errors
    ///
    /// As [`Held::end`].
    ///
    /// # Cancel safety
    ///
    /// As [`Held::end`].
    pub async fn complete(self, completion: Completion) -> Result<Ended, NotEnded> {
        self.end(Ending::Complete(completion)).await
    }

    /// The task is done, and the session claims the next in the same step, if there is one.
    ///
    /// # Errors
    ///
    /// As [`Held::end`]. After an error nothing was claimed.
    ///
    /// # Cancel safety
    ///
    /// As [`Held::end`]; what was claimed is released.
    pub async fn complete_and_claim(self, completion: Completion) -> Result<(Ended, Option<Held>), NotEnded> {
        let (ended, mut next) = self.end_and_claim(Ending::Complete(completion), 1).await?;
        Ok((ended, next.pop()))
    }

    /// The attempt failed; there is another after a backoff, unless it was the last.
    ///
    /// # Errors
    ///
    /// As [`Held::end`].
    ///
    /// # Cancel safety
    ///
    /// As [`Held::end`].
    pub async fn fail(self, reason: impl Into<Text>) -> Result<Ended, NotEnded> {
        self.end(Ending::Fail { reason: reason.into(), retry: Retry::Backoff }).await
    }

    /// The attempt failed; there is another after `delay`, unless it was the last.
    ///
    /// # Errors
    ///
    /// As [`Held::end`].
    ///
    /// # Cancel safety
    ///
    /// As [`Held::end`].
    pub async fn retry_after(self, delay: Duration, reason: impl Into<Text>) -> Result<Ended, NotEnded> {
        self.end(Ending::Fail { reason: reason.into(), retry: Retry::After(delay) }).await
    }

    /// The task cannot be done: it fails at once.
    ///
    /// # Errors
    ///
    /// As [`Held::end`].
    ///
    /// # Cancel safety
    ///
    /// As [`Held::end`].
    pub async fn give_up(self, reason: impl Into<Text>) -> Result<Ended, NotEnded> {
        self.end(Ending::Fail { reason: reason.into(), retry: Retry::Never }).await
    }

    /// Hands the task back as it was, without an attempt. Dropping the guard does the same, but cannot say whether it worked.
    ///
    /// # Errors
    ///
    /// As [`Held::end`].
    ///
    /// # Cancel safety
    ///
    /// As [`Held::end`].
    pub async fn release(self) -> Result<Ended, NotEnded> {
        self.end(Ending::Release).await
    }

    /// Hands the task back without an attempt, since this session cannot take it now. It is not offered it again for
    /// `delay`, or for the backoff of [`Config`](crate::Config).
    ///
    /// # Errors
    ///
    /// As [`Held::end`].
    ///
    /// # Cancel safety
    ///
    /// As [`Held::end`].
    pub async fn refuse(self, reason: impl Into<Text>, delay: Option<Duration>) -> Result<Ended, NotEnded> {
        self.end(Ending::Refuse { reason: reason.into(), delay }).await
    }

    /// Hands the task back until help is there. [`Blocked::resume`] waits for that and gets the task back.
    ///
    /// # Errors
    ///
    /// As [`Held::end`].
    ///
    /// # Cancel safety
    ///
    /// As [`Held::end`].
    pub async fn block(self, blocker: Blocker) -> Result<Blocked, NotEnded> {
        let core = self.core.clone();
        let (task, lease) = (Arc::clone(&self.task), self.lease);
        let blocker = Blocker { awaited: true, ..blocker };
        let help = match self.end(Ending::Block(blocker)).await? {
            Ended::Blocked { help } => help,
            _ => Arc::default(),
        };
        Ok(Blocked { task, lease, help, core })
    }

    /// Reports progress. A claim without any for [`Config::progress`](crate::Config::progress) is lost, however alive its
    /// session is.
    ///
    /// # Errors
    ///
    /// As [`Leases::progress`](crate::Leases::progress).
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; repeating it is safe.
    pub async fn progress(&self) -> Result<(), Error> {
        match &self.core {
            Some(core) => core.scheduler.progress(&self.lease).await.map(drop),
            None => Err(Error::StaleLease { task: self.task.id, held: self.lease.token, current: None }),
        }
    }

    /// Waits until the task is lost: the lease has ended, the task was cancelled or is overdue, or a newer session of this
    /// name has come. Stop working on it then; nothing that this guard does has an effect any more.
    ///
    /// # Errors
    ///
    /// As [`Leases::lost`](crate::Leases::lost).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    pub async fn lost(&self) -> Result<Loss, Error> {
        match &self.core {
            Some(core) => core.scheduler.lost(&self.lease).await,
            None => Ok(Loss::Ended),
        }
    }

    /// Stops renewing and gives up the guard: whoever has the lease renews and ends it.
    #[must_use = "a task that is granted comes back when its lease ends"]
    pub fn into_grant(mut self) -> Grant {
        if let Some(core) = self.core.take() {
            core.renewals.forget(self.lease);
        }
        self.grant.clone()
    }

    async fn end_and_claim(mut self, ending: Ending, next: usize) -> Result<(Ended, Vec<Held>), NotEnded> {
        let Some(core) = self.core.clone() else {
            let (task, held) = (self.task.id, self.lease.token);
            return Err(NotEnded::new(self, Error::StaleLease { task, held, current: None }));
        };
        let claim = (next > 0).then(|| core.request(next));
        match core.end(vec![(self.lease, ending)], claim.as_ref()).await {
            Ok((mut ended, granted)) => match ended.pop() {
                Some(Ok(ended)) => {
                    core.renewals.forget(self.lease);
                    self.core = None;
                    Ok((ended, granted))
                }
                Some(Err(error)) => Err(NotEnded::new(self, error)),
                None => Err(NotEnded::new(self, unanswered())),
            },
            Err(error) => Err(NotEnded::new(self, error)),
        }
    }
}

fn unanswered() -> Error {
    Error::Backend { retryable: false, source: "no answer for a claim that was to end".into() }
}

/// What completing several tasks led to.
#[derive(Debug)]
pub struct CompletedAll {
    /// An answer for each task, in order.
    pub ended: Vec<Result<Ended, NotEnded>>,
    /// What was claimed in the same step.
    pub claimed: Vec<Held>,
}

type Answers = (Vec<Result<Ended, Error>>, Vec<Held>);

impl Core {
    async fn end(self: &Arc<Self>, endings: Vec<(Lease, Ending)>, claim: Option<&Claim>) -> Result<Answers, Error> {
        if claim.is_some() {
            self.check_runtime()?;
        }
        let all = self.scheduler.end(endings, claim).await?;
        let held = all.granted.into_iter().map(|grant| self.guard(grant));
        Ok((all.ended, held.collect::<Result<_, _>>()?))
    }

    /// Completes several tasks and claims up to `next` in one call.
    pub(crate) async fn complete_all(
        self: &Arc<Self>,
        done: Vec<(Held, Completion)>,
        next: usize,
    ) -> Result<CompletedAll, NotEnded<Vec<Held>>> {
        let claim = (next > 0).then(|| self.request(next));
        let (held, completions): (Vec<Held>, Vec<Completion>) = done.into_iter().unzip();
        let leases = held.iter().map(|held| held.lease);
        let endings = leases.zip(completions.into_iter().map(Ending::Complete)).collect();
        let (ended, granted) = match self.end(endings, claim.as_ref()).await {
            Ok(answers) => answers,
            Err(error) => return Err(NotEnded::new(held, error)),
        };
        let answers = held.into_iter().zip(ended).map(|(mut held, ended)| match ended {
            Ok(ended) => {
                self.renewals.forget(held.lease);
                held.core = None;
                Ok(ended)
            }
            Err(error) => Err(NotEnded::new(held, error)),
        });
        Ok(CompletedAll { ended: answers.collect(), claimed: granted })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            core.renewals.forget(self.lease);
            if std::thread::panicking() {
                core.scheduler.fail_soon(&self.lease, "the handler panicked".into());
            } else {
                core.scheduler.abandon(&self.lease);
            }
        }
    }
}

/// A task that waits for help, and the right to resume it first. Dropped, the session gets the task with its next claims
/// instead.
#[derive(Debug)]
#[must_use = "a blocked task is resumed by waiting for it"]
pub struct Blocked {
    task: Arc<Task>,
    lease: Lease,
    help: Arc<[Submitted]>,
    core: Option<Arc<Core>>,
}

impl Blocked {
    /// The task that is blocked.
    #[must_use]
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// The tasks that help, in the order in which they were given.
    #[must_use]
    pub fn help(&self) -> &[Submitted] {
        &self.help
    }

    /// Waits until the help is there, and takes the task up again. Its answers are the outcomes of [`Grant::answers`]. If
    /// waiting is of no use, since others wait for this task or it has waited for too long, it goes on without them, and
    /// [`Grant::preempted`] says why.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::resume`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: call it again to go on waiting.
    pub async fn resume(&mut self) -> Result<Held, Error> {
        let Some(core) = &self.core else {
            let Lease { task, token } = self.lease;
            return Err(Error::StaleLease { task, held: token, current: None });
        };
        core.check_runtime()?;
        let grant = core.scheduler.resume(&core.incarnation, &self.lease).await?;
        let held = core.guard(grant)?;
        self.core = None;
        Ok(held)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            core.scheduler.abandon(&self.lease);
        }
    }
}
