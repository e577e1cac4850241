//! Keeping what goes wrong with one provider away from the others.
//!
//! Why not one pool for all? A provider that hangs takes every place in it, one call after the other, and then nobody can ask
//! anybody. With places of its own it takes no more than these; who comes after waits in line, and if the line is full, hears
//! so at once instead of adding to it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use s2_coordinator::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::Error;
use crate::provider::ProviderName;
use crate::provider_settings::BulkheadSettings;
use crate::provider_threads::ProviderThreads;
use crate::refused::BulkheadFull;

/// The bulkhead of one provider in this process: so many calls at once, and a line in front of them, first come, first served.
/// Clones are the same one.
///
/// ```
/// # use std::sync::Arc;
/// # use s2_coordinator::SystemClock;
/// # use s2_governor::{Bulkhead, BulkheadSettings, ProviderName};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = Arc::new(SystemClock::new());
/// let models = Bulkhead::new(ProviderName::new("models")?, BulkheadSettings::default(), clock)?;
/// assert_eq!(models.call(async { 6 * 7 }).await?, 42);
///
/// let name = models.call_blocking(|| std::thread::current().name().map(str::to_owned)).await?;
/// assert_eq!(name.as_deref(), Some("provider-models-1"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Bulkhead {
    shared: Arc<Shared>,
}

struct Shared {
    provider: ProviderName,
    settings: BulkheadSettings,
    clock: Arc<dyn Clock>,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    threads: ProviderThreads,
}

/// A place among the calls that are on their way. Dropped, the next may begin.
#[derive(Debug)]
#[must_use = "dropped, the next may begin"]
pub struct Slot {
    _turn: OwnedSemaphorePermit,
}

/// A place in the line.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Bulkhead {
    /// A bulkhead for a provider; the clock tells for how long calls have waited.
    ///
    /// # Errors
    ///
    /// As [`BulkheadSettings::check`].
    pub fn new(provider: ProviderName, settings: BulkheadSettings, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        settings.check()?;
        let most = settings.concurrent as usize;
        let threads = ProviderThreads::new(provider.clone(), most);
        let (turns, waiting) = (Arc::new(Semaphore::new(most)), AtomicUsize::new(0));
        Ok(Self { shared: Arc::new(Shared { provider, settings, clock, turns, waiting, threads }) })
    }

    /// Whose bulkhead it is.
    #[must_use]
    pub fn provider(&self) -> &ProviderName {
        &self.shared.provider
    }

    /// How many calls, and how many wait.
    #[must_use]
    pub fn settings(&self) -> &BulkheadSettings {
        &self.shared.settings
    }

    /// How many calls are on their way.
    #[must_use]
    pub fn running(&self) -> usize {
        (self.shared.settings.concurrent as usize).saturating_sub(self.shared.turns.available_permits())
    }

    /// How many calls wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// Waits for a turn.
    ///
    /// # Errors
    ///
    /// [`BulkheadFull`] when the line is full, or this call has waited for too long.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the place in the line is free at once.
    pub async fn enter(&self) -> Result<Slot, BulkheadFull> {
        let Shared { settings, clock, turns, .. } = &*self.shared;
        if let Ok(turn) = Arc::clone(turns).try_acquire_owned() {
            return Ok(Slot { _turn: turn });
        }
        let _place = self.queue()?;
        let turn = Arc::clone(turns).acquire_owned();
        let Some(longest) = settings.longest_wait else {
            return turn.await.map(|turn| Slot { _turn: turn }).map_err(|_| self.full(Duration::ZERO));
        };
        let begun = clock.now();
        tokio::select! {
            biased;
            Ok(turn) = turn => Ok(Slot { _turn: turn }),
            () = clock.sleep_until(begun + longest) => Err(self.full(clock.now().since(begun))),
        }
    }

    fn queue(&self) -> Result<Place<'_>, BulkheadFull> {
        let (waiting, most) = (&self.shared.waiting, self.shared.settings.waiting as usize);
        let joined =
            waiting.try_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < most).then_some(count + 1));
        joined.map(|_| Place(waiting)).map_err(|_| self.full(Duration::ZERO))
    }

    fn full(&self, waited: Duration) -> BulkheadFull {
        let limit = self.shared.settings.waiting as usize;
        BulkheadFull { provider: self.provider().clone(), waiting: self.waiting(), limit, waited }
    }

    /// Runs a call once it is its turn.
    ///
    /// # Errors
    ///
    /// As [`enter`](Self::enter); the call has not begun then.
    ///
    /// # Cancel safety
    ///
    /// As that of the call; its place is free at once.
    pub async fn call<F: Future>(&self, call: F) -> Result<F::Output, BulkheadFull> {
        let _slot = self.enter().await?;
        Ok(call.await)
    }

    /// Runs a call that blocks, once it is its turn, on a thread of this provider's own, `provider-<name>-<n>`.
    ///
    /// # Errors
    ///
    /// As [`enter`](Self::enter); [`Error::CallPanicked`]; [`Error::NoThread`].
    ///
    /// # Cancel safety
    ///
    /// A call that waits is not made. One that has begun goes on, and keeps its place until it ends.
    pub async fn call_blocking<T, F>(&self, call: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let slot = self.enter().await?;
        let (answer, answered) = oneshot::channel();
        let job = move || {
            let result = catch_unwind(AssertUnwindSafe(call));
            drop(slot);
            // Nobody may wait for it any more.
            drop(answer.send(result));
        };
        let provider = || self.provider().clone();
        let started = self.shared.threads.run(Box::new(job));
        started.map_err(|source| Error::NoThread { provider: provider(), source })?;
        let panicked = |message| Error::CallPanicked { provider: provider(), message };
        let result = answered.await.map_err(|_| panicked("its thread has ended".to_owned()))?;
        result.map_err(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            panicked(text.unwrap_or_else(|| "it did not say why".to_owned()))
        })
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Bulkhead");
        debug.field("provider", self.provider()).field("running", &self.running());
        debug.field("waiting", &self.waiting()).field("threads", &self.shared.threads).finish_non_exhaustive()
    }
}
