//! What can go wrong, named by outcome.

use crate::capability::Capabilities;
use crate::dead_letter::DeadLetterId;
use crate::dependency::{TaskId, TaskRef};
use crate::escalation::EscalationId;
use crate::event::{EventId, Position};
use crate::invalid::Invalid;
use crate::lease::Token;
use crate::name::{GroupName, IdempotencyKey, Topic};
use crate::swarm::SwarmId;
use crate::task::TaskState;
use crate::text::Text;

/// Why a call did not do what was asked. A call that fails has changed nothing, unless it is [`Error::Backend`]: then it may
/// or may not have happened, and repeating it tells.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A word is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),

    /// Something is larger, longer or more than the limit of that name in [`Limits`](crate::Limits).
    #[error("{what} has {actual}, the limit {limit} is {max}")]
    LimitExceeded {
        /// The limit's name.
        limit: &'static str,
        /// What exceeded it.
        what: String,
        /// Its size.
        actual: u64,
        /// The limit's value.
        max: u64,
    },

    /// The idempotency key was used for an event that said something else.
    #[error("idempotency key {key:?} of topic {topic} belongs to event {original}, which says something else")]
    IdempotencyConflict {
        /// The topic.
        topic: Topic,
        /// The key.
        key: IdempotencyKey,
        /// The event that was published under it.
        original: EventId,
    },

    /// The delivery was superseded: the event was delivered again, died, or its group is gone.
    #[error("delivery {held} of event {position} of topic {topic} to group {group} is stale: {}", superseded(.current))]
    StaleDelivery {
        /// The topic.
        topic: Topic,
        /// The group.
        group: GroupName,
        /// The event.
        position: Position,
        /// The delivery that was to be settled: the n-th of this event to this group.
        held: u32,
        /// The delivery that counts, if there is one.
        current: Option<u32>,
    },

    /// This very delivery was settled before, in another way.
    #[error("delivery {held} of event {position} of topic {topic} was settled before: {outcome}")]
    AlreadySettled {
        /// The topic.
        topic: Topic,
        /// The event.
        position: Position,
        /// The delivery.
        held: u32,
        /// How it was settled.
        outcome: &'static str,
    },

    /// The position is older than what the topic retains.
    #[error("topic {topic} no longer retains what follows position {position}; it starts at {oldest}")]
    NotRetained {
        /// The topic.
        topic: Topic,
        /// What was asked for.
        position: Position,
        /// The oldest position that is there, or the next one if the topic is empty.
        oldest: Position,
    },

    /// A tail fell behind what the topic retains. It goes on after this error at `resumes_at`.
    #[error("the tail of topic {topic} missed {missed} events and resumes at position {resumes_at}")]
    Lagged {
        /// The topic.
        topic: Topic,
        /// How many events it will never see.
        missed: u64,
        /// Where it goes on.
        resumes_at: Position,
    },

    /// The topic belongs to S²; it can be read and tailed only.
    #[error("topic {topic} is reserved: it can be read and tailed, not published to nor shared by a group")]
    ReservedTopic {
        /// The topic.
        topic: Topic,
    },

    /// The topic holds too much that nobody has settled. Publishing works again once consumers catch up.
    #[error("topic {topic} holds {held_bytes} bytes that are not settled, the limit backlog_bytes is {max}")]
    BacklogFull {
        /// The topic.
        topic: Topic,
        /// How much it holds.
        held_bytes: u64,
        /// The limit.
        max: u64,
    },

    /// There is no such group.
    #[error("topic {topic} has no group {group}")]
    UnknownGroup {
        /// The topic.
        topic: Topic,
        /// The group.
        group: GroupName,
    },

    /// There is no such dead letter, or it was purged.
    #[error("there is no dead letter {id}")]
    UnknownDeadLetter {
        /// Its number.
        id: DeadLetterId,
    },

    /// There is no such escalation, or it was resolved so long ago that it is forgotten.
    #[error("there is no escalation {id}")]
    UnknownEscalation {
        /// Its number.
        id: EscalationId,
    },

    /// Somebody resolved the escalation differently before.
    #[error("escalation {id} was resolved before: {by} decided {decision:?}")]
    AlreadyResolved {
        /// Its number.
        id: EscalationId,
        /// Who resolved it.
        by: Text,
        /// What was decided.
        decision: Text,
    },

    /// The claim was superseded: the task was handed to somebody else, ended, or was taken away.
    #[error("claim {held} of task {task} is stale: {}", current_claim(.current))]
    StaleLease {
        /// The task.
        task: TaskId,
        /// The fencing token of the claim that was to be used.
        held: Token,
        /// That of the claim that counts, if there is one.
        current: Option<Token>,
    },

    /// This very claim was ended before, in another way.
    #[error("claim {held} of task {task} was ended before: {outcome}")]
    AlreadyEnded {
        /// The task.
        task: TaskId,
        /// The fencing token of the claim.
        held: Token,
        /// How it was ended.
        outcome: &'static str,
    },

    /// The session was superseded by a newer one of its name, or has left.
    #[error("incarnation {held} of session {session} is stale: {}", current_session(.current))]
    StaleSession {
        /// The session.
        session: SwarmId,
        /// Which one of that name called.
        held: u64,
        /// Which one counts, if there is one.
        current: Option<u64>,
    },

    /// There is no such task, or it was forgotten.
    #[error("there is no task {task}")]
    UnknownTask {
        /// What it was called.
        task: TaskRef,
    },

    /// The key was used for a task that asks for something else.
    #[error("key {key:?} belongs to task {original}, which asks for something else")]
    TaskConflict {
        /// The key.
        key: IdempotencyKey,
        /// The task that was submitted under it.
        original: TaskId,
    },

    /// Tasks would wait for each other forever.
    #[error("tasks would wait for each other forever: {}", chain(.cycle))]
    DependencyCycle {
        /// The tasks, each waiting for the next and the last one for the first.
        cycle: Vec<TaskRef>,
    },

    /// The task is not where this can be done to it.
    #[error("task {task} is {state}: {expected}")]
    WrongState {
        /// The task.
        task: TaskId,
        /// Where it is.
        state: TaskState,
        /// Where it should be.
        expected: &'static str,
    },

    /// The session does not offer what the task requires, or is dedicated to others.
    #[error("task {task} is not for session {session}: {}", lacks(.missing))]
    NotEligible {
        /// The session.
        session: SwarmId,
        /// The task.
        task: TaskId,
        /// What it lacks; nothing if it is [dedicated](Capabilities::may_take) to other tasks.
        missing: Capabilities,
    },

    /// The handle was closed.
    #[error("it is closed")]
    Closed,

    /// There is no tokio runtime in this thread. It must have its timer enabled, unless the store has a clock of its own.
    #[error("this needs a tokio runtime: call it from within one")]
    NoRuntime,

    /// The store was written by another version of S², which lays it out differently.
    #[error("the store has layout {found:?}, this version of S² reads {expected:?}")]
    LayoutMismatch {
        /// The layout that is there.
        found: String,
        /// The layout that this version reads and writes.
        expected: &'static str,
    },

    /// The backend does not offer this.
    #[error("this backend does not offer {feature}")]
    Unsupported {
        /// What it does not offer.
        feature: &'static str,
    },

    /// The backend failed.
    #[error("the backend failed")]
    Backend {
        /// Whether trying again may help.
        retryable: bool,
        /// The backend's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a session does not get a task, in words.
pub(crate) fn lacks(missing: &Capabilities) -> String {
    if missing.is_empty() { "it is dedicated to others".to_owned() } else { format!("it lacks {missing}") }
}

fn current_claim(current: &Option<Token>) -> String {
    match current {
        Some(current) => format!("claim {current} counts now"),
        None => "nobody has the task".to_owned(),
    }
}

fn current_session(current: &Option<u64>) -> String {
    match current {
        Some(current) => format!("incarnation {current} counts now"),
        None => "it has left".to_owned(),
    }
}

fn chain(cycle: &[TaskRef]) -> String {
    let around = cycle.iter().chain(cycle.first());
    around.map(ToString::to_string).collect::<Vec<_>>().join(" → ")
}

fn superseded(current: &Option<u32>) -> String {
    match current {
        Some(current) => format!("delivery {current} counts now"),
        None => "the event is no longer with this group".to_owned(),
    }
}

impl Error {
    /// A stable code for logs, metrics and other languages.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "S2_INVALID",
            Self::LimitExceeded { .. } => "S2_LIMIT_EXCEEDED",
            Self::IdempotencyConflict { .. } => "S2_IDEMPOTENCY_CONFLICT",
            Self::StaleDelivery { .. } => "S2_STALE_DELIVERY",
            Self::AlreadySettled { .. } => "S2_ALREADY_SETTLED",
            Self::NotRetained { .. } => "S2_NOT_RETAINED",
            Self::Lagged { .. } => "S2_LAGGED",
            Self::ReservedTopic { .. } => "S2_RESERVED_TOPIC",
            Self::BacklogFull { .. } => "S2_BACKLOG_FULL",
            Self::UnknownGroup { .. } => "S2_UNKNOWN_GROUP",
            Self::UnknownDeadLetter { .. } => "S2_UNKNOWN_DEAD_LETTER",
            Self::UnknownEscalation { .. } => "S2_UNKNOWN_ESCALATION",
            Self::AlreadyResolved { .. } => "S2_ALREADY_RESOLVED",
            Self::StaleLease { .. } => "S2_STALE_LEASE",
            Self::AlreadyEnded { .. } => "S2_ALREADY_ENDED",
            Self::StaleSession { .. } => "S2_STALE_SESSION",
            Self::UnknownTask { .. } => "S2_UNKNOWN_TASK",
            Self::TaskConflict { .. } => "S2_TASK_CONFLICT",
            Self::DependencyCycle { .. } => "S2_DEPENDENCY_CYCLE",
            Self::WrongState { .. } => "S2_WRONG_STATE",
            Self::NotEligible { .. } => "S2_NOT_ELIGIBLE",
            Self::Closed => "S2_CLOSED",
            Self::NoRuntime => "S2_NO_RUNTIME",
            Self::LayoutMismatch { .. } => "S2_LAYOUT_MISMATCH",
            Self::Unsupported { .. } => "S2_UNSUPPORTED",
            Self::Backend { .. } => "S2_BACKEND",
        }
    }

    /// Whether the same call may succeed later without the caller changing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::BacklogFull { .. } | Self::Lagged { .. } => true,
            Self::Backend { retryable, .. } => *retryable,
            _ => false,
        }
    }
}
