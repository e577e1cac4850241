//! The inbox of a [`MemoryStore`](crate::MemoryStore).

use async_trait::async_trait;

use crate::error::Error;
use crate::escalation::{Escalation, EscalationId, NewEscalation, Raised, Resolution};
use crate::inbox::Inbox;
use crate::memory::store::MemoryStore;

/// The escalations of a fleet in memory.
#[derive(Clone, Debug)]
pub struct MemoryInbox {
    store: MemoryStore,
}

impl MemoryStore {
    /// The inbox of this fleet.
    #[must_use]
    pub fn inbox(&self) -> MemoryInbox {
        MemoryInbox { store: self.clone() }
    }
}

#[async_trait]
impl Inbox for MemoryInbox {
    #[tracing::instrument(level = "debug", skip_all, fields(key = %escalation.key))]
    async fn escalate(&self, escalation: NewEscalation) -> Result<Raised, Error> {
        self.store.step(|step| step.escalate(escalation))
    }

    async fn pending(&self, after: EscalationId, limit: usize) -> Result<Vec<Escalation>, Error> {
        self.store.config().limits.check_page(limit)?;
        Ok(self.store.with(|inner| inner.fx.inbox.pending(after, limit)))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(%id, by = %resolution.by))]
    async fn resolve(&self, id: EscalationId, resolution: Resolution) -> Result<(), Error> {
        self.store.with(|inner| inner.fx.resolve(id, resolution))
    }
}
