//! What can go wrong, named by outcome.

use s2_coordinator::{Invalid, Text};

use crate::provider::ProviderName;
use crate::refused::{BreakerOpen, BulkheadFull, Refused};

/// Why a call did not do what was asked. A call that fails has changed nothing, unless the store failed: then it may or may not
/// have happened, and repeating it tells.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A word or a setting is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),

    /// The store of the fleet said no.
    #[error(transparent)]
    Store(#[from] s2_coordinator::Error),

    /// A call to a provider that has no bulkhead and no breaker.
    #[error("provider {provider:?} is not isolated; isolated are: {}", list(.known))]
    ProviderNotIsolated {
        /// The provider that was asked for.
        provider: Text,
        /// Those that there are.
        known: Vec<ProviderName>,
    },

    /// Too many calls to a provider are on their way.
    #[error(transparent)]
    BulkheadFull(#[from] BulkheadFull),

    /// A provider does not do well.
    #[error(transparent)]
    BreakerOpen(#[from] BreakerOpen),

    /// A blocking call to a provider panicked.
    #[error("a call to provider {provider} panicked: {message}")]
    CallPanicked {
        /// The provider.
        provider: ProviderName,
        /// What it said.
        message: String,
    },

    /// The system gave a provider no thread for its calls.
    #[error("provider {provider} got no thread")]
    NoThread {
        /// The provider.
        provider: ProviderName,
        /// Why.
        source: std::io::Error,
    },
}

fn list(names: &[ProviderName]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(ProviderName::as_str).collect::<Vec<_>>().join(", ")
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::BulkheadFull(full) => full.into(),
            Refused::BreakerOpen(open) => open.into(),
        }
    }
}

impl Error {
    /// A stable code for logs, metrics and other languages.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "S2_INVALID",
            Self::Store(error) => error.code(),
            Self::ProviderNotIsolated { .. } => "S2_PROVIDER_NOT_ISOLATED",
            Self::BulkheadFull(_) => "S2_BULKHEAD_FULL",
            Self::BreakerOpen(_) => "S2_BREAKER_OPEN",
            Self::CallPanicked { .. } => "S2_CALL_PANICKED",
            Self::NoThread { .. } => "S2_NO_THREAD",
        }
    }

    /// Whether the same call may succeed later without the caller changing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::BulkheadFull(_) | Self::BreakerOpen(_) | Self::NoThread { .. } => true,
            Self::Invalid(_) | Self::ProviderNotIsolated { .. } | Self::CallPanicked { .. } => false,
        }
    }
}
