//! Rings over several processes, which die.

use std::env;
use std::time::{Duration, Instant};

use s2_coordinator::{
    Blocker, Completion, Config, Entry, Journal, Position, Profile, Random, RedisStore, Release, Scheduler,
    SchedulerExt, SwarmId, TaskId, TaskState, Tasks, Waiter, Way,
};
use s2_tests::counts;
use s2_tests::servers::RedisServer;
use s2_tests::workers::{Worker, is_worker};

use crate::{FLEET, LONG, block, claimed, task};

const LEASE: Duration = Duration::from_secs(2);

fn config() -> Config {
    let mut config = Config::default();
    // A process that is gone is noticed soon.
    config.ack_timeout = Duration::from_secs(1);
    config.lease = LEASE;
    config.resume_window = Duration::from_secs(1);
    config.attempts = 100;
    config
}

async fn store(url: &str, fleet: SwarmId) -> RedisStore {
    RedisStore::builder(fleet).with_config(config()).connect(url).await.expect("a fleet")
}

async fn operations(store: &RedisStore, component: &str) -> Vec<Entry> {
    let (mut found, mut after) = (Vec::new(), Position::ORIGIN);
    loop {
        let page = store.journal().entries(after, 500).await.expect("entries");
        if page.items.is_empty() {
            return found;
        }
        found.extend(page.items.into_iter().filter(|entry| &*entry.component == component));
        after = page.next;
    }
}

/// Two processes close the same ring at once, each with one edge: one of them is released, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_close_a_ring_at_once_release_one() {
    let server = RedisServer::start_volatile();
    let stores = [store(&server.url(), FLEET).await, store(&server.url(), FLEET).await];
    let schedulers = [stores[0].scheduler(), stores[1].scheduler()];
    let session = schedulers[0].join(&Profile::new(SwarmId::from_static("one"))).await.expect("a session");
    let rounds = counts(100, 500);
    for _ in 0..rounds {
        // A ring of four, of which two are missing; who waits for it is not disturbed.
        let granted = claimed(&schedulers[0], &session, 5).await;
        let ids: Vec<TaskId> = granted.iter().map(|grant| grant.task.id).collect();
        block(&schedulers[0], &granted[1], [ids[2]]).await;
        block(&schedulers[0], &granted[3], [ids[0]]).await;
        block(&schedulers[0], &granted[4], [ids[0]]).await;
        tokio::join!(block(&schedulers[0], &granted[0], [ids[1]]), block(&schedulers[1], &granted[2], [ids[3]]),);
        let mut states = Vec::new();
        for id in &ids {
            states.push(schedulers[1].task(*id).await.expect("a task").state);
        }
        let ready = states.iter().filter(|state| **state == TaskState::Ready).count();
        assert_eq!((ready, states[1]), (1, TaskState::Ready), "who has waited longest: {states:?}");
        for id in ids {
            schedulers[0].cancel(id, "enough".into()).await.expect("cancelled");
        }
    }
    let said = operations(&stores[0], "deadlock").await;
    assert_eq!(said.len(), 2 * rounds as usize, "detected and resolved, once each");
}

/// Says that it was asked, and then nothing.
#[derive(Debug)]
struct Hangs;

impl Release for Hangs {
    fn release(&self, _: &[&Waiter]) -> Option<Way> {
        println!("deciding");
        std::thread::sleep(10 * LONG);
        None
    }
}

/// A worker's main: closes a ring, and does not get round to opening it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a worker of the tests in this file"]
async fn undecided() {
    if !is_worker() {
        return;
    }
    let url = env::var("URL").expect("a URL");
    let store = RedisStore::builder(FLEET).with_config(config()).with_release(Hangs);
    let scheduler = store.connect(&url).await.expect("a fleet").scheduler();
    let session = scheduler.join(&Profile::new(SwarmId::from_static("undecided"))).await.expect("a session");
    let granted = scheduler.take(&session.request(2)).await.expect("claimed");
    block(&scheduler, &granted[0], [granted[1].task.id]).await;
    block(&scheduler, &granted[1], [granted[0].task.id]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_left_another_finishes() {
    let server = RedisServer::start_volatile();
    let others = store(&server.url(), FLEET).await;
    let scheduler = others.scheduler();
    let ids = scheduler.submit(&[task(), task()]).await.expect("submitted");
    let mut undecided = Worker::spawn("processes::undecided", &[("URL", server.url())]);
    assert_eq!(undecided.line(LONG).as_deref(), Some("deciding"));
    undecided.kill();
    let killed = Instant::now();
    // Nobody calls: a sign of life is enough.
    while server.command(&["ZCARD", "s2:{fleet}:rings"]) != "0" {
        assert!(killed.elapsed() < LONG, "nobody opens the ring");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("opened after {:?}", killed.elapsed());
    assert_eq!(scheduler.task(ids[0].id).await.expect("a task").state, TaskState::Ready);
    assert_eq!(operations(&others, "deadlock").await.len(), 2);
    // Its session is lost, and that is told, too.
    while !scheduler.sessions(None, 1).await.expect("sessions").is_empty() {
        assert!(killed.elapsed() < LONG, "nobody misses it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = operations(&others, "session").await;
    assert_eq!(told.iter().map(|entry| &*entry.operation).collect::<Vec<_>>(), ["entered", "lost"]);
}

/// A worker's main: sessions that each take a task, block it on the one that the task names, and go on once it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a worker of the tests in this file"]
async fn waiter() {
    if !is_worker() {
        return;
    }
    let (url, name) = (env::var("URL").expect("a URL"), env::var("NAME").expect("a name"));
    let fleet = SwarmId::new(env::var("FLEET").expect("a fleet")).expect("a name");
    let sessions: usize = env::var("SESSIONS").expect("a number").parse().expect("a number");
    let scheduler = store(&url, fleet).await.scheduler();
    for nth in 0..sessions {
        let scheduler = scheduler.clone();
        let name = SwarmId::new(format!("{name}/{nth}")).expect("a name");
        tokio::spawn(async move {
            let session = scheduler.join(&Profile::new(name)).await.expect("a session");
            while let Ok(Some(held)) = session.claim().await {
                if !held.answers.is_empty() {
                    drop(held.complete(Completion::new()).await);
                    continue;
                }
                let step: usize = held.task.json().expect("a number");
                let all = scheduler.list(&Tasks::all().with_limit(500)).await.expect("tasks").items;
                let place = all.iter().position(|status| status.task.id == held.task.id).expect("this one");
                let on = all[(place + step) % all.len()].task.id;
                let Ok(mut blocked) = held.block(Blocker::new("waits").with_wait(on)).await else { continue };
                // Its place is free meanwhile.
                tokio::spawn(async move {
                    if let Ok(held) = blocked.resume().await {
                        drop(held.complete(Completion::new()).await);
                    }
                });
            }
        });
    }
    std::future::pending::<()>().await;
}

/// Rings of many sessions over four processes, of which some are killed on the way: in the end everything is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_waits_for_ever_though_processes_die() {
    let server = RedisServer::start_volatile();
    let mut random = Random::from_seed(s2_tests::chaos::seed());
    let (rounds, at_once) = (counts(1, 10), 5);
    for round in 0..rounds {
        let fleets =
            (0..at_once).map(|nth| (round * at_once + nth, u64::try_from(random.bits() >> 64).expect("64 bits")));
        let all: Vec<_> = fleets.map(|(nth, bits)| tokio::spawn(ring(server.url(), nth, bits))).collect();
        for ring in all {
            ring.await.expect("everything is done");
        }
    }
}

async fn ring(url: String, nth: u32, bits: u64) {
    let name = format!("ring-{nth}");
    let fleet = SwarmId::new(&name).expect("a name");
    let store = store(&url, fleet).await;
    let scheduler = store.scheduler();
    // 2 to 100 sessions; each task waits for the one so many places after it, so that there are one or several rings.
    let size = 2 + (bits % 99) as usize;
    let step = (1 + (bits >> 8) as usize % 3).min(size - 1);
    let tasks = vec![task().with_json(&step).expect("JSON"); size];
    scheduler.submit(&tasks).await.expect("submitted");
    let args = |worker: usize| {
        let sessions = (size.div_ceil(4)).to_string();
        [("URL", url.clone()), ("FLEET", name.clone()), ("NAME", format!("worker-{worker}")), ("SESSIONS", sessions)]
    };
    let mut workers = Vec::new();
    for worker in 0..4 {
        let args = args(worker);
        workers.push(
            tokio::task::spawn_blocking(move || Worker::spawn("processes::waiter", &args)).await.expect("a worker"),
        );
    }
    // Some are killed while the ring closes, or when it has.
    tokio::time::sleep(Duration::from_millis(bits >> 16 & 0xff)).await;
    let killed = bits >> 24 & 3;
    for worker in workers.iter_mut().take(killed as usize) {
        worker.kill();
    }
    let since = Instant::now();
    // Lost sessions are noticed after six seconds, and their claims end after two.
    while scheduler.stats().await.expect("stats").unfinished() > 0 {
        if since.elapsed() > LONG {
            let graph = scheduler.wait_graph(&[]).await.expect("a graph");
            panic!("{name} of {size}, {killed} killed: {:?}\n{}", scheduler.stats().await, graph.to_dot());
        }
        // A lease and a second later there is no ring left; one that closes just now is not there any more when it is looked at
        // again.
        if since.elapsed() > LEASE + Duration::from_secs(1) {
            let stuck = scheduler.wait_graph(&[]).await.expect("a graph").stuck();
            if !stuck.is_empty() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let still = scheduler.wait_graph(&[]).await.expect("a graph").stuck();
                assert!(still.is_disjoint(&stuck), "{name}: {stuck:?} wait for each other");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{name}: {size} sessions, {killed} processes killed, done after {:?}", since.elapsed());
    let stats = scheduler.stats().await.expect("stats");
    assert_eq!(stats.count(TaskState::Done), size as u64);
    assert!(!operations(&store, "deadlock").await.is_empty(), "there was a ring");
}
