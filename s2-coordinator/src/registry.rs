//! Which sessions there are, and what the fleet has to do.

use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::dependency::TaskId;
use crate::lease::Incarnation;
use crate::name::TaskKind;
use crate::swarm::SwarmId;
use crate::task::TaskState;

/// What a session says about itself when it joins.
///
/// ```
/// use s2_coordinator::{Capabilities, Profile, SwarmId};
///
/// let profile = Profile::new(SwarmId::new("telephony/ndi")?)
///     .with_capabilities(Capabilities::new(["integration:ndi", "integration:sip", "tool:rust"])?);
/// assert_eq!(profile.capabilities.len(), 3);
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a profile does nothing until a session joins with it"]
#[non_exhaustive]
pub struct Profile {
    /// Its name. One session of a name is in the fleet at a time.
    pub session: SwarmId,
    /// What it offers: skills, and tools as `tool:` capabilities.
    pub capabilities: Capabilities,
}

impl Profile {
    /// A session that offers nothing in particular.
    pub fn new(session: SwarmId) -> Self {
        Self { session, capabilities: Capabilities::default() }
    }

    /// Sets what it offers.
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }
}

/// What a session does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionState {
    /// It has a task in hand.
    Working,
    /// It has none in hand, and one that waits for others.
    WaitingOn,
    /// It has none in hand, and one that is blocked by something that is no task.
    Blocked,
    /// It has nothing.
    #[default]
    Idle,
}

/// A session of the fleet. One that has left, or was lost, is told of by the journal only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Which session.
    pub incarnation: Incarnation,
    /// What it offers.
    pub capabilities: Capabilities,
    /// How many tasks it has.
    pub load: usize,
    /// How many tasks are in its own queue.
    pub queued: usize,
    /// How many of its tasks wait for help.
    pub blocked: usize,
    /// What it does.
    pub state: SessionState,
}

impl SessionInfo {
    /// A session that has just joined; made by backends.
    #[must_use]
    pub const fn new(incarnation: Incarnation, capabilities: Capabilities) -> Self {
        Self { incarnation, capabilities, load: 0, queued: 0, blocked: 0, state: SessionState::Idle }
    }
}

/// How many tasks are where, those finished but not yet forgotten included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// One number for each of [`TaskState::ALL`], in its order.
    pub tasks: [u64; TaskState::ALL.len()],
    /// Sessions.
    pub sessions: u64,
    /// Sets of requirements among the tasks that are not finished.
    pub classes: u64,
}

impl Stats {
    /// How many tasks are in a state.
    #[must_use]
    pub const fn count(&self, state: TaskState) -> u64 {
        self.tasks[state as usize]
    }

    /// How many tasks are not finished.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        TaskState::ALL.iter().filter(|state| !state.is_finished()).map(|state| self.count(*state)).sum()
    }
}

/// Which tasks are meant: those that match everything that is set.
///
/// ```
/// use s2_coordinator::{TaskState, Tasks};
///
/// let failed = Tasks::all().with_state(TaskState::Failed).with_limit(50);
/// assert_eq!(failed.limit, Some(50));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a selection does nothing by itself"]
#[non_exhaustive]
pub struct Tasks {
    /// Only in this state.
    pub state: Option<TaskState>,
    /// Only of this kind.
    pub kind: Option<TaskKind>,
    /// Only parts of this task.
    pub parent: Option<TaskId>,
    /// Only in the queue or in the hands of this session.
    pub session: Option<SwarmId>,
    /// Only those that were submitted after this one.
    pub after: Option<TaskId>,
    /// At most so many; as many as a page may have unless set.
    pub limit: Option<usize>,
}

impl Tasks {
    /// Every task.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only in this state.
    pub fn with_state(mut self, state: TaskState) -> Self {
        self.state = Some(state);
        self
    }

    /// Only of this kind.
    pub fn with_kind(mut self, kind: TaskKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Only parts of this task.
    pub fn with_parent(mut self, parent: TaskId) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Only in the queue or in the hands of this session.
    pub fn with_session(mut self, session: SwarmId) -> Self {
        self.session = Some(session);
        self
    }

    /// Only those that were submitted after this one.
    pub fn after(mut self, task: TaskId) -> Self {
        self.after = Some(task);
        self
    }

    /// At most so many.
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }
}
