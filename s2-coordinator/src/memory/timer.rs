//! What happens although nobody calls.
//!
//! A deadline that passes must wake whoever waits for the event, even when the consumer that held it is gone. One task
//! per store sleeps until the earliest deadline. It keeps nothing alive and decides nothing: each verb ends what is due
//! before it answers, so a late task changes no answer.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::error::Error;
use crate::memory::store::{Inner, Shared};
use crate::time::Timestamp;

/// The store's side of its timer task.
#[derive(Debug, Default)]
pub(super) struct Timer {
    running: bool,
    /// Until when the task sleeps.
    asleep_until: Timestamp,
}

impl Timer {
    /// Whether the task must be woken, since something is due earlier than it knows.
    pub(super) fn oversleeps(&mut self, due: Timestamp) -> bool {
        let oversleeps = self.running && due < self.asleep_until;
        if oversleeps {
            self.asleep_until = due;
        }
        oversleeps
    }
}

impl Inner {
    /// Ends everything that is due and answers with the time of the next deadline.
    fn sweep(&mut self) -> Timestamp {
        self.topics.sweep(&mut self.fx);
        let next = self.topics.next_due(&self.fx);
        self.timer.asleep_until = next;
        next
    }
}

/// Starts the task of a store, unless it runs.
pub(super) fn ensure(shared: &Arc<Shared>, inner: &mut Inner) -> Result<(), Error> {
    if inner.timer.running {
        return Ok(());
    }
    let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
    inner.timer = Timer { running: true, asleep_until: Timestamp::EPOCH };
    runtime.spawn(keep_time(Arc::downgrade(shared), Arc::clone(&shared.rearm)));
    Ok(())
}

async fn keep_time(store: Weak<Shared>, rearm: Arc<Notify>) {
    let _running = Running(Weak::clone(&store));
    while let Some(shared) = store.upgrade() {
        let due = shared.step(Inner::sweep);
        let clock = Arc::clone(&shared.clock);
        drop(shared);
        either(rearm.notified(), clock.sleep_until(due)).await;
    }
}

async fn either(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| match (one.as_mut().poll(cx), other.as_mut().poll(cx)) {
        (Poll::Pending, Poll::Pending) => Poll::Pending,
        _ => Poll::Ready(()),
    })
    .await;
}

/// Says that the task has ended, also when its runtime was shut down; the next call that waits starts another.
struct Running(Weak<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.step(|inner| inner.timer.running = false);
        }
    }
}
