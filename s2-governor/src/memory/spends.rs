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
    /// It expired, and counts as spent.
    Presumed,
    /// It expired, and is free again.
    Lapsed,
    Released,
    Settled(NanoUsd, Posted),
}

#[derive(Clone, Debug)]
pub(super) struct Spend {
    pub(super) session: SwarmId,
    pub(super) day: UtcDay,
    /// What was reserved; nothing, if it was charged.
    pub(super) amount: Option<NanoUsd>,
    pub(super) until: Timestamp,
    pub(super) expiry: Expiry,
    pub(super) trace: Option<TraceToken>,
    pub(super) state: State,
    /// When it ended first.
    pub(super) ended: Option<Timestamp>,
}

impl Spend {
    pub(super) const fn about<'a>(&'a self, key: &'a IdempotencyKey) -> About<'a> {
        About { key, session: &self.session, trace: self.trace }
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

#[derive(Debug, Default)]
pub(super) struct Spends {
    spends: HashMap<IdempotencyKey, Spend>,
    due: BTreeSet<(Timestamp, IdempotencyKey)>,
    /// Those that have ended, the oldest first.
    ended: VecDeque<(Timestamp, IdempotencyKey)>,
    ends: u64,
}

impl Spends {
    pub(super) fn open(&self) -> usize {
        self.due.len()
    }

    /// The spend under a key, unless it ended so long ago that it counts as forgotten.
    pub(super) fn get(&mut self, key: &IdempotencyKey, turn: &Turn<'_, '_>) -> Option<&mut Spend> {
        self.spends.get_mut(key).filter(|spend| spend.ended.is_none_or(|at| at > turn.forgets))
    }

    pub(super) fn hold(&mut self, key: IdempotencyKey, spend: Spend) {
        self.due.insert((spend.until, key.clone()));
        self.spends.insert(key, spend);
    }

    /// Keeps a spend that was over as soon as it began.
    pub(super) fn charged(&mut self, key: IdempotencyKey, spend: Spend, turn: &Turn<'_, '_>) {
        self.spends.insert(key.clone(), spend);
        self.end(&key, turn);
    }

    /// A reservation holds until then.
    pub(super) fn extend(&mut self, key: &IdempotencyKey, until: Timestamp) {
        if let Some(spend) = self.spends.get_mut(key) {
            self.due.remove(&(spend.until, key.clone()));
            spend.until = until;
            self.due.insert((until, key.clone()));
        }
    }

    /// The reservation that is overdue for longest.
    pub(super) fn next_due(&self, now: Timestamp) -> Option<(IdempotencyKey, Spend)> {
        let (_, key) = self.due.first().filter(|(until, _)| *until <= now)?;
        Some((key.clone(), self.spends.get(key)?.clone()))
    }

    /// A spend is in another state; its first end counts.
    pub(super) fn set(&mut self, key: &IdempotencyKey, state: State, turn: &Turn<'_, '_>) {
        let Some(spend) = self.spends.get_mut(key) else { return };
        spend.state = state;
        if spend.ended.is_none() {
            self.due.remove(&(spend.until, key.clone()));
            self.end(key, turn);
        }
    }

    fn end(&mut self, key: &IdempotencyKey, turn: &Turn<'_, '_>) {
        if let Some(spend) = self.spends.get_mut(key) {
            spend.ended = Some(turn.now);
        }
        self.ended.push_back((turn.now, key.clone()));
        self.ends += 1;
        if self.ends.is_multiple_of(EVERY) {
            self.forget(turn);
        }
    }

    /// Forgets what ended too long ago, or is too much.
    fn forget(&mut self, turn: &Turn<'_, '_>) {
        let most = turn.settings.remembered;
        while self.ended.front().is_some_and(|(at, _)| *at <= turn.forgets || self.ended.len() > most)
            && let Some((at, key)) = self.ended.pop_front()
        {
            // The key may have been used anew.
            if self.spends.get(&key).is_some_and(|spend| spend.ended == Some(at)) {
                self.spends.remove(&key);
            }
        }
    }
}
