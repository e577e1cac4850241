//! The ledger of a fleet in memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use s2_coordinator::{MemoryStore, Part, SwarmId, Timestamp, UtcDay};

use crate::account::Balance;
use crate::account::Limit;
use crate::error::Error;
use crate::keys::Keys;
use crate::ledger::BudgetLedger;
use crate::ledger::Statement;
use crate::ledger::check_after;
use crate::memory::book::Book;
use crate::memory::turn::Turn;
use crate::money::NanoUsd;
use crate::settings::LedgerSettings;
use crate::spend::Charge;
use crate::spend::Posted;
use crate::spend::Reservation;
use crate::spend::Reserve;
use crate::spend::Reserved;

/// A [`BudgetLedger`] of a fleet in memory. All ledgers of one store are the same accounts.
///
/// ```
/// use s2_coordinator::{MemoryStore, SwarmId};
/// use s2_governor::{BudgetLedger, BudgetLedgerExt, Limit, MemoryLedger, NanoUsd, Reserve};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ledger = MemoryLedger::new(&MemoryStore::new());
/// let (swarm, session) = (SwarmId::new("telephony")?, SwarmId::new("telephony/sip/session-4")?);
/// ledger.set_limit(&swarm, Limit::PerDay(NanoUsd::from_cents(25))).await?;
///
/// let call = Reserve::new(session.clone(), NanoUsd::from_cents(20));
/// let held = ledger.reserve(&call).await?.granted().expect("there is enough");
/// let denied = ledger.reserve(&call).await?.granted().unwrap_err();
/// assert_eq!((denied.swarm, denied.available), (swarm, NanoUsd::from_cents(5)));
///
/// let posted = ledger.settle(&held, NanoUsd::from_cents(18)).await?;
/// assert_eq!(posted.require()?, NanoUsd::from_cents(7));
/// assert_eq!(ledger.balance(&session).await?.spent, NanoUsd::from_cents(18));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryLedger {
    book: Part<Book>,
    settings: Arc<LedgerSettings>,
    keys: Arc<Keys>,
}

impl MemoryLedger {
    /// The ledger of a fleet, with the default settings.
    #[must_use]
    pub fn new(store: &MemoryStore) -> Self {
        // The defaults are in order.
        Self::open(store, LedgerSettings::default())
    }

    /// The ledger of a fleet, with settings of its own.
    ///
    /// # Errors
    ///
    /// As [`LedgerSettings::check`].
    pub fn with_settings(store: &MemoryStore, settings: LedgerSettings) -> Result<Self, Error> {
        settings.check()?;
        Ok(Self::open(store, settings))
    }

    fn open(store: &MemoryStore, settings: LedgerSettings) -> Self {
        Self { book: store.part(), settings: Arc::new(settings), keys: Arc::default() }
    }

    fn act<R>(&self, act: impl FnOnce(&mut Book, &mut Turn<'_, '_>) -> R) -> R {
        let window = self.book.store().config().idempotency_window;
        self.book.step(|step, book| {
            let now = step.now();
            let mut turn = Turn { step, settings: &self.settings, now, forgets: now - window };
            book.catch_up(&mut turn);
            act(book, &mut turn)
        })
    }
}

#[async_trait]
impl BudgetLedger for MemoryLedger {
    #[tracing::instrument(level = "debug", skip_all, fields(session = %reserve.session, amount = %reserve.amount))]
    async fn reserve(&self, reserve: &Reserve) -> Result<Reserved, Error> {
        let ttl = self.settings.check_ttl(reserve.ttl)?;
        let key = self.keys.or_new(reserve.key.as_ref());
        self.act(|book, turn| book.reserve(reserve, key, turn.now + ttl, turn))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(key = %reservation.key))]
    async fn extend(&self, reservation: &Reservation, by: Duration) -> Result<Timestamp, Error> {
        let by = self.settings.check_ttl(Some(by))?;
        self.act(|book, turn| book.extend(reservation, turn.now + by, turn))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(key = %reservation.key, %actual))]
    async fn settle(&self, reservation: &Reservation, actual: NanoUsd) -> Result<Posted, Error> {
        self.act(|book, turn| book.settle(reservation, actual, turn))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(key = %reservation.key))]
    async fn release(&self, reservation: &Reservation) -> Result<(), Error> {
        self.act(|book, turn| book.release(reservation, turn))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(session = %charge.session, cost = %charge.cost))]
    async fn charge(&self, charge: &Charge) -> Result<Posted, Error> {
        let key = self.keys.or_new(charge.key.as_ref());
        self.act(|book, turn| book.charge(charge, key, turn))
    }

    async fn balances(&self, swarm: &SwarmId, day: Option<UtcDay>) -> Result<Vec<Balance>, Error> {
        self.act(|book, turn| book.balances(swarm, day, turn))
    }

    async fn statement(
        &self,
        swarm: &SwarmId,
        day: Option<UtcDay>,
        after: Option<&SwarmId>,
        limit: usize,
    ) -> Result<Statement, Error> {
        self.book.store().config().limits.check_page(limit)?;
        let after = check_after(swarm, after)?;
        self.act(|book, turn| book.statement(swarm, day, after, limit, turn))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(%swarm, %limit))]
    async fn set_limit(&self, swarm: &SwarmId, limit: Limit) -> Result<Balance, Error> {
        self.act(|book, turn| book.set_limit(swarm, limit, turn))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(%swarm, reason))]
    async fn halt(&self, swarm: &SwarmId, reason: &str) -> Result<Balance, Error> {
        self.book.store().config().limits.check_reason(reason)?;
        self.act(|book, turn| book.halt(swarm, reason.to_owned().into(), turn))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(%swarm))]
    async fn resume(&self, swarm: &SwarmId) -> Result<Balance, Error> {
        Ok(self.act(|book, turn| book.resume(swarm, turn)))
    }
}
