//! What cases of the scheduler have in common.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::capability::Capabilities;
use crate::config::Config;
use crate::conformance::harness::{Fleet, Given};
use crate::conformance::kit::{journal_of, within};
use crate::dependency::TaskId;
use crate::ending::{Ended, Ending};
use crate::error::Error;
use crate::event::Position;
use crate::held::Held;
use crate::lease::{Claim, Grant, Lease};
use crate::name::{IdempotencyKey, TaskKind};
use crate::new_task::NewTask;
use crate::outcome::{Completion, Outcome};
use crate::registry::Profile;
use crate::scheduler::Scheduler;
use crate::session::{SchedulerExt, Session};
use crate::swarm::SwarmId;
use crate::task::TaskState;
use crate::time::Timestamp;

pub(super) const WORK: TaskKind = TaskKind::from_static("work");
pub(super) const HOST: SwarmId = SwarmId::from_static("host");
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// A fleet and a scheduler of it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) fleet: Box<dyn Fleet>,
    pub(super) scheduler: Arc<dyn Scheduler>,
}

impl World {
    pub(super) async fn new(given: &Given) -> Self {
        Self::with(given, |_| {}).await
    }

    pub(super) async fn with(given: &Given, change: impl FnOnce(&mut Config)) -> Self {
        let fleet = given.fleet_with(change).await;
        let scheduler = fleet.scheduler().expect("a backend that promises a scheduler has one");
        Self { fleet, scheduler }
    }

    pub(super) async fn submit(&self, task: NewTask) -> Result<TaskId, Error> {
        Ok(self.scheduler.submit_one(&task).await?.id)
    }

    /// Submits tasks, in batches.
    pub(super) async fn submit_all(&self, tasks: impl IntoIterator<Item = NewTask>) -> Result<Vec<TaskId>, Error> {
        let tasks: Vec<NewTask> = tasks.into_iter().collect();
        let mut ids = Vec::with_capacity(tasks.len());
        for batch in tasks.chunks(500) {
            ids.extend(self.scheduler.submit(batch).await?.into_iter().map(|submitted| submitted.id));
        }
        Ok(ids)
    }

    /// A session that offers nothing in particular.
    pub(super) async fn session(&self, name: &str) -> Result<Session, Error> {
        self.session_with(name, &[]).await
    }

    pub(super) async fn session_with(&self, name: &str, offers: &[&str]) -> Result<Session, Error> {
        let profile = Profile::new(SwarmId::new(name)?).with_capabilities(capabilities(offers));
        Session::enter(Arc::clone(&self.scheduler), &profile).await
    }

    /// What a session can have at once, up to `max`.
    pub(super) async fn take(&self, session: &Session, max: usize) -> Result<Vec<Grant>, Error> {
        self.scheduler.take(&session.request(max)).await
    }

    /// The next task of a session, which must be there.
    pub(super) async fn grant(&self, session: &Session) -> Result<Grant, Error> {
        let granted = self.take(session, 1).await?;
        Ok(granted.into_iter().next().expect("there is something to do"))
    }

    pub(super) async fn end(&self, lease: Lease, ending: Ending) -> Result<Ended, Error> {
        let mut all = self.scheduler.end(vec![(lease, ending)], None).await?;
        assert_eq!(all.ended.len(), 1);
        all.ended.pop().expect("an answer")
    }

    pub(super) async fn renew(&self, lease: Lease) -> Result<Timestamp, Error> {
        self.scheduler.renew(&[lease]).await?.pop().expect("an answer")
    }

    pub(super) async fn complete(&self, lease: Lease) -> Result<Ended, Error> {
        self.end(lease, done()).await
    }

    pub(super) async fn state(&self, task: TaskId) -> Result<TaskState, Error> {
        Ok(self.scheduler.task(task).await?.state)
    }

    pub(super) async fn outcome(&self, task: TaskId) -> Result<Outcome, Error> {
        Ok(self.scheduler.outcome(task).await?.expect("it is finished"))
    }

    pub(super) async fn advance(&self, by: Duration) {
        self.fleet.advance(by).await;
    }

    /// Claims and completes everything there is to do, and answers with it in order.
    pub(super) async fn drain(&self, session: &Session) -> Result<Vec<TaskId>, Error> {
        let mut done = Vec::new();
        loop {
            let granted = self.take(session, 1).await?;
            let Some(grant) = granted.first() else { return Ok(done) };
            done.push(grant.task.id);
            self.complete(grant.lease).await?;
        }
    }

    /// Tasks that a session claims and completes one after the other. Answers with the claims.
    pub(super) async fn rounds(&self, session: &Session, count: usize) -> Result<Vec<Claim>, Error> {
        let mut claims = Vec::with_capacity(count);
        for _ in 0..count {
            self.submit(task()).await?;
            let claim = session.request(1);
            let granted = self.scheduler.take(&claim).await?;
            self.complete(granted[0].lease).await?;
            claims.push(claim);
        }
        Ok(claims)
    }

    /// Waits until a task is where it should be. What is dropped is released in the background, and what follows for many
    /// tasks takes several steps.
    pub(super) async fn until(&self, task: TaskId, state: TaskState) -> Result<(), Error> {
        let there = async {
            while self.state(task).await? != state {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        };
        within(&format!("task {task} being {state}"), there).await
    }

    /// Waits until every session has left. Dropping one cannot wait for that.
    pub(super) async fn until_nobody_is_there(&self) -> Result<(), Error> {
        let gone = async {
            while !self.scheduler.sessions(None, 1).await?.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        };
        within("the end of the sessions", gone).await
    }

    /// The operations on tasks and sessions that the journal has, in order.
    pub(super) async fn operations(&self) -> Result<Vec<String>, Error> {
        let entries = journal_of(&*self.fleet).entries(Position::ORIGIN, 500).await?;
        let of_interest = entries.items.iter().filter(|it| matches!(&*it.component, "task" | "session"));
        Ok(of_interest.map(|entry| format!("{}.{}", entry.component, entry.operation)).collect())
    }
}

pub(super) fn capabilities(paths: &[&str]) -> Capabilities {
    Capabilities::new(paths).expect("valid capabilities")
}

/// A task that anybody may do.
pub(super) fn task() -> NewTask {
    NewTask::new(WORK, HOST)
}

pub(super) fn requiring(paths: &[&str]) -> NewTask {
    task().with_requires(capabilities(paths))
}

pub(super) fn keyed(key: &str) -> NewTask {
    task().with_key(key_of(key))
}

pub(super) fn key_of(key: &str) -> IdempotencyKey {
    IdempotencyKey::new(key).expect("a valid key")
}

pub(super) fn ids(granted: &[Grant]) -> Vec<TaskId> {
    granted.iter().map(|grant| grant.task.id).collect()
}

/// The end of a claim with success.
pub(super) fn done() -> Ending {
    Ending::Complete(Completion::new())
}

/// A claim that waits, in a task of its own.
pub(super) fn claiming(session: &Session) -> JoinHandle<Result<Option<Grant>, Error>> {
    let session = session.clone();
    tokio::spawn(async move { Ok(session.claim().await?.map(Held::into_grant)) })
}

/// Gives what was spawned the time to wait. Whether it does changes no answer, only the way to it.
pub(super) async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// Likewise, where it is repeated.
pub(super) async fn pause_shortly() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}
