//! Why a call that costs money has no answer.

use s2_governor::{BreakerOpen, BulkheadFull, Denied};

/// Why a call that costs money has no answer. Only [`Call`](Self::Call) was made; all others cost nothing.
#[derive(Debug, thiserror::Error)]
pub enum SpendError<E> {
    /// The money is not to be had.
    #[error("the money is not to be had")]
    Denied(#[source] Denied),
    /// The provider does not do well, and is left alone.
    #[error("the provider is left alone")]
    BreakerOpen(#[source] BreakerOpen),
    /// Too many calls to the provider are on their way already.
    #[error("the provider is busy")]
    BulkheadFull(#[source] BulkheadFull),
    /// Nobody has named this provider: it has neither bulkhead nor breaker.
    #[error("the provider is not isolated")]
    NotIsolated(#[source] s2_governor::Error),
    /// The ledger cannot be asked, so nothing was spent.
    #[error("the ledger cannot be asked")]
    Ledger(#[source] s2_governor::Error),
    /// The call was made, and failed.
    #[error("the call failed")]
    Call(#[source] E),
}

impl<E> SpendError<E> {
    /// A stable code for logs, metrics and other languages.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Denied(denied) => denied.code(),
            Self::BreakerOpen(_) => "S2_BREAKER_OPEN",
            Self::BulkheadFull(_) => "S2_BULKHEAD_FULL",
            Self::NotIsolated(error) | Self::Ledger(error) => error.code(),
            Self::Call(_) => "S2_CALL_FAILED",
        }
    }

    /// What the call has answered, if it was made.
    #[must_use]
    pub fn into_call(self) -> Option<E> {
        match self {
            Self::Call(error) => Some(error),
            _ => None,
        }
    }
}
