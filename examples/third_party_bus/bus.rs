//! A bus that somebody else might write: one mutex, vectors, and a bell that rings at every change.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use s2_coordinator::{
    Consumer, DeadLetter, DeadLetterId, DeadLetters, Delivery, Error, Event, EventBus, EventId, Follow, Group,
    GroupName, Limits, NewEvent, Page, Position, Published, Random, Receipt, Recipient, Redriven, Settle, Settled,
    Settlement, Start, Subscribe, Subscription, Tail, Timestamp, Topic,
};
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct State {
    topics: HashMap<Topic, Vec<Arc<Event>>>,
    groups: BTreeMap<(Topic, GroupName), Members>,
    numbers: u64,
}

/// What a group has handed out: everything before `next`, less what its consumers hold.
#[derive(Debug, Default)]
struct Members {
    next: usize,
    held: HashMap<u64, HashSet<Position>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TinyBus {
    shared: Arc<Shared>,
    closed: Arc<AtomicBool>,
}

impl TinyBus {
    pub(crate) fn another(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), closed: Arc::default() }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, Error> {
        if self.is_closed() { Err(Error::Closed) } else { Ok(self.shared.lock()) }
    }

    /// Asks again at every change until there is an answer.
    async fn until<T>(&self, mut ask: impl FnMut(&mut State) -> Option<T> + Send) -> T {
        loop {
            let changed = self.shared.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if let Some(answer) = ask(&mut self.shared.lock()) {
                return answer;
            }
            changed.await;
        }
    }
}

fn index(events: &[Arc<Event>], start: Start) -> usize {
    match start {
        Start::Beginning => 0,
        Start::Now => events.len(),
        Start::After(position) => position.get() as usize,
    }
}

const fn unsupported(feature: &'static str) -> Error {
    Error::Unsupported { feature }
}

#[async_trait]
impl Settle for TinyBus {
    async fn settle(&self, receipt: &Receipt, settlement: Settlement) -> Result<Settled, Error> {
        if settlement != Settlement::Ack {
            return Err(unsupported("anything but acks"));
        }
        let Recipient { topic, group, consumer, .. } = receipt.recipient();
        let mut state = self.shared.lock();
        if let Some(members) = state.groups.get_mut(&(topic.clone(), group.clone()))
            && let Some(held) = members.held.get_mut(consumer)
        {
            held.remove(&receipt.position());
        }
        drop(state);
        self.shared.changed.notify_waiters();
        Ok(Settled::Acked)
    }

    async fn settle_all(&self, all: Vec<(Receipt, Settlement)>) -> Result<Vec<Result<Settled, Error>>, Error> {
        let mut answers = Vec::new();
        for (receipt, settlement) in all {
            answers.push(self.settle(&receipt, settlement).await);
        }
        Ok(answers)
    }

    async fn extend(&self, _: &Receipt, _: Duration) -> Result<Timestamp, Error> {
        Err(unsupported("deadlines"))
    }
}

#[async_trait]
impl EventBus for TinyBus {
    async fn publish(&self, events: &[NewEvent]) -> Result<Vec<Published>, Error> {
        Limits::default().check_events(events)?;
        let mut random = Random::from_system();
        let mut state = self.open()?;
        let mut answers = Vec::new();
        for event in events {
            let topic = state.topics.entry(event.topic.clone()).or_default();
            let (id, position) = (EventId::random(&mut random), Position::new(topic.len() as u64 + 1));
            topic.push(Arc::new(Event::published(event.clone(), id, position, Timestamp::from_micros(1))));
            answers.push(Published { id, position, duplicate: false });
        }
        drop(state);
        self.shared.changed.notify_waiters();
        Ok(answers)
    }

    async fn subscribe(&self, how: &Subscribe) -> Result<Subscription, Error> {
        how.check(&Limits::default())?;
        let mut state = self.open()?;
        state.numbers += 1;
        let consumer = state.numbers;
        let next = index(state.topics.entry(how.topic.clone()).or_default(), how.start);
        let key = (how.topic.clone(), how.group.clone());
        let members = state.groups.entry(key).or_insert_with(|| Members { next, ..Members::default() });
        members.held.insert(consumer, HashSet::new());
        let (topic, group) = (how.topic.clone(), how.group.clone());
        let recipient = Arc::new(Recipient { topic, group, incarnation: 1, consumer });
        let closed = AtomicBool::new(false);
        Ok(Subscription::new(TinyConsumer { bus: self.clone(), recipient, prefetch: how.prefetch, closed }))
    }

    async fn tail(&self, topic: &Topic, start: Start) -> Result<Tail, Error> {
        let next = index(self.open()?.topics.entry(topic.clone()).or_default(), start);
        Ok(Tail::new(TinyTail { bus: self.clone(), topic: topic.clone(), next }))
    }

    async fn read(&self, topic: &Topic, start: Start, limit: usize) -> Result<Page<Arc<Event>>, Error> {
        let state = self.open()?;
        let events = state.topics.get(topic).map_or(&[][..], Vec::as_slice);
        let from = index(events, start).min(events.len());
        let items: Vec<Arc<Event>> = events[from..].iter().take(limit).cloned().collect();
        let next = Position::new((from + items.len()) as u64);
        Ok(Page { items, next })
    }

    async fn groups(&self, topic: &Topic) -> Result<Vec<Group>, Error> {
        let state = self.open()?;
        let of_topic = state.groups.iter().filter(|((name, _), _)| name == topic);
        let describe = |((_, name), members): (&(Topic, GroupName), &Members)| {
            let mut group = Group::new(name.clone(), 1);
            group.consumers = members.held.len();
            group.in_flight = members.held.values().map(HashSet::len).sum();
            group.backlog = (state.topics[topic].len() - members.next) as u64;
            group
        };
        Ok(of_topic.map(describe).collect())
    }

    async fn remove_group(&self, _: &Topic, _: &GroupName) -> Result<bool, Error> {
        Err(unsupported("removing groups"))
    }

    async fn dead_letters(&self, _: &DeadLetters) -> Result<Vec<DeadLetter>, Error> {
        Err(unsupported("dead letters"))
    }

    async fn redrive(&self, _: &DeadLetters) -> Result<Vec<Redriven>, Error> {
        Err(unsupported("dead letters"))
    }

    async fn purge(&self, _: &DeadLetters) -> Result<Vec<DeadLetterId>, Error> {
        Err(unsupported("dead letters"))
    }

    async fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::Release);
        self.shared.changed.notify_waiters();
        Ok(())
    }
}

#[derive(Debug)]
struct TinyConsumer {
    bus: TinyBus,
    recipient: Arc<Recipient>,
    prefetch: usize,
    closed: AtomicBool,
}

impl TinyConsumer {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.bus.is_closed()
    }

    fn leave(&self) {
        self.closed.store(true, Ordering::Release);
        let Recipient { topic, group, consumer, .. } = &*self.recipient;
        if let Some(members) = self.bus.shared.lock().groups.get_mut(&(topic.clone(), group.clone())) {
            members.held.remove(consumer);
        }
        self.bus.shared.changed.notify_waiters();
    }

    fn hand_out_all(&self, state: &mut State, max: usize) -> Vec<Delivery> {
        let max = if self.is_closed() { 0 } else { max };
        std::iter::from_fn(|| self.hand_out(state)).take(max).collect()
    }

    fn hand_out(&self, state: &mut State) -> Option<Delivery> {
        let Recipient { topic, group, consumer, .. } = &*self.recipient;
        let members = state.groups.get_mut(&(topic.clone(), group.clone()))?;
        let held = members.held.get_mut(consumer).filter(|held| held.len() < self.prefetch)?;
        let event = state.topics.get(topic)?.get(members.next)?;
        members.next += 1;
        held.insert(event.position);
        let receipt = Receipt::new(Arc::clone(&self.recipient), event.position, 1);
        Some(Delivery::new(Arc::clone(event), 1, Timestamp::MAX, receipt, Arc::new(self.bus.clone())))
    }
}

#[async_trait]
impl Consumer for TinyConsumer {
    async fn next(&self, max: usize) -> Result<Vec<Delivery>, Error> {
        let ask = |state: &mut State| {
            let some = self.hand_out_all(state, max);
            (self.is_closed() || !some.is_empty()).then_some(some)
        };
        Ok(self.bus.until(ask).await)
    }

    async fn take(&self, max: usize) -> Result<Vec<Delivery>, Error> {
        Ok(self.hand_out_all(&mut self.bus.shared.lock(), max))
    }

    async fn close(&self) -> Result<(), Error> {
        self.leave();
        Ok(())
    }
}

impl Drop for TinyConsumer {
    fn drop(&mut self) {
        self.leave();
    }
}

#[derive(Debug)]
struct TinyTail {
    bus: TinyBus,
    topic: Topic,
    next: usize,
}

#[async_trait]
impl Follow for TinyTail {
    async fn follow(&mut self, max: usize) -> Result<Vec<Arc<Event>>, Error> {
        let (bus, topic, next) = (self.bus.clone(), self.topic.clone(), self.next);
        let ask = |state: &mut State| {
            let events = state.topics.get(&topic).map_or(&[][..], Vec::as_slice);
            let found: Vec<Arc<Event>> = events.iter().skip(next).take(max).cloned().collect();
            (bus.is_closed() || !found.is_empty()).then_some(found)
        };
        let found = self.bus.until(ask).await;
        self.next += found.len();
        Ok(if self.bus.is_closed() { Vec::new() } else { found })
    }
}
