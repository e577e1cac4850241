//! What a fleet may spend, who helps whom, and which providers it may still ask.
//!
//! The modules are listed in reading order; each knows only those above it.

// Words.
mod money;
mod error;
// What things cost.
mod usage;
mod prices;
mod price_table;
// Which model does it.
mod quality;
mod tier;
mod route;
mod savings;
mod tier_router;
// What may be spent.
mod account;
mod seen;
mod spend;
mod settings;
mod keys;
mod ledger;
// Backends.
mod memory;
#[cfg(feature = "redis")]
mod redis;
// Proof.
#[cfg(feature = "conformance")]
pub mod conformance;

pub use account::{Balance, Level, Limit};
pub use error::Error;
pub use ledger::{BudgetLedger, BudgetLedgerExt, Statement};
pub use memory::MemoryLedger;
pub use money::NanoUsd;
pub use price_table::PriceTable;
pub use prices::{LongContext, Prices};
pub use quality::Quality;
#[cfg(feature = "redis")]
pub use redis::RedisLedger;
pub use route::{Choice, Considered, Decision, Headroom, Route, RouteRequest, Verdict};
pub use savings::Savings;
pub use seen::Seen;
pub use settings::LedgerSettings;
pub use spend::{Charge, Denial, Denied, Expiry, Posted, Reservation, Reserve, Reserved};
pub use tier::{Degrade, Tier, TierPolicy};
pub use tier_router::TierRouter;
pub use usage::Usage;
