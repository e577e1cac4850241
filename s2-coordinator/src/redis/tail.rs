//! Watching a topic on Redis.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::Error;
use crate::event::{Event, Position};
use crate::name::Topic;
use crate::redis::keeper;
use crate::redis::store::{PAUSE, RedisStore};
use crate::start::Start;
use crate::tail::Follow;

/// A cursor on one topic.
#[derive(Debug)]
pub(super) struct RedisTail {
    store: RedisStore,
    bus_closed: watch::Receiver<bool>,
    topic: Topic,
    next: Position,
    /// Whether the event before the next one was there.
    seen: bool,
    epoch: watch::Receiver<u64>,
    told: watch::Receiver<u64>,
}

impl RedisTail {
    pub(super) fn new(store: RedisStore, bus_closed: watch::Receiver<bool>, topic: Topic, next: Position) -> Self {
        let (epoch, told) = (store.shared.post.epoch(), store.shared.post.tail(topic.as_str()));
        Self { store, bus_closed, topic, next, seen: false, epoch, told }
    }

    async fn wait(&mut self, max: usize) -> Result<Vec<Arc<Event>>, Error> {
        loop {
            keeper::ensure(&self.store.shared)?;
            self.told.borrow_and_update();
            if self.epoch.has_changed().unwrap_or(false) {
                // The fleet was lost and made anew: whatever is there is new.
                match self.store.read(&self.topic, Start::Beginning, 1).await {
                    Ok(read) => self.next = read.from,
                    Err(Error::Backend { retryable: true, .. }) => {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                self.epoch.borrow_and_update();
            }
            match self.store.follow(&self.topic, self.next, max).await {
                Ok(read) => {
                    let events = read.events()?;
                    if let Some(last) = events.last() {
                        self.next = last.position.next();
                        self.seen = true;
                        return Ok(events);
                    }
                    if self.seen && self.next > read.end {
                        // The server went back to an older state.
                        (self.next, self.seen) = (read.oldest, false);
                        continue;
                    }
                    self.told.changed().await.ok();
                }
                Err(Error::NotRetained { topic, oldest, .. }) => {
                    let missed = oldest.get() - self.next.get();
                    self.next = oldest;
                    return Err(Error::Lagged { topic, missed, resumes_at: oldest });
                }
                // A wait has time: the server will be back.
                Err(Error::Backend { retryable: true, .. }) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
        }
    }
}

#[async_trait]
impl Follow for RedisTail {
    async fn follow(&mut self, max: usize) -> Result<Vec<Arc<Event>>, Error> {
        keeper::ensure(&self.store.shared)?;
        let mut closed = self.bus_closed.clone();
        tokio::select! {
            biased;
            Ok(_) = closed.wait_for(|closed| *closed) => Ok(Vec::new()),
            events = self.wait(max) => events,
        }
    }
}
