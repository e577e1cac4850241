//! What a ledger does, one step at a time.

use s2_coordinator::{IdempotencyKey, SwarmId, Text, Timestamp, UtcDay};

use crate::account::Balance;
use crate::account::Level;
use crate::account::Limit;
use crate::error::Error;
use crate::ledger::Statement;
use crate::memory::account::Account;
use crate::memory::days::Days;
use crate::memory::days::Path;
use crate::memory::spends::Reached;
use crate::memory::spends::Spend;
use crate::memory::spends::Spends;
use crate::memory::spends::State;
use crate::memory::turn::About;
use crate::memory::turn::Turn;
use crate::money::NanoUsd;
use crate::seen::Seen;
use crate::spend::Charge;
use crate::spend::Denied;
use crate::spend::Expiry;
use crate::spend::Posted;
use crate::spend::Reservation;
use crate::spend::Reserve;
use crate::spend::Reserved;

/// All accounts of a fleet.
#[derive(Debug, Default)]
pub(super) struct Book {
    days: Days,
    spends: Spends,
    /// How many changes there were.
    sequence: u64,
}

/// How a spend changes the accounts of its path.
#[derive(Clone, Copy, Debug, Default)]
struct Move {
    held: NanoUsd,
    unheld: NanoUsd,
    spent: NanoUsd,
    unspent: NanoUsd,
    presumed: NanoUsd,
    unpresumed: NanoUsd,
}

impl Move {
    fn apply(self, account: &mut Account) {
        account.held = account.held.saturating_add(self.held).saturating_sub(self.unheld);
        account.presumed = account.presumed.saturating_add(self.presumed).saturating_sub(self.unpresumed);
        account.spent = account.spent.saturating_sub(self.unspent).saturating_add(self.spent);
    }
}

fn tightest<'a>(path: impl Iterator<Item = &'a Account>, turn: &Turn<'_, '_>) -> Reached {
    let reached = path.zip(0..).map(|(account, above)| Reached {
        remaining: account.available(turn),
        spent: account.spent,
        limit: account.limit(turn),
        level: account.level(turn),
        above,
    });
    let tighter = |one: Reached, other: Reached| {
        let remaining = one.remaining.min(other.remaining);
        Reached { remaining, ..if other.level > one.level { other } else { one } }
    };
    reached.reduce(tighter).expect("a path has a level")
}

impl Book {
    /// Does what time has brought.
    pub(super) fn catch_up(&mut self, turn: &mut Turn<'_, '_>) {
        while let Some((place, spend)) = self.spends.next_due(turn.now) {
            match spend.state {
                State::Presumed => self.spends.finish(place),
                _ => self.expire(place, &spend, turn),
            }
        }
        let kept = u64::from(turn.settings.kept_days) * 24 * 60 * 60;
        self.days.forget(UtcDay::of(turn.now - std::time::Duration::from_secs(kept)));
    }

    fn expire(&mut self, place: u32, spend: &Spend, turn: &mut Turn<'_, '_>) {
        let amount = spend.amount.unwrap_or_default();
        let is_presumed = spend.expiry == Expiry::Presume;
        turn.expired(&spend.about(), amount, is_presumed);
        let free = Move { unheld: amount, ..Move::default() };
        if is_presumed {
            let moved = Move { spent: amount, presumed: amount, ..free };
            self.move_all(spend.day, &spend.session, None, moved, turn);
            self.spends.presume(place, turn.now + turn.now.since(turn.forgets));
        } else {
            self.move_all(spend.day, &spend.session, None, free, turn);
            self.spends.set(place, State::Lapsed, turn);
        }
    }

    /// Moves the accounts of a path alike, and says which levels they have reached. Accounts that are forgotten stay so.
    fn move_all(
        &mut self,
        day: UtcDay,
        session: &SwarmId,
        path: Option<Path>,
        moved: Move,
        turn: &mut Turn<'_, '_>,
    ) -> Option<Path> {
        self.sequence += 1;
        if day < self.days.oldest() {
            return None;
        }
        let path = path.or_else(|| self.days.path(day, session)).unwrap_or_else(|| self.days.open(day, session));
        self.days.change(day, &path, |account| {
            account.change(|account| moved.apply(account), turn);
            if moved.spent > NanoUsd::ZERO {
                account.announce(day, turn);
            }
        });
        Some(path)
    }

    /// The same for a cost: what it has done.
    fn post(&mut self, day: UtcDay, session: &SwarmId, moved: Move, turn: &mut Turn<'_, '_>) -> Reached {
        match self.move_all(day, session, None, moved, turn) {
            Some(path) => tightest(self.days.along(day, &path), turn),
            None => tightest(self.days.look(day, session).iter(), turn),
        }
    }

    pub(super) fn reserve(
        &mut self,
        reserve: &Reserve,
        key: IdempotencyKey,
        until: Timestamp,
        turn: &mut Turn<'_, '_>,
    ) -> Result<Reserved, Error> {
        if let Some((_, spend)) = self.spends.get(&key, turn) {
            let is_same = spend.amount == Some(reserve.amount) && spend.session == reserve.session;
            if !is_same || spend.expiry != reserve.expiry {
                return Err(Error::SpendConflict { key, original: spend.describe() });
            }
            if let Some(how) = spend.how_ended() {
                return Err(Error::ReservationEnded { key, how });
            }
            let (session, day, seen) = (spend.session.clone(), spend.day, Seen::new(0, self.sequence));
            return Ok(Reserved::Granted(Reservation::granted(key, session, day, reserve.amount, spend.at, seen)));
        }
        let day = turn.today();
        let path = self.days.path(day, &reserve.session);
        if let Some(denied) = self.denied(day, reserve, path.as_ref(), turn) {
            return Ok(Reserved::Denied(denied));
        }
        check("open", "the ledger", self.spends.open() + 1, turn.settings.open)?;
        if path.is_none() {
            let missing = self.days.missing(day, &reserve.session);
            let most = if missing == 0 { usize::MAX } else { turn.settings.accounts };
            check("accounts", "the ledger", self.days.count() + missing, most)?;
        }
        let spend = Spend {
            key: key.clone(),
            session: reserve.session.clone(),
            day,
            amount: Some(reserve.amount),
            at: until,
            expiry: reserve.expiry,
            trace: reserve.trace.map(Box::new),
            state: State::Held,
        };
        turn.spent("reserve", &spend.about(), ("amount_nano_usd", reserve.amount));
        self.move_all(day, &spend.session, path, Move { held: reserve.amount, ..Move::default() }, turn);
        self.spends.hold(spend);
        let (session, seen) = (reserve.session.clone(), Seen::new(0, self.sequence));
        Ok(Reserved::Granted(Reservation::granted(key, session, day, reserve.amount, until, seen)))
    }

    fn denied(&self, day: UtcDay, reserve: &Reserve, path: Option<&Path>, turn: &Turn<'_, '_>) -> Option<Denied> {
        let denies = |account: &Account| {
            let reason = account.denies(reserve.amount, turn)?;
            Some(Denied::new(account.swarm.clone(), day, account.available(turn), account.presumed, reason))
        };
        match path {
            Some(path) => self.days.along(day, path).find_map(denies),
            None => {
                let mut path = self.days.look(day, &reserve.session);
                path[0].is_session = true;
                path.iter().find_map(denies)
            }
        }
    }

    pub(super) fn extend(
        &mut self,
        reservation: &Reservation,
        until: Timestamp,
        turn: &Turn<'_, '_>,
    ) -> Result<Timestamp, Error> {
        let key = &reservation.key;
        let (place, spend) = self.reservation(reservation, turn)?;
        if let Some(how) = spend.how_ended() {
            return Err(Error::ReservationEnded { key: key.clone(), how });
        }
        let until = until.max(spend.at);
        if until > spend.at {
            self.sequence += 1;
            self.spends.extend(place, until);
        }
        Ok(until)
    }

    fn reservation(&self, reservation: &Reservation, turn: &Turn<'_, '_>) -> Result<(u32, &Spend), Error> {
        let is_it = |(_, spend): &(u32, &Spend)| {
            spend.amount == Some(reservation.amount)
                && (&spend.session, spend.day) == (&reservation.session, reservation.day)
        };
        let spend = self.spends.get(&reservation.key, turn).filter(is_it);
        spend.ok_or_else(|| Error::UnknownReservation { key: reservation.key.clone() })
    }

    pub(super) fn settle(
        &mut self,
        reservation: &Reservation,
        actual: NanoUsd,
        turn: &mut Turn<'_, '_>,
    ) -> Result<Posted, Error> {
        let Reservation { key, session, day, amount, .. } = reservation;
        let (place, spend) = self.reservation(reservation, turn)?;
        let cost = Move { spent: actual, ..Move::default() };
        let moved = match spend.state {
            State::Held => Move { unheld: *amount, ..cost },
            State::Presumed => Move { unspent: *amount, unpresumed: *amount, ..cost },
            State::Lapsed | State::Released => cost,
            State::Settled(before, reached) if before == actual => return Ok(reached.posted(session)),
            State::Settled(before, _) => return Err(Error::AlreadySettled { key: key.clone(), actual: before }),
        };
        turn.settled(&spend.about(), actual, *amount);
        let reached = self.post(*day, session, moved, turn);
        self.spends.set(place, State::Settled(actual, reached), turn);
        Ok(reached.posted(session))
    }

    pub(super) fn release(&mut self, reservation: &Reservation, turn: &mut Turn<'_, '_>) -> Result<(), Error> {
        let Reservation { key, session, day, amount, .. } = reservation;
        let (place, spend) = self.reservation(reservation, turn)?;
        let moved = match spend.state {
            State::Held => Move { unheld: *amount, ..Move::default() },
            State::Presumed => Move { unspent: *amount, unpresumed: *amount, ..Move::default() },
            State::Lapsed | State::Released => return Ok(()),
            State::Settled(actual, _) => return Err(Error::AlreadySettled { key: key.clone(), actual }),
        };
        turn.spent("release", &spend.about(), ("amount_nano_usd", *amount));
        self.move_all(*day, session, None, moved, turn);
        self.spends.set(place, State::Released, turn);
        Ok(())
    }

    pub(super) fn charge(
        &mut self,
        charge: &Charge,
        key: IdempotencyKey,
        turn: &mut Turn<'_, '_>,
    ) -> Result<Posted, Error> {
        if let Some((_, spend)) = self.spends.get(&key, turn) {
            return match &spend.state {
                State::Settled(cost, reached)
                    if spend.amount.is_none() && *cost == charge.cost && spend.session == charge.session =>
                {
                    Ok(reached.posted(&charge.session))
                }
                _ => Err(Error::SpendConflict { key, original: spend.describe() }),
            };
        }
        let (day, session) = (turn.today(), charge.session.clone());
        let about = About { key: &key, session: &session, trace: charge.trace };
        turn.spent("charge", &about, ("cost_nano_usd", charge.cost));
        let reached = self.post(day, &session, Move { spent: charge.cost, ..Move::default() }, turn);
        let state = State::Settled(charge.cost, reached);
        let (amount, at, expiry) = (None, turn.now, Expiry::Presume);
        let trace = charge.trace.map(Box::new);
        self.spends.charged(Spend { key, session, day, amount, at, expiry, trace, state }, turn);
        Ok(reached.posted(&charge.session))
    }

    pub(super) fn balances(
        &self,
        swarm: &SwarmId,
        day: Option<UtcDay>,
        turn: &Turn<'_, '_>,
    ) -> Result<Vec<Balance>, Error> {
        let (day, oldest) = (day.unwrap_or(turn.today()), self.days.oldest());
        if day < oldest {
            return Err(Error::NotRetained { day, oldest });
        }
        Ok(self.days.look(day, swarm).iter().map(|account| account.balance(day, turn)).collect())
    }

    pub(super) fn statement(
        &self,
        swarm: &SwarmId,
        day: Option<UtcDay>,
        after: Option<&SwarmId>,
        limit: usize,
        turn: &Turn<'_, '_>,
    ) -> Result<Statement, Error> {
        let balance = self.balances(swarm, day, turn)?.swap_remove(0);
        let day = balance.day;
        let within = self.days.day(day).map(|accounts| {
            accounts.within(swarm, after, limit).map(|account| account.balance(day, turn)).collect::<Vec<_>>()
        });
        Ok(Statement::new(balance, within.unwrap_or_default()))
    }

    /// Whether something may be said about a swarm.
    fn check_rules(&self, swarm: &SwarmId, turn: &Turn<'_, '_>) -> Result<(), Error> {
        let more = usize::from(!self.days.has_rule(swarm));
        let most = if more == 0 { usize::MAX } else { turn.settings.rules };
        check("rules", "the ledger", self.days.rules() + more, most)
    }

    pub(super) fn set_limit(
        &mut self,
        swarm: &SwarmId,
        limit: Limit,
        turn: &mut Turn<'_, '_>,
    ) -> Result<Balance, Error> {
        if self.days.rule(swarm).limit != limit.amount() {
            self.check_rules(swarm, turn)?;
            self.sequence += 1;
            turn.ruled("limit", swarm, Some(("limit", limit.to_string().into())));
            self.days.say(swarm, |rule| rule.limit = limit.amount());
            let day = turn.today();
            if let Some(account) = self.days.day_mut(day).and_then(|accounts| accounts.account_mut(swarm)) {
                let level = account.level(turn);
                account.announced = account.announced.min(level);
                account.exhausted = level == Level::Exhausted;
                account.announce(day, turn);
            }
        }
        Ok(self.today(swarm, turn))
    }

    pub(super) fn halt(&mut self, swarm: &SwarmId, reason: Text, turn: &mut Turn<'_, '_>) -> Result<Balance, Error> {
        if self.days.rule(swarm).halted.as_ref() != Some(&reason) {
            self.check_rules(swarm, turn)?;
            self.sequence += 1;
            turn.ruled("halt", swarm, Some(("reason", reason.clone())));
            self.days.say(swarm, |rule| rule.halted = Some(reason.clone()));
        }
        Ok(self.today(swarm, turn))
    }

    pub(super) fn resume(&mut self, swarm: &SwarmId, turn: &mut Turn<'_, '_>) -> Balance {
        let day = turn.today();
        let account = self.days.day_mut(day).and_then(|accounts| accounts.account_mut(swarm));
        let was_exhausted = account.is_some_and(|account| std::mem::take(&mut account.exhausted));
        if was_exhausted || self.days.rule(swarm).halted.is_some() {
            self.sequence += 1;
            turn.ruled("resume", swarm, None);
            self.days.say(swarm, |rule| rule.halted = None);
        }
        self.today(swarm, turn)
    }

    fn today(&self, swarm: &SwarmId, turn: &Turn<'_, '_>) -> Balance {
        let day = turn.today();
        let [account, ..] = &self.days.look(day, swarm)[..] else { unreachable!("a path has a level") };
        account.balance(day, turn)
    }
}

/// Checks something against the limit of that name.
fn check(limit: &'static str, what: &str, actual: usize, max: usize) -> Result<(), Error> {
    if actual <= max {
        return Ok(());
    }
    Err(Error::LimitExceeded { limit, what: what.to_owned(), actual: actual as u64, max: max as u64 })
}
