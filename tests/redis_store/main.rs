//! What the fleet on Redis promises beyond the contracts: idle consumers cost nothing, numbers stay exact, a cluster will do,
//! errors say what is wrong, processes may die, memory may run out, events may be large, and keys may be lost.

mod access;
mod errors;
mod idle;
mod lost;
mod memory;
mod numbers;
mod processes;
mod size;

use s2_coordinator::{
    Entry, Error, EventBus, EventType, Group, GroupName, Journal, NewEvent, RedisBus, RedisStore, SwarmId, Topic,
};
use s2_tests::redis::unique_name;
use s2_tests::servers::RedisServer;
use std::error::Error as _;
use std::time::Duration;

const ORDERS: Topic = Topic::from_static("orders");
const BILLS: Topic = Topic::from_static("bills");
const CLERKS: GroupName = GroupName::from_static("clerks");
const OTHERS: GroupName = GroupName::from_static("others");

const LONG: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(10);
const MIB: usize = 1024 * 1024;
/// The largest whole number that Lua keeps exact.
const MOST: u64 = (1 << 53) - 1;

fn event(topic: Topic) -> NewEvent {
    NewEvent::new(topic, EventType::from_static("order.placed"), SwarmId::from_static("shop"))
}

async fn store(server: &RedisServer) -> RedisStore {
    RedisStore::connect(&server.url(), unique_name()).await.expect("a fleet")
}

/// Everything that an error says, causes and debug form included.
fn said(error: &Error) -> String {
    let mut text = format!("{error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    format!("{text} ({error:?})")
}

async fn entries(store: &RedisStore) -> Vec<Entry> {
    let journal = store.journal();
    let start = journal.start().await.expect("a journal");
    journal.entries(start, 500).await.expect("entries").items
}

async fn group(bus: &RedisBus, topic: &Topic) -> Group {
    let mut groups = bus.groups(topic).await.expect("groups");
    assert_eq!(groups.len(), 1, "{groups:?}");
    groups.remove(0)
}
