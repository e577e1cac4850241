//! Memory and Redis give the same answers to the same random history.
//!
//! Each step is done on a fleet in memory and on one on Redis, whose clocks move together. What is compared is everything
//! that a host can see but for what is random or given by the backend: ids of events, numbers of consumers and groups.

mod side;
mod step;

use std::sync::OnceLock;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{FailurePersistence, FileFailurePersistence};
use s2_coordinator::{Config, GroupName, IdempotencyKey, Retention, Topic};
use s2_tests::redis::RedisFleet;
use s2_tests::servers::RedisServer;
use s2_tests::{MemoryFleet, counts};
use tokio::task::JoinHandle;

use crate::side::{Queue, Side};
use crate::step::{Begin, How, Planned, Step, Which, step};

const TOPICS: [Topic; 2] = [Topic::from_static("inputs"), Topic::from_static("outputs")];
const GROUPS: [GroupName; 2] = [GroupName::from_static("one"), GroupName::from_static("two")];
const KEYS: [IdempotencyKey; 3] =
    [IdempotencyKey::from_static("a"), IdempotencyKey::from_static("b"), IdempotencyKey::from_static("c")];

/// What must come comes within this.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// What once failed is kept beside this file.
fn histories() -> ProptestConfig {
    let regressions = FileFailurePersistence::WithSource("proptest-regressions");
    let failure_persistence: Option<Box<dyn FailurePersistence>> = Some(Box::new(regressions));
    ProptestConfig {
        cases: counts(100, 3_000),
        max_shrink_iters: 400,
        failure_persistence,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(histories())]

    #[test]
    fn memory_and_redis_give_the_same_answers(steps in proptest::collection::vec(step(), 1..80)) {
        check(&steps, &Config::default());
    }

    #[test]
    fn trimming_by_age_changes_nothing_about_that(steps in proptest::collection::vec(step(), 1..80)) {
        check(&steps, &trimming());
    }
}
