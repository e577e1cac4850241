//! What one process knows of a provider.
//!
//! What the store said last, what happened here since, and what follows from both: by that the process goes, whether or not the
//! store can be reached.

use std::collections::VecDeque;

use s2_coordinator::{Random, Text, Timestamp};

use crate::board::Versioned;
use crate::calls::{Answer, Calls};
use crate::transition::{Event, Rules, What};
use crate::verdict::{BreakerState, Verdict};

/// How much of a reason is kept, in bytes.
const REASON_BYTES: usize = 256;

/// How much is kept that is in the store perhaps.
const MOST_PENDING: usize = 1_000;

#[derive(Debug)]
pub(crate) struct Local {
    /// What the store said last.
    pub(crate) known: Versioned,
    /// What happened since and is not in the store yet.
    pub(crate) pending: VecDeque<Event>,
    /// What follows from both.
    pub(crate) verdict: Verdict,
    calls: Calls,
    /// Failures that the journal does not tell of yet, and the reason of the last.
    pub(crate) untold: u64,
    pub(crate) reason: Text,
    /// When the journal may tell of them.
    pub(crate) tell_at: Timestamp,
    /// Up to which change the store was asked.
    pub(crate) seen: Option<u64>,
    /// Not to be asked before, since it failed.
    pub(crate) ask_at: Timestamp,
    /// Whether a task tells the store what happened.
    pub(crate) tells: bool,
    random: Random,
}

impl Local {
    pub(crate) fn new(rules: &Rules) -> Self {
        Self {
            known: Versioned::default(),
            pending: VecDeque::new(),
            verdict: Verdict::default(),
            calls: Calls::new(rules.settings.window),
            untold: 0,
            reason: Text::default(),
            tell_at: Timestamp::EPOCH,
            seen: None,
            ask_at: Timestamp::EPOCH,
            tells: false,
            random: Random::from_system(),
        }
    }

    /// A number that no other probe has.
    pub(crate) fn number(&mut self) -> u64 {
        // The lower half of random bits.
        self.random.bits() as u64
    }

    /// The store says what holds. A store that has lost what it held knows less than its processes.
    pub(crate) fn learn(&mut self, latest: Versioned, rules: &Rules) {
        let forgotten = latest.verdict.generation < self.known.verdict.generation;
        let verdict = if forgotten { self.known.verdict.clone() } else { latest.verdict };
        self.known = Versioned { version: latest.version, verdict };
        let mut verdict = self.known.verdict.clone();
        for event in &self.pending {
            if let Some(change) = rules.apply(&verdict, event) {
                verdict = change.verdict;
            }
        }
        self.follow(verdict);
    }

    fn follow(&mut self, verdict: Verdict) {
        if verdict.generation != self.verdict.generation {
            self.calls.clear();
        }
        self.verdict = verdict;
    }

    /// Something happened here: it counts at once, and the store is to be told.
    pub(crate) fn happened(&mut self, event: Event, rules: &Rules) {
        if let Some(change) = rules.apply(&self.verdict, &event) {
            self.follow(change.verdict);
            if let What::CoolDown { .. } = event.what {
                // The last is the longest.
                self.pending.retain(|other| !matches!(other.what, What::CoolDown { .. }));
            }
            self.pending.push_back(event);
        }
    }

    /// A call of some generation is over. One of another than this says nothing.
    pub(crate) fn count(&mut self, generation: u64, answer: Option<Answer>, at: Timestamp, rules: &Rules) {
        let Some(answer) = answer else { return };
        let counts = generation == self.verdict.generation && self.verdict.forced.is_none();
        if !counts || self.verdict.state != BreakerState::Closed {
            return;
        }
        let sums = self.calls.record(at, answer);
        if sums.trips(&rules.settings) {
            self.happened(Event { at, what: What::Tripped { generation, sums } }, rules);
        }
    }

    /// A probe is over. If it is not known whether the store has granted it, the store is to be asked.
    pub(crate) fn probed(&mut self, event: Event, granted: bool, rules: &Rules) {
        if granted {
            self.happened(event, rules);
        } else {
            self.seen = None;
            // While the store is away these add up; but their time will be over.
            if self.pending.len() < MOST_PENDING {
                self.pending.push_back(event);
            }
        }
    }

    pub(crate) fn failed(&mut self, reason: Text) {
        let cut = (0..=REASON_BYTES.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
        self.reason = match cut {
            Some(cut) if cut < reason.len() => Text::new(&reason[..cut]),
            _ => reason,
        };
        self.untold = self.untold.saturating_add(1);
    }
}
