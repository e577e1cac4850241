//! Listing, redriving and purging dead letters in memory.

use crate::dead_letter::{DeadLetter, DeadLetterId, DeadLetters, Redriven};
use crate::error::Error;
use crate::memory::effects::Effects;
use crate::memory::grave::Grave;
use crate::memory::log::weight;
use crate::memory::topics::Topics;

impl Topics {
    pub(super) fn dead_letters(&self, which: &DeadLetters, fx: &Effects) -> Result<Vec<DeadLetter>, Error> {
        fx.config.limits.check_selection(which)?;
        let ids = self.dead.select(which, fx.config.limits.batch);
        Ok(ids.iter().filter_map(|id| self.dead.graves.get(id)).map(|grave| grave.letter.clone()).collect())
    }

    pub(super) fn redrive(&mut self, which: &DeadLetters, fx: &mut Effects) -> Result<Vec<Redriven>, Error> {
        fx.config.limits.check_selection(which)?;
        let mut answers = Vec::new();
        for id in self.dead.select(which, fx.config.limits.batch) {
            self.check_home(id)?;
            answers.push(Redriven { id, duplicate: false });
        }
        for id in which.ids.iter().copied().filter(|id| !self.dead.graves.contains_key(id)) {
            if !self.dead.was_redriven(id) {
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
        let ids = self.dead.select(which, fx.config.limits.batch);
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
