//! Budgets that cannot be overrun: the contract.
//!
//! Whoever checks first and adds afterwards admits everybody who checks meanwhile, so that overspend grows with concurrency. A
//! ledger reserves instead: money is held before it is spent, on the session's account and on those of all swarms that contain
//! it, in one step. What a call has really cost is posted afterwards and never refused.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use s2_coordinator::{Invalid, SwarmId, Timestamp, UtcDay};

use crate::account::Balance;
use crate::account::Limit;
use crate::error::Error;
use crate::money::NanoUsd;
use crate::spend::Charge;
use crate::spend::Posted;
use crate::spend::Reservation;
use crate::spend::Reserve;
use crate::spend::Reserved;

/// What is on an account and on those within it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statement {
    /// The account.
    pub balance: Balance,
    /// Those of the swarms and sessions within it, at any depth, by path.
    pub within: Vec<Balance>,
}

impl Statement {
    /// What stands on an account, and on those within it.
    #[must_use]
    pub const fn new(balance: Balance, within: Vec<Balance>) -> Self {
        Self { balance, within }
    }
}

/// Whom a page of a statement comes after: one within the swarm, or nobody.
pub(crate) fn check_after<'a>(swarm: &SwarmId, after: Option<&'a SwarmId>) -> Result<Option<&'a SwarmId>, Error> {
    match after {
        Some(after) if after == swarm => Ok(None),
        Some(after) if !swarm.contains(after) => {
            Err(Invalid::new("page", after.as_str(), format!("not within {swarm}")).into())
        }
        after => Ok(after),
    }
}

/// The accounts of a fleet.
///
/// An account belongs to a session or swarm and one UTC day of the store's clock. A spend names a session and moves the
/// accounts of its whole path alike; a hold belongs to the day on which it was granted. A limit that is set is that of every day;
/// a session without one has that of the [settings](crate::LedgerSettings), $50, a swarm has none.
///
/// Grants, costs, ends of reservations, levels, limits, halts are journalled (component `budget`), each in its own step.
/// A refusal leaves no trace.
///
/// # To ensure correctness
///
/// What is granted is, together with what is spent and held, within the limit of every account on the way up, in every interleaving.
/// As long as no cost exceeds its reservation, nothing overruns a limit that is not lowered.
///
/// A cost is posted to all accounts on the way up, to the nano, once, whatever the limits say.
///
/// Each reservation ends once: settled, released, or expired. Repeating a call gives the first answer, for as long as the window of
/// idempotency lasts and of the latest spends that are remembered.
///
/// An account is warned about once and exhausted once, for each limit that it has had: then it is escalated under the key
/// `budget:<day>:<swarm>` with `cost_incurred` and `budget_original`. Whoever spends the last of it is halted, until a person
/// resumes it, its limit is raised, or it turns out that less was spent than was presumed.
///
/// What was presumed can be corrected as long as the window of idempotency lasts; then it is final. Reservations expire, and reach
/// levels by that, with the next call of anybody.
#[async_trait]
pub trait BudgetLedger: Debug + Send + Sync + 'static {
    /// Holds money on every level of a session's path, or on none. Repeated under its key, it is the same reservation as long
    /// as that holds; after it has ended, nothing is held, and nobody is told otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::SpendConflict`] when the key belongs to another spend; [`Error::ReservationEnded`]; [`Error::LimitExceeded`] or
    /// [`Error::Invalid`] for a time that is out of range, or when too many reservations are open or accounts kept;
    /// [`Error::Store`].
    ///
    /// # Cancel safety
    ///
    /// Without a key, a grant whose caller is gone is released, if its process lives. With one, reserve again to be sure, or
    /// it expires.
    async fn reserve(&self, reserve: &Reserve) -> Result<Reserved, Error>;

    /// Lets a reservation hold for at least so long from now on. Answers until when it does.
    ///
    /// # Errors
    ///
    /// [`Error::ReservationEnded`], [`Error::UnknownReservation`]; [`Error::LimitExceeded`] or [`Error::Invalid`] for a time
    /// that is out of range; [`Error::Store`].
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; extend it again to be sure.
    async fn extend(&self, reservation: &Reservation, by: Duration) -> Result<Timestamp, Error>;

    /// Posts what a call has cost, in place of what was held for it; also if that is more, and also after the reservation
    /// expired: then it corrects what was presumed.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadySettled`] when it was settled at another cost; [`Error::UnknownReservation`]; [`Error::Store`].
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; settle it again to be sure.
    async fn settle(&self, reservation: &Reservation, actual: NanoUsd) -> Result<Posted, Error>;

    /// Gives money back: the call was never made. If the reservation has expired, nothing is presumed of it any more.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadySettled`], [`Error::UnknownReservation`]; [`Error::Store`].
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; release it again to be sure.
    async fn release(&self, reservation: &Reservation) -> Result<(), Error>;

    /// Posts what was spent without a reservation.
    ///
    /// # Errors
    ///
    /// [`Error::SpendConflict`] when the key belongs to another spend; [`Error::Store`].
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; with a key, charge it again to be sure.
    async fn charge(&self, charge: &Charge) -> Result<Posted, Error>;

    /// What stands on the accounts of a swarm and of those that contain it, innermost first, today or on another day.
    ///
    /// # Errors
    ///
    /// [`Error::NotRetained`]; [`Error::Store`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn balances(&self, swarm: &SwarmId, day: Option<UtcDay>) -> Result<Vec<Balance>, Error>;

    /// What stands on an account, and on at most `limit` (1 to [`Limits::batch`](s2_coordinator::Limits::batch)) of those
    /// within it whose paths come after `after`.
    ///
    /// # Errors
    ///
    /// [`Error::NotRetained`]; [`Error::Invalid`] when `after` is not within the swarm; [`Error::Store`], also for a limit that is
    /// out of range.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn statement(
        &self,
        swarm: &SwarmId,
        day: Option<UtcDay>,
        after: Option<&SwarmId>,
        limit: usize,
    ) -> Result<Statement, Error>;

    /// Sets what a session or swarm may spend each day, from now on. More than it has spent lets an exhausted account go on;
    /// levels below it are announced anew. Less than it has spent halts it.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] when too many have a limit; [`Error::Store`].
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; set it again to be sure.
    async fn set_limit(&self, swarm: &SwarmId, limit: Limit) -> Result<Balance, Error>;

    /// Grants nothing more to a session or swarm, until it is resumed.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] when too much is said already; [`Error::Store`], also for a reason that is too long.
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; halt it again to be sure.
    async fn halt(&self, swarm: &SwarmId, reason: &str) -> Result<Balance, Error>;

    /// Lets a session or swarm go on that was halted, or was exhausted today, or was frozen because the store has forgotten
    /// what was spent. What is spent stays spent.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; resume it again to be sure.
    async fn resume(&self, swarm: &SwarmId) -> Result<Balance, Error>;
}

/// What follows from the verbs of a [`BudgetLedger`].
#[async_trait]
pub trait BudgetLedgerExt: BudgetLedger {
    /// What stands on the account of a session or swarm today.
    ///
    /// # Errors
    ///
    /// As [`BudgetLedger::balances`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn balance(&self, swarm: &SwarmId) -> Result<Balance, Error> {
        Ok(self.balances(swarm, None).await?.swap_remove(0))
    }

    /// The innermost account on a session's way up that is halted, if there is one: then the session should not claim.
    ///
    /// # Errors
    ///
    /// As [`BudgetLedger::balances`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn halted(&self, session: &SwarmId) -> Result<Option<Balance>, Error> {
        Ok(self.balances(session, None).await?.into_iter().find(|balance| balance.halted.is_some()))
    }
}

impl<L: BudgetLedger + ?Sized> BudgetLedgerExt for L {}
