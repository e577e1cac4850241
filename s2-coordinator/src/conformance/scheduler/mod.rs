//! Cases of [`Scheduler`](crate::Scheduler).

mod kit;
pub(super) mod submit;
pub(super) mod claim;
pub(super) mod waiting;
pub(super) mod fencing;
pub(super) mod order;
pub(super) mod dependencies;
pub(super) mod failures;
pub(super) mod block;
pub(super) mod deadlock;
pub(super) mod liveness;
pub(super) mod steal;
pub(super) mod why;
pub(super) mod guard;
pub(super) mod registry;
