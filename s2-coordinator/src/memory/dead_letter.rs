//! The dead letters of the fleet.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::dead_letter::{DeadLetter, DeadLetterId, DeadLetters, Redriven};
use crate::entry::Record;
use crate::error::Error;
use crate::memory::effects::Effects;
use crate::memory::log::weight;
use crate::memory::slot::Slot;
use crate::memory::topics::Topics;
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
    fn select(&self, which: &DeadLetters) -> Vec<DeadLetterId> {
        let matching = self.graves.values().filter(|grave| which.matches(&grave.letter));
        matching.take(which.limit).map(|grave| grave.letter.id).collect()
    }

    fn mark_redriven(&mut self, id: DeadLetterId, now: Timestamp) {
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

    /// When the oldest redrive happened.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.by_age.front().and_then(|id| self.redriven.get(id)).copied()
    }
}

impl Topics {
    pub(super) fn dead_letters(&self, which: &DeadLetters, fx: &Effects) -> Result<Vec<DeadLetter>, Error> {
        fx.config.limits.check_selection(which)?;
        let ids = self.dead.select(which);
        Ok(ids.iter().filter_map(|id| self.dead.graves.get(id)).map(|grave| grave.letter.clone()).collect())
    }

    pub(super) fn redrive(&mut self, which: &DeadLetters, fx: &mut Effects) -> Result<Vec<Redriven>, Error> {
        fx.config.limits.check_selection(which)?;
        let mut answers = Vec::new();
        for id in self.dead.select(which) {
            self.check_home(id)?;
            answers.push(Redriven { id, duplicate: false });
        }
        for id in which.ids.iter().copied().filter(|id| !self.dead.graves.contains_key(id)) {
            if !self.dead.redriven.contains_key(&id) {
                return Err(Error::UnknownDeadLetter { id });
            }
            answers.push(Redriven { id, duplicate: true });
        }
        answers.sort_by_key(|answer| answer.id);
        answers.dedup();
        for answer in answers.iter().filter(|answer| !answer.duplicate) {
            self.redrive_one(answer.id, fx);
        }
        Ok(answers)
    }

    /// Fails when the group that gave up on a dead letter is gone.
    fn check_home(&self, id: DeadLetterId) -> Result<(), Error> {
        let Some(Grave { letter, incarnation, .. }) = self.dead.graves.get(&id) else { return Ok(()) };
        let topic = &letter.event.topic;
        if self.get(topic).is_some_and(|topic| topic.groups.contains_key(incarnation)) {
            return Ok(());
        }
        Err(Error::UnknownGroup { topic: topic.clone(), group: letter.group.clone() })
    }

    fn redrive_one(&mut self, id: DeadLetterId, fx: &mut Effects) {
        let Some(grave) = self.dead.graves.remove(&id) else { return };
        self.dead.mark_redriven(id, fx.now);
        fx.arm(fx.now + fx.config.idempotency_window);
        fx.journal(grave.record("redrive"));
        let Grave { letter, incarnation, slot } = grave;
        let Some(topic) = self.topics.get_mut(&letter.event.topic) else { return };
        topic.dead_bytes -= weight(&letter.event);
        let Some(group) = topic.groups.get_mut(&incarnation) else { return };
        group.revive(letter.event, slot);
        fx.wake(group.wake(&topic.log, 1));
    }

    pub(super) fn purge(&mut self, which: &DeadLetters, fx: &mut Effects) -> Result<Vec<DeadLetterId>, Error> {
        fx.config.limits.check_selection(which)?;
        let ids = self.dead.select(which);
        for id in &ids {
            let Some(grave) = self.dead.graves.remove(id) else { continue };
            fx.journal(grave.record("purge"));
            if let Some(topic) = self.topics.get_mut(&grave.letter.event.topic) {
                topic.dead_bytes -= weight(&grave.letter.event);
            }
        }
        Ok(ids)
    }
}
