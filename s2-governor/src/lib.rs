//! What a fleet may spend, who helps whom, and which providers it may still ask.
//!
//! The modules are listed in reading order; each knows only those above it.

// Words.
mod money;
mod error;
mod account;
mod seen;
mod spend;
mod settings;
mod keys;
// Contracts.
mod ledger;
// Backends.
mod memory;
#[cfg(feature = "redis")]
mod redis;

pub use account::{Balance, Level, Limit};
pub use error::Error;
pub use ledger::{BudgetLedger, BudgetLedgerExt, Statement};
pub use memory::MemoryLedger;
pub use money::NanoUsd;
#[cfg(feature = "redis")]
pub use redis::RedisLedger;
pub use seen::Seen;
pub use settings::LedgerSettings;
pub use spend::{Charge, Denial, Denied, Expiry, Posted, Reservation, Reserve, Reserved};
