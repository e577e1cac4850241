//! Why a task is not running.

use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::dependency::TaskId;
use crate::lease::{Incarnation, Lease, Preempted};
use crate::outcome::Cause;
use crate::swarm::SwarmId;
use crate::task::TaskState;
use crate::text::Text;
use crate::time::Timestamp;
use crate::waits::Needs;

/// A task that another one waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The task.
    pub task: TaskId,
    /// Where it is.
    pub state: TaskState,
    /// In whose queue or hands it is.
    pub session: Option<SwarmId>,
}

/// Why a task is where it is: what has to happen next, or what has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// It waits for other tasks.
    Waiting {
        /// At most twenty of them, by number, and where they are.
        on: Vec<(TaskId, TaskState)>,
        /// How many there are.
        count: u64,
        /// The first of them, what that one waits for, and so on: at most twenty. The last is what has to move first.
        chain: Vec<Link>,
        /// The session that had blocked it and is gone: somebody else takes it up.
        deserted: Option<SwarmId>,
    },
    /// It starts later: as its submitter asked.
    NotYet {
        /// When.
        start: Timestamp,
    },
    /// It backs off after a failed attempt.
    BacksOff {
        /// Until when.
        until: Timestamp,
        /// How many attempts have failed.
        failures: u32,
        /// What the last one said.
        reason: Text,
    },
    /// It could be claimed, but no session is there.
    NoSession,
    /// It could be claimed, but no session that is there offers what it requires.
    NotCapable {
        /// The session that comes closest.
        closest: SwarmId,
        /// What that one lacks.
        missing: Capabilities,
    },
    /// It is in the own queue of a session that is not there. An idle session may steal from it once there are more than
    /// [`Config::steal_above`](crate::Config::steal_above).
    Absent {
        /// The session.
        session: SwarmId,
    },
    /// It is in the own queue of a session that is there.
    Assigned {
        /// The session.
        session: SwarmId,
        /// How many tasks of the same requirements come before it there; at most 1,000 are counted.
        ahead: u64,
    },
    /// The help that it waited for is there, and its session is given time to resume it.
    Resumable {
        /// The session.
        session: SwarmId,
        /// Until when; then it is anybody's.
        until: Timestamp,
        /// Why it goes on without all of the help, if it does.
        preempted: Option<Preempted>,
    },
    /// Every session that could take it has refused it.
    Refused {
        /// When the first of them is offered it again.
        until: Timestamp,
    },
    /// It is in the queue, and who could take it has not come for it.
    Queued {
        /// How many tasks of the same requirements come before it; at most 1,000 are counted.
        ahead: u64,
        /// How many sessions could take it.
        eligible: u64,
    },
    /// A session has it.
    Running {
        /// Which.
        by: Incarnation,
        /// Proof of its claim.
        lease: Lease,
        /// Since when.
        since: Timestamp,
        /// Until when unless it is renewed.
        deadline: Timestamp,
        /// When it last reported progress, or began.
        progressed: Timestamp,
    },
    /// A session that is gone had it: a crash. Somebody else has it soon.
    Lost {
        /// Which.
        by: Incarnation,
        /// Proof of its claim.
        lease: Lease,
        /// When its claim ends.
        deadline: Timestamp,
    },
    /// Its session waits for help.
    Blocked {
        /// The session.
        session: SwarmId,
        /// What stands in the way.
        reason: Text,
        /// What one must be capable of to help.
        requires: Capabilities,
        /// At most twenty of the tasks that it waits for, by number, and where they are.
        on: Vec<(TaskId, TaskState)>,
        /// How many there are.
        count: u64,
        /// How many of them are needed.
        needs: Needs,
        /// Since when.
        since: Timestamp,
        /// As that of [`Why::Waiting`].
        chain: Vec<Link>,
    },
    /// Its session waits for others that wait for it, and a person has to decide: whoever could give way has done so before.
    Deadlocked {
        /// The session.
        session: SwarmId,
        /// What stands in the way.
        reason: Text,
        /// Since when.
        since: Timestamp,
        /// The ring: this task waited for the next, and the last one for this.
        cycle: Vec<TaskId>,
    },
    /// Something that it depends on failed, and somebody has to decide.
    OnHold {
        /// The other task.
        because: TaskId,
    },
    /// It is done.
    Done,
    /// It is given up on.
    Failed {
        /// Why.
        cause: Cause,
        /// What the last attempt said, if there was one.
        reason: Option<Text>,
    },
    /// Somebody has cancelled it.
    Cancelled {
        /// Why.
        reason: Text,
    },
}
