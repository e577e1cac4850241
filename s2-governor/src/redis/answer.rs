//! What the script answers.

use s2_coordinator::{Reply, SwarmId, Text, Timestamp, UtcDay};

use crate::account::Balance;
use crate::account::Level;
use crate::money::NanoUsd;
use crate::seen::Seen;
use crate::spend::Denial;
use crate::spend::Denied;
use crate::spend::Posted;

/// An answer: a word, the point at which the ledger is, and what the verb says.
#[derive(Debug)]
pub(super) struct Answer(Reply);

impl Answer {
    pub(super) const fn new(reply: Reply) -> Self {
        Self(reply)
    }

    pub(super) fn word(&self) -> &str {
        self.0.get(0).and_then(Reply::as_str).unwrap_or_default()
    }

    pub(super) fn seen(&self) -> Option<Seen> {
        Some(Seen::new(self.0.get(1)?.as_u64()?, self.0.get(2)?.as_u64()?))
    }

    /// The n-th thing that the verb says.
    fn at(&self, nth: usize) -> Option<&Reply> {
        self.0.get(nth + 3)
    }

    pub(super) fn number(&self, nth: usize) -> Option<u64> {
        self.at(nth)?.as_u64()
    }

    pub(super) fn text(&self, nth: usize) -> Option<&str> {
        self.at(nth)?.as_str()
    }

    pub(super) fn amount(&self, nth: usize) -> Option<NanoUsd> {
        self.number(nth).map(NanoUsd::from_nanos)
    }

    pub(super) fn time(&self, nth: usize) -> Option<Timestamp> {
        self.number(nth).map(Timestamp::from_micros)
    }

    pub(super) fn day(&self, nth: usize) -> Option<UtcDay> {
        self.number(nth).map(day)
    }

    pub(super) fn denied(&self, session: &SwarmId) -> Option<Denied> {
        let reason = match self.text(4)? {
            "held" => Denial::Held,
            "spent" => Denial::Spent,
            "halted" => Denial::Halted,
            "frozen" => Denial::Frozen,
            _ => return None,
        };
        let swarm = level_up(session, self.number(1)?)?;
        Some(Denied::new(swarm, self.day(0)?, self.amount(2)?, self.amount(3)?, reason))
    }

    pub(super) fn posted(&self, session: &SwarmId) -> Option<Posted> {
        let said = self.at(0)?;
        let swarm = level_up(session, said.get(2)?.as_u64()?)?;
        let amount = |nth| Some(NanoUsd::from_nanos(said.get(nth)?.as_u64()?));
        Some(Posted::new(amount(0)?, level(said.get(1)?)?, swarm, amount(3)?, amount(4)?))
    }

    /// The balances of a swarm and those that contain it, as many as there are.
    pub(super) fn balances(&self, swarm: &SwarmId) -> Option<Vec<Balance>> {
        let (day, said) = (self.day(0)?, self.at(1)?.as_list()?);
        swarm.ancestors().zip(said).map(|(swarm, said)| balance(swarm, day, said)).collect()
    }

    pub(super) fn balance(&self, swarm: &SwarmId) -> Option<Balance> {
        balance(swarm.clone(), self.day(0)?, self.at(1)?)
    }

    /// The balances of those within a swarm.
    pub(super) fn within(&self) -> Option<Vec<Balance>> {
        let day = self.day(0)?;
        let one = |said: &Reply| balance(said.get(0)?.as_str()?.parse().ok()?, day, said.get(1)?);
        self.at(2)?.as_list()?.iter().map(one).collect()
    }
}

fn day(number: u64) -> UtcDay {
    UtcDay::of(Timestamp::from_micros(number.saturating_mul(24 * 60 * 60 * 1_000_000)))
}

/// The nth swarm on the way up, from 1 on.
fn level_up(session: &SwarmId, nth: u64) -> Option<SwarmId> {
    session.ancestors().nth(usize::try_from(nth).ok()?.checked_sub(1)?)
}

fn level(said: &Reply) -> Option<Level> {
    match said.as_int()? {
        0 => Some(Level::Within),
        1 => Some(Level::Warned),
        2 => Some(Level::Exhausted),
        _ => None,
    }
}

fn balance(swarm: SwarmId, day: UtcDay, said: &Reply) -> Option<Balance> {
    let amount = |nth| Some(NanoUsd::from_nanos(said.get(nth)?.as_u64()?));
    let mut balance = Balance::empty(swarm, day, amount(0)?);
    (balance.spent, balance.held, balance.presumed) = (amount(1)?, amount(2)?, amount(3)?);
    balance.level = level(said.get(4)?)?;
    balance.halted = said.get(5)?.as_str().map(Text::new);
    Some(balance)
}
