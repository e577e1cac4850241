//! The clock of a fleet on Redis, as one process sees it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::{Clock, SystemClock};
use crate::redis::store::{RedisStore, Shared};
use crate::time::Timestamp;

/// The longest single wait: after that the server's time may have been read anew.
const LONGEST_NAP: Duration = Duration::from_secs(15);

/// The server's time as it was at the last sign of life, carried on by this process's own measure of time.
#[derive(Debug)]
struct ServerClock {
    shared: Arc<Shared>,
    system: SystemClock,
    latest: AtomicU64,
}

impl RedisStore {
    /// The clock of this fleet: the server's, as this process last read it and has measured since, so that the clocks of
    /// processes need not agree. Where a test sets a clock, that one.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.shared.clock.clone().unwrap_or_else(|| {
            let (system, latest) = (SystemClock::new(), AtomicU64::new(0));
            Arc::new(ServerClock { shared: Arc::clone(&self.shared), system, latest })
        })
    }
}

#[async_trait]
impl Clock for ServerClock {
    fn now(&self) -> Timestamp {
        let read = *self.shared.read.lock().unwrap_or_else(PoisonError::into_inner);
        let now = read.map_or_else(|| self.system.now(), |(at, time)| time + at.elapsed()).as_micros();
        let latest = self.latest.fetch_max(now, Ordering::Relaxed);
        Timestamp::from_micros(now.max(latest))
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
