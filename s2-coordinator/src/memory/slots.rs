//! Where the slots of a group lie.
//!
//! Fresh events are handed out in order, so their slots lie in a row and are found by position. Dead letters that came
//! back lie apart, together with their event: the topic may have forgotten it long ago.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Event, Position};
use crate::memory::log::Log;
use crate::memory::slot::Slot;
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct Slots {
    /// Slots of positions `first`, `first + 1` …; the last belongs to the event that was handed out last.
    row: VecDeque<Slot>,
    first: Position,
    /// Everything up to here is settled.
    floor: Position,
    revived: BTreeMap<Position, (Arc<Event>, Slot)>,
}

impl Slots {
    /// Slots of a group whose first event is the one at `first`.
    pub(super) const fn new(first: Position) -> Self {
        let floor = Position::new(first.get() - 1);
        Self { row: VecDeque::new(), first, floor, revived: BTreeMap::new() }
    }

    /// The oldest position whose slot is there, or the cursor.
    pub(super) const fn first(&self) -> Position {
        self.first
    }

    /// The position of the next event that was never handed out.
    pub(super) fn cursor(&self) -> Position {
        Position::new(self.first.get() + self.row.len() as u64)
    }

    pub(super) const fn floor(&self) -> Position {
        self.floor
    }

    fn place(&self, position: Position) -> Option<usize> {
        usize::try_from(position.get().checked_sub(self.first.get())?).ok()
    }

    pub(super) fn get(&self, position: Position) -> Option<&Slot> {
        match self.revived.get(&position) {
            Some((_, slot)) => Some(slot),
            None => self.row.get(self.place(position)?),
        }
    }

    pub(super) fn get_mut(&mut self, position: Position) -> Option<&mut Slot> {
        let place = self.place(position);
        match self.revived.get_mut(&position) {
            Some((_, slot)) => Some(slot),
            None => self.row.get_mut(place?),
        }
    }

    /// The event of a slot, or the next one.
    pub(super) fn event(&self, position: Position, log: &Log) -> Option<Arc<Event>> {
        let revived = self.revived.get(&position).map(|(event, _)| event);
        revived.or_else(|| log.get(position)).map(Arc::clone)
    }

    /// The slot of an event that is there, or a new one for the next event.
    pub(super) fn get_or_open(&mut self, position: Position) -> Option<&mut Slot> {
        if position == self.cursor() {
            self.row.push_back(Slot::new());
        }
        self.get_mut(position)
    }

    /// Moves the floor after a slot was settled, and a slot that came back from the dead to where it was.
    pub(super) fn after_settling(&mut self, position: Position) {
        if let Some(place) = self.place(position)
            && let Some((event, slot)) = self.revived.remove(&position)
        {
            match self.row.get_mut(place) {
                Some(home) => *home = slot,
                None => drop(self.revived.insert(position, (event, slot))),
            }
        }
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(place) = self.place(self.floor.next())
            && self.row.get(place).is_some_and(Slot::is_settled)
        {
            self.floor = self.floor.next();
        }
    }

    /// Puts the slot of a dead letter back.
    pub(super) fn revive(&mut self, event: Arc<Event>, slot: Slot) {
        self.revived.insert(event.position, (event, slot));
    }

    /// Whether the event at this position came back from the dead.
    pub(super) fn is_revived(&self, position: Position) -> bool {
        self.revived.contains_key(&position)
    }

    /// Forgets settles that nobody repeats any more, of events before `oldest`, which the topic has forgotten. With more
    /// than `most` of them, the oldest go early.
    pub(super) fn forget_past(&mut self, oldest: Position, now: Timestamp, window: Duration, most: u64) {
        while self.first < oldest
            && let Some(slot) = self.row.front()
            && slot.is_settled()
            && (slot.is_past(now, window) || oldest.get() - self.first.get() > most)
        {
            self.pop();
        }
        self.revived.retain(|_, (_, slot)| !slot.is_past(now, window));
    }

    /// Forgets the oldest position and answers whether it had been settled.
    pub(super) fn pop(&mut self) -> bool {
        let settled = self.row.pop_front().is_some_and(|slot| slot.is_settled());
        self.floor = self.floor.max(self.first);
        self.first = self.first.next();
        self.advance();
        settled
    }
}
