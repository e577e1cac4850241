//! Events may be large, and many.

use crate::{CLERKS, LONG, MIB, ORDERS, event, group, store};
use s2_coordinator::{Delivery, Error, EventBus, EventBusExt, NewEvent, Position, Settled, Start, Subscribe};
use s2_tests::servers::RedisServer;
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_events_of_a_mebibyte_each() {
    let server = RedisServer::start_volatile();
    let bus = store(&server).await.bus();
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a group");
    let data = |nth: u8| vec![nth; MIB];
    let events: Vec<NewEvent> = (0..20).map(|nth| event(ORDERS).with_data(data(nth))).collect();
    let published = bus.publish(&events).await.expect("published");
    assert_eq!(published.last().map(|last| last.position), Some(Position::new(20)));
    let mut received = Vec::new();
    while received.len() < 20 {
        let batch = timeout(LONG, clerk.next_batch(20)).await.expect("delivered").expect("no error");
        assert!(!batch.is_empty() && batch.iter().all(|delivery| delivery.attempt == 1));
        for acked in Delivery::ack_all(&batch).await.expect("acks") {
            assert_eq!(acked.expect("acked"), Settled::Acked);
        }
        received.extend(batch);
    }
    for (nth, delivery) in received.iter().enumerate() {
        assert_eq!(delivery.event.position.get(), nth as u64 + 1);
        assert!(delivery.event.data == data(u8::try_from(nth).expect("20")), "event {nth} is not what was published");
    }
    assert_eq!(received.len(), 20);
    let left = group(&bus, &ORDERS).await;
    assert_eq!((left.floor.get(), left.in_flight, left.backlog), (20, 0, 0));
    // Also to one that waits, and to a tail.
    let mut tail = bus.tail(&ORDERS, Start::Now).await.expect("a tail");
    let waiting = tokio::spawn(async move { (clerk.next_batch(20).await, tail.next().await) });
    bus.publish_one(&event(ORDERS).with_data(data(b'x'))).await.expect("published");
    let (delivered, told) = timeout(LONG, waiting).await.expect("delivered").expect("no panic");
    assert!(delivered.expect("no error")[0].event.data == data(b'x'));
    assert!(told.expect("no error").expect("an event").data == data(b'x'));
    let larger = bus.publish_one(&event(ORDERS).with_data(vec![0; MIB + 1])).await;
    assert!(matches!(larger, Err(Error::LimitExceeded { limit: "payload_bytes", .. })), "{larger:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn six_hundred_events_for_one_who_asks_for_a_thousand() {
    let server = RedisServer::start_volatile();
    let bus = store(&server).await.bus();
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS).with_prefetch(1000)).await.expect("a group");
    for count in [500, 100] {
        bus.publish(&vec![event(ORDERS); count]).await.expect("published");
    }
    let (mut positions, mut calls) = (Vec::new(), 0);
    while positions.len() < 600 {
        let batch = timeout(LONG, clerk.next_batch(1000)).await.expect("delivered").expect("no error");
        assert!(!batch.is_empty() && batch.iter().all(|delivery| delivery.attempt == 1));
        positions.extend(batch.iter().map(|delivery| delivery.event.position.get()));
        calls += 1;
    }
    assert_eq!(positions, (1..=600).collect::<Vec<u64>>());
    assert!(calls <= 3, "{calls} calls");
    assert_eq!(group(&bus, &ORDERS).await.in_flight, 600);
}

/// What comes back is read event by event; the limits that the server sets to its clients must not be met for all that.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_mebibytes_come_back() {
    const COUNT: usize = 64;
    let server = RedisServer::start_volatile();
    let bus = store(&server).await.bus();
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS).with_prefetch(COUNT)).await.expect("a group");
    for _ in 0..COUNT {
        bus.publish_one(&event(ORDERS).with_data(vec![b'x'; MIB])).await.expect("published");
    }
    for attempt in [1, 2] {
        let mut held = Vec::new();
        while held.len() < COUNT {
            held.extend(timeout(LONG, clerk.next_batch(COUNT)).await.expect("delivered").expect("no error"));
        }
        assert!(held.iter().all(|delivery| delivery.attempt == attempt && delivery.event.data.len() == MIB));
        for delivery in &held {
            delivery.nack(Duration::ZERO).await.expect("given back");
        }
    }
    assert_eq!(group(&bus, &ORDERS).await.returning, COUNT);
    let connections: u64 = server.info("total_connections_received").parse().expect("a number");
    assert!(connections < 100, "{connections} connections");
}
