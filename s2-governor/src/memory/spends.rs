//! What was spent under which key, and what is held.

use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use s2_coordinator::{IdempotencyKey, SwarmId, Timestamp, TraceToken, UtcDay};

use crate::account::Level;
use crate::memory::turn::About;
use crate::memory::turn::Turn;
use crate::money::NanoUsd;
use crate::spend::Expiry;
use crate::spend::Posted;

/// How often ended spends are looked through for those that may be forgotten.
const EVERY: u64 = 64;

/// What a cost has done, in as few bytes as possible: there are many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) remaining: NanoUsd,
    pub(super) spent: NanoUsd,
    pub(super) limit: NanoUsd,
    pub(super) level: Level,
    /// How many levels above the session.
    pub(super) above: u8,
}

impl Reached {
    pub(super) fn posted(self, session: &SwarmId) -> Posted {
        let swarm = (0..self.above).fold(session.clone(), |swarm, _| swarm.parent().unwrap_or(swarm));
        Posted::new(self.remaining, self.level, swarm, self.spent, self.limit)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Held,
    /// It expired, and counts as spent until somebody knows better.
    Presumed,
    /// It expired, and is free again.
    Lapsed,
    Released,
    Settled(NanoUsd, Reached),
}

#[derive(Clone, Debug)]
pub(super) struct Spend {
    pub(super) key: IdempotencyKey,
    pub(super) session: SwarmId,
    pub(super) day: UtcDay,
    /// What was reserved; nothing, if it was charged.
    pub(super) amount: Option<NanoUsd>,
    /// Until when it is held, or presumed; after that, when it ended first.
    pub(super) at: Timestamp,
    pub(super) expiry: Expiry,
    pub(super) trace: Option<Box<TraceToken>>,
    pub(super) state: State,
}

impl Spend {
    pub(super) fn about(&self) -> About<'_> {
        About { key: &self.key, session: &self.session, trace: self.trace.as_deref().copied() }
    }

    /// Its place among those that expire, or become final.
    fn due(&self) -> (Timestamp, IdempotencyKey) {
        (self.at, self.key.clone())
    }

    /// Whether nothing becomes of it by itself any more.
    const fn is_over(&self) -> bool {
        matches!(self.state, State::Lapsed | State::Released | State::Settled(..))
    }

    /// How the reservation has ended, if it has.
    pub(super) const fn how_ended(&self) -> Option<&'static str> {
        match self.state {
            State::Held => None,
            State::Presumed | State::Lapsed => Some("expired"),
            State::Released => Some("released"),
            State::Settled(..) => Some("settled"),
        }
    }

    /// What it is, for whoever takes it for something else.
    pub(super) fn describe(&self) -> String {
        match (self.amount, &self.state) {
            (Some(amount), _) => format!("a reservation of {amount} by {}", self.session),
            (None, State::Settled(cost, _)) => format!("a charge of {cost} by {}", self.session),
            (None, _) => format!("a charge by {}", self.session),
        }
    }
}

/// Spends lie in places that are used again, and are found by a small index: most of them are only remembered, and should not
/// be in the way of the others.
#[derive(Debug, Default)]
pub(super) struct Spends {
    places: Vec<Spend>,
    free: Vec<u32>,
    /// Places by their keys, which lie there.
    index: HashTable<u32>,
    hasher: RandomState,
    due: BTreeMap<(Timestamp, IdempotencyKey), u32>,
    /// Those that have ended, the oldest first.
    ended: VecDeque<u32>,
    ends: u64,
}

impl Spends {
    pub(super) fn open(&self) -> usize {
        self.due.len()
    }

    /// The spend under a key and its place, unless it ended so long ago that it counts as forgotten.
    pub(super) fn get(&self, key: &IdempotencyKey, turn: &Turn<'_, '_>) -> Option<(u32, &Spend)> {
        let hash = self.hasher.hash_one(key);
        let place = *self.index.find(hash, |place| self.places[*place as usize].key == *key)?;
        let spend = &self.places[place as usize];
        Some((place, spend)).filter(|(_, spend)| !spend.is_over() || spend.at > turn.forgets)
    }

    fn keep(&mut self, spend: Spend) -> u32 {
        let hash = self.hasher.hash_one(&spend.key);
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = spend;
                place
            }
            None => {
                self.places.push(spend);
                u32::try_from(self.places.len() - 1).expect("fewer than the limits allow")
            }
        };
        let Self { places, index, hasher, .. } = self;
        let key = |place: &u32| &places[*place as usize].key;
        match index.entry(hash, |other| key(other) == key(&place), |other| hasher.hash_one(key(other))) {
            // The key of one that counts as forgotten is used anew.
            Entry::Occupied(mut other) => *other.get_mut() = place,
            Entry::Vacant(none) => {
                none.insert(place);
            }
        }
        place
    }

    /// The spend in a place is not found any more. One that has used its key anew still is.
    fn free(&mut self, place: u32) {
        let hash = self.hasher.hash_one(&self.places[place as usize].key);
        if let Ok(found) = self.index.find_entry(hash, |other| *other == place) {
            found.remove();
        }
        self.free.push(place);
    }

    pub(super) fn hold(&mut self, spend: Spend) {
        let due = spend.due();
        let place = self.keep(spend);
        self.due.insert(due, place);
    }

    /// Keeps a spend that was over as soon as it began.
    pub(super) fn charged(&mut self, spend: Spend, turn: &Turn<'_, '_>) {
        let place = self.keep(spend);
        self.end(place, turn);
    }

    /// A reservation expires: until then it can be corrected.
    pub(super) fn presume(&mut self, place: u32, until: Timestamp) {
        self.places[place as usize].state = State::Presumed;
        self.extend(place, until);
    }

    /// What was presumed is final.
    pub(super) fn finish(&mut self, place: u32) {
        let spend = &self.places[place as usize];
        self.due.remove(&spend.due());
        self.free(place);
    }

    /// A reservation holds until then.
    pub(super) fn extend(&mut self, place: u32, until: Timestamp) {
        let spend = &mut self.places[place as usize];
        self.due.remove(&spend.due());
        spend.at = until;
        self.due.insert(spend.due(), place);
    }

    /// The one that is overdue for longest: it expires, or is final.
    pub(super) fn next_due(&self, now: Timestamp) -> Option<(u32, Spend)> {
        let (_, place) = self.due.first_key_value().filter(|((until, _), _)| *until <= now)?;
        Some((*place, self.places[*place as usize].clone()))
    }

    /// A spend is in another state; its first end counts.
    pub(super) fn set(&mut self, place: u32, state: State, turn: &Turn<'_, '_>) {
        let spend = &mut self.places[place as usize];
        let was_over = spend.is_over();
        spend.state = state;
        if !was_over {
            self.due.remove(&spend.due());
            spend.at = turn.now;
            self.end(place, turn);
        }
    }

    fn end(&mut self, place: u32, turn: &Turn<'_, '_>) {
        self.ended.push_back(place);
        self.ends += 1;
        if self.ends.is_multiple_of(EVERY) {
            self.forget(turn);
        }
    }

    /// Forgets what ended too long ago, or is too much.
    fn forget(&mut self, turn: &Turn<'_, '_>) {
        let most = turn.settings.remembered;
        let is_old = |place: u32| self.places[place as usize].at <= turn.forgets;
        let too_many = self.ended.len().saturating_sub(most);
        let old = self.ended.iter().skip(too_many).take_while(|place| is_old(**place)).count();
        for _ in 0..too_many + old {
            if let Some(place) = self.ended.pop_front() {
                self.free(place);
            }
        }
    }
}
