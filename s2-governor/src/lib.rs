//! What a fleet may spend, who helps whom, and which providers it may still ask.
//!
//! The modules are listed in reading order; each knows only those above it.

// Words.
mod money;
mod error;
mod basis_points;
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
// Who helps.
mod coverage;
mod need;
mod track_record;
mod track_records;
mod candidate;
mod bond;
mod score;
mod rescue_policy;
mod policy_file;
mod matcher;
mod assignment;
mod waste;
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
pub use basis_points::BasisPoints;
pub use bond::{Bond, Bonds};
pub use candidate::Candidate;
pub use error::Error;
pub use ledger::{BudgetLedger, BudgetLedgerExt, Statement};
pub use matcher::{Assessment, Excluded, Matcher, Passed, Selection};
pub use memory::MemoryLedger;
pub use money::NanoUsd;
pub use need::Need;
pub use policy_file::PolicyFile;
pub use price_table::PriceTable;
pub use prices::{LongContext, Prices};
pub use quality::Quality;
#[cfg(feature = "redis")]
pub use redis::RedisLedger;
pub use rescue_policy::{PreemptionConditions, RescuePolicy};
pub use route::{Choice, Considered, Decision, Headroom, Route, RouteRequest, Verdict};
pub use savings::Savings;
pub use score::{Score, Weights};
pub use seen::Seen;
pub use settings::LedgerSettings;
pub use spend::{Charge, Denial, Denied, Expiry, Posted, Reservation, Reserve, Reserved};
pub use tier::{Degrade, Tier, TierPolicy};
pub use tier_router::TierRouter;
pub use track_record::{Decay, TrackRecord, Verified};
pub use track_records::TrackRecords;
pub use usage::Usage;
pub use waste::{Help, Waste};
