//! One bus of a fleet, which can be closed on its own.

use std::sync::atomic::{AtomicBool, Ordering};

/// What everything that one bus handed out has in common.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) id: u64,
    closed: AtomicBool,
}

impl Handle {
    pub(super) const fn new(id: u64) -> Self {
        Self { id, closed: AtomicBool::new(false) }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
