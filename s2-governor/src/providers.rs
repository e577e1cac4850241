//! Providers that fail alone: each has its own bulkhead and its own breaker.
//!
//! A provider that nobody has thought of has neither, and a call to it could take everything along. So it is refused: a host
//! names its providers.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, PoisonError, RwLock};

use s2_coordinator::{Invalid, Text};

use crate::board::Board;
use crate::breaker::CircuitBreaker;
use crate::bulkhead::{Bulkhead, Slot};
use crate::error::Error;
use crate::permit::Permit;
use crate::provider::ProviderName;
use crate::provider_settings::ProviderSettings;
use crate::refused::Refused;

/// Leave to ask a provider once, and the place that this takes meanwhile.
#[derive(Debug)]
#[must_use = "dropped, the call counts as not made"]
pub struct Admission {
    /// Wants to know what became of the call.
    pub permit: Permit,
    /// To be kept as long as the call takes.
    pub slot: Slot,
}

/// One provider, isolated from the others. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Provider {
    bulkhead: Bulkhead,
    breaker: CircuitBreaker,
}

impl Provider {
    /// How many calls at once.
    #[must_use]
    pub const fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    /// When to leave it alone.
    #[must_use]
    pub const fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
    }

    /// Waits for a turn, and asks then whether the provider may be asked: it may have failed meanwhile.
    ///
    /// # Errors
    ///
    /// [`Refused`] says why not, and when to come back.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn admit(&self) -> Result<Admission, Refused> {
        let slot = self.bulkhead.enter().await?;
        let permit = self.breaker.acquire().await?;
        Ok(Admission { permit, slot })
    }

    /// Makes a call if it may be made. An error counts as a failure of the provider: [`admit`](Self::admit) lets one tell
    /// more.
    ///
    /// # Errors
    ///
    /// [`Refused`] says why the call was not made. What the call itself answers is inside.
    ///
    /// # Cancel safety
    ///
    /// As that of the call, which does not count unless it was slow.
    pub async fn call<T, E: Display>(&self, call: impl Future<Output = Result<T, E>>) -> Result<Result<T, E>, Refused> {
        let Admission { permit, slot } = self.admit().await?;
        let answer = call.await;
        match &answer {
            Ok(_) => permit.success(),
            Err(error) => permit.failure(error.to_string()),
        }
        drop(slot);
        Ok(answer)
    }
}

/// The providers that this process may ask. Clones are the same ones.
///
/// ```
/// # use std::sync::Arc;
/// # use s2_coordinator::MemoryStore;
/// # use s2_governor::{MemoryBoard, ProviderName, ProviderSettings, Providers};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let providers = Providers::new(Arc::new(MemoryBoard::new(&store)));
/// providers.isolate(ProviderName::new("models")?, ProviderSettings::default())?;
///
/// let answer = providers.get("models")?.call(async { Ok::<_, std::io::Error>("hello") }).await?;
/// assert_eq!(answer?, "hello");
/// assert_eq!(providers.get("search").unwrap_err().code(), "S2_PROVIDER_NOT_ISOLATED");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Providers {
    board: Arc<dyn Board>,
    isolated: Arc<RwLock<BTreeMap<ProviderName, Isolated>>>,
}

#[derive(Debug)]
struct Isolated {
    provider: Provider,
    settings: ProviderSettings,
}

impl Providers {
    /// No provider yet, in the fleet of this board.
    #[must_use]
    pub fn new(board: Arc<dyn Board>) -> Self {
        Self { board, isolated: Arc::default() }
    }

    /// Isolates a provider. Repeating it with the same settings is safe.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for settings that are out of range, and for others than before; [`Error::Store`] when there is no
    /// runtime in which to hear of changes.
    pub fn isolate(&self, name: ProviderName, settings: ProviderSettings) -> Result<Provider, Error> {
        let mut isolated = self.isolated.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = isolated.get(&name) {
            if before.settings == settings {
                return Ok(before.provider.clone());
            }
            return Err(Invalid::new("provider", name.as_str(), "it is isolated already, with other settings").into());
        }
        let bulkhead = Bulkhead::new(name.clone(), settings.bulkhead.clone(), self.board.clock())?;
        let breaker = CircuitBreaker::new(Arc::clone(&self.board), name.clone(), settings.breaker.clone())?;
        let provider = Provider { bulkhead, breaker };
        isolated.insert(name, Isolated { provider: provider.clone(), settings });
        Ok(provider)
    }

    /// The provider of this name.
    ///
    /// # Errors
    ///
    /// [`Error::ProviderNotIsolated`], which names those that there are.
    pub fn get(&self, name: &str) -> Result<Provider, Error> {
        let isolated = self.isolated.read().unwrap_or_else(PoisonError::into_inner);
        isolated.get(name).map(|isolated| isolated.provider.clone()).ok_or_else(|| Error::ProviderNotIsolated {
            provider: Text::new(name),
            known: isolated.keys().cloned().collect(),
        })
    }

    /// All of them, in the order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<Provider> {
        let isolated = self.isolated.read().unwrap_or_else(PoisonError::into_inner);
        isolated.values().map(|isolated| isolated.provider.clone()).collect()
    }
}
