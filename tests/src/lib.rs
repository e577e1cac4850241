//! What the tests of S² have in common: fleets to test, servers and processes to break.

mod spawner;

pub mod chaos;
pub mod proxy;
pub mod redis;
pub mod servers;
pub mod workers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use s2_coordinator::conformance::{Backend, Fleet};
use s2_coordinator::{Config, EventBus, Inbox, Journal, ManualClock, MemoryStore, Scheduler, Timestamp};
use s2_governor::conformance as ledgers;
use s2_governor::{BudgetLedger, LedgerSettings, MemoryLedger};

/// 2025-11-12T09:00:00Z: where the clocks of the tests begin.
pub const START: Timestamp = Timestamp::from_micros(1_762_938_000_000_000);

/// How often to do something: `reduced` on every change, `full` with `tests/run.sh --full`.
#[must_use]
pub fn counts(reduced: u32, full: u32) -> u32 {
    if std::env::var_os("S2_FULL").is_some() { full } else { reduced }
}

/// The folder with data from outside, if `S2_DATA` names one; says so if not.
///
/// # Panics
///
/// When it names something that is no folder: then a test must not pass without it.
#[must_use]
pub fn data() -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("S2_DATA").map(PathBuf::from) else {
        println!("S2_DATA is not set: this test has no data and checks nothing");
        return None;
    };
    assert!(folder.is_dir(), "S2_DATA names {}, which is no folder", folder.display());
    Some(folder)
}

/// Fleets in memory, on clocks that stand still until a test moves them.
#[derive(Clone, Copy, Debug)]
pub struct Memory;

/// A fleet in memory and its clock.
#[derive(Debug)]
pub struct MemoryFleet {
    /// The fleet.
    pub store: MemoryStore,
    /// Its clock.
    pub clock: Arc<ManualClock>,
}

impl MemoryFleet {
    /// A fleet whose ids and jitter repeat.
    ///
    /// # Panics
    ///
    /// When the configuration is not valid.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let builder = MemoryStore::builder().with_config(config).with_seed(7);
        Self { store: builder.with_clock(Arc::clone(&clock)).build().expect("a valid configuration"), clock }
    }
}

#[async_trait]
impl Backend for Memory {
    async fn fleet(&self, config: Config) -> Box<dyn Fleet> {
        Box::new(MemoryFleet::new(config))
    }
}

#[async_trait]
impl Fleet for MemoryFleet {
    fn bus(&self) -> Arc<dyn EventBus> {
        Arc::new(self.store.bus())
    }

    fn scheduler(&self) -> Option<Arc<dyn Scheduler>> {
        Some(Arc::new(self.store.scheduler()))
    }

    fn inbox(&self) -> Option<Arc<dyn Inbox>> {
        Some(Arc::new(self.store.inbox()))
    }

    fn journal(&self) -> Option<Arc<dyn Journal>> {
        Some(Arc::new(self.store.journal()))
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

#[async_trait]
impl ledgers::Backend for Memory {
    async fn fleet(&self) -> Box<dyn ledgers::Fleet> {
        Box::new(MemoryFleet::new(Config::default()))
    }
}

#[async_trait]
impl ledgers::Fleet for MemoryFleet {
    fn ledger(&self, settings: LedgerSettings) -> Arc<dyn BudgetLedger> {
        Arc::new(MemoryLedger::with_settings(&self.store, settings).expect("valid settings"))
    }

    fn inbox(&self) -> Arc<dyn Inbox> {
        Arc::new(self.store.inbox())
    }

    fn journal(&self) -> Arc<dyn Journal> {
        Arc::new(self.store.journal())
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

/// The README's quick start is a doctest.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
