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

pub use error::Error;
pub use money::NanoUsd;
pub use price_table::PriceTable;
pub use prices::{LongContext, Prices};
pub use quality::Quality;
pub use route::{Choice, Considered, Decision, Headroom, Route, RouteRequest, Verdict};
pub use savings::Savings;
pub use tier::{Degrade, Tier, TierPolicy};
pub use tier_router::TierRouter;
pub use usage::Usage;
