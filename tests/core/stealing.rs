//! Work stolen during overload: who has nothing takes over from whoever has too much.

use std::collections::BTreeMap;
use std::env;
use std::sync::Arc;

use s2_coordinator::{Journal, Position, RedisStore, SchedulerExt, SwarmId, TaskKind};
use s2_core::{Context, S2};
use s2_tests::servers::RedisServer;
use s2_tests::workers::{Worker, is_worker};
use tokio::sync::Semaphore;

use crate::{Fleet, GRACE, LONG, On, name, on_both, within, work};

on_both! {
    work_stolen_during_overload
}

/// How many tasks one session took over from another, as the journal says.
async fn stolen(journal: &dyn Journal) -> usize {
    let (mut stolen, mut after) = (0, Position::ORIGIN);
    loop {
        let page = journal.entries(after, 500).await.expect("entries");
        if page.items.is_empty() {
            return stolen;
        }
        stolen += page.items.iter().filter(|entry| &*entry.operation == "stolen").count();
        after = page.next;
    }
}

async fn work_stolen_during_overload(on: On) {
    let fleet: Fleet = on.fleet().await;
    let gate = Arc::new(Semaphore::new(0));
    let opens = Arc::clone(&gate);
    let busy = fleet.s2.session("busy").run(move |cx: Context| {
        let opens = Arc::clone(&opens);
        async move {
            drop(opens.acquire().await?);
            Ok(cx.session().clone())
        }
    });
    busy.await.expect("a session");
    let tasks = vec![work().with_assignee(name("busy")); 20];
    let ids = fleet.s2.scheduler().submit(&tasks).await.expect("submitted");
    let idle = fleet.s2.session("idle").run(async |cx: Context| Ok(cx.session().clone()));
    idle.await.expect("a session");
    // One is in hand, and five are left alone.
    let mut by: BTreeMap<SwarmId, usize> = BTreeMap::new();
    for submitted in &ids[6..] {
        *by.entry(fleet.done::<SwarmId>(submitted.id).await).or_default() += 1;
    }
    assert_eq!(by, BTreeMap::from([(name("idle"), 14)]));
    gate.add_permits(20);
    for submitted in &ids[..6] {
        assert_eq!(fleet.done::<SwarmId>(submitted.id).await, name("busy"));
    }
    assert_eq!(stolen(&**fleet.s2.journal()).await, 14);
    fleet.s2.shutdown(GRACE).await;
}

const FLEET: SwarmId = SwarmId::from_static("fleet");

/// A worker's main: a session that does what it gets, or nothing at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a worker of the tests in this file"]
async fn taker() {
    if !is_worker() {
        return;
    }
    let url = env::var("URL").expect("a URL");
    let s2 = S2::builder().on_redis(&RedisStore::connect(&url, FLEET).await.expect("a fleet")).await.expect("a fleet");
    let session = env::var("SESSION").expect("a name");
    let overloaded = session == "busy";
    let runs = s2.session(session).run(move |cx: Context| async move {
        if overloaded {
            std::future::pending::<()>().await;
        }
        Ok(cx.session().clone())
    });
    runs.await.expect("a session");
    println!("there");
    std::future::pending::<()>().await;
}

/// The overloaded one and those that are idle are processes of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_processes_take_over_from_an_overloaded_one() {
    let server = RedisServer::start_volatile();
    let store = RedisStore::connect(&server.url(), FLEET).await.expect("a fleet");
    let s2 = S2::builder().on_redis(&store).await.expect("a fleet");
    let spawn = |session: &str| {
        let args = [("URL", server.url()), ("SESSION", session.to_owned())];
        let mut worker = Worker::spawn("stealing::taker", &args);
        assert_eq!(worker.line(LONG).as_deref(), Some("there"));
        worker
    };
    let _busy = spawn("busy");
    let tasks =
        vec![s2_coordinator::NewTask::new(TaskKind::from_static("load"), name("host")).with_assignee(name("busy")); 30];
    let ids = s2.scheduler().submit(&tasks).await.expect("submitted");
    let _idle = [spawn("idle-1"), spawn("idle-2")];
    for submitted in &ids[6..] {
        let outcome = within(s2.scheduler().wait(submitted.id)).await.expect("an outcome");
        let by: SwarmId = outcome.result().expect("done").json().expect("a name");
        assert!(by.as_str().starts_with("idle"), "{by}");
    }
    let last = s2.scheduler().submit_one(&work()).await.expect("submitted").id;
    within(s2.scheduler().wait(last)).await.expect("an outcome");
    assert_eq!(s2.scheduler().stats().await.expect("stats").unfinished(), 6, "one in hand, five left alone");
    assert_eq!(stolen(&store.journal()).await, 24);
}
