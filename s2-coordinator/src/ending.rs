//! How a session ends a claim.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::dependency::TaskId;
use crate::event::Published;
use crate::new_task::NewTask;
use crate::outcome::Completion;
use crate::task::Submitted;
use crate::text::Text;
use crate::time::Timestamp;
use crate::waits::Needs;

/// How a session ends its claim of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The task is done, and this is what follows: all in one step, or nothing.
    Complete(Completion),
    /// The attempt failed. After the last one the task fails.
    Fail {
        /// Why.
        reason: Text,
        /// Whether and when to try again.
        retry: Retry,
    },
    /// Handed back as it was, without an attempt: whoever is eligible may claim it at once.
    Release,
    /// Handed back without an attempt, since this session cannot take it now: a refused budget, an open breaker, a full
    /// bulkhead. This session is not offered it again for a while; others are.
    Refuse {
        /// Why.
        reason: Text,
        /// For how long; the backoff of [`Config`](crate::Config) unless said.
        delay: Option<Duration>,
    },
    /// The session cannot go on without help. It hands the task back until the help is there, and resumes it then.
    Block(Blocker),
}

impl Ending {
    /// The tasks that follow from it.
    pub fn tasks(&self) -> &[NewTask] {
        match self {
            Self::Complete(completion) => &completion.tasks,
            Self::Block(blocker) => &blocker.help,
            Self::Fail { .. } | Self::Release | Self::Refuse { .. } => &[],
        }
    }
}

/// Whether a failed attempt is followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// After the backoff of [`Config`](crate::Config).
    Backoff,
    /// After this time.
    After(Duration),
    /// Trying again is of no use: the task fails.
    Never,
}

/// What stands in the way of a task, and what is to be done about it.
///
/// ```
/// use s2_coordinator::{Blocker, Capabilities, NewTask, SwarmId, TaskKind};
///
/// let session = SwarmId::from_static("telephony/sip");
/// let blocker = Blocker::new("the invite is answered with 488")
///     .with_requires(Capabilities::new(["integration:sip"])?)
///     .with_help(NewTask::new(TaskKind::from_static("help"), session));
/// assert_eq!(blocker.help.len(), 1);
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a blocker does nothing until a claim is ended with it"]
#[non_exhaustive]
pub struct Blocker {
    /// What stands in the way.
    pub reason: Text,
    /// What one must be capable of to help.
    pub requires: Capabilities,
    /// Tasks that are submitted in the same step and waited for.
    pub help: Vec<NewTask>,
    /// Tasks that are there and waited for.
    pub on: Vec<TaskId>,
    /// How many of all these are needed.
    pub needs: Needs,
    /// Whether somebody waits for the help and will resume the task by asking for this very one. Otherwise the session
    /// gets it with its next claims.
    pub awaited: bool,
}

impl Blocker {
    /// Something that stands in the way. Without tasks to wait for, only [`Scheduler::unblock`](crate::Scheduler::unblock)
    /// clears it.
    pub fn new(reason: impl Into<Text>) -> Self {
        Self {
            reason: reason.into(),
            requires: Capabilities::default(),
            help: Vec::new(),
            on: Vec::new(),
            needs: Needs::All,
            awaited: false,
        }
    }

    /// Sets what one must be capable of to help.
    pub fn with_requires(mut self, requires: Capabilities) -> Self {
        self.requires = requires;
        self
    }

    /// Adds a task that helps: a part of the blocked one, unless it says otherwise. It is submitted and waited for.
    pub fn with_help(mut self, task: NewTask) -> Self {
        self.help.push(task);
        self
    }

    /// Adds a task that is there already and is waited for.
    pub fn with_wait(mut self, task: TaskId) -> Self {
        self.on.push(task);
        self
    }

    /// The first that is done is enough. The others go on, and are not waited for any more.
    pub fn with_any(mut self) -> Self {
        self.needs = Needs::Any;
        self
    }
}

/// What the end of a claim led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The task is done.
    Completed {
        /// What became of the tasks that follow, in order.
        tasks: Arc<[Submitted]>,
        /// What became of the events that follow, in order.
        events: Arc<[Published]>,
    },
    /// The attempt failed; there will be another.
    Retrying {
        /// When it may start.
        at: Timestamp,
    },
    /// The task failed.
    Failed,
    /// The task was handed back.
    Released,
    /// The task was handed back, and this session is not offered it for a while.
    Refused {
        /// Until when.
        until: Timestamp,
    },
    /// The task waits for help.
    Blocked {
        /// What became of the tasks that help, in order.
        help: Arc<[Submitted]>,
    },
}

impl Ended {
    /// In a word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Completed { .. } => "completed",
            Self::Retrying { .. } => "retrying",
            Self::Failed => "failed",
            Self::Released => "released",
            Self::Refused { .. } => "refused",
            Self::Blocked { .. } => "blocked",
        }
    }
}
