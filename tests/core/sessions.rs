//! Handlers end when their claims do, count as attempts when they should, and take no more room than they may.

use std::error::Error as StdError;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use s2_coordinator::{
    Blocker, Cause, EventType, NewEvent, Outcome, Profile, Session as Claimant, TaskState, Topic, Why,
};
use s2_core::{Context, Error, Interrupted, SpendError, TaskError};
use s2_governor::{BulkheadFull, Denial, Denied, NanoUsd, ProviderName, Refused};
use tokio::sync::{Notify, mpsc, watch};

use crate::{GRACE, On, name, on_both, patient, quick, settings, until, within, work};

on_both! {
    a_handler_whose_task_is_cancelled_is_dropped_and_the_session_goes_on
    a_handler_is_dropped_when_a_newer_session_has_its_name
    a_handler_without_progress_is_dropped_and_that_is_an_attempt
    a_context_that_outlives_its_job_holds_nothing
    a_context_that_outlives_its_job_blocks_nothing
    panics_are_attempts_and_the_session_goes_on
    an_attempt_is_repeated_when_the_handler_says
    what_cannot_be_done_fails_at_once
    what_cannot_be_kept_fails_the_task
    a_session_has_no_more_at_once_than_it_may
    a_task_that_goes_on_after_a_wait_takes_up_room
    a_claim_that_nobody_waits_for_has_claimed_nothing
    a_cancelled_task_that_was_blocked_does_not_go_on
    a_job_that_is_cancelled_says_so_to_its_own_loop
}

/// Says when it is dropped.
struct Dropped(mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

async fn a_handler_whose_task_is_cancelled_is_dropped_and_the_session_goes_on(on: On) {
    let fleet = on.fleet().await;
    let (said, mut heard) = mpsc::unbounded_channel();
    let session = fleet.s2.session("one").run(move |cx: Context| {
        let dropped = Dropped(said.clone());
        async move {
            let _dropped = dropped;
            if cx.task().data.is_empty() {
                std::future::pending::<()>().await;
            }
            Ok(7)
        }
    });
    session.await.expect("a session");
    let stuck = fleet.submit(work()).await;
    fleet.until_state(stuck, TaskState::Claimed).await;
    assert!(fleet.s2.scheduler().cancel(stuck, "not needed".into()).await.expect("cancelled"));
    within(heard.recv()).await.expect("it is dropped");
    let next = fleet.submit(work().with_data("next")).await;
    assert_eq!(fleet.done::<u32>(next).await, 7);
    assert_eq!(fleet.state(stuck).await, TaskState::Cancelled);
    fleet.s2.shutdown(GRACE).await;
}

async fn a_handler_is_dropped_when_a_newer_session_has_its_name(on: On) {
    let fleet = on.fleet().await;
    let (said, mut heard) = mpsc::unbounded_channel();
    let (given, mut contexts) = mpsc::unbounded_channel();
    let older = fleet.s2.session("one").run(move |cx: Context| {
        let (dropped, given) = (Dropped(said.clone()), given.clone());
        async move {
            let _dropped = dropped;
            given.send(cx).expect("somebody listens");
            std::future::pending::<Result<&str, TaskError>>().await
        }
    });
    older.await.expect("a session");
    let id = fleet.submit(work()).await;
    let old: Context = within(contexts.recv()).await.expect("it began");
    let other = fleet.again().await;
    other.session("one").run(async |_| Ok("the newer")).await.expect("a session");
    within(heard.recv()).await.expect("it is dropped");
    assert_eq!(fleet.done::<String>(id).await, "the newer");
    assert_eq!(old.progress().await.expect_err("it has nothing").code(), "S2_STALE_LEASE");
    assert_eq!(old.blocked(Blocker::new("late")).await.expect_err("it has nothing").code(), "S2_STALE_LEASE");
    other.shutdown(GRACE).await;
    fleet.s2.shutdown(GRACE).await;
}

async fn a_handler_without_progress_is_dropped_and_that_is_an_attempt(on: On) {
    let mut config = patient();
    config.progress = Duration::from_secs(10 * 60);
    let fleet = on.with(config, settings(""), true).await;
    let (said, mut heard) = mpsc::unbounded_channel();
    let session = fleet.s2.session("one").run(move |cx: Context| {
        let dropped = Dropped(said.clone());
        async move {
            let _dropped = dropped;
            if cx.attempt() == 1 {
                std::future::pending::<()>().await;
            }
            Ok(cx.attempt())
        }
    });
    session.await.expect("a session");
    let id = fleet.submit(work()).await;
    fleet.until_state(id, TaskState::Claimed).await;
    fleet.advance(Duration::from_secs(11 * 60));
    within(heard.recv()).await.expect("it is dropped");
    until(async || {
        fleet.advance(Duration::from_secs(1));
        fleet.state(id).await.is_finished()
    })
    .await;
    assert_eq!(fleet.done::<u32>(id).await, 2);
    fleet.s2.shutdown(GRACE).await;
}

async fn a_context_that_outlives_its_job_holds_nothing(on: On) {
    let fleet = on.fleet().await;
    let session = fleet.s2.session("one").join().await.expect("a session");
    let id = fleet.submit(work()).await;
    let job = within(session.next()).await.expect("no error").expect("a job");
    let cx = Context::clone(&job);
    drop(job);
    fleet.until_state(id, TaskState::Ready).await;
    assert_eq!((fleet.failures(id).await, cx.lease()), (0, None));
    assert_eq!(cx.progress().await.expect_err("it has nothing").code(), "S2_STALE_LEASE");
}

/// The job ends while a clone of its context waits: what the clone gets then, nobody would ever end.
async fn a_context_that_outlives_its_job_blocks_nothing(on: On) {
    let fleet = on.fleet().await;
    let session = fleet.s2.session("one").join().await.expect("a session");
    let awaited = fleet.submit(work().with_start(Duration::from_secs(60 * 60))).await;
    let id = fleet.submit(work()).await;
    let job = within(session.next()).await.expect("no error").expect("a job");
    let cx = Context::clone(&job);
    let waits = tokio::spawn(async move {
        let went_on = cx.blocked(Blocker::new("waits").with_wait(awaited)).await.map(drop);
        (cx, went_on)
    });
    fleet.until_state(id, TaskState::Blocked).await;
    drop(job);
    fleet.s2.scheduler().cancel(awaited, "enough".into()).await.expect("cancelled");
    let (cx, went_on) = within(waits).await.expect("no panic");
    assert_eq!(went_on.expect_err("its job is over").code(), "S2_STALE_LEASE");
    assert_eq!(cx.lease(), None);
    let job = within(session.next()).await.expect("no error").expect("it was handed back");
    assert_eq!((job.task().id, job.attempt()), (id, 1));
    job.complete("done").await.expect("completed");
    drop(cx);
}

async fn panics_are_attempts_and_the_session_goes_on(on: On) {
    let fleet = on.fleet().await;
    let session = fleet.s2.session("one").run(|cx: Context| {
        let said = cx.task().json::<String>().expect("text");
        assert!(said != "before there is a future", "before there is a future");
        async move {
            match said.as_str() {
                "at once" => panic!("at once"),
                "of another type" => std::panic::panic_any(7_u8),
                "in the middle" => {
                    tokio::task::yield_now().await;
                    panic!("in the {}", "middle");
                }
                _ => Ok(said),
            }
        }
    });
    session.await.expect("a session");
    for how in ["before there is a future", "at once", "of another type", "in the middle"] {
        let id = fleet.submit(work().with_json(how).expect("JSON")).await;
        let outcome = fleet.outcome(id).await;
        let Outcome::Failed { cause: Cause::Attempts, history } = &outcome else { panic!("{how}: {outcome:?}") };
        assert_eq!(history.len(), 3, "{how}");
        let reason = history[0].end.reason();
        assert!(reason.as_str().contains("panicked"), "{how}: {reason}");
    }
    let id = fleet.submit(work().with_json("well").expect("JSON")).await;
    assert_eq!(fleet.done::<String>(id).await, "well");
    fleet.s2.shutdown(GRACE).await;
}

/// Errors of a host, which say that they are what is in them, or that it was the cause.
#[derive(Debug)]
enum Nested {
    Transparent(Box<dyn StdError + Send + Sync>),
    Source(Box<dyn StdError + Send + Sync>),
}

impl fmt::Display for Nested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transparent(inner) => fmt::Display::fmt(inner, f),
            Self::Source(_) => f.write_str("the host's reason"),
        }
    }
}

impl StdError for Nested {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Transparent(inner) => inner.source(),
            Self::Source(inner) => Some(&**inner),
        }
    }
}

fn full() -> BulkheadFull {
    BulkheadFull { provider: ProviderName::from_static("models"), waiting: 3, limit: 3, waited: Duration::ZERO }
}

fn denied() -> Denied {
    let day = s2_coordinator::UtcDay::of(s2_tests::START);
    Denied::new(name("one"), day, NanoUsd::ZERO, NanoUsd::ZERO, Denial::Spent)
}

#[test]
fn what_was_refused_is_no_attempt_however_deep_it_is() {
    type Spend = SpendError<std::io::Error>;
    let source = |inner: Spend| Nested::Source(Box::new(inner));
    let refusals: Vec<TaskError> = vec![
        Spend::Denied(denied()).into(),
        Spend::BulkheadFull(full()).into(),
        source(Spend::Denied(denied())).into(),
        Nested::Source(Box::new(source(Spend::BulkheadFull(full())))).into(),
        Nested::Transparent(Box::new(source(Spend::Denied(denied())))).into(),
        Refused::BulkheadFull(full()).into(),
        Nested::Source(Box::new(Refused::BulkheadFull(full()))).into(),
        denied().into(),
    ];
    for (nth, error) in refusals.iter().enumerate() {
        assert!(error.is_refusal(), "{nth}: {error:?}");
    }
    let failed: TaskError = Spend::Call(std::io::Error::other("status 500")).into();
    assert!(!failed.is_refusal() && !failed.is_fatal(), "{failed:?}");
}

async fn an_attempt_is_repeated_when_the_handler_says(on: On) {
    let fleet = on.still().await;
    let session = fleet.s2.session("one").run(async |cx: Context| match cx.attempt() {
        1 => Err(TaskError::retry_after(Duration::from_secs(600), "come back in ten minutes")),
        attempt => Ok(attempt),
    });
    session.await.expect("a session");
    let id = fleet.submit(work()).await;
    fleet.until_state(id, TaskState::Delayed).await;
    let why = fleet.s2.scheduler().why(id).await.expect("a task");
    let Why::BacksOff { until: when, failures: 1, reason } = &why else { panic!("{why:?}") };
    assert_eq!(*when, s2_tests::START + Duration::from_secs(600));
    assert_eq!(reason.as_str(), "come back in ten minutes");
    fleet.advance(Duration::from_secs(599));
    assert_eq!(fleet.state(id).await, TaskState::Delayed);
    fleet.advance(Duration::from_secs(1));
    assert_eq!(fleet.done::<u32>(id).await, 2);
    fleet.s2.shutdown(GRACE).await;
}

async fn what_cannot_be_done_fails_at_once(on: On) {
    let fleet = on.fleet().await;
    let session = fleet.s2.session("one").run(async |_| Err::<(), _>(TaskError::fatal("x".repeat(5_000))));
    session.await.expect("a session");
    let id = fleet.submit(work()).await;
    let outcome = fleet.outcome(id).await;
    let Outcome::Failed { cause: Cause::Fatal, history } = &outcome else { panic!("{outcome:?}") };
    assert_eq!((history.len(), history[0].end.reason().as_str()), (1, &*"x".repeat(1_000)));
    fleet.s2.shutdown(GRACE).await;
}

async fn what_cannot_be_kept_fails_the_task(on: On) {
    let fleet = on.fleet().await;
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let session = fleet.s2.session("one").run(move |cx: Context| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let event = |topic| NewEvent::new(topic, EventType::from_static("x"), cx.session().clone());
            match cx.task().json::<String>()?.as_str() {
                "result" => return Ok(serde_json::Value::String("x".repeat(2 * 1024 * 1024))),
                "topic" => cx.announce(event(Topic::JOURNAL)),
                "evidence" => cx.evidence("all", "x".repeat(10_000)),
                "dependency" => cx.follow_up(work().after("nobody".parse::<s2_coordinator::IdempotencyKey>()?)),
                "delay" => return Err(TaskError::retry_after(Duration::MAX, "never")),
                other => return Err(TaskError::fatal(other)),
            }
            Ok(serde_json::Value::Null)
        }
    });
    session.await.expect("a session");
    for what in ["result", "topic", "evidence", "dependency", "delay"] {
        let before = begun.load(Ordering::SeqCst);
        let id = fleet.submit(work().with_json(what).expect("JSON")).await;
        let outcome = fleet.outcome(id).await;
        assert!(matches!(outcome, Outcome::Failed { cause: Cause::Fatal, .. }), "{what}: {outcome:?}");
        assert_eq!(begun.load(Ordering::SeqCst), before + 1, "{what}: once");
    }
    fleet.s2.shutdown(GRACE).await;
}

#[tokio::test]
async fn a_result_without_a_form_fails_the_task() {
    let fleet = On::Memory.fleet().await;
    let session = fleet.s2.session("one");
    session.run(async |_| Ok(std::collections::BTreeMap::from([((1, 2), 3)]))).await.expect("a session");
    let id = fleet.submit(work()).await;
    let outcome = fleet.outcome(id).await;
    assert!(matches!(outcome, Outcome::Failed { cause: Cause::Fatal, .. }), "{outcome:?}");
    fleet.s2.shutdown(GRACE).await;
}

async fn a_session_has_no_more_at_once_than_it_may(on: On) {
    let fleet = on.fleet().await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, highest) = (Arc::clone(&now), Arc::clone(&most));
    let session = fleet.s2.session("one").concurrency(3).run(move |_| {
        let (now, most) = (Arc::clone(&counted), Arc::clone(&highest));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    session.await.expect("a session");
    let ids = fleet.s2.scheduler().submit(&vec![work(); 50]).await.expect("submitted");
    for submitted in ids {
        fleet.done::<()>(submitted.id).await;
    }
    let most = most.load(Ordering::SeqCst);
    assert!((1..=3).contains(&most), "{most} at once");
    fleet.s2.shutdown(GRACE).await;
}

/// A session of one place: its first task waits and goes on; the second may not begin before the first has ended.
async fn a_task_that_goes_on_after_a_wait_takes_up_room(on: On) {
    let fleet = on.fleet().await;
    let gate = Arc::new(Notify::new());
    let (now, opens) = (watch::Sender::new(0_i32), Arc::clone(&gate));
    let (works, awaited) = (now.clone(), fleet.submit(work().with_start(Duration::from_secs(3600))).await);
    let session = fleet.s2.session("one").run(move |cx: Context| {
        let (works, opens) = (works.clone(), Arc::clone(&opens));
        async move {
            if cx.task().json::<bool>()? {
                cx.blocked(Blocker::new("waits").with_wait(awaited)).await?;
            }
            works.send_modify(|works| *works += 1);
            opens.notified().await;
            works.send_modify(|works| *works -= 1);
            Ok(())
        }
    });
    session.await.expect("a session");
    let waits = fleet.submit(work().with_json(&true).expect("JSON")).await;
    fleet.until_state(waits, TaskState::Blocked).await;
    // While it waits there is room for another one.
    let between = fleet.submit(work().with_json(&false).expect("JSON")).await;
    within(now.subscribe().wait_for(|now| *now == 1)).await.expect("it begins");
    gate.notify_one();
    fleet.done::<()>(between).await;
    // The session waits for its next task again by now, or soon.
    fleet.s2.scheduler().cancel(awaited, "enough".into()).await.expect("cancelled");
    within(now.subscribe().wait_for(|now| *now == 1)).await.expect("it goes on");
    let second = fleet.submit(work().with_json(&false).expect("JSON")).await;
    for _ in 0..20 {
        assert_eq!(*now.borrow(), 1, "it has two at once");
        tokio::time::sleep(crate::TICK).await;
    }
    let other = fleet.s2.session("two").run(async |_| Ok(())).await.expect("a session");
    fleet.done::<()>(second).await;
    other.leave().await.expect("left");
    assert_eq!(*now.borrow(), 1, "somebody else has done the second one");
    let third = fleet.submit(work().with_json(&false).expect("JSON")).await;
    gate.notify_one();
    fleet.done::<()>(waits).await;
    within(now.subscribe().wait_for(|now| *now == 1)).await.expect("there is room again");
    gate.notify_one();
    fleet.done::<()>(third).await;
    fleet.s2.shutdown(GRACE).await;
}

async fn a_claim_that_nobody_waits_for_has_claimed_nothing(on: On) {
    let fleet = on.fleet().await;
    let session = fleet.s2.session("one").join().await.expect("a session");
    for _ in 0..20 {
        let mut next = Box::pin(session.next());
        tokio::select! {
            biased;
            _ = &mut next => panic!("there is nothing"),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        let id = fleet.submit(work()).await;
        drop(next);
        let job = within(session.next()).await.expect("no error").expect("a job");
        assert_eq!((job.task().id, job.attempt()), (id, 1));
        job.complete(&()).await.expect("completed");
    }
    let sessions = fleet.s2.scheduler().sessions(None, 10).await.expect("sessions");
    let one = sessions.iter().find(|info| info.incarnation.session == name("one")).expect("it is there");
    assert_eq!(one.load, 0);
}

async fn a_cancelled_task_that_was_blocked_does_not_go_on(on: On) {
    let fleet = on.fleet().await;
    let awaited = fleet.submit(work().with_start(Duration::from_secs(3600))).await;
    let (said, mut heard) = mpsc::unbounded_channel();
    let session = fleet.s2.session("one").run(move |cx: Context| {
        let said = said.clone();
        async move {
            let answer = cx.blocked(Blocker::new("waits").with_wait(awaited)).await.map(drop);
            said.send(answer.map_err(|error| error.code())).expect("somebody listens");
            Ok(())
        }
    });
    session.await.expect("a session");
    let id = fleet.submit(work()).await;
    fleet.until_state(id, TaskState::Blocked).await;
    fleet.s2.scheduler().cancel(id, "enough".into()).await.expect("cancelled");
    assert_eq!(within(heard.recv()).await, Some(Err("S2_STALE_LEASE")));
    assert_eq!(fleet.state(id).await, TaskState::Cancelled);
    fleet.s2.shutdown(GRACE).await;
}

async fn a_job_that_is_cancelled_says_so_to_its_own_loop(on: On) {
    let fleet = on.fleet().await;
    let session = fleet.s2.session("one").join().await.expect("a session");
    let id = fleet.submit(work()).await;
    let job = within(session.next()).await.expect("no error").expect("a job");
    let (interrupted, cancelled) =
        tokio::join!(within(job.interrupted()), fleet.s2.scheduler().cancel(id, "enough".into()));
    assert!(cancelled.expect("no error"));
    assert!(matches!(interrupted, Interrupted::Lost(s2_coordinator::Loss::Cancelled { .. })), "{interrupted:?}");
    assert_eq!(job.complete(&()).await.expect_err("it is lost").code(), "S2_STALE_LEASE");
}

/// A loop of a host's own, whose handler cannot leave its thread.
#[tokio::test]
async fn a_loop_of_ones_own_may_keep_to_its_thread() {
    let fleet = On::Memory.fleet().await;
    let session = fleet.s2.session("one").join().await.expect("a session");
    let ids = fleet.s2.scheduler().submit(&vec![work(); 3]).await.expect("submitted");
    let (s2, last) = (fleet.s2.clone(), ids[2].id);
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let count = Rc::new(std::cell::Cell::new(0));
            let works = tokio::task::spawn_local(async move {
                while let Some(job) = session.next().await? {
                    let here = Rc::clone(&count);
                    tokio::task::yield_now().await;
                    here.set(here.get() + 1);
                    job.complete(&here.get()).await?;
                }
                Ok::<u32, Error>(count.get())
            });
            assert_eq!(fleet.done::<u32>(last).await, 3);
            s2.shutdown(GRACE).await;
            assert_eq!(within(works).await.expect("no panic").expect("no error"), 3);
        })
        .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_session_is_said_when_it_comes() {
    let fleet = On::Memory.fleet().await;
    let s2 = &fleet.s2;
    for (session, said) in [
        (s2.session("not a name"), "S2_INVALID"),
        (s2.session("one").skills(["not a skill"]), "S2_INVALID"),
        (s2.session("one").concurrency(0), "S2_INVALID"),
        (s2.session("one").concurrency(usize::MAX), "S2_INVALID"),
    ] {
        assert_eq!(session.join().await.expect_err(said).code(), said);
    }
    assert!(s2.scheduler().sessions(None, 10).await.expect("sessions").is_empty());
}

/// Whoever was taken for dead and comes back under its old claim changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_left_still_ends_what_it_has() {
    let fleet = On::Memory.with(quick(), settings(""), false).await;
    let session = fleet.s2.session("one").join().await.expect("a session");
    let id = fleet.submit(work()).await;
    let job = within(session.next()).await.expect("no error").expect("a job");
    session.leave().await.expect("left");
    assert!(within(session.next()).await.expect("no error").is_none());
    job.complete(&1).await.expect("completed");
    assert_eq!(fleet.done::<u32>(id).await, 1);
    let scheduler = Arc::clone(fleet.s2.scheduler());
    let claimant = Claimant::enter(scheduler, &Profile::new(name("two"))).await.expect("a session");
    assert!(claimant.try_claim().await.expect("no error").is_none());
}
