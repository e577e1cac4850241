//! Leave to ask a provider once.

use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::{Text, Timestamp};

use crate::agreement::Agreement;
use crate::calls::Answer;
use crate::transition::{Event, What};

/// What became of a call to a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It did what it should.
    Success,
    /// It did not, and the reason.
    Failure(Text),
    /// It asked for patience, as status 429 does: for so long, if it said so. That is no failure.
    Throttled(Option<Duration>),
    /// It says nothing about the provider: it was cancelled, or the request was wrong.
    Ignored,
}

/// Leave to ask a provider once. It wants to know what became of that; dropped, the call counts as not made, unless it took
/// so long that it was slow.
///
/// What it is told holds here at once; the store is told by a task.
#[derive(Debug)]
#[must_use = "dropped, the call counts as not made"]
pub struct Permit {
    /// Until it is settled.
    agreement: Option<Arc<Agreement>>,
    generation: u64,
    /// Its number, if the call is a probe, and whether the store has granted it.
    probe: Option<(u64, bool)>,
    begun: Timestamp,
}

impl Permit {
    pub(crate) fn call(agreement: &Arc<Agreement>, generation: u64, begun: Timestamp) -> Self {
        Self { agreement: Some(Arc::clone(agreement)), generation, probe: None, begun }
    }

    /// One that is being asked for.
    pub(crate) fn probe(agreement: &Arc<Agreement>, number: u64, begun: Timestamp) -> Self {
        Self { agreement: Some(Arc::clone(agreement)), generation: 0, probe: Some((number, false)), begun }
    }

    pub(crate) fn granted(mut self) -> Self {
        self.probe = self.probe.map(|(number, _)| (number, true));
        self
    }

    pub(crate) fn denied(mut self) {
        self.agreement = None;
    }

    /// Whether the call tries whether the provider is back.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// The call begins only now: what was before does not count for its duration.
    pub fn restart(&mut self) {
        if let Some(agreement) = &self.agreement {
            self.begun = agreement.clock.now();
        }
    }

    /// The time of the fleet.
    #[cfg(feature = "tower")]
    pub(crate) fn now(&self) -> Timestamp {
        self.agreement.as_ref().map_or(self.begun, |agreement| agreement.clock.now())
    }

    /// The provider did what it should. If it took too long for that, it was slow nevertheless.
    pub fn success(self) {
        self.settle(CallOutcome::Success);
    }

    /// The provider failed. The journal tells the reason, its first 256 bytes.
    pub fn failure(self, reason: impl Into<Text>) {
        self.settle(CallOutcome::Failure(reason.into()));
    }

    /// The provider asked for patience, as status 429 does: for so long, if it said so. Nobody asks it meanwhile.
    pub fn throttled(self, retry_after: Option<Duration>) {
        self.settle(CallOutcome::Throttled(retry_after));
    }

    /// The call was not made, or says nothing about the provider.
    pub fn cancelled(self) {
        drop(self);
    }

    /// What became of the call.
    pub fn settle(mut self, outcome: CallOutcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: CallOutcome) {
        let Some(agreement) = self.agreement.take() else { return };
        let (now, rules) = (agreement.clock.now(), &agreement.rules);
        let slow = now.since(self.begun) >= rules.settings.slow_call;
        let mut local = agreement.lock();
        let answer = match outcome {
            CallOutcome::Success => Some(Answer { failed: false, slow }),
            CallOutcome::Failure(reason) => {
                local.failed(reason);
                Some(Answer { failed: true, slow })
            }
            CallOutcome::Throttled(after) => {
                let until = now + after.unwrap_or(rules.settings.cool_down);
                local.happened(Event { at: now, what: What::CoolDown { until } }, rules);
                None
            }
            CallOutcome::Ignored => slow.then_some(Answer { failed: false, slow }),
        };
        match self.probe {
            Some((number, granted)) => {
                local.probed(Event { at: now, what: What::Probed { number, answer } }, granted, rules);
            }
            None => local.count(self.generation, answer, now, rules),
        }
        drop(local);
        agreement.tell_soon();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end(CallOutcome::Ignored);
    }
}
