//! The places for tasks that a session has at once.

use std::sync::Arc;

use tokio::sync::watch;

/// The places for tasks that a session has at once. One that goes on after a wait takes its place in any case; so there may be more
/// than there should be, until somebody ends.
///
/// Why not a semaphore? Its permits cannot be taken above the limit, and who waits for a task has one already.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    taken: watch::Sender<usize>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Places>);

impl Places {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: watch::Sender::new(0) })
    }

    /// Waits for a free place.
    pub(crate) async fn take(self: &Arc<Self>) -> Place {
        let mut taken = self.taken.subscribe();
        while !self.taken.send_if_modified(|taken| (*taken < self.most).then(|| *taken += 1).is_some()) {
            // The sender lives as long as this.
            drop(taken.wait_for(|taken| *taken < self.most).await);
        }
        Place(Arc::clone(self))
    }

    /// Takes a place, free or not.
    pub(crate) fn take_anyway(self: &Arc<Self>) -> Place {
        self.taken.send_modify(|taken| *taken += 1);
        Place(Arc::clone(self))
    }

    /// Whether more are taken than there should be.
    pub(crate) fn is_overbooked(&self) -> bool {
        *self.taken.borrow() > self.most
    }

    /// Waits until more are taken than there should be: then whoever has one and no task yet gives it back.
    pub(crate) async fn overbooked(&self) {
        drop(self.taken.subscribe().wait_for(|taken| *taken > self.most).await);
    }

    /// How many there are.
    pub(crate) fn most(&self) -> usize {
        self.most
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.send_modify(|taken| *taken -= 1);
    }
}
