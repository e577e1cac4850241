//! Whatever happens to the server, whoever waits goes on: within seconds events flow again, without the host doing
//! anything, and what was lost is in the journal.
//!
//! Each test breaks a server of its own in one way, on the server's clock: two groups, a tail of their topic and one of the
//! journal wait in one process, and another process publishes. A process here is a [`RedisStore`] of its own.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use s2_coordinator::{
    DeadLetters, Entry, Error, Event, EventBus, EventBusExt, EventType, Group, GroupName, Journal, NewEvent, Position,
    RedisBus, RedisStore, Severity, Start, Subscribe, Subscription, SwarmId, Tail, Topic, Value,
};
use s2_tests::redis::{unique_name, waiting};
use s2_tests::servers::RedisServer;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

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

/// What somebody received, and what went wrong for them.
#[derive(Debug, Default)]
struct Log {
    events: Mutex<Vec<(Arc<Event>, u32)>>,
    errors: Mutex<Vec<String>>,
    refused: Mutex<Vec<String>>,
}

fn look<T: Clone>(list: &Mutex<Vec<T>>) -> Vec<T> {
    list.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn note<T>(list: &Mutex<Vec<T>>, what: T) {
    list.lock().unwrap_or_else(PoisonError::into_inner).push(what);
}

impl Log {
    fn count(&self) -> usize {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn positions(&self) -> Vec<Position> {
        look(&self.events).iter().map(|(event, _)| event.position).collect()
    }

    fn numbers(&self) -> Vec<u64> {
        look(&self.events).iter().map(|(event, _)| event.json().expect("a number")).collect()
    }

    fn has(&self, number: u64) -> bool {
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
struct Publisher {
    bus: RedisBus,
    last: AtomicU64,
    published: Mutex<Vec<(u64, Position)>>,
}

impl Publisher {
    async fn publish(&self) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let event = NewEvent::new(ORDERS, EventType::from_static("order.placed"), SwarmId::from_static("shop"));
        let event = event.with_json(&number).expect("a number");
        let published = self.bus.publish_one(&event).await.expect("publishing is tried again for 30 s");
        note(&self.published, (number, published.position));
        number
    }

    fn count(&self) -> usize {
        look(&self.published).len()
    }

    fn positions(&self) -> Vec<Position> {
        let mut positions: Vec<Position> = look(&self.published).iter().map(|(_, position)| *position).collect();
        positions.sort();
        positions
    }
}

/// A publisher at work.
struct Traffic {
    publisher: Arc<Publisher>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Traffic {
    fn start(publisher: &Arc<Publisher>) -> Self {
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
    async fn flows(&self, more: usize) {
        let enough = self.publisher.count() + more;
        assert!(until(soon(), || self.publisher.count() >= enough).await, "nothing is published");
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.expect("publishing does not fail");
    }
}

/// Who waits, and who publishes.
struct Scene {
    server: RedisServer,
    prefix: String,
    store: RedisStore,
    bus: RedisBus,
    publisher: Arc<Publisher>,
    pair: Arc<Log>,
    solo: Arc<Log>,
    tail: Arc<Log>,
    journal: Arc<Log>,
    gate: watch::Sender<bool>,
    probes: AtomicU64,
    tasks: JoinSet<()>,
}

impl Scene {
    /// Everybody waits.
    async fn begin() -> Self {
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
    async fn join(&mut self, group: GroupName, log: &Arc<Log>) {
        let subscribe = Subscribe::new(ORDERS, group).with_prefetch(1);
        let subscription = self.bus.subscribe(&subscribe).await.expect("a subscription");
        self.tasks.spawn(consume(subscription, Arc::clone(log), self.gate.subscribe()));
    }

    fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// The keys `<kind>:<incarnation>` of both groups.
    fn keys(&self, kind: &str) -> Vec<String> {
        let incarnation = |group: &GroupName| {
            let listed = self.server.command(&["HGET", &self.key("tg:orders"), group.as_str()]);
            let (incarnation, _) = listed.split_once(' ').expect("incarnation and floor");
            self.key(&format!("{kind}:{incarnation}"))
        };
        [PAIR, SOLO].iter().map(incarnation).collect()
    }

    fn delete(&self, keys: &[String]) {
        let mut command = vec!["DEL"];
        command.extend(keys.iter().map(String::as_str));
        assert_eq!(self.server.command(&command), keys.len().to_string(), "{keys:?} are there");
    }

    /// Waits until everybody waits, as far as the server knows.
    async fn waits(&self) {
        let all_wait = || {
            let count = |command: &str, key: &str| self.server.command(&[command, key]);
            let queues: Vec<usize> = self.keys("g").iter().map(|key| waiting(&self.server, key)).collect();
            let tails = ["tails:orders", "tails:s2.journal"].map(|key| count("SCARD", &self.key(key)));
            queues == [2, 1] && tails == ["1", "1"]
        };
        assert!(until(Instant::now() + LONG / 3, all_wait).await, "somebody does not wait");
    }

    fn traffic(&self) -> Traffic {
        Traffic::start(&self.publisher)
    }

    /// From now on the server answers: a fresh event and a fresh entry are everywhere soon.
    async fn heals(&self) {
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

    async fn groups(&self) -> Vec<Group> {
        self.bus.groups(&ORDERS).await.expect("groups")
    }

    /// Waits until nothing is left to do.
    async fn drained(&self) {
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
    fn nobody_failed(&self) {
        for (who, log) in [("pair", &self.pair), ("solo", &self.solo), ("tail", &self.tail), ("journal", &self.journal)]
        {
            assert_eq!(look(&log.errors), Vec::<String>::new(), "{who} waits");
        }
    }

    /// Each group has had each event once, settled it at the first attempt, and in order where there is one consumer.
    async fn each_group_had_each_event_once(&self) {
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

    fn the_tail_had_each_event_once(&self) {
        let published = self.publisher.positions();
        assert_eq!(self.tail.positions(), published, "the tail");
    }

    /// Entries of an operation of the bus.
    async fn recorded(&self, operation: &str) -> Vec<Entry> {
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
    async fn recorded_for_both(&self, operation: &str) -> Vec<Entry> {
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

    async fn data_loss_is_recorded(&self) {
        for entry in self.recorded_for_both("data_loss").await {
            assert_eq!(
                (&*entry.component, &*entry.subject, entry.severity),
                ("bus", "orders", Severity::High),
                "{entry:?}"
            );
        }
    }

    /// From now on consumers hold what they have, so that `count` events make a backlog.
    async fn holds_back(&self, count: u64) {
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

    fn goes_on(&self) {
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

fn names(entry: &Entry, group: &GroupName) -> bool {
    entry.params.get("group") == Some(&Value::Text(group.to_text()))
}

fn number(entry: &Entry, param: &str) -> i64 {
    match entry.params.get(param) {
        Some(Value::Int(number)) => *number,
        other => panic!("{param} is {other:?} in {entry:?}"),
    }
}

/// A fault while everybody waits, and again while events flow: all of them arrive once. Faults return when the server
/// answers again.
async fn nothing_is_lost_by(fault: impl AsyncFn(&Scene)) -> Scene {
    let scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.drained().await;
    scene.waits().await;
    fault(&scene).await;
    scene.heals().await;
    let traffic = scene.traffic();
    traffic.flows(20).await;
    fault(&scene).await;
    scene.heals().await;
    traffic.flows(20).await;
    traffic.stop().await;
    scene.each_group_had_each_event_once().await;
    scene
}

async fn nobody_misses_anything_after(fault: impl AsyncFn(&Scene)) {
    nothing_is_lost_by(fault).await.the_tail_had_each_event_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections() {
    nobody_misses_anything_after(async |scene| {
        // A connection that listens is of the second kind, whatever else it does.
        let killed = |kind| scene.server.command(&["CLIENT", "KILL", "TYPE", kind]).parse::<u32>();
        killed("normal").expect("a number");
        assert!(killed("pubsub").expect("a number") >= 1, "there are connections");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_killed_again_and_again() {
    let scene = Scene::begin().await;
    let traffic = scene.traffic();
    for _ in 0..20 {
        traffic.flows(3).await;
        scene.server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).parse::<u32>().expect("a number");
    }
    scene.heals().await;
    traffic.stop().await;
    scene.each_group_had_each_event_once().await;
    scene.the_tail_had_each_event_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause() {
    nobody_misses_anything_after(async |scene| {
        scene.server.pause(3000);
        assert!(scene.server.ping(LONG));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flushed_scripts() {
    nobody_misses_anything_after(async |scene| {
        for kind in ["SCRIPT", "FUNCTION"] {
            assert_eq!(scene.server.command(&[kind, "FLUSH"]), "OK");
        }
    })
    .await;
}

/// The groups of Redis' own are none of S²'s.
#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_consumer_group_of_the_stream() {
    nobody_misses_anything_after(async |scene| {
        let stream = scene.key("e:orders");
        assert_eq!(scene.server.command(&["XGROUP", "CREATE", &stream, "pair", "$"]), "OK");
        assert_eq!(scene.server.command(&["XGROUP", "DESTROY", &stream, "pair"]), "1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_state_of_groups() {
    let scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.drained().await;
    scene.waits().await;
    scene.delete(&scene.keys("g"));
    scene.heals().await;
    scene.drained().await;
    let restored = scene.recorded_for_both("group_restored").await;
    assert_eq!(restored.len(), 2, "{restored:?}");
    assert_eq!(scene.recorded("data_loss").await, [], "nothing was lost: {scene:?}");
    let all: BTreeSet<u64> = (1..=2).collect();
    for log in [&scene.pair, &scene.solo] {
        assert_eq!(log.count(), 2, "what was settled stays settled");
        assert_eq!(BTreeSet::from_iter(log.numbers()), all);
    }

    // With events in hand and a backlog: what was not settled comes again, and nothing is skipped.
    scene.holds_back(10).await;
    scene.delete(&scene.keys("g"));
    scene.goes_on();
    scene.heals().await;
    scene.drained().await;
    let all: BTreeSet<u64> = (1..=13).collect();
    for log in [&scene.pair, &scene.solo] {
        assert_eq!(BTreeSet::from_iter(log.numbers()), all, "{scene:?}");
    }
    assert_eq!(scene.recorded("data_loss").await, [], "nothing was lost");
    scene.the_tail_had_each_event_once();
    scene.nobody_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_stream_with_a_backlog() {
    let scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.holds_back(10).await;
    scene.delete(&[scene.key("e:orders")]);
    scene.goes_on();
    scene.heals().await;
    scene.drained().await;
    scene.data_loss_is_recorded().await;
    let losses = scene.recorded("data_loss").await;
    let lost = |group: GroupName| {
        losses.iter().filter(|entry| names(entry, &group)).map(|entry| number(entry, "events")).sum::<i64>()
    };
    assert_eq!((lost(PAIR), lost(SOLO)), (8, 9), "{losses:?}");
    for log in [&scene.pair, &scene.solo] {
        assert_eq!(look(&log.refused), Vec::<String>::new(), "what was in hand can be settled");
    }
    scene.nobody_failed();
    // And again, with nothing to lose: nothing is lost.
    scene.waits().await;
    scene.delete(&[scene.key("e:orders")]);
    scene.heals().await;
    scene.drained().await;
    assert_eq!(scene.recorded("data_loss").await.len(), losses.len());
    scene.the_tail_had_each_event_once();
    scene.nobody_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_state_of_the_topic() {
    nobody_misses_anything_after(async |scene| scene.delete(&[scene.key("t:orders")])).await;
}

/// Also before anybody publishes: what is there can be read, and its groups are listed.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_state_of_the_topic_hides_nothing() {
    let scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.drained().await;
    scene.waits().await;
    scene.delete(&[scene.key("t:orders")]);
    let (deadline, mut seen) = (Instant::now() + HEALED, (0, 0));
    while seen != (1, 2) && Instant::now() < deadline {
        let page = scene.bus.read(&ORDERS, Start::Beginning, 10).await.expect("a page");
        seen = (page.items.len(), scene.groups().await.len());
        sleep(TICK).await;
    }
    assert_eq!(seen, (1, 2), "one event and two groups are there still");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_state_of_the_fleet() {
    let scene = nothing_is_lost_by(async |scene| scene.delete(&[scene.key("meta")])).await;
    // A tail may see events again, since it cannot know that this is the same fleet.
    let published: BTreeSet<u64> = look(&scene.publisher.published).iter().map(|(number, _)| *number).collect();
    assert_eq!(BTreeSet::from_iter(scene.tail.numbers()), published);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_flushed() {
    let scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.drained().await;
    scene.waits().await;
    assert_eq!(scene.server.command(&["FLUSHALL"]), "OK");
    scene.heals().await;
    scene.data_loss_is_recorded().await;
    scene.nobody_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_flushed_with_events_in_hand() {
    let scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.holds_back(10).await;
    assert_eq!(scene.server.command(&["FLUSHALL"]), "OK");
    scene.goes_on();
    scene.heals().await;
    scene.data_loss_is_recorded().await;
    for (log, held) in [(&scene.pair, 2), (&scene.solo, 1)] {
        let refused = look(&log.refused);
        let stale = refused.iter().filter(|error| error.starts_with("StaleDelivery")).count();
        assert_eq!((refused.len(), stale), (held, held), "{refused:?}");
    }
    scene.nobody_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_and_an_immediate_restart() {
    nobody_misses_anything_after(async |scene| scene.server.restart()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_and_an_outage() {
    nobody_misses_anything_after(async |scene| {
        scene.server.kill();
        sleep(OUTAGE).await;
        scene.server.restart();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still() {
    nobody_misses_anything_after(async |scene| {
        scene.server.stop();
        sleep(OUTAGE).await;
        scene.server.resume();
        assert!(scene.server.ping(LONG));
    })
    .await;
}

/// Positions go back, and are used again: that what is fresh arrives does not depend on how much was forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_back() {
    let scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.drained().await;
    scene.waits().await;
    scene.server.snapshot();
    for _ in 0..10 {
        scene.heals().await;
    }
    scene.drained().await;
    scene.server.roll_back();
    scene.heals().await;
    scene.nobody_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_back_to_before_a_group_came_to_be() {
    let mut scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.drained().await;
    scene.waits().await;
    scene.server.snapshot();
    let (late, log) = (GroupName::from_static("late"), Arc::<Log>::default());
    scene.join(late.clone(), &log).await;
    scene.publisher.publish().await;
    assert!(until(soon(), || log.has(1) && log.has(2)).await, "the group is there");
    scene.server.roll_back();
    let deadline = Instant::now() + HEALED;
    let fresh = scene.publisher.publish().await;
    let arrived = || [&log, &scene.pair, &scene.solo].map(|log| log.has(fresh));
    until(deadline, || arrived() == [true; 3]).await;
    assert_eq!(arrived(), [true; 3], "after {HEALED:?} event {fresh} is at [late, pair, solo] ({scene:?})");
    let of_late = |entries: Vec<Entry>| entries.into_iter().filter(|entry| names(entry, &late)).count();
    assert_eq!(of_late(scene.recorded("group_restored").await), 1);
    assert_eq!(of_late(scene.recorded("data_loss").await), 1);
    assert_eq!(look(&log.errors), Vec::<String>::new());
    scene.nobody_failed();
}

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
