//! What can go wrong, named by outcome.

use s2_coordinator::{IdempotencyKey, Invalid, SwarmId, Text, UtcDay};

use crate::money::NanoUsd;
use crate::provider::ProviderName;
use crate::refused::{BreakerOpen, BulkheadFull, Refused};

/// Why a call did not do what was asked. A call that fails has changed nothing, unless the store failed: then it may or may not
/// have happened, and repeating it under the same key tells.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A word or a setting is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),

    /// Something is larger, longer or more than the limit of that name in the settings.
    #[error("{what} has {actual}, the limit {limit} is {max}")]
    LimitExceeded {
        /// The limit's name.
        limit: &'static str,
        /// What exceeded it.
        what: String,
        /// Its size.
        actual: u64,
        /// The limit's value.
        max: u64,
    },

    /// The account has spent what it may spend.
    #[error("account {swarm} has spent {spent} of {limit}")]
    BudgetExceeded {
        /// The account.
        swarm: SwarmId,
        /// What it has spent.
        spent: NanoUsd,
        /// What it may spend.
        limit: NanoUsd,
    },

    /// The key belongs to a spend that says something else.
    #[error("key {:?} belongs to {original}", .key.as_str())]
    SpendConflict {
        /// The key.
        key: IdempotencyKey,
        /// What was done under it.
        original: String,
    },

    /// The reservation was settled before, at another cost.
    #[error("reservation {:?} was settled before, at {actual}", .key.as_str())]
    AlreadySettled {
        /// Its key.
        key: IdempotencyKey,
        /// At what cost.
        actual: NanoUsd,
    },

    /// The reservation is over, so that it cannot last longer.
    #[error("reservation {:?} is {how}", .key.as_str())]
    ReservationEnded {
        /// Its key.
        key: IdempotencyKey,
        /// How it has ended.
        how: &'static str,
    },

    /// The ledger knows of no such reservation, or has forgotten how it ended: it was settled long ago, or what was presumed of
    /// it is final.
    #[error("there is no reservation {:?}", .key.as_str())]
    UnknownReservation {
        /// Its key.
        key: IdempotencyKey,
    },

    /// The accounts of that day are forgotten.
    #[error("the accounts of {day} are forgotten; the oldest are of {oldest}")]
    NotRetained {
        /// The day.
        day: UtcDay,
        /// The oldest day that is kept.
        oldest: UtcDay,
    },

    /// The price table does not say what a model costs. A guess would be a budget that does not hold.
    #[error("the price table has no model {model:?} and no alias of that name")]
    UnknownModel {
        /// The model.
        model: Text,
    },

    /// An amount is more than [`NanoUsd::MAX`].
    #[error("{what} comes to {nanos} nano-dollars, the limit NanoUsd::MAX is {}", NanoUsd::MAX.as_nanos())]
    AmountExceeded {
        /// What exceeded it.
        what: String,
        /// The amount, in billionths of a dollar.
        nanos: u128,
    },

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
            Self::LimitExceeded { .. } => "S2_LIMIT_EXCEEDED",
            Self::BudgetExceeded { .. } => "S2_BUDGET_EXCEEDED",
            Self::SpendConflict { .. } => "S2_SPEND_CONFLICT",
            Self::AlreadySettled { .. } => "S2_ALREADY_SETTLED",
            Self::ReservationEnded { .. } => "S2_RESERVATION_ENDED",
            Self::UnknownReservation { .. } => "S2_UNKNOWN_RESERVATION",
            Self::NotRetained { .. } => "S2_NOT_RETAINED",
            Self::UnknownModel { .. } => "S2_UNKNOWN_MODEL",
            Self::AmountExceeded { .. } => "S2_AMOUNT_EXCEEDED",
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
            _ => false,
        }
    }
}
