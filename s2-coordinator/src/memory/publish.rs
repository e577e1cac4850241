//! Publishing: everything is decided before anything is written.

use std::sync::Arc;

use foldhash::HashMap;

use crate::error::Error;
use crate::event::{Event, EventId, Fingerprint, NewEvent, Published};
use crate::invalid::Invalid;
use crate::memory::effects::Effects;
use crate::memory::log::OVERHEAD;
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
        let published = self.write(events, fx)?;
        events.chunk_by(|one, next| one.topic == next.topic).for_each(|run| self.trim(&run[0].topic, fx));
        Ok(published)
    }

    /// Publishes a batch, and leaves it to others to trim the topics.
    pub(super) fn write(&mut self, events: &[NewEvent], fx: &mut Effects) -> Result<Vec<Published>, Error> {
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
        }
        Ok(answers)
    }

    fn plan(&mut self, events: &[NewEvent], fx: &Effects) -> Result<Vec<Plan>, Error> {
        self.check_room(events, fx)?;
        let mut seen = Seen::default();
        let mut adds: Vec<(&Topic, u64)> = Vec::new();
        let mut plans = Vec::with_capacity(events.len());
        for run in events.chunk_by(|one, next| one.topic == next.topic) {
            let (name, topic) = (&run[0].topic, self.get(&run[0].topic));
            let mut bytes = 0;
            for event in run {
                let plan = plan(topic, event, plans.len(), &mut seen, fx)?;
                bytes += if let Plan::Write(_) = plan { OVERHEAD + event.data.len() as u64 } else { 0 };
                plans.push(plan);
            }
            match adds.iter_mut().find(|(other, _)| *other == name) {
                Some((_, more)) => *more += bytes,
                None => adds.push((name, bytes)),
            }
        }
        for (name, more) in adds.into_iter().filter(|(_, more)| *more > 0) {
            self.check_backlog(name, more, fx)?;
        }
        Ok(plans)
    }

    /// Fails when the topics of a batch that are not there yet are more than there may be; after that, making them cannot
    /// fail.
    fn check_room(&mut self, events: &[NewEvent], fx: &Effects) -> Result<(), Error> {
        let mut runs = events.chunk_by(|one, next| one.topic == next.topic);
        if runs.all(|run| self.get(&run[0].topic).is_some()) {
            return Ok(());
        }
        self.make_room(events.iter().map(|event| &event.topic).collect(), fx)
    }

    fn check_backlog(&mut self, name: &Topic, more: u64, fx: &Effects) -> Result<(), Error> {
        let max = fx.config.limits.backlog_bytes;
        match self.topics.get_mut(name) {
            Some(topic) => topic.check_backlog(more, fx),
            None if more <= max => Ok(()),
            None => Err(Error::BacklogFull { topic: name.clone(), held_bytes: 0, max }),
        }
    }
}

fn plan<'a>(
    topic: Option<&TopicState>,
    event: &'a NewEvent,
    nth: usize,
    seen: &mut Seen<'a>,
    fx: &Effects,
) -> Result<Plan, Error> {
    let Some(key) = &event.idempotency_key else { return Ok(Plan::Write(None)) };
    let fingerprint = event.fingerprint();
    if let Some(used) = topic.and_then(|topic| topic.keys.get(key, fx.now, fx.config.idempotency_window)) {
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
        topic.arm(fx.now + fx.config.idempotency_window + fx.config.idempotency_window / 8, fx);
    }
    topic.push(Arc::new(Event::published(new.clone(), id, position, fx.now)), fx);
    published
}
