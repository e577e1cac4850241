//! Why a handler did not do its task, and what becomes of the task.

use std::fmt;
use std::time::Duration;

use s2_coordinator::{Text, Timestamp};
use s2_governor::{BreakerOpen, BulkheadFull, Denied, Refused};

/// How many bytes of a reason are kept.
const REASON_BYTES: usize = 1_000;

/// Why a handler did not do its task.
///
/// `?` makes one of any error: then the attempt failed, and there is another after a backoff. What was refused before anything
/// was done, by a budget, a breaker or a bulkhead, hands the task back without an attempt, however deep that is in the chain of
/// sources.
///
/// ```
/// use s2_core::TaskError;
///
/// fn parse(text: &str) -> Result<u32, TaskError> {
///     Ok(text.parse::<u32>()?)
/// }
/// assert_eq!(parse("x").unwrap_err().to_string(), "invalid digit found in string");
/// assert!(TaskError::fatal("there is no such file").is_fatal());
/// ```
pub struct TaskError {
    reason: Text,
    pub(crate) then: Then,
}

/// What becomes of a task that was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It is tried again, after this time or the backoff.
    Retry(Option<Duration>),
    /// It fails.
    GiveUp,
    /// It is handed back without an attempt, and not offered to this session until then, or for the backoff.
    HandBack(Option<Timestamp>),
}

impl TaskError {
    /// The attempt failed; there is another after a backoff, unless it was the last.
    #[must_use]
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self::new(&reason, Then::Retry(None))
    }

    /// The attempt failed; there is another after this time, unless it was the last.
    #[must_use]
    pub fn retry_after(delay: Duration, reason: impl fmt::Display) -> Self {
        Self::new(&reason, Then::Retry(Some(delay)))
    }

    /// The task cannot be done: it fails at once. Of help: it is declined, and somebody else is asked.
    #[must_use]
    pub fn fatal(reason: impl fmt::Display) -> Self {
        Self::new(&reason, Then::GiveUp)
    }

    /// This session cannot take the task now: it is handed back without an attempt.
    #[must_use]
    pub fn refused(reason: impl fmt::Display) -> Self {
        Self::new(&reason, Then::HandBack(None))
    }

    /// Whether the task fails at once.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.then == Then::GiveUp
    }

    /// Whether the task is handed back without an attempt.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self.then, Then::HandBack(_))
    }

    /// The reason, as the journal keeps it.
    pub(crate) fn reason(&self) -> Text {
        self.reason.clone()
    }

    fn new(reason: &dyn fmt::Display, then: Then) -> Self {
        let mut text = reason.to_string();
        text.truncate(text.floor_char_boundary(REASON_BYTES));
        Self { reason: Text::from(text), then }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for TaskError {
    fn from(error: E) -> Self {
        let chain = || std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let then = chain().find_map(refusal).map_or(Then::Retry(None), Then::HandBack);
        let mut reasons: Vec<String> = chain().map(ToString::to_string).collect();
        // Transparent errors say what their source says.
        reasons.dedup();
        Self::new(&reasons.join(": "), then)
    }
}

/// Whether an error says that nothing was begun, and until when to wait, as far as it knows.
fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<Option<Timestamp>> {
    let refused = match error.downcast_ref::<Refused>() {
        Some(Refused::BreakerOpen(open)) => Some(open),
        Some(Refused::BulkheadFull(_)) => return Some(None),
        None => error.downcast_ref::<BreakerOpen>(),
    };
    if let Some(open) = refused {
        return Some(open.until);
    }
    (error.is::<Denied>() || error.is::<BulkheadFull>()).then_some(None)
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.as_str())
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.then, self.reason)
    }
}
