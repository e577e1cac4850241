//! Who has a task, and proof of it.
//!
//! A session that was taken for dead may come back and go on. So each claim has a *fencing token*: a number that only
//! rises, restarts included. Whoever calls with a token that was superseded changes nothing.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dependency::TaskId;
use crate::number::number;
use crate::swarm::SwarmId;
use crate::task::Task;
use crate::text::Text;
use crate::time::Timestamp;

number! {
    /// A fencing token: each claim of a fleet has a larger one than all before it, restarts of the fleet included. It is at
    /// least the microseconds since 1970 at which the claim was granted.
    ///
    /// Systems that sessions write to can fence with it, too: remember the largest token seen and refuse smaller ones.
    Token
}

/// Proof that a session has a task. It can be kept, sent elsewhere as JSON, and used from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lease {
    /// The task.
    pub task: TaskId,
    /// The fencing token of the claim.
    pub token: Token,
}

/// One running agent as the registry knows it: a session of that name, and which one. A newer one of the same name takes
/// its place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation {
    /// The session.
    pub session: SwarmId,
    /// Which one of that name; a newer one has a larger number.
    pub number: u64,
}

/// A request for tasks.
///
/// Repeated under the same number, it answers with the leases that the first one was granted, as far as they are still
/// held; so a reply that was lost costs nothing. The latest 64 requests of a session are remembered, and all of which something
/// is still held. A request is repeated by the process that made it; while it waits, by waiting with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who asks.
    pub by: Incarnation,
    /// A number that this session uses for this request only.
    pub request: u64,
    /// How many tasks at most.
    pub max: usize,
}

/// A task in the hands of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a task that is granted comes back when its lease ends"]
#[non_exhaustive]
pub struct Grant {
    /// The task.
    pub task: Arc<Task>,
    /// Which attempt this is since the task was submitted or last redriven: 1 is the first, and
    /// [`Task::attempts`](crate::Task::attempts) the last.
    pub attempt: u32,
    /// Proof of the claim.
    pub lease: Lease,
    /// Until when the claim lasts unless it is renewed, by the store's clock.
    pub deadline: Timestamp,
    /// Until when it can be renewed at the longest, if the task limits that.
    pub expires: Option<Timestamp>,
    /// What the task has waited for, if it was blocked: the answers are the outcomes of these tasks.
    pub answers: Vec<TaskId>,
    /// Why it went on without them, if it did: not all of them were over. It stays until the task is blocked again.
    pub preempted: Option<Box<Preempted>>,
}

/// A task goes on although what it waited for is not over: it would wait for ever, or has waited for too long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Preempted {
    /// The ring that was opened: this task waited for the next, and the last one for this. Empty if it has just waited for
    /// longer than [`Config::longest_wait`](crate::Config::longest_wait).
    pub cycle: Vec<TaskId>,
    /// For how long it has waited.
    pub waited: Duration,
}

impl Preempted {
    /// The end of a wait; made by backends.
    #[must_use]
    pub const fn new(cycle: Vec<TaskId>, waited: Duration) -> Self {
        Self { cycle, waited }
    }
}

impl Grant {
    /// A task that is handed out at `now`; made by backends.
    pub fn new(task: Arc<Task>, attempt: u32, token: Token, now: Timestamp, answers: Vec<TaskId>) -> Self {
        let expires = task.timeout.map(|timeout| now + timeout);
        let lease = Lease { task: task.id, token };
        let deadline = lease_end(now, task.lease, expires);
        Self { task, attempt, lease, deadline, expires, answers, preempted: None }
    }
}

/// When a lease ends that is granted or renewed at `now`.
pub(crate) fn lease_end(now: Timestamp, lease: Duration, expires: Option<Timestamp>) -> Timestamp {
    (now + lease).min(expires.unwrap_or(Timestamp::MAX))
}

/// Why a session no longer has a task that it did not end itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "loss", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Loss {
    /// The lease was not renewed in time, or the attempt took longer than it may.
    Expired,
    /// The session renewed its claim, but has reported no progress for [`Config::progress`](crate::Config::progress).
    Stalled,
    /// A newer session of the same name has taken its place.
    Superseded,
    /// The task was cancelled.
    Cancelled {
        /// Why.
        reason: Text,
    },
    /// The task's deadline passed.
    Overdue,
    /// The task, or this claim of it, is not known any more.
    Forgotten,
    /// The session has ended the claim itself.
    Ended,
}
