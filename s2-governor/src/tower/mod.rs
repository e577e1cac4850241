//! Bulkhead and breaker as layers of tower, for hosts whose calls are services.
//!
//! A refusal is an answer to one call: `poll_ready` never fails because of it, since that would end the service; the call
//! fails instead. What `poll_ready` has reserved is used by the next call, or given back when the service is dropped. A clone
//! has reserved nothing.

mod classify;
mod bulkhead;
mod breaker;

pub use breaker::{BreakerLayer, BreakerService, Guarded};
pub use bulkhead::{BulkheadLayer, BulkheadService, Turn};
pub use classify::{Classify, HttpStatus};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
