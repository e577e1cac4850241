//! The ledger of a fleet on Redis.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use s2_coordinator::{IdempotencyKey, RedisStore, SwarmId, Timestamp, TraceToken, UtcDay};
use tokio::runtime::Handle;

use crate::account::Balance;
use crate::account::Limit;
use crate::error::Error;
use crate::keys::Keys;
use crate::ledger::BudgetLedger;
use crate::ledger::Statement;
use crate::ledger::check_after;
use crate::money::NanoUsd;
use crate::redis::answer::Answer;
use crate::redis::script::BUDGET;
use crate::redis::unexpected::unexpected;
use crate::seen::Seen;
use crate::settings::LedgerSettings;
use crate::spend::Charge;
use crate::spend::Expiry;
use crate::spend::Posted;
use crate::spend::Reservation;
use crate::spend::Reserve;
use crate::spend::Reserved;

/// A [`BudgetLedger`] of a fleet on Redis, over many processes. Clones are the same handle.
///
/// Each verb is one command, whatever the depth of the path. If the server comes back with older data than some process has
/// seen that is alive, or than a reservation knows that is settled, the ledger freezes: nothing is granted, a person is asked
/// (key `budget:regressed`), and [`resume`](BudgetLedger::resume) lets a swarm go on. A process notices when its connection is
/// back, or with its next call; until the first one does, others may still be granted something. If no process was alive
/// meanwhile, only a host notices that has kept [`RedisLedger::seen`] in a file of its own ([`RedisLedger::with_seen`]).
#[derive(Clone, Debug)]
pub struct RedisLedger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: RedisStore,
    settings: LedgerSettings,
    /// The settings as the script reads them.
    said: String,
    keys: Keys,
    memory: Arc<Memory>,
    /// Whether this handle speaks up for its process.
    watches: AtomicBool,
}

/// What a process has seen of the ledger of a fleet.
#[derive(Debug, Default)]
struct Memory {
    highest: Mutex<Seen>,
    /// What a host has kept and nobody has told the server yet.
    kept: Mutex<Option<Seen>>,
    is_watched: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if *self.watches.get_mut() {
            self.memory.is_watched.store(false, Ordering::Release);
        }
    }
}

/// What is said with each call of a verb.
struct Call<'a> {
    verb: &'static str,
    key: &'a str,
    day: Option<UtcDay>,
    swarm: &'a SwarmId,
    args: &'a [&'a [u8]],
}

/// Whoever asks for money may be gone before the answer comes: then the money is given back.
struct Asking<'a> {
    ledger: &'a RedisLedger,
    key: &'a IdempotencyKey,
    reserve: &'a Reserve,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let (ledger, key, session) = (self.ledger.clone(), self.key.clone(), self.reserve.session.clone());
        let amount = self.reserve.amount;
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = ledger.cancel(&key, &session, amount).await {
                    tracing::debug!(%key, %error, "a reservation that nobody waits for expires");
                }
            });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn trace(trace: Option<TraceToken>) -> String {
    trace.map(|trace| trace.to_string()).unwrap_or_default()
}

/// Microseconds, rounded up as elsewhere.
fn micros(duration: Duration) -> String {
    duration.as_nanos().div_ceil(1_000).to_string()
}

/// Whose account is looked at when it does not matter.
const ANYBODY: SwarmId = SwarmId::from_static("s2");

impl RedisLedger {
    /// The ledger of a fleet, with the default settings.
    #[must_use]
    pub fn new(store: &RedisStore) -> Self {
        // The defaults are in order.
        Self::open(store, LedgerSettings::default())
    }

    /// The ledger of a fleet, with settings of its own. They count for what this handle does.
    ///
    /// # Errors
    ///
    /// As [`LedgerSettings::check`].
    pub fn with_settings(store: &RedisStore, settings: LedgerSettings) -> Result<Self, Error> {
        settings.check()?;
        Ok(Self::open(store, settings))
    }

    fn open(store: &RedisStore, settings: LedgerSettings) -> Self {
        let window = store.config().idempotency_window.as_micros().min(u128::from(Timestamp::MAX.as_micros()));
        let LedgerSettings { warn_percent, kept_days, remembered, open, accounts, rules, .. } = &settings;
        let limit = settings.session_limit().as_nanos();
        let said = format!("{limit} {warn_percent} {kept_days} {remembered} {open} {accounts} {rules} {window}");
        let (store, memory, watches) = (store.clone(), store.part(), AtomicBool::new(false));
        Self { inner: Arc::new(Inner { store, settings, said, keys: Keys::default(), memory, watches }) }
    }

    /// Begins with what was seen before: the highest point that a host has kept. It counts for all handles of the store.
    #[must_use]
    pub fn with_seen(self, seen: Seen) -> Self {
        *lock(&self.inner.memory.kept) = Some(seen);
        self.see(seen);
        self
    }

    /// The highest point in the life of the ledger that this process has seen.
    #[must_use]
    pub fn seen(&self) -> Seen {
        *lock(&self.inner.memory.highest)
    }

    fn see(&self, seen: Seen) {
        let mut highest = lock(&self.inner.memory.highest);
        *highest = seen.max(*highest);
    }

    /// Sees to it that this process says what it has seen as soon as its connection is back.
    fn watch(&self) {
        if self.inner.memory.is_watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let (Ok(runtime), Ok(mut connected)) = (Handle::try_current(), self.inner.store.listen("budget")) else {
            return self.inner.memory.is_watched.store(false, Ordering::Release);
        };
        self.inner.watches.store(true, Ordering::Release);
        let inner = Arc::downgrade(&self.inner);
        runtime.spawn(async move {
            while connected.changed().await.is_ok()
                && let Some(inner) = inner.upgrade()
            {
                if let Err(error) = (Self { inner }).balances(&ANYBODY, None).await {
                    tracing::debug!(%error, "what this process has seen is said with its next call");
                }
            }
        });
    }

    async fn call(&self, call: Call<'_>) -> Result<Answer, Error> {
        self.watch();
        let kept = *lock(&self.inner.memory.kept);
        let seen = kept.unwrap_or_else(|| self.seen());
        let (epoch, sequence) = (seen.epoch.to_string(), seen.sequence.to_string());
        let day = call.day.map(|day| day.as_days().to_string()).unwrap_or_default();
        let head = [call.verb, &self.inner.said, &epoch, &sequence, call.key, &day, call.swarm.as_str()];
        let args: Vec<&[u8]> = head.into_iter().map(str::as_bytes).chain(call.args.iter().copied()).collect();
        let answer = Answer::new(self.inner.store.call(&BUDGET, &[], &args).await?);
        lock(&self.inner.memory.kept).take_if(|told| Some(*told) == kept);
        if let Some(seen) = answer.seen() {
            self.see(seen);
        }
        Ok(answer)
    }

    /// A call about a reservation, and one thing more.
    async fn about(&self, verb: &'static str, reservation: &Reservation, more: &str) -> Result<Answer, Error> {
        let Reservation { key, session, day, amount, seen, .. } = reservation;
        let said = [amount.as_nanos(), seen.epoch, seen.sequence].map(|number| number.to_string());
        let [amount, epoch, sequence] = &said;
        let args = [amount.as_bytes(), epoch.as_bytes(), sequence.as_bytes(), more.as_bytes()];
        let call = Call { verb, key: key.as_str(), day: Some(*day), swarm: session, args: &args };
        let answer = self.call(call).await?;
        match answer.word() {
            "unknown" => Err(Error::UnknownReservation { key: key.clone() }),
            "settled" => {
                let actual = answer.amount(0).ok_or_else(|| unexpected(verb, &answer))?;
                Err(Error::AlreadySettled { key: key.clone(), actual })
            }
            _ => Ok(answer),
        }
    }

    /// A call about the account of a swarm today.
    async fn rule(&self, verb: &'static str, swarm: &SwarmId, args: [&str; 2]) -> Result<Balance, Error> {
        let args = args.map(str::as_bytes);
        let answer = self.call(Call { verb, key: "", day: None, swarm, args: &args }).await?;
        if answer.word() == "limit" {
            return Err(self.over(&answer));
        }
        let balance = answer.balances(swarm).and_then(|balances| balances.into_iter().next());
        balance.ok_or_else(|| unexpected(verb, &answer))
    }

    /// Whoever asked for this is gone.
    async fn cancel(&self, key: &IdempotencyKey, session: &SwarmId, amount: NanoUsd) -> Result<(), Error> {
        let amount = amount.as_nanos().to_string();
        let args = [amount.as_bytes()];
        let call = Call { verb: "cancel", key: key.as_str(), day: None, swarm: session, args: &args };
        self.call(call).await.map(drop)
    }
}

fn ended(key: &IdempotencyKey, answer: &Answer) -> Error {
    let how = match answer.text(0) {
        Some("expired") => "expired",
        Some("released") => "released",
        _ => "settled",
    };
    Error::ReservationEnded { key: key.clone(), how }
}

/// What a key belongs to.
fn conflict(key: &IdempotencyKey, answer: &Answer) -> Option<Error> {
    let what = answer.text(0).filter(|_| answer.word() == "conflict")?;
    let original = format!("a {what} of {} by {}", answer.amount(1)?, answer.text(2)?);
    Some(Error::SpendConflict { key: key.clone(), original })
}

#[async_trait]
impl BudgetLedger for RedisLedger {
    #[tracing::instrument(level = "debug", skip_all, fields(session = %reserve.session, amount = %reserve.amount))]
    async fn reserve(&self, reserve: &Reserve) -> Result<Reserved, Error> {
        let ttl = micros(self.inner.settings.check_ttl(reserve.ttl)?);
        let key = self.inner.keys.or_new(reserve.key.as_ref());
        let (amount, trace) = (reserve.amount.as_nanos().to_string(), trace(reserve.trace));
        let expiry = if reserve.expiry == Expiry::Presume { "1" } else { "0" };
        let args = [amount.as_bytes(), ttl.as_bytes(), expiry.as_bytes(), trace.as_bytes()];
        let session = &reserve.session;
        // With a key of its own it is asked for again.
        let asking = reserve.key.is_none().then(|| Asking { ledger: self, key: &key, reserve });
        let answer =
            self.call(Call { verb: "reserve", key: key.as_str(), day: None, swarm: session, args: &args }).await;
        // Whether a call that failed has come to anything, nobody knows.
        let answer = answer?;
        std::mem::forget(asking);
        let granted = || {
            let seen = answer.seen()?;
            let (day, until) = (answer.day(0)?, answer.time(1)?);
            Some(Reservation::granted(key.clone(), session.clone(), day, reserve.amount, until, seen))
        };
        let answered = match answer.word() {
            "granted" => granted().map(Reserved::Granted),
            "denied" => answer.denied(session).map(Reserved::Denied),
            "limit" => return Err(self.over(&answer)),
            "ended" => return Err(ended(&key, &answer)),
            _ => return Err(conflict(&key, &answer).unwrap_or_else(|| unexpected("reserve", &answer))),
        };
        answered.ok_or_else(|| unexpected("reserve", &answer))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(key = %reservation.key))]
    async fn extend(&self, reservation: &Reservation, by: Duration) -> Result<Timestamp, Error> {
        let by = micros(self.inner.settings.check_ttl(Some(by))?);
        let answer = self.about("extend", reservation, &by).await?;
        match answer.word() {
            "ended" => Err(ended(&reservation.key, &answer)),
            _ => answer.time(0).ok_or_else(|| unexpected("extend", &answer)),
        }
    }

    #[tracing::instrument(level = "debug", skip_all, fields(key = %reservation.key, %actual))]
    async fn settle(&self, reservation: &Reservation, actual: NanoUsd) -> Result<Posted, Error> {
        let answer = self.about("settle", reservation, &actual.as_nanos().to_string()).await?;
        answer.posted(&reservation.session).ok_or_else(|| unexpected("settle", &answer))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(key = %reservation.key))]
    async fn release(&self, reservation: &Reservation) -> Result<(), Error> {
        let answer = self.about("release", reservation, "").await?;
        if answer.word() == "ok" { Ok(()) } else { Err(unexpected("release", &answer)) }
    }

    #[tracing::instrument(level = "debug", skip_all, fields(session = %charge.session, cost = %charge.cost))]
    async fn charge(&self, charge: &Charge) -> Result<Posted, Error> {
        let key = self.inner.keys.or_new(charge.key.as_ref());
        let (cost, trace) = (charge.cost.as_nanos().to_string(), trace(charge.trace));
        let args = [cost.as_bytes(), trace.as_bytes()];
        let call = Call { verb: "charge", key: key.as_str(), day: None, swarm: &charge.session, args: &args };
        let answer = self.call(call).await?;
        match answer.posted(&charge.session).filter(|_| answer.word() == "posted") {
            Some(posted) => Ok(posted),
            None => Err(conflict(&key, &answer).unwrap_or_else(|| unexpected("charge", &answer))),
        }
    }

    async fn balances(&self, swarm: &SwarmId, day: Option<UtcDay>) -> Result<Vec<Balance>, Error> {
        let answer = self.call(Call { verb: "balances", key: "", day, swarm, args: &[] }).await?;
        match answer.balances(swarm) {
            Some(balances) if answer.word() == "balances" => Ok(balances),
            _ => Err(not_retained(day, &answer).unwrap_or_else(|| unexpected("balances", &answer))),
        }
    }

    async fn statement(
        &self,
        swarm: &SwarmId,
        day: Option<UtcDay>,
        after: Option<&SwarmId>,
        limit: usize,
    ) -> Result<Statement, Error> {
        self.inner.store.config().limits.check_page(limit)?;
        let after = check_after(swarm, after)?.map(SwarmId::as_str).unwrap_or_default();
        let limit = limit.to_string();
        let args = [after.as_bytes(), limit.as_bytes()];
        let answer = self.call(Call { verb: "statement", key: "", day, swarm, args: &args }).await?;
        match answer.balance(swarm).zip(answer.within()) {
            Some((balance, within)) if answer.word() == "statement" => Ok(Statement::new(balance, within)),
            _ => Err(not_retained(day, &answer).unwrap_or_else(|| unexpected("statement", &answer))),
        }
    }

    #[tracing::instrument(level = "debug", skip_all, fields(%swarm, %limit))]
    async fn set_limit(&self, swarm: &SwarmId, limit: Limit) -> Result<Balance, Error> {
        let amount = limit.amount().map(|amount| amount.as_nanos().to_string()).unwrap_or_default();
        self.rule("limit", swarm, [&amount, &limit.to_string()]).await
    }

    #[tracing::instrument(level = "debug", skip_all, fields(%swarm, reason))]
    async fn halt(&self, swarm: &SwarmId, reason: &str) -> Result<Balance, Error> {
        self.inner.store.config().limits.check_reason(reason)?;
        self.rule("halt", swarm, [reason, ""]).await
    }

    #[tracing::instrument(level = "debug", skip_all, fields(%swarm))]
    async fn resume(&self, swarm: &SwarmId) -> Result<Balance, Error> {
        self.rule("resume", swarm, ["", ""]).await
    }
}

impl RedisLedger {
    fn over(&self, answer: &Answer) -> Error {
        let (limit, max) = match answer.text(0) {
            Some("open") => ("open", self.inner.settings.open),
            Some("rules") => ("rules", self.inner.settings.rules),
            _ => ("accounts", self.inner.settings.accounts),
        };
        let actual = answer.number(1).unwrap_or_default();
        Error::LimitExceeded { limit, what: "the ledger".to_owned(), actual, max: max as u64 }
    }
}

fn not_retained(day: Option<UtcDay>, answer: &Answer) -> Option<Error> {
    let oldest = answer.day(0).filter(|_| answer.word() == "not_retained")?;
    Some(Error::NotRetained { day: day?, oldest })
}
