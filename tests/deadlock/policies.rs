//! Who gives way.

use s2_coordinator::{
    AbortLatest, Cause, EscalationId, Inbox, MemoryStore, Outcome, Profile, RedisStore, Release, Scheduler,
    SchedulerExt, SwarmId, TaskState, Waiter, Way,
};
use s2_tests::servers::RedisServer;

use crate::{FLEET, block, claimed};

/// Nobody gives way: a person decides.
#[derive(Debug)]
struct Nobody;

impl Release for Nobody {
    fn release(&self, _: &[&Waiter]) -> Option<Way> {
        None
    }
}

/// Says what cannot be.
#[derive(Debug)]
struct Nonsense;

impl Release for Nonsense {
    fn release(&self, _: &[&Waiter]) -> Option<Way> {
        Some(Way::Proceed(s2_coordinator::TaskId::new(4)))
    }
}

async fn who_was_blocked_last_fails(scheduler: impl Scheduler + Clone) {
    let session = scheduler.join(&Profile::new(SwarmId::from_static("one"))).await.expect("a session");
    let granted = claimed(&scheduler, &session, 3).await;
    let ids: Vec<_> = granted.iter().map(|grant| grant.task.id).collect();
    let dependant = scheduler.submit_one(&crate::task().after(ids[2])).await.expect("submitted").id;
    for nth in 0..3 {
        block(&scheduler, &granted[nth], [ids[(nth + 1) % 3]]).await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let Some(Outcome::Failed { cause, .. }) = scheduler.outcome(ids[2]).await.expect("a task") else {
        panic!("failed")
    };
    assert_eq!(cause, Cause::Deadlock { cycle: vec![ids[2], ids[0], ids[1]] });
    let states = [ids[0], ids[1], dependant].map(|id| scheduler.task(id));
    let mut found = Vec::new();
    for state in states {
        found.push(state.await.expect("a task").state);
    }
    // Who waited for it hears that it failed, and goes on; who depended on it fails, too.
    assert_eq!(found, [TaskState::Blocked, TaskState::Ready, TaskState::Failed]);
}

async fn a_person_decides(scheduler: impl Scheduler + Clone, inbox: impl Inbox) {
    let session = scheduler.join(&Profile::new(SwarmId::from_static("one"))).await.expect("a session");
    let granted = claimed(&scheduler, &session, 2).await;
    let ids: Vec<_> = granted.iter().map(|grant| grant.task.id).collect();
    block(&scheduler, &granted[0], [ids[1]]).await;
    block(&scheduler, &granted[1], [ids[0]]).await;
    let asked = inbox.pending(EscalationId::default(), 10).await.expect("the inbox");
    assert_eq!(asked.iter().map(|it| it.key.to_string()).collect::<Vec<_>>(), [format!("deadlock:{}", ids[0])]);
    assert_eq!(asked[0].payload, format!("[{},{}]", ids[0], ids[1]));
    assert_eq!(scheduler.stats().await.expect("stats").count(TaskState::Blocked), 2);
    assert!(scheduler.unblock(ids[0]).await.expect("a task"));
    let resumed = scheduler.take(&session.request(1)).await.expect("claimed").remove(0);
    assert_eq!((resumed.task.id, resumed.preempted), (ids[0], None));
}

#[tokio::test]
async fn in_memory() {
    let store = || MemoryStore::builder();
    who_was_blocked_last_fails(store().with_release(AbortLatest).build().expect("a fleet").scheduler()).await;
    let nobody = store().with_release(Nobody).build().expect("a fleet");
    a_person_decides(nobody.scheduler(), nobody.inbox()).await;
    let nonsense = store().with_release(Nonsense).build().expect("a fleet");
    a_person_decides(nonsense.scheduler(), nonsense.inbox()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis() {
    let server = RedisServer::start_volatile();
    let store = |release| RedisStore::builder(release);
    let abort = store(FLEET).with_release(AbortLatest).connect(&server.url()).await.expect("a fleet");
    who_was_blocked_last_fails(abort.scheduler()).await;
    let nobody =
        store(SwarmId::from_static("nobody")).with_release(Nobody).connect(&server.url()).await.expect("a fleet");
    a_person_decides(nobody.scheduler(), nobody.inbox()).await;
    let nonsense = store(SwarmId::from_static("nonsense")).with_release(Nonsense);
    let nonsense = nonsense.connect(&server.url()).await.expect("a fleet");
    a_person_decides(nonsense.scheduler(), nonsense.inbox()).await;
}
