//! Whatever happens to the server, whoever waits goes on: within seconds events flow again, without the host doing
//! anything, and what was lost is in the journal.
//!
//! Each test breaks a server of its own in one way, on the server's clock: two groups, a tail of their topic and one of the
//! journal wait in one process, and another process publishes. A process here is a [`RedisStore`] of its own.

mod away;
mod faults;
mod scene;

use std::time::{Duration, Instant};

use s2_coordinator::{GroupName, Topic};
use tokio::time::sleep;

const ORDERS: Topic = Topic::from_static("orders");
const PROBES: Topic = Topic::from_static("probes");
/// A group of two consumers.
const PAIR: GroupName = GroupName::from_static("pair");
/// A group of one.
const SOLO: GroupName = GroupName::from_static("solo");

/// How soon after the server answers again a fresh event must be everywhere.
const HEALED: Duration = Duration::from_secs(5);
const OUTAGE: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(10);

/// Waits until something holds; answers whether it did before the deadline.
async fn until(deadline: Instant, mut holds: impl FnMut() -> bool) -> bool {
    loop {
        if holds() {
            return true;
        } else if Instant::now() >= deadline {
            return false;
        }
        sleep(TICK).await;
    }
}

fn soon() -> Instant {
    Instant::now() + LONG
}
