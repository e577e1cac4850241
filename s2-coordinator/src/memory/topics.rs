//! All topics of the fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

use crate::entry::Record;
use crate::error::Error;
use crate::event::Position;
use crate::group::Group;
use crate::limits::check;
use crate::memory::effects::Effects;
use crate::memory::grave::Cemetery;
use crate::memory::group::GroupState;
use crate::memory::member::Member;
use crate::memory::place::Place;
use crate::memory::topic::TopicState;
use crate::memory::wait::Ticket;
use crate::name::{ConsumerName, GroupName, Topic};
use crate::settle::Recipient;
use crate::subscription::Subscribe;
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Topics {
    pub(super) topics: BTreeMap<Topic, TopicState>,
    pub(super) dead: Cemetery,
    /// Where topics ended that were forgotten: one that is made anew goes on above.
    ended: BTreeMap<Topic, Position>,
    /// The highest end of those whose end was forgotten, too.
    highest: Position,
}

impl Topics {
    pub(super) fn get(&self, name: &Topic) -> Option<&TopicState> {
        self.topics.get(name)
    }

    /// The position of the last event that a topic had when it was forgotten; zero for one that nobody has used.
    pub(super) fn ended(&self, name: &Topic) -> Position {
        self.ended.get(name).copied().unwrap_or(self.highest)
    }

    /// Fails when those of `names` that are not there yet are more than there may be.
    pub(super) fn make_room(&mut self, names: BTreeSet<&Topic>, fx: &Effects) -> Result<(), Error> {
        let max = fx.config.limits.topics;
        let fresh = |topics: &Self| names.iter().filter(|name| topics.get(name).is_none()).count();
        if self.topics.len() + fresh(self) > max {
            self.forget_vacant(max);
        }
        check("topics", || "the fleet".into(), self.topics.len() + fresh(self), max)
    }

    /// The topic of this name, made where there is none.
    pub(super) fn topic(&mut self, name: &Topic, fx: &Effects) -> Result<&mut TopicState, Error> {
        if !self.topics.contains_key(name) {
            self.make_room(BTreeSet::from([name]), fx)?;
            let after = self.ended.remove(name).unwrap_or(self.highest);
            self.topics.insert(name.clone(), TopicState::new(name.clone(), after));
        }
        self.topics.get_mut(name).ok_or(Error::Closed)
    }

    /// Forgets topics of which nothing is left but where they ended, and that of at most `max` of them.
    fn forget_vacant(&mut self, max: usize) {
        for (name, topic) in self.topics.extract_if(.., |_, topic| topic.is_vacant()) {
            let end = Position::new(topic.log.end().get() - 1);
            if end > self.highest {
                self.ended.insert(name, end);
            }
        }
        while self.ended.len() > max
            && let Some((_, end)) = self.ended.pop_first()
        {
            self.highest = self.highest.max(end);
        }
    }

    /// A group and what surrounds it, if it is still the group that the recipient names.
    pub(super) fn place(&mut self, recipient: &Recipient) -> Option<Place<'_>> {
        let TopicState { log, groups, dead_bytes, due, .. } = self.topics.get_mut(&recipient.topic)?;
        let group = groups.get_mut(&recipient.incarnation).filter(|group| group.name == recipient.group)?;
        Some(Place { group, log, dead_bytes, dead: &mut self.dead, due })
    }

    /// Joins a group, made where there is none.
    pub(super) fn subscribe(&mut self, how: &Subscribe, bus: u64, fx: &mut Effects) -> Result<Recipient, Error> {
        let topic = self.topic(&how.topic, fx)?;
        let incarnation = match topic.group_named(&how.group) {
            Some(group) => group.incarnation,
            None => create_group(topic, how, fx)?,
        };
        topic.return_group(incarnation, fx);
        let consumer = fx.number();
        let name = how.consumer.clone().unwrap_or_else(|| label(consumer));
        let timeout = how.ack_timeout.unwrap_or(fx.config.ack_timeout);
        if let Some(group) = topic.groups.get_mut(&incarnation) {
            group.deliveries = how.deliveries.unwrap_or(group.deliveries);
            group.join(consumer, Member::new(name, bus, how.prefetch, timeout));
        }
        Ok(Recipient { topic: how.topic.clone(), group: how.group.clone(), incarnation, consumer })
    }

    /// Queues a waiter of a group.
    pub(super) fn wait(&mut self, recipient: &Recipient, ticket: Ticket, waker: &Waker) {
        if let Some(place) = self.place(recipient) {
            place.group.waiting.register(ticket, recipient.consumer, waker);
        }
    }

    /// Removes a waiter of a group. One that was no longer queued had been woken: then another is woken instead.
    pub(super) fn stop_waiting(&mut self, recipient: &Recipient, ticket: Ticket, fx: &mut Effects) {
        let Some(mut place) = self.place(recipient) else { return };
        if !place.group.waiting.remove(ticket) {
            place.wake(1, fx);
        }
    }

    /// Ends the subscriptions of one bus, and wakes its tails.
    pub(super) fn close(&mut self, bus: u64, fx: &mut Effects) {
        for topic in self.topics.values_mut() {
            fx.wake(topic.tails.all(|handle| handle == bus));
            for group in topic.groups.values_mut() {
                fx.wake(group.leave(fx.now, |_, member| member.bus == bus));
            }
            if topic.groups.values().any(|group| group.idle_since.is_some()) {
                topic.arm(fx.now + fx.config.group_expiry, fx);
            }
        }
    }

    /// Ends one subscription.
    pub(super) fn leave(&mut self, recipient: &Recipient, fx: &mut Effects) {
        if let Some(mut place) = self.place(recipient) {
            place.leave(recipient.consumer, fx);
        }
    }

    /// Wakes everyone who waits.
    pub(super) fn wake_all(&mut self, fx: &mut Effects) {
        for topic in self.topics.values_mut() {
            fx.wake(topic.tails.all(|_| true));
            for group in topic.groups.values_mut() {
                fx.wake(group.waiting.all(|_| true));
            }
        }
    }

    pub(super) fn groups(&self, topic: &Topic) -> Vec<Group> {
        let Some(topic) = self.topics.get(topic) else { return Vec::new() };
        let mut groups: Vec<Group> = topic.groups.values().map(|group| group.describe(&topic.log)).collect();
        groups.sort_by(|one, other| one.name.cmp(&other.name));
        groups
    }

    pub(super) fn remove_group(&mut self, topic: &Topic, name: &GroupName, fx: &mut Effects) -> bool {
        let Some(state) = self.topics.get_mut(topic) else { return false };
        let Some(incarnation) = state.group_named(name).map(|group| group.incarnation) else { return false };
        let Some(mut group) = state.groups.remove(&incarnation) else { return false };
        fx.wake(group.waiting.all(|_| true));
        let description = group.describe(&state.log);
        let record = Record::new("bus", "group_removed", topic.to_text())
            .with("group", name.to_text())
            .with("floor", description.floor)
            .with("unsettled", description.in_flight as u64 + description.returning as u64 + description.backlog);
        fx.journal(record);
        state.trim(fx);
        true
    }

    pub(super) fn trim(&mut self, topic: &Topic, fx: &mut Effects) {
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.trim(fx);
        }
    }

    /// Does what time has brought.
    pub(super) fn sweep(&mut self, fx: &mut Effects) {
        let now = fx.now;
        for topic in self.topics.values_mut().filter(|topic| topic.due <= now) {
            let TopicState { log, groups, dead_bytes, due, .. } = topic;
            for group in groups.values_mut().filter(|group| group.next_due().is_some_and(|at| at <= now)) {
                Place { group, log, dead_bytes, dead: &mut self.dead, due }.expire(fx);
            }
            topic.sweep(fx);
        }
        self.dead.expire(fx.now, fx.config.idempotency_window);
        self.forget_vacant(fx.config.limits.topics);
    }

    /// When something is due next, whether or not anybody calls.
    pub(super) fn next_due(&self, fx: &Effects) -> Timestamp {
        let topics = self.topics.values().map(|topic| topic.due);
        let redriven = self.dead.oldest().map(|at| at + fx.config.idempotency_window);
        topics.chain(redriven).min().unwrap_or(Timestamp::MAX)
    }
}

fn create_group(topic: &mut TopicState, how: &Subscribe, fx: &mut Effects) -> Result<u64, Error> {
    let max = fx.config.limits.groups;
    check("groups", || format!("topic {}", how.topic), topic.groups.len() + 1, max)?;
    let first = how.start.begin(&how.topic, topic.log.first(), topic.log.end())?;
    let incarnation = fx.number();
    let group = GroupState::new(how.group.clone(), incarnation, first, fx.config.deliveries);
    topic.groups.insert(incarnation, group);
    let record = Record::new("bus", "group_created", how.topic.to_text())
        .with("group", how.group.to_text())
        .with("incarnation", incarnation)
        .with("starts_at", first);
    fx.journal(record);
    Ok(incarnation)
}

/// The name of a consumer that was given none.
fn label(consumer: u64) -> ConsumerName {
    const UNNAMED: ConsumerName = ConsumerName::from_static("consumer");
    ConsumerName::new(format!("consumer-{consumer}")).unwrap_or(UNNAMED)
}
