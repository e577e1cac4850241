//! A ledger that keeps a list of spends and adds them up whenever somebody asks.

use std::collections::{BTreeMap, BTreeSet};

use s2_coordinator::SwarmId;
use s2_governor::{Denial, Level};

pub(crate) const DAY: u64 = 24 * 60 * 60 * 1_000_000;
pub(crate) const WARN_PERCENT: u128 = 80;
pub(crate) const SESSION_LIMIT: u64 = 50;
pub(crate) const MOST: u64 = (1 << 53) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Held,
    Presumed,
    Lapsed,
    Released,
    Settled(u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Spend {
    pub(crate) session: SwarmId,
    pub(crate) day: u64,
    /// None for a charge.
    pub(crate) amount: Option<u64>,
    pub(crate) until: u64,
    pub(crate) presumes: bool,
    pub(crate) state: State,
}

/// What happened once on an account of a day.
#[derive(Clone, Debug, Default)]
struct Announced {
    level: Level,
    exhausted: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) limit: u64,
    pub(crate) spent: u64,
    pub(crate) held: u64,
    pub(crate) presumed: u64,
}

impl Sums {
    pub(crate) fn available(&self) -> u64 {
        self.limit.saturating_sub(self.spent + self.held)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) now: u64,
    pub(crate) spends: BTreeMap<String, Spend>,
    limits: BTreeMap<SwarmId, u64>,
    halts: BTreeMap<SwarmId, String>,
    announced: BTreeMap<(u64, SwarmId), Announced>,
    /// Each level that was announced.
    pub(crate) levels: Vec<(SwarmId, u64, Level)>,
    pub(crate) questions: BTreeSet<(SwarmId, u64)>,
}

impl Model {
    pub(crate) fn new(now: u64) -> Self {
        Self { now, ..Self::default() }
    }

    pub(crate) fn today(&self) -> u64 {
        self.now / DAY
    }

    /// Whether spends of that day name it.
    fn is_session(&self, swarm: &SwarmId, day: u64) -> bool {
        self.spends.values().any(|spend| spend.session == *swarm && spend.day == day)
    }

    fn is_used(&self, swarm: &SwarmId, day: u64) -> bool {
        self.spends.values().any(|spend| swarm.contains(&spend.session) && spend.day == day)
    }

    /// The accounts of a day, by path.
    pub(crate) fn accounts(&self, day: u64) -> BTreeSet<SwarmId> {
        let spends = self.spends.values().filter(|spend| spend.day == day);
        spends.flat_map(|spend| spend.session.ancestors()).collect()
    }

    pub(crate) fn sums(&self, swarm: &SwarmId, day: u64, as_session: bool) -> Sums {
        let default = if as_session || self.is_session(swarm, day) { SESSION_LIMIT } else { MOST };
        let mut sums = Sums { limit: self.limits.get(swarm).copied().unwrap_or(default), ..Sums::default() };
        for spend in self.spends.values().filter(|spend| spend.day == day && swarm.contains(&spend.session)) {
            let amount = spend.amount.unwrap_or_default();
            match spend.state {
                State::Held => sums.held += amount,
                State::Presumed => {
                    sums.spent += amount;
                    sums.presumed += amount;
                }
                State::Settled(actual) => sums.spent += actual,
                State::Lapsed | State::Released => {}
            }
        }
        sums
    }

    pub(crate) fn level(sums: &Sums) -> Level {
        if sums.spent >= sums.limit {
            Level::Exhausted
        } else if u128::from(sums.spent) * 100 >= u128::from(sums.limit) * WARN_PERCENT {
            Level::Warned
        } else {
            Level::Within
        }
    }

    pub(crate) fn halted(&self, swarm: &SwarmId, day: u64) -> Option<String> {
        let exhausted = self.announced.get(&(day, swarm.clone())).is_some_and(|announced| announced.exhausted);
        self.halts.get(swarm).cloned().or_else(|| exhausted.then(|| "budget_exceeded".to_owned()))
    }

    pub(crate) fn announced(&self, swarm: &SwarmId, day: u64) -> Level {
        self.announced.get(&(day, swarm.clone())).map(|announced| announced.level).unwrap_or_default()
    }

    /// Who refuses, and why.
    pub(crate) fn denies(&self, session: &SwarmId, amount: u64) -> Option<(SwarmId, Denial, Sums)> {
        let day = self.today();
        session.ancestors().enumerate().find_map(|(nth, swarm)| {
            let sums = self.sums(&swarm, day, nth == 0);
            let reason = if self.halted(&swarm, day).is_some() {
                Denial::Halted
            } else if sums.spent + sums.held + amount <= sums.limit {
                return None;
            } else if sums.spent + amount <= sums.limit {
                Denial::Held
            } else {
                Denial::Spent
            };
            Some((swarm, reason, sums))
        })
    }

    /// The levels of a path, before something changes on it.
    pub(crate) fn levels_of(&self, session: &SwarmId, day: u64) -> Vec<Level> {
        session.ancestors().map(|swarm| Self::level(&self.sums(&swarm, day, *session == swarm))).collect()
    }

    /// Something has changed on a path: whoever has spent everything by that is halted, and whoever has not any more goes on.
    pub(crate) fn judge(&mut self, session: &SwarmId, day: u64, before: &[Level], costs: bool) {
        for (swarm, before) in session.ancestors().zip(before) {
            let level = Self::level(&self.sums(&swarm, day, false));
            let announced = self.announced.entry((day, swarm.clone())).or_default();
            announced.exhausted = level == Level::Exhausted && (announced.exhausted || *before < level);
            if costs {
                self.announce(&swarm, day);
            }
        }
    }

    fn announce(&mut self, swarm: &SwarmId, day: u64) {
        let level = Self::level(&self.sums(swarm, day, false));
        let announced = self.announced.entry((day, swarm.clone())).or_default();
        if level > announced.level {
            announced.level = level;
            announced.exhausted |= level == Level::Exhausted;
            self.levels.push((swarm.clone(), day, level));
            if level == Level::Exhausted {
                self.questions.insert((swarm.clone(), day));
            }
        }
    }

    pub(crate) fn set_limit(&mut self, swarm: &SwarmId, limit: Option<u64>) {
        if self.limits.get(swarm).copied() == limit {
            return;
        }
        match limit {
            Some(limit) => self.limits.insert(swarm.clone(), limit),
            None => self.limits.remove(swarm),
        };
        let day = self.today();
        if self.is_used(swarm, day) {
            let level = Self::level(&self.sums(swarm, day, false));
            let announced = self.announced.entry((day, swarm.clone())).or_default();
            announced.level = announced.level.min(level);
            announced.exhausted = level == Level::Exhausted;
            self.announce(swarm, day);
        }
    }

    pub(crate) fn halt(&mut self, swarm: &SwarmId, reason: &str) {
        self.halts.insert(swarm.clone(), reason.to_owned());
    }

    pub(crate) fn resume(&mut self, swarm: &SwarmId) {
        self.halts.remove(swarm);
        let day = self.today();
        if let Some(announced) = self.announced.get_mut(&(day, swarm.clone())) {
            announced.exhausted = false;
        }
    }

    /// Ends what is overdue, by deadline and key.
    pub(crate) fn expire(&mut self) {
        let due = |spend: &Spend| spend.state == State::Held && spend.until <= self.now;
        let mut overdue: Vec<_> =
            self.spends.iter().filter(|(_, spend)| due(spend)).map(|(key, spend)| (spend.until, key.clone())).collect();
        overdue.sort();
        for (_, key) in overdue {
            let (session, day) = (self.spends[&key].session.clone(), self.spends[&key].day);
            let before = self.levels_of(&session, day);
            let spend = self.spends.get_mut(&key).expect("a spend");
            spend.state = if spend.presumes { State::Presumed } else { State::Lapsed };
            let costs = spend.presumes && spend.amount.unwrap_or_default() > 0;
            self.judge(&session, day, &before, costs);
        }
    }
}
