//! Threads of one provider's own, for calls that block.
//!
//! A pool that providers share is exhausted by the one that hangs. Threads cost little until they are needed: they start one
//! by one, up to the limit, and end with their provider.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::provider::ProviderName;

type Job = Box<dyn FnOnce() + Send>;

/// Dropped, it ends its threads as soon as they have done what they do.
pub(crate) struct ProviderThreads {
    provider: ProviderName,
    most: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wanted: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    started: usize,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

impl ProviderThreads {
    pub(crate) fn new(provider: ProviderName, most: usize) -> Self {
        Self { provider, most, shared: Arc::default() }
    }

    /// Has a thread do it. It must not panic.
    pub(crate) fn run(&self, job: Job) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.jobs.push_back(job);
        if state.idle < state.jobs.len() && state.started < self.most {
            let (shared, number) = (Arc::clone(&self.shared), state.started + 1);
            let named = thread::Builder::new().name(format!("provider-{}-{number}", self.provider));
            match named.spawn(move || shared.work()) {
                Ok(_) => state.started = number,
                Err(error) if state.started == 0 => {
                    state.jobs.pop_back();
                    return Err(error);
                }
                // Those that there are will do it.
                Err(_) => {}
            }
        }
        drop(state);
        self.shared.wanted.notify_one();
        Ok(())
    }
}

impl fmt::Debug for ProviderThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { idle, started, .. } = &*self.shared.lock();
        f.debug_struct("ProviderThreads").field("started", started).field("idle", idle).finish_non_exhaustive()
    }
}

impl Drop for ProviderThreads {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wanted.notify_all();
    }
}
