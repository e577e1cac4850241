//! Watching a topic in memory.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;

use crate::error::Error;
use crate::event::{Event, Position, Start};
use crate::memory::bus::Handle;
use crate::memory::store::{Inner, MemoryStore};
use crate::memory::topics::after;
use crate::memory::wait::{Ticket, WaitList};
use crate::name::Topic;
use crate::tail::Follow;

/// Reads a topic or the journal, from a start or from a position on.
pub(super) trait Readable {
    /// The position of the oldest event, or of the next one where there is none.
    fn oldest(&self, topic: &Topic) -> Position;
    /// The position of the next event.
    fn end(&self, topic: &Topic) -> Position;
    /// At most `limit` events from `from` on, which is not before the oldest.
    fn events(&self, topic: &Topic, from: Position, limit: usize) -> Vec<Arc<Event>>;
    /// Where a reader that starts so begins.
    fn begin(&self, topic: &Topic, start: Start) -> Result<Position, Error> {
        let oldest = self.oldest(topic);
        match start {
            Start::Beginning => Ok(oldest),
            Start::Now => Ok(self.end(topic)),
            Start::After(position) if position.next() >= oldest => Ok(position.next()),
            Start::After(_) => Err(Error::NotRetained { topic: topic.clone(), position: after(start), oldest }),
        }
    }
}

impl Readable for Inner {
    fn oldest(&self, topic: &Topic) -> Position {
        if *topic == Topic::JOURNAL {
            return self.fx.journal.first();
        }
        self.topics.get(topic).map_or(self.topics.unused(), |topic| topic.log.first())
    }

    fn end(&self, topic: &Topic) -> Position {
        if *topic == Topic::JOURNAL {
            return self.fx.journal.end();
        }
        self.topics.get(topic).map_or(self.topics.unused(), |topic| topic.log.end())
    }

    fn events(&self, topic: &Topic, from: Position, limit: usize) -> Vec<Arc<Event>> {
        if *topic == Topic::JOURNAL {
            return self.fx.journal.from(from, limit).map(|entry| Arc::new(entry.to_event())).collect();
        }
        let topic = self.topics.get(topic);
        topic.map_or_else(Vec::new, |topic| topic.log.from(from, limit).map(Arc::clone).collect())
    }
}

impl Inner {
    fn tails(&mut self, topic: &Topic) -> Result<&mut WaitList, Error> {
        if *topic == Topic::JOURNAL {
            return Ok(&mut self.fx.journal.tails);
        }
        self.topics.topic(topic, &self.fx).map(|topic| &mut topic.tails)
    }
}

/// A cursor on one topic.
#[derive(Debug)]
pub(super) struct MemoryTail {
    pub(super) store: MemoryStore,
    pub(super) handle: Arc<Handle>,
    pub(super) topic: Topic,
    pub(super) next: Position,
}

#[async_trait]
impl Follow for MemoryTail {
    async fn follow(&mut self, max: usize) -> Result<Vec<Arc<Event>>, Error> {
        Following { tail: self, max, ticket: None }.await
    }
}

impl MemoryTail {
    /// What follows, or an error when some of it was trimmed.
    fn read(&mut self, inner: &Inner, max: usize) -> Result<Vec<Arc<Event>>, Error> {
        let oldest = inner.oldest(&self.topic);
        if self.next < oldest {
            let missed = oldest.get() - self.next.get();
            self.next = oldest;
            return Err(Error::Lagged { topic: self.topic.clone(), missed, resumes_at: oldest });
        }
        let events = inner.events(&self.topic, self.next, max);
        if let Some(last) = events.last() {
            self.next = last.position.next();
        }
        Ok(events)
    }
}

/// Waits until there is something to read.
struct Following<'a> {
    tail: &'a mut MemoryTail,
    max: usize,
    ticket: Option<Ticket>,
}

impl Future for Following<'_> {
    type Output = Result<Vec<Arc<Event>>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let store = this.tail.store.clone();
        store.with(|inner| {
            if this.tail.handle.is_closed() {
                return Poll::Ready(Ok(Vec::new()));
            }
            match this.tail.read(inner, this.max) {
                Ok(events) if events.is_empty() => {
                    let tails = match inner.tails(&this.tail.topic) {
                        Ok(tails) => tails,
                        Err(error) => return Poll::Ready(Err(error)),
                    };
                    this.ticket = Some(tails.register(this.ticket, this.tail.handle.id, cx.waker()));
                    Poll::Pending
                }
                answer => Poll::Ready(answer),
            }
        })
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.tail.store.with(|inner| inner.tails(&self.tail.topic).map(|tails| tails.remove(ticket)).ok());
        }
    }
}
