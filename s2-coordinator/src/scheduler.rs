//! The scheduler: who does what, and when.
//!
//! The first complaint about tools that run several agents is that two of them take the same item; the second, that one
//! that was taken for dead comes back and overwrites the work of its successor. Here a claim is one atomic step, has a
//! fencing token that only rises, and whoever calls with an older one changes nothing. Nobody polls: who finds nothing
//! to do is woken.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::dependency::TaskId;
use crate::ending::{Ended, Ending};
use crate::error::Error;
use crate::lease::{Claim, Grant, Incarnation, Lease, Loss};
use crate::new_task::NewTask;
use crate::outcome::Outcome;
use crate::registry::{Profile, SessionInfo, Stats, Tasks};
use crate::swarm::SwarmId;
use crate::task::{Submitted, TaskStatus};
use crate::text::Text;
use crate::time::Timestamp;
use crate::waits::Waiter;
use crate::why::Why;

/// What a session does with the tasks it has.
///
/// Calls are identified by the task and the fencing token of the claim ([`Lease`]).
///
/// # To ensure correctness
///
/// Only the current claim of a task counts; any other gets [`Error::StaleLease`] and changes nothing. Whoever ends a claim
/// and repeats that gets the first answer, whatever has become of the task since; the latest eight ends of a task are
/// remembered.
#[async_trait]
pub trait Leases: Debug + Send + Sync + 'static {
    /// Ends claims, at most [`Limits::batch`](crate::Limits::batch) of them from which as many tasks follow together, and then
    /// claims for `next`, without waiting: all in one step. Answers for each claim in order, and with what was granted.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] for the batch, [`Error::StaleSession`] for `next`, or [`Error::Backend`]: then nothing has
    /// changed. Within, for a claim of which nothing has changed: [`Error::StaleLease`], [`Error::AlreadyEnded`],
    /// [`Error::LimitExceeded`], [`Error::Invalid`], and what submitting the tasks and publishing the events that follow can
    /// fail with.
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; repeating it gets the first answers, and the same leases for `next`.
    async fn end(&self, endings: Vec<(Lease, Ending)>, next: Option<&Claim>) -> Result<EndedAll, Error>;

    /// Moves the ends of claims to one lease from now, and answers with them. What the task limits stays limited, and so does
    /// how long it may go on without progress.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] for the batch, or [`Error::Backend`]. Within: [`Error::StaleLease`].
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; repeating it is safe.
    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Result<Timestamp, Error>>, Error>;

    /// Reports progress: renews a claim, and gives it [`Config::progress`](crate::Config::progress) from now to make more.
    ///
    /// # Errors
    ///
    /// [`Error::StaleLease`], or [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; repeating it is safe.
    async fn progress(&self, lease: &Lease) -> Result<Timestamp, Error>;

    /// Waits until a claim is over, and says why. One that its session has ended is over, too ([`Loss::Ended`]).
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::NoRuntime`]; [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn lost(&self, lease: &Lease) -> Result<Loss, Error>;

    /// Nobody cares for this claim any more: a task that is still held is released soon, and one that is blocked is no longer
    /// awaited. For guards that are dropped; does not wait, and cannot fail, since the lease ends anyway.
    fn abandon(&self, lease: &Lease);

    /// The handler of this claim has panicked: the attempt failed, soon. For guards; does not wait, and cannot fail, since the
    /// lease ends anyway.
    fn fail_soon(&self, lease: &Lease, reason: Text);
}

/// What ending some claims led to.
#[derive(Debug)]
pub struct EndedAll {
    /// An answer for each claim, in order.
    pub ended: Vec<Result<Ended, Error>>,
    /// What was claimed in the same step.
    pub granted: Vec<Grant>,
}

/// Who does what, and when: submits, claims, ends, explains.
///
/// | promise | what it means |
/// |---|---|
/// | submit | a batch is atomic; under one key a task is submitted once; cycles are refused and named |
/// | claim | each attempt of a task goes to one session; who finds nothing waits and is woken |
/// | eligibility | a session gets only tasks all of whose requirements it offers |
/// | order | one key: when the task became ready, plus a step for each level of priority ([`OrderKey`](crate::OrderKey)); of equal ones, the one submitted first |
/// | inheritance | a task takes the smallest key of what waits for it, and gives it back |
/// | fencing | tokens only rise; a superseded one changes nothing |
/// | attempts | failures, time-outs and crashes count alike; what is handed back or refused does not |
/// | deadlock | who waits longest of those that wait for each other goes on, at once; who waits for longer than half an hour, in any case |
/// | liveness | who renews a claim and makes no progress loses it; a fleet that stands still is reported |
/// | follow-up | result, events, tasks that follow, and the next claim are one step |
/// | stealing | an idle session takes over from the one with the longest queue of its own |
/// | why | every task can say why it is not running |
///
/// ```
/// use s2_coordinator::{Completion, MemoryStore, NewTask, Profile, Scheduler, SchedulerExt, SwarmId, TaskKind};
///
/// const REVIEW: TaskKind = TaskKind::from_static("review");
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), s2_coordinator::Error> {
/// let scheduler = MemoryStore::new().scheduler();
/// let task = NewTask::new(REVIEW, SwarmId::from_static("author")).with_json("src/invite.rs")?;
/// let submitted = scheduler.submit_one(&task).await?;
///
/// let session = scheduler.join(&Profile::new(SwarmId::new("reviewers/session-1")?)).await?;
/// let held = session.claim().await?.expect("the scheduler is open");
/// assert_eq!(held.task.json::<String>()?, "src/invite.rs");
/// held.complete(Completion::new().with_json(&true)?).await?;
///
/// let outcome = scheduler.wait(submitted.id).await?;
/// assert!(outcome.result().expect("it is done").json::<bool>()?);
/// # Ok(()) }
/// ```
///
/// Every mutating call is one atomic step. Any call may fail with [`Error::Backend`] or, on a handle that was closed, with
/// [`Error::Closed`]; a backend that does not offer something answers [`Error::Unsupported`].
///
/// What follows from a step is done in that step up to 500 tasks (250 on Redis), and by the steps after it beyond that, whoever
/// makes them: dependants of a task that have not been released yet say so in [`Scheduler::why`]. Likewise, a step begins with
/// what time has brought, up to 1,000 tasks (250 on Redis). A lease is over at its end in any case.
///
/// # To ensure correctness
///
/// Each (task, attempt) is claimed once, as long as nobody hands it back. A task that is not finished is never dropped. The
/// cases in `conformance` are the rest of the contract.
#[async_trait]
pub trait Scheduler: Leases {
    /// Submits a batch, all of it or nothing, and answers for each task in order. Tasks of the batch may depend on each other
    /// by key.
    ///
    /// A task with a key is submitted once for as long as it is known: until it is finished, and as long as finished tasks are
    /// kept ([`Config::finished`](crate::Config::finished)). Saying the same again ([`Task::is_same`](crate::Task::is_same))
    /// answers with the first one's number and `duplicate`.
    ///
    /// # Errors
    ///
    /// [`Error::TaskConflict`] when a key was used for something else; [`Error::UnknownTask`] for a dependency or a parent;
    /// [`Error::DependencyCycle`]; [`Error::LimitExceeded`]; [`Error::Invalid`] for what could never run, such as a task whose
    /// assignee is there and lacks what it requires.
    ///
    /// # Cancel safety
    ///
    /// The batch may or may not have been submitted; with keys, submit it again to be sure.
    async fn submit(&self, tasks: &[NewTask]) -> Result<Vec<Submitted>, Error>;

    /// A session enters the fleet. An older one of its name is superseded: its claims end as those of a crashed one do, and
    /// its calls get [`Error::StaleSession`].
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`].
    ///
    /// # Cancel safety
    ///
    /// The session may or may not have entered. One that has and that nobody knows of holds nothing, and the next of its
    /// name takes its place.
    async fn enter(&self, profile: &Profile) -> Result<Incarnation, Error>;

    /// A session leaves: its waiting claims end with nothing. Claims that were granted go on until they end; what it had
    /// blocked goes to anybody. Answers whether it was there. Repeating it is safe.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Repeating it completes it.
    async fn leave(&self, session: &Incarnation) -> Result<bool, Error>;

    /// As [`Scheduler::leave`], for handles that are dropped: does not wait, and cannot fail, since a session that is gone is
    /// noticed.
    fn leave_soon(&self, session: &Incarnation);

    /// Waits until there is something for the session to do, and answers with it, 1 to `max` tasks; none when the handle was
    /// closed or the session has left. The tasks of its own queue come first, then those of any queue, each in order. A session that has nothing and
    /// finds nothing steals one task.
    ///
    /// # Errors
    ///
    /// [`Error::StaleSession`]; [`Error::LimitExceeded`]; [`Error::Invalid`] for none; [`Error::NoRuntime`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a future that is dropped before it is ready has claimed nothing; what was on its way is released at
    /// once, without an attempt. Repeated under the same number, it answers with the same leases.
    async fn claim(&self, claim: &Claim) -> Result<Vec<Grant>, Error>;

    /// What can be had at once, perhaps nothing.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::claim`].
    ///
    /// # Cancel safety
    ///
    /// It may or may not have claimed; repeating it under the same number tells.
    async fn take(&self, claim: &Claim) -> Result<Vec<Grant>, Error>;

    /// Waits until a task that this session has blocked can be resumed, and resumes it, under a new token. `lease` is the claim
    /// that was ended by blocking. It may do so even if it has as many tasks as it may by now.
    ///
    /// # Errors
    ///
    /// [`Error::StaleLease`] when somebody else has the task, or it was ended; [`Error::StaleSession`];
    /// [`Error::NoRuntime`].
    ///
    /// # Cancel safety
    ///
    /// Repeating it answers with the same lease. One that is dropped may have resumed the task all the same, over many processes:
    /// then repeat it, or the task is released by [`Leases::abandon`], or when its lease ends.
    async fn resume(&self, session: &Incarnation, lease: &Lease) -> Result<Grant, Error>;

    /// Clears what blocks a task, whether or not the help is there: its session may resume it. Answers whether it was blocked.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTask`].
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; repeating it is safe.
    async fn unblock(&self, task: TaskId) -> Result<bool, Error>;

    /// Puts a task that nobody has into the own queue of a session, or, without one, back into that of everybody. A session
    /// that is not there finds it when it comes; if it comes and cannot do it, the task is everybody's.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTask`]; [`Error::NotEligible`]; [`Error::WrongState`] when somebody has it or it is finished.
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; repeating it is safe.
    async fn assign(&self, task: TaskId, session: Option<&SwarmId>) -> Result<(), Error>;

    /// Cancels a task, wherever it is; whoever has it is told. What depends on it does what it does on failure. Answers
    /// whether it is cancelled now: not if it was finished otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTask`]; [`Error::LimitExceeded`] for the reason.
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; repeating it is safe.
    async fn cancel(&self, task: TaskId, reason: Text) -> Result<bool, Error>;

    /// Gives tasks that failed, were cancelled or are on hold all their attempts anew. What they depend on and what is not
    /// finished is waited for again; what it was on hold for is not. Each runs once: one that was redriven and is none of these
    /// since is a duplicate.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTask`]; [`Error::WrongState`] for one that is none of these, or that fails with one that is and that is
    /// not redriven before it; [`Error::DependencyCycle`] if it would wait for what waits for it by now;
    /// [`Error::LimitExceeded`]. Then none was redriven.
    ///
    /// # Cancel safety
    ///
    /// They may or may not have been redriven; repeat it to be sure.
    async fn redrive(&self, tasks: &[TaskId]) -> Result<Vec<Submitted>, Error>;

    /// A task and where it is.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTask`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn task(&self, task: TaskId) -> Result<TaskStatus, Error>;

    /// Lists tasks in the order in which they were submitted. A step looks at 10,000 tasks at most, so a page may have less
    /// than was asked for; it is the last one when `next` is empty.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] or [`Error::Invalid`] for a limit that is out of range.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn list(&self, which: &Tasks) -> Result<TaskPage, Error>;

    /// The sessions that are there, by name, after the one of that name.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] or [`Error::Invalid`] for a limit that is out of range.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn sessions(&self, after: Option<&SwarmId>, limit: usize) -> Result<Vec<SessionInfo>, Error>;

    /// How many tasks are where.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn stats(&self) -> Result<Stats, Error>;

    /// What became of a task; nothing if it is not finished.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTask`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn outcome(&self, task: TaskId) -> Result<Option<Outcome>, Error>;

    /// Waits until a task is finished, and says what became of it.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTask`], also for one that was forgotten meanwhile; [`Error::Closed`]; [`Error::NoRuntime`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn wait(&self, task: TaskId) -> Result<Outcome, Error>;

    /// These tasks, as far as they are known, and what they wait for, and so on, the nearest first: as many as fit into a batch
    /// ([`Limits::batch`](crate::Limits::batch)). [`SchedulerExt::wait_graph`](crate::SchedulerExt::wait_graph) goes on until
    /// nothing is missing.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] for the batch.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn waits(&self, tasks: &[TaskId]) -> Result<Vec<Waiter>, Error>;

    /// Why a task is where it is.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTask`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn why(&self, task: TaskId) -> Result<Why, Error>;

    /// The clock by which guards pace their renewals.
    fn clock(&self) -> Arc<dyn Clock>;

    /// Ends everything that waits on this handle: claims get nothing, and further calls [`Error::Closed`]. Claims in hand may
    /// still be renewed and ended. Other handles of the fleet go on, and nothing is lost. Repeating it is safe.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Repeating it completes it.
    async fn close(&self) -> Result<(), Error>;
}

/// Tasks in the order in which they were submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskPage {
    /// The tasks.
    pub items: Vec<TaskStatus>,
    /// Listing after this one goes on; nothing when there are no more.
    pub next: Option<TaskId>,
}
