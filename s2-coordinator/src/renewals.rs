//! Renewing what is held.
//!
//! One task for each session, however many tasks that has: it sleeps until the first claim has used up a third of its lease
//! and renews all that are due in one call. It keeps nothing alive; it ends with the session.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::clock::either;
use crate::error::Error;
use crate::lease::{Grant, Lease, Token};
use crate::scheduler::Scheduler;
use crate::time::Timestamp;

/// How long to wait before renewing again after the backend has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How many claims are renewed in one call, unless the fleet allows fewer.
const TOGETHER: usize = 500;

#[derive(Debug, Default)]
pub(crate) struct Renewals {
    kept: Mutex<Kept>,
    changed: Notify,
}

#[derive(Debug)]
struct Kept {
    /// When each claim is to be renewed.
    due: BTreeSet<(Timestamp, Lease)>,
    leases: HashMap<Token, (Timestamp, Duration)>,
    is_running: bool,
    is_closed: bool,
    together: usize,
}

impl Default for Kept {
    fn default() -> Self {
        let (due, leases) = (BTreeSet::new(), HashMap::new());
        Self { due, leases, is_running: false, is_closed: false, together: TOGETHER }
    }
}

impl Kept {
    fn set(&mut self, lease: Lease, at: Timestamp, every: Duration) {
        if let Some((before, _)) = self.leases.insert(lease.token, (at, every)) {
            self.due.remove(&(before, lease));
        }
        self.due.insert((at, lease));
    }

    fn remove(&mut self, lease: Lease) {
        if let Some((at, _)) = self.leases.remove(&lease.token) {
            self.due.remove(&(at, lease));
        }
    }
}

impl Renewals {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a claim until it is forgotten.
    ///
    /// Fails without a runtime.
    pub(crate) fn keep(self: &Arc<Self>, scheduler: &Arc<dyn Scheduler>, grant: &Grant) -> Result<(), Error> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let every = grant.task.lease / 3;
        let mut kept = self.lock();
        kept.set(grant.lease, scheduler.clock().now() + every, every);
        let was_running = std::mem::replace(&mut kept.is_running, true);
        // A runtime that ends drops what is spawned at once, and that takes the lock.
        drop(kept);
        if !was_running {
            runtime.spawn(renew(Arc::downgrade(scheduler), Running(Arc::clone(self))));
        }
        self.changed.notify_one();
        Ok(())
    }

    pub(crate) fn forget(&self, lease: Lease) {
        self.lock().remove(lease);
    }

    /// When something is to be renewed next.
    fn next(&self) -> Timestamp {
        self.lock().due.first().map_or(Timestamp::MAX, |(at, _)| *at)
    }

    fn due(&self, now: Timestamp) -> Vec<Lease> {
        let kept = self.lock();
        kept.due.iter().take_while(|(at, _)| *at <= now).take(kept.together).map(|(_, lease)| *lease).collect()
    }

    async fn renew(&self, scheduler: &dyn Scheduler) {
        let now = scheduler.clock().now();
        let due = self.due(now);
        if due.is_empty() {
            return;
        }
        let answers = scheduler.renew(&due).await;
        if let Err(Error::LimitExceeded { max, .. }) = answers {
            // The fleet allows fewer in one call.
            self.lock().together = usize::try_from(max).unwrap_or(1).max(1);
            return;
        }
        let mut kept = self.lock();
        for (nth, lease) in due.into_iter().enumerate() {
            let Some(&(_, every)) = kept.leases.get(&lease.token) else { continue };
            match answers.as_ref().map(|answers| answers.get(nth)) {
                Ok(Some(Ok(_))) => kept.set(lease, now + every, every),
                Ok(Some(Err(Error::StaleLease { .. }))) => kept.remove(lease),
                Ok(_) | Err(_) => kept.set(lease, now + PAUSE.min(every), every),
            }
        }
    }

    /// Ends the task when the session is gone.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }
}

/// Says that the task has ended, also when its runtime was shut down.
struct Running(Arc<Renewals>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().is_running = false;
    }
}

async fn renew(scheduler: Weak<dyn Scheduler>, running: Running) {
    let renewals = &running.0;
    while let Some(strong) = scheduler.upgrade()
        && !renewals.lock().is_closed
    {
        renewals.renew(&*strong).await;
        let clock = strong.clock();
        drop(strong);
        either(renewals.changed.notified(), clock.sleep_until(renewals.next())).await;
    }
}
