//! The bus in memory against a model that anybody can check by eye: random histories, the same answers.
//!
//! The model keeps one record for each event and group and looks through all of them for every answer; the bus keeps
//! indices. Whatever an index gets wrong, some history shows. The second property trims history all the time: nothing
//! that is not settled may be missed.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use s2_coordinator::{
    Attempt, AttemptEnd, Config, DeadLetterId, DeadLetters, Delivery, Error, EventBus, EventType, GroupName, MemoryBus,
    NewEvent, Retention, Settle, Settled, Settlement, Start, Subscribe, Subscription, SwarmId, Topic,
};
use s2_tests::{MemoryFleet, counts};

const TOPIC: Topic = Topic::from_static("model");
const OUTPUTS: Topic = Topic::from_static("outputs");
const GROUPS: [GroupName; 2] = [GroupName::from_static("one"), GroupName::from_static("two")];
const ACK_TIMEOUT: u64 = 30;
const DELIVERIES: u32 = 3;

/// One step of a history. Numbers pick from what there is at that moment.
#[derive(Clone, Debug)]
enum Step {
    Publish { count: usize },
    Subscribe { group: usize, prefetch: usize },
    Leave { consumer: usize },
    Take { consumer: usize },
    Ack { held: usize },
    Nack { held: usize, delay: u64 },
    Refuse { held: usize },
    Commit { held: usize, output: usize },
    Extend { held: usize, by: u64 },
    Advance { seconds: u64 },
    Redrive { nth: usize },
    RedriveAll,
    Purge { nth: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let pick = 0..1000_usize;
    prop_oneof![
        3 => (1..5_usize).prop_map(|count| Step::Publish { count }),
        2 => (0..2_usize, 1..5_usize).prop_map(|(group, prefetch)| Step::Subscribe { group, prefetch }),
        1 => pick.clone().prop_map(|consumer| Step::Leave { consumer }),
        8 => pick.clone().prop_map(|consumer| Step::Take { consumer }),
        3 => pick.clone().prop_map(|held| Step::Ack { held }),
        3 => (pick.clone(), prop_oneof![Just(0), 1..60_u64]).prop_map(|(held, delay)| Step::Nack { held, delay }),
        1 => pick.clone().prop_map(|held| Step::Refuse { held }),
        2 => (pick.clone(), 0..2_usize).prop_map(|(held, output)| Step::Commit { held, output }),
        1 => (pick.clone(), 1..60_u64).prop_map(|(held, by)| Step::Extend { held, by }),
        3 => (1..40_u64).prop_map(|seconds| Step::Advance { seconds }),
        1 => pick.clone().prop_map(|nth| Step::Redrive { nth }),
        1 => Just(Step::RedriveAll),
        1 => pick.prop_map(|nth| Step::Purge { nth }),
    ]
}

// The model.

#[derive(Clone, Debug, PartialEq)]
enum State {
    Fresh,
    InFlight { deadline: u64 },
    Delayed { until: u64 },
    Ready,
    Acked,
    Committed { output: usize },
    Dead,
}

/// How a delivery ended that did not end well.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    GivenBack,
    Refused,
    TimedOut,
    Lost,
}

impl End {
    fn of(attempt: &Attempt) -> Self {
        match attempt.end {
            AttemptEnd::Nacked { .. } => Self::GivenBack,
            AttemptEnd::Refused { .. } => Self::Refused,
            AttemptEnd::TimedOut => Self::TimedOut,
            AttemptEnd::Lost => Self::Lost,
        }
    }

    fn is_told(self) -> bool {
        matches!(self, Self::GivenBack | Self::Refused)
    }
}

#[derive(Clone, Debug)]
struct Record {
    state: State,
    deliveries: u32,
    born: u32,
    consumer: usize,
    suspect: bool,
    settled_at: u64,
    /// By delivery: how it ended, and the dead letter that it led to.
    ends: BTreeMap<u32, (End, Option<u64>)>,
}

#[derive(Clone, Debug)]
struct Letter {
    group: usize,
    event: usize,
    history: Vec<(u32, End)>,
}

#[derive(Debug, Default)]
struct Model {
    now: u64,
    events: usize,
    records: [Vec<Record>; 2],
    /// Group, prefetch, whether it is there.
    consumers: Vec<(usize, usize, bool)>,
    letters: BTreeMap<u64, Letter>,
    redriven: Vec<u64>,
    last_letter: u64,
}

/// What a take answers: event, attempt.
type Taken = Option<(usize, u32)>;

/// What a consumer says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Said {
    Done,
    Committed(usize),
    Failed(End),
}

/// What a settle answers, as far as it is to be compared.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Acked,
    Committed,
    GivenBack,
    Dead(u64),
    Extended,
    Stale,
    Already,
}

impl Model {
    fn publish(&mut self, count: usize) {
        self.events += count;
        let fresh = Record {
            state: State::Fresh,
            deliveries: 0,
            born: 0,
            consumer: 0,
            suspect: false,
            settled_at: 0,
            ends: BTreeMap::new(),
        };
        for records in &mut self.records {
            records.resize(self.events, fresh.clone());
        }
    }

    fn held(&self, consumer: usize) -> (usize, usize) {
        let group = self.consumers[consumer].0;
        let mine = |record: &&Record| matches!(record.state, State::InFlight { .. }) && record.consumer == consumer;
        let held = self.records[group].iter().filter(mine);
        (held.clone().count(), held.filter(|record| record.suspect).count())
    }

    /// Ends whatever is due, in the order in which it is due.
    fn expire(&mut self) {
        loop {
            let due = |group: usize, (nth, record): (usize, &Record)| match record.state {
                State::InFlight { deadline: at } | State::Delayed { until: at } if at <= self.now => {
                    Some((at, group, nth))
                }
                _ => None,
            };
            let of_group =
                |group: usize| self.records[group].iter().enumerate().filter_map(move |each| due(group, each));
            let Some((at, group, nth)) = of_group(0).chain(of_group(1)).min() else { return };
            let record = &mut self.records[group][nth];
            if let State::Delayed { .. } = record.state {
                (record.state, record.suspect) = (State::Ready, false);
                continue;
            }
            let end = if self.consumers[record.consumer].2 { End::TimedOut } else { End::Lost };
            record.ends.insert(record.deliveries, (end, None));
            if record.deliveries - record.born >= DELIVERIES {
                self.bury(group, nth, end, at);
            } else {
                (record.state, record.suspect) = (State::Ready, true);
            }
        }
    }

    fn bury(&mut self, group: usize, event: usize, end: End, at: u64) -> u64 {
        self.last_letter += 1;
        let record = &mut self.records[group][event];
        record.state = State::Dead;
        record.settled_at = at;
        record.ends.insert(record.deliveries, (end, Some(self.last_letter)));
        let lived = record.ends.range(record.born + 1..);
        let history = lived.map(|(delivery, (end, _))| (*delivery, *end)).collect();
        self.letters.insert(self.last_letter, Letter { group, event, history });
        self.last_letter
    }

    fn take(&mut self, consumer: usize) -> Taken {
        let (group, prefetch, _) = self.consumers[consumer];
        self.expire();
        let (held, suspects) = self.held(consumer);
        if held >= prefetch {
            return None;
        }
        let records = &mut self.records[group];
        let back = records.iter().position(|record| record.state == State::Ready && (!record.suspect || suspects == 0));
        let nth = back.or_else(|| records.iter().position(|record| record.state == State::Fresh))?;
        let record = &mut records[nth];
        record.deliveries += 1;
        record.consumer = consumer;
        record.state = State::InFlight { deadline: self.now + ACK_TIMEOUT };
        Some((nth, record.deliveries - record.born))
    }

    /// Whether a delivery may settle; if not, what its consumer was told before, and for what.
    fn standing(&mut self, held: &Held) -> Result<(), (Answer, Option<Said>)> {
        self.expire();
        let record = &self.records[held.group][held.event];
        match record.ends.get(&held.delivery) {
            Some((end, Some(id))) if end.is_told() => return Err((Answer::Dead(*id), Some(Said::Failed(*end)))),
            Some((end, None)) if end.is_told() => return Err((Answer::GivenBack, Some(Said::Failed(*end)))),
            Some((_, Some(_))) => return Err((Answer::Stale, None)),
            _ if record.deliveries != held.delivery || record.born >= held.delivery => {
                return Err((Answer::Stale, None));
            }
            _ => {}
        }
        match record.state {
            State::Acked => Err((Answer::Acked, Some(Said::Done))),
            State::Committed { output } => Err((Answer::Committed, Some(Said::Committed(output)))),
            _ => Ok(()),
        }
    }

    fn settle(&mut self, held: &Held, said: Said) -> Answer {
        match self.standing(held) {
            Ok(()) => {}
            Err((answer, None)) => return answer,
            Err((answer, Some(before))) => return if before == said { answer } else { Answer::Already },
        }
        let now = self.now;
        let record = &mut self.records[held.group][held.event];
        record.settled_at = now;
        if record.ends.remove(&held.delivery).is_some() {
            let last = record.ends.range(record.born + 1..).last().map(|(_, end)| end);
            record.suspect = last.is_some_and(|(end, _)| !end.is_told());
        }
        match said {
            Said::Done => {
                record.state = State::Acked;
                Answer::Acked
            }
            Said::Committed(output) => {
                record.state = State::Committed { output };
                Answer::Committed
            }
            Said::Failed(end @ End::GivenBack) if record.deliveries - record.born < DELIVERIES => {
                record.ends.insert(record.deliveries, (end, None));
                record.suspect = false;
                let delay = held.delay;
                record.state = if delay == 0 { State::Ready } else { State::Delayed { until: now + delay } };
                Answer::GivenBack
            }
            Said::Failed(end) => Answer::Dead(self.bury(held.group, held.event, end, now)),
        }
    }

    fn extend(&mut self, held: &Held, by: u64) -> Answer {
        match self.standing(held) {
            Ok(()) => {
                let deadline = self.now + by;
                let record = &mut self.records[held.group][held.event];
                if record.ends.remove(&held.delivery).is_some() {
                    let last = record.ends.range(record.born + 1..).last().map(|(_, end)| end);
                    record.suspect = last.is_some_and(|(end, _)| !end.is_told());
                }
                record.state = State::InFlight { deadline };
                Answer::Extended
            }
            Err((Answer::Stale, _)) => Answer::Stale,
            Err(_) => Answer::Already,
        }
    }

    fn redrive(&mut self, id: u64) {
        let Some(letter) = self.letters.remove(&id) else { return };
        self.redriven.push(id);
        let record = &mut self.records[letter.group][letter.event];
        record.born = record.deliveries;
        (record.state, record.suspect) = (State::Ready, false);
    }

    /// In flight, returning, never delivered.
    fn counts(&self, group: usize) -> (usize, usize, u64) {
        let count = |which: fn(&State) -> bool| self.records[group].iter().filter(|r| which(&r.state)).count();
        let returning = count(|state| matches!(state, State::Ready | State::Delayed { .. }));
        let fresh = count(|state| *state == State::Fresh);
        (count(|state| matches!(state, State::InFlight { .. })), returning, fresh as u64)
    }
}

// The bus, driven by the same steps.

/// A delivery that was handed out, settled or not.
struct Held {
    group: usize,
    event: usize,
    delivery: u32,
    /// Of the nack that is being said.
    delay: u64,
    real: Delivery,
}

struct Run {
    fleet: MemoryFleet,
    bus: MemoryBus,
    consumers: Vec<Option<Subscription>>,
    held: Vec<Held>,
    model: Model,
    committed: usize,
    /// Whether history is trimmed, so that a settle may be forgotten.
    trims: bool,
}

fn answer(real: Result<Settled, Error>) -> Option<Answer> {
    Some(match real {
        Ok(Settled::Acked) => Answer::Acked,
        Ok(Settled::Committed(_)) => Answer::Committed,
        Ok(Settled::Retrying(_)) => Answer::GivenBack,
        Ok(Settled::DeadLettered(id)) => Answer::Dead(id.get()),
        Err(Error::StaleDelivery { .. }) => Answer::Stale,
        Err(Error::AlreadySettled { .. }) => Answer::Already,
        Err(Error::NotRetained { .. }) => return None,
        Err(error) => panic!("unexpected: {error}"),
    })
}

fn event(topic: Topic, n: usize) -> NewEvent {
    NewEvent::new(topic, EventType::from_static("model"), SwarmId::from_static("model")).with_data(n.to_string())
}

fn pick<T>(from: &[T], nth: usize) -> Option<usize> {
    (!from.is_empty()).then(|| nth % from.len())
}

impl Run {
    async fn new(trims: bool) -> Self {
        let mut config = Config::default();
        config.deliveries = DELIVERIES;
        if trims {
            config.topics = Retention { bytes: 3000, age: None };
        }
        let fleet = MemoryFleet::new(config);
        let bus = fleet.store.bus();
        // Both groups are there from the start, so that nothing is trimmed before they see it.
        for group in GROUPS {
            bus.subscribe(&Subscribe::new(TOPIC, group)).await.expect("subscribed");
        }
        Self { fleet, bus, consumers: Vec::new(), held: Vec::new(), model: Model::default(), committed: 0, trims }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Publish { count } => {
                let events: Vec<NewEvent> = (0..count).map(|n| event(TOPIC, self.model.events + n)).collect();
                self.bus.publish(&events).await.expect("published");
                self.model.publish(count);
            }
            Step::Subscribe { group, prefetch } => {
                let how = Subscribe::new(TOPIC, GROUPS[group].clone()).with_prefetch(prefetch);
                self.consumers.push(Some(self.bus.subscribe(&how).await.expect("subscribed")));
                self.model.consumers.push((group, prefetch, true));
            }
            Step::Leave { consumer } => {
                if let Some(nth) = pick(&self.consumers, consumer) {
                    self.consumers[nth] = None;
                    self.model.consumers[nth].2 = false;
                }
            }
            Step::Take { consumer } => self.take(consumer).await,
            Step::Ack { held } => self.settle(held, Said::Done, 0).await,
            Step::Nack { held, delay } => self.settle(held, Said::Failed(End::GivenBack), delay).await,
            Step::Refuse { held } => self.settle(held, Said::Failed(End::Refused), 0).await,
            Step::Commit { held, output } => self.settle(held, Said::Committed(output), 0).await,
            Step::Extend { held, by } => self.extend(held, by).await,
            Step::Advance { seconds } => {
                self.fleet.clock.advance(Duration::from_secs(seconds));
                self.model.now += seconds;
            }
            Step::Redrive { nth } => {
                let known = self.model.last_letter;
                if known > 0 {
                    self.redrive_one(nth as u64 % known + 1).await;
                }
            }
            Step::RedriveAll => {
                self.model.expire();
                let expected: Vec<u64> = self.model.letters.keys().copied().collect();
                let answers = self.bus.redrive(&DeadLetters::all()).await.expect("redriven");
                assert_eq!(answers.iter().map(|answer| answer.id.get()).collect::<Vec<_>>(), expected);
                expected.into_iter().for_each(|id| self.model.redrive(id));
            }
            Step::Purge { nth } => {
                self.model.expire();
                let known = self.model.last_letter;
                if known > 0 {
                    let id = nth as u64 % known + 1;
                    let purged = self.bus.purge(&DeadLetters::one(DeadLetterId::new(id))).await.expect("purged");
                    assert_eq!(purged.len(), usize::from(self.model.letters.remove(&id).is_some()));
                }
            }
        }
        self.compare().await;
    }

    async fn take(&mut self, consumer: usize) {
        let Some(nth) = pick(&self.consumers, consumer) else { return };
        let Some(subscription) = &self.consumers[nth] else { return };
        let real = subscription.try_next().await.expect("no error");
        let expected = self.model.take(nth);
        let shown = real.as_ref().map(|delivery| {
            let text = std::str::from_utf8(&delivery.event.data).expect("a number");
            (text.parse::<usize>().expect("a number"), delivery.attempt)
        });
        assert_eq!(shown, expected, "consumer {nth}");
        if let (Some(real), Some((event, _))) = (real, expected) {
            let group = self.model.consumers[nth].0;
            let delivery = self.model.records[group][event].deliveries;
            assert_eq!(real.receipt.delivery(), delivery);
            self.held.push(Held { group, event, delivery, delay: 0, real });
        }
    }

    async fn settle(&mut self, held: usize, said: Said, delay: u64) {
        let Some(nth) = pick(&self.held, held) else { return };
        self.held[nth].delay = delay;
        let held = &self.held[nth];
        let settlement = match said {
            Said::Done => Settlement::Ack,
            Said::Committed(output) => Settlement::Commit(vec![event(OUTPUTS, output)]),
            Said::Failed(End::GivenBack) => Settlement::Nack { delay: Some(Duration::from_secs(delay)), reason: None },
            Said::Failed(_) => Settlement::DeadLetter { reason: "no".into() },
        };
        let real = self.bus.settle(&held.real.receipt, settlement).await;
        let record = &self.model.records[held.group][held.event];
        let (was_committed, settled_at) = (matches!(record.state, State::Committed { .. }), record.settled_at);
        let expected = self.model.settle(held, said);
        self.committed += usize::from(expected == Answer::Committed && !was_committed);
        match answer(real) {
            Some(shown) => assert_eq!(shown, expected, "{said:?} of event {}", held.event),
            None => self.may_forget(settled_at),
        }
    }

    /// A settle is remembered for one ack timeout, at least.
    fn may_forget(&self, settled_at: u64) {
        assert!(self.trims && self.model.now - settled_at >= ACK_TIMEOUT, "forgotten too early");
    }

    async fn extend(&mut self, held: usize, by: u64) {
        let Some(nth) = pick(&self.held, held) else { return };
        let held = &self.held[nth];
        let real = held.real.extend(Duration::from_secs(by)).await;
        let settled_at = self.model.records[held.group][held.event].settled_at;
        let expected = self.model.extend(held, by);
        let shown = match real {
            Ok(_) => Some(Answer::Extended),
            Err(error) => answer(Err(error)),
        };
        match shown {
            Some(shown) => assert_eq!(shown, expected, "extending event {}", held.event),
            None => self.may_forget(settled_at),
        }
    }

    async fn redrive_one(&mut self, id: u64) {
        self.model.expire();
        let answer = self.bus.redrive(&DeadLetters::one(DeadLetterId::new(id))).await;
        match answer {
            Ok(answers) => {
                assert_eq!(answers.len(), 1);
                assert_eq!(answers[0].duplicate, self.model.redriven.contains(&id));
                assert_eq!(answers[0].duplicate, !self.model.letters.contains_key(&id));
            }
            Err(Error::UnknownDeadLetter { .. }) => assert!(!self.model.letters.contains_key(&id)),
            Err(error) => panic!("unexpected: {error}"),
        }
        self.model.redrive(id);
    }

    async fn compare(&mut self) {
        self.model.expire();
        let groups = self.bus.groups(&TOPIC).await.expect("groups");
        for (nth, group) in groups.iter().enumerate() {
            let shown = (group.in_flight, group.returning, group.backlog);
            assert_eq!(shown, self.model.counts(nth), "in flight, returning, backlog of group {}", group.name);
            let consumers = self.model.consumers.iter().filter(|(group, _, there)| *group == nth && *there).count();
            assert_eq!(group.consumers, consumers);
        }
        let letters = self.bus.dead_letters(&DeadLetters::all()).await.expect("letters");
        let shown: Vec<u64> = letters.iter().map(|letter| letter.id.get()).collect();
        assert_eq!(shown, self.model.letters.keys().copied().collect::<Vec<_>>());
        for (letter, expected) in letters.iter().zip(self.model.letters.values()) {
            let history = letter.history.iter().map(|attempt| (attempt.delivery, End::of(attempt)));
            assert_eq!(history.collect::<Vec<_>>(), expected.history, "history of dead letter {}", letter.id);
        }
    }

    /// Everything can be finished: what is left is delivered and acked, and then the group is empty.
    async fn drain(&mut self) {
        self.consumers.clear();
        self.fleet.clock.advance(Duration::from_secs(3600));
        self.model.now += 3600;
        self.model.expire();
        for (nth, group) in GROUPS.into_iter().enumerate() {
            let (_, returning, fresh) = self.model.counts(nth);
            let subscription = self.bus.subscribe(&Subscribe::new(TOPIC, group)).await.expect("subscribed");
            let mut acked = 0;
            while let Some(delivery) = subscription.try_next().await.expect("no error") {
                delivery.ack().await.expect("acked");
                acked += 1;
            }
            assert_eq!(acked, returning as u64 + fresh);
        }
        for group in self.bus.groups(&TOPIC).await.expect("groups") {
            assert_eq!((group.in_flight, group.returning, group.backlog), (0, 0, 0));
            assert_eq!(group.floor.get(), self.model.events as u64, "everything is settled");
        }
        let outputs = self.bus.read(&OUTPUTS, Start::Beginning, 500).await;
        assert!(self.trims || outputs.expect("read").items.len() == self.committed, "each commit has one output");
    }
}

fn check(steps: Vec<Step>, trims: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let mut run = Run::new(trims).await;
        for step in steps {
            run.step(step).await;
        }
        run.drain().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: counts(300, 20_000), ..ProptestConfig::default() })]

    #[test]
    fn a_random_history_gets_the_answers_of_the_model(steps in proptest::collection::vec(step(), 1..120)) {
        check(steps, false);
    }

    #[test]
    fn trimming_changes_no_answer_but_that_old_settles_are_forgotten(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        check(steps, true);
    }
}
