//! Who waits for what.
//!
//! A waiter registers under the lock under which it found nothing, so nothing can happen in between. It is woken one
//! at a time and only when it can take what is there: a thousand idle consumers cost nothing.

use std::collections::BTreeMap;
use std::task::Waker;

/// A place in a queue; no two of a fleet are the same, since a queue may be forgotten and made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(pub(super) u64);

/// Waiters in the order in which they came, each with the id of the consumer it waits for.
#[derive(Debug, Default)]
pub(super) struct WaitList {
    waiting: BTreeMap<Ticket, (u64, Waker)>,
}

impl WaitList {
    /// Queues a waiter, or renews the waker of one that is queued.
    pub(super) fn register(&mut self, ticket: Ticket, consumer: u64, waker: &Waker) {
        self.waiting.insert(ticket, (consumer, waker.clone()));
    }

    /// Removes a waiter and says whether it was still queued; one that was not, has been woken.
    pub(super) fn remove(&mut self, ticket: Ticket) -> bool {
        self.waiting.remove(&ticket).is_some()
    }

    /// The place of the longest waiter whose consumer qualifies.
    pub(super) fn ticket(&self, qualifies: impl Fn(u64) -> bool) -> Option<Ticket> {
        self.waiting.iter().find(|(_, (consumer, _))| qualifies(*consumer)).map(|(ticket, _)| *ticket)
    }

    /// Removes a waiter that is to be woken.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Waker> {
        self.waiting.remove(&ticket).map(|(_, waker)| waker)
    }

    /// Removes the longest waiter whose consumer qualifies.
    pub(super) fn first(&mut self, qualifies: impl Fn(u64) -> bool) -> Option<Waker> {
        self.take(self.ticket(qualifies)?)
    }

    /// Removes all waiters whose consumer qualifies.
    pub(super) fn all(&mut self, qualifies: impl Fn(u64) -> bool) -> Vec<Waker> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let woken = self.waiting.extract_if(.., |_, (consumer, _)| qualifies(*consumer));
        woken.map(|(_, (_, waker))| waker).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
