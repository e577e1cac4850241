//! Receiving from a group in memory.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;

use crate::delivery::Delivery;
use crate::error::Error;
use crate::memory::group::Handed;
use crate::memory::handle::Handle;
use crate::memory::store::{Inner, MemoryStore};
use crate::memory::timer;
use crate::memory::wait::Ticket;
use crate::settle::{Origin, Receipt, Settle};
use crate::subscription::Consumer;

/// One member of a group.
#[derive(Debug)]
pub(super) struct MemoryConsumer {
    store: MemoryStore,
    settle: Arc<dyn Settle>,
    handle: Arc<Handle>,
    origin: Arc<Origin>,
    closed: AtomicBool,
}

impl MemoryConsumer {
    pub(super) fn new(store: MemoryStore, settle: Arc<dyn Settle>, handle: Arc<Handle>, origin: Origin) -> Self {
        Self { store, settle, handle, origin: Arc::new(origin), closed: AtomicBool::new(false) }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.handle.is_closed()
    }

    fn take_now(&self, inner: &mut Inner, max: usize) -> Result<Vec<Handed>, Error> {
        let mut place = inner.topics.place(&self.origin).ok_or_else(|| self.gone())?;
        Ok(place.take(self.origin.consumer, max, &mut inner.fx))
    }

    fn gone(&self) -> Error {
        let Origin { topic, group, .. } = &*self.origin;
        Error::UnknownGroup { topic: topic.clone(), group: group.clone() }
    }

    fn delivery(&self, handed: Handed) -> Delivery {
        let Handed { event, attempt, delivery, deadline } = handed;
        let receipt = Receipt::new(Arc::clone(&self.origin), event.position, delivery);
        Delivery::new(event, attempt, deadline, receipt, Arc::clone(&self.settle))
    }

    fn leave(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.store.with(|inner| inner.topics.leave(&self.origin, &mut inner.fx));
        }
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.leave();
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn next(&self) -> Result<Option<Delivery>, Error> {
        Ok(Next { consumer: self, ticket: None }.await?.map(|handed| self.delivery(handed)))
    }

    async fn take(&self, max: usize) -> Result<Vec<Delivery>, Error> {
        if self.is_closed() {
            return Ok(Vec::new());
        }
        let taken = self.store.with(|inner| self.take_now(inner, max))?;
        Ok(taken.into_iter().map(|handed| self.delivery(handed)).collect())
    }

    async fn close(&self) -> Result<(), Error> {
        self.leave();
        Ok(())
    }
}

/// Waits for an event. One that was woken but is dropped before it took anything wakes the next.
struct Next<'a> {
    consumer: &'a MemoryConsumer,
    ticket: Option<Ticket>,
}

impl Future for Next<'_> {
    type Output = Result<Option<Handed>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let consumer = self.consumer;
        // Whoever waits needs the timer; if its runtime is gone, this one's will do.
        timer::ensure(consumer.store.shared())?;
        consumer.store.with(|inner| {
            if consumer.is_closed() {
                return Poll::Ready(Ok(None));
            }
            match consumer.take_now(inner, 1).map(|mut taken| taken.pop()) {
                Ok(None) => {
                    self.ticket = inner.topics.wait(&consumer.origin, self.ticket, cx.waker());
                    Poll::Pending
                }
                answer => Poll::Ready(answer),
            }
        })
    }
}

impl Drop for Next<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let origin = &self.consumer.origin;
            self.consumer.store.with(|inner| inner.topics.stop_waiting(origin, ticket, &mut inner.fx));
        }
    }
}
