//! What was spent under which key, and what is held.

use std::collections::{BTreeSet, HashMap, VecDeque};

use s2_coordinator::{IdempotencyKey, SwarmId, Timestamp, TraceToken, UtcDay};

use crate::memory::turn::About;
use crate::memory::turn::Turn;
use crate::money::NanoUsd;
use crate::spend::Expiry;
use crate::spend::Posted;

/// How often ended spends are looked through for those that may be forgotten.
const EVERY: u64 = 64;

#[derive(Clone, Debug)]
pub(super) enum State {
    Held,
    /// It expired, and counts as spent until somebody knows better.
    Presumed,
    /// It expired, and is free again.
    Lapsed,
    Released,
    Settled(NanoUsd, Posted),
}

#[derive(Clone, Debug)]
pub(super) struct Spend {
    pub(super) key: IdempotencyKey,
    pub(super) session: SwarmId,
    pub(super) day: UtcDay,
    /// What was reserved; nothing, if it was charged.
    pub(super) amount: Option<NanoUsd>,
    pub(super) until: Timestamp,
    pub(super) expiry: Expiry,
    pub(super) trace: Option<Box<TraceToken>>,
    pub(super) state: State,
    /// When it ended first.
    pub(super) ended: Option<Timestamp>,
}

impl Spend {
    pub(super) fn about(&self) -> About<'_> {
        About { key: &self.key, session: &self.session, trace: self.trace.as_deref().copied() }
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
    index: HashMap<IdempotencyKey, u32>,
    due: BTreeSet<(Timestamp, IdempotencyKey)>,
    /// Those that have ended, the oldest first.
    ended: VecDeque<(Timestamp, u32)>,
    ends: u64,
}

impl Spends {
    pub(super) fn open(&self) -> usize {
        self.due.len()
    }

    /// The spend under a key and its place, unless it ended so long ago that it counts as forgotten.
    pub(super) fn get(&self, key: &IdempotencyKey, turn: &Turn<'_, '_>) -> Option<(u32, &Spend)> {
        let place = *self.index.get(key)?;
        let spend = &self.places[place as usize];
        Some((place, spend)).filter(|(_, spend)| spend.ended.is_none_or(|at| at > turn.forgets))
    }

    fn keep(&mut self, spend: Spend) -> u32 {
        let key = spend.key.clone();
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
        self.index.insert(key, place);
        place
    }

    pub(super) fn hold(&mut self, spend: Spend) {
        self.due.insert((spend.until, spend.key.clone()));
        self.keep(spend);
    }

    /// Keeps a spend that was over as soon as it began.
    pub(super) fn charged(&mut self, spend: Spend, turn: &Turn<'_, '_>) {
        let place = self.keep(Spend { ended: Some(turn.now), ..spend });
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
        self.due.remove(&(spend.until, spend.key.clone()));
        self.index.remove(&spend.key);
        self.free.push(place);
    }

    /// A reservation holds until then.
    pub(super) fn extend(&mut self, place: u32, until: Timestamp) {
        let spend = &mut self.places[place as usize];
        self.due.remove(&(spend.until, spend.key.clone()));
        spend.until = until;
        self.due.insert((until, spend.key.clone()));
    }

    /// The one that is overdue for longest: it expires, or is final.
    pub(super) fn next_due(&self, now: Timestamp) -> Option<(u32, Spend)> {
        let (_, key) = self.due.first().filter(|(until, _)| *until <= now)?;
        let place = *self.index.get(key)?;
        Some((place, self.places[place as usize].clone()))
    }

    /// A spend is in another state; its first end counts.
    pub(super) fn set(&mut self, place: u32, state: State, turn: &Turn<'_, '_>) {
        let spend = &mut self.places[place as usize];
        spend.state = state;
        if spend.ended.is_none() {
            spend.ended = Some(turn.now);
            self.due.remove(&(spend.until, spend.key.clone()));
            self.end(place, turn);
        }
    }

    fn end(&mut self, place: u32, turn: &Turn<'_, '_>) {
        self.ended.push_back((turn.now, place));
        self.ends += 1;
        if self.ends.is_multiple_of(EVERY) {
            self.forget(turn);
        }
    }

    /// Forgets what ended too long ago, or is too much.
    fn forget(&mut self, turn: &Turn<'_, '_>) {
        let most = turn.settings.remembered;
        while self.ended.front().is_some_and(|(at, _)| *at <= turn.forgets || self.ended.len() > most)
            && let Some((_, place)) = self.ended.pop_front()
        {
            let key = &self.places[place as usize].key;
            if let Some(other) = self.index.remove(key).filter(|other| *other != place) {
                // The key was used anew.
                self.index.insert(key.clone(), other);
            }
            self.free.push(place);
        }
    }
}
