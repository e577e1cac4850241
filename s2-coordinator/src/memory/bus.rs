//! The event bus in memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::instrument;

use crate::bus::EventBus;
use crate::dead_letter::{DeadLetter, DeadLetterId, DeadLetters, Redriven};
use crate::error::Error;
use crate::event::{Event, NewEvent, Position, Published};
use crate::group::Group;
use crate::limits::{Limits, check};
use crate::memory::handle::Handle;
use crate::memory::store::{Inner, MemoryStore};
use crate::memory::subscription::MemoryConsumer;
use crate::memory::tail::MemoryTail;
use crate::memory::timer;
use crate::name::{GroupName, Topic};
use crate::page::Page;
use crate::settle::{Receipt, Settle, Settled, Settlement};
use crate::start::Start;
use crate::subscription::{Subscribe, Subscription};
use crate::tail::Tail;
use crate::time::Timestamp;

/// An [`EventBus`] of a fleet in memory. Clones are the same handle: closing one closes all.
#[derive(Clone, Debug)]
pub struct MemoryBus {
    store: MemoryStore,
    handle: Arc<Handle>,
}

impl MemoryStore {
    /// A bus of this fleet. Each call makes another handle, which can be closed on its own.
    #[must_use]
    pub fn bus(&self) -> MemoryBus {
        MemoryBus::new(self.clone())
    }
}

impl MemoryBus {
    fn new(store: MemoryStore) -> Self {
        let id = store.with(|inner| inner.fx.number());
        Self { store, handle: Arc::new(Handle::new(id)) }
    }

    /// Runs a step, unless the bus is closed.
    fn step<R>(&self, act: impl FnOnce(&mut Inner) -> Result<R, Error>) -> Result<R, Error> {
        // Closing takes a step, too: what begins before it ends before it.
        self.store.with(|inner| if self.handle.is_closed() { Err(Error::Closed) } else { act(inner) })
    }

    fn limits(&self) -> &Limits {
        &self.store.config().limits
    }
}

#[async_trait]
impl Settle for MemoryBus {
    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(topic = %receipt.recipient().topic, group = %receipt.recipient().group, position = %receipt.position()))]
    async fn settle(&self, receipt: &Receipt, settlement: Settlement) -> Result<Settled, Error> {
        self.store.with(|inner| inner.topics.settle(receipt, settlement, &mut inner.fx))
    }

    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(settlements = settlements.len()))]
    async fn settle_all(&self, settlements: Vec<(Receipt, Settlement)>) -> Result<Vec<Result<Settled, Error>>, Error> {
        check("batch", || "a batch of settlements".into(), settlements.len(), self.limits().batch)?;
        Ok(self.store.with(|inner| inner.topics.settle_all(settlements, &mut inner.fx)))
    }

    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(topic = %receipt.recipient().topic, group = %receipt.recipient().group, position = %receipt.position()))]
    async fn extend(&self, receipt: &Receipt, by: Duration) -> Result<Timestamp, Error> {
        self.store.with(|inner| inner.topics.extend(receipt, by, &mut inner.fx))
    }
}

#[async_trait]
impl EventBus for MemoryBus {
    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(events = events.len()))]
    async fn publish(&self, events: &[NewEvent]) -> Result<Vec<Published>, Error> {
        self.step(|inner| inner.topics.publish(events, &mut inner.fx))
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(topic = %how.topic, group = %how.group))]
    async fn subscribe(&self, how: &Subscribe) -> Result<Subscription, Error> {
        how.check(self.limits())?;
        timer::ensure(self.store.shared())?;
        let recipient = self.step(|inner| inner.topics.subscribe(how, self.handle.id, &mut inner.fx))?;
        let (store, handle, settle) = (self.store.clone(), Arc::clone(&self.handle), Arc::new(self.clone()));
        Ok(Subscription::new(MemoryConsumer::new(store, settle, handle, recipient)))
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(%topic))]
    async fn tail(&self, topic: &Topic, start: Start) -> Result<Tail, Error> {
        timer::ensure(self.store.shared())?;
        let next = self.step(|inner| inner.begin(topic, start))?;
        let (store, handle, topic) = (self.store.clone(), Arc::clone(&self.handle), topic.clone());
        Ok(Tail::new(MemoryTail { store, handle, topic, next }))
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(%topic))]
    async fn read(&self, topic: &Topic, start: Start, limit: usize) -> Result<Page<Arc<Event>>, Error> {
        self.limits().check_page(limit)?;
        self.step(|inner| {
            let from = inner.begin(topic, start)?;
            let items = inner.events(topic, from, limit);
            let next = items.last().map_or(Position::new(from.get() - 1), |event| event.position);
            Ok(Page { items, next })
        })
    }

    async fn groups(&self, topic: &Topic) -> Result<Vec<Group>, Error> {
        self.step(|inner| Ok(inner.topics.groups(topic)))
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(%topic, %group))]
    async fn remove_group(&self, topic: &Topic, group: &GroupName) -> Result<bool, Error> {
        self.step(|inner| Ok(inner.topics.remove_group(topic, group, &mut inner.fx)))
    }

    async fn dead_letters(&self, which: &DeadLetters) -> Result<Vec<DeadLetter>, Error> {
        self.step(|inner| inner.topics.dead_letters(which, &inner.fx))
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    async fn redrive(&self, which: &DeadLetters) -> Result<Vec<Redriven>, Error> {
        self.step(|inner| inner.topics.redrive(which, &mut inner.fx))
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    async fn purge(&self, which: &DeadLetters) -> Result<Vec<DeadLetterId>, Error> {
        self.step(|inner| inner.topics.purge(which, &mut inner.fx))
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    async fn close(&self) -> Result<(), Error> {
        self.store.with(|inner| {
            self.handle.close();
            inner.topics.close(self.handle.id, &mut inner.fx);
            let tails = inner.fx.journal.tails.all(|handle| handle == self.handle.id);
            inner.fx.wake(tails);
        });
        Ok(())
    }
}
