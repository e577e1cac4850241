//! Who leaves hands everything back, within its grace, whatever it does just then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use s2_coordinator::{Blocker, Random, SwarmId, TaskState};
use s2_core::{Context, Error, Interrupted, S2, TaskError};
use s2_governor::NanoUsd;
use s2_tests::chaos::{below, seed};
use s2_tests::counts;
use tokio::sync::{Notify, mpsc};

use crate::{Fleet, GRACE, On, TICK, cents, name, on_both, quick, settings, until, within, work};

on_both! {
    random_shutdowns_leak_nothing
    whoever_works_may_end_what_it_does
    whoever_does_not_end_is_dropped_within_the_grace
    without_any_grace_everything_is_handed_back
    whoever_waits_for_help_is_handed_back
    nobody_returns_before_everything_is_handed_back
    a_shutdown_that_is_dropped_changes_its_mind_about_nothing
    a_loop_of_ones_own_hears_that_the_grace_is_over
    a_loop_of_ones_own_may_end_what_it_does
    nobody_joins_a_process_that_leaves
    the_other_processes_go_on
}

/// Nobody is in the fleet any more, and nobody has anything. Who organises help is one of the fleet, not of a process.
async fn nothing_is_left(fleet: &Fleet) {
    let scheduler = fleet.s2.scheduler();
    let deadline = Instant::now() + GRACE;
    loop {
        let claimed = scheduler.stats().await.expect("stats").count(TaskState::Claimed);
        let mut there = scheduler.sessions(None, 10).await.expect("sessions");
        there.retain(|info| info.incarnation.session != name("s2/organiser"));
        if claimed == 0 && there.is_empty() {
            return;
        }
        if Instant::now() >= deadline {
            let which = s2_coordinator::Tasks::all().with_state(TaskState::Claimed);
            let tasks = scheduler.list(&which).await.expect("a page").items;
            panic!("{claimed} tasks are claimed, and there are {there:?}: {tasks:?}");
        }
        tokio::time::sleep(TICK).await;
    }
}

/// What a handler does in a random shutdown.
async fn anything(cx: Context, what: u64, awaited: s2_coordinator::TaskId) -> Result<u64, TaskError> {
    match what {
        0 => Ok(what),
        1 => std::future::pending().await,
        2 => {
            cx.cancelled().await;
            Ok(what)
        }
        3 => {
            let _rescued = cx.blocked(Blocker::new("waits").with_wait(awaited)).await?;
            Ok(what)
        }
        4 => {
            let call = async |_| std::future::pending::<Result<u64, std::io::Error>>().await;
            Ok(cx.spend("models", cents(1), call).await?)
        }
        5 => {
            let call = async |_| Ok::<_, std::io::Error>(what);
            Ok(cx.spend("models", cents(1), call).await?)
        }
        // Without a word: telling where it comes from may take longer than the grace.
        6 => std::panic::resume_unwind(Box::new("in the middle of it all")),
        7 => Err(TaskError::refused("not here")),
        8 => {
            cx.ask("what now?").await?;
            Ok(what)
        }
        _ => {
            cx.blocked(Blocker::new("nobody can help")).await?;
            Ok(what)
        }
    }
}

/// Sessions that do anything, and a shutdown at any moment: afterwards nobody holds anything, no task of the runtime is left, and no
/// handler runs.
async fn random_shutdowns_leak_nothing(on: On) {
    let rounds = match on {
        On::Memory => counts(60, 1_000),
        On::Redis => counts(10, 200),
    };
    let mut random = Random::from_seed(seed());
    let fleet = on.with(quick(), settings(""), false).await;
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut most = 0;
    for round in 0..rounds {
        one_shutdown(&fleet, &mut random, round).await;
        most = most.max(alive());
    }
    // The store keeps time, renews, and listens: a handful of tasks, however many processes have left. On Redis, each ledger, of
    // which a process has one and this test one for each round, listens for news until the next of them comes.
    let kept = if on == On::Redis { 10 + rounds as usize } else { 10 };
    until(async || alive() <= kept).await;
    println!("{rounds} shutdowns: {} tasks of the runtime are left, {most} at most", alive());
    // What calls held that were dropped is held no longer than it may be: nothing holds it any more.
    let held = fleet.balance("telephony").await;
    assert!(held.spent.saturating_add(held.held) <= cents(u64::from(rounds) * 20), "{held:?}");
}

async fn one_shutdown(fleet: &Fleet, random: &mut Random, round: u32) {
    let s2 = fleet.again().await;
    let awaited = fleet.submit(work().with_start(Duration::from_secs(3_600))).await;
    let handlers = Arc::new(AtomicUsize::new(0));
    for nth in 0..=below(random, 4) {
        let counted = Arc::clone(&handlers);
        let session = s2.session(format!("telephony/{round}-{nth}")).concurrency(3).run(move |cx: Context| {
            let counted = Counted::new(&counted);
            async move {
                let _counted = counted;
                let what = cx.task().json::<u64>()?;
                anything(cx, what, awaited).await
            }
        });
        session.await.expect("a session");
    }
    let tasks: Vec<_> = (0..below(random, 20)).map(|_| work().with_json(&below(random, 10)).expect("JSON")).collect();
    if !tasks.is_empty() {
        fleet.s2.scheduler().submit(&tasks).await.expect("submitted");
    }
    for _ in 0..below(random, 50) {
        tokio::task::yield_now().await;
    }
    let grace = [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(50)][below(random, 3) as usize];
    let begun = Instant::now();
    if below(random, 4) == 0 {
        tokio::join!(s2.shutdown(grace), s2.shutdown(grace), s2.shutdown(Duration::from_millis(10)));
    } else {
        s2.shutdown(grace).await;
    }
    assert!(begun.elapsed() < GRACE, "it takes {:?}", begun.elapsed());
    assert_eq!(handlers.load(Ordering::SeqCst), 0, "handlers run after a shutdown in round {round}");
    nothing_is_left(fleet).await;
    // What was handed back is of no use to the next round.
    for state in [TaskState::Ready, TaskState::Delayed, TaskState::Blocked, TaskState::Waiting] {
        let which = s2_coordinator::Tasks::all().with_state(state);
        for status in fleet.s2.scheduler().list(&which).await.expect("a page").items {
            fleet.s2.scheduler().cancel(status.task.id, "enough".into()).await.expect("cancelled");
        }
    }
}

/// A handler that runs.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A session whose handler says that it has begun, and then waits for this.
async fn working(s2: &S2, gate: &Arc<Notify>) -> mpsc::UnboundedReceiver<Context> {
    let (said, heard) = mpsc::unbounded_channel();
    let gate = Arc::clone(gate);
    let session = s2.session("telephony/one").run(move |cx: Context| {
        let (said, gate) = (said.clone(), Arc::clone(&gate));
        async move {
            said.send(cx).expect("somebody listens");
            gate.notified().await;
            Ok("done")
        }
    });
    session.await.expect("a session");
    heard
}

async fn whoever_works_may_end_what_it_does(on: On) {
    let fleet = on.fleet().await;
    let gate = Arc::new(Notify::new());
    let mut begun = working(&fleet.s2, &gate).await;
    let id = fleet.submit(work()).await;
    let cx = within(begun.recv()).await.expect("it began");
    let later = fleet.submit(work()).await;
    let ends = async {
        cx.cancelled().await;
        gate.notify_one();
    };
    within(async { tokio::join!(fleet.s2.shutdown(Duration::from_secs(60)), ends) }).await;
    assert_eq!(fleet.done::<String>(id).await, "done");
    assert_eq!((fleet.state(later).await, fleet.failures(later).await), (TaskState::Ready, 0), "nothing new");
    nothing_is_left(&fleet).await;
}

async fn whoever_does_not_end_is_dropped_within_the_grace(on: On) {
    let fleet = on.fleet().await;
    let mut begun = working(&fleet.s2, &Arc::default()).await;
    let id = fleet.submit(work()).await;
    within(begun.recv()).await.expect("it began");
    let (grace, started) = (Duration::from_millis(400), Instant::now());
    fleet.s2.shutdown(grace).await;
    assert!(started.elapsed() < grace + Duration::from_millis(300), "it took {:?}", started.elapsed());
    assert_eq!((fleet.state(id).await, fleet.failures(id).await), (TaskState::Ready, 0), "handed back, no attempt");
    nothing_is_left(&fleet).await;
}

async fn without_any_grace_everything_is_handed_back(on: On) {
    let fleet = on.fleet().await;
    let mut begun = working(&fleet.s2, &Arc::default()).await;
    let id = fleet.submit(work()).await;
    within(begun.recv()).await.expect("it began");
    fleet.s2.shutdown(Duration::ZERO).await;
    assert_eq!((fleet.state(id).await, fleet.failures(id).await), (TaskState::Ready, 0), "handed back, no attempt");
    nothing_is_left(&fleet).await;
}

async fn whoever_waits_for_help_is_handed_back(on: On) {
    let fleet = on.fleet().await;
    let awaited = fleet.submit(work().with_start(Duration::from_secs(3_600))).await;
    let session = fleet.s2.session("telephony/one").run(move |cx: Context| async move {
        cx.blocked(Blocker::new("waits").with_wait(awaited)).await?;
        Ok(1)
    });
    session.await.expect("a session");
    let id = fleet.submit(work()).await;
    fleet.until_state(id, TaskState::Blocked).await;
    fleet.s2.shutdown(Duration::from_millis(100)).await;
    nothing_is_left(&fleet).await;
    fleet.s2.scheduler().cancel(awaited, "enough".into()).await.expect("cancelled");
    let other = fleet.again().await;
    let answers = async |cx: Context| Ok(cx.resumed().await?.is_some());
    other.session("telephony/two").run(answers).await.expect("a session");
    assert!(
        fleet.done::<bool>(id).await,
        "somebody else takes it up, with the answers, before its session's time is over"
    );
    other.shutdown(GRACE).await;
}

/// Several shut down at once, as a signal and the end of the work do: whoever returns first may end the process.
async fn nobody_returns_before_everything_is_handed_back(on: On) {
    let fleet = on.fleet().await;
    let gate = Arc::new(Notify::new());
    let mut begun = working(&fleet.s2, &gate).await;
    let id = fleet.submit(work()).await;
    within(begun.recv()).await.expect("it began");
    let mut first = Box::pin(fleet.s2.shutdown(Duration::from_secs(60)));
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut first).await.is_err(), "it waits for the handler");
    fleet.s2.shutdown(Duration::from_millis(100)).await;
    assert_eq!((fleet.state(id).await, fleet.failures(id).await), (TaskState::Ready, 0), "handed back, no attempt");
    within(first).await;
    nothing_is_left(&fleet).await;
}

/// Whoever gave up waiting for the shutdown asks again: the handler may still end.
async fn a_shutdown_that_is_dropped_changes_its_mind_about_nothing(on: On) {
    let fleet = on.fleet().await;
    let gate = Arc::new(Notify::new());
    let mut begun = working(&fleet.s2, &gate).await;
    let id = fleet.submit(work()).await;
    within(begun.recv()).await.expect("it began");
    let impatient = tokio::time::timeout(Duration::from_millis(20), fleet.s2.shutdown(Duration::from_secs(60))).await;
    assert!(impatient.is_err(), "it waits for the handler");
    gate.notify_one();
    within(fleet.s2.shutdown(Duration::from_secs(60))).await;
    assert_eq!(fleet.state(id).await, TaskState::Done);
    nothing_is_left(&fleet).await;
}

async fn a_loop_of_ones_own_hears_that_the_grace_is_over(on: On) {
    let fleet = on.fleet().await;
    let session = fleet.s2.session("telephony/one").join().await.expect("a session");
    let id = fleet.submit(work()).await;
    let job = within(session.next()).await.expect("no error").expect("a job");
    let leaves = fleet.s2.shutdown(Duration::from_millis(100));
    let (interrupted, ()) = within(async { tokio::join!(job.interrupted(), leaves) }).await;
    assert_eq!(interrupted, Interrupted::Leaving);
    job.release().await.expect("handed back");
    assert_eq!((fleet.state(id).await, fleet.failures(id).await), (TaskState::Ready, 0));
    assert!(within(session.next()).await.expect("no error").is_none());
    nothing_is_left(&fleet).await;
}

async fn a_loop_of_ones_own_may_end_what_it_does(on: On) {
    let fleet = on.fleet().await;
    let session = fleet.s2.session("telephony/one").join().await.expect("a session");
    let id = fleet.submit(work()).await;
    let job = within(session.next()).await.expect("no error").expect("a job");
    let mut leaves = Box::pin(fleet.s2.shutdown(Duration::from_secs(60)));
    let waits = tokio::time::timeout(Duration::from_millis(20), &mut leaves).await;
    assert!(waits.is_err(), "somebody still works");
    job.complete(&1).await.expect("completed");
    within(leaves).await;
    assert_eq!(fleet.done::<u32>(id).await, 1);
    nothing_is_left(&fleet).await;
}

async fn nobody_joins_a_process_that_leaves(on: On) {
    let fleet = on.fleet().await;
    let s2 = fleet.again().await;
    let ended = within(s2.run_until(async { 7 }, GRACE)).await;
    assert_eq!(ended, 7);
    for session in [s2.session("one").join().await, s2.session("one").run(async |_| Ok(())).await] {
        assert!(matches!(session, Err(Error::ShuttingDown)), "{session:?}");
    }
    within(s2.shutdown(GRACE)).await;
    nothing_is_left(&fleet).await;
}

async fn the_other_processes_go_on(on: On) {
    let fleet = on.fleet().await;
    let (one, two) = (fleet.again().await, fleet.again().await);
    for (s2, session) in [(&one, "one"), (&two, "two")] {
        s2.session(session).run(async |cx: Context| Ok(cx.session().clone())).await.expect("a session");
    }
    one.shutdown(GRACE).await;
    for _ in 0..10 {
        let id = fleet.submit(work()).await;
        assert_eq!(fleet.done::<SwarmId>(id).await, name("two"));
    }
    two.shutdown(GRACE).await;
    nothing_is_left(&fleet).await;
    assert_eq!(fleet.balance("one").await.spent, NanoUsd::ZERO);
}
