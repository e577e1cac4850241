//! What a call says about itself while it is made.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use s2_governor::{CallOutcome, NanoUsd};

/// What a call that costs money says about itself. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Reading>>);

/// What a meter shows.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) actual: Option<NanoUsd>,
    pub(crate) outcome: Option<CallOutcome>,
}

impl Meter {
    /// What the call has cost in all, as its answer says; the last word counts. Unless said, it is what was estimated.
    pub fn actual(&self, cost: NanoUsd) {
        self.lock().actual = Some(cost);
    }

    /// The provider asked for patience, as status 429 does: for so long, if it said so. That is no failure, and costs nothing
    /// unless said otherwise.
    pub fn throttled(&self, retry_after: Option<Duration>) {
        self.lock().outcome = Some(CallOutcome::Throttled(retry_after));
    }

    /// What comes of the call says nothing about the provider: the request was wrong, for instance.
    pub fn not_the_provider(&self) {
        self.lock().outcome = Some(CallOutcome::Ignored);
    }

    pub(crate) fn read(&self) -> Reading {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    /// What the call has cost.
    pub(crate) fn cost(&self, estimate: NanoUsd) -> NanoUsd {
        let throttled = matches!(self.outcome, Some(CallOutcome::Throttled(_)));
        self.actual.unwrap_or(if throttled { NanoUsd::ZERO } else { estimate })
    }
}
