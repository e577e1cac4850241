//! What a fleet may spend, who helps whom, and which providers it may still ask.
//!
//! The modules are listed in reading order; each knows only those above it.
//!
//! | feature | what it adds |
//! |---|---|
//! | `redis` | what processes share, on a Redis server |
//! | `redis-tls` | the same over TLS (`rediss://`), with the system's certificates |
//! | `tower` | bulkhead and breaker as layers of [tower](https://docs.rs/tower) |
//! | `conformance` | the suite that every ledger must pass |

// Words.
mod provider;
mod refused;
mod error;
mod money;
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

pub use board::{Board, Posted, Swapped};
pub use breaker::CircuitBreaker;
pub use bulkhead::{Bulkhead, Slot};
pub use error::Error;
pub use memory::MemoryBoard;
pub use money::NanoUsd;
pub use permit::{CallOutcome, Permit};
pub use provider::ProviderName;
pub use provider_settings::{BreakerSettings, BulkheadSettings, ProviderSettings, Window};
pub use providers::{Admission, Provider, Providers};
#[cfg(feature = "redis")]
pub use redis::RedisBoard;
pub use refused::{BreakerOpen, BulkheadFull, Refused, WhyOpen};
#[cfg(feature = "tower")]
pub use tower::{BreakerLayer, BreakerService, BulkheadLayer, BulkheadService, Classify, Guarded, HttpStatus, Turn};
pub use verdict::{BreakerState, Findings, Forced, ForcedTo, Probe, Verdict};
