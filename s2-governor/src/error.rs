//! What can go wrong, named by outcome.

use s2_coordinator::Invalid;

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
}

impl Error {
    /// A stable code for logs, metrics and other languages.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "S2_INVALID",
            Self::Store(error) => error.code(),
        }
    }

    /// Whether the same call may succeed later without the caller changing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Invalid(_) => false,
        }
    }
}
