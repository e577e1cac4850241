//! What a host may say about help.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use s2_coordinator::{Capabilities, Task, TaskResult};

use crate::help::HelpRequest;

/// What a host knows about its tasks that S² does not. Every method has an answer that is right for hosts that know nothing more.
/// They are called in the middle of other work, and should neither wait nor take long.
pub trait RescueHooks: Debug + Send + Sync + 'static {
    /// What it takes to help with a task that is blocked for this reason, where the handler has not said. By default what the
    /// task itself requires.
    fn requires(&self, task: &Task, reason: &str) -> Capabilities {
        let _ = reason;
        task.requires.clone()
    }

    /// What this helper in particular is to do: it stands in [`HelpRequest::details`]. By default nothing more than to help.
    fn details(&self, request: &HelpRequest) -> Option<serde_json::Value> {
        let _ = request;
        None
    }

    /// Whether what came out is of use: if not, somebody else is asked. By default everything is.
    fn accepts(&self, request: &HelpRequest, result: &TaskResult) -> bool {
        let _ = (request, result);
        true
    }
}

/// A host that knows nothing more.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHooks;

impl RescueHooks for NoHooks {}

/// What a hook says; nothing if it panics, since others depend on whoever calls it.
pub(crate) fn asked<T>(what: &'static str, hook: impl FnOnce() -> T) -> Option<T> {
    let answer = catch_unwind(AssertUnwindSafe(hook));
    answer.inspect_err(|_| tracing::error!(what, "a hook of the host panicked")).ok()
}
