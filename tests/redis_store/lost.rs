//! Keys and connections may be lost.

use crate::{CLERKS, LONG, ORDERS, entries, event, group, store};
use s2_coordinator::{Config, Delivery, Error, EventBus, EventBusExt, Position, RedisStore, Start, Subscribe, Value};
use s2_tests::redis::unique_name;
use s2_tests::servers::RedisServer;
use std::time::Duration;
use tokio::time::sleep;
use tokio::time::timeout;

/// A key that only somebody else can have deleted must not stop the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_of_a_group_is_survived() {
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let bus = RedisStore::connect(&server.url(), name.clone()).await.expect("a fleet").bus();
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a group");
    bus.publish(&vec![event(ORDERS); 3]).await.expect("published");
    for delivery in timeout(LONG, clerk.next_batch(2)).await.expect("delivered").expect("no error") {
        delivery.nack(Duration::ZERO).await.expect("given back");
    }
    let incarnation = group(&bus, &ORDERS).await.incarnation;
    assert_eq!(server.command(&["DEL", &format!("s2:{{{name}}}:ready:{incarnation}")]), "1");
    let next = timeout(LONG, clerk.next()).await.expect("delivered").expect("no error").expect("open");
    assert_eq!((next.event.position.get(), next.attempt), (3, 1));
}

/// What was published together lies together: whoever deletes an entry deletes all of it, and the group is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_entry_takes_what_lies_with_it_and_nothing_else() {
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let store = RedisStore::connect(&server.url(), name.clone()).await.expect("a fleet");
    let bus = store.bus();
    let key = |rest: &str| format!("s2:{{{name}}}:{rest}");
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a group");
    for _ in 0..3 {
        bus.publish(&vec![event(ORDERS); 5]).await.expect("published");
    }
    let delete = |position: &str| {
        let found = server.command(&["XRANGE", &key("e:orders"), position, position]);
        let id = found.lines().next().expect("an entry");
        assert_eq!(server.command(&["XDEL", &key("e:orders"), id]), "1");
    };
    assert_eq!(server.command(&["XLEN", &key("e:orders")]), "3");
    delete("6");
    let positions = |deliveries: &[Delivery]| -> Vec<u64> {
        deliveries.iter().map(|delivery| delivery.event.position.get()).collect()
    };
    for expected in [[1, 2, 3, 4, 5], [11, 12, 13, 14, 15]] {
        let deliveries = timeout(LONG, clerk.next_batch(64)).await.expect("delivered").expect("no error");
        assert_eq!(positions(&deliveries), expected);
        for acked in Delivery::ack_all(&deliveries).await.expect("acked") {
            acked.expect("acked");
        }
    }
    let lost = entries(&store).await.into_iter().find(|entry| &*entry.operation == "data_loss").expect("it is told");
    assert_eq!(lost.params.get("events"), Some(&Value::Int(5)));
    let read = async |after: u64, limit: usize| -> Vec<u64> {
        let page = bus.read(&ORDERS, Start::After(Position::new(after)), limit).await.expect("read");
        page.items.iter().map(|event| event.position.get()).collect()
    };
    assert_eq!(read(3, 4).await, [4, 5, 11, 12]);
    assert_eq!(read(12, 100).await, [13, 14, 15]);

    // Without its state, the topic is what the stream says.
    delete("1");
    assert_eq!(server.command(&["DEL", &key("t:orders")]), "1");
    let published = bus.publish_one(&event(ORDERS)).await.expect("published");
    assert_eq!(published.position.get(), 16);
    assert_eq!(read(10, 100).await, [11, 12, 13, 14, 15, 16]);
    let delivery = timeout(LONG, clerk.next()).await.expect("delivered").expect("no error").expect("open");
    assert_eq!(delivery.event.position.get(), 16);
}

/// A topic weighs what it weighed, also without its state.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_lost_its_state_is_weighed_again() {
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let mut config = Config::default();
    config.topics.bytes = 100;
    config.limits.backlog_bytes = 10_000;
    let store = RedisStore::builder(name.clone()).with_config(config).connect(&server.url()).await.expect("a fleet");
    let bus = store.bus();
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a group");
    for _ in 0..4 {
        bus.publish(&vec![event(ORDERS); 5]).await.expect("published");
    }
    // The last entry that is gone ends in the midst of what was published together.
    let deliveries = timeout(LONG, clerk.next_batch(7)).await.expect("delivered").expect("no error");
    for acked in Delivery::ack_all(&deliveries).await.expect("acked") {
        acked.expect("acked");
    }
    let held = async || {
        let refused = bus.publish(&vec![event(ORDERS); 100]).await;
        let Err(Error::BacklogFull { held_bytes, .. }) = refused else { panic!("{refused:?}") };
        held_bytes
    };
    let before = held().await;
    assert_eq!(server.command(&["DEL", &format!("s2:{{{name}}}:t:orders")]), "1");
    group(&bus, &ORDERS).await;
    assert_eq!(held().await, before);
    assert!(before > 0);
}

/// A process that publishes once and ends leaves nothing behind for ever but its event.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_a_process_that_ends_at_once_are_forgotten() {
    let server = RedisServer::start_volatile();
    for _ in 0..3 {
        store(&server).await.bus().publish_one(&event(ORDERS)).await.expect("published");
    }
    let answers = server.command(&["KEYS", "s2:*:q:*"]);
    assert_eq!(answers.lines().count(), 3);
    for key in answers.lines() {
        let kept: i64 = server.command(&["PTTL", key]).parse().expect("milliseconds");
        assert!(kept > 0, "{key} stays for ever: {kept}");
    }
}

/// One connection that breaks is replaced by one, not by a thousand.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_replaced_once() {
    let server = RedisServer::start_volatile();
    let bus = store(&server).await.bus();
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a group");
    let waiting = tokio::spawn(async move { clerk.next().await });
    let received = || server.info("total_connections_received").parse::<u64>().expect("a number");
    let before = received();
    for kind in ["pubsub", "normal"] {
        let killed: u32 = server.command(&["CLIENT", "KILL", "TYPE", kind]).parse().expect("a number");
        assert!(killed >= 1, "nobody was connected");
        sleep(Duration::from_millis(500)).await;
    }
    bus.publish_one(&event(ORDERS)).await.expect("published");
    let delivery =
        timeout(LONG, waiting).await.expect("delivered").expect("no panic").expect("no error").expect("open");
    assert_eq!(delivery.event.position.get(), 1);
    // Two for each break, and those of this test.
    let made = received() - before;
    assert!(made < 20, "{made} connections for two breaks");
}
