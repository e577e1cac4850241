//! The bus in memory against a model that anybody can check by eye: random histories, the same answers.
//!
//! The model keeps one record for each event and group and looks through all of them for every answer; the bus keeps
//! indices. Whatever an index gets wrong, some history shows. The second property trims history all the time: nothing
//! that is not settled may be missed.

mod model;

use std::time::Duration;

use proptest::prelude::*;
use s2_coordinator::{
    Config, DeadLetterId, DeadLetters, Delivery, Error, EventBus, EventType, GroupName, MemoryBus, NewEvent, Retention,
    Settle, Settled, Settlement, Start, Subscribe, Subscription, SwarmId, Topic,
};
use s2_tests::{MemoryFleet, counts};

use crate::model::{ACK_TIMEOUT, Answer, DELIVERIES, End, Model, Said, State, Token};

const TOPIC: Topic = Topic::from_static("model");
const OUTPUTS: Topic = Topic::from_static("outputs");
const GROUPS: [GroupName; 2] = [GroupName::from_static("one"), GroupName::from_static("two")];

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

/// A delivery that was handed out, settled or not.
struct Held {
    token: Token,
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
            self.held.push(Held { token: Token { group, event, delivery, delay: 0 }, real });
        }
    }

    async fn settle(&mut self, held: usize, said: Said, delay: u64) {
        let Some(nth) = pick(&self.held, held) else { return };
        self.held[nth].token.delay = delay;
        let held = &self.held[nth];
        let settlement = match said {
            Said::Done => Settlement::Ack,
            Said::Committed(output) => Settlement::Commit(vec![event(OUTPUTS, output)]),
            Said::Failed(End::GivenBack) => Settlement::Nack { delay: Some(Duration::from_secs(delay)), reason: None },
            Said::Failed(_) => Settlement::DeadLetter { reason: "no".into() },
        };
        let real = self.bus.settle(&held.real.receipt, settlement).await;
        let record = &self.model.records[held.token.group][held.token.event];
        let (was_committed, settled_at) = (matches!(record.state, State::Committed { .. }), record.settled_at);
        let expected = self.model.settle(&held.token, said);
        self.committed += usize::from(expected == Answer::Committed && !was_committed);
        match answer(real) {
            Some(shown) => assert_eq!(shown, expected, "{said:?} of event {}", held.token.event),
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
        let settled_at = self.model.records[held.token.group][held.token.event].settled_at;
        let expected = self.model.extend(&held.token, by);
        let shown = match real {
            Ok(_) => Some(Answer::Extended),
            Err(error) => answer(Err(error)),
        };
        match shown {
            Some(shown) => assert_eq!(shown, expected, "extending event {}", held.token.event),
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
