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
use crate::settle::{Receipt, Recipient, Settle};
use crate::subscription::Consumer;

/// One member of a group.
#[derive(Debug)]
pub(super) struct MemoryConsumer {
    store: MemoryStore,
    settle: Arc<dyn Settle>,
    handle: Arc<Handle>,
    recipient: Arc<Recipient>,
    closed: AtomicBool,
}

impl MemoryConsumer {
    pub(super) fn new(store: MemoryStore, settle: Arc<dyn Settle>, handle: Arc<Handle>, recipient: Recipient) -> Self {
        Self { store, settle, handle, recipient: Arc::new(recipient), closed: AtomicBool::new(false) }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.handle.is_closed()
    }

    fn take_now(&self, inner: &mut Inner, max: usize) -> Result<Vec<Delivery>, Error> {
        let mut place = inner.topics.place(&self.recipient).ok_or_else(|| self.gone())?;
        Ok(place.take(self.recipient.consumer, max, &mut inner.fx, |handed| self.delivery(handed)))
    }

    fn gone(&self) -> Error {
        let Recipient { topic, group, .. } = &*self.recipient;
        Error::UnknownGroup { topic: topic.clone(), group: group.clone() }
    }

    fn delivery(&self, handed: Handed) -> Delivery {
        let Handed { event, attempt, delivery, deadline } = handed;
        let receipt = Receipt::new(Arc::clone(&self.recipient), event.position, delivery);
        Delivery::new(event, attempt, deadline, receipt, Arc::clone(&self.settle))
    }

    fn leave(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.store.with(|inner| inner.topics.leave(&self.recipient, &mut inner.fx));
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
    async fn next(&self, max: usize) -> Result<Vec<Delivery>, Error> {
        Next { consumer: self, max, ticket: None }.await
    }

    async fn take(&self, max: usize) -> Result<Vec<Delivery>, Error> {
        if self.is_closed() {
            return Ok(Vec::new());
        }
        self.store.with(|inner| self.take_now(inner, max))
    }

    async fn close(&self) -> Result<(), Error> {
        self.leave();
        Ok(())
    }
}

/// Waits for an event. One that was woken but is dropped before it took anything wakes the next.
struct Next<'a> {
    consumer: &'a MemoryConsumer,
    max: usize,
    ticket: Option<Ticket>,
}

impl Future for Next<'_> {
    type Output = Result<Vec<Delivery>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let consumer = self.consumer;
        // Whoever waits needs the timer; if its runtime is gone, this one's will do.
        timer::ensure(consumer.store.shared())?;
        let answer = consumer.store.with(|inner| {
            if consumer.is_closed() {
                return Poll::Ready(Ok(Vec::new()));
            }
            match consumer.take_now(inner, self.max) {
                Ok(taken) if taken.is_empty() => {
                    let ticket = inner.fx.ticket(self.ticket);
                    self.ticket = Some(ticket);
                    inner.topics.wait(&consumer.recipient, ticket, cx.waker());
                    Poll::Pending
                }
                answer => Poll::Ready(answer),
            }
        });
        // Its runtime may have ended just before this waiter was queued, and so have woken all but this one.
        timer::ensure(consumer.store.shared())?;
        answer
    }
}

impl Drop for Next<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let recipient = &self.consumer.recipient;
            self.consumer.store.with(|inner| inner.topics.stop_waiting(recipient, ticket, &mut inner.fx));
        }
    }
}
