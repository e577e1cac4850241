//! Sessions that wait for each other: one goes on, and hears why.

use std::collections::BTreeMap;
use std::env;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use s2_coordinator::{Blocker, RedisStore, SwarmId, TaskId, TaskState};
use s2_core::{Context, S2};
use s2_tests::servers::RedisServer;
use s2_tests::workers::{Worker, is_worker};

use crate::{GRACE, LONG, On, on_both, until, within, work};

on_both! {
    deadlock_resolved_by_preemption
}

/// Each task waits for the next one of its ring.
async fn waits_for_the_next(cx: Context, ring: &[TaskId]) -> Result<(TaskId, usize, usize), s2_core::TaskError> {
    let nth = ring.iter().position(|id| *id == cx.task().id).expect("one of the ring");
    let next = ring[(nth + 1) % ring.len()];
    let rescued = cx.blocked(Blocker::new("needs what the next one makes").with_wait(next)).await?;
    let cycle = rescued.preempted.map_or(0, |preempted| preempted.cycle.len());
    Ok((cx.task().id, rescued.answers.len(), cycle))
}

async fn deadlock_resolved_by_preemption(on: On) {
    let fleet = on.fleet().await;
    let ring: Arc<Mutex<Vec<TaskId>>> = Arc::default();
    let ids: Vec<TaskId> = {
        // Nobody is there yet: the ring is known before it closes.
        let submitted = fleet.s2.scheduler().submit(&vec![work(); 3]).await.expect("submitted");
        submitted.iter().map(|submitted| submitted.id).collect()
    };
    ring.lock().expect("not poisoned").clone_from(&ids);
    for session in ["one", "two", "three"] {
        let ring = Arc::clone(&ring);
        let session = fleet.s2.session(session).run(move |cx: Context| {
            let ring = ring.lock().expect("not poisoned").clone();
            async move { waits_for_the_next(cx, &ring).await }
        });
        session.await.expect("a session");
    }
    let mut preempted = BTreeMap::new();
    for id in ids {
        let (task, answers, cycle) = fleet.done::<(TaskId, usize, usize)>(id).await;
        assert_eq!((task, fleet.failures(id).await), (id, 0));
        assert!((answers, cycle) == (1, 0) || (answers, cycle) == (0, 3), "{answers} answers, a ring of {cycle}");
        preempted.insert(id, cycle > 0);
    }
    assert_eq!(preempted.values().filter(|preempted| **preempted).count(), 1, "{preempted:?}");
    fleet.s2.shutdown(GRACE).await;
}

const FLEET: SwarmId = SwarmId::from_static("fleet");

async fn process(url: &str) -> S2 {
    let mut config = s2_coordinator::Config::default();
    config.ack_timeout = Duration::from_secs(1);
    config.lease = Duration::from_secs(2);
    config.resume_window = Duration::from_secs(1);
    let store = RedisStore::builder(FLEET).with_config(config).connect(url).await.expect("a fleet");
    S2::builder().on_redis(&store).await.expect("a fleet")
}

/// A worker's main: a session that waits for the next task of the ring.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a worker of the tests in this file"]
async fn waiter() {
    if !is_worker() {
        return;
    }
    let s2 = process(&env::var("URL").expect("a URL")).await;
    let session = s2.session(env::var("SESSION").expect("a name")).run(async |cx: Context| {
        // The tasks of the ring have numbers in a row.
        let nth: u64 = cx.task().json()?;
        let ring = [0, 1, 2].map(|other| TaskId::new(cx.task().id.get() - nth + other));
        waits_for_the_next(cx, &ring).await
    });
    session.await.expect("a session");
    println!("there");
    std::future::pending::<()>().await;
}

/// Three processes wait for each other, one of them dies: what it had is taken up by the others, and everything ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_over_several_processes_is_resolved_though_one_dies() {
    let server = RedisServer::start_volatile();
    let s2 = process(&server.url()).await;
    let spawn = |nth: usize| {
        let mut worker =
            Worker::spawn("deadlock::waiter", &[("URL", server.url()), ("SESSION", format!("session-{nth}"))]);
        assert_eq!(worker.line(LONG).as_deref(), Some("there"));
        worker
    };
    let (mut first, _second) = (spawn(1), spawn(2));
    // Each has one, and the third one is not there yet.
    let tasks = [0, 1, 2].map(|nth| {
        let session = SwarmId::new(format!("session-{}", nth + 1)).expect("a name");
        work().with_json(&nth).expect("JSON").with_assignee(session)
    });
    let ids: Vec<TaskId> = s2.scheduler().submit(&tasks).await.expect("submitted").iter().map(|task| task.id).collect();
    assert_eq!(ids[2].get() - ids[0].get(), 2, "the ring is known by its first");
    for id in &ids[..2] {
        until(async || s2.scheduler().task(*id).await.expect("a task").state == TaskState::Blocked).await;
    }
    first.kill();
    let _other = spawn(3);
    for id in ids {
        let outcome = within(s2.scheduler().wait(id)).await.expect("an outcome");
        assert!(outcome.result().is_some(), "{id}: {outcome:?}");
        assert_eq!(s2.scheduler().task(id).await.expect("a task").state, TaskState::Done);
    }
}
