//! What happens although nobody calls.
//!
//! A deadline that passes must wake whoever waits for the event, even when the consumer that held it is gone. One task
//! per store sleeps until the earliest deadline. It keeps nothing alive and decides nothing: every step does first what
//! time has brought, so a late task changes no answer.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use tokio::runtime::Handle;

use crate::clock::either;
use crate::error::Error;
use crate::memory::store::Shared;

/// Starts the task of a store, unless it runs. Not within a step.
pub(super) fn ensure(store: &Arc<Shared>) -> Result<(), Error> {
    if store.keeps_time.load(Ordering::Acquire) {
        return Ok(());
    }
    let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
    if !store.keeps_time.swap(true, Ordering::AcqRel) {
        // Made here, not in the task: a runtime that ends may drop the task before its first poll.
        runtime.spawn(keep_time(Running(Arc::downgrade(store))));
    }
    Ok(())
}

async fn keep_time(running: Running) {
    while let Some(store) = running.0.upgrade() {
        let due = store.fall_asleep();
        let (clock, rearm) = (Arc::clone(&store.clock), Arc::clone(&store.rearm));
        drop(store);
        // There may be so much to do that it takes many steps.
        tokio::task::yield_now().await;
        either(rearm.notified(), clock.sleep_until(due)).await;
    }
}

/// Says that the task has ended, also when its runtime was shut down. Whoever waits on another runtime is woken, and
/// starts another task there.
struct Running(Weak<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        let Some(store) = self.0.upgrade() else { return };
        store.keeps_time.store(false, Ordering::Release);
        if !std::thread::panicking() {
            store.step(|inner| {
                inner.topics.wake_all(&mut inner.fx);
                inner.tasks.wake_all(&mut inner.fx);
                let tails = inner.fx.journal.tails.all(|_| true);
                inner.fx.wake(tails);
            });
        }
    }
}
