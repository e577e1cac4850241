//! Watching a topic in memory.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;

use crate::error::Error;
use crate::event::{Event, Position};
use crate::memory::handle::Handle;
use crate::memory::store::{Inner, MemoryStore};
use crate::memory::timer;
use crate::memory::wait::{Ticket, WaitList};
use crate::name::Topic;
use crate::start::Start;
use crate::tail::Follow;

impl Inner {
    /// The position of the oldest event, or of the next one where there is none.
    pub(super) fn oldest(&self, topic: &Topic) -> Position {
        if *topic == Topic::JOURNAL {
            return self.fx.journal.first();
        }
        self.topics.get(topic).map_or_else(|| self.topics.ended(topic).next(), |topic| topic.log.first())
    }

    fn end(&self, topic: &Topic) -> Position {
        if *topic == Topic::JOURNAL {
            return self.fx.journal.end();
        }
        self.topics.get(topic).map_or_else(|| self.topics.ended(topic).next(), |topic| topic.log.end())
    }

    /// At most `limit` events from `from` on, which is not before the oldest.
    pub(super) fn events(&self, topic: &Topic, from: Position, limit: usize) -> Vec<Arc<Event>> {
        if *topic == Topic::JOURNAL {
            return self.fx.journal.from(from, limit).map(|entry| Arc::new(entry.to_event())).collect();
        }
        let topic = self.topics.get(topic);
        topic.map_or_else(Vec::new, |topic| topic.log.from(from, limit).map(Arc::clone).collect())
    }

    /// Where a reader that starts so begins.
    pub(super) fn begin(&self, topic: &Topic, start: Start) -> Result<Position, Error> {
        start.begin(topic, self.oldest(topic), self.end(topic))
    }

    /// Who waits for events of a topic, which comes to be by being waited for.
    fn tails(&mut self, topic: &Topic) -> Result<&mut WaitList, Error> {
        if *topic == Topic::JOURNAL {
            return Ok(&mut self.fx.journal.tails);
        }
        self.topics.topic(topic, &self.fx).map(|topic| &mut topic.tails)
    }

    fn stop_waiting(&mut self, topic: &Topic, ticket: Ticket) {
        if *topic == Topic::JOURNAL || self.topics.get(topic).is_some() {
            self.tails(topic).map(|tails| tails.remove(ticket)).unwrap_or_default();
        }
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
        timer::ensure(store.shared())?;
        let answer = store.with(|inner| {
            if this.tail.handle.is_closed() {
                return Poll::Ready(Ok(Vec::new()));
            }
            match this.tail.read(inner, this.max) {
                Ok(events) if events.is_empty() => {
                    let ticket = inner.fx.ticket(this.ticket);
                    this.ticket = Some(ticket);
                    let tails = match inner.tails(&this.tail.topic) {
                        Ok(tails) => tails,
                        Err(error) => return Poll::Ready(Err(error)),
                    };
                    tails.register(ticket, this.tail.handle.id, cx.waker());
                    Poll::Pending
                }
                answer => Poll::Ready(answer),
            }
        });
        timer::ensure(store.shared())?;
        answer
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.tail.store.with(|inner| inner.stop_waiting(&self.tail.topic, ticket));
        }
    }
}
