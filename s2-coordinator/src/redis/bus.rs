//! The event bus on Redis.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tracing::instrument;

use crate::bus::EventBus;
use crate::dead_letter::{DeadLetter, DeadLetterId, DeadLetters, Redriven};
use crate::error::Error;
use crate::event::{Event, NewEvent, Position, Published};
use crate::group::Group;
use crate::limits::Limits;
use crate::name::{GroupName, Topic};
use crate::page::Page;
use crate::redis::codec;
use crate::redis::keeper;
use crate::redis::reply::Reply;
use crate::redis::script::Script;
use crate::redis::scripts::{DEAD_LETTERS, GROUPS, PURGE, REDRIVE, REMOVE_GROUP};
use crate::redis::store::{Call, RedisStore};
use crate::redis::subscription::{Closer, RedisConsumer};
use crate::redis::tail::RedisTail;
use crate::settle::{Receipt, Settle, Settled, Settlement};
use crate::start::Start;
use crate::subscription::{Subscribe, Subscription};
use crate::tail::Tail;
use crate::time::Timestamp;

/// An [`EventBus`] of a fleet on Redis. Clones are the same handle: closing one closes all.
#[derive(Clone, Debug)]
pub struct RedisBus {
    store: RedisStore,
    handle: Arc<Handle>,
}

/// What everything that one bus handed out has in common.
#[derive(Debug)]
struct Handle {
    closed: watch::Sender<bool>,
    consumers: Mutex<Vec<Closer>>,
}

impl RedisStore {
    /// A bus of this fleet. Each call makes another handle, which can be closed on its own.
    #[must_use]
    pub fn bus(&self) -> RedisBus {
        let handle = Handle { closed: watch::Sender::new(false), consumers: Mutex::default() };
        RedisBus { store: self.clone(), handle: Arc::new(handle) }
    }
}

impl RedisBus {
    fn check_open(&self) -> Result<(), Error> {
        if *self.handle.closed.borrow() { Err(Error::Closed) } else { Ok(()) }
    }

    fn limits(&self) -> &Limits {
        &self.store.config().limits
    }

    /// Runs a script on dead letters until it has seen all that are meant.
    async fn letters<T>(
        &self,
        script: &'static Script,
        which: &DeadLetters,
        read: impl Fn(&Reply) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        self.check_open()?;
        self.limits().check_selection(which)?;
        let (mut found, mut after) = (Vec::new(), which.after);
        let limit = which.limit.unwrap_or(self.limits().batch);
        loop {
            let reads = std::ptr::eq(script, DEAD_LETTERS);
            let mut call = if reads { self.store.call_again(script) } else { self.store.call_once(script) };
            call.number(after);
            call.arg(which.topic.as_ref().map(Topic::as_str).unwrap_or_default());
            call.arg(which.group.as_ref().map(GroupName::as_str).unwrap_or_default());
            call.arg(which.event_type.as_ref().map(|kind| kind.as_str()).unwrap_or_default());
            call.number(limit - found.len());
            // Those that a page before this one has dealt with are not named again.
            let named: Vec<&DeadLetterId> =
                which.ids.iter().filter(|id| after == which.after || **id > after).collect();
            call.number(named.len());
            named.into_iter().for_each(|id| call.number(id));
            let answer = call.answer().await?;
            let unexpected = || Call::unexpected(script, &answer);
            match answer.get(0).and_then(Reply::as_str) {
                Some("ok") => {}
                Some("no_letter") => {
                    let id = answer.get(1).and_then(Reply::as_u64).ok_or_else(unexpected)?;
                    return Err(Error::UnknownDeadLetter { id: DeadLetterId::new(id) });
                }
                Some("no_group") => {
                    let text = |nth: usize| answer.get(nth).and_then(Reply::as_str).ok_or_else(unexpected);
                    return Err(Error::UnknownGroup { topic: text(1)?.parse()?, group: text(2)?.parse()? });
                }
                _ => return Err(unexpected()),
            }
            let list = answer.get(1).and_then(Reply::as_list).ok_or_else(unexpected)?;
            found.extend(list.iter().map(&read).collect::<Option<Vec<_>>>().ok_or_else(unexpected)?);
            match answer.get(2).and_then(Reply::as_u64) {
                Some(last) if found.len() < limit => after = DeadLetterId::new(last),
                _ => return Ok(found),
            }
        }
    }
}

#[async_trait]
impl Settle for RedisBus {
    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(topic = %receipt.recipient().topic, group = %receipt.recipient().group, position = %receipt.position()))]
    async fn settle(&self, receipt: &Receipt, settlement: Settlement) -> Result<Settled, Error> {
        let settled = self.store.settle(vec![(receipt.clone(), settlement)]).await?;
        settled.into_iter().next().unwrap_or(Err(Error::Closed))
    }

    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(settlements = settlements.len()))]
    async fn settle_all(&self, settlements: Vec<(Receipt, Settlement)>) -> Result<Vec<Result<Settled, Error>>, Error> {
        self.store.settle(settlements).await
    }

    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(topic = %receipt.recipient().topic, group = %receipt.recipient().group, position = %receipt.position()))]
    async fn extend(&self, receipt: &Receipt, by: Duration) -> Result<Timestamp, Error> {
        self.store.extend(receipt, by).await
    }
}

#[async_trait]
impl EventBus for RedisBus {
    #[instrument(level = "trace", skip_all, err(level = "debug"), fields(events = events.len()))]
    async fn publish(&self, events: &[NewEvent]) -> Result<Vec<Published>, Error> {
        self.check_open()?;
        self.store.publish(events).await
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(topic = %how.topic, group = %how.group))]
    async fn subscribe(&self, how: &Subscribe) -> Result<Subscription, Error> {
        how.check(self.limits())?;
        keeper::ensure(&self.store.shared)?;
        self.check_open()?;
        let (settle, closed) = (Arc::new(self.clone()), self.handle.closed.subscribe());
        // In a task of its own: a caller that does not wait for it leaves no consumer behind.
        let (store, how) = (self.store.clone(), how.clone());
        let joined = tokio::spawn(async move { RedisConsumer::join(store, settle, &how, closed).await });
        let consumer = joined.await.map_err(|_| Error::Closed)??;
        {
            let mut consumers = self.handle.consumers.lock().unwrap_or_else(PoisonError::into_inner);
            if consumers.len() == consumers.capacity() {
                consumers.retain(|consumer| !consumer.is_gone());
            }
            consumers.push(consumer.closer());
        }
        // Closed in between, it is not among those that were closed.
        self.check_open()?;
        Ok(Subscription::new(consumer))
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(%topic))]
    async fn tail(&self, topic: &Topic, start: Start) -> Result<Tail, Error> {
        keeper::ensure(&self.store.shared)?;
        self.check_open()?;
        let next = self.store.read(topic, start, 1).await?.from;
        let closed = self.handle.closed.subscribe();
        Ok(Tail::new(RedisTail::new(self.store.clone(), closed, topic.clone(), next)))
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(%topic))]
    async fn read(&self, topic: &Topic, start: Start, limit: usize) -> Result<Page<Arc<Event>>, Error> {
        self.limits().check_page(limit)?;
        self.check_open()?;
        let read = self.store.read(topic, start, limit).await?;
        let items = read.events()?;
        let next = items.last().map_or(Position::new(read.from.get() - 1), |event| event.position);
        Ok(Page { items, next })
    }

    async fn groups(&self, topic: &Topic) -> Result<Vec<Group>, Error> {
        self.check_open()?;
        let mut call = self.store.call_again(GROUPS);
        call.arg(topic.as_str());
        let answer = call.answer().await?;
        let groups = answer.get(1).and_then(Reply::as_list);
        let groups = groups.and_then(|groups| groups.iter().map(codec::group).collect::<Option<Vec<_>>>());
        let mut groups = groups.ok_or_else(|| Call::unexpected(GROUPS, &answer))?;
        groups.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(groups)
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"), fields(%topic, %group))]
    async fn remove_group(&self, topic: &Topic, group: &GroupName) -> Result<bool, Error> {
        self.check_open()?;
        let mut call = self.store.call_once(REMOVE_GROUP);
        call.arg(topic.as_str());
        call.arg(group.as_str());
        let answer = call.answer().await?;
        Ok(answer.get(1).and_then(Reply::as_int) == Some(1))
    }

    async fn dead_letters(&self, which: &DeadLetters) -> Result<Vec<DeadLetter>, Error> {
        self.letters(DEAD_LETTERS, which, codec::dead_letter).await
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    async fn redrive(&self, which: &DeadLetters) -> Result<Vec<Redriven>, Error> {
        let redriven = |reply: &Reply| {
            let id = DeadLetterId::new(reply.get(0)?.as_u64()?);
            Some(Redriven { id, duplicate: reply.get(1)?.as_int()? == 1 })
        };
        self.letters(REDRIVE, which, redriven).await
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    async fn purge(&self, which: &DeadLetters) -> Result<Vec<DeadLetterId>, Error> {
        self.letters(PURGE, which, |id| id.as_u64().map(DeadLetterId::new)).await
    }

    #[instrument(level = "debug", skip_all, err(level = "debug"))]
    async fn close(&self) -> Result<(), Error> {
        self.handle.closed.send_replace(true);
        let next = || self.handle.consumers.lock().unwrap_or_else(PoisonError::into_inner).last().cloned();
        while let Some(consumer) = next() {
            consumer.close().await?;
            let mut consumers = self.handle.consumers.lock().unwrap_or_else(PoisonError::into_inner);
            consumers.retain(|other| !other.is_of(&consumer));
        }
        Ok(())
    }
}
