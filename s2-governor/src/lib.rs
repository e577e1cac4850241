//! What a fleet may spend, who helps whom, and which providers it may still ask.
//!
//! The modules are listed in reading order; each knows only those above it.
//!
//! | feature | what it adds |
//! |---|---|
//! | `redis` | `RedisLedger` and `RedisBoard`: what processes share, on a Redis server |
//! | `redis-tls` | the same over TLS (`rediss://`), with the system's certificates |
//! | `tower` | bulkhead and breaker as layers of [tower](https://docs.rs/tower) |
//! | `conformance` | the suite that every ledger must pass |

// Words.
mod money;
mod provider;
mod refused;
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
// Which providers may be asked.
mod provider_settings;
mod calls;
mod verdict;
mod transition;
mod board;
mod local;
mod agreement;
mod permit;
mod breaker;
mod provider_threads;
mod bulkhead;
mod providers;
#[cfg(feature = "tower")]
mod tower;
// Backends.
mod memory;
#[cfg(feature = "redis")]
mod redis;
// Proof.
#[cfg(feature = "conformance")]
pub mod conformance;

pub use account::{Balance, Level, Limit};
pub use basis_points::BasisPoints;
pub use board::{Board, Swapped, Versioned};
pub use bond::{Bond, Bonds};
pub use breaker::CircuitBreaker;
pub use bulkhead::{Bulkhead, Slot};
pub use candidate::Candidate;
pub use error::Error;
pub use ledger::{BudgetLedger, BudgetLedgerExt, Statement};
pub use matcher::{Assessment, Excluded, Matcher, Passed, Selection};
pub use memory::{MemoryBoard, MemoryLedger};
pub use money::NanoUsd;
pub use need::Need;
pub use permit::{CallOutcome, Permit};
pub use policy_file::PolicyFile;
pub use price_table::PriceTable;
pub use prices::{LongContext, Prices};
pub use provider::ProviderName;
pub use provider_settings::{BreakerSettings, BulkheadSettings, ProviderSettings, Window};
pub use providers::{Admission, Provider, Providers};
pub use quality::Quality;
#[cfg(feature = "redis")]
pub use redis::{RedisBoard, RedisLedger};
pub use refused::{BreakerOpen, BulkheadFull, Refused, WhyOpen};
pub use rescue_policy::{PreemptionConditions, RescuePolicy};
pub use route::{Choice, Considered, Decision, Fitness, Headroom, Route, RouteRequest};
pub use savings::Savings;
pub use score::{Score, Weights};
pub use seen::Seen;
pub use settings::LedgerSettings;
pub use spend::{Charge, Denial, Denied, Expiry, Posted, Reservation, Reserve, Reserved};
pub use tier::{Degrade, Tier, TierPolicy};
pub use tier_router::TierRouter;
#[cfg(feature = "tower")]
pub use tower::{BreakerLayer, BreakerService, BulkheadLayer, BulkheadService, Classify, Guarded, HttpStatus, Turn};
pub use track_record::{Decay, TrackRecord, Verified};
pub use track_records::TrackRecords;
pub use usage::Usage;
pub use verdict::{BreakerState, Findings, Forced, ForcedTo, Probe, Verdict};
pub use waste::{Help, Waste};
