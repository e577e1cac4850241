//! What the cases have in common.

use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::{Entry, EscalationId, Position, SwarmId, UtcDay, Value};

use crate::account::Balance;
use crate::account::Limit;
use crate::conformance::harness::Fleet;
use crate::error::Error;
use crate::ledger::BudgetLedger;
use crate::ledger::BudgetLedgerExt;
use crate::money::NanoUsd;
use crate::settings::LedgerSettings;
use crate::spend::Denied;
use crate::spend::Reservation;
use crate::spend::Reserve;

pub(super) const SESSION: SwarmId = SwarmId::from_static("telephony/sip/session-4");
pub(super) const OTHER: SwarmId = SwarmId::from_static("telephony/ndi");
pub(super) const SWARM: SwarmId = SwarmId::from_static("telephony");
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
/// The day on which the cases begin.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) const fn cents(cents: u64) -> NanoUsd {
    NanoUsd::from_cents(cents)
}

pub(super) const fn nanos(nanos: u64) -> NanoUsd {
    NanoUsd::from_nanos(nanos)
}

pub(super) fn ledger_of(fleet: &dyn Fleet) -> Arc<dyn BudgetLedger> {
    fleet.ledger(LedgerSettings::default())
}

/// A ledger on which the session may spend so much.
pub(super) async fn limited(fleet: &dyn Fleet, limit: NanoUsd) -> Result<Arc<dyn BudgetLedger>, Error> {
    let ledger = ledger_of(fleet);
    ledger.set_limit(&SESSION, Limit::PerDay(limit)).await?;
    Ok(ledger)
}

pub(super) async fn reserve(ledger: &dyn BudgetLedger, amount: NanoUsd) -> Result<Reservation, Error> {
    granted(ledger, Reserve::new(SESSION, amount)).await
}

pub(super) async fn granted(ledger: &dyn BudgetLedger, reserve: Reserve) -> Result<Reservation, Error> {
    Ok(ledger.reserve(&reserve).await?.granted().expect("granted"))
}

pub(super) async fn denied(ledger: &dyn BudgetLedger, reserve: Reserve) -> Result<Denied, Error> {
    Ok(ledger.reserve(&reserve).await?.granted().expect_err("denied"))
}

/// What the session has spent, and what is held for it: the same on every level, if nobody else spends.
pub(super) async fn state(ledger: &dyn BudgetLedger) -> Result<(NanoUsd, NanoUsd), Error> {
    let path = ledger.balances(&SESSION, None).await?;
    let states: Vec<_> = path.iter().map(|balance| (balance.spent, balance.held)).collect();
    assert_eq!(states, vec![states[0]; 3], "every level moves alike");
    Ok(states[0])
}

pub(super) async fn balance(ledger: &dyn BudgetLedger, swarm: &SwarmId) -> Result<Balance, Error> {
    ledger.balance(swarm).await
}

pub(super) async fn today(ledger: &dyn BudgetLedger) -> Result<UtcDay, Error> {
    Ok(ledger.balance(&SESSION).await?.day)
}

/// What the ledger has journalled.
pub(super) async fn entries(fleet: &dyn Fleet) -> Result<Vec<Entry>, Error> {
    let journal = fleet.journal();
    let (mut after, mut all) = (Position::ORIGIN, Vec::new());
    loop {
        let page = journal.entries(after, 500).await?;
        if page.items.is_empty() {
            return Ok(all);
        }
        after = page.next;
        all.extend(page.items.into_iter().filter(|entry| *entry.component == *"budget"));
    }
}

/// The operations that the ledger has journalled, with their subjects.
pub(super) async fn operations(fleet: &dyn Fleet) -> Result<Vec<String>, Error> {
    Ok(entries(fleet).await?.iter().map(|entry| format!("{} {}", entry.operation, entry.subject)).collect())
}

/// The levels that were announced: account and percentage.
pub(super) async fn levels(fleet: &dyn Fleet) -> Result<Vec<(String, i64)>, Error> {
    let level = |entry: &Entry| match (&*entry.operation, entry.params.get("percent")) {
        ("level", Some(Value::Int(percent))) => Some((entry.subject.to_string(), *percent)),
        _ => None,
    };
    Ok(entries(fleet).await?.iter().filter_map(level).collect())
}

/// The keys and payloads of what waits for a person.
pub(super) async fn questions(fleet: &dyn Fleet) -> Result<Vec<(String, String)>, Error> {
    let pending = fleet.inbox().pending(EscalationId::default(), 100).await?;
    let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
    Ok(pending.iter().map(|it| (it.key.to_string(), text(&it.payload))).collect())
}
