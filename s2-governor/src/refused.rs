//! Why a provider may not be asked now.

use std::fmt;
use std::time::Duration;

use s2_coordinator::Timestamp;

use crate::provider::ProviderName;

/// Why a breaker refuses a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WhyOpen {
    /// Too many calls failed or were slow.
    Tripped,
    /// It is tried whether the provider is back, by as many calls as may.
    Probing,
    /// The provider asked for patience.
    CoolingDown,
    /// A person said so.
    Forced,
    /// A probe is due, and the store that counts them cannot be reached.
    StoreAway,
}

impl fmt::Display for WhyOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tripped => "too many calls failed or were slow",
            Self::Probing => "it is being tried whether it is back",
            Self::CoolingDown => "it asked for patience",
            Self::Forced => "a person said so",
            Self::StoreAway => "the store that counts probes cannot be reached",
        })
    }
}

/// A breaker refuses a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("provider {provider} is not to be asked{}: {reason}", .until.map(|until| format!(" until {until}")).unwrap_or_default())]
pub struct BreakerOpen {
    /// The provider.
    pub provider: ProviderName,
    /// When to come back, by the store's clock. Nobody knows while a person has forced it.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: WhyOpen,
}

/// A bulkhead refuses a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("provider {provider} is busy: {waiting} calls wait, the limit is {limit}{}", gave_up(.waited))]
pub struct BulkheadFull {
    /// The provider.
    pub provider: ProviderName,
    /// How many calls wait.
    pub waiting: usize,
    /// How many may.
    pub limit: usize,
    /// How long this one has waited: zero if there was no room to wait.
    pub waited: Duration,
}

fn gave_up(waited: &Duration) -> String {
    if waited.is_zero() { String::new() } else { format!("; this one gave up after {waited:?}") }
}

/// Why a provider may not be asked now: the call has not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many calls are on their way already.
    #[error(transparent)]
    BulkheadFull(#[from] BulkheadFull),
    /// The provider does not do well.
    #[error(transparent)]
    BreakerOpen(#[from] BreakerOpen),
}
