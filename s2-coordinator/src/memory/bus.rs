//! The event bus in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tracing::instrument;

use crate::bus::EventBus;
use crate::dead_letter::{DeadLetter, DeadLetterId, DeadLetters, Redriven};
use crate::error::Error;
use crate::event::{Event, NewEvent, Position, Published, Start};
use crate::group::Group;
use crate::memory::consumer::MemoryConsumer;
use crate::memory::store::MemoryStore;
use crate::memory::tail::{MemoryTail, Readable};
use crate::memory::timer;
use crate::name::{GroupName, Topic};
use crate::page::Page;
use crate::settle::{Receipt, Settle, Settled, Settlement};
use crate::subscription::{Subscribe, Subscription};
use crate::tail::Tail;
use crate::time::Timestamp;

/// What everything that one bus handed out has in common.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) id: u64,
    closed: AtomicBool,
}

impl Handle {
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// An [`EventBus`] of a fleet in memory. Clones are the same handle: closing one closes all.
#[derive(Clone, Debug)]
pub struct MemoryBus {
    store: MemoryStore,
    handle: Arc<Handle>,
}

impl MemoryBus {
    pub(super) fn new(store: MemoryStore) -> Self {
        let id = store.with(|inner| inner.fx.number());
        Self { store, handle: Arc::new(Handle { id, closed: AtomicBool::new(false) }) }
    }

    fn open(&self) -> Result<&MemoryStore, Error> {
        if self.handle.is_closed() { Err(Error::Closed) } else { Ok(&self.store) }
    }
}

#[async_trait]
impl Settle for MemoryBus {
    #[instrument(level = "trace", skip_all, fields(position = %receipt.position()))]
    async fn settle(&self, receipt: &Receipt, settlement: Settlement) -> Result<Settled, Error> {
        self.store.with(|inner| inner.topics.settle(receipt, settlement, &mut inner.fx))
    }

    #[instrument(level = "trace", skip_all, fields(position = %receipt.position()))]
    async fn extend(&self, receipt: &Receipt, by: Duration) -> Result<Timestamp, Error> {
        self.store.with(|inner| inner.topics.extend(receipt, by, &mut inner.fx))
    }
}

#[async_trait]
impl EventBus for MemoryBus {
    #[instrument(level = "trace", skip_all, fields(events = events.len()))]
    async fn publish(&self, events: &[NewEvent]) -> Result<Vec<Published>, Error> {
        self.open()?.with(|inner| inner.topics.publish(events, &mut inner.fx))
    }

    #[instrument(level = "debug", skip_all, fields(topic = %how.topic, group = %how.group))]
    async fn subscribe(&self, how: &Subscribe) -> Result<Subscription, Error> {
        let store = self.open()?;
        how.check(&store.config().limits)?;
        let origin = store.with(|inner| {
            timer::ensure(store.shared(), inner)?;
            inner.topics.subscribe(how, self.handle.id, &mut inner.fx)
        })?;
        let (handle, settle) = (Arc::clone(&self.handle), Arc::new(self.clone()));
        Ok(Subscription::new(MemoryConsumer::new(store.clone(), settle, handle, origin)))
    }

    #[instrument(level = "debug", skip_all, fields(%topic))]
    async fn tail(&self, topic: &Topic, start: Start) -> Result<Tail, Error> {
        let store = self.open()?;
        let next = store.with(|inner| {
            timer::ensure(store.shared(), inner)?;
            inner.begin(topic, start)
        })?;
        let (store, handle, topic) = (store.clone(), Arc::clone(&self.handle), topic.clone());
        Ok(Tail::new(MemoryTail { store, handle, topic, next }))
    }

    #[instrument(level = "debug", skip_all, fields(%topic))]
    async fn read(&self, topic: &Topic, start: Start, limit: usize) -> Result<Page<Arc<Event>>, Error> {
        let store = self.open()?;
        store.config().limits.check_page(limit)?;
        store.with(|inner| {
            let from = inner.begin(topic, start)?;
            let items = inner.events(topic, from, limit);
            let next = items.last().map_or(Position::new(from.get() - 1), |event| event.position);
            Ok(Page { items, next })
        })
    }

    async fn groups(&self, topic: &Topic) -> Result<Vec<Group>, Error> {
        self.open()?.with(|inner| Ok(inner.topics.groups(topic, &mut inner.fx)))
    }

    #[instrument(level = "debug", skip_all, fields(%topic, %group))]
    async fn remove_group(&self, topic: &Topic, group: &GroupName) -> Result<bool, Error> {
        self.open()?.with(|inner| Ok(inner.topics.remove_group(topic, group, &mut inner.fx)))
    }

    async fn dead_letters(&self, which: &DeadLetters) -> Result<Vec<DeadLetter>, Error> {
        self.open()?.with(|inner| inner.topics.dead_letters(which, &mut inner.fx))
    }

    #[instrument(level = "debug", skip_all)]
    async fn redrive(&self, which: &DeadLetters) -> Result<Vec<Redriven>, Error> {
        self.open()?.with(|inner| inner.topics.redrive(which, &mut inner.fx))
    }

    #[instrument(level = "debug", skip_all)]
    async fn purge(&self, which: &DeadLetters) -> Result<Vec<DeadLetterId>, Error> {
        self.open()?.with(|inner| inner.topics.purge(which, &mut inner.fx))
    }

    #[instrument(level = "debug", skip_all)]
    async fn close(&self) -> Result<(), Error> {
        self.handle.closed.store(true, Ordering::Release);
        let bus = self.handle.id;
        self.store.with(|inner| {
            inner.topics.leave(|_, member| member.bus == bus, &mut inner.fx);
            inner.topics.wake_tails(bus, &mut inner.fx);
        });
        Ok(())
    }
}
