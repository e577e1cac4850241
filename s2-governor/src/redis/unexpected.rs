//! Answers that make no sense.

use std::fmt::Debug;

use crate::error::Error;

/// The error that says so.
pub(super) fn unexpected(what: &str, answer: &impl Debug) -> Error {
    let answer: String = format!("{answer:?}").chars().take(200).collect();
    let source = format!("{what} answered {answer}").into();
    s2_coordinator::Error::Backend { retryable: false, source }.into()
}
