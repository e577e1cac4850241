//! Crowds: what follows is done in bounded steps that survive a crash, and nothing stays behind.

use std::time::Duration;

use s2_coordinator::conformance::Fleet;
use s2_coordinator::{
    Blocker, Capabilities, Completion, Config, Leases, NewTask, OnFailure, Profile, Scheduler, SchedulerExt, SwarmId,
    TaskState,
};
use s2_tests::counts;
use s2_tests::redis::RedisFleet;
use s2_tests::servers::RedisServer;

use crate::{HOST, LONG, WORK, session, store, task};

/// No step releases more than this.
const STEP: u64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_dependants_is_released_in_bounded_steps_that_survive_a_crash() {
    let (server, crowd) = (RedisServer::start(), u64::from(counts(10_000, 100_000)));
    let scheduler = store(&server.url()).await.scheduler();
    let first = scheduler.submit_one(&task()).await.expect("submitted").id;
    for _ in 0..crowd / 500 {
        let dependants = vec![task().after(first); 500];
        scheduler.submit(&dependants).await.expect("submitted");
    }
    let worker = session(&scheduler, "worker").await;
    let held = worker.claim().await.expect("no error").expect("open");
    let (before, steps) = (server.command(&["CONFIG", "RESETSTAT"]), || {
        let stats = server.command(&["INFO", "commandstats"]);
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_fcall:calls=").map(str::to_owned));
        calls.and_then(|line| line.split(',').next()?.parse::<u64>().ok()).unwrap_or(0)
    });
    assert_eq!(before, "OK");
    held.complete(Completion::new()).await.expect("completed");
    let released = async || {
        let stats = scheduler.stats().await.expect("stats");
        assert_eq!(stats.count(TaskState::Waiting) + stats.count(TaskState::Ready), crowd);
        stats.count(TaskState::Ready)
    };
    let ready = released().await;
    assert!(ready <= steps() * STEP, "{ready} in {} steps", steps());
    server.kill();
    server.restart();
    let all = async {
        while released().await < crowd {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(2 * LONG, all).await.expect("all of them are released");
    worker.leave().await.expect("left");
}

#[tokio::test]
async fn what_a_session_asked_for_is_remembered_in_as_many_places_as_are_needed() {
    let server = RedisServer::start_volatile();
    let scheduler = store(&server.url()).await.scheduler();
    let one = session(&scheduler, "one").await;
    scheduler.submit(&vec![task(); 500]).await.expect("submitted");
    let first = one.claim().await.expect("no error").expect("open");
    for _ in 1..400 {
        let held = one.claim().await.expect("no error").expect("open");
        held.complete(Completion::new()).await.expect("completed");
    }
    let keys = server.command(&["KEYS", "*:tasks"]);
    let fields = server.command(&["HKEYS", keys.trim()]);
    let places = fields.lines().filter(|field| field.starts_with("request:")).count();
    assert_eq!(places, 65, "the latest and the first");
    first.complete(Completion::new()).await.expect("completed");
    one.leave().await.expect("left");
}

/// When everything is done and forgotten, the fleet holds what an empty one holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_behind() {
    let server = RedisServer::start_volatile();
    let mut config = Config::default();
    config.finished.age = Some(Duration::from_secs(60));
    let fleet = RedisFleet::new(&server, config).await;
    let scheduler = fleet.store.scheduler();
    let keys = || {
        let mut keys: Vec<String> = server
            .command(&["KEYS", &format!("s2:{{{}}}:*", fleet.name)])
            .lines()
            .map(|key| key.split_once("}:").expect("a prefix").1.to_owned())
            .filter(|key| !key.starts_with("q:"))
            .collect();
        keys.sort_unstable();
        keys
    };
    let round = async |nth: usize| {
        let offers = Capabilities::new(["a", "b"]).expect("capabilities");
        let profile = Profile::new(SwarmId::new(format!("worker-{nth}")).expect("a name")).with_capabilities(offers);
        let (one, other) = (scheduler.join(&profile).await, session(&scheduler, "other").await);
        let one = one.expect("a session");
        // Edges, own queues, classes, keys, deadlines, delays.
        let key = |name: &str| format!("{name}-{nth}").parse().expect("a key");
        let root = task().with_key(key("root"));
        let mut tasks = vec![root];
        for on_failure in [OnFailure::Fail, OnFailure::Run, OnFailure::Hold] {
            let root: s2_coordinator::IdempotencyKey = key("root");
            tasks.push(task().after(s2_coordinator::Dependency::on(root).with_on_failure(on_failure)));
        }
        for nth in 0..20 {
            let requires: &[&str] = [&[][..], &["a"], &["b"]][nth % 3];
            let new = NewTask::new(WORK, HOST).with_requires(Capabilities::new(requires).expect("capabilities"));
            tasks.push(match nth % 5 {
                0 => new.with_assignee(one.incarnation().session.clone()),
                1 => new.with_deadline(Duration::from_secs(3_600)),
                2 => new.with_start(Duration::from_secs(5)),
                3 => new.with_attempts(1),
                _ => new,
            });
        }
        scheduler.submit(&tasks).await.expect("submitted");
        fleet.advance(Duration::from_secs(6)).await;
        let mut nth = 0;
        while let Some(held) = one.try_claim().await.expect("no error") {
            nth += 1;
            let ended = match nth {
                1 => held.fail("flaky").await.map(drop),
                2 => held.refuse("not now", Some(Duration::from_secs(1))).await.map(drop),
                3 => held.block(Blocker::new("stuck").with_help(task())).await.map(drop),
                4 => held.release().await.map(drop),
                5 => held.give_up("no use").await.map(drop),
                _ => held.complete(Completion::new().with_data("done")).await.map(drop),
            };
            ended.expect("ended");
            fleet.advance(Duration::from_secs(2)).await;
        }
        let waiting = tokio::spawn(async move { other.claim().await.map(|held| held.is_none()) });
        tokio::time::sleep(Duration::from_millis(50)).await;
        for status in scheduler.list(&s2_coordinator::Tasks::all()).await.expect("tasks").items {
            scheduler.cancel(status.task.id, "enough".into()).await.expect("cancelled");
        }
        for info in scheduler.sessions(None, 500).await.expect("sessions") {
            assert!(scheduler.leave(&info.incarnation).await.expect("left"));
        }
        assert!(waiting.await.expect("no panic").expect("no error"), "the session has left");
        fleet.advance(Duration::from_secs(3_700)).await;
        assert_eq!(scheduler.stats().await.expect("stats").tasks.iter().sum::<u64>(), 0);
    };
    round(0).await;
    let (left, bytes) = (keys(), server.command(&["HLEN", &format!("s2:{{{}}}:tasks", fleet.name)]));
    let expected = ["due", "journal", "meta", "tasks"];
    assert!(left.iter().all(|key| expected.contains(&&**key) || key.starts_with("p:")), "{left:?}");
    for nth in 1..4 {
        round(nth).await;
    }
    assert_eq!((keys(), server.command(&["HLEN", &format!("s2:{{{}}}:tasks", fleet.name)])), (left, bytes.clone()));
    assert_eq!(bytes, "1", "only the numbers of the scheduler");
    drop(scheduler.end(Vec::new(), None).await.expect("nothing to end"));
}
