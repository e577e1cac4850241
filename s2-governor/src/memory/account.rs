//! One account.

use s2_coordinator::{SwarmId, Text, UtcDay};

use crate::account::Balance;
use crate::account::Level;
use crate::memory::turn::Turn;
use crate::money::NanoUsd;
use crate::spend::Denial;

/// What was said about a session or swarm, for every day.
#[derive(Clone, Debug, Default)]
pub(super) struct Rule {
    pub(super) limit: Option<NanoUsd>,
    pub(super) halted: Option<Text>,
}

#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) swarm: SwarmId,
    pub(super) rule: Rule,
    /// Whether spends name it.
    pub(super) is_session: bool,
    pub(super) spent: NanoUsd,
    pub(super) held: NanoUsd,
    pub(super) presumed: NanoUsd,
    pub(super) announced: Level,
    /// Whether it is halted because it is exhausted.
    pub(super) exhausted: bool,
}

impl Account {
    pub(super) const fn new(swarm: SwarmId, rule: Rule, is_session: bool) -> Self {
        let (spent, held, presumed) = (NanoUsd::ZERO, NanoUsd::ZERO, NanoUsd::ZERO);
        Self { swarm, rule, is_session, spent, held, presumed, announced: Level::Within, exhausted: false }
    }

    pub(super) fn limit(&self, turn: &Turn<'_, '_>) -> NanoUsd {
        let default = if self.is_session { turn.settings.session_limit() } else { NanoUsd::MAX };
        self.rule.limit.unwrap_or(default)
    }

    pub(super) fn available(&self, turn: &Turn<'_, '_>) -> NanoUsd {
        self.limit(turn).saturating_sub(self.spent.saturating_add(self.held))
    }

    pub(super) fn level(&self, turn: &Turn<'_, '_>) -> Level {
        Level::of(self.spent, self.limit(turn), turn.settings.warn_percent)
    }

    /// Why it does not admit so much, if it does not.
    pub(super) fn denies(&self, amount: NanoUsd, turn: &Turn<'_, '_>) -> Option<Denial> {
        let limit = self.limit(turn);
        let fits = |taken: NanoUsd| taken.checked_add(amount).is_some_and(|sum| sum <= limit);
        if self.rule.halted.is_some() || self.exhausted {
            Some(Denial::Halted)
        } else if self.spent.checked_add(self.held).is_some_and(fits) {
            None
        } else if fits(self.spent) {
            Some(Denial::Held)
        } else {
            Some(Denial::Spent)
        }
    }

    /// Changes it. Who has spent everything by that is halted, and who has not any more goes on.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Self), turn: &Turn<'_, '_>) {
        let before = self.level(turn);
        change(self);
        let level = self.level(turn);
        self.exhausted = level == Level::Exhausted && (self.exhausted || before < level);
    }

    /// Says so if it has reached a level that was not announced.
    pub(super) fn announce(&mut self, day: UtcDay, turn: &mut Turn<'_, '_>) {
        let (level, limit) = (self.level(turn), self.limit(turn));
        if level <= self.announced {
            return;
        }
        self.announced = level;
        if level < Level::Exhausted {
            turn.reached(&self.swarm, day, turn.settings.warn_percent, self.spent, limit);
        } else {
            self.exhausted = true;
            turn.reached(&self.swarm, day, 100, self.spent, limit);
            turn.escalate(&self.swarm, day, self.spent, limit);
        }
    }

    pub(super) fn balance(&self, day: UtcDay, turn: &Turn<'_, '_>) -> Balance {
        let mut balance = Balance::empty(self.swarm.clone(), day, self.limit(turn));
        (balance.spent, balance.held, balance.presumed) = (self.spent, self.held, self.presumed);
        balance.level = self.announced;
        let exhausted = || self.exhausted.then_some(Text::from_static("budget_exceeded"));
        balance.halted = self.rule.halted.clone().or_else(exhausted);
        balance
    }
}
