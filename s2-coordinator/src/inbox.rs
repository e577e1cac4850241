//! The people's side: what waits for a decision.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::Error;
use crate::escalation::{Escalation, EscalationId, NewEscalation, Raised, Resolution};

/// The escalations of a fleet.
///
/// Parts of S² raise escalations within their own step; hosts may raise theirs here. Raising, raising again after a
/// resolution, and resolving are journalled (component `inbox`).
///
/// # To ensure correctness
///
/// A pending escalation is never dropped. At most one is pending per key.
#[async_trait]
pub trait Inbox: Debug + Send + Sync + 'static {
    /// Raises an escalation, or counts it where one with its key is pending. Atomic. Repeating it is safe: there is still
    /// one item, though it counts once more.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] when payload or reason are too long, or too many escalations wait; [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe in the sense that it may or may not have been raised; raise it again to be sure.
    async fn escalate(&self, escalation: NewEscalation) -> Result<Raised, Error>;

    /// At most `limit` pending escalations (1 to [`Limits::batch`](crate::Limits::batch)) with an id greater than
    /// `after`, the oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] or [`Error::Invalid`] for a limit that is out of range; [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn pending(&self, after: EscalationId, limit: usize) -> Result<Vec<Escalation>, Error>;

    /// Resolves a pending escalation. Repeating the same resolution is answered alike within
    /// [`Config::idempotency_window`](crate::Config::idempotency_window).
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyResolved`] when it was resolved differently; [`Error::UnknownEscalation`];
    /// [`Error::LimitExceeded`] when the resolution is too long; [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// It may or may not have been resolved; resolve it again to be sure.
    async fn resolve(&self, id: EscalationId, resolution: Resolution) -> Result<(), Error>;
}
