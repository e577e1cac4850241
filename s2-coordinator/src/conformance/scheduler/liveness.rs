//! Who is alive, and who only seems to be.

use std::time::Duration;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{inbox_of, refused};
use crate::conformance::scheduler::kit::{LEASE, MINUTE, SECOND, World, task};
use crate::ending::{Blocker, Ending};
use crate::error::Error;
use crate::escalation::{EscalationId, Resolution};
use crate::lease::Loss;
use crate::outcome::{Cause, Outcome as TaskOutcome, RunEnd};
use crate::registry::SessionState;
use crate::task::TaskState;

cases! {
    who_makes_no_progress_loses_the_task: [Scheduler];
    who_makes_progress_keeps_it: [Scheduler];
    a_guard_reports_progress: [Scheduler];
    without_a_limit_nobody_has_to_make_progress: [Scheduler];
    sessions_say_what_they_do: [Scheduler];
    a_fleet_that_stands_still_is_reported_once: [Scheduler];
    a_fleet_that_has_nothing_to_do_stands_still: [Scheduler];
}

async fn who_makes_no_progress_loses_the_task(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.progress = MINUTE).await;
    let session = world.session("one").await?;
    let id = world.submit(task().with_attempts(1)).await?;
    let granted = world.grant(&session).await?;
    for passed in [20, 40, 59] {
        world.advance(Duration::from_secs(if passed == 59 { 19 } else { 20 })).await;
        let until = granted.task.submitted + (MINUTE.min(Duration::from_secs(passed) + LEASE));
        assert_eq!(world.renew(granted.lease).await?, until, "after {passed} s");
    }
    world.advance(SECOND).await;
    refused!(world.renew(granted.lease).await, Error::StaleLease { .. });
    refused!(world.scheduler.progress(&granted.lease).await, Error::StaleLease { .. });
    assert_eq!(world.scheduler.lost(&granted.lease).await?, Loss::Stalled);
    let TaskOutcome::Failed { cause: Cause::Attempts, history } = world.outcome(id).await? else { panic!("it failed") };
    assert_eq!((history.len(), &history[0].end), (1, &RunEnd::Stalled));
    assert!(world.operations().await?.contains(&"task.stalled".to_owned()));
    Ok(())
}

async fn who_makes_progress_keeps_it(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.progress = MINUTE).await;
    let session = world.session("one").await?;
    world.submit(task()).await?;
    let granted = world.grant(&session).await?;
    let mut now = granted.task.submitted;
    for _ in 0..10 {
        world.advance(LEASE - SECOND).await;
        now = now + (LEASE - SECOND);
        assert_eq!(world.scheduler.progress(&granted.lease).await?, now + LEASE, "it renews, too");
    }
    world.complete(granted.lease).await?;
    refused!(world.scheduler.progress(&granted.lease).await, Error::StaleLease { current: None, .. });
    Ok(())
}

async fn a_guard_reports_progress(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.progress = 20 * SECOND).await;
    let session = world.session("one").await?;
    world.submit(task()).await?;
    let held = session.claim().await?.expect("open");
    for _ in 0..3 {
        world.advance(19 * SECOND).await;
        held.progress().await?;
    }
    world.advance(20 * SECOND).await;
    assert_eq!(held.lost().await?, Loss::Stalled);
    assert!(held.progress().await.is_err());
    Ok(())
}

async fn without_a_limit_nobody_has_to_make_progress(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.progress = Duration::MAX).await;
    let session = world.session("one").await?;
    world.submit(task()).await?;
    let granted = world.grant(&session).await?;
    for _ in 0..200 {
        world.advance(LEASE - SECOND).await;
        world.renew(granted.lease).await?;
    }
    world.complete(granted.lease).await?;
    Ok(())
}

async fn sessions_say_what_they_do(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let state = async || -> Result<SessionState, Error> { Ok(world.scheduler.sessions(None, 10).await?[0].state) };
    assert_eq!(state().await?, SessionState::Idle);
    world.submit_all([task(), task()]).await?;
    let first = world.grant(&session).await?;
    assert_eq!(state().await?, SessionState::Working);
    world.end(first.lease, Ending::Block(Blocker::new("waits for a person"))).await?;
    assert_eq!(state().await?, SessionState::Blocked);
    let second = world.grant(&session).await?;
    assert_eq!(state().await?, SessionState::Working, "whatever else it waits for");
    world.end(second.lease, Ending::Block(Blocker::new("x").with_help(task()))).await?;
    assert_eq!(state().await?, SessionState::WaitingOn);
    Ok(())
}

async fn a_fleet_that_stands_still_is_reported_once(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.flatline = 10 * MINUTE).await;
    let inbox = inbox_of(&*world.fleet);
    let asked = async || inbox.pending(EscalationId::default(), 10).await;
    let session = world.session("one").await?;
    world.submit(task().with_attempts(10)).await?;
    world.advance(10 * MINUTE - SECOND).await;
    assert_eq!(asked().await?, []);
    world.advance(SECOND).await;
    assert_eq!(
        asked().await?.iter().map(|it| (it.key.to_string(), it.times)).collect::<Vec<_>>(),
        [("flatline".into(), 1)]
    );
    world.advance(60 * MINUTE).await;
    assert_eq!(asked().await?[0].times, 1, "once");
    // Somebody comes, goes on, and stops again.
    let first = asked().await?[0].id;
    inbox.resolve(first, Resolution::new("ops", "started a session")).await?;
    let granted = world.grant(&session).await?;
    world.advance(LEASE - SECOND).await;
    world.scheduler.progress(&granted.lease).await?;
    world.advance(10 * MINUTE - SECOND).await;
    assert_eq!(asked().await?, []);
    world.advance(SECOND).await;
    assert_eq!(asked().await?.len(), 1);
    Ok(())
}

async fn a_fleet_that_has_nothing_to_do_stands_still(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let inbox = inbox_of(&*world.fleet);
    let session = world.session("one").await?;
    world.submit(task()).await?;
    world.drain(&session).await?;
    world.submit(task().with_start(120 * MINUTE)).await?;
    world.advance(100 * MINUTE).await;
    let id = world.submit(task()).await?;
    world.advance(29 * MINUTE).await;
    assert_eq!(inbox.pending(EscalationId::default(), 10).await?, [], "it counts from when there is something to do");
    assert_eq!(world.state(id).await?, TaskState::Ready);
    world.advance(MINUTE).await;
    assert_eq!(inbox.pending(EscalationId::default(), 10).await?.len(), 1);
    Ok(())
}
