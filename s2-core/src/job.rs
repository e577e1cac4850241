//! A task in the hands of a session, and how it ends.

use std::any::Any;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use s2_coordinator::{Completion, Ended, Ending, Error as CoordinatorError, Held, Loss, NotEnded, Retry, Text};
use serde::Serialize;
use tokio::sync::Notify;

use crate::context::Context;
use crate::context::Given;
use crate::context::Said;
use crate::error::Error;
use crate::help::HELP;
use crate::help::RescueEvent;
use crate::s2::Busy;
use crate::s2::Stop;
use crate::task_error::TaskError;
use crate::task_error::Then;

/// How long to wait for a store that is away.
const PAUSE: Duration = Duration::from_secs(1);

const CALLED_OFF: Text = Text::from_static("somebody else needs help more urgently");

/// A task in the hands of a session, for hosts with a loop of their own. All that a handler has is here, too ([`Context`]).
///
/// Dropped, it is handed back without an attempt; dropped by a panic, the attempt failed.
#[derive(Debug)]
#[must_use = "a job that is dropped is handed back"]
pub struct Job {
    cx: Context,
    give_way: Arc<Notify>,
    /// It is waited for when the process leaves.
    _busy: Busy,
}

/// Why a job should not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interrupted {
    /// The claim is lost: nothing that is done with it has an effect any more.
    Lost(Loss),
    /// Somebody needs help from this session more urgently.
    CalledOff,
    /// The process leaves, and its grace is over.
    Leaving,
}

impl Deref for Job {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.cx
    }
}

impl Job {
    pub(crate) fn new(cx: Context, give_way: Arc<Notify>) -> Self {
        let busy = cx.s2().busy();
        Self { cx, give_way, _busy: busy }
    }

    /// The task is done: with this result, and all that was said on the way.
    ///
    /// # Errors
    ///
    /// As [`Held::complete`]. A result that exceeds a limit fails the task.
    ///
    /// # Cancel safety
    ///
    /// As [`Held::complete`].
    pub fn complete<T: Serialize + ?Sized>(self, result: &T) -> impl Future<Output = Result<Ended, Error>> + use<T> {
        let (ending, error) = self.result(result);
        async move {
            let ended = self.end(ending).await?;
            error.map_or(Ok(ended), Err)
        }
    }

    /// The task is not done: what becomes of it is said by the error.
    ///
    /// # Errors
    ///
    /// As [`Held::fail`].
    ///
    /// # Cancel safety
    ///
    /// As [`Held::fail`].
    pub async fn fail(self, error: impl Into<TaskError>) -> Result<Ended, Error> {
        let ending = self.failure(&error.into());
        self.end(ending).await
    }

    /// Hands the task back as it was, without an attempt.
    ///
    /// # Errors
    ///
    /// As [`Held::release`].
    ///
    /// # Cancel safety
    ///
    /// As [`Held::release`].
    pub async fn release(self) -> Result<Ended, Error> {
        self.end(Ending::Release).await
    }

    /// Waits until the job should not go on.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn interrupted(&self) -> Interrupted {
        tokio::select! {
            loss = self.lost() => Interrupted::Lost(loss),
            () = self.give_way.notified() => Interrupted::CalledOff,
            () = self.s2().stopped(Stop::Now) => Interrupted::Leaving,
        }
    }

    async fn lost(&self) -> Loss {
        let mut leases = self.cx.work.lease.subscribe();
        loop {
            let lease = *leases.borrow_and_update();
            let lost = async {
                match lease {
                    Some(lease) => self.s2().scheduler().lost(&lease).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender lives as long as this job.
                _ = leases.changed() => {}
                lost = lost => match lost {
                    Ok(Loss::Ended) => drop(leases.changed().await),
                    // The store is away; the lease may be over by now, and the next answer says so.
                    Err(_) => tokio::time::sleep(PAUSE).await,
                    Ok(loss) => return loss,
                }
            }
        }
    }

    /// Runs a handler to its end, or until it should not go on.
    pub(crate) async fn run<T: Serialize>(self, handler: impl Future<Output = Result<T, TaskError>>) {
        let task = self.task().id;
        let ending = match self.handled(handler).await {
            Handled::Answered(Ok(result)) => self.result(&result).0,
            Handled::Answered(Err(error)) => self.failure(&error),
            Handled::Panicked(reason) => self.failure(&TaskError::retry(format!("the handler panicked: {reason}"))),
            Handled::Interrupted(Interrupted::Lost(loss)) => {
                tracing::info!(%task, ?loss, "the claim is lost; its handler was dropped");
                return;
            }
            // Whoever is called off must not be given the same again before what it was called off for.
            Handled::Interrupted(Interrupted::CalledOff) => Ending::Refuse { reason: CALLED_OFF, delay: None },
            Handled::Interrupted(Interrupted::Leaving) => Ending::Release,
        };
        match self.end(ending).await {
            // Whoever was lost in the last moment, or is blocked, has nothing to end.
            Ok(_) | Err(Error::Coordinator(CoordinatorError::StaleLease { .. })) => {}
            Err(error) => {
                tracing::warn!(%task, %error, "the claim could not be ended; it is handed back, or comes back when its lease ends");
            }
        }
    }

    async fn handled<T>(&self, handler: impl Future<Output = Result<T, TaskError>>) -> Handled<T> {
        let mut handler = pin!(handler);
        let caught = std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(answer)) => Poll::Ready(Handled::Answered(answer)),
            Err(panic) => Poll::Ready(Handled::Panicked(said(&*panic))),
        });
        tokio::select! {
            biased;
            handled = caught => handled,
            interrupted = self.interrupted() => Handled::Interrupted(interrupted),
        }
    }

    fn failure(&self, error: &TaskError) -> Ending {
        let (reason, now) = (error.reason(), self.s2().clock().now());
        match error.then {
            Then::Retry(delay) => Ending::Fail { reason, retry: delay.map_or(Retry::Backoff, Retry::After) },
            Then::GiveUp => Ending::Fail { reason, retry: Retry::Never },
            // Whoever needs help should hear at once that there is none from here.
            Then::HandBack(_) if self.task().kind == HELP => Ending::Fail { reason, retry: Retry::Never },
            Then::HandBack(until) => Ending::Refuse { reason, delay: until.map(|until| until.since(now)) },
        }
    }

    /// How the claim ends with this result; if that has no JSON form, and never will have, with a failure that says so.
    fn result<T: Serialize + ?Sized>(&self, result: &T) -> (Ending, Option<Error>) {
        match self.completion(result) {
            Ok(completion) => (Ending::Complete(completion), None),
            Err(error) => (self.failure(&TaskError::fatal(&error)), Some(error)),
        }
    }

    fn completion<T: Serialize + ?Sized>(&self, result: &T) -> Result<Completion, Error> {
        let Said { completion, given, .. } = std::mem::take(&mut *self.cx.work.said());
        let mut completion = completion.with_json(result)?;
        for Given { answer, requires, outcome } in given {
            let Some(helper) = answer.helper else { continue };
            let by = self.session().clone();
            let event = RescueEvent::Verified { helper, by: by.clone(), requires, outcome };
            completion = completion.with_event(event.told_by(by)?);
        }
        Ok(completion)
    }

    async fn end(self, ending: Ending) -> Result<Ended, Error> {
        let held = self.cx.work.take().ok_or_else(|| self.cx.work.stale())?;
        match held.end(ending).await {
            Ok(ended) => Ok(ended),
            Err(NotEnded { held, error }) => give_up(held, *error).await,
        }
    }
}

/// What was said about the end of a claim is not acceptable, and never will be: it fails, and says so.
async fn give_up(held: Held, error: CoordinatorError) -> Result<Ended, Error> {
    let refused = matches!(
        error,
        CoordinatorError::LimitExceeded { .. }
            | CoordinatorError::Invalid(_)
            | CoordinatorError::ReservedTopic { .. }
            | CoordinatorError::IdempotencyConflict { .. }
            | CoordinatorError::TaskConflict { .. }
            | CoordinatorError::UnknownTask { .. }
            | CoordinatorError::DependencyCycle { .. }
    );
    if refused {
        let reason = TaskError::fatal(&error).reason();
        held.give_up(reason).await.map_err(CoordinatorError::from)?;
    }
    Err(error.into())
}

/// How a handler ended.
enum Handled<T> {
    Answered(Result<T, TaskError>),
    Panicked(String),
    Interrupted(Interrupted),
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it did not say why".to_owned())
}

impl Drop for Job {
    fn drop(&mut self) {
        // Clones of the context may live on; the claim does not.
        self.cx.work.close();
    }
}
