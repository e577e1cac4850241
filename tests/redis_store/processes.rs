//! Processes may die.

use crate::{CLERKS, LONG, ORDERS, OTHERS, TICK, event, group, store};
use s2_coordinator::{
    AttemptEnd, Config, ConsumerName, DeadLetter, DeadLetters, Delivery, Error, EventBus, EventBusExt, GroupName,
    ManualClock, Position, RedisStore, Start, Subscribe, SwarmId, Timestamp,
};
use s2_tests::redis::{unique_name, waiting};
use s2_tests::servers::RedisServer;
use s2_tests::workers::Worker;
use s2_tests::workers::is_worker;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_publishes_another_receives() {
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let one = RedisStore::connect(&server.url(), name.clone()).await.expect("a fleet").bus();
    let other = RedisStore::connect(&server.url(), name).await.expect("another process").bus();
    for (from, to) in [(&one, &other), (&other, &one)] {
        let group = GroupName::new(format!("group-{}", server.command(&["DBSIZE"]))).expect("a name");
        let clerk = to.subscribe(&Subscribe::new(ORDERS, group).with_start(Start::Now)).await.expect("a group");
        let mut tail = to.tail(&ORDERS, Start::Now).await.expect("a tail");
        let waiting = tokio::spawn(async move { (clerk.next().await, tail.next().await) });
        let published = from.publish_one(&event(ORDERS)).await.expect("published");
        let (delivery, told) = timeout(LONG, waiting).await.expect("delivered").expect("no panic");
        let delivery = delivery.expect("no error").expect("a delivery");
        assert_eq!(delivery.event.id, published.id);
        assert_eq!(told.expect("no error").expect("an event").id, published.id);
        delivery.ack().await.expect("acked");
        assert!(from.groups(&ORDERS).await.expect("groups").iter().all(|group| group.in_flight == 0));
    }
}

fn short_lived() -> Config {
    let mut config = Config::default();
    // Less than 6 s, after which a silent process counts as gone.
    config.ack_timeout = Duration::from_secs(3);
    config.deliveries = 2;
    config
}

/// Longer than it takes until a process counts as gone.
const HANDLING: Duration = Duration::from_secs(9);

/// A worker's main: takes one event, says which attempt it is, and neither acks nor ends.
#[test]
#[ignore = "a worker of the tests in this file"]
fn holder() {
    if !is_worker() {
        return;
    }
    let variable = |name| std::env::var(name).expect("a variable");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let fleet = SwarmId::new(variable("FLEET")).expect("a name");
        let builder = RedisStore::builder(fleet).with_config(short_lived());
        let bus = builder.connect(&variable("URL")).await.expect("a fleet").bus();
        let consumer = ConsumerName::new(variable("CONSUMER")).expect("a name");
        let subscribe = Subscribe::new(ORDERS, CLERKS).with_consumer(consumer).with_ack_timeout(HANDLING);
        let subscription = bus.subscribe(&subscribe).await.expect("a subscription");
        println!("joined");
        let delivery = subscription.next().await.expect("no error").expect("a delivery");
        println!("attempt {}", delivery.attempt);
        std::future::pending::<()>().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_held_comes_back_until_it_is_a_dead_letter() {
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let store = RedisStore::builder(name.clone()).with_config(short_lived()).connect(&server.url()).await;
    let store = store.expect("a fleet");
    let bus = store.bus();
    bus.publish_one(&event(ORDERS)).await.expect("published");
    let variables =
        |consumer: &str| [("URL", server.url()), ("FLEET", name.to_string()), ("CONSUMER", consumer.to_owned())];
    for (nth, consumer) in ["first", "second"].iter().enumerate() {
        let mut worker = Worker::spawn("processes::holder", &variables(consumer));
        assert_eq!(worker.line(LONG).as_deref(), Some("joined"));
        assert_eq!(worker.line(LONG), Some(format!("attempt {}", nth + 1)));
        assert_eq!(group(&bus, &ORDERS).await.consumers, 1);
        worker.kill();
        let killed = Instant::now();
        while group(&bus, &ORDERS).await.consumers > 0 {
            assert!(killed.elapsed() < Duration::from_secs(9), "it counts as gone after 6 s");
            sleep(TICK).await;
        }
        // A sign of life comes every two seconds; the last one may have been on its way for a while.
        assert!(killed.elapsed() > Duration::from_secs(3), "gone after {:?}", killed.elapsed());
    }
    let deadline = Instant::now() + LONG;
    let letter: DeadLetter = loop {
        if let Some(letter) = bus.dead_letters(&DeadLetters::all()).await.expect("letters").pop() {
            break letter;
        }
        assert!(Instant::now() < deadline, "no dead letter");
        sleep(TICK).await;
    };
    let history: Vec<_> = letter
        .history
        .iter()
        .map(|attempt| (attempt.delivery, attempt.consumer.as_str(), attempt.end.clone()))
        .collect();
    assert_eq!(history, [(1, "first", AttemptEnd::Lost), (2, "second", AttemptEnd::Lost)]);
    for attempt in &letter.history {
        assert_eq!(attempt.duration(), HANDLING, "it comes back when its time is over, not when somebody notices");
    }
    let left = group(&bus, &ORDERS).await;
    assert_eq!((left.in_flight, left.returning, left.backlog, left.consumers), (0, 0, 0, 0));
}

/// Nobody waits for the end of the ack timeout if an event was offered to a process that is no longer there.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_offered_to_a_killed_process_goes_to_the_next_at_once() {
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let builder = RedisStore::builder(name.clone()).with_config(short_lived());
    let bus = builder.connect(&server.url()).await.expect("a fleet").bus();
    let variables = [("URL", server.url()), ("FLEET", name.to_string()), ("CONSUMER", "first".to_owned())];
    let mut worker = Worker::spawn("processes::holder", &variables);
    assert_eq!(worker.line(LONG).as_deref(), Some("joined"));
    let queue = format!("s2:{{{name}}}:g:{}", group(&bus, &ORDERS).await.incarnation);
    let until_waiting = async |count: usize| {
        while waiting(&server, &queue) < count {
            sleep(TICK).await;
        }
    };
    timeout(LONG, until_waiting(1)).await.expect("the worker waits");
    let connected = || server.info("connected_clients").parse::<u32>().expect("a number");
    let before = connected();
    worker.kill();
    timeout(LONG, async {
        while connected() >= before {
            sleep(TICK).await;
        }
    })
    .await
    .expect("the server sees that it is gone");
    let subscribe = Subscribe::new(ORDERS, CLERKS).with_ack_timeout(HANDLING);
    let second = bus.subscribe(&subscribe).await.expect("a subscription");
    let next = tokio::spawn(async move { second.next().await });
    timeout(LONG, until_waiting(2)).await.expect("the second waits behind it");
    let published = bus.publish_one(&event(ORDERS)).await.expect("published");
    let delivery = timeout(HANDLING / 3, next).await.expect("at once").expect("no panic").expect("no error");
    let delivery = delivery.expect("open");
    assert_eq!((delivery.event.id, delivery.attempt), (published.id, 1));
}

/// The clock of a process may be wrong; that of the fleet is the one that counts, and it never goes back.
#[tokio::test(flavor = "multi_thread")]
async fn the_clock_of_a_process_is_that_of_its_fleet() {
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let later: Timestamp = "2100-01-01T00:00:00Z".parse().expect("a time");
    let clock = Arc::new(ManualClock::new(later));
    let ahead = RedisStore::builder(name.clone()).with_clock(clock).connect(&server.url()).await.expect("a fleet");
    ahead.bus().publish_one(&event(ORDERS)).await.expect("published");
    assert_eq!(ahead.clock().now(), later);
    let clock = RedisStore::connect(&server.url(), name).await.expect("another process").clock();
    let now = clock.now();
    assert!(now >= later && now < later + LONG, "{now}");
    clock.sleep_until(now + TICK).await;
    assert!(clock.now() >= now + TICK);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_not_used_again_after_everything_was_flushed() {
    let server = RedisServer::start_volatile();
    let bus = store(&server).await.bus();
    let (mut used, mut stale) = (Vec::new(), Vec::<Delivery>::new());
    for _ in 0..3 {
        let clerks = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a group");
        let others = bus.subscribe(&Subscribe::new(ORDERS, OTHERS)).await.expect("a group");
        let published = bus.publish_one(&event(ORDERS)).await.expect("published");
        assert_eq!(published.position, Position::new(1), "positions begin anew");
        for subscription in [&clerks, &others] {
            let delivery = subscription.next().await.expect("no error").expect("a delivery");
            assert_eq!(delivery.event.id, published.id);
            let recipient = delivery.receipt.recipient();
            used.extend([recipient.incarnation, recipient.consumer]);
            stale.push(delivery);
        }
        // The same position and the same delivery of another life of the fleet.
        let (old, current) = stale.split_at(stale.len() - 2);
        for delivery in old {
            let refused = delivery.ack().await;
            assert!(matches!(refused, Err(Error::StaleDelivery { .. })), "{refused:?}");
        }
        for delivery in current {
            delivery.ack().await.expect("it is the current one");
        }
        assert_eq!(server.command(&["FLUSHALL"]), "OK");
    }
    let count = used.len();
    used.sort_unstable();
    used.dedup();
    assert_eq!((count, used.len()), (12, 12), "each group and each consumer has a number of its own");
}
