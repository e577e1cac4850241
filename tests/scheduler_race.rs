//! Many threads, real time: sessions that race for tasks, and sessions that crash, dawdle, refuse, get stuck and come back.
//! Whatever happens, each attempt is claimed once, each task ends once, and nothing is left behind.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use s2_coordinator::{
    Blocker, Capabilities, Completion, Config, Error, Journal, MemoryStore, NewTask, Outcome, Position, Profile,
    Random, RedisStore, Scheduler, SchedulerExt, Session, Stats, SwarmId, TaskId, TaskKind, TaskState, Tasks, Token,
};
use s2_tests::counts;
use s2_tests::redis::unique_name;
use s2_tests::servers::RedisServer;

const WORK: TaskKind = TaskKind::from_static("work");
const HOST: SwarmId = SwarmId::from_static("host");
const WORKERS: usize = 64;

fn task() -> NewTask {
    NewTask::new(WORK, HOST)
}

async fn session<S: Scheduler + Clone>(scheduler: &S, nth: usize, offers: &[&str]) -> Session {
    let name = SwarmId::new(format!("session-{nth}")).expect("a name");
    let offers = Capabilities::new(offers).expect("capabilities");
    scheduler.join(&Profile::new(name).with_capabilities(offers)).await.expect("a session")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_attempt_is_claimed_once() {
    let count = counts(10_000, 100_000) as usize;
    let scheduler = MemoryStore::new().scheduler();
    let left = Arc::new(AtomicUsize::new(count));
    let mut racing = Vec::new();
    for nth in 0..WORKERS {
        let (session, scheduler, left) = (session(&scheduler, nth, &[]).await, scheduler.clone(), Arc::clone(&left));
        racing.push(tokio::spawn(async move {
            let mut seen: Vec<(TaskId, u32, Token)> = Vec::new();
            while let Some(mut held) = session.claim().await.expect("no error") {
                // Half of them claim the next one in the step that ends the last.
                loop {
                    seen.push((held.task.id, held.attempt, held.lease.token));
                    if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                        held.complete(Completion::new()).await.expect("completed");
                        scheduler.close().await.expect("closed");
                        break;
                    }
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
            seen
        }));
    }
    let mut submitted = HashSet::new();
    for _ in 0..count / 500 {
        let batch = scheduler.submit(&vec![task(); 500]).await.expect("submitted");
        submitted.extend(batch.into_iter().map(|task| task.id));
    }
    let (mut claimed, mut tokens) = (HashSet::new(), HashSet::new());
    for racer in racing {
        for (task, attempt, token) in racer.await.expect("no panic") {
            assert!(claimed.insert(task), "task {task} was claimed twice");
            assert!(tokens.insert(token), "two claims have token {token}");
            assert_eq!(attempt, 1);
        }
    }
    assert_eq!(claimed, submitted);
}

/// Works until there is nothing left. What it does with a task is a matter of chance.
async fn work<S: Scheduler + Clone>(scheduler: S, nth: usize, tick: Duration, done: Arc<Mutex<HashMap<TaskId, u32>>>) {
    let mut random = Random::from_seed(nth as u64);
    let offers: &[&str] = [&["a"][..], &["b"], &["a", "b"], &[]][nth % 4];
    loop {
        // One that comes back has lost what it had.
        let session = session(&scheduler, nth % (WORKERS / 2), offers).await;
        loop {
            let held = match session.claim().await {
                Ok(Some(held)) => held,
                // Another one of its name has taken its place, and may have left again. If both came back at once, they would do
                // little else than that.
                Ok(None) | Err(Error::StaleSession { .. }) => {
                    tokio::time::sleep(tick).await;
                    break;
                }
                Err(error) => panic!("{error}"),
            };
            let (id, chance) = (held.task.id, random.bits() % 40);
            match chance {
                0 => drop(held),
                1 => drop(held.into_grant()), // crashes
                2 => tokio::time::sleep(6 * tick).await,
                3 => drop(held.fail("flaky").await),
                4 => drop(held.retry_after(tick / 2, "flaky").await),
                5 => drop(held.refuse("not now", Some(tick)).await),
                6 => drop(held.release().await),
                7 if held.task.depth < 2 => {
                    let blocker = Blocker::new("stuck").with_help(task()).with_help(task());
                    let Ok(mut blocked) = held.block(blocker).await else { continue };
                    // Somebody else may take it up.
                    if random.bits().is_multiple_of(2) {
                        continue;
                    }
                    let resumed = tokio::time::timeout(4 * tick, blocked.resume()).await;
                    if let Ok(Ok(resumed)) = resumed
                        && resumed.complete(Completion::new()).await.is_ok()
                    {
                        *done.lock().expect("no panic").entry(id).or_default() += 1;
                    }
                }
                8 => break, // comes back
                9 => drop(scheduler.cancel(id, "not needed".into()).await),
                _ => {
                    let completion = Completion::new();
                    let follows = held.task.depth < 1 && chance == 10;
                    let completion = if follows { completion.with_task(task()) } else { completion };
                    if held.complete(completion).await.is_ok() {
                        *done.lock().expect("no panic").entry(id).or_default() += 1;
                    }
                }
            }
        }
    }
}

/// Leases of three ticks, and everything else in proportion.
fn hasty(tick: Duration) -> Config {
    let mut config = Config::default();
    config.lease = 3 * tick;
    config.attempts = 20;
    config.backoff.base = tick / 5;
    config.backoff.max = tick;
    config.resume_window = 2 * tick;
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_each_task_ends_once_and_nothing_is_left() {
    let tick = Duration::from_millis(5);
    let store = MemoryStore::builder().with_config(hasty(tick)).build().expect("a fleet");
    rage(&store.scheduler(), &store.journal(), tick, counts(2_000, 20_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_redis_likewise() {
    let (server, tick) = (RedisServer::start_volatile(), Duration::from_millis(50));
    let builder = RedisStore::builder(unique_name()).with_config(hasty(tick));
    let store = builder.connect(&server.url()).await.expect("a fleet");
    rage(&store.scheduler(), &store.journal(), tick, counts(1_000, 10_000)).await;
}

async fn rage<S: Scheduler + Clone>(scheduler: &S, journal: &impl Journal, tick: Duration, count: u32) {
    let done = Arc::new(Mutex::new(HashMap::new()));
    let workers: Vec<_> =
        (0..WORKERS).map(|nth| tokio::spawn(work(scheduler.clone(), nth, tick, Arc::clone(&done)))).collect();
    let mut random = Random::from_seed(99);
    let mut submitted: Vec<TaskId> = Vec::new();
    for _ in 0..count {
        let requires: &[&str] = [&[][..], &["a"], &["b"], &[]][(random.bits() % 4) as usize];
        let mut new = task().with_requires(Capabilities::new(requires).expect("capabilities"));
        if let Some(earlier) = submitted.last().filter(|_| random.bits().is_multiple_of(3)) {
            new = new.after(*earlier);
        }
        if random.bits().is_multiple_of(5) {
            new = new.with_assignee(SwarmId::new(format!("session-{}", random.bits() % 8)).expect("a name"));
        }
        match scheduler.submit_one(&new).await {
            Ok(task) => submitted.push(task.id),
            // Its own session offers something else: it goes to anybody.
            Err(Error::Invalid(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let over = async {
        while scheduler.stats().await.expect("stats").unfinished() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), over).await.is_err() {
        let stats: Stats = scheduler.stats().await.expect("stats");
        let all = scheduler.list(&Tasks::all()).await.expect("a page").items;
        let stuck = all.iter().find(|status| !status.state.is_finished()).map(|status| status.task.id);
        let why = match stuck {
            Some(stuck) => Some(scheduler.why(stuck).await.expect("a task")),
            None => None,
        };
        panic!("something is stuck: {stats:?}, such as {stuck:?}: {why:?}");
    }
    // It was as wild as it should be.
    let (mut seen, mut after) = (HashSet::new(), Position::ORIGIN);
    loop {
        let page = journal.entries(after, 500).await.expect("entries");
        if page.items.is_empty() {
            break;
        }
        after = page.next;
        seen.extend(page.items.into_iter().map(|entry| entry.operation.to_string()));
    }
    for operation in ["expired", "retried", "released", "refused", "blocked", "unblocked", "superseded", "cancelled"] {
        assert!(seen.contains(operation), "nothing was {operation} among {seen:?}");
    }
    let done = done.lock().expect("no panic").clone();
    for (task, times) in &done {
        assert_eq!(*times, 1, "task {task} was completed more than once");
    }
    let mut counted = 0;
    let mut which = Tasks::all();
    loop {
        let page = scheduler.list(&which).await.expect("a page");
        for status in &page.items {
            let outcome = scheduler.outcome(status.task.id).await.expect("a task").expect("it is finished");
            let was_done = done.contains_key(&status.task.id);
            assert_eq!(matches!(outcome, Outcome::Done(_)), was_done, "task {}", status.task.id);
            counted += u64::from(status.state == TaskState::Done);
        }
        let Some(next) = page.next else { break };
        which = which.after(next);
    }
    let stats = scheduler.stats().await.expect("stats");
    assert_eq!((stats.count(TaskState::Done), stats.classes), (counted, 0));
    for info in scheduler.sessions(None, 500).await.expect("sessions") {
        assert_eq!((info.load, info.queued, info.blocked), (0, 0, 0), "{}", info.incarnation.session);
    }
    scheduler.close().await.expect("closed");
    workers.into_iter().for_each(|worker| worker.abort());
}

/// Whoever is woken for nothing goes back to sleep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_woken_for_nothing_sleeps_again() {
    let store = MemoryStore::new();
    let (scheduler, other) = (store.scheduler(), store.scheduler());
    let polls = Arc::new(AtomicUsize::new(0));
    let waiting = session(&scheduler, 0, &[]).await;
    let waiting = tokio::spawn({
        let polls = Arc::clone(&polls);
        async move {
            let mut claim = std::pin::pin!(waiting.claim());
            let counted = std::future::poll_fn(|cx| {
                polls.fetch_add(1, Ordering::Relaxed);
                claim.as_mut().poll(cx)
            });
            counted.await.map(|held| held.is_some())
        }
    });
    // All that wakes it and leaves it nothing: another one takes the task, a session leaves, a handle is closed.
    let thief = session(&other, 1, &[]).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let leaving = session(&other, 2, &[]).await;
        let gone = tokio::spawn({
            let leaving = leaving.clone();
            async move { leaving.claim().await.map(|held| held.is_some()) }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        leaving.leave().await.expect("left");
        assert!(!gone.await.expect("no panic").expect("no error"));
        let assigned = task().with_assignee(thief.incarnation().session.clone());
        scheduler.submit_one(&assigned).await.expect("submitted");
        thief.try_claim().await.expect("no error").expect("its own").complete(Completion::new()).await.expect("done");
    }
    other.close().await.expect("closed");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let polls = polls.load(Ordering::Relaxed);
    assert!((1..200).contains(&polls), "it was polled {polls} times");
    scheduler.submit_one(&task()).await.expect("submitted");
    assert!(waiting.await.expect("no panic").expect("no error"), "it is there for what comes");
}
