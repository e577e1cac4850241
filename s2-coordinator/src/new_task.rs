//! What is to be done: tasks that are to be submitted.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::dependency::{Dependency, TaskId};
use crate::event::{CONTENT_TYPE_JSON, to_json};
use crate::invalid::Invalid;
use crate::name::{IdempotencyKey, Subject, Tag, TaskKind};
use crate::priority::Priority;
use crate::swarm::SwarmId;
use crate::text::Text;
use crate::time::Timestamp;
use crate::trace::TraceToken;

/// A point in time, or one that lies so far ahead of the step that reads it. Clocks of sessions differ; a duration means
/// the same to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At this point in time, by the store's clock.
    At(Timestamp),
    /// So long after the task was submitted.
    In(Duration),
}

impl When {
    /// The point in time, for a task that is submitted at `now`.
    #[must_use]
    pub fn after(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::In(delay) => now + delay,
        }
    }
}

impl From<Timestamp> for When {
    fn from(at: Timestamp) -> Self {
        Self::At(at)
    }
}

impl From<Duration> for When {
    fn from(delay: Duration) -> Self {
        Self::In(delay)
    }
}

pub(crate) type Asks<'a> = (&'a TaskKind, &'a Option<Subject>, &'a Option<Text>, &'a Bytes, &'a Capabilities);

/// A task that is to be submitted.
///
/// ```
/// use s2_coordinator::{Capabilities, NewTask, Priority, SwarmId, Tag, TaskKind};
///
/// const REVIEW: TaskKind = TaskKind::from_static("review");
///
/// let task = NewTask::new(REVIEW, SwarmId::new("telephony/sip/session-4")?)
///     .with_json("src/invite.rs")?
///     .with_requires(Capabilities::new(["integration:sip", "tool:rust"])?)
///     .with_key("review-invite-17".parse()?);
/// assert_eq!(task.priority(), Priority::P2);
/// assert_eq!(task.with_tag(Tag::from_static("legal")).priority(), Priority::P0);
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a task does nothing until it is submitted"]
#[non_exhaustive]
pub struct NewTask {
    /// What is to be done.
    pub kind: TaskKind,
    /// Who asks for it.
    pub source: SwarmId,
    /// What it is about.
    pub subject: Option<Subject>,
    /// The media type of `data`.
    pub content_type: Option<Text>,
    /// The payload.
    pub data: Bytes,
    /// Under which key it counts as submitted once, and by which other tasks may name it.
    pub key: Option<IdempotencyKey>,
    /// How urgent it is, if that does not follow from its tags.
    pub priority: Option<Priority>,
    /// What it touches.
    pub tags: Vec<Tag>,
    /// What a session must offer to claim it.
    pub requires: Capabilities,
    /// What must be done first.
    pub after: Vec<Dependency>,
    /// The task that it is a part of.
    pub parent: Option<TaskId>,
    /// The session that is to do it, unless another steals it.
    pub assignee: Option<SwarmId>,
    /// When it may start at the earliest.
    pub start: Option<When>,
    /// When it fails unless it is done.
    pub deadline: Option<When>,
    /// How often it is tried before it fails.
    pub attempts: Option<u32>,
    /// How long a claim of it lasts unless renewed.
    pub lease: Option<Duration>,
    /// How long one attempt may take, however often it is renewed.
    pub timeout: Option<Duration>,
    /// The trace it belongs to.
    pub trace: Option<TraceToken>,
}

impl NewTask {
    /// A task without payload that anybody may do at once.
    pub fn new(kind: TaskKind, source: SwarmId) -> Self {
        Self {
            kind,
            source,
            subject: None,
            content_type: None,
            data: Bytes::new(),
            key: None,
            priority: None,
            tags: Vec::new(),
            requires: Capabilities::default(),
            after: Vec::new(),
            parent: None,
            assignee: None,
            start: None,
            deadline: None,
            attempts: None,
            lease: None,
            timeout: None,
            trace: None,
        }
    }

    /// Sets what it is about.
    pub fn with_subject(mut self, subject: Subject) -> Self {
        self.subject = Some(subject);
        self
    }

    /// Sets the payload, as opaque bytes.
    pub fn with_data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = data.into();
        self
    }

    /// Sets the payload to `value` in JSON.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when `value` has no JSON form.
    pub fn with_json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, Invalid> {
        Ok(self.with_data(to_json(value)?).with_content_type(CONTENT_TYPE_JSON))
    }

    /// Sets the media type of the payload.
    pub fn with_content_type(mut self, content_type: impl Into<Text>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Submits at most once under this key, for as long as the task is known. Others may depend on it by this key.
    pub fn with_key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets how urgent it is. Unset, it is P0 if a tag is critical ([`Tag::is_critical`]), else P2.
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Adds what it touches.
    pub fn with_tag(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// Sets what a session must offer to claim it.
    pub fn with_requires(mut self, requires: Capabilities) -> Self {
        self.requires = requires;
        self
    }

    /// Adds a task that must be done first.
    pub fn after(mut self, dependency: impl Into<Dependency>) -> Self {
        self.after.push(dependency.into());
        self
    }

    /// Sets the task that it is a part of. How deep parts may nest, and how many a task may have, is limited.
    pub fn with_parent(mut self, parent: TaskId) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Puts it into the own queue of a session, from which only an idle session may steal it.
    pub fn with_assignee(mut self, session: SwarmId) -> Self {
        self.assignee = Some(session);
        self
    }

    /// Sets when it may start at the earliest.
    pub fn with_start(mut self, start: impl Into<When>) -> Self {
        self.start = Some(start.into());
        self
    }

    /// Sets when it fails unless it is done by then.
    pub fn with_deadline(mut self, deadline: impl Into<When>) -> Self {
        self.deadline = Some(deadline.into());
        self
    }

    /// Sets how often it is tried; [`Config::attempts`](crate::Config::attempts) unless set.
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// Sets how long a claim lasts unless renewed; [`Config::lease`](crate::Config::lease) unless set.
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Sets how long one attempt may take, however often it is renewed; any time unless set.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the trace.
    pub fn with_trace(mut self, trace: TraceToken) -> Self {
        self.trace = Some(trace);
        self
    }

    /// What is asked for: two tasks under one key must agree in it.
    pub(crate) const fn asks(&self) -> Asks<'_> {
        (&self.kind, &self.subject, &self.content_type, &self.data, &self.requires)
    }

    /// How urgent it is: as said, else P0 if a tag is critical, else P2.
    #[must_use]
    pub fn priority(&self) -> Priority {
        let critical = self.tags.iter().any(Tag::is_critical);
        self.priority.unwrap_or(if critical { Priority::P0 } else { Priority::default() })
    }
}
