//! What one group has done with the events of its topic.
//!
//! Pure and synchronous: time comes in as a value, and who dies or is to be woken goes out as a value. Each event that
//! was ever handed out has a slot until the topic forgets it; slots of fresh events lie in a row, so the way of an
//! event through a group costs no search.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::dead_letter::{Attempt, AttemptEnd, DeadLetterId};
use crate::error::Error;
use crate::event::{Event, Position};
use crate::group::Group;
use crate::memory::log::Log;
use crate::memory::wait::WaitList;
use crate::name::{ConsumerName, GroupName};
use crate::settle::{Receipt, Settled};
use crate::text::Text;
use crate::time::Timestamp;

/// One open subscription.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: ConsumerName,
    /// The bus through which it subscribed.
    pub(super) bus: u64,
    pub(super) prefetch: usize,
    pub(super) ack_timeout: Duration,
    /// Whether its subscription is open. One that left stays here until its last delivery has ended.
    open: bool,
    in_flight: usize,
    /// How many of them are suspects: at most one.
    suspects: usize,
}

impl Member {
    pub(super) fn new(name: ConsumerName, bus: u64, prefetch: usize, ack_timeout: Duration) -> Self {
        Self { name, bus, prefetch, ack_timeout, open: true, in_flight: 0, suspects: 0 }
    }
}

#[derive(Clone, Debug)]
enum State {
    /// In the hands of `Slot::consumer`.
    InFlight { deadline: Timestamp },
    /// Given back, to return at this time.
    Delayed(Timestamp),
    /// Waits to be handed out again.
    Ready,
    /// Done, as far as this group is concerned.
    Settled(Settled),
}

/// The way of one event through the group.
#[derive(Clone, Debug)]
struct Slot {
    /// How often it was handed out: the fencing token of the latest delivery.
    delivery: u32,
    /// How often it had been handed out when it was last redriven.
    born: u32,
    /// To whom it was handed out last, and when.
    consumer: u64,
    since: Timestamp,
    /// Whether its last handling ended in a time-out or a crash, so that it might take its neighbours along.
    suspect: bool,
    state: State,
    history: Vec<Failure>,
}

/// A handling that failed, and the dead letter that it led to.
#[derive(Clone, Debug)]
struct Failure {
    attempt: Attempt,
    death: Option<DeadLetterId>,
}

impl Slot {
    fn new() -> Self {
        Self {
            delivery: 0,
            born: 0,
            consumer: 0,
            since: Timestamp::EPOCH,
            suspect: false,
            state: State::Ready,
            history: Vec::new(),
        }
    }

    fn attempts(&self) -> u32 {
        self.delivery - self.born
    }
}

/// An event on its way out.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) event: Arc<Event>,
    pub(super) attempt: u32,
    pub(super) delivery: u32,
    pub(super) deadline: Timestamp,
}

/// Whether a receipt may settle.
#[derive(Debug)]
pub(super) enum Standing {
    /// It is the current delivery.
    Current,
    /// It settled before, with this outcome.
    Before(Settled),
}

#[derive(Debug)]
pub(super) struct GroupState {
    pub(super) incarnation: u64,
    pub(super) deliveries: u32,
    members: BTreeMap<u64, Member>,
    pub(super) waiting: WaitList,
    /// Since when there has been no member.
    pub(super) idle_since: Option<Timestamp>,
    /// Whether it no longer holds back trimming.
    pub(super) expired: bool,
    /// Slots of positions `first`, `first + 1` …; the last belongs to the event that was handed out last.
    slots: VecDeque<Slot>,
    first: Position,
    /// Everything up to here is settled.
    floor: Position,
    /// Dead letters that came back; the topic may have forgotten them.
    revived: BTreeMap<Position, (Arc<Event>, Slot)>,
    /// Waiting to be handed out again.
    ready: BTreeSet<Position>,
    /// Likewise, one at a time for each member.
    suspects: BTreeSet<Position>,
    /// Deadlines of deliveries and delays.
    due: BTreeSet<(Timestamp, Position)>,
    in_flight: usize,
}

impl GroupState {
    /// A group whose first event is the one at `first`.
    pub(super) fn new(incarnation: u64, first: Position, deliveries: u32) -> Self {
        Self {
            incarnation,
            deliveries,
            members: BTreeMap::new(),
            waiting: WaitList::default(),
            idle_since: None,
            expired: false,
            slots: VecDeque::new(),
            first,
            floor: Position::new(first.get() - 1),
            revived: BTreeMap::new(),
            ready: BTreeSet::new(),
            suspects: BTreeSet::new(),
            due: BTreeSet::new(),
            in_flight: 0,
        }
    }

    pub(super) fn join(&mut self, consumer: u64, member: Member) {
        self.members.insert(consumer, member);
        self.idle_since = None;
    }

    /// Ends the subscriptions that qualify and answers with their waiters. Their deliveries stay until they end.
    pub(super) fn leave(&mut self, now: Timestamp, leaves: impl Fn(u64, &Member) -> bool) -> Vec<Waker> {
        let mut left = BTreeSet::new();
        for (id, member) in self.members.iter_mut().filter(|(_, member)| member.open) {
            if leaves(*id, member) {
                member.open = false;
                left.insert(*id);
            }
        }
        self.members.retain(|_, member| member.open || member.in_flight > 0);
        if !left.is_empty() && self.open_members() == 0 {
            self.idle_since = Some(now);
        }
        self.waiting.all(|consumer| left.contains(&consumer))
    }

    pub(super) fn open_members(&self) -> usize {
        self.members.values().filter(|member| member.open).count()
    }

    /// The position of the next event that was never handed out.
    pub(super) fn cursor(&self) -> Position {
        Position::new(self.first.get() + self.slots.len() as u64)
    }

    pub(super) fn floor(&self) -> Position {
        self.floor
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn describe(&self, name: GroupName, log: &Log) -> Group {
        let mut group = Group::new(name, self.incarnation);
        group.floor = self.floor;
        group.consumers = self.open_members();
        group.in_flight = self.in_flight;
        group.returning = self.ready.len() + self.suspects.len() + self.due.len() - self.in_flight;
        group.backlog = log.end().get() - self.cursor().get();
        group.expired = self.expired;
        group
    }

    /// The earliest deadline.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    fn slot(&self, position: Position) -> Option<&Slot> {
        if let Some((_, slot)) = self.revived.get(&position) {
            return Some(slot);
        }
        let nth = position.get().checked_sub(self.first.get())?;
        self.slots.get(usize::try_from(nth).ok()?)
    }

    fn slot_mut(&mut self, position: Position) -> Option<&mut Slot> {
        if let Some((_, slot)) = self.revived.get_mut(&position) {
            return Some(slot);
        }
        let nth = position.get().checked_sub(self.first.get())?;
        self.slots.get_mut(usize::try_from(nth).ok()?)
    }

    fn event(&self, position: Position, log: &Log) -> Option<Arc<Event>> {
        let revived = self.revived.get(&position).map(|(event, _)| event);
        revived.or_else(|| log.get(position)).map(Arc::clone)
    }

    /// What `member` would get next.
    fn offer(&self, member: &Member, log: &Log) -> Option<Position> {
        if !member.open || member.in_flight >= member.prefetch {
            return None;
        }
        let suspect = if member.suspects == 0 { self.suspects.first() } else { None };
        let returning = match (self.ready.first(), suspect) {
            (Some(ready), Some(suspect)) => Some(*ready.min(suspect)),
            (ready, suspect) => ready.or(suspect).copied(),
        };
        returning.or_else(|| Some(self.cursor()).filter(|cursor| *cursor < log.end()))
    }

    /// Hands the next event to a member.
    pub(super) fn take(&mut self, consumer: u64, log: &Log, now: Timestamp) -> Option<Handed> {
        let member = self.members.get(&consumer)?;
        let position = self.offer(member, log)?;
        let event = self.event(position, log)?;
        let deadline = now + member.ack_timeout;
        if position == self.cursor() {
            self.slots.push_back(Slot::new());
        } else {
            self.ready.remove(&position);
            self.suspects.remove(&position);
        }
        let slot = self.slot_mut(position)?;
        slot.delivery += 1;
        slot.consumer = consumer;
        slot.since = now;
        slot.state = State::InFlight { deadline };
        let handed = Handed { event, attempt: slot.attempts(), delivery: slot.delivery, deadline };
        let suspect = usize::from(slot.suspect);
        self.hold(consumer, suspect);
        self.due.insert((deadline, position));
        Some(handed)
    }

    fn hold(&mut self, consumer: u64, suspect: usize) {
        self.in_flight += 1;
        if let Some(member) = self.members.get_mut(&consumer) {
            member.in_flight += 1;
            member.suspects += suspect;
        }
    }

    fn release(&mut self, consumer: u64, suspect: usize) {
        self.in_flight -= 1;
        let Some(member) = self.members.get_mut(&consumer) else {
            return;
        };
        member.in_flight -= 1;
        member.suspects -= suspect;
        if !member.open && member.in_flight == 0 {
            self.members.remove(&consumer);
        }
    }

    /// Takes a slot out of whatever index it stands in, so that its state can change.
    fn unindex(&mut self, position: Position) {
        let Some(slot) = self.slot(position) else {
            return;
        };
        let (consumer, suspect) = (slot.consumer, usize::from(slot.suspect));
        match slot.state {
            State::InFlight { deadline } => {
                self.due.remove(&(deadline, position));
                self.release(consumer, suspect);
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
    }

    /// Whether `receipt` may settle, or has.
    pub(super) fn standing(&self, receipt: &Receipt) -> Result<Standing, Error> {
        let position = receipt.position();
        if position >= self.cursor() {
            return Err(receipt.stale(None));
        }
        let Some(slot) = self.slot(position) else {
            let topic = receipt.origin().topic.clone();
            return Err(Error::NotRetained { topic, position, oldest: self.first });
        };
        let failure = slot.history.iter().rev().find(|failure| failure.attempt.delivery == receipt.delivery());
        if let Some(Failure { attempt, death }) = failure {
            match (&attempt.end, death) {
                (AttemptEnd::Nacked { .. } | AttemptEnd::Refused { .. }, Some(id)) => {
                    return Ok(Standing::Before(Settled::DeadLettered(*id)));
                }
                (AttemptEnd::Nacked { retry_at: Some(at), .. }, None) => {
                    return Ok(Standing::Before(Settled::Retrying(*at)));
                }
                // The deadline passed, but the event was not handed out since: better late than twice.
                (_, None) if slot.delivery == receipt.delivery() => {}
                _ => return Err(receipt.stale(slot.current())),
            }
        }
        if slot.delivery != receipt.delivery() || slot.consumer != receipt.origin().consumer {
            return Err(receipt.stale(slot.current()));
        }
        match &slot.state {
            State::Settled(outcome) => Ok(Standing::Before(outcome.clone())),
            _ => Ok(Standing::Current),
        }
    }

    /// Ends the current delivery with success.
    pub(super) fn finish(&mut self, position: Position, outcome: Settled) {
        self.unindex(position);
        if let Some((_, slot)) = self.revived.remove(&position)
            && let Some(place) = self.slot_mut(position)
        {
            *place = slot;
        }
        if let Some(slot) = self.slot_mut(position) {
            slot.state = State::Settled(outcome);
        }
        self.advance();
    }

    fn advance(&mut self) {
        let settled = |slot: &Slot| matches!(slot.state, State::Settled(_));
        loop {
            let next = self.floor.next();
            let Some(nth) = next.get().checked_sub(self.first.get()) else {
                break;
            };
            let slot = usize::try_from(nth).ok().and_then(|nth| self.slots.get(nth));
            if !slot.is_some_and(settled) {
                break;
            }
            self.floor = next;
        }
    }

    /// Whether the current delivery of `position` is the last one.
    pub(super) fn is_last_attempt(&self, position: Position) -> bool {
        self.slot(position).is_some_and(|slot| slot.attempts() >= self.deliveries)
    }

    /// How often the current delivery of `position` has been tried.
    pub(super) fn attempts(&self, position: Position) -> u32 {
        self.slot(position).map_or(0, Slot::attempts)
    }

    /// Who handles or handled the current delivery.
    fn handler(&self, position: Position) -> ConsumerName {
        let slot = self.slot(position);
        let member = slot.and_then(|slot| self.members.get(&slot.consumer)).map(|member| member.name.clone());
        let last = slot.and_then(|slot| slot.history.last()).map(|failure| failure.attempt.consumer.clone());
        member.or(last).unwrap_or_else(|| label(slot.map_or(0, |slot| slot.consumer)))
    }

    /// Ends the current delivery without success. A settle that came late, but in time, replaces the time-out.
    fn fail(&mut self, position: Position, now: Timestamp, end: AttemptEnd) {
        let name = self.handler(position);
        self.unindex(position);
        let Some(slot) = self.slot_mut(position) else {
            return;
        };
        slot.history.pop_if(|failure| failure.attempt.delivery == slot.delivery);
        let attempt = Attempt::new(slot.delivery, name, slot.since, now, end);
        slot.history.push(Failure { attempt, death: None });
    }

    /// Ends the current delivery without success; the event returns at `at`.
    pub(super) fn give_back(&mut self, position: Position, now: Timestamp, at: Timestamp, reason: Option<Text>) {
        self.fail(position, now, AttemptEnd::Nacked { reason, retry_at: Some(at) });
        if at <= now {
            return self.ready_again(position, false);
        }
        let Some(slot) = self.slot_mut(position) else {
            return;
        };
        slot.suspect = false;
        slot.state = State::Delayed(at);
        self.due.insert((at, position));
    }

    /// Ends the current delivery for good; [`GroupState::bury`] must follow.
    pub(super) fn give_up(&mut self, position: Position, now: Timestamp, end: AttemptEnd) {
        self.fail(position, now, end);
        self.park(position);
    }

    /// Leaves a slot without any index, until it is buried.
    fn park(&mut self, position: Position) {
        if let Some(slot) = self.slot_mut(position) {
            slot.state = State::Ready;
        }
    }

    /// What a dead letter says of an event that was given up on: the event, and every failure of this life.
    pub(super) fn last_words(&self, position: Position, log: &Log) -> Option<(Arc<Event>, Vec<Attempt>)> {
        let event = self.event(position, log)?;
        let slot = self.slot(position)?;
        let lived = slot.history.iter().filter(|failure| failure.attempt.delivery > slot.born);
        Some((event, lived.map(|failure| failure.attempt.clone()).collect()))
    }

    /// Marks an event that was given up on as the dead letter `id`.
    pub(super) fn bury(&mut self, position: Position, id: DeadLetterId) {
        if let Some(slot) = self.slot_mut(position)
            && let Some(last) = slot.history.last_mut()
        {
            last.death = Some(id);
        }
        self.finish(position, Settled::DeadLettered(id));
    }

    /// Gives a dead letter back to the group, with all attempts anew.
    pub(super) fn revive(&mut self, event: Arc<Event>, deliveries: u32) {
        let position = event.position;
        let mut slot = self.slot(position).cloned().unwrap_or_else(Slot::new);
        slot.delivery = slot.delivery.max(deliveries);
        slot.born = slot.delivery;
        slot.suspect = false;
        slot.state = State::Ready;
        self.revived.insert(position, (event, slot));
        self.ready.insert(position);
    }

    /// Moves the deadline of the current delivery.
    pub(super) fn extend(&mut self, position: Position, deadline: Timestamp) {
        self.unindex(position);
        let Some(slot) = self.slot_mut(position) else {
            return;
        };
        slot.history.pop_if(|failure| failure.attempt.delivery == slot.delivery);
        slot.state = State::InFlight { deadline };
        let (consumer, suspect) = (slot.consumer, usize::from(slot.suspect));
        self.hold(consumer, suspect);
        self.due.insert((deadline, position));
    }

    /// Ends what is due and answers with the events that have to be buried.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Position> {
        let mut dying = Vec::new();
        while let Some(&(at, position)) = self.due.first()
            && at <= now
        {
            let Some(slot) = self.slot(position) else {
                break;
            };
            if let State::Delayed(_) = slot.state {
                self.unindex(position);
                self.ready_again(position, false);
                continue;
            }
            let is_there = self.members.get(&slot.consumer).is_some_and(|member| member.open);
            let end = if is_there { AttemptEnd::TimedOut } else { AttemptEnd::Lost };
            if self.is_last_attempt(position) {
                self.give_up(position, at, end);
                dying.push(position);
            } else {
                self.fail(position, at, end);
                self.ready_again(position, true);
            }
        }
        dying
    }

    fn ready_again(&mut self, position: Position, suspect: bool) {
        let index = if suspect { &mut self.suspects } else { &mut self.ready };
        index.insert(position);
        if let Some(slot) = self.slot_mut(position) {
            slot.suspect = suspect;
            slot.state = State::Ready;
        }
    }

    /// Wakes members for what can be had, at most `most` of them.
    pub(super) fn wake(&mut self, log: &Log, most: usize) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let mut waiting = std::mem::take(&mut self.waiting);
        while wakers.len() < most && !waiting.is_empty() {
            let qualifies = |consumer| self.members.get(&consumer).is_some_and(|m| self.offer(m, log).is_some());
            let Some(waker) = waiting.first(qualifies) else {
                break;
            };
            wakers.push(waker);
        }
        self.waiting = waiting;
        wakers
    }

    /// Forgets slots below `first`, the oldest event that the topic retains. Answers how many were not settled.
    pub(super) fn forget_below(&mut self, first: Position) -> u64 {
        let mut lost = 0;
        while self.first < first {
            let position = self.first;
            if !self.revived.contains_key(&position) {
                self.unindex(position);
            }
            match self.slots.pop_front() {
                Some(Slot { state: State::Settled(_), .. }) => {}
                _ => lost += u64::from(!self.revived.contains_key(&position)),
            }
            self.first = position.next();
        }
        self.floor = self.floor.max(Position::new(self.first.get() - 1));
        self.advance();
        lost
    }
}

impl Slot {
    /// The delivery that counts, if one does.
    fn current(&self) -> Option<u32> {
        let counts = !matches!(self.state, State::Settled(_)) && self.delivery > self.born;
        counts.then_some(self.delivery)
    }
}

/// The name of a consumer that was given none.
pub(super) fn label(consumer: u64) -> ConsumerName {
    const UNNAMED: ConsumerName = ConsumerName::from_static("consumer");
    ConsumerName::new(format!("consumer-{consumer}")).unwrap_or(UNNAMED)
}
