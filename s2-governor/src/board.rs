//! Where the processes of a fleet agree on what they think of providers.
//!
//! Calls are counted where they are made, so that none costs a round trip. Only what changes a verdict goes to the board: it
//! holds the latest of each provider, under a version, and replaces it if nobody else has meanwhile. What a change is, is
//! decided in one place and not by the board, so a board is a small thing.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use s2_coordinator::{Clock, Record, Timestamp};
use tokio::sync::watch;

use crate::error::Error;
use crate::provider::ProviderName;
use crate::verdict::Verdict;

/// What a fleet thinks of a provider, and which version of that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versioned {
    /// Rises with each change, also beyond the loss of what the store held; zero in the beginning.
    pub version: u64,
    /// The verdict.
    pub verdict: Verdict,
}

/// What became of an attempt to change a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// It holds, under this version.
    Done(u64),
    /// Somebody else was faster: this holds instead.
    Conflict(Versioned),
}

/// The verdicts of a fleet.
///
/// # To ensure correctness
///
/// A verdict and the record of it change in one step. A version belongs to one verdict. After a change, what
/// [`changes`](Self::changes) gave in any process rises, and so it does when a change may have been missed.
#[async_trait]
pub trait Board: Debug + Send + Sync + 'static {
    /// What holds.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the store stays away for longer than a call may wait.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn read(&self, provider: &ProviderName) -> Result<Versioned, Error>;

    /// Changes what holds, if its version is still the `expected` one, and journals the record. Atomic.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the store stays away for longer than a call may wait: then it may or may not have happened.
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; [`read`](Self::read) tells.
    async fn swap(
        &self,
        provider: &ProviderName,
        expected: u64,
        verdict: &Verdict,
        record: Option<Record>,
    ) -> Result<Swapped, Error>;

    /// Journals a record about a provider unless one was journalled here within the last `every`, by any process: then it
    /// answers when to come back, and nothing has happened.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the store stays away for longer than a call may wait: then it may or may not have happened.
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened.
    async fn note(&self, provider: &ProviderName, record: Record, every: Duration) -> Result<Option<Timestamp>, Error>;

    /// A number that rises when what holds for a provider may have changed.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when there is no runtime in which to hear of it.
    fn changes(&self, provider: &ProviderName) -> Result<watch::Receiver<u64>, Error>;

    /// The clock that decides.
    fn clock(&self) -> Arc<dyn Clock>;
}
