//! The server forgets, or somebody has his hands in the keys: nobody hangs, and the fleet goes on.

use s2_coordinator::{Completion, Error, Scheduler, SchedulerExt};
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
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
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
    let done = scheduler.submit_one(&task().with_priority(s2_coordinator::Priority::P0)).await.expect("submitted").id;
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
