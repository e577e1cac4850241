//! Who gives way when tasks wait for each other.

use std::fmt::Debug;

use crate::dependency::TaskId;
use crate::waits::Waiter;

/// How a ring of tasks that wait for each other is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// This task goes on without what it waits for. It keeps its session, its attempt and its work. Only one that
    /// [may](Waiter::is_releasable) do so.
    Proceed(TaskId),
    /// This task fails.
    Abort(TaskId),
}

/// Decides who gives way when tasks wait for each other.
pub trait Release: Debug + Send + Sync + 'static {
    /// How to open a ring: each of these waits for the next, the last for the first. Nothing, if that is for a person to
    /// decide: then whoever has been blocked longest waits for that person instead. The answer should depend on nothing but the
    /// ring, since several processes may ask.
    fn release(&self, ring: &[&Waiter]) -> Option<Way>;
}

/// Who has waited longest goes on: the rule of the seeds. Of equals, the one with the smallest number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongestWaiter;

impl Release for LongestWaiter {
    fn release(&self, ring: &[&Waiter]) -> Option<Way> {
        let may = ring.iter().filter(|waiter| waiter.is_releasable());
        may.min_by_key(|waiter| (waiter.blocked, waiter.task)).map(|waiter| Way::Proceed(waiter.task))
    }
}

/// Who was blocked last fails, as in most databases: it has lost the least. Of equals, the one with the largest number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AbortLatest;

impl Release for AbortLatest {
    fn release(&self, ring: &[&Waiter]) -> Option<Way> {
        let may = ring.iter().filter(|waiter| waiter.blocked.is_some());
        may.max_by_key(|waiter| (waiter.blocked, waiter.task)).map(|waiter| Way::Abort(waiter.task))
    }
}

/// Who has been blocked longest, released before or not.
pub(crate) fn longest_waiter(ring: &[&Waiter]) -> Option<TaskId> {
    let blocked = ring.iter().filter(|waiter| waiter.blocked.is_some());
    blocked.min_by_key(|waiter| (waiter.blocked, waiter.task)).map(|waiter| waiter.task)
}
