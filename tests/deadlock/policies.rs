//! Who gives way.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::task::Poll;
use std::time::Duration;

use s2_coordinator::{
    AbortLatest, Blocker, Cause, Ending, EscalationId, Inbox, Journal, Leases, LongestWaiter, MemoryStore, Outcome,
    Position, Profile, RedisStore, Release, Scheduler, SchedulerExt, SwarmId, TaskId, TaskState, Waiter, Way,
};
use s2_tests::proxy::Proxy;
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
        Some(Way::Proceed(TaskId::new(4)))
    }
}

async fn who_was_blocked_last_fails(scheduler: impl Scheduler + Clone) {
    let session = scheduler.join(&Profile::new(SwarmId::from_static("one"))).await.expect("a session");
    let granted = claimed(&scheduler, &session, 3).await;
    let ids: Vec<_> = granted.iter().map(|grant| grant.task.id).collect();
    let dependant = scheduler.submit_one(&crate::task().after(ids[2])).await.expect("submitted").id;
    for nth in 0..3 {
        block(&scheduler, &granted[nth], [ids[(nth + 1) % 3]]).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
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

/// Whoever fails may take the last way out from others.
async fn what_follows_from_a_failure_is_looked_at_too(scheduler: impl Scheduler + Clone) {
    let session = scheduler.join(&Profile::new(SwarmId::from_static("one"))).await.expect("a session");
    let granted = claimed(&scheduler, &session, 4).await;
    let ids: Vec<_> = granted.iter().map(|grant| grant.task.id).collect();
    let mut either = Blocker::new("it waits").with_any();
    either.on = vec![ids[1], ids[3]];
    let ended = scheduler.end(vec![(granted[2].lease, Ending::Block(either))], None).await.expect("no error").ended;
    assert!(ended[0].is_ok());
    block(&scheduler, &granted[3], [ids[2]]).await;
    block(&scheduler, &granted[0], [ids[1]]).await;
    // The last to be blocked fails, and then the two that are left wait for each other.
    tokio::time::sleep(Duration::from_millis(2)).await;
    block(&scheduler, &granted[1], [ids[0]]).await;
    assert_eq!(scheduler.wait_graph(&[]).await.expect("a graph").stuck().len(), 0);
    let failed = scheduler.stats().await.expect("stats").count(TaskState::Failed);
    assert_eq!((failed, scheduler.task(ids[1]).await.expect("a task").state), (2, TaskState::Failed));
}

/// Somebody else lets a task go on while it decides.
#[derive(Debug)]
struct Meddled {
    scheduler: s2_coordinator::RedisScheduler,
    runtime: tokio::runtime::Handle,
    freed: Arc<OnceLock<TaskId>>,
    times: AtomicUsize,
}

impl Release for Meddled {
    fn release(&self, ring: &[&Waiter]) -> Option<Way> {
        if self.times.fetch_add(1, Ordering::Relaxed) == 0 {
            let (scheduler, runtime) = (self.scheduler.clone(), self.runtime.clone());
            let freed = *self.freed.get().expect("a task");
            // Its first call: any before would have it open the ring itself.
            let unblock = async move { assert!(scheduler.unblock(freed).await.expect("a task")) };
            std::thread::spawn(move || runtime.block_on(unblock)).join().expect("no panic");
        }
        LongestWaiter.release(ring)
    }
}

/// Two wait for each other, and one of them for either of two others, of which somebody lets one go on meanwhile: that is a way
/// out, though the ring is still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_way_out_that_opens_meanwhile_counts() {
    let server = RedisServer::start_volatile();
    let other = RedisStore::connect(&server.url(), FLEET).await.expect("a fleet").scheduler();
    let (runtime, times) = (tokio::runtime::Handle::current(), AtomicUsize::new(0));
    let freed = Arc::new(OnceLock::new());
    let policy = Meddled { scheduler: other, runtime, freed: Arc::clone(&freed), times };
    let meddled = RedisStore::builder(FLEET).with_release(policy);
    let scheduler = meddled.connect(&server.url()).await.expect("a fleet").scheduler();
    let session = scheduler.join(&Profile::new(SwarmId::from_static("one"))).await.expect("a session");
    let granted = claimed(&scheduler, &session, 3).await;
    let ids: Vec<_> = granted.iter().map(|grant| grant.task.id).collect();
    let mut either = Blocker::new("it waits").with_any();
    either.on = vec![ids[1], ids[2]];
    freed.set(ids[2]).expect("once");
    let ended = scheduler.end(vec![(granted[0].lease, Ending::Block(either))], None).await.expect("no error").ended;
    assert!(ended[0].is_ok());
    block(&scheduler, &granted[1], [ids[0]]).await;
    block(&scheduler, &granted[2], [ids[0]]).await;
    let mut states = Vec::new();
    for id in ids {
        states.push(scheduler.task(id).await.expect("a task").state);
    }
    assert_eq!(states, [TaskState::Blocked, TaskState::Blocked, TaskState::Ready]);
}

/// Says that it was asked, and answers once it is opened. It stands in the way of a thread of the runtime meanwhile, so no test may
/// wait for a timer then.
#[derive(Clone, Debug, Default)]
struct Gate {
    asked: Arc<AtomicBool>,
    open: Arc<(Mutex<bool>, Condvar)>,
}

impl Release for Gate {
    fn release(&self, ring: &[&Waiter]) -> Option<Way> {
        self.asked.store(true, Ordering::SeqCst);
        let closed = self.open.0.lock().expect("no panic");
        let waited = self.open.1.wait_timeout_while(closed, crate::LONG, |open| !*open).expect("no panic");
        assert!(!waited.1.timed_out(), "nobody has opened it");
        LongestWaiter.release(ring)
    }
}

impl Gate {
    fn open(&self) {
        *self.open.0.lock().expect("no panic") = true;
        self.open.1.notify_all();
    }

    /// Polls a call until the policy is asked.
    async fn during<T>(&self, mut call: Pin<&mut impl Future<Output = T>>) {
        poll_fn(|cx| {
            assert!(call.as_mut().poll(cx).is_pending(), "it waits for the policy");
            cx.waker().wake_by_ref();
            if self.asked.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// A host may poll several calls in turns: one that it does not get round to holds up no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_nobody_polls_holds_up_no_other() {
    let (server, gate) = (RedisServer::start_volatile(), Gate::default());
    let store = RedisStore::builder(FLEET).with_release(gate.clone()).connect(&server.url()).await.expect("a fleet");
    let scheduler = store.scheduler();
    let session = scheduler.join(&Profile::new(SwarmId::from_static("one"))).await.expect("a session");
    let granted = claimed(&scheduler, &session, 4).await;
    let ids: Vec<_> = granted.iter().map(|grant| grant.task.id).collect();
    block(&scheduler, &granted[0], [ids[1]]).await;
    block(&scheduler, &granted[2], [ids[3]]).await;
    let mut closes = std::pin::pin!(block(&scheduler, &granted[1], [ids[0]]));
    gate.during(closes.as_mut()).await;
    gate.open();
    let closes_too = block(&scheduler, &granted[3], [ids[2]]);
    tokio::time::timeout(crate::LONG, closes_too).await.expect("it does not wait for the other");
    closes.await;
    assert_eq!(scheduler.stats().await.expect("stats").count(TaskState::Ready), 2);
}

/// The server's answer to what is decided gets lost.
#[derive(Debug)]
struct Unheard(Arc<Proxy>);

impl Release for Unheard {
    fn release(&self, ring: &[&Waiter]) -> Option<Way> {
        self.0.lose_next();
        LongestWaiter.release(ring)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_is_lost_releases_nobody_else() {
    let server = RedisServer::start_volatile();
    let proxy = Arc::new(Proxy::of(&server));
    let store = RedisStore::builder(FLEET).with_release(Unheard(Arc::clone(&proxy)));
    let store = store.connect(&proxy.url()).await.expect("a fleet");
    let scheduler = store.scheduler();
    let session = scheduler.join(&Profile::new(SwarmId::from_static("one"))).await.expect("a session");
    let granted = claimed(&scheduler, &session, 3).await;
    for nth in 0..3 {
        block(&scheduler, &granted[nth], [granted[(nth + 1) % 3].task.id]).await;
    }
    assert_eq!(proxy.lost(), 1, "the reply was not lost");
    assert_eq!(scheduler.stats().await.expect("stats").count(TaskState::Ready), 1);
    // Likewise a report of progress: what is repeated counts once.
    let held = session.claim().await.expect("no error").expect("open");
    assert!(held.preempted.is_some());
    proxy.lose_next();
    held.progress().await.expect("it is repeated");
    assert_eq!(proxy.lost(), 2, "the reply was not lost");
    let said = store.journal().entries(Position::ORIGIN, 500).await.expect("entries").items;
    let told = said.iter().filter(|entry| &*entry.component == "deadlock").count();
    assert_eq!((told, said.iter().filter(|entry| &*entry.operation == "preempted").count()), (2, 1));
}

/// A runtime may end while it sees to a ring: then another does.
#[test]
fn a_ring_is_opened_though_the_runtime_that_was_at_it_has_ended() {
    let (server, gate) = (RedisServer::start_volatile(), Gate::default());
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let first = runtime();
    let (scheduler, session, granted) = first.block_on(async {
        let store =
            RedisStore::builder(FLEET).with_release(gate.clone()).connect(&server.url()).await.expect("a fleet");
        let scheduler = store.scheduler();
        let session = scheduler.join(&Profile::new(SwarmId::from_static("one"))).await.expect("a session");
        let granted = claimed(&scheduler, &session, 4).await;
        block(&scheduler, &granted[0], [granted[1].task.id]).await;
        block(&scheduler, &granted[2], [granted[3].task.id]).await;
        {
            let closes = std::pin::pin!(block(&scheduler, &granted[1], [granted[0].task.id]));
            gate.during(closes).await;
        }
        (scheduler, session, granted)
    });
    first.shutdown_background();
    gate.open();
    runtime().block_on(async {
        let closes = block(&scheduler, &granted[3], [granted[2].task.id]);
        tokio::time::timeout(crate::LONG, closes).await.expect("somebody opens it");
        let both = async {
            while scheduler.stats().await.expect("stats").count(TaskState::Ready) < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(crate::LONG, both).await.expect("somebody opens the other, too");
    });
    drop(session);
}

#[tokio::test]
async fn in_memory() {
    let store = || MemoryStore::builder();
    who_was_blocked_last_fails(store().with_release(AbortLatest).build().expect("a fleet").scheduler()).await;
    what_follows_from_a_failure_is_looked_at_too(
        store().with_release(AbortLatest).build().expect("a fleet").scheduler(),
    )
    .await;
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
