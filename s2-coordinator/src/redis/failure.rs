//! What can go wrong between here and the server.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::Error;

/// Why a call to the server failed; the source of [`Error::Backend`].
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{address} is not a Redis URL: {reason}")]
    Address { address: String, reason: String },
    #[error("Redis at {address} cannot be used: {reason}")]
    Unreachable { address: String, reason: String },
    #[error("Redis at {address} has version {version}; S² needs 7.0 or newer")]
    TooOld { address: String, version: String },
    #[error("Redis at {address} has maxmemory-policy {policy}, which may drop work; set it to noeviction")]
    Evicts { address: String, policy: String },
    #[error("Redis did not answer for {patience:?}: {reason}")]
    Silent { patience: Duration, reason: String },
    #[error("Redis has no memory left for {script}: {reason}")]
    Full { script: &'static str, reason: String },
    #[error("Redis refused the script {script}: {reason}")]
    Refused { script: &'static str, reason: String },
    #[error("the script {script} answered {answer}, which is not understood")]
    Unexpected { script: &'static str, answer: String },
}

impl Failure {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Silent { .. } | Self::Full { .. })
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Backend { retryable: failure.is_retryable(), source: Box::new(failure) }
    }
}

/// What to do about an error of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cure {
    /// The server does not have the library (any more).
    Load,
    /// Wait a little and try again.
    Wait,
    /// Connect anew and try again.
    Reconnect,
    /// It would fail again.
    Nothing,
}

pub(super) fn cure(error: &RedisError) -> Cure {
    match error.kind() {
        _ if error.to_string().contains("Function not found") => Cure::Load,
        ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown,
        ) => Cure::Wait,
        ErrorKind::Server(ServerErrorKind::ReadOnly) => Cure::Reconnect,
        // A script of somebody else has run for so long that the server refuses others; replicas are missing; the disk is
        // full: all of which passes.
        _ if matches!(error.code(), Some("BUSY" | "NOREPLICAS" | "MISCONF")) => Cure::Wait,
        ErrorKind::Server(_) | ErrorKind::Extension => Cure::Nothing,
        _ if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() => Cure::Reconnect,
        _ if error.is_unrecoverable_error() => Cure::Reconnect,
        _ => Cure::Nothing,
    }
}
