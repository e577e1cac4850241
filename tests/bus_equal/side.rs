//! A fleet that is played on, and what it says.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use s2_coordinator::conformance::Fleet;
use s2_coordinator::{
    Attempt, ConsumerName, DeadLetterId, DeadLetters, Delivery, Error, EscalationId, Event, EventBus, EventType, Inbox,
    NewEscalation, NewEvent, Position, Published, Resolution, Settled, Settlement, Start, Subject, Subscribe,
    Subscription, SwarmId,
};
use s2_tests::redis::waiting;
use s2_tests::servers::RedisServer;
use tokio::task::JoinHandle;

use crate::step::{Begin, How, Planned, Step, Which};
use crate::{GROUPS, KEYS, PATIENCE, TOPICS};

/// One of the two fleets, with what it has handed out.
pub(super) struct Side {
    fleet: Box<dyn Fleet>,
    bus: Arc<dyn EventBus>,
    inbox: Arc<dyn Inbox>,
    pub(super) consumers: Vec<Seat>,
    held: Vec<Delivery>,
    /// How many wait, where that is not known at once.
    queue: Option<Queue>,
}

/// A consumer, and what it waits for.
pub(super) struct Seat {
    subscription: Arc<Subscription>,
    place: (usize, usize),
    pub(super) wait: Option<JoinHandle<Result<Vec<Delivery>, Error>>>,
}

/// Where a fleet on Redis queues those who wait.
pub(super) struct Queue {
    pub(super) server: &'static RedisServer,
    pub(super) name: SwarmId,
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
    pub(super) fn new(fleet: Box<dyn Fleet>, queue: Option<Queue>) -> Self {
        let (bus, inbox) = (fleet.bus(), fleet.inbox().expect("an inbox"));
        Self { fleet, bus, inbox, consumers: Vec::new(), held: Vec::new(), queue }
    }

    /// Waits until the backend knows who waits.
    pub(super) async fn registered(&self) {
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
    pub(super) async fn stop_waiting(&mut self) {
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
    pub(super) async fn waited(&mut self, nth: usize) -> String {
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
    pub(super) async fn step(&mut self, step: &Step) -> String {
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
    pub(super) async fn state(&self) -> String {
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
