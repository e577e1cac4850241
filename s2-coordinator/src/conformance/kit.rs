//! What cases have in common.

use std::sync::Arc;
use std::time::Duration;

use crate::bus::EventBus;
use crate::conformance::harness::Fleet;
use crate::delivery::Delivery;
use crate::error::Error;
use crate::event::{Event, NewEvent, Published};
use crate::inbox::Inbox;
use crate::journal::Journal;
use crate::name::{EventType, GroupName, IdempotencyKey, Topic};
use crate::start::Start;
use crate::subscription::{Subscribe, Subscription};
use crate::swarm::SwarmId;

pub(super) const ORDERS: Topic = Topic::from_static("orders");
pub(super) const RESULTS: Topic = Topic::from_static("results");
pub(super) const WORKERS: GroupName = GroupName::from_static("workers");
pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(30);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a case waits at most for something that must happen. Never reached unless it does not.
const PATIENCE: Duration = Duration::from_secs(30);

/// The event number `n` of a topic.
pub(super) fn event_on(topic: Topic, n: usize) -> NewEvent {
    NewEvent::new(topic, EventType::from_static("order.placed"), SwarmId::from_static("shop/till-1"))
        .with_data(n.to_string())
}

pub(super) fn event(n: usize) -> NewEvent {
    event_on(ORDERS, n)
}

pub(super) fn keyed(n: usize, key: &'static str) -> NewEvent {
    event(n).with_idempotency_key(IdempotencyKey::from_static(key))
}

pub(super) fn number(event: &Event) -> usize {
    let text = std::str::from_utf8(&event.data).expect("a number");
    text.parse().expect("a number")
}

pub(super) async fn publish(bus: &dyn EventBus, numbers: impl Iterator<Item = usize>) -> Result<Vec<Published>, Error> {
    let events: Vec<NewEvent> = numbers.map(event).collect();
    let mut published = Vec::new();
    for batch in events.chunks(500) {
        published.extend(bus.publish(batch).await?);
    }
    Ok(published)
}

pub(super) fn workers() -> Subscribe {
    Subscribe::new(ORDERS, WORKERS)
}

pub(super) async fn subscribe(bus: &dyn EventBus) -> Result<Subscription, Error> {
    bus.subscribe(&workers()).await
}

pub(super) async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// The next delivery, which must come.
pub(super) async fn next(subscription: &Subscription) -> Result<Delivery, Error> {
    let delivery = within("a delivery", subscription.next()).await?;
    Ok(delivery.expect("the subscription is open"))
}

/// Takes and acks the next `count` events and answers with their numbers.
pub(super) async fn handle(subscription: &Subscription, count: usize) -> Result<Vec<usize>, Error> {
    let mut numbers = Vec::with_capacity(count);
    for _ in 0..count {
        let delivery = next(subscription).await?;
        delivery.ack().await?;
        numbers.push(number(&delivery.event));
    }
    Ok(numbers)
}

pub(super) fn journal_of(fleet: &dyn Fleet) -> Arc<dyn Journal> {
    fleet.journal().expect("a backend that promises a journal has one")
}

pub(super) fn inbox_of(fleet: &dyn Fleet) -> Arc<dyn Inbox> {
    fleet.inbox().expect("a backend that promises an inbox has one")
}

/// Waits until the group of the workers has `count` open subscriptions. Dropping a subscription cannot wait for the
/// backend, so a case that drops one and goes on at once would race.
pub(super) async fn consumers(bus: &dyn EventBus, group: &GroupName, count: usize) -> Result<(), Error> {
    let there = async {
        loop {
            let groups = bus.groups(&ORDERS).await?;
            if groups.iter().any(|other| other.name == *group && other.consumers == count) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within("the end of a subscription", there).await
}

/// There is nothing to deliver now.
pub(super) async fn idle(subscription: &Subscription) -> Result<(), Error> {
    match subscription.try_next().await? {
        None => Ok(()),
        Some(delivery) => panic!("unexpected delivery of event {}", number(&delivery.event)),
    }
}

/// Everything that the topic retains.
pub(super) async fn contents(bus: &dyn EventBus, topic: &Topic) -> Result<Vec<Arc<Event>>, Error> {
    let mut events = Vec::new();
    let mut start = Start::Beginning;
    loop {
        let page = bus.read(topic, start, 500).await?;
        if page.items.is_empty() {
            return Ok(events);
        }
        start = Start::After(page.next);
        events.extend(page.items);
    }
}

/// The answer must be this error.
macro_rules! refused {
    ($answer:expr, $pattern:pat $(if $guard:expr)?) => {
        match $answer {
            Err($pattern) $(if $guard)? => {}
            other => panic!("expected {}, got {other:?}", stringify!($pattern)),
        }
    };
}
pub(super) use refused;
