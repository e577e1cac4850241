//! What ledgers promise beyond the contract: threads and processes race, callers die and are gone, replies are lost, the server
//! forgets.

mod commands;
mod lost;
mod processes;
mod race;
mod regressed;

use std::time::Duration;

use s2_coordinator::{RedisStore, SwarmId};
use s2_governor::{BudgetLedger, Denied, Limit, NanoUsd, Reservation, Reserve};

const FLEET: SwarmId = SwarmId::from_static("fleet");
const SESSION: SwarmId = SwarmId::from_static("telephony/sip/session-4");
const LONG: Duration = Duration::from_secs(60);

const fn cents(cents: u64) -> NanoUsd {
    NanoUsd::from_cents(cents)
}

async fn store(url: &str) -> RedisStore {
    RedisStore::connect(url, FLEET).await.expect("a fleet")
}

async fn set_limit(ledger: &impl BudgetLedger, amount: NanoUsd) {
    ledger.set_limit(&SESSION, Limit::PerDay(amount)).await.expect("a limit");
}

async fn ask(ledger: &impl BudgetLedger, amount: NanoUsd) -> Result<Reservation, Denied> {
    ledger.reserve(&Reserve::new(SESSION, amount)).await.expect("no error").granted()
}
