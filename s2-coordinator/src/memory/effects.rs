//! What a step may do besides changing its own state.

use std::sync::Arc;
use std::task::Waker;

use crate::config::Config;
use crate::entry::Record;
use crate::error::Error;
use crate::escalation::{EscalationId, NewEscalation, Raised, Resolution};
use crate::event::Position;
use crate::memory::escalations::InboxState;
use crate::memory::journal_log::JournalLog;
use crate::memory::wait::Ticket;
use crate::random::Random;
use crate::release::Release;
use crate::severity::Severity;
use crate::time::Timestamp;

/// The verbs that every part of the fleet has in common, for the time of one step.
#[derive(Debug)]
pub(super) struct Effects {
    /// The time of this step; it does not move within it.
    pub(super) now: Timestamp,
    pub(super) config: Arc<Config>,
    pub(super) random: Random,
    pub(super) journal: JournalLog,
    pub(super) inbox: InboxState,
    /// Who gives way when tasks wait for each other.
    pub(super) release: Arc<dyn Release>,
    /// Who is to be woken once the step is over and the lock is free.
    pub(super) wakers: Vec<Waker>,
    /// When something is due next, whether or not anybody calls.
    pub(super) due: Timestamp,
    last_number: u64,
}

impl Effects {
    pub(super) fn new(config: Arc<Config>, random: Random, release: Arc<dyn Release>) -> Self {
        Self {
            now: Timestamp::EPOCH,
            journal: JournalLog::new(config.journal),
            config,
            inbox: InboxState::default(),
            release,
            random,
            wakers: Vec::new(),
            due: Timestamp::MAX,
            last_number: 0,
        }
    }

    /// A number that the fleet has not used: tasks, tokens, incarnations. Numbers rise, also from one life of the fleet to
    /// the next.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers(1)
    }

    /// The first of so many numbers in a row.
    pub(super) fn numbers(&mut self, count: usize) -> u64 {
        let first = self.now.as_micros().max(self.last_number + 1);
        self.last_number = first + (count as u64).saturating_sub(1);
        first
    }

    /// A place in a queue: the one that is held, or a new one.
    pub(super) fn ticket(&mut self, held: Option<Ticket>) -> Ticket {
        held.unwrap_or_else(|| Ticket(self.number()))
    }

    pub(super) fn journal(&mut self, record: Record) -> Position {
        if record.severity >= Severity::Medium {
            let Record { component, operation, subject, .. } = &record;
            tracing::warn!(%component, %operation, %subject, params = ?record.params, "journalled");
        }
        if let Some(age) = self.config.journal.age {
            self.arm(self.now + age);
        }
        self.wakers.extend(self.journal.tails.all(|_| true));
        self.journal.append(&record, self.now)
    }

    pub(super) fn escalate(&mut self, new: NewEscalation) -> Result<Raised, Error> {
        let (raised, record) = self.inbox.escalate(new, &self.config.limits, self.now)?;
        if let Some(record) = record {
            self.journal(record);
        }
        Ok(raised)
    }

    pub(super) fn resolve(&mut self, id: EscalationId, resolution: Resolution) -> Result<(), Error> {
        if let Some(record) = self.inbox.resolve(id, resolution, &self.config, self.now)? {
            self.journal(record);
        }
        Ok(())
    }

    pub(super) fn wake(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        self.wakers.extend(wakers);
    }

    /// Something is due at `at`, whether or not anybody calls.
    pub(super) fn arm(&mut self, at: Timestamp) {
        self.due = self.due.min(at);
    }
}
