//! What became of a task.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::dependency::TaskId;
use crate::entry::{Params, Value};
use crate::event::{CONTENT_TYPE_JSON, NewEvent, from_json, to_json};
use crate::invalid::Invalid;
use crate::lease::Token;
use crate::new_task::NewTask;
use crate::swarm::SwarmId;
use crate::text::Text;
use crate::time::Timestamp;

/// What a session says when a task is done: the result, the evidence for it, and what follows from it, in one step.
///
/// ```
/// use s2_coordinator::Completion;
///
/// let completion = Completion::new().with_json(&42)?.with_evidence("tool_calls", 12_u32);
/// assert_eq!(&completion.result.data[..], b"42");
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a completion does nothing until a lease is ended with it"]
#[non_exhaustive]
pub struct Completion {
    /// What came out.
    pub result: TaskResult,
    /// Tasks that follow from it. Unless they say otherwise, they are parts of the task that is done.
    pub tasks: Vec<NewTask>,
    /// Events that follow from it.
    pub events: Vec<NewEvent>,
}

/// What came out of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskResult {
    /// The media type of `data`.
    pub content_type: Option<Text>,
    /// The result, opaque.
    pub data: Bytes,
    /// What shows that it is one, such as how many tools were called. It stands in the journal, too.
    pub evidence: Params,
}

impl TaskResult {
    /// Reads a JSON result.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the result is not the JSON form of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Invalid> {
        from_json(&self.data)
    }
}

impl Completion {
    /// Done, and nothing more to say.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the result, as opaque bytes.
    pub fn with_data(mut self, data: impl Into<Bytes>) -> Self {
        self.result.data = data.into();
        self
    }

    /// Sets the result to `value` in JSON.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when `value` has no JSON form.
    pub fn with_json<T: Serialize + ?Sized>(mut self, value: &T) -> Result<Self, Invalid> {
        self.result.data = to_json(value)?.into();
        self.result.content_type = Some(CONTENT_TYPE_JSON);
        Ok(self)
    }

    /// Sets the media type of the result.
    pub fn with_content_type(mut self, content_type: impl Into<Text>) -> Self {
        self.result.content_type = Some(content_type.into());
        self
    }

    /// Adds what shows that it is a result.
    pub fn with_evidence(mut self, name: impl Into<Text>, value: impl Into<Value>) -> Self {
        self.result.evidence.push(name, value);
        self
    }

    /// Adds a task that follows.
    pub fn with_task(mut self, task: NewTask) -> Self {
        self.tasks.push(task);
        self
    }

    /// Adds an event that follows.
    pub fn with_event(mut self, event: NewEvent) -> Self {
        self.events.push(event);
        self
    }
}

/// How an attempt ended without success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum RunEnd {
    /// The session gave up.
    Failed {
        /// What it said.
        reason: Text,
    },
    /// The lease ended while the session was there: it was not renewed, or the attempt took longer than it may.
    TimedOut,
    /// The session renewed its claim, but reported no progress for too long.
    Stalled,
    /// The session was gone, or a newer one of its name took its place: a crash.
    Lost,
}

impl RunEnd {
    /// Why it ended, in words.
    #[must_use]
    pub fn reason(&self) -> Text {
        match self {
            Self::Failed { reason } => reason.clone(),
            Self::TimedOut => "the lease was not renewed in time".into(),
            Self::Stalled => "there was no progress for too long".into(),
            Self::Lost => "the session was lost".into(),
        }
    }

    /// Bytes of text in it.
    pub(crate) fn weight(&self) -> usize {
        if let Self::Failed { reason } = self { reason.len() } else { 0 }
    }
}

/// One attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Run {
    /// Who tried.
    pub session: SwarmId,
    /// The fencing token of the claim.
    pub token: Token,
    /// When the attempt began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How it ended.
    #[serde(flatten)]
    pub end: RunEnd,
}

impl Run {
    /// An attempt that failed; made by backends.
    #[must_use]
    pub fn new(session: SwarmId, token: Token, started: Timestamp, ended: Timestamp, end: RunEnd) -> Self {
        Self { session, token, started, ended, end }
    }
}

/// Why a task failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The last attempt failed.
    Attempts,
    /// A session said that trying again is of no use.
    Fatal,
    /// Its deadline passed.
    Overdue,
    /// Something that it depends on failed or was cancelled.
    Dependency {
        /// The other task.
        task: TaskId,
    },
    /// It waited for others that waited for it, and was the one to give way.
    Deadlock {
        /// This task waited for the next, and the last one for this.
        cycle: Vec<TaskId>,
    },
}

/// What became of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done(TaskResult),
    /// It is given up on. It stays until it is redriven or forgotten.
    Failed {
        /// Why.
        cause: Cause,
        /// Every attempt that failed since it was submitted or last redriven.
        history: Vec<Run>,
    },
    /// Somebody has cancelled it.
    Cancelled {
        /// Why.
        reason: Text,
    },
}

impl Outcome {
    /// What came out, if it is done.
    #[must_use]
    pub const fn result(&self) -> Option<&TaskResult> {
        match self {
            Self::Done(result) => Some(result),
            Self::Failed { .. } | Self::Cancelled { .. } => None,
        }
    }
}
