//! What can go wrong, named by outcome.

use s2_coordinator::{Invalid, Text};

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A word or a setting is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),

    /// The scheduler, the bus, the inbox or the store says no.
    #[error(transparent)]
    Coordinator(#[from] s2_coordinator::Error),

    /// The ledger or a provider says no.
    #[error(transparent)]
    Governor(#[from] s2_governor::Error),

    /// A person was asked, and somebody has cancelled the question.
    #[error("nobody has answered: {question}")]
    Unanswered {
        /// The question.
        question: Text,
    },

    /// The fleet is being shut down in this process.
    #[error("this process leaves the fleet: it takes up nothing new")]
    ShuttingDown,
}

impl Error {
    /// A stable code for logs, metrics and other languages.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "S2_INVALID",
            Self::Coordinator(error) => error.code(),
            Self::Governor(error) => error.code(),
            Self::Unanswered { .. } => "S2_UNANSWERED",
            Self::ShuttingDown => "S2_SHUTTING_DOWN",
        }
    }

    /// Whether the same call may succeed later without the caller changing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Coordinator(error) => error.is_retryable(),
            Self::Governor(error) => error.is_retryable(),
            Self::Invalid(_) | Self::Unanswered { .. } | Self::ShuttingDown => false,
        }
    }
}
