//! What one group has done with the events of its topic.
//!
//! Pure and synchronous: time comes in as a value, and who dies or is to be woken goes out as a value.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Waker;

use crate::config::Config;
use crate::dead_letter::{AttemptEnd, DeadLetterId};
use crate::error::Error;
use crate::event::{Event, Fingerprint, Position};
use crate::group::Group;
use crate::memory::log::Log;
use crate::memory::member::{Member, Members};
use crate::memory::slot::{Slot, State};
use crate::memory::slots::Slots;
use crate::memory::wait::WaitList;
use crate::name::GroupName;
use crate::settle::{Receipt, Settled, Settlement};
use crate::text::Text;
use crate::time::Timestamp;

/// An event on its way out.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) event: Arc<Event>,
    pub(super) attempt: u32,
    pub(super) delivery: u32,
    pub(super) deadline: Timestamp,
}

#[derive(Debug)]
pub(super) struct GroupState {
    pub(super) name: GroupName,
    pub(super) incarnation: u64,
    /// How often an event is handled before it is a dead letter.
    pub(super) deliveries: u32,
    pub(super) waiting: WaitList,
    /// Since when there has been no open subscription.
    pub(super) idle_since: Option<Timestamp>,
    /// Whether it no longer holds back trimming.
    pub(super) expired: bool,
    /// How many events it lost while it was expired.
    pub(super) lost: u64,
    members: Members,
    slots: Slots,
    /// Waiting to be handed out again.
    ready: BTreeSet<Position>,
    /// Likewise, one at a time for each member: their last handling ended in a time-out or a crash.
    suspects: BTreeSet<Position>,
    /// Deadlines of deliveries and delays.
    due: BTreeSet<(Timestamp, Position)>,
}

impl GroupState {
    /// A group whose first event is the one at `first`.
    pub(super) fn new(name: GroupName, incarnation: u64, first: Position, deliveries: u32) -> Self {
        Self {
            name,
            incarnation,
            deliveries,
            waiting: WaitList::default(),
            idle_since: None,
            expired: false,
            lost: 0,
            members: Members::default(),
            slots: Slots::new(first),
            ready: BTreeSet::new(),
            suspects: BTreeSet::new(),
            due: BTreeSet::new(),
        }
    }

    pub(super) fn join(&mut self, consumer: u64, member: Member) {
        self.members.join(consumer, member);
        self.idle_since = None;
    }

    /// Ends the subscriptions that qualify and answers with their waiters. Their deliveries stay until they end.
    pub(super) fn leave(&mut self, now: Timestamp, leaves: impl Fn(u64, &Member) -> bool) -> Vec<Waker> {
        let left = self.members.leave(leaves);
        if !left.is_empty() && self.members.len() == 0 {
            self.idle_since = Some(now);
        }
        self.waiting.all(|consumer| left.contains(&consumer))
    }

    /// The position of the next event that was never handed out.
    pub(super) fn cursor(&self) -> Position {
        self.slots.cursor()
    }

    /// Everything up to here is settled.
    pub(super) const fn floor(&self) -> Position {
        self.slots.floor()
    }

    /// The earliest deadline.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// How many events it has never handed out.
    pub(super) fn backlog(&self, log: &Log) -> u64 {
        log.end().get().saturating_sub(self.cursor().max(log.first()).get())
    }

    pub(super) fn describe(&self, log: &Log) -> Group {
        let mut group = Group::new(self.name.clone(), self.incarnation);
        group.floor = self.floor();
        group.consumers = self.members.len();
        group.in_flight = self.members.in_flight();
        group.returning = self.ready.len() + self.suspects.len() + self.due.len() - group.in_flight;
        group.backlog = self.backlog(log);
        group.expired = self.expired;
        group
    }

    /// What a member would get next.
    fn offer(&self, member: &Member, log: &Log) -> Option<Position> {
        if !member.has_room() {
            return None;
        }
        let suspect = self.suspects.first().filter(|_| member.may_have_suspect());
        let returning = match (self.ready.first(), suspect) {
            (Some(ready), Some(suspect)) => Some(*ready.min(suspect)),
            (ready, suspect) => ready.or(suspect).copied(),
        };
        returning.or_else(|| Some(self.cursor()).filter(|cursor| *cursor < log.end()))
    }

    /// Hands the next event to a member.
    pub(super) fn take(&mut self, consumer: u64, log: &Log, now: Timestamp) -> Option<Handed> {
        let member = self.members.get(consumer)?;
        let position = self.offer(member, log)?;
        let event = self.slots.event(position, log)?;
        let deadline = now + member.ack_timeout;
        let slot = self.slots.get_or_open(position)?;
        let suspect = slot.suspect;
        slot.hand_out(consumer, member.name.clone(), now, deadline);
        let handed = Handed { event, attempt: slot.attempts(), delivery: slot.delivery, deadline };
        self.ready.remove(&position);
        self.suspects.remove(&position);
        self.due.insert((deadline, position));
        self.members.hold(consumer, suspect);
        Some(handed)
    }

    /// Takes a slot out of whatever index it stands in, so that its state can change.
    fn unindex(&mut self, position: Position) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(position)?;
        match slot.state {
            State::InFlight { deadline } => {
                self.due.remove(&(deadline, position));
                self.members.release(slot.consumer, slot.suspect);
            }
            State::Delayed(at) => {
                self.due.remove(&(at, position));
            }
            State::Ready => {
                self.ready.remove(&position);
                self.suspects.remove(&position);
            }
            State::Settled(_) => {}
        }
        Some(slot)
    }

    /// The first answer, if this receipt has settled before; nothing if it is that of the current delivery.
    pub(super) fn answer(
        &self,
        receipt: &Receipt,
        settlement: Option<(&Settlement, Option<Fingerprint>)>,
    ) -> Result<Option<Settled>, Error> {
        let position = receipt.position();
        if position >= self.cursor() {
            return Err(receipt.stale_error(None));
        }
        match self.slots.get(position) {
            Some(slot) => slot.answer(receipt, settlement),
            None => {
                let topic = receipt.recipient().topic.clone();
                Err(Error::NotRetained { topic, position, oldest: self.slots.first() })
            }
        }
    }

    /// Ends the current delivery with success.
    pub(super) fn finish(&mut self, position: Position, now: Timestamp, outcome: Settled, said: Option<Fingerprint>) {
        if let Some(slot) = self.unindex(position) {
            slot.settle(now, outcome);
            said.into_iter().for_each(|said| slot.say(said));
        }
        self.slots.after_settling(position);
    }

    /// How often the current delivery has been tried.
    pub(super) fn attempts(&self, position: Position) -> u32 {
        self.slots.get(position).map_or(0, Slot::attempts)
    }

    /// Whether the current delivery is the last one.
    pub(super) fn is_last_attempt(&self, position: Position) -> bool {
        self.attempts(position) >= self.deliveries
    }

    /// Ends the current delivery without success; the event returns at `at`.
    pub(super) fn give_back(&mut self, position: Position, now: Timestamp, at: Timestamp, reason: Option<Text>) {
        let Some(slot) = self.unindex(position) else { return };
        slot.fail(now, AttemptEnd::Nacked { reason, retry_at: Some(at) });
        if at <= now {
            return self.make_ready(position, false);
        }
        slot.suspect = false;
        slot.state = State::Delayed(at);
        self.due.insert((at, position));
    }

    fn make_ready(&mut self, position: Position, suspect: bool) {
        if let Some(slot) = self.slots.get_mut(position) {
            slot.suspect = suspect;
            slot.state = State::Ready;
            let index = if suspect { &mut self.suspects } else { &mut self.ready };
            index.insert(position);
        }
    }

    /// Ends the current delivery for good, as the dead letter `id`. Answers with what it takes to give it back.
    pub(super) fn bury(
        &mut self,
        position: Position,
        id: DeadLetterId,
        now: Timestamp,
        end: AttemptEnd,
    ) -> Option<Slot> {
        let slot = self.unindex(position)?;
        slot.fail(now, end);
        slot.die(now, id);
        let last = slot.clone();
        self.slots.after_settling(position);
        Some(last)
    }

    /// The event of a delivery.
    pub(super) fn event(&self, position: Position, log: &Log) -> Option<Arc<Event>> {
        self.slots.event(position, log)
    }

    /// Gives a dead letter back to the group, with all attempts anew.
    pub(super) fn revive(&mut self, event: Arc<Event>, mut slot: Slot) {
        slot.be_reborn();
        self.ready.insert(event.position);
        self.slots.revive(event, slot);
    }

    /// Moves the deadline of the current delivery.
    pub(super) fn extend(&mut self, position: Position, deadline: Timestamp) {
        let Some(slot) = self.unindex(position) else { return };
        slot.forgive();
        slot.state = State::InFlight { deadline };
        let (consumer, suspect) = (slot.consumer, slot.suspect);
        self.members.hold(consumer, suspect);
        self.due.insert((deadline, position));
    }

    /// Ends what is due, up to the first event that has to be buried: where, when and how it ended. Counts what returns.
    pub(super) fn expire(&mut self, now: Timestamp, returned: &mut usize) -> Option<(Position, Timestamp, AttemptEnd)> {
        while let Some(&(at, position)) = self.due.first()
            && at <= now
        {
            let Some(slot) = self.slots.get(position) else {
                debug_assert!(false, "what is due has a slot");
                self.due.pop_first();
                continue;
            };
            let is_delayed = matches!(slot.state, State::Delayed(_));
            let is_there = self.members.get(slot.consumer).is_some();
            let end = if is_there { AttemptEnd::TimedOut } else { AttemptEnd::Lost };
            if !is_delayed && self.is_last_attempt(position) {
                return Some((position, at, end));
            }
            let slot = self.unindex(position)?;
            if !is_delayed {
                slot.fail(at, end);
            }
            self.make_ready(position, !is_delayed);
            *returned += 1;
        }
        None
    }

    /// Takes members for which there is something out of the queue, at most `most` of them, to be woken.
    pub(super) fn wake(&mut self, log: &Log, most: usize) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let nothing = self.ready.is_empty() && self.suspects.is_empty() && self.cursor() >= log.end();
        if nothing || self.waiting.is_empty() {
            return wakers;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        let qualifies = |consumer| self.members.get(consumer).is_some_and(|member| self.offer(member, log).is_some());
        while wakers.len() < most
            && let Some(waker) = waiting.first(qualifies)
        {
            wakers.push(waker);
        }
        self.waiting = waiting;
        wakers
    }

    /// Forgets what the topic has forgotten, `oldest` being what it retains: settles that nobody repeats any more, and,
    /// of a group that has expired, events that it will never see.
    pub(super) fn forget_before(&mut self, oldest: Position, now: Timestamp, config: &Config) {
        self.slots.forget_past(oldest, now, config.ack_timeout, config.limits.settles);
        while self.expired && self.slots.first() < oldest {
            let position = self.slots.first();
            let revived = self.slots.is_revived(position);
            if !revived {
                self.unindex(position);
            }
            if !self.slots.pop() && !revived {
                self.lost += 1;
            }
        }
    }
}
