//! Real time: what is due happens although nobody calls, and who waits costs next to nothing.

use std::time::{Duration, Instant};

use s2_coordinator::{Completion, Leases, Scheduler, SchedulerExt, TaskState};
use s2_tests::servers::RedisServer;

use crate::{LONG, session, store, task};

/// Generous: machines are shared.
const LATE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_starts_later_is_never_early_and_soon_after() {
    let server = RedisServer::start_volatile();
    let (host, worker) = (store(&server.url()).await.scheduler(), store(&server.url()).await.scheduler());
    let session = session(&worker, "worker").await;
    let mut latest = Duration::ZERO;
    for delay in [1, 50, 300, 700].map(Duration::from_millis) {
        let claiming = tokio::spawn({
            let session = session.clone();
            async move { (session.claim().await, Instant::now()) }
        });
        let begun = Instant::now();
        host.submit_one(&task().with_start(delay)).await.expect("submitted");
        let (held, at) = tokio::time::timeout(LONG, claiming).await.expect("in time").expect("no panic");
        let took = at.duration_since(begun);
        assert!(took >= delay, "{took:?} for {delay:?}");
        latest = latest.max(took - delay);
        held.expect("no error").expect("open").complete(Completion::new()).await.expect("completed");
    }
    println!("at most {latest:.1?} late");
    assert!(latest < LATE, "{latest:?} late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_ends_reaches_who_waits() {
    let server = RedisServer::start_volatile();
    let scheduler = store(&server.url()).await.scheduler();
    let (one, other) = (session(&scheduler, "one").await, session(&scheduler, "other").await);
    let lease = Duration::from_millis(500);
    scheduler.submit_one(&task().with_lease(lease)).await.expect("submitted");
    let grant = one.claim().await.expect("no error").expect("open").into_grant();
    let begun = Instant::now();
    let held = tokio::time::timeout(LONG, other.claim()).await.expect("in time").expect("no error").expect("open");
    assert_eq!((held.task.id, held.attempt), (grant.task.id, 2));
    assert!(begun.elapsed() < lease + LATE, "{:?}", begun.elapsed());
    assert_eq!(scheduler.task(grant.task.id).await.expect("a task").state, TaskState::Claimed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_sessions_cost_next_to_nothing() {
    let server = RedisServer::start_volatile();
    let (host, workers) = (store(&server.url()).await.scheduler(), store(&server.url()).await.scheduler());
    let mut waiting = tokio::task::JoinSet::new();
    for nth in 0..1_000 {
        let session = session(&workers, &format!("worker-{nth}")).await;
        waiting.spawn(async move { session.claim().await.map(|held| held.map(|held| held.into_grant().task.id)) });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let commands = || server.info("total_commands_processed").parse::<u64>().expect("a number");
    let (before, begun) = (commands(), Instant::now());
    tokio::time::sleep(Duration::from_secs(10)).await;
    // Two processes look after their fleets, and this test counts.
    let rate = (commands() - before) as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.1} commands/s");
    assert!(rate <= 3.0, "{rate} commands/s");
    let connections = server.info("connected_clients").parse::<u64>().expect("a number");
    assert!(connections <= 8, "{connections} connections");

    // Each task reaches one of them.
    let submitted = host.submit(&vec![task(); 100]).await.expect("submitted");
    let mut claimed = Vec::new();
    while claimed.len() < submitted.len() {
        let next = tokio::time::timeout(LONG, waiting.join_next()).await.expect("in time").expect("one of them");
        claimed.push(next.expect("no panic").expect("no error").expect("open"));
    }
    claimed.sort_unstable();
    assert_eq!(claimed, submitted.iter().map(|task| task.id).collect::<Vec<_>>());
    waiting.abort_all();
}

/// A wait that is given up and taken up again under its number is one wait.
#[tokio::test]
async fn a_claim_that_is_asked_again_under_its_number_goes_on() {
    let server = RedisServer::start_volatile();
    let scheduler = store(&server.url()).await.scheduler();
    let session = session(&scheduler, "worker").await;
    let claim = session.request(1);
    for _ in 0..20 {
        let asked = tokio::time::timeout(Duration::from_millis(5), scheduler.claim(&claim)).await;
        assert!(asked.is_err(), "there is nothing");
    }
    let waiting = tokio::spawn({
        let (scheduler, claim) = (scheduler.clone(), claim.clone());
        async move { scheduler.claim(&claim).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    scheduler.submit_one(&task()).await.expect("submitted");
    let granted = tokio::time::timeout(LONG, waiting).await.expect("in time").expect("no panic").expect("no error");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let renewed = scheduler.renew(&[granted[0].lease]).await.expect("no error").remove(0);
    assert!(renewed.is_ok(), "nobody has taken it back: {renewed:?}");
}

/// A process sees to what is left over, also where nobody calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_for_a_crowd_is_done_though_nobody_calls() {
    let server = RedisServer::start_volatile();
    let scheduler = store(&server.url()).await.scheduler();
    let first = scheduler.submit_one(&task()).await.expect("submitted").id;
    let mut last = first;
    for _ in 0..6 {
        let submitted = scheduler.submit(&vec![task().after(first); 500]).await.expect("submitted");
        last = submitted.last().expect("some").id;
    }
    scheduler.cancel(first, "not needed".into()).await.expect("cancelled");
    let begun = Instant::now();
    let outcome = tokio::time::timeout(LONG, scheduler.wait(last)).await.expect("in time").expect("an outcome");
    assert!(outcome.result().is_none());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// All who are idle steal, not only the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_are_idle_steal() {
    let server = RedisServer::start_volatile();
    let scheduler = store(&server.url()).await.scheduler();
    let mut waiting = tokio::task::JoinSet::new();
    for nth in 0..12 {
        let session = session(&scheduler, &format!("thief-{nth}")).await;
        waiting.spawn(async move { session.claim().await.map(|held| held.map(|held| held.into_grant().task.id)) });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let victim = s2_coordinator::SwarmId::from_static("victim");
    scheduler.submit(&vec![task().with_assignee(victim); 20]).await.expect("submitted");
    let mut stolen = Vec::new();
    for _ in 0..12 {
        let next = tokio::time::timeout(LONG, waiting.join_next()).await.expect("in time").expect("one of them");
        stolen.push(next.expect("no panic").expect("no error").expect("open"));
    }
    stolen.sort_unstable();
    stolen.dedup();
    assert_eq!(stolen.len(), 12);
}

/// One waits for long while others of its kind come and go; it has its turn all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_longest_is_first_whoever_comes_and_goes() {
    let server = RedisServer::start_volatile();
    let scheduler = store(&server.url()).await.scheduler();
    let (patient, hasty) = (session(&scheduler, "patient").await, session(&scheduler, "hasty").await);
    let waiting = tokio::spawn(async move { patient.claim().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..150 {
        assert!(tokio::time::timeout(Duration::from_millis(2), hasty.claim()).await.is_err(), "there is nothing");
    }
    let last = tokio::spawn(async move { hasty.claim().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    for waiting in [waiting, last] {
        let submitted = scheduler.submit_one(&task()).await.expect("submitted");
        let held = tokio::time::timeout(LONG, waiting).await.expect("in time").expect("no panic");
        assert_eq!(held.expect("no error").expect("open").into_grant().task.id, submitted.id);
    }
}
