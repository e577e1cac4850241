//! One group of one topic, for the time of one step.

use std::time::Duration;

use crate::dead_letter::{AttemptEnd, DeadLetter, DeadLetterId};
use crate::event::Position;
use crate::memory::effects::Effects;
use crate::memory::grave::{Cemetery, Grave};
use crate::memory::group::{GroupState, Handed};
use crate::memory::log::{Log, weight};
use crate::settle::Settled;
use crate::severity::Severity;
use crate::text::Text;
use crate::time::Timestamp;

/// A group and what surrounds it.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) group: &'a mut GroupState,
    pub(super) log: &'a Log,
    pub(super) dead_bytes: &'a mut u64,
    pub(super) dead: &'a mut Cemetery,
    /// When something is due in the topic.
    pub(super) due: &'a mut Timestamp,
}

impl Place<'_> {
    /// Ends what is due.
    pub(super) fn expire(&mut self, fx: &mut Effects) {
        let mut returned = 0;
        while let Some((position, at, end)) = self.group.expire(fx.now, &mut returned) {
            if self.bury(position, at, end, fx).is_none() {
                debug_assert!(false, "what a group has not settled is there");
                break;
            }
            returned += 1;
        }
        self.wake(returned, fx);
    }

    /// Makes a dead letter of an event whose current delivery ends for good.
    pub(super) fn bury(
        &mut self,
        position: Position,
        at: Timestamp,
        end: AttemptEnd,
        fx: &mut Effects,
    ) -> Option<DeadLetterId> {
        let event = self.group.event(position, self.log)?;
        let id = self.dead.number();
        let slot = self.group.bury(position, id, at, end)?;
        *self.dead_bytes += weight(&event);
        let letter = DeadLetter::new(id, event, self.group.name.clone(), at, slot.history());
        let grave = Grave { letter, incarnation: self.group.incarnation, slot };
        fx.journal(grave.record("dead_letter").with_severity(Severity::High));
        self.dead.graves.insert(id, grave);
        Some(id)
    }

    /// Gives an event back, to return after `delay`.
    pub(super) fn give_back(
        &mut self,
        position: Position,
        delay: Option<Duration>,
        reason: Option<Text>,
        fx: &mut Effects,
    ) -> Settled {
        let backoff = fx.config.backoff;
        let delay = delay.unwrap_or_else(|| backoff.delay(self.group.attempts(position), &mut fx.random));
        let at = fx.now + delay;
        self.group.give_back(position, fx.now, at, reason);
        self.arm(at, fx);
        // There is room for another event, and perhaps this one is ready.
        self.wake(2, fx);
        Settled::Retrying(at)
    }

    /// Hands out at most `max` events, each as what `wrap` makes of it.
    pub(super) fn take<T>(
        &mut self,
        consumer: u64,
        max: usize,
        fx: &mut Effects,
        wrap: impl Fn(Handed) -> T,
    ) -> Vec<T> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(handed) = self.group.take(consumer, self.log, fx.now)
        {
            self.arm(handed.deadline, fx);
            taken.push(wrap(handed));
        }
        // Whoever was woken for more than it could take passes the word on.
        self.wake(1, fx);
        taken
    }

    /// Something is due in the topic at `at`, whether or not anybody calls.
    pub(super) fn arm(&mut self, at: Timestamp, fx: &mut Effects) {
        *self.due = at.min(*self.due);
        fx.arm(at);
    }

    /// Ends the subscription of one consumer.
    pub(super) fn leave(&mut self, consumer: u64, fx: &mut Effects) {
        fx.wake(self.group.leave(fx.now, |id, _| id == consumer));
        if self.group.idle_since.is_some() {
            self.arm(fx.now + fx.config.group_expiry, fx);
        }
    }

    /// Wakes members for which there is something, at most `most` of them.
    pub(super) fn wake(&mut self, most: usize, fx: &mut Effects) {
        fx.wake(self.group.wake(self.log, most));
    }
}
