//! Publishing.

use crate::error::Error;
use crate::event::{EventId, NewEvent, Published};
use crate::invalid::Invalid;
use crate::limits::Limits;
use crate::redis::codec;
use crate::redis::reply::Reply;
use crate::redis::scripts::PUBLISH;
use crate::redis::store::{Call, RedisStore};

impl RedisStore {
    pub(super) async fn publish(&self, events: &[NewEvent]) -> Result<Vec<Published>, Error> {
        self.config().limits.check_events(events)?;
        let mut call = self.call_once(PUBLISH);
        let ids = self.write_events(&mut call, events, false);
        let answer = call.answer().await?;
        if let Some(error) = refusal(&answer, &self.config().limits) {
            return Err(error);
        }
        let published = answer.get(1).and_then(|answers| codec::published(answers, &ids));
        published.ok_or_else(|| Call::unexpected(PUBLISH, &answer))
    }

    /// Writes events as arguments, and answers with the ids that they will have if they are new. The script is told of all ids
    /// if it answers with them, else only where there is a key to remember them by.
    pub(super) fn write_events(&self, call: &mut Call<'_>, events: &[NewEvent], all_ids: bool) -> Vec<EventId> {
        call.number(events.len());
        let ids: Vec<EventId> = {
            let mut random = self.random();
            events.iter().map(|_| EventId::random(&mut random)).collect()
        };
        for (event, id) in events.iter().zip(&ids) {
            call.arg(event.topic.as_str());
            let mut head = Vec::new();
            if all_ids || event.idempotency_key.is_some() {
                head.extend_from_slice(&id.to_bits().to_be_bytes());
            }
            if let Some(key) = &event.idempotency_key {
                head.extend_from_slice(event.fingerprint().as_bytes());
                head.extend_from_slice(key.as_str().as_bytes());
            }
            call.arg(head);
            call.arg(codec::text(event, *id));
        }
        ids
    }
}

/// Why a batch was not published, if it was not.
pub(super) fn refusal(answer: &Reply, limits: &Limits) -> Option<Error> {
    let number = |nth: usize| answer.get(nth).and_then(Reply::as_u64);
    let text = |nth: usize| answer.get(nth).and_then(Reply::as_str);
    match text(0)? {
        "topics" => Some(Error::LimitExceeded {
            limit: "topics",
            what: "the fleet".to_owned(),
            actual: number(1)?,
            max: limits.topics as u64,
        }),
        "conflict" => Some(Error::IdempotencyConflict {
            topic: text(1)?.parse().ok()?,
            key: text(2)?.parse().ok()?,
            original: codec::event_id(answer.get(3)?)?,
        }),
        "contradiction" => {
            let reason = "two events of one batch say different things under this idempotency key";
            Some(Invalid::new("batch", text(1)?, reason).into())
        }
        "full" => Some(Error::BacklogFull {
            topic: text(1)?.parse().ok()?,
            held_bytes: number(2)?,
            max: limits.backlog_bytes,
        }),
        _ => None,
    }
}
