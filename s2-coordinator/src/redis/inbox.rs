//! The inbox of a [`RedisStore`](crate::RedisStore).

use async_trait::async_trait;

use crate::error::Error;
use crate::escalation::{Escalation, EscalationId, NewEscalation, Raised, Resolution};
use crate::inbox::Inbox;
use crate::limits::check;
use crate::redis::codec;
use crate::redis::reply::Reply;
use crate::redis::scripts::{ESCALATE, PENDING, RESOLVE};
use crate::redis::store::{Call, RedisStore};
use crate::text::Text;

/// The escalations of a fleet on Redis.
#[derive(Clone, Debug)]
pub struct RedisInbox {
    store: RedisStore,
}

impl RedisStore {
    /// The inbox of this fleet.
    #[must_use]
    pub fn inbox(&self) -> RedisInbox {
        RedisInbox { store: self.clone() }
    }
}

#[async_trait]
impl Inbox for RedisInbox {
    #[tracing::instrument(level = "debug", skip_all, fields(key = %escalation.key))]
    async fn escalate(&self, escalation: NewEscalation) -> Result<Raised, Error> {
        let limits = &self.store.config().limits;
        limits.check_reason(&escalation.reason)?;
        let what = || format!("the payload of escalation {}", escalation.key);
        check("payload_bytes", what, escalation.payload.len(), limits.payload_bytes)?;
        let mut call = self.store.call_once(ESCALATE);
        call.arg(escalation.key.as_str());
        call.arg(escalation.reason.as_str());
        call.arg(&escalation.payload);
        call.arg(escalation.severity.as_str());
        call.arg(escalation.trace.map(|trace| trace.to_string()).unwrap_or_default());
        let answer = call.answer().await?;
        match (answer.get(0).and_then(Reply::as_str), answer.get(1)) {
            (Some("ok"), Some(raised)) => {
                let number = |nth: usize| raised.get(nth).and_then(Reply::as_u64).unwrap_or_default();
                Ok(Raised { id: EscalationId::new(number(0)), duplicate: number(1) == 1 })
            }
            (Some("escalations"), Some(count)) => Err(Error::LimitExceeded {
                limit: "escalations",
                what: "the inbox".to_owned(),
                actual: count.as_u64().unwrap_or_default(),
                max: limits.escalations as u64,
            }),
            _ => Err(Call::unexpected(ESCALATE, &answer)),
        }
    }

    async fn pending(&self, after: EscalationId, limit: usize) -> Result<Vec<Escalation>, Error> {
        self.store.config().limits.check_page(limit)?;
        let mut call = self.store.call_again(PENDING);
        call.number(after);
        call.number(limit);
        let answer = call.answer().await?;
        let pending = answer.get(1).and_then(Reply::as_list);
        let pending = pending.and_then(|pending| pending.iter().map(codec::escalation).collect());
        pending.ok_or_else(|| Call::unexpected(PENDING, &answer))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(%id, by = %resolution.by))]
    async fn resolve(&self, id: EscalationId, resolution: Resolution) -> Result<(), Error> {
        let limits = &self.store.config().limits;
        limits.check_reason(&resolution.by)?;
        limits.check_reason(&resolution.decision)?;
        let mut call = self.store.call_once(RESOLVE);
        call.number(id);
        call.arg(resolution.by.as_str());
        call.arg(resolution.decision.as_str());
        let answer = call.answer().await?;
        let text = |nth: usize| Text::new(answer.get(nth).and_then(Reply::as_str).unwrap_or_default());
        match answer.get(0).and_then(Reply::as_str) {
            Some("ok") => Ok(()),
            Some("resolved") => Err(Error::AlreadyResolved { id, by: text(1), decision: text(2) }),
            Some("unknown") => Err(Error::UnknownEscalation { id }),
            _ => Err(Call::unexpected(RESOLVE, &answer)),
        }
    }
}
