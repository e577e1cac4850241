//! A bus of your own, proven by the suites of S².
//!
//! `cargo run --example third_party_bus`
//!
//! `bus.rs` is a bus that somebody else might write: it publishes, delivers to groups and acks, and promises no more
//! than that. The lines that follow run every case that these promises select, and show which were left out.

mod bus;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use s2_coordinator::conformance::{Backend, Fleet, Guarantee, run};
use s2_coordinator::{Config, EventBus};

use crate::bus::TinyBus;

#[derive(Debug)]
struct Tiny;

#[async_trait]
impl Backend for Tiny {
    async fn fleet(&self, _: Config) -> Box<dyn Fleet> {
        Box::new(TinyBus::default())
    }

    fn guarantees(&self) -> &[Guarantee] {
        &[Guarantee::AtomicBatch, Guarantee::Replay]
    }
}

#[async_trait]
impl Fleet for TinyBus {
    fn bus(&self) -> Arc<dyn EventBus> {
        Arc::new(self.another())
    }

    async fn advance(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }
}

#[tokio::main]
async fn main() {
    let report = run(Arc::new(Tiny)).await;
    println!("{report}");
    assert!(report.failed.is_empty(), "the bus does not keep what it promises");
    assert!(report.passed.len() >= 20, "cases are missing");
}
