//! Processes that race, stand still, and die; servers that restart.

use std::collections::HashSet;
use std::env;
use std::time::Duration;

use s2_coordinator::{
    Blocker, Completion, Config, Ending, Error, Leases, Loss, Profile, RedisStore, Retry, Scheduler, SchedulerExt,
    SwarmId,
};
use s2_tests::counts;
use s2_tests::servers::RedisServer;
use s2_tests::workers::{Worker, is_worker};

use crate::{FLEET, LONG, session, store, task};

const PROCESSES: usize = 4;
const SESSIONS: usize = 16;
const LEASE: Duration = Duration::from_secs(1);

/// A worker's main: claims and completes with many sessions, and says what each claimed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a worker of the tests in this file"]
async fn racer() {
    if !is_worker() {
        return;
    }
    let (url, name) = (env::var("URL").expect("a URL"), env::var("NAME").expect("a name"));
    let scheduler = store(&url).await.scheduler();
    let mut racing = Vec::new();
    for nth in 0..SESSIONS {
        let session = session(&scheduler, &format!("{name}-{nth}")).await;
        racing.push(tokio::spawn(async move {
            while let Some(mut held) = session.claim().await.expect("no error") {
                loop {
                    let (id, token, attempt) = (held.task.id, held.lease.token, held.attempt);
                    println!("claimed {id} {token} {attempt}");
                    if &held.task.data[..] == b"last" {
                        held.complete(Completion::new()).await.expect("completed");
                        return;
                    }
                    // Half of them claim the next one in the step that ends the last.
                    if nth % 2 == 0 {
                        held.complete(Completion::new()).await.expect("completed");
                        break;
                    }
                    match held.complete_and_claim(Completion::new()).await.expect("completed") {
                        (_, Some(next)) => held = next,
                        (_, None) => break,
                    }
                }
            }
        }));
    }
    for racer in racing {
        racer.await.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attempt_is_claimed_once_by_four_processes() {
    let (server, count) = (RedisServer::start_volatile(), counts(10_000, 100_000) as usize);
    let scheduler = store(&server.url()).await.scheduler();
    let spawn =
        |nth: usize| Worker::spawn("processes::racer", &[("URL", server.url()), ("NAME", format!("racer-{nth}"))]);
    let mut workers: Vec<Worker> = (0..PROCESSES).map(spawn).collect();
    let mut submitted = HashSet::new();
    for _ in 0..count / 500 {
        let batch = scheduler.submit(&vec![task(); 500]).await.expect("submitted");
        submitted.extend(batch.into_iter().map(|task| task.id.get()));
    }
    // One for each session, after all others, ends it.
    for _ in 0..PROCESSES * SESSIONS {
        let last = task().with_data("last").with_priority(s2_coordinator::Priority::P3);
        submitted.insert(scheduler.submit_one(&last).await.expect("submitted").id.get());
    }
    let (mut claimed, mut tokens) = (HashSet::new(), HashSet::new());
    for worker in &mut workers {
        while let Some(line) = worker.line(LONG) {
            let Some(said) = line.strip_prefix("claimed ") else { panic!("{line}") };
            let [id, token, attempt] =
                said.split(' ').map(|number| number.parse::<u64>().expect("a number")).collect::<Vec<_>>()[..]
            else {
                panic!("{line}")
            };
            assert!(claimed.insert(id), "task {id} was claimed twice");
            assert!(tokens.insert(token), "two claims have token {token}");
            assert_eq!(attempt, 1);
        }
        assert!(worker.wait(LONG), "a worker has not ended well");
    }
    assert_eq!(claimed, submitted);
}

/// A worker's main: has a task, stands still, and goes on as if nothing had happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a worker of the tests in this file"]
async fn zombie() {
    if !is_worker() {
        return;
    }
    let scheduler = store(&env::var("URL").expect("a URL")).await.scheduler();
    let session = session(&scheduler, "zombie").await;
    let held = session.claim().await.expect("no error").expect("open");
    let lease = held.lease;
    println!("held {} {}", lease.task, lease.token);
    println!("lost {:?}", held.lost().await.expect("no error") == Loss::Expired);
    for ending in [
        Ending::Complete(Completion::new().with_data("too late").with_task(task())),
        Ending::Fail { reason: "too late".into(), retry: Retry::Never },
        Ending::Release,
        Ending::Refuse { reason: "too late".into(), delay: None },
        Ending::Block(Blocker::new("too late").with_help(task())),
    ] {
        let ended = scheduler.end(vec![(lease, ending)], None).await.expect("no error").ended.remove(0);
        println!("stale {}", matches!(ended, Err(Error::StaleLease { held, .. }) if held == lease.token));
    }
    let renewed = scheduler.renew(&[lease]).await.expect("no error").remove(0);
    println!("stale {}", matches!(renewed, Err(Error::StaleLease { .. })));
    scheduler.abandon(&lease);
    let ended = held.complete(Completion::new()).await;
    println!("stale {}", matches!(ended.map_err(|it| *it.error), Err(Error::StaleLease { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_changes_nothing() {
    let server = RedisServer::start_volatile();
    let scheduler = store(&server.url()).await.scheduler();
    let submitted = scheduler.submit_one(&task().with_lease(LEASE).with_data("work")).await.expect("submitted");
    let mut zombie = Worker::spawn("processes::zombie", &[("URL", server.url())]);
    let line = zombie.line(LONG).expect("it has the task");
    let Some((id, token)) = line.strip_prefix("held ").and_then(|said| said.split_once(' ')) else { panic!("{line}") };
    assert_eq!(id, submitted.id.to_string());
    zombie.stop();

    let successor = session(&scheduler, "successor").await;
    let held = tokio::time::timeout(LONG, successor.claim()).await.expect("it comes").expect("no error").expect("open");
    assert_eq!((held.task.id, held.attempt), (submitted.id, 2));
    assert!(held.lease.token.get() > token.parse().expect("a number"));
    zombie.resume();
    assert_eq!(zombie.line(LONG).as_deref(), Some("lost true"));
    for _ in 0..7 {
        assert_eq!(zombie.line(LONG).as_deref(), Some("stale true"));
    }
    assert!(zombie.wait(LONG));
    // Its successor does not notice.
    held.complete(Completion::new().with_data("in time")).await.expect("completed");
    let outcome = scheduler.wait(submitted.id).await.expect("an outcome");
    assert_eq!(&outcome.result().expect("done").data[..], b"in time");
    assert_eq!(scheduler.stats().await.expect("stats").tasks.iter().sum::<u64>(), 1, "nothing followed from it");
}

/// Tokens rise over restarts of the server, also where it has lost everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_rise_over_restarts_of_server_and_fleet() {
    let server = RedisServer::start();
    let store = store(&server.url()).await;
    let mut last = 0;
    for round in 0..6 {
        let scheduler = store.scheduler();
        scheduler.submit(&vec![task(); 20]).await.expect("submitted");
        let session = session(&scheduler, "worker").await;
        for held in session.claim_batch(20).await.expect("claimed") {
            assert!(held.lease.token.get() > last, "round {round}: {} after {last}", held.lease.token);
            last = held.lease.token.get();
            held.complete(Completion::new()).await.expect("completed");
        }
        session.leave().await.expect("left");
        match round % 3 {
            0 => {
                server.kill();
                server.restart();
            }
            1 => assert_eq!(server.command(&["FLUSHALL"]), "OK"),
            _ => assert_eq!(server.command(&["FUNCTION", "FLUSH"]), "OK"),
        }
    }
}

/// A worker's main: has some tasks until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a worker of the tests in this file"]
async fn victim() {
    if !is_worker() {
        return;
    }
    let scheduler = store(&env::var("URL").expect("a URL")).await.scheduler();
    let session = session(&scheduler, "victim").await;
    let held = session.claim_batch(10).await.expect("no error");
    // One of them waits for help: it is its session that keeps it.
    let mut held = held.into_iter();
    let blocked = held.next().expect("a task").block(Blocker::new("stuck").with_help(task())).await.expect("blocked");
    let rest: Vec<_> = held.collect();
    println!("held {}", rest.len());
    tokio::time::sleep(LONG).await;
    drop((blocked, rest));
}

/// What a process had that was killed is done by others, within a lease and a second; what it had blocked goes to them, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_had_is_done_by_others() {
    let server = RedisServer::start_volatile();
    let mut config = Config::default();
    config.ack_timeout = Duration::from_secs(1);
    let others = RedisStore::builder(FLEET).with_config(config).connect(&server.url()).await.expect("a fleet");
    let scheduler = others.scheduler();
    scheduler.submit(&vec![task().with_lease(LEASE).with_attempts(2); 10]).await.expect("submitted");
    let mut victim = Worker::spawn("processes::victim", &[("URL", server.url())]);
    assert_eq!(victim.line(LONG).as_deref(), Some("held 9"));
    victim.kill();
    let killed = std::time::Instant::now();
    let session = scheduler.join(&Profile::new(SwarmId::from_static("heir"))).await.expect("a session");
    // The help, and what the victim held.
    for nth in 0..10 {
        let held = tokio::time::timeout(LONG, session.claim()).await.expect("it comes").expect("no error");
        held.expect("open").complete(Completion::new()).await.expect("completed");
        println!("{nth} after {:?}", killed.elapsed());
    }
    // Generous: machines are shared.
    assert!(killed.elapsed() < LEASE + Duration::from_secs(9), "{:?}", killed.elapsed());
    // Its session counts as gone after six seconds without a sign of life, or thirty as its own settings say; or the time to
    // resume is over.
    let held = tokio::time::timeout(2 * LONG, session.claim()).await.expect("it comes").expect("no error");
    held.expect("open").complete(Completion::new()).await.expect("completed");
    let stats = scheduler.stats().await.expect("stats");
    assert_eq!((stats.unfinished(), stats.count(s2_coordinator::TaskState::Done)), (0, 11));
}
