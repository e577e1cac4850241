//! What a step may do besides changing its own state.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use crate::config::{Config, Retention};
use crate::entry::{Entry, Record};
use crate::error::Error;
use crate::escalation::{EscalationId, NewEscalation, Raised, Resolution};
use crate::event::Position;
use crate::memory::escalations::InboxState;
use crate::memory::wait::{Ticket, WaitList};
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
        self.journal.append(record, self.now)
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

/// The journal's entries, the oldest first.
#[derive(Debug)]
pub(super) struct JournalLog {
    entries: VecDeque<Entry>,
    /// The position of the first entry, or of the next one when there is none.
    first: Position,
    bytes: u64,
    retention: Retention,
    pub(super) tails: WaitList,
}

impl JournalLog {
    fn new(retention: Retention) -> Self {
        Self {
            entries: VecDeque::new(),
            first: Position::ORIGIN.next(),
            bytes: 0,
            retention,
            tails: WaitList::default(),
        }
    }

    fn append(&mut self, record: Record, now: Timestamp) -> Position {
        let position = self.push(record, now);
        self.trim(now);
        position
    }

    fn push(&mut self, record: Record, now: Timestamp) -> Position {
        let entry = Entry::new(record, self.end(), now);
        let position = entry.position;
        self.bytes += entry.weight();
        self.entries.push_back(entry);
        position
    }

    /// When the oldest entry will be too old. One alone stays: what would be left is the word of its own trimming.
    pub(super) fn aged_at(&self) -> Option<Timestamp> {
        let oldest = self.entries.front().filter(|_| self.entries.len() > 1)?;
        self.retention.age.map(|age| oldest.time + age)
    }

    /// Drops the oldest entries, an eighth of what is kept at a time, and says so in an entry of its own.
    pub(super) fn trim(&mut self, now: Timestamp) {
        let too_old = self.aged_at().is_some_and(|at| at <= now);
        let too_much = self.bytes > self.retention.bytes;
        if !too_old && !too_much {
            return;
        }
        let room = if too_much { self.retention.bytes - self.retention.bytes / 8 } else { u64::MAX };
        let youth = self.retention.age.filter(|_| too_old).map(|age| age - age / 8);
        let is_due =
            |log: &Self, entry: &Entry| log.bytes > room || youth.is_some_and(|youth| now.since(entry.time) >= youth);
        let mut dropped = 0_u64;
        while self.entries.front().is_some_and(|entry| is_due(self, entry))
            && let Some(entry) = self.entries.pop_front()
        {
            self.bytes -= entry.weight();
            self.first = entry.position.next();
            dropped += 1;
        }
        if dropped > 0 {
            let through = self.first.get() - 1;
            self.push(
                Record::new("journal", "trim", "s2.journal").with("through", through).with("entries", dropped),
                now,
            );
        }
    }

    /// The position of the oldest entry, or of the next one when there is none.
    pub(super) fn first(&self) -> Position {
        self.first
    }

    /// The position of the next entry.
    pub(super) fn end(&self) -> Position {
        Position::new(self.first.get() + self.entries.len() as u64)
    }

    /// At most `limit` entries from `from` on, which is retained.
    pub(super) fn from(&self, from: Position, limit: usize) -> impl Iterator<Item = &Entry> {
        let skip = usize::try_from(from.get() - self.first.get()).unwrap_or(usize::MAX);
        self.entries.range(skip.min(self.entries.len())..).take(limit)
    }
}
