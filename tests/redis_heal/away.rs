//! Waits that end while the server is away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use s2_coordinator::{
    Error, EventBus, EventBusExt, EventType, GroupName, NewEvent, RedisBus, RedisStore, Start, Subscribe, SwarmId,
};
use s2_tests::redis::{unique_name, waiting};
use s2_tests::servers::RedisServer;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::{HEALED, ORDERS, PAIR, SOLO, TICK, soon, until};

/// What a wait came to, and when.
async fn ended<T: Send + 'static>(
    waiting: JoinHandle<Result<Option<T>, Error>>,
    within: Duration,
) -> Result<bool, Error> {
    let joined = timeout(within, waiting).await.expect("a wait ends within a second");
    Ok(joined.expect("no panic")?.is_none())
}

/// Ends waits in every way there is, while the server is away.
async fn waits_end_while_the_server_is(away: fn(&RedisServer)) {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url(), unique_name()).await.expect("a fleet");
    let bus = store.bus();
    let mut waits = Vec::new();
    for group in [PAIR, PAIR, SOLO] {
        let subscription = bus.subscribe(&Subscribe::new(ORDERS, group)).await.expect("a subscription");
        waits.push(tokio::spawn(async move { subscription.next().await }));
    }
    let mut tail = bus.tail(&ORDERS, Start::Now).await.expect("a tail");
    let tail = tokio::spawn(async move { tail.next().await });
    let subscribe = Subscribe::new(ORDERS, GroupName::from_static("other"));
    let other = Arc::new(store.bus().subscribe(&subscribe).await.expect("a subscription"));
    let waiter = Arc::clone(&other);
    let closed = tokio::spawn(async move { waiter.next().await });
    let dropped = store.bus().subscribe(&subscribe).await.expect("a subscription");
    let dropped = tokio::spawn(async move { dropped.next().await });
    let queued = || {
        let groups = server.command(&["KEYS", "s2:*:g:*"]);
        groups.lines().map(|key| waiting(&server, key)).sum::<usize>() == 5
    };
    assert!(until(soon(), queued).await, "all wait");
    away(&server);

    let begun = Instant::now();
    let closing_bus = tokio::spawn(async move { bus.close().await });
    let closing = tokio::spawn(async move { other.close().await });
    dropped.abort();
    let second = || Duration::from_secs(1).saturating_sub(begun.elapsed());
    for wait in waits {
        assert!(ended(wait, second()).await.expect("no error"), "nothing is delivered");
    }
    assert!(ended(tail, second()).await.expect("no error"), "nothing is delivered");
    assert!(ended(closed, second()).await.expect("no error"), "nothing is delivered");
    assert!(timeout(second(), dropped).await.expect("dropping does not wait").is_err_and(|error| error.is_cancelled()));
    for (what, closing) in [("a bus", closing_bus), ("a subscription", closing)] {
        let patience = Duration::from_secs(36).saturating_sub(begun.elapsed());
        let closed = timeout(patience, closing).await.expect("closing ends").expect("no panic");
        println!("closing {what} took {:?}: {closed:?}", begun.elapsed());
        assert!(matches!(closed, Ok(()) | Err(Error::Backend { retryable: true, .. })), "{closed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_without_a_server() {
    waits_end_while_the_server_is(RedisServer::kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_while_the_server_stands_still() {
    waits_end_while_the_server_is(RedisServer::stop).await;
}

/// A process that gives up after a second.
async fn impatient(server: &RedisServer, name: SwarmId) -> RedisStore {
    let builder = RedisStore::builder(name).with_patience(Duration::from_secs(1));
    builder.connect(&server.url()).await.expect("a fleet")
}

async fn consumers(bus: &RedisBus, wanted: usize) -> usize {
    let deadline = Instant::now() + HEALED;
    loop {
        let groups = bus.groups(&ORDERS).await.expect("groups");
        let consumers = groups.iter().map(|group| group.consumers).sum();
        if consumers == wanted || Instant::now() >= deadline {
            return consumers;
        }
        sleep(TICK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_that_failed_is_completed_by_repeating_it() {
    let (server, name) = (RedisServer::start(), unique_name());
    let store = impatient(&server, name.clone()).await;
    let bus = store.bus();
    let mut subscriptions = Vec::new();
    for group in [PAIR, PAIR, SOLO] {
        subscriptions.push(bus.subscribe(&Subscribe::new(ORDERS, group)).await.expect("a subscription"));
    }
    // Another one keeps the process alive.
    let other = store.bus();
    let stays = other.subscribe(&Subscribe::new(ORDERS, SOLO)).await.expect("a subscription");
    server.kill();
    let failed = bus.close().await;
    assert!(matches!(failed, Err(Error::Backend { retryable: true, .. })), "the server is away: {failed:?}");
    server.restart();
    bus.close().await.expect("the server is back");
    assert_eq!(consumers(&other, 1).await, 1, "those that were closed are gone");
    drop((subscriptions, stays));
}

/// Nor does it take an event with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_dropped_while_the_server_is_away_leaves_nothing_behind() {
    let (server, name) = (RedisServer::start(), unique_name());
    let store = impatient(&server, name.clone()).await;
    let bus = store.bus();
    let dropped = bus.subscribe(&Subscribe::new(ORDERS, PAIR)).await.expect("a subscription");
    let dropped = tokio::spawn(async move { dropped.next().await });
    let stays = bus.subscribe(&Subscribe::new(ORDERS, PAIR)).await.expect("a subscription");
    let queued = |count: usize| waiting(&server, &server.command(&["KEYS", "s2:*:g:*"])) == count;
    assert!(until(soon(), || queued(1)).await, "the first waits");
    let stays = tokio::spawn(async move { stays.next().await });
    assert!(until(soon(), || queued(2)).await, "both wait, in this order");
    server.kill();
    dropped.abort();
    sleep(Duration::from_secs(3)).await;
    server.restart();
    let publisher = RedisStore::connect(&server.url(), name).await.expect("another process").bus();
    assert_eq!(consumers(&publisher, 1).await, 1, "who was dropped is gone");
    let event = NewEvent::new(ORDERS, EventType::from_static("order.placed"), SwarmId::from_static("shop"));
    publisher.publish_one(&event).await.expect("published");
    let delivery = timeout(HEALED, stays).await.expect("delivered in time").expect("no panic").expect("no error");
    assert_eq!(delivery.expect("a delivery").attempt, 1);
}
