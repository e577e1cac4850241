//! Who waits and who publishes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use s2_coordinator::{
    DeadLetters, Entry, Event, EventBus, EventBusExt, EventType, Group, GroupName, Journal, NewEvent, Position,
    RedisBus, RedisStore, Severity, Start, Subscribe, Subscription, SwarmId, Tail, Topic, Value,
};
use s2_tests::redis::{unique_name, waiting};
use s2_tests::servers::RedisServer;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::{HEALED, LONG, ORDERS, PAIR, PROBES, SOLO, TICK, soon, until};

/// What somebody received, and what went wrong for them.
#[derive(Debug, Default)]
pub(super) struct Log {
    events: Mutex<Vec<(Arc<Event>, u32)>>,
    pub(super) errors: Mutex<Vec<String>>,
    pub(super) refused: Mutex<Vec<String>>,
}

pub(super) fn look<T: Clone>(list: &Mutex<Vec<T>>) -> Vec<T> {
    list.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn note<T>(list: &Mutex<Vec<T>>, what: T) {
    list.lock().unwrap_or_else(PoisonError::into_inner).push(what);
}

impl Log {
    pub(super) fn count(&self) -> usize {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn positions(&self) -> Vec<Position> {
        look(&self.events).iter().map(|(event, _)| event.position).collect()
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        look(&self.events).iter().map(|(event, _)| event.json().expect("a number")).collect()
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.numbers().contains(&number)
    }

    /// Whether this log of the journal's tail says that a group of this name came to be.
    fn has_created(&self, group: &GroupName) -> bool {
        look(&self.events).iter().any(|(event, _)| {
            let entry: Entry = event.json().expect("an entry");
            &*entry.operation == "group_created" && entry.params.get("group") == Some(&Value::Text(group.to_text()))
        })
    }
}

/// Handles and acks whatever comes, but not before the gate is open.
async fn consume(subscription: Subscription, log: Arc<Log>, mut gate: watch::Receiver<bool>) {
    loop {
        match subscription.next().await {
            Ok(Some(delivery)) => {
                note(&log.events, (Arc::clone(&delivery.event), delivery.attempt));
                if gate.wait_for(|open| *open).await.is_err() {
                    return;
                }
                if let Err(error) = delivery.ack().await {
                    note(&log.refused, format!("{error:?}"));
                }
            }
            Ok(None) => return note(&log.errors, "closed".to_owned()),
            Err(error) => return note(&log.errors, format!("{error:?}")),
        }
    }
}

async fn follow(mut tail: Tail, log: Arc<Log>) {
    loop {
        match tail.next().await {
            Ok(Some(event)) => note(&log.events, (event, 0)),
            Ok(None) => return note(&log.errors, "closed".to_owned()),
            Err(error) => return note(&log.errors, format!("{error:?}")),
        }
    }
}

/// Publishes numbers and keeps where they went.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) bus: RedisBus,
    last: AtomicU64,
    pub(super) published: Mutex<Vec<(u64, Position)>>,
}

impl Publisher {
    pub(super) async fn publish(&self) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let event = NewEvent::new(ORDERS, EventType::from_static("order.placed"), SwarmId::from_static("shop"));
        let event = event.with_json(&number).expect("a number");
        let published = self.bus.publish_one(&event).await.expect("publishing is tried again for 30 s");
        note(&self.published, (number, published.position));
        number
    }

    pub(super) fn count(&self) -> usize {
        look(&self.published).len()
    }

    fn positions(&self) -> Vec<Position> {
        let mut positions: Vec<Position> = look(&self.published).iter().map(|(_, position)| *position).collect();
        positions.sort();
        positions
    }
}

/// A publisher at work.
pub(super) struct Traffic {
    pub(super) publisher: Arc<Publisher>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Traffic {
    pub(super) fn start(publisher: &Arc<Publisher>) -> Self {
        let (publisher, stop) = (Arc::clone(publisher), watch::Sender::new(false));
        let (working, stopped) = (Arc::clone(&publisher), stop.subscribe());
        let task = tokio::spawn(async move {
            while !*stopped.borrow() {
                working.publish().await;
                sleep(TICK).await;
            }
        });
        Self { publisher, stop, task }
    }

    /// Waits until so many more are published.
    pub(super) async fn flows(&self, more: usize) {
        let enough = self.publisher.count() + more;
        assert!(until(soon(), || self.publisher.count() >= enough).await, "nothing is published");
    }

    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.expect("publishing does not fail");
    }
}

/// Who waits, and who publishes.
pub(super) struct Scene {
    pub(super) server: RedisServer,
    prefix: String,
    store: RedisStore,
    pub(super) bus: RedisBus,
    pub(super) publisher: Arc<Publisher>,
    pub(super) pair: Arc<Log>,
    pub(super) solo: Arc<Log>,
    pub(super) tail: Arc<Log>,
    journal: Arc<Log>,
    gate: watch::Sender<bool>,
    probes: AtomicU64,
    tasks: JoinSet<()>,
}

impl Scene {
    /// Everybody waits.
    pub(super) async fn begin() -> Self {
        let (server, name) = (RedisServer::start(), unique_name());
        let store = RedisStore::connect(&server.url(), name.clone()).await.expect("a fleet");
        let other = RedisStore::connect(&server.url(), name.clone()).await.expect("another process");
        let publisher = Publisher { bus: other.bus(), last: AtomicU64::new(0), published: Mutex::default() };
        let mut scene = Self {
            prefix: format!("s2:{{{name}}}:"),
            bus: store.bus(),
            server,
            store,
            publisher: Arc::new(publisher),
            pair: Arc::default(),
            solo: Arc::default(),
            tail: Arc::default(),
            journal: Arc::default(),
            gate: watch::Sender::new(true),
            probes: AtomicU64::new(0),
            tasks: JoinSet::new(),
        };
        let (pair, solo) = (Arc::clone(&scene.pair), Arc::clone(&scene.solo));
        scene.join(PAIR, &pair).await;
        scene.join(PAIR, &pair).await;
        scene.join(SOLO, &solo).await;
        for (topic, log) in [(ORDERS, &scene.tail), (Topic::JOURNAL, &scene.journal)] {
            let tail = scene.bus.tail(&topic, Start::Beginning).await.expect("a tail");
            scene.tasks.spawn(follow(tail, Arc::clone(log)));
        }
        scene.waits().await;
        scene
    }

    /// One more consumer, which has one event at a time.
    pub(super) async fn join(&mut self, group: GroupName, log: &Arc<Log>) {
        let subscribe = Subscribe::new(ORDERS, group).with_prefetch(1);
        let subscription = self.bus.subscribe(&subscribe).await.expect("a subscription");
        self.tasks.spawn(consume(subscription, Arc::clone(log), self.gate.subscribe()));
    }

    pub(super) fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// The keys `<kind>:<incarnation>` of both groups.
    pub(super) fn keys(&self, kind: &str) -> Vec<String> {
        let incarnation = |group: &GroupName| {
            let listed = self.server.command(&["HGET", &self.key("tg:orders"), group.as_str()]);
            let (incarnation, _) = listed.split_once(' ').expect("incarnation and floor");
            self.key(&format!("{kind}:{incarnation}"))
        };
        [PAIR, SOLO].iter().map(incarnation).collect()
    }

    pub(super) fn delete(&self, keys: &[String]) {
        let mut command = vec!["DEL"];
        command.extend(keys.iter().map(String::as_str));
        assert_eq!(self.server.command(&command), keys.len().to_string(), "{keys:?} are there");
    }

    /// Waits until everybody waits, as far as the server knows.
    pub(super) async fn waits(&self) {
        let all_wait = || {
            let count = |command: &str, key: &str| self.server.command(&[command, key]);
            let queues: Vec<usize> = self.keys("g").iter().map(|key| waiting(&self.server, key)).collect();
            let tails = ["tails:orders", "tails:s2.journal"].map(|key| count("SCARD", &self.key(key)));
            queues == [2, 1] && tails == ["1", "1"]
        };
        assert!(until(Instant::now() + LONG / 3, all_wait).await, "somebody does not wait");
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic::start(&self.publisher)
    }

    /// From now on the server answers: a fresh event and a fresh entry are everywhere soon.
    pub(super) async fn heals(&self) {
        let deadline = Instant::now() + HEALED;
        let fresh = self.publisher.publish().await;
        let probe = GroupName::new(format!("probe-{}", self.probes.fetch_add(1, Ordering::Relaxed))).expect("a name");
        let probing = self.publisher.bus.subscribe(&Subscribe::new(PROBES, probe.clone())).await;
        let arrived =
            || [self.pair.has(fresh), self.solo.has(fresh), self.tail.has(fresh), self.journal.has_created(&probe)];
        until(deadline, || arrived() == [true; 4]).await;
        assert_eq!(arrived(), [true; 4], "after {HEALED:?} event {fresh} is at [pair, solo, tail, journal] ({self:?})");
        drop(probing.expect("another process can join"));
    }

    pub(super) async fn groups(&self) -> Vec<Group> {
        self.bus.groups(&ORDERS).await.expect("groups")
    }

    /// Waits until nothing is left to do.
    pub(super) async fn drained(&self) {
        let deadline = soon();
        loop {
            let groups = self.groups().await;
            let idle = |group: &Group| (group.in_flight, group.returning, group.backlog) == (0, 0, 0);
            let tail = self.tail.positions().last().copied();
            if groups.len() == 2 && groups.iter().all(idle) && tail == self.publisher.positions().last().copied() {
                return;
            }
            assert!(Instant::now() < deadline, "something is left: {groups:?}, the tail is at {tail:?}");
            sleep(TICK).await;
        }
    }

    /// The host had nothing to do: nobody's wait has ended.
    pub(super) fn nobody_failed(&self) {
        for (who, log) in [("pair", &self.pair), ("solo", &self.solo), ("tail", &self.tail), ("journal", &self.journal)]
        {
            assert_eq!(look(&log.errors), Vec::<String>::new(), "{who} waits");
        }
    }

    /// Each group has had each event once, settled it at the first attempt, and in order where there is one consumer.
    pub(super) async fn each_group_had_each_event_once(&self) {
        self.drained().await;
        let published = self.publisher.positions();
        let mut pair = self.pair.positions();
        pair.sort();
        assert_eq!(pair, published, "the pair");
        assert_eq!(self.solo.positions(), published, "one consumer, in order");
        for log in [&self.pair, &self.solo] {
            assert_eq!(look(&log.refused), Vec::<String>::new(), "acks");
            assert!(look(&log.events).iter().all(|(_, attempt)| *attempt == 1), "an event came again");
        }
        assert!(self.bus.dead_letters(&DeadLetters::all()).await.expect("letters").is_empty());
        assert_eq!(self.recorded("data_loss").await, [], "nothing was lost");
        self.nobody_failed();
    }

    pub(super) fn the_tail_had_each_event_once(&self) {
        let published = self.publisher.positions();
        assert_eq!(self.tail.positions(), published, "the tail");
    }

    /// Entries of an operation of the bus.
    pub(super) async fn recorded(&self, operation: &str) -> Vec<Entry> {
        let journal = self.store.journal();
        let (mut found, mut after) = (Vec::new(), journal.start().await.expect("a journal"));
        loop {
            let page = journal.entries(after, 500).await.expect("entries");
            if page.items.is_empty() {
                return found;
            }
            after = page.next;
            found.extend(page.items.into_iter().filter(|entry| &*entry.operation == operation));
        }
    }

    /// Waits until the journal has such entries for both groups, and answers with them.
    pub(super) async fn recorded_for_both(&self, operation: &str) -> Vec<Entry> {
        let deadline = soon();
        loop {
            let entries = self.recorded(operation).await;
            let of = |group: GroupName| entries.iter().any(|entry| names(entry, &group));
            if of(PAIR) && of(SOLO) {
                return entries;
            }
            assert!(Instant::now() < deadline, "bus.{operation} of both groups is missing: {entries:?}");
            sleep(TICK).await;
        }
    }

    pub(super) async fn data_loss_is_recorded(&self) {
        for entry in self.recorded_for_both("data_loss").await {
            assert_eq!(
                (&*entry.component, &*entry.subject, entry.severity),
                ("bus", "orders", Severity::High),
                "{entry:?}"
            );
        }
    }

    /// From now on consumers hold what they have, so that `count` events make a backlog.
    pub(super) async fn holds_back(&self, count: u64) {
        self.drained().await;
        self.gate.send_replace(false);
        let before = (self.pair.count(), self.solo.count());
        for _ in 0..count {
            self.publisher.publish().await;
        }
        let holding = || (self.pair.count(), self.solo.count()) == (before.0 + 2, before.1 + 1);
        assert!(until(soon(), holding).await, "each consumer holds one");
        let groups = self.groups().await;
        let backlogs: Vec<u64> = groups.iter().map(|group| group.backlog).collect();
        assert_eq!(backlogs, [count - 2, count - 1], "the rest waits");
    }

    pub(super) fn goes_on(&self) {
        self.gate.send_replace(true);
    }
}

impl std::fmt::Debug for Scene {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let last = |log: &Log| (log.positions().last().copied(), look(&log.errors), look(&log.refused));
        f.debug_struct("Scene")
            .field("published", &look(&self.publisher.published).last())
            .field("pair", &last(&self.pair))
            .field("solo", &last(&self.solo))
            .field("tail", &last(&self.tail))
            .field("journal", &last(&self.journal))
            .finish_non_exhaustive()
    }
}

pub(super) fn names(entry: &Entry, group: &GroupName) -> bool {
    entry.params.get("group") == Some(&Value::Text(group.to_text()))
}

pub(super) fn number(entry: &Entry, param: &str) -> i64 {
    match entry.params.get(param) {
        Some(Value::Int(number)) => *number,
        other => panic!("{param} is {other:?} in {entry:?}"),
    }
}
