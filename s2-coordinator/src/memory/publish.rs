//! Publishing: everything is decided before anything is written.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Error;
use crate::event::{Event, EventId, Fingerprint, NewEvent, Published};
use crate::invalid::Invalid;
use crate::memory::effects::Effects;
use crate::memory::topic::TopicState;
use crate::memory::topics::Topics;
use crate::name::{IdempotencyKey, Topic};

/// What is to become of one event of a batch.
enum Plan {
    Write(Option<Fingerprint>),
    Duplicate(Published),
    /// Says the same as an earlier event of this batch.
    Repeats(usize),
}

/// The keys of a batch so far: where they came first, and what was said.
type Seen<'a> = HashMap<(&'a Topic, &'a IdempotencyKey), (usize, Fingerprint)>;

impl Topics {
    /// Publishes a batch, all of it or nothing.
    pub(super) fn publish(&mut self, events: &[NewEvent], fx: &mut Effects) -> Result<Vec<Published>, Error> {
        fx.config.limits.check_events(events)?;
        let mut plans = self.plan(events, fx)?.into_iter();
        let mut answers: Vec<Published> = Vec::with_capacity(events.len());
        for run in events.chunk_by(|one, next| one.topic == next.topic) {
            let topic = self.topic(&run[0].topic, fx)?;
            for (event, plan) in run.iter().zip(plans.by_ref()) {
                let answer = match plan {
                    Plan::Write(fingerprint) => write(topic, event, fingerprint, fx),
                    Plan::Duplicate(original) => original,
                    Plan::Repeats(nth) => Published { duplicate: true, ..answers[nth] },
                };
                answers.push(answer);
            }
            topic.wake(run.len(), fx);
            topic.trim(fx);
        }
        Ok(answers)
    }

    fn plan(&mut self, events: &[NewEvent], fx: &mut Effects) -> Result<Vec<Plan>, Error> {
        let mut seen = Seen::new();
        let mut plans = Vec::with_capacity(events.len());
        for run in events.chunk_by(|one, next| one.topic == next.topic) {
            let topic = self.topic(&run[0].topic, fx)?;
            let mut adds = 0;
            for event in run {
                let plan = plan(topic, event, plans.len(), &mut seen, fx)?;
                if let Plan::Write(_) = plan {
                    adds += event.data.len() as u64;
                }
                plans.push(plan);
            }
            topic.check_backlog(adds, &fx.config)?;
        }
        Ok(plans)
    }
}

fn plan<'a>(
    topic: &TopicState,
    event: &'a NewEvent,
    nth: usize,
    seen: &mut Seen<'a>,
    fx: &Effects,
) -> Result<Plan, Error> {
    let Some(key) = &event.idempotency_key else { return Ok(Plan::Write(None)) };
    let fingerprint = event.fingerprint();
    if let Some(used) = topic.keys.get(key, fx.now, fx.config.idempotency_window) {
        if used.fingerprint == fingerprint {
            return Ok(Plan::Duplicate(Published { duplicate: true, ..used.published }));
        }
        let (topic, key, original) = (event.topic.clone(), key.clone(), used.published.id);
        return Err(Error::IdempotencyConflict { topic, key, original });
    }
    match *seen.entry((&event.topic, key)).or_insert((nth, fingerprint)) {
        (first, _) if first == nth => Ok(Plan::Write(Some(fingerprint))),
        (first, same) if same == fingerprint => Ok(Plan::Repeats(first)),
        _ => {
            let reason = "two events of one batch say different things under this idempotency key";
            Err(Invalid::new("batch", key.as_str(), reason).into())
        }
    }
}

fn write(topic: &mut TopicState, new: &NewEvent, fingerprint: Option<Fingerprint>, fx: &mut Effects) -> Published {
    let id = EventId::random(&mut fx.random);
    let position = topic.log.end();
    let published = Published { id, position, duplicate: false };
    if let (Some(key), Some(fingerprint)) = (&new.idempotency_key, fingerprint) {
        topic.keys.insert(key.clone(), fingerprint, published, fx.now);
        fx.arm(fx.now + fx.config.idempotency_window);
    }
    topic.push(Arc::new(Event::published(new.clone(), id, position, fx.now)), fx);
    published
}
