//! Tasks as the scheduler keeps them.
//!
//! A host writes a [`NewTask`]. The scheduler gives it a number, fills in the defaults, and hands out the [`Task`] that
//! became of it. Payloads are opaque bytes, as those of events.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::dependency::{OnFailure, TaskId};
use crate::event::from_json;
use crate::invalid::Invalid;
use crate::name::{IdempotencyKey, Subject, Tag, TaskKind};
use crate::new_task::NewTask;
use crate::priority::Priority;
use crate::swarm::SwarmId;
use crate::text::Text;
use crate::time::Timestamp;
use crate::trace::TraceToken;

/// A task as the scheduler keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// What is to be done.
    pub kind: TaskKind,
    /// Who asked for it.
    pub source: SwarmId,
    /// What it is about.
    pub subject: Option<Subject>,
    /// The media type of `data`.
    pub content_type: Option<Text>,
    /// The payload.
    pub data: Bytes,
    /// Under which key it was submitted.
    pub key: Option<IdempotencyKey>,
    /// How urgent it is.
    pub priority: Priority,
    /// What it touches.
    pub tags: Vec<Tag>,
    /// What a session must offer to claim it.
    pub requires: Capabilities,
    /// What had to be done first when it was submitted.
    pub after: Vec<(TaskId, OnFailure)>,
    /// The task that it is a part of.
    pub parent: Option<TaskId>,
    /// How many tasks it is a part of, one in the other: 0 without a parent.
    pub depth: u32,
    /// When it was submitted, by the store's clock.
    pub submitted: Timestamp,
    /// When it may start at the earliest.
    pub start: Timestamp,
    /// When it fails unless it is done.
    pub deadline: Option<Timestamp>,
    /// How often it is tried.
    pub attempts: u32,
    /// How long a claim of it lasts unless renewed.
    pub lease: Duration,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// The longest chain of tasks of its batch that wait for it, itself included, where the fleet orders by that
    /// ([`Config::critical_path`](crate::Config::critical_path)); otherwise 0.
    pub path: u32,
    /// The trace it belongs to.
    pub trace: Option<TraceToken>,
}

/// What a backend knows about a task when it accepts it, besides what the submitter said.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The number it is given.
    pub id: TaskId,
    /// The time of the step.
    pub now: Timestamp,
    /// What it depends on, resolved.
    pub after: Vec<(TaskId, OnFailure)>,
    /// How many tasks it is a part of.
    pub depth: u32,
    /// [`Task::path`].
    pub path: u32,
    /// How often it is tried unless it says so itself.
    pub attempts: u32,
    /// How long a claim lasts unless it says so itself.
    pub lease: Duration,
}

impl Task {
    /// The task that `new` becomes; made by backends.
    #[must_use]
    pub fn accepted(new: NewTask, accepted: Accepted) -> Self {
        let Accepted { id, now, after, depth, path, attempts, lease } = accepted;
        let start = new.start.map_or(now, |start| start.after(now)).max(now);
        Self {
            id,
            priority: new.priority(),
            kind: new.kind,
            source: new.source,
            subject: new.subject,
            content_type: new.content_type,
            data: new.data,
            key: new.key,
            tags: new.tags,
            requires: new.requires,
            after,
            parent: new.parent,
            depth,
            submitted: now,
            start,
            deadline: new.deadline.map(|deadline| deadline.after(now)),
            attempts: new.attempts.unwrap_or(attempts),
            lease: new.lease.unwrap_or(lease),
            timeout: new.timeout,
            path,
            trace: new.trace,
        }
    }

    /// Reads a JSON payload.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the payload is not the JSON form of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Invalid> {
        from_json(&self.data)
    }

    /// Whether `new`, under the same key, asks for the same: kind, subject, content type, payload and requirements are
    /// equal. Who asks, how urgently and when may differ; the first counts.
    #[must_use]
    pub fn is_same(&self, new: &NewTask) -> bool {
        (&self.kind, &self.subject, &self.content_type, &self.data, &self.requires) == new.asks()
    }

    /// About how many bytes the task occupies.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let tags = self.tags.len() * size_of::<Tag>();
        let after = self.after.len() * size_of::<(TaskId, OnFailure)>();
        let key = self.key.as_ref().map_or(0, |key| key.as_str().len());
        (size_of::<Self>() + self.data.len() + tags + after + key) as u64
    }
}

/// What became of one task of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// Its number; of a duplicate, that of the original.
    pub id: TaskId,
    /// Whether a task with the same key was there already, so that nothing was written.
    pub duplicate: bool,
}

/// Where a task is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Something that it depends on is not done.
    Waiting,
    /// Its time has not come: it starts later, or backs off after a failure.
    Delayed,
    /// It can be claimed: by any session that is eligible, by the one in whose own queue it is, or by the one that may resume
    /// it.
    Ready,
    /// A session has it.
    Claimed,
    /// Its session waits for help and has handed it back until then.
    Blocked,
    /// Something that it depends on failed; somebody has to decide.
    OnHold,
    /// It is done.
    Done,
    /// It is given up on.
    Failed,
    /// Somebody has cancelled it.
    Cancelled,
}

impl TaskState {
    /// All of them, in the order in which a task may pass them.
    pub const ALL: [TaskState; 9] = [
        Self::Waiting,
        Self::Delayed,
        Self::Ready,
        Self::Claimed,
        Self::Blocked,
        Self::OnHold,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Whether nothing more will happen to it, unless it is redriven.
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }

    /// In words, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delayed => "delayed",
            Self::Ready => "ready",
            Self::Claimed => "claimed",
            Self::Blocked => "blocked",
            Self::OnHold => "on_hold",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A task and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskStatus {
    /// The task.
    pub task: Arc<Task>,
    /// Where it is.
    pub state: TaskState,
    /// How many attempts have failed since it was submitted or last redriven.
    pub failures: u32,
    /// The session in whose own queue it is, or that has it, or that waits for help.
    pub session: Option<SwarmId>,
}

impl TaskStatus {
    /// A task and where it is; made by backends.
    #[must_use]
    pub fn new(task: Arc<Task>, state: TaskState, failures: u32, session: Option<SwarmId>) -> Self {
        Self { task, state, failures, session }
    }
}
