//! Where dead letters lie.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::dead_letter::{DeadLetter, DeadLetterId, DeadLetters};
use crate::entry::Record;
use crate::memory::slot::Slot;
use crate::time::Timestamp;

/// A dead letter, and what it takes to give it back.
#[derive(Debug)]
pub(super) struct Grave {
    pub(super) letter: DeadLetter,
    /// Which group of that name gave up on it.
    pub(super) incarnation: u64,
    pub(super) slot: Slot,
}

impl Grave {
    /// What the journal says of it.
    pub(super) fn record(&self, operation: &'static str) -> Record {
        let event = &self.letter.event;
        Record::new("bus", operation, event.topic.to_text())
            .with("id", self.letter.id.get())
            .with("group", self.letter.group.to_text())
            .with("event", event.id.to_string())
            .with("position", event.position)
            .with("attempts", self.letter.history.len() as u64)
            .with_trace(event.trace)
    }
}

#[derive(Debug, Default)]
pub(super) struct Cemetery {
    pub(super) graves: BTreeMap<DeadLetterId, Grave>,
    /// Which were redriven within the idempotency window.
    redriven: BTreeMap<DeadLetterId, Timestamp>,
    by_age: VecDeque<DeadLetterId>,
    last: DeadLetterId,
}

impl Cemetery {
    pub(super) fn number(&mut self) -> DeadLetterId {
        self.last = self.last.next();
        self.last
    }

    /// Which dead letters are meant, the oldest first.
    pub(super) fn select(&self, which: &DeadLetters, page: usize) -> Vec<DeadLetterId> {
        let matching = self.graves.values().filter(|grave| which.matches(&grave.letter));
        matching.take(which.limit.unwrap_or(page)).map(|grave| grave.letter.id).collect()
    }

    pub(super) fn mark_redriven(&mut self, id: DeadLetterId, now: Timestamp) {
        self.redriven.insert(id, now);
        self.by_age.push_back(id);
    }

    /// Forgets redrives that nobody repeats any more.
    pub(super) fn expire(&mut self, now: Timestamp, window: Duration) {
        while let Some(id) = self.by_age.front()
            && self.redriven.get(id).is_none_or(|at| now.since(*at) >= window)
        {
            self.redriven.remove(id);
            self.by_age.pop_front();
        }
    }

    pub(super) fn was_redriven(&self, id: DeadLetterId) -> bool {
        self.redriven.contains_key(&id)
    }

    /// When the oldest redrive happened.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.by_age.front().and_then(|id| self.redriven.get(id)).copied()
    }
}
