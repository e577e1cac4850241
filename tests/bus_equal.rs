//! Memory and Redis give the same answers to the same random history.
//!
//! Each step is done on a fleet in memory and on one on Redis, whose clocks move together. What is compared is everything
//! that a host can see but for what is random or given by the backend: ids of events, numbers of consumers and groups.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use s2_coordinator::conformance::Fleet;
use s2_coordinator::{
    Attempt, Config, ConsumerName, DeadLetterId, DeadLetters, Delivery, Error, EscalationId, Event, EventBus,
    EventType, GroupName, IdempotencyKey, Inbox, NewEscalation, NewEvent, Position, Published, Resolution, Retention,
    Settled, Settlement, Start, Subject, Subscribe, Subscription, SwarmId, Topic,
};
use s2_tests::redis::{RedisFleet, waiting};
use s2_tests::servers::RedisServer;
use s2_tests::{MemoryFleet, counts};
use tokio::task::JoinHandle;

const TOPICS: [Topic; 2] = [Topic::from_static("inputs"), Topic::from_static("outputs")];
const GROUPS: [GroupName; 2] = [GroupName::from_static("one"), GroupName::from_static("two")];
const KEYS: [IdempotencyKey; 3] =
    [IdempotencyKey::from_static("a"), IdempotencyKey::from_static("b"), IdempotencyKey::from_static("c")];

/// What must come comes within this.
const PATIENCE: Duration = Duration::from_secs(20);

/// One step of a history. Numbers pick from what there is at that moment.
#[derive(Clone, Debug)]
enum Step {
    Publish {
        events: Vec<Planned>,
    },
    Subscribe {
        topic: usize,
        group: usize,
        prefetch: usize,
        timeout: Option<u64>,
        deliveries: Option<u32>,
        start: Begin,
    },
    Close {
        consumer: usize,
    },
    Take {
        consumer: usize,
        max: usize,
    },
    /// Waits for as many, until something comes or time passes.
    Wait {
        consumer: usize,
        max: usize,
    },
    Settle {
        held: usize,
        how: How,
    },
    SettleAll {
        from: usize,
        count: usize,
        how: How,
    },
    Extend {
        held: usize,
        by: u64,
    },
    Advance {
        seconds: u64,
    },
    Redrive {
        which: Which,
    },
    Purge {
        which: Which,
    },
    RemoveGroup {
        topic: usize,
        group: usize,
    },
    Read {
        topic: usize,
        start: Begin,
        limit: usize,
    },
    Escalate {
        key: usize,
    },
    Resolve {
        id: u64,
        decision: bool,
    },
    /// Redis forgets its functions, and with them what they remember.
    Forget,
}

#[derive(Clone, Debug)]
struct Planned {
    topic: usize,
    key: Option<usize>,
    data: u8,
}

#[derive(Clone, Copy, Debug)]
enum Begin {
    Beginning,
    Now,
    After(u64),
}

#[derive(Clone, Debug)]
enum How {
    Ack,
    Nack(u64),
    Refuse,
    Commit(Vec<Planned>),
}

#[derive(Clone, Copy, Debug)]
enum Which {
    All,
    One(u64),
    Of(usize, usize),
}

fn planned() -> impl Strategy<Value = Planned> {
    (0..2_usize, prop_oneof![3 => Just(None), 1 => (0..3_usize).prop_map(Some)], 0..3_u8)
        .prop_map(|(topic, key, data)| Planned { topic, key, data })
}

fn begin() -> impl Strategy<Value = Begin> {
    prop_oneof![4 => Just(Begin::Beginning), 1 => Just(Begin::Now), 1 => (0..40_u64).prop_map(Begin::After)]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        4 => Just(How::Ack),
        3 => prop_oneof![Just(0), 1..90_u64].prop_map(How::Nack),
        1 => Just(How::Refuse),
        2 => proptest::collection::vec(planned(), 0..4).prop_map(How::Commit),
    ]
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        Just(Which::All),
        (0..12_u64).prop_map(Which::One),
        (0..2_usize, 0..2_usize).prop_map(|(topic, group)| Which::Of(topic, group)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let pick = 0..1000_usize;
    let subscribe = (
        0..2_usize,
        0..2_usize,
        1..40_usize,
        prop_oneof![2 => Just(None), 1 => (1..90_u64).prop_map(Some)],
        prop_oneof![3 => Just(None), 1 => (1..4_u32).prop_map(Some)],
        begin(),
    );
    prop_oneof![
        2 => proptest::collection::vec(planned(), 0..40).prop_map(|events| Step::Publish { events }),
        2 => (0..2_usize, proptest::collection::vec(planned(), 0..40)).prop_map(|(topic, mut events)| {
            events.iter_mut().for_each(|event| event.topic = topic);
            Step::Publish { events }
        }),
        1 => Just(Step::Forget),
        3 => subscribe.prop_map(|(topic, group, prefetch, timeout, deliveries, start)| {
            Step::Subscribe { topic, group, prefetch, timeout, deliveries, start }
        }),
        1 => pick.clone().prop_map(|consumer| Step::Close { consumer }),
        8 => (pick.clone(), prop_oneof![2 => 1..4_usize, 1 => 1..50_usize])
            .prop_map(|(consumer, max)| Step::Take { consumer, max }),
        4 => (pick.clone(), 1..12_usize).prop_map(|(consumer, max)| Step::Wait { consumer, max }),
        8 => (pick.clone(), how()).prop_map(|(held, how)| Step::Settle { held, how }),
        3 => (pick.clone(), 1..40_usize, how()).prop_map(|(from, count, how)| Step::SettleAll { from, count, how }),
        1 => (pick, 1..90_u64).prop_map(|(held, by)| Step::Extend { held, by }),
        3 => prop_oneof![6 => 1..60_u64, 2 => 3_600..90_000_u64, 1 => 80_000..800_000_u64]
            .prop_map(|seconds| Step::Advance { seconds }),
        1 => which().prop_map(|which| Step::Redrive { which }),
        1 => which().prop_map(|which| Step::Purge { which }),
        1 => (0..2_usize, 0..2_usize).prop_map(|(topic, group)| Step::RemoveGroup { topic, group }),
        1 => (0..2_usize, begin(), 1..20_usize).prop_map(|(topic, start, limit)| Step::Read { topic, start, limit }),
        1 => (0..3_usize).prop_map(|key| Step::Escalate { key }),
        1 => (0..6_u64, any::<bool>()).prop_map(|(id, decision)| Step::Resolve { id, decision }),
    ]
}

/// One of the two fleets, with what it has handed out.
struct Side {
    fleet: Box<dyn Fleet>,
    bus: Arc<dyn EventBus>,
    inbox: Arc<dyn Inbox>,
    consumers: Vec<Seat>,
    held: Vec<Delivery>,
    /// How many wait, where that is not known at once.
    queue: Option<Queue>,
}

/// A consumer, and what it waits for.
struct Seat {
    subscription: Arc<Subscription>,
    place: (usize, usize),
    wait: Option<JoinHandle<Result<Vec<Delivery>, Error>>>,
}

/// Where a fleet on Redis queues those who wait.
struct Queue {
    server: &'static RedisServer,
    name: SwarmId,
}

impl Queue {
    async fn len(&self, bus: &dyn EventBus) -> usize {
        let mut waits = 0;
        for topic in &TOPICS {
            for group in bus.groups(topic).await.expect("groups") {
                waits += waiting(self.server, &format!("s2:{{{}}}:g:{}", self.name, group.incarnation));
            }
        }
        waits
    }
}

fn start(begin: Begin) -> Start {
    match begin {
        Begin::Beginning => Start::Beginning,
        Begin::Now => Start::Now,
        Begin::After(position) => Start::After(Position::new(position)),
    }
}

fn new_event(planned: &Planned) -> NewEvent {
    let (topic, source) = (TOPICS[planned.topic].clone(), SwarmId::from_static("model"));
    // Some are so large that few lie together.
    let size = if planned.data == 2 { 1500 } else { 3 };
    let event = NewEvent::new(topic, EventType::from_static("model"), source).with_data(vec![planned.data; size]);
    match planned.key {
        Some(key) => event.with_idempotency_key(KEYS[key].clone()),
        None => event,
    }
}

fn selection(which: Which) -> DeadLetters {
    match which {
        Which::All => DeadLetters::all(),
        Which::One(id) => DeadLetters::one(DeadLetterId::new(id)),
        Which::Of(topic, group) => {
            DeadLetters::all().with_topic(TOPICS[topic].clone()).with_group(GROUPS[group].clone())
        }
    }
}

/// What an error says, but for numbers that a backend gives.
fn told(error: &Error) -> String {
    match error {
        Error::IdempotencyConflict { topic, key, .. } => format!("conflict {topic} {key}"),
        Error::NotRetained { position, .. } => format!("not retained {position}"),
        other => format!("{}: {other}", other.code()),
    }
}

fn said<T>(answer: &Result<T, Error>, say: impl Fn(&T) -> String) -> String {
    answer.as_ref().map_or_else(told, say)
}

fn of_published(published: &[Published]) -> String {
    published.iter().map(|one| format!("{}{} ", one.position, if one.duplicate { "d" } else { "" })).collect()
}

fn of_event(event: &Event) -> String {
    format!("{} {} {} {:?} {:?}", event.topic, event.position, event.time, event.data, event.idempotency_key)
}

fn of_settled(answer: &Result<Settled, Error>) -> String {
    said(answer, |settled| match settled {
        Settled::Committed(published) => format!("committed {}", of_published(published)),
        other => format!("{other:?}"),
    })
}

fn of_attempt(attempt: &Attempt) -> String {
    format!("{attempt:?}")
}

impl Side {
    fn new(fleet: Box<dyn Fleet>, queue: Option<Queue>) -> Self {
        let (bus, inbox) = (fleet.bus(), fleet.inbox().expect("an inbox"));
        Self { fleet, bus, inbox, consumers: Vec::new(), held: Vec::new(), queue }
    }

    /// Waits until the backend knows who waits.
    async fn registered(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            let Some(queue) = &self.queue else { return };
            let waits = self.consumers.iter().filter_map(|seat| seat.wait.as_ref());
            if queue.len(&*self.bus).await == waits.filter(|wait| !wait.is_finished()).count() {
                return;
            }
            assert!(Instant::now() < deadline, "the queue is not as it should be");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn wait(&mut self, consumer: usize, max: usize) {
        let Some(nth) = Self::pick(&self.consumers, consumer) else { return };
        // Who of a group is first when room and events come in one step, is nobody's promise.
        let place = self.consumers[nth].place;
        if self.consumers.iter().any(|seat| seat.place == place && seat.wait.is_some()) {
            return;
        }
        let subscription = Arc::clone(&self.consumers[nth].subscription);
        self.consumers[nth].wait = Some(tokio::spawn(async move { subscription.next_batch(max).await }));
        self.registered().await;
    }

    /// Nobody waits any more: what would come while time passes, comes at other times in memory than on Redis.
    async fn stop_waiting(&mut self) {
        let waits: Vec<_> = self.consumers.iter_mut().filter_map(|seat| seat.wait.take()).collect();
        if !waits.is_empty() {
            waits.iter().for_each(JoinHandle::abort);
            for wait in waits {
                assert!(wait.await.is_err_and(|error| error.is_cancelled()), "nothing came");
            }
            self.registered().await;
        }
    }

    /// What a wait came to.
    async fn waited(&mut self, nth: usize) -> String {
        let wait = self.consumers[nth].wait.take().expect("it waits");
        let answer = tokio::time::timeout(PATIENCE, wait).await.expect("something comes").expect("no panic");
        answer
            .map_or_else(|error| told(&error), |deliveries| deliveries.into_iter().map(|one| self.hold(one)).collect())
    }

    fn hold(&mut self, delivery: Delivery) -> String {
        let (attempt, number, deadline) = (delivery.attempt, delivery.receipt.delivery(), delivery.deadline);
        let told = format!("{} {attempt} {number} {deadline}; ", of_event(&delivery.event));
        self.held.push(delivery);
        told
    }

    fn pick<T>(from: &[T], nth: usize) -> Option<usize> {
        (!from.is_empty()).then(|| nth % from.len())
    }

    fn settlement(how: &How) -> Settlement {
        match how {
            How::Ack => Settlement::Ack,
            How::Nack(delay) => {
                Settlement::Nack { delay: Some(Duration::from_secs(*delay)), reason: Some("again".into()) }
            }
            How::Refuse => Settlement::DeadLetter { reason: "no".into() },
            How::Commit(outputs) => Settlement::Commit(outputs.iter().map(new_event).collect()),
        }
    }

    /// Does a step and says what came of it.
    async fn step(&mut self, step: &Step) -> String {
        match step {
            Step::Publish { events } => {
                let events: Vec<NewEvent> = events.iter().map(new_event).collect();
                said(&self.bus.publish(&events).await, |published| of_published(published))
            }
            Step::Subscribe { topic, group, prefetch, timeout, deliveries, start: begin } => {
                let mut how = Subscribe::new(TOPICS[*topic].clone(), GROUPS[*group].clone())
                    .with_prefetch(*prefetch)
                    .with_start(start(*begin))
                    .with_consumer(ConsumerName::from_static("somebody"));
                how.ack_timeout = timeout.map(Duration::from_secs);
                how.deliveries = *deliveries;
                match self.bus.subscribe(&how).await {
                    Ok(subscription) => {
                        self.consumers.push(Seat {
                            subscription: Arc::new(subscription),
                            place: (*topic, *group),
                            wait: None,
                        });
                        "subscribed".to_owned()
                    }
                    Err(error) => told(&error),
                }
            }
            Step::Close { consumer } => match Self::pick(&self.consumers, *consumer) {
                Some(nth) => {
                    said(&self.consumers.swap_remove(nth).subscription.close().await, |()| "closed".to_owned())
                }
                None => String::new(),
            },
            Step::Take { consumer, max } => self.take(*consumer, *max).await,
            Step::Wait { consumer, max } => {
                self.wait(*consumer, *max).await;
                String::new()
            }
            Step::Settle { held, how } => match Self::pick(&self.held, *held) {
                Some(nth) => of_settled(&self.bus.settle(&self.held[nth].receipt, Self::settlement(how)).await),
                None => String::new(),
            },
            Step::SettleAll { from, count, how } => match Self::pick(&self.held, *from) {
                Some(nth) => {
                    let some = self.held[nth..].iter().take(*count);
                    let all = some.map(|delivery| (delivery.receipt.clone(), Self::settlement(how))).collect();
                    said(&self.bus.settle_all(all).await, |all| {
                        all.iter().map(of_settled).collect::<Vec<_>>().join("; ")
                    })
                }
                None => String::new(),
            },
            Step::Extend { held, by } => match Self::pick(&self.held, *held) {
                Some(nth) => {
                    said(&self.held[nth].extend(Duration::from_secs(*by)).await, |deadline| deadline.to_string())
                }
                None => String::new(),
            },
            Step::Advance { seconds } => {
                self.fleet.advance(Duration::from_secs(*seconds)).await;
                String::new()
            }
            Step::Forget => String::new(),
            Step::Redrive { which } => said(&self.bus.redrive(&selection(*which)).await, |all| format!("{all:?}")),
            Step::Purge { which } => said(&self.bus.purge(&selection(*which)).await, |all| format!("{all:?}")),
            Step::RemoveGroup { topic, group } => {
                said(&self.bus.remove_group(&TOPICS[*topic], &GROUPS[*group]).await, ToString::to_string)
            }
            Step::Read { topic, start: begin, limit } => {
                let page = self.bus.read(&TOPICS[*topic], start(*begin), *limit).await;
                said(&page, |page| {
                    let events: Vec<String> = page.items.iter().map(|event| of_event(event)).collect();
                    format!("{} then {}", events.join("; "), page.next)
                })
            }
            Step::Escalate { key } => {
                let key = Subject::new(format!("budget {key}")).expect("a subject");
                said(&self.inbox.escalate(NewEscalation::new(key, "spent")).await, |raised| format!("{raised:?}"))
            }
            Step::Resolve { id, decision } => {
                let resolution = Resolution::new("ada", if *decision { "resume" } else { "stop" });
                said(&self.inbox.resolve(EscalationId::new(*id), resolution).await, |()| "resolved".to_owned())
            }
        }
    }

    async fn take(&mut self, consumer: usize, max: usize) -> String {
        let Some(nth) = Self::pick(&self.consumers, consumer) else { return String::new() };
        let mut told = String::new();
        for _ in 0..if self.consumers[nth].wait.is_some() { 0 } else { max } {
            match self.consumers[nth].subscription.try_next().await {
                Ok(Some(delivery)) => told.push_str(&self.hold(delivery)),
                Ok(None) => break,
                Err(error) => {
                    told.push_str(&self::told(&error));
                    break;
                }
            }
        }
        told
    }

    /// Everything else that a host can see.
    async fn state(&self) -> String {
        let mut state = String::new();
        for topic in &TOPICS {
            for group in self.bus.groups(topic).await.expect("groups") {
                let counts = (group.floor.get(), group.consumers, group.in_flight, group.returning, group.backlog);
                writeln!(state, "{topic} {} {counts:?} {}", group.name, group.expired).expect("text");
            }
            let oldest = self.bus.read(topic, Start::Beginning, 1).await.expect("read");
            let end = self.bus.read(topic, Start::Now, 1).await.expect("read").next;
            writeln!(state, "{topic} from {:?} to {end}", oldest.items.first().map(|event| event.position))
                .expect("text");
        }
        for letter in self.bus.dead_letters(&DeadLetters::all()).await.expect("letters") {
            let history: Vec<String> = letter.history.iter().map(of_attempt).collect();
            let (id, event) = (letter.id, of_event(&letter.event));
            writeln!(state, "{id} {event} {} {} {history:?}", letter.group, letter.died).expect("text");
        }
        for escalation in self.inbox.pending(EscalationId::default(), 500).await.expect("escalations") {
            writeln!(state, "{escalation:?}").expect("text");
        }
        state
    }
}

/// Whether the answers are alike. Once history is trimmed, either may remember a settle for longer than it must.
fn alike(memory: &str, redis: &str) -> bool {
    let forgotten = |answer: &str| answer.starts_with("not retained");
    let (memory, redis): (Vec<&str>, Vec<&str>) = (memory.split("; ").collect(), redis.split("; ").collect());
    memory.len() == redis.len()
        && memory.iter().zip(redis).all(|(one, other)| *one == other || forgotten(one) || forgotten(other))
}

fn check(steps: &[Step], config: &Config) {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    let server = SERVER.get_or_init(RedisServer::start_volatile);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let fleet = RedisFleet::new(server, config.clone()).await;
        let queue = Queue { server, name: fleet.name.clone() };
        let mut memory = Side::new(Box::new(MemoryFleet::new(config.clone())), None);
        let mut redis = Side::new(Box::new(fleet), Some(queue));
        for (nth, step) in steps.iter().enumerate() {
            if matches!(step, Step::Forget) {
                assert_eq!(server.command(&["FUNCTION", "FLUSH"]), "OK");
            }
            if matches!(step, Step::Advance { .. } | Step::Close { .. } | Step::RemoveGroup { .. }) {
                memory.stop_waiting().await;
                redis.stop_waiting().await;
            }
            let answers = (memory.step(step).await, redis.step(step).await);
            assert!(alike(&answers.0, &answers.1), "step {nth} {step:?}\nmemory: {}\nredis:  {}", answers.0, answers.1);
            memory.registered().await;
            for seat in 0..memory.consumers.len() {
                if memory.consumers[seat].wait.as_ref().is_some_and(JoinHandle::is_finished) {
                    let waits = (memory.waited(seat).await, redis.waited(seat).await);
                    assert_eq!(waits.0, waits.1, "memory, redis: what consumer {seat} got after step {nth} {step:?}");
                }
            }
            let states = (memory.state().await, redis.state().await);
            for (memory, redis) in states.0.lines().zip(states.1.lines()) {
                assert_eq!(memory, redis, "memory, redis after step {nth} {step:?}");
            }
            assert_eq!(states.0, states.1, "memory, redis after step {nth} {step:?}");
        }
        memory.stop_waiting().await;
        redis.stop_waiting().await;
    });
}

fn trimming() -> Config {
    let mut config = Config::default();
    config.topics = Retention { bytes: u64::MAX >> 12, age: Some(Duration::from_secs(45)) };
    config.group_expiry = Duration::from_secs(100);
    config.idempotency_window = Duration::from_secs(50);
    config.deliveries = 2;
    config
}

fn plain(count: usize) -> Step {
    Step::Publish { events: vec![Planned { topic: 0, key: None, data: 0 }; count] }
}

fn subscribe(topic: usize, group: usize, prefetch: usize, deliveries: Option<u32>) -> Step {
    Step::Subscribe { topic, group, prefetch, timeout: None, deliveries, start: Begin::Beginning }
}

/// What random histories found once.
#[test]
fn histories_that_once_differed() {
    let take = |consumer, max| Step::Take { consumer, max };
    let advance = |seconds| Step::Advance { seconds };
    let ack_all = || Step::SettleAll { from: 0, count: 40, how: How::Ack };
    // A dead letter that nobody can have.
    check(&[Step::Redrive { which: Which::One(0) }], &Config::default());
    // What dies at one point in time, dies in the order of positions, whether it had died before or not.
    let dying = [
        subscribe(0, 0, 9, Some(1)),
        subscribe(0, 0, 40, None),
        plain(17),
        take(0, 9),
        take(1, 8),
        advance(3600),
        plain(17),
        Step::Redrive { which: Which::All },
        take(0, 9),
        take(1, 25),
        advance(30),
    ];
    check(&dying, &Config::default());
    // A group that was removed stays removed, however long ago.
    let removed = [
        subscribe(1, 0, 1, None),
        Step::RemoveGroup { topic: 1, group: 0 },
        advance(41),
        subscribe(1, 1, 1, None),
        advance(59),
        Step::RemoveGroup { topic: 1, group: 1 },
        take(0, 1),
    ];
    check(&removed, &trimming());
    // Settled together, trimmed once.
    let together = [
        plain(1),
        subscribe(0, 0, 3, None),
        take(0, 1),
        advance(2),
        plain(2),
        take(0, 2),
        advance(43),
        take(0, 3),
        ack_all(),
    ];
    check(&together, &trimming());
    // What was held back by others is trimmed in its time, too.
    let later = [
        subscribe(0, 0, 12, None),
        plain(11),
        advance(14),
        plain(1),
        take(0, 12),
        advance(31),
        take(0, 1),
        Step::SettleAll { from: 0, count: 14, how: How::Ack },
        advance(14),
    ];
    check(&later, &trimming());
    // Whoever waits gets a batch as a whole, though it goes back and forth between topics,
    let wait = |consumer, max| Step::Wait { consumer, max };
    let on = |topic| Planned { topic, key: None, data: 0 };
    let mixed = || Step::Publish { events: vec![on(0), on(1), on(0)] };
    check(&[subscribe(0, 0, 2, None), wait(0, 2), mixed()], &Config::default());
    // and all that is committed together;
    let commits = Step::SettleAll { from: 0, count: 2, how: How::Commit(vec![on(0)]) };
    check(&[subscribe(0, 0, 4, None), plain(4), take(0, 4), wait(0, 2), commits], &Config::default());
    // but nothing from before where the group begins,
    let after =
        Step::Subscribe { topic: 0, group: 0, prefetch: 1, timeout: None, deliveries: None, start: Begin::After(1) };
    check(&[after, wait(0, 1), plain(1), plain(1)], &Config::default());
    // nor more than it has room for.
    let two = [subscribe(0, 0, 2, None), wait(0, 5), plain(4), Step::Forget, ack_all(), wait(0, 2), plain(1), plain(1)];
    check(&two, &Config::default());
    // What comes back from the dead together, comes in the order of positions.
    let nack = |held| Step::Settle { held, how: How::Nack(0) };
    let risen = [
        subscribe(0, 0, 7, Some(1)),
        plain(5),
        take(0, 5),
        nack(1),
        nack(0),
        wait(0, 1),
        Step::Redrive { which: Which::All },
    ];
    check(&risen, &Config::default());
    // A key that is used anew after its window, by a batch that is refused in the end.
    let keyed = |data| Planned { topic: 0, key: Some(0), data };
    let anew = [
        Step::Publish { events: vec![keyed(0)] },
        advance(51),
        Step::Publish { events: vec![keyed(1), keyed(2)] },
        Step::Publish { events: vec![keyed(1)] },
        advance(60),
        plain(1),
    ];
    check(&anew, &trimming());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: counts(100, 3_000), max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_redis_give_the_same_answers(steps in proptest::collection::vec(step(), 1..80)) {
        check(&steps, &Config::default());
    }

    #[test]
    fn trimming_by_age_changes_nothing_about_that(steps in proptest::collection::vec(step(), 1..80)) {
        check(&steps, &trimming());
    }
}
