//! What can go wrong, named by outcome.

use s2_coordinator::{Invalid, Text};

use crate::money::NanoUsd;

/// Why a call did not do what was asked. A call that fails has changed nothing, unless the store failed: then it may or may not
/// have happened, and repeating it tells.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A word or a setting is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),

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
}

impl Error {
    /// A stable code for logs, metrics and other languages.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "S2_INVALID",
            Self::UnknownModel { .. } => "S2_UNKNOWN_MODEL",
            Self::AmountExceeded { .. } => "S2_AMOUNT_EXCEEDED",
            Self::Store(error) => error.code(),
        }
    }

    /// Whether the same call may succeed later without the caller changing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Invalid(_) | Self::UnknownModel { .. } | Self::AmountExceeded { .. } => false,
        }
    }
}
