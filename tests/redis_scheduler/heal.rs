//! The server forgets, or somebody has his hands in the keys: nobody hangs, and the fleet goes on.

use std::time::Duration;

use s2_coordinator::conformance::Fleet;
use s2_coordinator::{
    Completion, Config, Dependency, Error, Lease, Leases, OnFailure, Priority, Scheduler, SchedulerExt, Script, Token,
    Why,
};
use s2_tests::redis::RedisFleet;
use s2_tests::servers::RedisServer;

use crate::{LONG, session, store, task};

const PREFIX: &str = "s2:{fleet}:";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_hears_that_the_fleet_has_forgotten_it() {
    let server = RedisServer::start_volatile();
    let scheduler = store(&server.url()).await.scheduler();
    for forget in [&["FLUSHALL"][..], &["DEL", "s2:{fleet}:tasks"], &["DEL", "s2:{fleet}:tasks", "s2:{fleet}:meta"]] {
        let worker = session(&scheduler, "worker").await;
        let submitted = scheduler.submit(&vec![task(); 20]).await.expect("submitted");
        let held = worker.claim().await.expect("no error").expect("open");
        assert_eq!(held.task.id, submitted[0].id);
        for task in &submitted[1..] {
            scheduler.cancel(task.id, "not needed".into()).await.expect("cancelled");
        }
        let (waits, watches, first) = (worker.clone(), scheduler.clone(), submitted[0].id);
        let claiming = tokio::spawn(async move { waits.claim().await });
        let waiting = tokio::spawn(async move { watches.wait(first).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(["OK", "1", "2"].contains(&&*server.command(forget)), "{forget:?}");

        let claimed = tokio::time::timeout(LONG, claiming).await.expect("it hears of it").expect("no panic");
        assert!(matches!(claimed, Err(Error::StaleSession { current: None, .. })), "{forget:?}: {claimed:?}");
        let waited = tokio::time::timeout(LONG, waiting).await.expect("it hears of it").expect("no panic");
        assert!(matches!(waited, Err(Error::UnknownTask { .. })), "{forget:?}: {waited:?}");
        let ended = held.complete(Completion::new()).await.map_err(|not_ended| *not_ended.error);
        assert!(matches!(ended, Err(Error::StaleLease { .. })), "{forget:?}: {ended:?}");

        // It enters anew, and there is nothing left of before.
        let worker = session(&scheduler, "worker").await;
        assert!(worker.try_claim().await.expect("no error").is_none());
        let again = scheduler.submit_one(&task()).await.expect("submitted");
        assert!(again.id > submitted[19].id);
        let held = worker.claim().await.expect("no error").expect("open");
        assert_eq!(held.task.id, again.id);
        held.complete(Completion::new()).await.expect("completed");
        worker.leave().await.expect("left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_belong_into_a_queue_is_passed_over() {
    let server = RedisServer::start_volatile();
    let scheduler = store(&server.url()).await.scheduler();
    let worker = session(&scheduler, "worker").await;
    let submitted = scheduler.submit_one(&task()).await.expect("submitted");
    let queue = server.command(&["KEYS", &format!("{PREFIX}ready:class:*")]);
    // A task that is not there, and one that is done.
    let done = scheduler.submit_one(&task().with_priority(Priority::P0)).await.expect("submitted").id;
    worker.claim().await.expect("no error").expect("open").complete(Completion::new()).await.expect("completed");
    for id in [7, done.get()] {
        let member = format!("{:010}{id:016}", u32::MAX);
        assert_eq!(server.command(&["ZADD", &queue, "1", &member]), "1");
    }
    // Only who has forgotten what is there looks.
    assert_eq!(server.command(&["FUNCTION", "FLUSH"]), "OK");
    let held = worker.claim().await.expect("no error").expect("open");
    assert_eq!(held.task.id, submitted.id);
    held.complete(Completion::new()).await.expect("completed");
    assert!(worker.try_claim().await.expect("no error").is_none());
}

/// A host's own step comes with a library of its own, which has a memory of its own.
static NOTHING: Script = Script::new("nothing", "local function verb() return { 'ok' } end");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_library_has_changed_is_seen() {
    let server = RedisServer::start_volatile();
    let fleet = RedisFleet::new(&server, Config::default()).await;
    let scheduler = fleet.store.scheduler();
    let worker = session(&scheduler, "worker").await;
    let one = scheduler.submit_one(&task().with_deadline(Duration::from_secs(10))).await.expect("submitted").id;
    let other = scheduler.submit_one(&task().with_priority(Priority::P0)).await.expect("submitted").id;
    let run = |on| Dependency::on(on).with_on_failure(OnFailure::Run);
    let last = scheduler.submit_one(&task().after(run(one)).after(run(other))).await.expect("submitted").id;
    assert!(matches!(scheduler.why(last).await.expect("a task"), Why::Waiting { count: 2, .. }));
    // The deadline passes in a step of the other library.
    fleet.advance(Duration::from_secs(11)).await;
    fleet.store.call(&NOTHING, &[], &[]).await.expect("nothing");
    let held = worker.claim().await.expect("no error").expect("open");
    assert_eq!(held.task.id, other);
    held.complete(Completion::new()).await.expect("completed");
    assert_eq!(worker.try_claim().await.expect("no error").expect("it waits for nothing any more").task.id, last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_queue_of_before_keeps_nobody_out() {
    let server = RedisServer::start_volatile();
    let scheduler = store(&server.url()).await.scheduler();
    let first = session(&scheduler, "worker").await;
    let own = || task().with_assignee(first.incarnation().session.clone());
    scheduler.submit(&[own(), own()]).await.expect("submitted");
    assert_eq!(server.command(&["DEL", "s2:{fleet}:tasks"]), "1");
    let again = session(&scheduler, "worker").await;
    assert!(again.try_claim().await.expect("no error").is_none());
    let submitted = scheduler.submit_one(&own()).await.expect("submitted");
    assert_eq!(again.try_claim().await.expect("no error").expect("its own").task.id, submitted.id);
}

/// What was never a token ends nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_is_no_claim() {
    let server = RedisServer::start_volatile();
    let scheduler = store(&server.url()).await.scheduler();
    let worker = session(&scheduler, "worker").await;
    scheduler.submit_one(&task()).await.expect("submitted");
    let held = worker.claim().await.expect("no error").expect("open");
    let none = Lease { task: held.task.id, token: Token::new(0) };
    scheduler.abandon(&none);
    tokio::task::yield_now().await;
    assert!(matches!(scheduler.resume(worker.incarnation(), &none).await, Err(Error::StaleLease { .. })));
    assert!(scheduler.renew(&[held.lease]).await.expect("no error")[0].is_ok());
}
