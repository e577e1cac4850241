//! The one clock that decides.
//!
//! Deadlines are stored and compared with `now` of the store's clock; nothing else decides. Times that sessions
//! send are data. A host that wants to test hours in milliseconds hands the store a [`ManualClock`].

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::time::Timestamp;

/// Tells the time and waits for it.
///
/// # To ensure correctness
///
/// `now` never goes back. When `sleep_until(at)` returns, `now() >= at`.
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time.
    fn now(&self) -> Timestamp;

    /// Waits until `now() >= at`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    async fn sleep_until(&self, at: Timestamp);
}

/// The system's clock, held when it is set back.
#[derive(Debug, Default)]
pub struct SystemClock {
    latest: AtomicU64,
}

impl SystemClock {
    /// A clock that follows the system's.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// The longest single wait: after that the wall clock is read again, since it may have been set forward.
const LONGEST_NAP: Duration = Duration::from_secs(60);

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let micros = Timestamp::from(SystemTime::now()).as_micros();
        let latest = self.latest.fetch_max(micros, Ordering::Relaxed);
        Timestamp::from_micros(micros.max(latest))
    }

    async fn sleep_until(&self, at: Timestamp) {
        loop {
            let left = at.since(self.now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LONGEST_NAP)).await;
        }
    }
}

/// Waits for whichever comes first.
pub(crate) async fn either(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| match (one.as_mut().poll(cx), other.as_mut().poll(cx)) {
        (Poll::Pending, Poll::Pending) => Poll::Pending,
        _ => Poll::Ready(()),
    })
    .await;
}

#[cfg(feature = "test-util")]
pub use manual::ManualClock;

#[cfg(feature = "test-util")]
mod manual {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use tokio::sync::Notify;

    use super::{Clock, Debug, Duration, Timestamp, async_trait};

    /// A clock that stands still until a test moves it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use s2_coordinator::{Clock, ManualClock};
    ///
    /// let clock = ManualClock::new("2025-11-12T00:00:00Z".parse()?);
    /// clock.advance(Duration::from_secs(1800));
    /// assert_eq!(clock.now().to_string(), "2025-11-12T00:30:00Z");
    /// # Ok::<(), s2_coordinator::Invalid>(())
    /// ```
    #[derive(Debug)]
    pub struct ManualClock {
        now: Mutex<Timestamp>,
        advanced: Notify,
    }

    impl ManualClock {
        /// A clock that shows `start`.
        #[must_use]
        pub fn new(start: Timestamp) -> Self {
            Self { now: Mutex::new(start), advanced: Notify::new() }
        }

        /// Moves time forward and wakes who waited for it.
        pub fn advance(&self, by: Duration) {
            {
                let mut now = self.lock();
                *now = *now + by;
            }
            self.advanced.notify_waiters();
        }

        fn lock(&self) -> MutexGuard<'_, Timestamp> {
            self.now.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    #[async_trait]
    impl Clock for ManualClock {
        fn now(&self) -> Timestamp {
            *self.lock()
        }

        async fn sleep_until(&self, at: Timestamp) {
            loop {
                let mut advanced = std::pin::pin!(self.advanced.notified());
                advanced.as_mut().enable();
                if self.now() >= at {
                    return;
                }
                advanced.await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_clock_rises_and_waits() {
        let clock = SystemClock::new();
        let start = clock.now();
        clock.sleep_until(start + Duration::from_millis(5)).await;
        assert!(clock.now() >= start + Duration::from_millis(5));
    }

    #[test]
    fn a_clock_set_back_stands_still() {
        let clock = SystemClock { latest: AtomicU64::new(Timestamp::MAX.as_micros()) };
        assert_eq!(clock.now(), Timestamp::MAX);
        assert_eq!(clock.now(), Timestamp::MAX);
    }
}
