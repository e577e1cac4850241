//! Memory may run out.

use crate::{BILLS, CLERKS, LONG, MIB, ORDERS, OTHERS, event, group, said};
use s2_coordinator::{Error, EventBus, EventBusExt, IdempotencyKey, NewEvent, Position, RedisStore, Start, Subscribe};
use s2_tests::redis::unique_name;
use s2_tests::servers::RedisServer;
use std::time::Duration;
use tokio::time::timeout;

struct Full {
    server: RedisServer,
    store: RedisStore,
    /// How many events were published before memory was full.
    published: u64,
}

impl Full {
    fn allow(&self, bytes: u64) {
        assert_eq!(self.server.command(&["CONFIG", "SET", "maxmemory", &bytes.to_string()]), "OK");
    }

    fn large(nth: u64) -> NewEvent {
        let key = IdempotencyKey::new(format!("large-{nth}")).expect("a key");
        event(ORDERS).with_data(vec![b'x'; MIB / 10]).with_idempotency_key(key)
    }

    /// A server whose memory is full of events that a group waits for.
    async fn begin() -> Self {
        let server = RedisServer::start_volatile();
        let builder = RedisStore::builder(unique_name()).with_patience(Duration::from_secs(2));
        let store = builder.connect(&server.url()).await.expect("a fleet");
        let bus = store.bus();
        drop(bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a group"));
        let mut full = Self { server, store, published: 0 };
        let used: u64 = full.server.info("used_memory").parse().expect("a number");
        full.allow(used + MIB as u64);
        let refused = loop {
            match bus.publish_one(&Self::large(full.published + 1)).await {
                Ok(_) => full.published += 1,
                Err(error) => break error,
            }
            assert!(full.published < 100, "10 MiB in 1 MiB");
        };
        assert!(matches!(refused, Error::Backend { .. }), "{refused:?}");
        assert!(said(&refused).contains("OOM"), "{}", said(&refused));
        full
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_half_written_when_memory_is_full() {
    let full = Full::begin().await;
    let bus = full.store.bus();
    for _ in 0..3 {
        let both = [Full::large(full.published + 1), event(BILLS).with_data(vec![b'x'; MIB])];
        let refused = bus.publish(&both).await.expect_err("memory is full");
        assert!(matches!(refused, Error::Backend { .. }), "{refused:?}");
    }
    full.allow(0);
    let read = bus.read(&ORDERS, Start::Beginning, 500).await.expect("read");
    let positions: Vec<u64> = read.items.iter().map(|event| event.position.get()).collect();
    assert_eq!(positions, (1..=full.published).collect::<Vec<_>>(), "what was answered is there, and nothing else");
    assert!(bus.read(&BILLS, Start::Beginning, 1).await.expect("read").items.is_empty());
    assert_eq!(group(&bus, &ORDERS).await.backlog, full.published);

    let next = bus.publish_one(&Full::large(full.published + 1)).await.expect("there is room again");
    assert_eq!((next.position, next.duplicate), (Position::new(full.published + 1), false));
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a subscription");
    for position in 1..=full.published + 1 {
        let delivery = timeout(LONG, clerk.next()).await.expect("delivered").expect("no error").expect("a delivery");
        assert_eq!((delivery.event.position.get(), delivery.attempt), (position, 1));
        delivery.ack().await.expect("acked");
    }
    let left = group(&bus, &ORDERS).await;
    assert_eq!((left.floor.get(), left.in_flight, left.backlog), (full.published + 1, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_can_be_read_when_memory_is_full() {
    let full = Full::begin().await;
    let bus = full.store.bus();
    let read = bus.read(&ORDERS, Start::Beginning, 500).await.map_err(|error| said(&error));
    assert_eq!(read.map(|page| page.items.len() as u64), Ok(full.published));
    assert_eq!(group(&bus, &ORDERS).await.backlog, full.published);
}

/// Waits do not fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_goes_on_when_memory_is_full() {
    let full = Full::begin().await;
    full.allow(0);
    let bus = full.store.bus();
    // One that waits when memory becomes full, one that begins to wait then, and one for whom there is something.
    let elsewhere = bus.subscribe(&Subscribe::new(BILLS, CLERKS)).await.expect("a group");
    let late = bus.subscribe(&Subscribe::new(BILLS, OTHERS)).await.expect("a group");
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a subscription");
    let mut elsewhere = tokio::spawn(async move { elsewhere.next().await });
    full.allow(1);
    let mut late = tokio::spawn(async move { late.next().await });
    let clerk = tokio::spawn(async move { clerk.next().await });
    // Beyond patience, which is 2 s.
    for (who, waiting) in [("elsewhere", &mut elsewhere), ("late", &mut late)] {
        if let Ok(ended) = timeout(Duration::from_secs(4), waiting).await {
            panic!("the wait of {who} ended: {:?}", ended.expect("no panic").map_err(|error| said(&error)));
        }
    }
    full.allow(0);
    bus.publish_one(&event(BILLS)).await.expect("there is room again");
    for waiting in [elsewhere, late, clerk] {
        let delivery = timeout(LONG, waiting).await.expect("delivered").expect("no panic").expect("no error");
        assert_eq!(delivery.expect("a delivery").event.position, Position::new(1));
    }
}
