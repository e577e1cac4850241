//! Making a fleet out of its parts.

use std::sync::Arc;

use s2_coordinator::MemoryStore;
#[cfg(feature = "redis")]
use s2_coordinator::{RedisStore, SwarmId};
use s2_governor::{MemoryBoard, MemoryLedger, Providers};
#[cfg(feature = "redis")]
use s2_governor::{RedisBoard, RedisLedger};

use crate::error::Error;
use crate::hooks::NoHooks;
use crate::hooks::RescueHooks;
use crate::s2::Made;
use crate::s2::S2;
use crate::settings::Settings;

/// A fleet that is to be built. All that it is made of comes from one store, so that it has one clock, one journal and one
/// atomic step.
#[derive(Debug)]
#[must_use = "a fleet does nothing until it is built"]
pub struct Builder {
    settings: Settings,
    hooks: Arc<dyn RescueHooks>,
}

impl Default for Builder {
    fn default() -> Self {
        Self { settings: Settings::default(), hooks: Arc::new(NoHooks) }
    }
}

impl Builder {
    /// Sets what is set in files.
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets what the host knows about its tasks.
    pub fn with_hooks(mut self, hooks: impl RescueHooks) -> Self {
        self.hooks = Arc::new(hooks);
        self
    }

    /// A fleet in this process. Limits are set, and providers isolated, as the settings say.
    ///
    /// # Errors
    ///
    /// As [`Settings::check`] and [`Providers::isolate`]; `S2_NO_RUNTIME` outside of one.
    ///
    /// # Cancel safety
    ///
    /// Repeating it is safe.
    pub async fn on_memory(self, store: &MemoryStore) -> Result<S2, Error> {
        self.settings.check()?;
        let ledger = MemoryLedger::with_settings(store, self.settings.budget.clone())?;
        self.build(in_memory(store, ledger)).await
    }

    /// A fleet on a Redis server, over all processes that use it. Limits are set, and providers isolated, as the settings say.
    ///
    /// # Errors
    ///
    /// As [`Settings::check`] and [`Providers::isolate`]; `S2_BACKEND`.
    ///
    /// # Cancel safety
    ///
    /// Repeating it is safe.
    #[cfg(feature = "redis")]
    pub async fn on_redis(self, store: &RedisStore) -> Result<S2, Error> {
        self.settings.check()?;
        let ledger = RedisLedger::with_settings(store, self.settings.budget.clone())?;
        let made = Made {
            scheduler: Arc::new(store.scheduler()),
            bus: Arc::new(store.bus()),
            journal: Arc::new(store.journal()),
            inbox: Arc::new(store.inbox()),
            ledger: Arc::new(ledger),
            providers: Providers::new(Arc::new(RedisBoard::new(store))),
        };
        self.build(made).await
    }

    async fn build(self, made: Made) -> Result<S2, Error> {
        for (name, settings) in &self.settings.providers {
            made.providers.isolate(name.clone(), settings.clone())?;
        }
        for (swarm, limit) in &self.settings.limits {
            made.ledger.set_limit(swarm, *limit).await?;
        }
        Ok(S2::new(made, self.settings, self.hooks))
    }
}

impl S2 {
    /// A fleet in this process, with every default.
    #[must_use]
    pub fn in_memory() -> Self {
        let store = MemoryStore::new();
        let made = in_memory(&store, MemoryLedger::new(&store));
        S2::new(made, Settings::default(), Arc::new(NoHooks))
    }

    /// The fleet `s2` on a Redis server, such as `redis://127.0.0.1`, with every default.
    ///
    /// # Errors
    ///
    /// As [`RedisStore::connect`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    #[cfg(feature = "redis")]
    pub async fn redis(url: &str) -> Result<Self, Error> {
        let store = RedisStore::connect(url, SwarmId::from_static("s2")).await?;
        Self::builder().on_redis(&store).await
    }

    /// A fleet with other settings, or on a store that is there.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

fn in_memory(store: &MemoryStore, ledger: MemoryLedger) -> Made {
    Made {
        scheduler: Arc::new(store.scheduler()),
        bus: Arc::new(store.bus()),
        journal: Arc::new(store.journal()),
        inbox: Arc::new(store.inbox()),
        ledger: Arc::new(ledger),
        providers: Providers::new(Arc::new(MemoryBoard::new(store))),
    }
}
