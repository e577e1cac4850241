//! What waits for a person.

use std::collections::{BTreeMap, HashMap};

use crate::config::Config;
use crate::entry::Record;
use crate::error::Error;
use crate::escalation::{Escalation, EscalationId, NewEscalation, Raised, Resolution};
use crate::limits::{Limits, check};
use crate::name::Subject;
use crate::time::{Timestamp, millis};

#[derive(Debug, Default)]
pub(super) struct InboxState {
    pending: BTreeMap<EscalationId, Escalation>,
    by_key: HashMap<Subject, EscalationId>,
    resolved: BTreeMap<EscalationId, (Timestamp, Resolution)>,
    last: EscalationId,
}

impl InboxState {
    /// Keeps what a person is asked, and answers with what the journal should say of it, if it is new.
    pub(super) fn escalate(
        &mut self,
        new: NewEscalation,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<(Raised, Option<Record>), Error> {
        limits.check_reason(&new.reason)?;
        let what = || format!("the payload of escalation {}", new.key);
        check("payload_bytes", what, new.payload.len(), limits.payload_bytes)?;
        if let Some(&id) = self.by_key.get(&new.key) {
            if let Some(escalation) = self.pending.get_mut(&id) {
                escalation.times += 1;
            }
            return Ok((Raised { id, duplicate: true }, None));
        }
        check("escalations", || "the inbox".into(), self.pending.len() + 1, limits.escalations)?;
        self.last = self.last.next();
        let id = self.last;
        let record = Record::new("inbox", "escalate", new.key.to_text())
            .with("id", id.get())
            .with("reason", new.reason.clone())
            .with_severity(new.severity)
            .with_trace(new.trace);
        self.by_key.insert(new.key.clone(), id);
        self.pending.insert(id, Escalation::raised(new, id, now));
        Ok((Raised { id, duplicate: false }, Some(record)))
    }

    /// At most `limit` pending escalations that follow `after`.
    pub(super) fn pending(&self, after: EscalationId, limit: usize) -> Vec<Escalation> {
        self.pending.range(after.next()..).take(limit).map(|(_, escalation)| escalation.clone()).collect()
    }

    /// Keeps what a person has decided, for a while, and answers with what the journal should say of it, if it is new.
    pub(super) fn resolve(
        &mut self,
        id: EscalationId,
        resolution: Resolution,
        config: &Config,
        now: Timestamp,
    ) -> Result<Option<Record>, Error> {
        self.resolved.retain(|_, (at, _)| now.since(*at) < config.idempotency_window);
        if let Some((_, before)) = self.resolved.get(&id) {
            if *before == resolution {
                return Ok(None);
            }
            let Resolution { by, decision } = before.clone();
            return Err(Error::AlreadyResolved { id, by, decision });
        }
        config.limits.check_reason(&resolution.by)?;
        config.limits.check_reason(&resolution.decision)?;
        let Some(escalation) = self.pending.remove(&id) else {
            return Err(Error::UnknownEscalation { id });
        };
        self.by_key.remove(&escalation.key);
        let record = Record::new("inbox", "resolve", escalation.key.to_text())
            .with("id", id.get())
            .with("by", resolution.by.clone())
            .with("decision", resolution.decision.clone())
            .with("waited_ms", millis(now.since(escalation.raised)))
            .with_trace(escalation.trace);
        self.resolved.insert(id, (now, resolution));
        Ok(Some(record))
    }
}
