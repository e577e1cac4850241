//! What is to be spent, what is held for it, and what it came to.

use std::time::Duration;

use s2_coordinator::{IdempotencyKey, SwarmId, Timestamp, TraceToken, UtcDay};
use serde::{Deserialize, Serialize};

use crate::account::Level;
use crate::error::Error;
use crate::money::NanoUsd;
use crate::seen::Seen;

/// What becomes of a reservation that is neither settled nor released in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// It counts as spent until somebody reports better: the provider may have billed it.
    #[default]
    Presume,
    /// It is free again.
    Release,
}

/// Money that is to be held for a call, on every level of a session's path.
///
/// ```
/// use s2_governor::{NanoUsd, Reserve};
/// # use s2_coordinator::SwarmId;
///
/// let session = SwarmId::new("telephony/sip/session-4")?;
/// let reserve = Reserve::new(session, NanoUsd::from_cents(10)).with_key("task-17/1/2".parse()?);
/// # let _ = reserve;
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "nothing is held until it is reserved"]
#[non_exhaustive]
pub struct Reserve {
    /// Under which name it happens once; the ledger makes one unless set.
    pub key: Option<IdempotencyKey>,
    /// Who spends.
    pub session: SwarmId,
    /// How much at most.
    pub amount: NanoUsd,
    /// For how long; that of the settings unless set.
    pub ttl: Option<Duration>,
    /// What becomes of it after that.
    pub expiry: Expiry,
    /// The trace it belongs to.
    pub trace: Option<TraceToken>,
}

impl Reserve {
    /// So much for this session.
    pub const fn new(session: SwarmId, amount: NanoUsd) -> Self {
        Self { key: None, session, amount, ttl: None, expiry: Expiry::Presume, trace: None }
    }

    /// Names it, so that it can be repeated: of a task, say, the task, the attempt and the step.
    pub fn with_key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets for how long it is held.
    pub const fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets what becomes of it when it is neither settled nor released.
    pub const fn with_expiry(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Sets the trace.
    pub fn with_trace(mut self, trace: impl Into<Option<TraceToken>>) -> Self {
        self.trace = trace.into();
        self
    }
}

/// Money that was spent without a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "nothing is spent until it is charged"]
#[non_exhaustive]
pub struct Charge {
    /// Under which name it happens once; the ledger makes one unless set.
    pub key: Option<IdempotencyKey>,
    /// Who spent it.
    pub session: SwarmId,
    /// How much.
    pub cost: NanoUsd,
    /// The trace it belongs to.
    pub trace: Option<TraceToken>,
}

impl Charge {
    /// This session has spent so much.
    pub const fn new(session: SwarmId, cost: NanoUsd) -> Self {
        Self { key: None, session, cost, trace: None }
    }

    /// Names it, so that it can be repeated.
    pub fn with_key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets the trace.
    pub fn with_trace(mut self, trace: impl Into<Option<TraceToken>>) -> Self {
        self.trace = trace.into();
        self
    }
}

/// Money that is held, and to be settled or released. A host that may crash between call and settlement keeps it: any process may settle it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "money that is neither settled nor released is presumed to be spent"]
#[non_exhaustive]
pub struct Reservation {
    /// Its name.
    pub key: IdempotencyKey,
    /// Who spends.
    pub session: SwarmId,
    /// The day on whose accounts it is held and settled.
    pub day: UtcDay,
    /// How much is held.
    pub amount: NanoUsd,
    /// Until when, by the store's clock.
    pub until: Timestamp,
    /// What the ledger had done when it was granted.
    pub seen: Seen,
}

impl Reservation {
    /// A reservation as a ledger grants it.
    pub const fn granted(
        key: IdempotencyKey,
        session: SwarmId,
        day: UtcDay,
        amount: NanoUsd,
        until: Timestamp,
        seen: Seen,
    ) -> Self {
        Self { key, session, day, amount, until, seen }
    }
}

/// Why money is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    /// Others hold it; what they do not spend is free again soon.
    Held,
    /// It is spent: until tomorrow, or until the limit is raised.
    Spent,
    /// The account is halted: until it is resumed.
    Halted,
    /// The store has forgotten what was spent: until a person has looked at it.
    Frozen,
}

/// A refusal. It leaves no trace and halts nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Denied {
    /// The first account on the way up that refuses.
    pub swarm: SwarmId,
    /// Of which day.
    pub day: UtcDay,
    /// What it has left.
    pub available: NanoUsd,
    /// How much of what it has spent is presumed: reservations that expired and that nobody has settled.
    pub presumed: NanoUsd,
    /// Why.
    pub reason: Denial,
}

impl Denied {
    /// An account refuses.
    #[must_use]
    pub const fn new(swarm: SwarmId, day: UtcDay, available: NanoUsd, presumed: NanoUsd, reason: Denial) -> Self {
        Self { swarm, day, available, presumed, reason }
    }

    /// A stable code for logs, metrics and other languages.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "S2_BUDGET_DENIED"
    }
}

impl std::error::Error for Denied {}

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { swarm, day, available, presumed, reason } = self;
        let why = match reason {
            Denial::Held => "the rest is held",
            Denial::Spent => "the rest is spent",
            Denial::Halted => "it is halted",
            Denial::Frozen => "it is frozen: the store has forgotten what was spent",
        };
        write!(f, "account {swarm} of {day} has {available} left: {why}")?;
        if *presumed > NanoUsd::ZERO { write!(f, "; {presumed} are presumed to be spent") } else { Ok(()) }
    }
}

/// What a ledger answers to a request for money.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the money may not have been granted"]
pub enum Reserved {
    /// It is held.
    Granted(Reservation),
    /// It is not to be had.
    Denied(Denied),
}

impl Reserved {
    /// The reservation.
    ///
    /// # Errors
    ///
    /// The refusal.
    pub fn granted(self) -> Result<Reservation, Denied> {
        match self {
            Self::Granted(reservation) => Ok(reservation),
            Self::Denied(denied) => Err(denied),
        }
    }
}

/// What a cost has done to the accounts that it was posted to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Posted {
    /// What is left: the least that is available on the way up. Nobody may reserve it who is halted.
    pub remaining: NanoUsd,
    /// The highest level on the way up.
    pub level: Level,
    /// The account that has it: of several, the innermost.
    pub swarm: SwarmId,
    /// What that one has spent.
    pub spent: NanoUsd,
    /// What it may spend.
    pub limit: NanoUsd,
}

impl Posted {
    /// What became of a cost.
    #[must_use]
    pub const fn new(remaining: NanoUsd, level: Level, swarm: SwarmId, spent: NanoUsd, limit: NanoUsd) -> Self {
        Self { remaining, level, swarm, spent, limit }
    }

    /// What remains, if the session may go on spending.
    ///
    /// # Errors
    ///
    /// [`Error::BudgetExceeded`] when an account on its way up is exhausted.
    pub fn require(&self) -> Result<NanoUsd, Error> {
        if self.level < Level::Exhausted {
            return Ok(self.remaining);
        }
        Err(Error::BudgetExceeded { swarm: self.swarm.clone(), spent: self.spent, limit: self.limit })
    }
}
