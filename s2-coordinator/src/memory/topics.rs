//! All topics of the fleet, and what the bus does with them in one step.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::dead_letter::{AttemptEnd, DeadLetter, DeadLetterId, DeadLetters, Redriven};
use crate::entry::Record;
use crate::error::Error;
use crate::event::{Event, EventId, Fingerprint, NewEvent, Position, Published, Start};
use crate::group::Group;
use crate::invalid::Invalid;
use crate::limits::check;
use crate::memory::dead_letter::{Cemetery, Grave};
use crate::memory::effects::Effects;
use crate::memory::group::{GroupState, Handed, Member, Standing, label};
use crate::memory::log::weight;
use crate::memory::topic::TopicState;
use crate::memory::wait::Ticket;
use crate::name::{GroupName, IdempotencyKey, Topic};
use crate::settle::{Origin, Receipt, Settled, Settlement};
use crate::severity::Severity;
use crate::subscription::Subscribe;
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: HashMap<Topic, TopicState>,
    dead: Cemetery,
    /// The highest position of any topic that was forgotten: one that is made anew starts above it.
    forgotten: Position,
}

/// What is to become of one event of a batch.
enum Plan {
    Write(Option<Fingerprint>),
    Duplicate(Published),
    /// Says the same as an earlier event of this batch.
    Repeats(usize),
}

impl Topics {
    pub(super) fn get(&self, name: &Topic) -> Option<&TopicState> {
        self.topics.get(name)
    }

    /// Where a topic that nobody has used would begin.
    pub(super) fn unused(&self) -> Position {
        self.forgotten.next()
    }

    /// The topic of this name, made where there is none.
    pub(super) fn topic(&mut self, name: &Topic, fx: &Effects) -> Result<&mut TopicState, Error> {
        if !self.topics.contains_key(name) {
            check("topics", || "the fleet".into(), self.topics.len() + 1, fx.config.limits.topics)?;
            self.topics.insert(name.clone(), TopicState::new(name.clone(), self.forgotten));
        }
        self.topics.get_mut(name).ok_or(Error::Closed)
    }

    /// Publishes a batch, all of it or nothing.
    pub(super) fn publish(&mut self, events: &[NewEvent], fx: &mut Effects) -> Result<Vec<Published>, Error> {
        fx.config.limits.check_events(events)?;
        let plans = self.plan(events, fx)?;
        let mut answers: Vec<Published> = Vec::with_capacity(events.len());
        for (event, plan) in events.iter().zip(plans) {
            let answer = match plan {
                Plan::Write(fingerprint) => self.write(event, fingerprint, fx)?,
                Plan::Duplicate(original) => original,
                Plan::Repeats(nth) => Published { duplicate: true, ..answers[nth] },
            };
            answers.push(answer);
        }
        self.after_publish(events, fx);
        Ok(answers)
    }

    /// Decides everything before anything is written.
    fn plan(&mut self, events: &[NewEvent], fx: &mut Effects) -> Result<Vec<Plan>, Error> {
        let mut seen: HashMap<(&Topic, &IdempotencyKey), (usize, Fingerprint)> = HashMap::new();
        let mut adds: HashMap<&Topic, u64> = HashMap::new();
        let mut plans = Vec::with_capacity(events.len());
        for (nth, event) in events.iter().enumerate() {
            let plan = match &event.idempotency_key {
                None => Plan::Write(None),
                Some(key) => {
                    let fingerprint = event.fingerprint();
                    let earlier = seen.get(&(&event.topic, key)).copied();
                    seen.entry((&event.topic, key)).or_insert((nth, fingerprint));
                    self.plan_keyed(event, key, fingerprint, earlier, fx)?
                }
            };
            if let Plan::Write(_) = plan {
                let more = adds.entry(&event.topic).or_default();
                *more += event.data.len() as u64;
            }
            plans.push(plan);
        }
        for (topic, more) in adds {
            self.topic(topic, fx)?.check_backlog(more, fx)?;
        }
        Ok(plans)
    }

    fn plan_keyed(
        &self,
        event: &NewEvent,
        key: &IdempotencyKey,
        fingerprint: Fingerprint,
        earlier: Option<(usize, Fingerprint)>,
        fx: &Effects,
    ) -> Result<Plan, Error> {
        let conflict = |original| {
            let (topic, key) = (event.topic.clone(), key.clone());
            Err(Error::IdempotencyConflict { topic, key, original })
        };
        let window = fx.config.idempotency_window;
        let used = self.topics.get(&event.topic).and_then(|topic| topic.keys.get(key, fx.now, window));
        match (used, earlier) {
            (Some(used), _) if used.fingerprint == fingerprint => {
                Ok(Plan::Duplicate(Published { duplicate: true, ..used.published }))
            }
            (Some(used), _) => conflict(used.published.id),
            (None, Some((nth, same))) if same == fingerprint => Ok(Plan::Repeats(nth)),
            (None, Some(_)) => Err(Invalid::new(
                "batch",
                key.as_str(),
                "two events of one batch say different things under one idempotency key",
            )
            .into()),
            (None, None) => Ok(Plan::Write(Some(fingerprint))),
        }
    }

    fn write(
        &mut self,
        new: &NewEvent,
        fingerprint: Option<Fingerprint>,
        fx: &mut Effects,
    ) -> Result<Published, Error> {
        let id = EventId::random(&mut fx.random);
        let topic = self.topic(&new.topic, fx)?;
        let position = topic.log.end();
        let published = Published { id, position, duplicate: false };
        if let (Some(key), Some(fingerprint)) = (&new.idempotency_key, fingerprint) {
            topic.keys.insert(key.clone(), fingerprint, published, fx.now);
        }
        topic.push(Arc::new(Event::published(new.clone(), id, position, fx.now)), fx);
        Ok(published)
    }

    fn after_publish(&mut self, events: &[NewEvent], fx: &mut Effects) {
        let mut last: Option<&Topic> = None;
        for event in events {
            if last.replace(&event.topic) == Some(&event.topic) {
                continue;
            }
            if let Some(topic) = self.topics.get_mut(&event.topic) {
                topic.keys.expire(fx.now, fx.config.idempotency_window);
                topic.wake(events.len(), fx);
                topic.trim(fx);
            }
        }
    }

    /// Joins a group and answers with the group's incarnation and the consumer's number.
    pub(super) fn subscribe(&mut self, how: &Subscribe, bus: u64, fx: &mut Effects) -> Result<Origin, Error> {
        let (limits, groups) = (fx.config.limits.clone(), fx.config.limits.groups);
        let topic = self.topic(&how.topic, fx)?;
        if !topic.groups.contains_key(&how.group) {
            check("groups", || format!("topic {}", how.topic), topic.groups.len() + 1, groups)?;
            let oldest = topic.log.first();
            let Some(first) = topic.log.begin(how.start) else {
                let position = after(how.start);
                return Err(Error::NotRetained { topic: how.topic.clone(), position, oldest });
            };
            let first = first.min(topic.log.end());
            let incarnation = fx.number();
            let deliveries = fx.config.deliveries;
            topic.groups.insert(how.group.clone(), GroupState::new(incarnation, first, deliveries));
            let record = Record::new("bus", "group_created", how.topic.to_text())
                .with("group", how.group.to_text())
                .with("incarnation", incarnation)
                .with("starts_at", first);
            fx.journal(record);
        }
        topic.return_group(&how.group, fx);
        let consumer = fx.number();
        let name = how.consumer.clone().unwrap_or_else(|| label(consumer));
        let timeout = how.ack_timeout.unwrap_or(fx.config.ack_timeout);
        let Some(group) = topic.groups.get_mut(&how.group) else {
            return Err(Error::Closed);
        };
        group.deliveries = how.deliveries.unwrap_or(group.deliveries);
        group.join(consumer, Member::new(name, bus, how.prefetch.min(limits.prefetch), timeout));
        let (topic, group, incarnation) = (how.topic.clone(), how.group.clone(), group.incarnation);
        Ok(Origin { topic, group, incarnation, consumer })
    }

    /// The topic of an origin, if its group is still the one that it names.
    pub(super) fn locate(&mut self, origin: &Origin) -> Option<(&mut TopicState, &mut Cemetery)> {
        let topic = self.topics.get_mut(&origin.topic)?;
        let group = topic.groups.get(&origin.group)?;
        (group.incarnation == origin.incarnation).then_some((topic, &mut self.dead))
    }

    /// Hands out at most `max` events; nothing when the group is gone.
    pub(super) fn take(&mut self, origin: &Origin, max: usize, fx: &mut Effects) -> Option<Vec<Handed>> {
        let (topic, dead) = self.locate(origin)?;
        end_what_is_due(topic, dead, &origin.group, fx);
        let group = topic.groups.get_mut(&origin.group)?;
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(handed) = group.take(origin.consumer, &topic.log, fx.now)
        {
            fx.arm(handed.deadline);
            taken.push(handed);
        }
        // Whoever was woken for more than it could take passes the word on.
        fx.wake(group.wake(&topic.log, 1));
        Some(taken)
    }

    pub(super) fn settle(
        &mut self,
        receipt: &Receipt,
        settlement: Settlement,
        fx: &mut Effects,
    ) -> Result<Settled, Error> {
        check_settlement(&settlement, fx)?;
        if let Some(before) = self.standing(receipt, Some(&settlement), fx)? {
            return Ok(before);
        }
        let (origin, position) = (receipt.origin(), receipt.position());
        let published = match &settlement {
            Settlement::Commit(outputs) => self.publish(outputs, fx)?,
            _ => Vec::new(),
        };
        let (topic, dead) = self.locate(origin).ok_or_else(|| receipt.stale(None))?;
        let group = topic.groups.get_mut(&origin.group).ok_or_else(|| receipt.stale(None))?;
        let outcome = match settlement {
            Settlement::Ack => Settled::Acked,
            Settlement::Commit(_) => Settled::Committed(published.into()),
            Settlement::Nack { reason, .. } if group.is_last_attempt(position) => {
                group.give_up(position, fx.now, AttemptEnd::Nacked { reason, retry_at: None });
                return Ok(Settled::DeadLettered(bury(topic, dead, &origin.group, position, fx)));
            }
            Settlement::DeadLetter { reason } => {
                group.give_up(position, fx.now, AttemptEnd::Refused { reason });
                return Ok(Settled::DeadLettered(bury(topic, dead, &origin.group, position, fx)));
            }
            Settlement::Nack { delay, reason } => {
                let backoff = fx.config.backoff;
                let delay = delay.unwrap_or_else(|| backoff.delay(group.attempts(position), &mut fx.random));
                let at = fx.now + delay;
                fx.arm(at);
                group.give_back(position, fx.now, at, reason);
                fx.wake(group.wake(&topic.log, 2));
                return Ok(Settled::Retrying(at));
            }
        };
        group.finish(position, outcome.clone());
        fx.wake(group.wake(&topic.log, 1));
        topic.trim(fx);
        Ok(outcome)
    }

    pub(super) fn extend(&mut self, receipt: &Receipt, by: Duration, fx: &mut Effects) -> Result<Timestamp, Error> {
        fx.config.limits.check_ack_timeout(by)?;
        self.standing(receipt, None, fx)?;
        let origin = receipt.origin();
        let (topic, _) = self.locate(origin).ok_or_else(|| receipt.stale(None))?;
        let group = topic.groups.get_mut(&origin.group).ok_or_else(|| receipt.stale(None))?;
        let deadline = fx.now + by;
        group.extend(receipt.position(), deadline);
        fx.arm(deadline);
        Ok(deadline)
    }

    /// Nothing when the receipt is that of the current delivery; the first answer when it was settled in this way.
    fn standing(
        &mut self,
        receipt: &Receipt,
        settlement: Option<&Settlement>,
        fx: &mut Effects,
    ) -> Result<Option<Settled>, Error> {
        let origin = receipt.origin();
        let (topic, dead) = self.locate(origin).ok_or_else(|| receipt.stale(None))?;
        end_what_is_due(topic, dead, &origin.group, fx);
        let group = topic.groups.get(&origin.group).ok_or_else(|| receipt.stale(None))?;
        match group.standing(receipt)? {
            Standing::Current => Ok(None),
            Standing::Before(outcome) if settlement.is_some_and(|wanted| outcome.answers(wanted)) => Ok(Some(outcome)),
            Standing::Before(outcome) => Err(Error::AlreadySettled {
                topic: origin.topic.clone(),
                position: receipt.position(),
                held: receipt.delivery(),
                outcome: outcome.as_str(),
            }),
        }
    }

    /// Queues a waiter of a group.
    pub(super) fn wait(&mut self, origin: &Origin, ticket: Option<Ticket>, waker: &Waker) -> Option<Ticket> {
        let (topic, _) = self.locate(origin)?;
        let group = topic.groups.get_mut(&origin.group)?;
        Some(group.waiting.register(ticket, origin.consumer, waker))
    }

    /// Removes a waiter of a group and says whether it was still queued.
    pub(super) fn stop_waiting(&mut self, origin: &Origin, ticket: Ticket) -> bool {
        let group = self.locate(origin).and_then(|(topic, _)| topic.groups.get_mut(&origin.group));
        group.is_some_and(|group| group.waiting.remove(ticket))
    }

    /// Wakes another waiter of a group, where there is something to take.
    pub(super) fn pass_on(&mut self, origin: &Origin, fx: &mut Effects) {
        let Some((topic, _)) = self.locate(origin) else {
            return;
        };
        if let Some(group) = topic.groups.get_mut(&origin.group) {
            fx.wake(group.wake(&topic.log, 1));
        }
    }

    /// Wakes the tails of one bus.
    pub(super) fn wake_tails(&mut self, bus: u64, fx: &mut Effects) {
        for topic in self.topics.values_mut() {
            fx.wake(topic.tails.all(|handle| handle == bus));
        }
        let journal = fx.journal.tails.all(|handle| handle == bus);
        fx.wake(journal);
    }

    pub(super) fn groups(&mut self, topic: &Topic, fx: &mut Effects) -> Vec<Group> {
        self.sweep(fx);
        let Some(topic) = self.topics.get(topic) else {
            return Vec::new();
        };
        topic.groups.iter().map(|(name, group)| group.describe(name.clone(), &topic.log)).collect()
    }

    /// Ends the subscriptions of a consumer, or of a whole bus.
    pub(super) fn leave(&mut self, leaves: impl Fn(u64, &Member) -> bool, fx: &mut Effects) {
        for topic in self.topics.values_mut() {
            leave_topic(topic, &leaves, fx);
        }
    }

    /// Ends one subscription.
    pub(super) fn leave_one(&mut self, origin: &Origin, fx: &mut Effects) {
        if let Some((topic, _)) = self.locate(origin) {
            leave_topic(topic, &|consumer, _| consumer == origin.consumer, fx);
        }
    }

    pub(super) fn remove_group(&mut self, topic: &Topic, name: &GroupName, fx: &mut Effects) -> bool {
        let Some(state) = self.topics.get_mut(topic) else {
            return false;
        };
        let Some(mut group) = state.groups.remove(name) else {
            return false;
        };
        fx.wake(group.waiting.all(|_| true));
        let record = Record::new("bus", "group_removed", topic.to_text())
            .with("group", name.to_text())
            .with("floor", group.floor())
            .with("in_flight", group.in_flight() as u64);
        fx.journal(record);
        true
    }

    /// Ends everything that is due in the fleet.
    pub(super) fn sweep(&mut self, fx: &mut Effects) {
        for topic in self.topics.values_mut() {
            let names: Vec<GroupName> = topic.groups.keys().cloned().collect();
            for name in &names {
                end_what_is_due(topic, &mut self.dead, name, fx);
            }
            topic.expire_groups(fx);
            topic.keys.expire(fx.now, fx.config.idempotency_window);
            topic.trim(fx);
        }
        self.dead.expire(fx.now, fx.config.idempotency_window);
        let vacant = self.topics.extract_if(|_, topic| topic.is_vacant());
        let last = vacant.map(|(_, topic)| topic.log.end().get() - 1).max();
        self.forgotten = self.forgotten.max(Position::new(last.unwrap_or(0)));
    }

    /// When something is due next, whether or not anybody calls.
    pub(super) fn next_due(&self, fx: &Effects) -> Timestamp {
        let topics = self.topics.values().filter_map(|topic| topic.next_due(&fx.config));
        let redriven = self.dead.oldest().map(|at| at + fx.config.idempotency_window);
        topics.chain(redriven).min().unwrap_or(Timestamp::MAX)
    }

    pub(super) fn dead_letters(&mut self, which: &DeadLetters, fx: &mut Effects) -> Result<Vec<DeadLetter>, Error> {
        check_selection(which, fx)?;
        self.sweep(fx);
        let ids = self.dead.select(which);
        Ok(ids.iter().filter_map(|id| self.dead.graves.get(id)).map(|grave| grave.letter.clone()).collect())
    }

    pub(super) fn redrive(&mut self, which: &DeadLetters, fx: &mut Effects) -> Result<Vec<Redriven>, Error> {
        check_selection(which, fx)?;
        self.sweep(fx);
        let mut answers: Vec<Redriven> =
            self.dead.select(which).into_iter().map(|id| Redriven { id, duplicate: false }).collect();
        for &id in &which.ids {
            if answers.iter().any(|answer| answer.id == id) {
                continue;
            }
            if !self.dead.was_redriven(id) {
                return Err(Error::UnknownDeadLetter { id });
            }
            answers.push(Redriven { id, duplicate: true });
        }
        answers.sort_by_key(|answer| answer.id);
        let fresh = answers.iter().filter(|answer| !answer.duplicate).map(|answer| answer.id);
        let fresh: Vec<DeadLetterId> = fresh.collect();
        fresh.iter().try_for_each(|id| self.check_home(*id))?;
        fresh.iter().for_each(|id| self.redrive_one(*id, fx));
        Ok(answers)
    }

    /// Fails when the group that gave up on a dead letter is gone.
    fn check_home(&self, id: DeadLetterId) -> Result<(), Error> {
        let Some(Grave { letter, incarnation }) = self.dead.graves.get(&id) else {
            return Err(Error::UnknownDeadLetter { id });
        };
        let topic = self.topics.get(&letter.event.topic);
        match topic.and_then(|topic| topic.groups.get(&letter.group)) {
            Some(group) if group.incarnation == *incarnation => Ok(()),
            _ => Err(Error::UnknownGroup { topic: letter.event.topic.clone(), group: letter.group.clone() }),
        }
    }

    fn redrive_one(&mut self, id: DeadLetterId, fx: &mut Effects) {
        let Some(Grave { letter, .. }) = self.dead.graves.remove(&id) else {
            return;
        };
        self.dead.mark_redriven(id, fx.now);
        fx.journal(record_of("redrive", &letter));
        let Some(topic) = self.topics.get_mut(&letter.event.topic) else {
            return;
        };
        topic.dead_bytes -= weight(&letter.event);
        let Some(group) = topic.groups.get_mut(&letter.group) else {
            return;
        };
        let deliveries = letter.history.last().map_or(0, |attempt| attempt.delivery);
        group.revive(letter.event, deliveries);
        fx.wake(group.wake(&topic.log, 1));
    }

    pub(super) fn purge(&mut self, which: &DeadLetters, fx: &mut Effects) -> Result<Vec<DeadLetterId>, Error> {
        check_selection(which, fx)?;
        self.sweep(fx);
        let ids = self.dead.select(which);
        for id in &ids {
            let Some(Grave { letter, .. }) = self.dead.graves.remove(id) else {
                continue;
            };
            fx.journal(record_of("purge", &letter));
            if let Some(topic) = self.topics.get_mut(&letter.event.topic) {
                topic.dead_bytes -= weight(&letter.event);
            }
        }
        Ok(ids)
    }
}

fn check_settlement(settlement: &Settlement, fx: &Effects) -> Result<(), Error> {
    let limits = &fx.config.limits;
    match settlement {
        Settlement::Ack | Settlement::Commit(_) => Ok(()),
        Settlement::DeadLetter { reason } => limits.check_reason(reason),
        Settlement::Nack { delay, reason } => {
            limits.check_delay(delay.unwrap_or_default())?;
            limits.check_reason(reason.as_deref().unwrap_or_default())
        }
    }
}

fn check_selection(which: &DeadLetters, fx: &Effects) -> Result<(), Error> {
    let limits = &fx.config.limits;
    limits.check_page(which.limit)?;
    check("batch", || "a selection of dead letters".into(), which.ids.len(), limits.batch)
}

/// Ends what is due in one group.
fn end_what_is_due(topic: &mut TopicState, dead: &mut Cemetery, group: &GroupName, fx: &mut Effects) {
    for position in topic.expire_deliveries(group, fx) {
        bury(topic, dead, group, position, fx);
    }
}

/// Makes a dead letter of an event that a group has given up on.
fn bury(
    topic: &mut TopicState,
    dead: &mut Cemetery,
    name: &GroupName,
    position: Position,
    fx: &mut Effects,
) -> DeadLetterId {
    let id = dead.number();
    let Some(group) = topic.groups.get_mut(name) else {
        return id;
    };
    let Some((event, history)) = group.last_words(position, &topic.log) else {
        return id;
    };
    group.bury(position, id);
    topic.dead_bytes += weight(&event);
    let letter = DeadLetter::new(id, event, name.clone(), fx.now, history);
    fx.journal(record_of("dead_letter", &letter).with_severity(Severity::High));
    let incarnation = group.incarnation;
    dead.graves.insert(id, Grave { letter, incarnation });
    fx.wake(group.wake(&topic.log, 1));
    id
}

fn record_of(operation: &'static str, letter: &DeadLetter) -> Record {
    Record::new("bus", operation, letter.event.topic.to_text())
        .with("id", letter.id.get())
        .with("group", letter.group.to_text())
        .with("event", letter.event.id.to_string())
        .with("position", letter.event.position)
        .with("attempts", letter.history.len() as u64)
        .with_trace(letter.event.trace)
}

fn leave_topic(topic: &mut TopicState, leaves: &impl Fn(u64, &Member) -> bool, fx: &mut Effects) {
    for group in topic.groups.values_mut() {
        let waiting = group.leave(fx.now, leaves);
        fx.wake(waiting);
        if group.idle_since.is_some() {
            fx.arm(fx.now + fx.config.group_expiry);
        }
    }
}

/// The position that a start names.
pub(super) const fn after(start: Start) -> Position {
    match start {
        Start::After(position) => position,
        Start::Beginning | Start::Now => Position::ORIGIN,
    }
}
