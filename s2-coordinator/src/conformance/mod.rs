//! The suites that every backend must pass.
//!
//! A promise that only prose keeps is broken by the second backend. Here each promise of [`EventBus`](crate::EventBus),
//! [`Scheduler`](crate::Scheduler), [`Journal`](crate::Journal) and [`Inbox`](crate::Inbox) is a case that any implementation can run: say how to make a
//! fresh fleet, declare what the backend [`Guarantee`]s, and [`run`] selects the cases. A backend that does not offer
//! something says so, and the report shows what was left out.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use async_trait::async_trait;
//! use s2_coordinator::conformance::{Backend, Fleet, Guarantee, run};
//! use s2_coordinator::{Config, EventBus, Inbox, Journal, ManualClock, MemoryStore, Scheduler, Timestamp};
//!
//! #[derive(Debug)]
//! struct Memory;
//!
//! #[derive(Debug)]
//! struct InMemory(MemoryStore, Arc<ManualClock>);
//!
//! #[async_trait]
//! impl Backend for Memory {
//!     async fn fleet(&self, config: Config) -> Box<dyn Fleet> {
//!         let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_762_938_000_000_000)));
//!         let store = MemoryStore::builder().with_config(config).with_clock(clock.clone()).build().expect("valid");
//!         Box::new(InMemory(store, clock))
//!     }
//! }
//!
//! #[async_trait]
//! impl Fleet for InMemory {
//!     fn bus(&self) -> Arc<dyn EventBus> { Arc::new(self.0.bus()) }
//!     fn scheduler(&self) -> Option<Arc<dyn Scheduler>> { Some(Arc::new(self.0.scheduler())) }
//!     fn inbox(&self) -> Option<Arc<dyn Inbox>> { Some(Arc::new(self.0.inbox())) }
//!     fn journal(&self) -> Option<Arc<dyn Journal>> { Some(Arc::new(self.0.journal())) }
//!     async fn advance(&self, by: Duration) { self.1.advance(by) }
//! }
//!
//! # #[tokio::main] async fn main() {
//! let report = run(Arc::new(Memory)).await;
//! assert!(report.failed.is_empty(), "{report}");
//! # assert!(report.left_out.is_empty());
//! # }
//! ```
//!
//! To run some cases only, set `S2_CONFORMANCE` to a part of their names.

mod harness;
mod kit;
mod attempts;
mod commit;
mod dead_letters;
mod delivery;
mod inbox;
mod journal;
mod lifecycle;
mod publish;
mod replay;
mod retention;
mod settle;
mod scheduler;
mod suite;

pub use harness::{Backend, Fleet, Guarantee};
pub use suite::{ForeignCase, Report, run, run_cases};
