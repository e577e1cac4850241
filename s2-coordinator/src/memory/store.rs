//! One fleet in memory, and the one step in which anything changes.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use tokio::sync::Notify;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::entry::Record;
use crate::error::Error;
use crate::escalation::{NewEscalation, Raised};
use crate::event::{NewEvent, Position, Published};
use crate::memory::effects::Effects;
use crate::memory::tasks::Tasks;
use crate::memory::topics::Topics;
use crate::random::Random;
use crate::release::{LongestWaiter, Release};
use crate::time::Timestamp;

/// Everything a fleet has, behind one lock.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) fx: Effects,
    pub(super) topics: Topics,
    pub(super) tasks: Tasks,
    /// Until when the timer task sleeps.
    asleep_until: Timestamp,
}

impl Inner {
    /// Does what time has brought, in the order in which it brought it.
    fn catch_up(&mut self, now: Timestamp) {
        let now = self.fx.now.max(now);
        self.tasks.begin(&mut self.fx);
        while self.fx.due <= now {
            let due = self.fx.due;
            self.fx.now = self.fx.now.max(due);
            self.topics.sweep(&mut self.fx);
            self.tasks.sweep(&mut self.fx);
            self.fx.journal.trim(self.fx.now);
            let journal = self.fx.journal.aged_at().unwrap_or(Timestamp::MAX);
            self.fx.due = self.topics.next_due(&self.fx).min(self.tasks.next_due(&self.fx)).min(journal);
            if self.fx.due <= due {
                debug_assert!(due == Timestamp::MAX || self.tasks.is_behind(), "what was due is done");
                break;
            }
        }
        self.fx.now = now;
    }

    /// Does what follows from the step, and answers when the next one is needed.
    fn conclude(&mut self) -> Timestamp {
        self.tasks.conclude(&mut self.fx);
        if self.tasks.has_chores() { Timestamp::EPOCH } else { self.fx.due }
    }
}

pub(super) struct Shared {
    inner: Mutex<Inner>,
    pub(super) clock: Arc<dyn Clock>,
    config: Arc<Config>,
    /// What other parts of S² keep, one of each type.
    parts: Mutex<HashMap<TypeId, Box<dyn Any + Send + Sync>>>,
    /// Whether the timer task runs, and what wakes it.
    pub(super) keeps_time: AtomicBool,
    pub(super) rearm: Arc<Notify>,
}

impl Shared {
    /// Runs one step: under the lock, at one point in time, after everything that was due by then. Who was woken by it
    /// runs after the lock is free.
    pub(super) fn step<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.catch_up(self.clock.now());
        let result = act(&mut inner);
        let needed = inner.conclude();
        let oversleeps = needed < inner.asleep_until;
        if oversleeps {
            inner.asleep_until = needed;
        }
        let wakers = std::mem::take(&mut inner.fx.wakers);
        drop(inner);
        if oversleeps {
            self.rearm.notify_one();
        }
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    /// Answers until when the timer task may sleep.
    pub(super) fn fall_asleep(&self) -> Timestamp {
        self.step(|inner| {
            inner.asleep_until = inner.conclude();
            inner.asleep_until
        })
    }
}

impl fmt::Debug for Shared {
    /// Says what it is and nothing of what is in it: payloads are other sessions' business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.rearm.notify_one();
    }
}

/// A fleet in one process. Clones are the same fleet.
///
/// It lives and dies with the process: consumers may crash, but what the process held is gone when it ends.
///
/// Everything lies behind one lock, and every mutation is one [`Step`]: that makes batches atomic, keeps the journal honest
/// and lets nobody observe half a change. Before a step, everything happens that was due by then (of tasks, 1,000 at most; then
/// the next step goes on); so deadlines do not depend on when somebody calls. It is also the model: other backends must give
/// the same answers to the same history.
///
/// ```
/// use s2_coordinator::{MemoryStore, Record};
///
/// let store = MemoryStore::new();
/// let position = store.step(|step| step.journal(Record::new("host", "started", "demo")));
/// assert_eq!(position.get(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty fleet with the defaults of [`Config`], on the system's clock.
    #[must_use]
    pub fn new() -> Self {
        // The defaults are in order.
        Self::builder().open()
    }

    /// An empty fleet with settings of its own.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder { config: Config::default(), clock: None, seed: None, release: Arc::new(LongestWaiter) }
    }

    /// The clock that decides.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Changes the fleet in one step: nobody sees a part of it. Parts of S² that keep state of their own change it
    /// inside, too, so that it moves together with the journal, the topics and the inbox.
    ///
    /// There is no rollback: check everything before the first write. A step must be short, must not wait and must not
    /// begin another step, which would wait for this one forever.
    pub fn step<R>(&self, act: impl FnOnce(&mut Step<'_>) -> R) -> R {
        self.with(|inner| act(&mut Step { inner }))
    }

    /// What another part of S² keeps in this fleet: one value of each type, in the beginning its default.
    #[must_use]
    pub fn part<T: Any + Default + Send>(&self) -> Part<T> {
        let mut parts = self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let part = parts.entry(TypeId::of::<T>()).or_insert_with(|| Box::new(Arc::new(Mutex::new(T::default()))));
        let state = part.downcast_ref::<Arc<Mutex<T>>>().map(Arc::clone).unwrap_or_default();
        Part { store: self.clone(), state }
    }

    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> R {
        self.shared.step(act)
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// State that lies in a fleet beside its own and changes together with it. Clones are the same state.
///
/// ```
/// use s2_coordinator::{MemoryStore, Record};
///
/// let store = MemoryStore::new();
/// let doors = store.part::<Vec<&str>>();
/// doors.step(|step, doors| {
///     doors.push("front");
///     step.journal(Record::new("host", "door", "front"));
/// });
/// assert_eq!(store.part::<Vec<&str>>().step(|_, doors| doors.len()), 1);
/// ```
#[derive(Debug)]
pub struct Part<T> {
    store: MemoryStore,
    state: Arc<Mutex<T>>,
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), state: Arc::clone(&self.state) }
    }
}

impl<T> Part<T> {
    /// The fleet that it is a part of.
    #[must_use]
    pub const fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// One step of the fleet that changes this state, too: as [`MemoryStore::step`].
    pub fn step<R>(&self, act: impl FnOnce(&mut Step<'_>, &mut T) -> R) -> R {
        // It is locked in steps only, of which there is one at a time.
        self.store.step(|step| act(step, &mut self.state.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// What a step can do.
#[derive(Debug)]
pub struct Step<'a> {
    inner: &'a mut Inner,
}

impl Step<'_> {
    /// The time of this step. It does not move within the step and never goes back.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.inner.fx.now
    }

    /// Where ids and jitter come from.
    pub const fn random(&mut self) -> &mut Random {
        &mut self.inner.fx.random
    }

    /// Keeps a record of what this step changes.
    pub fn journal(&mut self, record: Record) -> Position {
        self.inner.fx.journal(record)
    }

    /// Publishes a batch, all of it or nothing.
    ///
    /// # Errors
    ///
    /// As [`EventBus::publish`](crate::EventBus::publish). After an error nothing was written: the step may go on.
    pub fn publish(&mut self, events: &[NewEvent]) -> Result<Vec<Published>, Error> {
        self.inner.topics.publish(events, &mut self.inner.fx)
    }

    /// Wakes a task when the step is over.
    pub fn wake(&mut self, waker: Waker) {
        self.inner.fx.wake([waker]);
    }

    /// Raises an escalation, or counts it where one with its key is pending.
    ///
    /// # Errors
    ///
    /// As [`Inbox::escalate`](crate::Inbox::escalate). After an error nothing was written: the step may go on.
    pub fn escalate(&mut self, escalation: NewEscalation) -> Result<Raised, Error> {
        self.inner.fx.escalate(escalation)
    }
}

/// Settings of a [`MemoryStore`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct MemoryStoreBuilder {
    config: Config,
    clock: Option<Arc<dyn Clock>>,
    seed: Option<u64>,
    release: Arc<dyn Release>,
}

impl MemoryStoreBuilder {
    /// Sets how the fleet behaves.
    pub fn with_config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets the clock that decides; the system's clock unless set.
    pub fn with_clock(mut self, clock: Arc<impl Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Makes ids and jitter repeatable. For tests: two fleets with one seed give the same ids.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets who gives way when tasks wait for each other: [`LongestWaiter`] unless set.
    pub fn with_release(mut self, release: impl Release) -> Self {
        self.release = Arc::new(release);
        self
    }

    /// An empty fleet.
    ///
    /// # Errors
    ///
    /// As [`Config::check`].
    pub fn build(self) -> Result<MemoryStore, Error> {
        self.config.check()?;
        Ok(self.open())
    }

    fn open(self) -> MemoryStore {
        let config = Arc::new(self.config);
        let random = self.seed.map_or_else(Random::from_system, Random::from_seed);
        let inner = Inner {
            fx: Effects::new(Arc::clone(&config), random, self.release),
            topics: Topics::default(),
            tasks: Tasks::default(),
            asleep_until: Timestamp::EPOCH,
        };
        let shared = Shared {
            inner: Mutex::new(inner),
            clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock::new())),
            config,
            parts: Mutex::default(),
            keeps_time: AtomicBool::new(false),
            rearm: Arc::new(Notify::new()),
        };
        MemoryStore { shared: Arc::new(shared) }
    }
}
