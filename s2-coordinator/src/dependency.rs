//! What must be done before a task can start.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::IdempotencyKey;
use crate::number::number;

number! {
    /// The number of a task. It rises with every task that is submitted and is never used again, restarts of the fleet
    /// included: it is at least the microseconds since 1970 at which the task was submitted.
    TaskId
}

/// Names a task: by its number, or by the key it was or is being submitted under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskRef {
    /// Its number.
    Id(TaskId),
    /// Its key. Tasks of the same batch come first.
    Key(IdempotencyKey),
}

impl From<TaskId> for TaskRef {
    fn from(id: TaskId) -> Self {
        Self::Id(id)
    }
}

impl From<IdempotencyKey> for TaskRef {
    fn from(key: IdempotencyKey) -> Self {
        Self::Key(key)
    }
}

impl fmt::Display for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => fmt::Display::fmt(id, f),
            Self::Key(key) => write!(f, "{:?}", key.as_str()),
        }
    }
}

/// What becomes of a task when one that it depends on fails or is cancelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It fails, too.
    #[default]
    Fail,
    /// It is put on hold until somebody redrives or cancels it.
    Hold,
    /// It runs as if the other were done.
    Run,
}

/// One edge of the graph of tasks: another task that must be done first.
///
/// ```
/// use s2_coordinator::{Dependency, OnFailure, TaskId};
///
/// let cleanup = Dependency::on(TaskId::new(7)).with_on_failure(OnFailure::Run);
/// assert_eq!(Dependency::on(TaskId::new(7)).on_failure, OnFailure::Fail);
/// assert_eq!(cleanup.on_failure, OnFailure::Run);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The other task.
    pub on: TaskRef,
    /// What happens when it fails.
    pub on_failure: OnFailure,
}

impl Dependency {
    /// This task must be done first; if it fails, what depends on it fails.
    #[must_use]
    pub fn on(task: impl Into<TaskRef>) -> Self {
        Self { on: task.into(), on_failure: OnFailure::default() }
    }

    /// Sets what happens when it fails.
    #[must_use]
    pub fn with_on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }
}

impl<T: Into<TaskRef>> From<T> for Dependency {
    fn from(task: T) -> Self {
        Self::on(task)
    }
}
