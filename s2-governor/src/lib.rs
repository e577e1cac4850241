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

pub use error::Error;
pub use money::NanoUsd;
pub use price_table::PriceTable;
pub use prices::{LongContext, Prices};
pub use usage::Usage;
