//! The suite that every ledger must pass.
//!
//! Each promise of [`BudgetLedger`](crate::BudgetLedger) is a case that any implementation can run: say how to make a fresh
//! fleet, and [`run`] does the rest.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use async_trait::async_trait;
//! use s2_coordinator::{Inbox, Journal, ManualClock, MemoryStore, Timestamp};
//! use s2_governor::{BudgetLedger, LedgerSettings, MemoryLedger};
//! use s2_governor::conformance::{Backend, Fleet, run};
//!
//! #[derive(Debug)]
//! struct Memory;
//!
//! #[derive(Debug)]
//! struct InMemory(MemoryStore, Arc<ManualClock>);
//!
//! #[async_trait]
//! impl Backend for Memory {
//!     async fn fleet(&self) -> Box<dyn Fleet> {
//!         let clock = Arc::new(ManualClock::new("2025-11-12T09:00:00Z".parse().expect("a time")));
//!         let store = MemoryStore::builder().with_clock(clock.clone()).build().expect("valid");
//!         Box::new(InMemory(store, clock))
//!     }
//! }
//!
//! #[async_trait]
//! impl Fleet for InMemory {
//!     fn ledger(&self, settings: LedgerSettings) -> Arc<dyn BudgetLedger> {
//!         Arc::new(MemoryLedger::with_settings(&self.0, settings).expect("valid"))
//!     }
//!     fn inbox(&self) -> Arc<dyn Inbox> { Arc::new(self.0.inbox()) }
//!     fn journal(&self) -> Arc<dyn Journal> { Arc::new(self.0.journal()) }
//!     async fn advance(&self, by: Duration) { self.1.advance(by) }
//! }
//!
//! # #[tokio::main] async fn main() {
//! let report = run(Arc::new(Memory)).await;
//! assert!(report.failed.is_empty(), "{report}");
//! # }
//! ```
//!
//! To run some cases only, set `S2_CONFORMANCE` to a part of their names.

mod harness;
mod kit;
mod reserve;
mod settle;
mod expiry;
mod levels;
mod days;
mod accounts;
mod suite;

pub use harness::{Backend, Fleet};
pub use suite::run;
