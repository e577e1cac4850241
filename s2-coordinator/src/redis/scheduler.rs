//! The scheduler of a [`RedisStore`](crate::RedisStore).

use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;
use tracing::instrument;

use crate::clock::{Clock, SystemClock};
use crate::dependency::TaskId;
use crate::ending::{Ending, Retry};
use crate::error::Error;
use crate::lease::{Claim, Grant, Incarnation, Lease, Loss};
use crate::limits::{Limits, check};
use crate::new_task::NewTask;
use crate::outcome::Outcome;
use crate::redis::claim::Leaving;
use crate::redis::deadlock;
use crate::redis::keeper;
use crate::redis::look;
use crate::redis::refusal::{About, refusal};
use crate::redis::reply::Reply;
use crate::redis::script::Script;
use crate::redis::scripts::{
    TASKS_ABANDON, TASKS_ASSIGN, TASKS_CANCEL, TASKS_ENTER, TASKS_LEAVE, TASKS_LIST, TASKS_LOSS, TASKS_OUTCOME,
    TASKS_PROGRESS, TASKS_REDRIVE, TASKS_RENEW, TASKS_RESUME, TASKS_SESSIONS, TASKS_STATS, TASKS_SUBMIT, TASKS_TASK,
    TASKS_UNBLOCK, TASKS_WAITS, TASKS_WHY,
};
use crate::redis::store::{Call, PAUSE, RedisStore};
use crate::redis::task;
use crate::registry::{Profile, SessionInfo, Stats, Tasks};
use crate::scheduler::{EndedAll, Leases, Scheduler, TaskPage};
use crate::swarm::SwarmId;
use crate::task::{Submitted, TaskState, TaskStatus};
use crate::text::Text;
use crate::time::Timestamp;
use crate::waits::Waiter;
use crate::why::Why;

/// How many tasks a listing looks at, and how many of them in one step.
const LOOK_AT: usize = 10_000;
const LOOK_AT_ONCE: usize = 1_000;

/// A [`Scheduler`] of a fleet on Redis. Clones are the same handle: closing one closes all.
#[derive(Clone, Debug)]
pub struct RedisScheduler {
    store: RedisStore,
    closed: Arc<watch::Sender<bool>>,
    /// By which guards pace their renewals.
    clock: Arc<dyn Clock>,
}

impl RedisStore {
    /// A scheduler of this fleet. Each call makes another handle, which can be closed on its own.
    #[must_use]
    pub fn scheduler(&self) -> RedisScheduler {
        let clock = self.shared.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::new()));
        RedisScheduler { store: self.clone(), closed: Arc::new(watch::Sender::new(false)), clock }
    }
}

impl RedisScheduler {
    fn limits(&self) -> &Limits {
        &self.store.config().limits
    }

    fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Until the handle is closed.
    async fn closed(&self) {
        drop(self.closed.subscribe().wait_for(|closed| *closed).await);
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Runs a call, and reads what it says if it is no error.
    async fn ask<T>(
        &self,
        script: &'static Script,
        call: Call<'_>,
        about: About<'_>,
        read: impl FnOnce(&Reply) -> Option<T>,
    ) -> Result<T, Error> {
        let answer = self.store.task_call(call).await?;
        if let Some(error) = refusal(&answer, about, self.limits()) {
            return Err(error);
        }
        answer.get(1).and_then(read).ok_or_else(|| Call::unexpected(script, &answer))
    }

    /// Asks about a task.
    async fn ask_of<T>(
        &self,
        script: &'static Script,
        task: TaskId,
        read: impl FnOnce(&Reply) -> Option<T>,
    ) -> Result<T, Error> {
        self.check_open()?;
        let mut call = self.store.call_again(script);
        call.number(task);
        self.ask(script, call, About { task: Some(task), ..About::default() }, read).await
    }

    async fn ask_outcome(&self, task: TaskId, wait: bool) -> Result<Option<Outcome>, Error> {
        let mut call = self.store.call_again(TASKS_OUTCOME);
        call.number(task);
        call.number(u8::from(wait));
        let about = About { task: Some(task), ..About::default() };
        self.ask(TASKS_OUTCOME, call, about, |said| unless_empty(said, task::outcome)).await
    }

    async fn ask_loss(&self, lease: &Lease) -> Result<Option<Loss>, Error> {
        let mut call = self.store.call_again(TASKS_LOSS);
        call.number(lease.task);
        call.number(lease.token);
        self.ask(TASKS_LOSS, call, About::default(), |said| unless_empty(said, loss)).await
    }

    async fn ask_resume(&self, session: &Incarnation, lease: &Lease) -> Result<Option<Grant>, Error> {
        let mut call = self.store.call_again(TASKS_RESUME);
        call.number(session.number);
        call.arg(session.session.as_str());
        call.number(lease.task);
        call.number(lease.token);
        let about = About { session: Some(session), lease: Some(lease), ..About::default() };
        self.ask(TASKS_RESUME, call, about, |said| unless_empty(said, |said| task::grant(said.get(0)?))).await
    }

    /// Asks, and again whenever something becomes of a task, until there is an answer.
    async fn wait_for<T, F>(&self, task: TaskId, mut ask: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Option<T>, Error>>,
    {
        let mut told = self.store.shared.post.tail(&format!("task {task}"));
        let asking = async {
            loop {
                keeper::ensure(&self.store.shared)?;
                told.borrow_and_update();
                match ask().await {
                    Ok(Some(answer)) => return Ok(answer),
                    Ok(None) => drop(told.changed().await),
                    // A wait has time: the server will be back.
                    Err(Error::Backend { retryable: true, .. }) => tokio::time::sleep(PAUSE).await,
                    Err(error) => return Err(error),
                }
            }
        };
        tokio::select! {
            biased;
            () = self.closed() => Err(Error::Closed),
            answer = asking => answer,
        }
    }

    async fn leave_now(&self, leaving: &Leaving<'_>) -> Result<bool, Error> {
        let mut call = self.store.call_once(TASKS_LEAVE);
        call.number(leaving.session);
        for request in &leaving.requests {
            call.number(*request);
        }
        self.ask(TASKS_LEAVE, call, About::default(), is_one).await
    }

    /// The session is not to be kept alive any more.
    fn forget(&self, session: &Incarnation) {
        self.store.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&session.number);
    }
}

fn unless_empty<T>(said: &Reply, read: impl FnOnce(&Reply) -> Option<T>) -> Option<Option<T>> {
    if said.as_list()?.is_empty() { Some(None) } else { read(said).map(Some) }
}

fn is_one(said: &Reply) -> Option<bool> {
    Some(said.as_int()? == 1)
}

fn loss(said: &Reply) -> Option<Loss> {
    Some(match said.get(0)?.as_str()? {
        "expired" => Loss::Expired,
        "superseded" => Loss::Superseded,
        "cancelled" => Loss::Cancelled { reason: said.get(1)?.as_str()?.to_owned().into() },
        "overdue" => Loss::Overdue,
        "stalled" => Loss::Stalled,
        "forgotten" => Loss::Forgotten,
        "ended" => Loss::Ended,
        _ => return None,
    })
}

#[async_trait]
impl Leases for RedisScheduler {
    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(endings = endings.len()))]
    async fn end(&self, endings: Vec<(Lease, Ending)>, next: Option<&Claim>) -> Result<EndedAll, Error> {
        let next = next.filter(|_| !self.is_closed());
        if let Some(claim) = next {
            self.store.until_withdrawn(claim.by.number).await;
        }
        self.store.end(&endings, next).await
    }

    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(leases = leases.len()))]
    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Result<Timestamp, Error>>, Error> {
        check("batch", || "a batch of renewals".into(), leases.len(), self.limits().batch)?;
        let mut call = self.store.call_again(TASKS_RENEW);
        for lease in leases {
            call.number(lease.task);
            call.number(lease.token);
        }
        let renewed = |(said, lease): (&Reply, &Lease)| match said.as_u64() {
            Some(until) => Some(Ok(Timestamp::from_micros(until))),
            None => refusal(said, About { lease: Some(lease), ..About::default() }, self.limits()).map(Err),
        };
        let read = |said: &Reply| said.as_list()?.iter().zip(leases).map(renewed).collect();
        self.ask(TASKS_RENEW, call, About::default(), read).await
    }

    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(task = %lease.task))]
    async fn progress(&self, lease: &Lease) -> Result<Timestamp, Error> {
        let mut call = self.store.call_again(TASKS_PROGRESS);
        call.number(lease.task);
        call.number(lease.token);
        let about = About { lease: Some(lease), ..About::default() };
        self.ask(TASKS_PROGRESS, call, about, |said| said.as_u64().map(Timestamp::from_micros)).await
    }

    async fn lost(&self, lease: &Lease) -> Result<Loss, Error> {
        self.wait_for(lease.task, || self.ask_loss(lease)).await
    }

    fn abandon(&self, lease: &Lease) {
        let (scheduler, lease) = (self.clone(), *lease);
        self.store.spawn(async move {
            let mut call = scheduler.store.call_again(TASKS_ABANDON);
            call.number(lease.task);
            call.number(lease.token);
            // If the server stays away, the lease ends.
            drop(scheduler.store.task_call(call).await);
        });
    }

    fn fail_soon(&self, lease: &Lease, reason: Text) {
        let (store, lease) = (self.store.clone(), *lease);
        self.store.spawn(async move {
            drop(store.end(&[(lease, Ending::Fail { reason, retry: Retry::Backoff })], None).await);
        });
    }
}

#[async_trait]
impl Scheduler for RedisScheduler {
    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(tasks = tasks.len()))]
    async fn submit(&self, tasks: &[NewTask]) -> Result<Vec<Submitted>, Error> {
        self.check_open()?;
        self.limits().check_tasks(tasks)?;
        let mut call = self.store.call_once(TASKS_SUBMIT);
        task::write_tasks(&mut call, tasks, None, self.store.config());
        self.ask(TASKS_SUBMIT, call, About { tasks, ..About::default() }, task::submitted).await
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(session = %profile.session))]
    async fn enter(&self, profile: &Profile) -> Result<Incarnation, Error> {
        self.check_open()?;
        self.limits().check_profile(profile)?;
        keeper::ensure(&self.store.shared)?;
        let mut call = self.store.call_once(TASKS_ENTER);
        call.arg(profile.session.as_str());
        call.arg(task::words(&profile.capabilities));
        let number = self.ask(TASKS_ENTER, call, About::default(), Reply::as_u64).await?;
        self.store.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
        Ok(Incarnation { session: profile.session.clone(), number })
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(session = %session.session))]
    async fn leave(&self, session: &Incarnation) -> Result<bool, Error> {
        self.forget(session);
        self.leave_now(&Leaving::begin(&self.store, session.number)).await
    }

    fn leave_soon(&self, session: &Incarnation) {
        self.forget(session);
        let (scheduler, session) = (self.clone(), session.number);
        self.store.spawn(async move {
            let leaving = Leaving::begin(&scheduler.store, session);
            while let Err(Error::Backend { retryable: true, .. }) = scheduler.leave_now(&leaving).await {
                tokio::time::sleep(PAUSE).await;
            }
        });
    }

    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(session = %claim.by.session))]
    async fn claim(&self, claim: &Claim) -> Result<Vec<Grant>, Error> {
        keeper::ensure(&self.store.shared)?;
        self.limits().check_claim(claim.max)?;
        tokio::select! {
            biased;
            () = self.closed() => Ok(Vec::new()),
            answer = self.store.claim(claim) => answer,
        }
    }

    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(session = %claim.by.session))]
    async fn take(&self, claim: &Claim) -> Result<Vec<Grant>, Error> {
        self.check_open()?;
        self.store.until_withdrawn(claim.by.number).await;
        self.store.claim_once(claim, 0).await.map(Option::unwrap_or_default)
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(session = %session.session, task = %lease.task))]
    async fn resume(&self, session: &Incarnation, lease: &Lease) -> Result<Grant, Error> {
        self.wait_for(lease.task, || self.ask_resume(session, lease)).await
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(%task))]
    async fn unblock(&self, task: TaskId) -> Result<bool, Error> {
        self.check_open()?;
        let mut call = self.store.call_once(TASKS_UNBLOCK);
        call.number(task);
        self.ask(TASKS_UNBLOCK, call, About { task: Some(task), ..About::default() }, is_one).await
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(%task))]
    async fn assign(&self, task: TaskId, session: Option<&SwarmId>) -> Result<(), Error> {
        self.check_open()?;
        let mut call = self.store.call_again(TASKS_ASSIGN);
        call.number(task);
        call.arg(session.map(SwarmId::as_str).unwrap_or_default());
        self.ask(TASKS_ASSIGN, call, About { task: Some(task), ..About::default() }, is_one).await.map(drop)
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(%task))]
    async fn cancel(&self, task: TaskId, reason: Text) -> Result<bool, Error> {
        self.check_open()?;
        self.limits().check_reason(&reason)?;
        let mut call = self.store.call_again(TASKS_CANCEL);
        call.number(task);
        call.arg(reason.as_str());
        self.ask(TASKS_CANCEL, call, About { task: Some(task), ..About::default() }, is_one).await
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(tasks = tasks.len()))]
    async fn redrive(&self, tasks: &[TaskId]) -> Result<Vec<Submitted>, Error> {
        self.check_open()?;
        check("batch", || "a batch of redrives".into(), tasks.len(), self.limits().batch)?;
        let mut call = self.store.call_once(TASKS_REDRIVE);
        tasks.iter().for_each(|task| call.number(task));
        self.ask(TASKS_REDRIVE, call, About::default(), task::submitted).await
    }

    async fn task(&self, task: TaskId) -> Result<TaskStatus, Error> {
        self.ask_of(TASKS_TASK, task, task::status).await
    }

    async fn list(&self, which: &Tasks) -> Result<TaskPage, Error> {
        let limit = which.limit.unwrap_or(self.limits().batch);
        self.limits().check_page(limit)?;
        self.check_open()?;
        let mut page = TaskPage { items: Vec::new(), next: which.after };
        let mut left = LOOK_AT;
        loop {
            let mut call = self.store.call_again(TASKS_LIST);
            call.number(page.next.unwrap_or_default());
            call.number(limit - page.items.len());
            call.number(left.min(LOOK_AT_ONCE));
            call.arg(which.state.map(TaskState::as_str).unwrap_or_default());
            call.arg(which.kind.as_ref().map(|kind| kind.as_str()).unwrap_or_default());
            call.arg(which.parent.map(|parent| parent.to_string()).unwrap_or_default());
            call.arg(which.session.as_ref().map(SwarmId::as_str).unwrap_or_default());
            let read = |said: &Reply| {
                let found = said.get(0)?.as_list()?.iter().map(task::status).collect::<Option<Vec<_>>>()?;
                let last = said.get(1)?.as_u64().map(TaskId::new);
                Some((found, last, said.get(2)?.as_int()? == 1, usize::try_from(said.get(3)?.as_u64()?).ok()?))
            };
            let (found, last, is_more, looked) = self.ask(TASKS_LIST, call, About::default(), read).await?;
            page.items.extend(found);
            page.next = last;
            left -= looked.min(left);
            if !is_more {
                page.next = None;
            }
            if !is_more || left == 0 || page.items.len() >= limit {
                return Ok(page);
            }
        }
    }

    async fn sessions(&self, after: Option<&SwarmId>, limit: usize) -> Result<Vec<SessionInfo>, Error> {
        self.limits().check_page(limit)?;
        self.check_open()?;
        let mut call = self.store.call_again(TASKS_SESSIONS);
        call.arg(after.map(SwarmId::as_str).unwrap_or_default());
        call.number(limit);
        let read = |said: &Reply| said.as_list()?.iter().map(look::session_info).collect();
        self.ask(TASKS_SESSIONS, call, About::default(), read).await
    }

    async fn stats(&self) -> Result<Stats, Error> {
        self.check_open()?;
        self.ask(TASKS_STATS, self.store.call_again(TASKS_STATS), About::default(), look::stats).await
    }

    async fn outcome(&self, task: TaskId) -> Result<Option<Outcome>, Error> {
        self.check_open()?;
        self.ask_outcome(task, false).await
    }

    async fn wait(&self, task: TaskId) -> Result<Outcome, Error> {
        self.wait_for(task, || self.ask_outcome(task, true)).await
    }

    async fn waits(&self, tasks: &[TaskId]) -> Result<Vec<Waiter>, Error> {
        self.check_open()?;
        let most = self.limits().batch;
        check("batch", || "a batch of tasks".into(), tasks.len(), most)?;
        let mut call = self.store.call_again(TASKS_WAITS);
        call.number(most);
        tasks.iter().for_each(|task| call.number(task));
        self.ask(TASKS_WAITS, call, About::default(), deadlock::waiters).await
    }

    async fn why(&self, task: TaskId) -> Result<Why, Error> {
        self.ask_of(TASKS_WHY, task, |said| look::why(said, task)).await
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    async fn close(&self) -> Result<(), Error> {
        self.closed.send_replace(true);
        Ok(())
    }
}
