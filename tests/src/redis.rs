//! Fleets on a Redis server of the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use s2_coordinator::conformance::{Backend, Fleet};
use s2_coordinator::{Config, EventBus, Inbox, Journal, ManualClock, RedisStore, Scheduler, SwarmId};
use s2_governor::conformance as ledgers;
use s2_governor::{BudgetLedger, LedgerSettings, RedisLedger};

use crate::START;
use crate::servers::RedisServer;

/// Fleets on one server, on clocks that stand still until a test moves them.
#[derive(Clone, Debug)]
pub struct Redis {
    server: Arc<RedisServer>,
}

impl Redis {
    /// Fleets on `server`.
    #[must_use]
    pub fn on(server: Arc<RedisServer>) -> Self {
        Self { server }
    }

    /// Fleets on a server that keeps nothing when it ends.
    #[must_use]
    pub fn volatile() -> Self {
        Self::on(Arc::new(RedisServer::start_volatile()))
    }
}

/// A fleet on Redis and its clock.
#[derive(Debug)]
pub struct RedisFleet {
    /// The fleet.
    pub store: RedisStore,
    /// Its clock.
    pub clock: Arc<ManualClock>,
    /// Its name.
    pub name: SwarmId,
}

/// A name that no other fleet of this process has.
#[must_use]
#[allow(clippy::missing_panics_doc, reason = "a letter, a hyphen and digits are a valid name")]
pub fn unique_name() -> SwarmId {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    SwarmId::new(format!("fleet-{number}")).expect("a valid name")
}

/// How many members of the group under this key wait, as far as the server knows.
#[must_use]
pub fn waiting(server: &RedisServer, key: &str) -> usize {
    server.command(&["HSTRLEN", key, "queue"]).parse::<usize>().map_or(0, |bytes| bytes / 7)
}

impl RedisFleet {
    /// A fleet whose ids and jitter repeat.
    ///
    /// # Panics
    ///
    /// When the configuration is not valid or the server cannot be reached.
    pub async fn new(server: &RedisServer, config: Config) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let name = unique_name();
        let builder = RedisStore::builder(name.clone()).with_config(config).with_seed(7);
        let store = builder.with_clock(Arc::clone(&clock)).connect(&server.url()).await.expect("a fleet");
        Self { store, clock, name }
    }
}

#[async_trait]
impl Backend for Redis {
    async fn fleet(&self, config: Config) -> Box<dyn Fleet> {
        Box::new(RedisFleet::new(&self.server, config).await)
    }
}

#[async_trait]
impl Fleet for RedisFleet {
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
impl ledgers::Backend for Redis {
    async fn fleet(&self) -> Box<dyn ledgers::Fleet> {
        Box::new(RedisFleet::new(&self.server, Config::default()).await)
    }
}

#[async_trait]
impl ledgers::Fleet for RedisFleet {
    fn ledger(&self, settings: LedgerSettings) -> Arc<dyn BudgetLedger> {
        Arc::new(RedisLedger::with_settings(&self.store, settings).expect("valid settings"))
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
