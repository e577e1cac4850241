//! Guards: sessions, tasks that are held, tasks that are blocked.

use std::time::Duration;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{refused, within};
use crate::conformance::scheduler::kit::{LEASE, MINUTE, SECOND, World, claiming, pause, task};
use crate::ending::{Blocker, Ended};
use crate::error::Error;
use crate::lease::Loss;
use crate::outcome::Completion;
use crate::task::TaskState;

cases! {
    a_guard_renews_its_claim: [Scheduler];
    a_guard_that_is_dropped_releases_its_task: [Scheduler];
    a_guard_that_is_given_up_renews_nothing: [Scheduler];
    a_guard_hears_that_its_task_is_lost: [Scheduler];
    a_guard_ends_its_claim_once: [Scheduler];
    a_guard_is_given_back_by_what_fails: [Scheduler];
    a_guard_completes_and_claims_the_next: [Scheduler];
    several_are_completed_in_one_call: [Scheduler];
    a_blocked_task_is_resumed_by_its_guard: [Scheduler];
    a_session_stays_as_long_as_a_guard: [Scheduler];
    a_session_that_is_dropped_has_left: [Scheduler];
    a_handler_that_panics_uses_up_its_attempts: [Scheduler];
}

async fn a_guard_renews_its_claim(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let held = session.claim().await?.expect("open");
    let deadline = async || match world.scheduler.why(id).await? {
        crate::why::Why::Running { deadline, .. } => Ok::<_, Error>(deadline),
        other => panic!("it is held: {other:?}"),
    };
    for _ in 0..12 {
        let before = deadline().await?;
        world.advance(LEASE / 3).await;
        let renewed = async {
            while deadline().await? <= before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok::<_, Error>(())
        };
        within("the renewal", renewed).await?;
    }
    assert_eq!(world.scheduler.task(id).await?.failures, 0);
    held.complete(Completion::new()).await?;
    assert_eq!(world.state(id).await?, TaskState::Done);
    Ok(())
}

async fn a_guard_that_is_dropped_releases_its_task(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task().with_attempts(1)).await?;
    for _ in 0..5 {
        let held = within("a claim", session.claim()).await?.expect("open");
        assert_eq!((held.task.id, held.attempt), (id, 1));
        drop(held);
    }
    // Also with the future that works on it.
    let work = tokio::spawn({
        let session = session.clone();
        async move {
            let _held = session.claim().await.expect("no error").expect("open");
            std::future::pending::<()>().await;
        }
    });
    world.until(id, TaskState::Claimed).await?;
    work.abort();
    world.until(id, TaskState::Ready).await?;
    Ok(())
}

async fn a_guard_that_is_given_up_renews_nothing(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let granted = session.claim().await?.expect("open").into_grant();
    assert_eq!(world.state(id).await?, TaskState::Claimed, "it is not released");
    world.advance(LEASE).await;
    assert_eq!(world.scheduler.task(id).await?.failures, 1);
    refused!(world.complete(granted.lease).await, Error::StaleLease { .. });
    Ok(())
}

async fn a_guard_hears_that_its_task_is_lost(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let held = session.claim().await?.expect("open");
    world.scheduler.cancel(id, "not needed".into()).await?;
    let loss = within("the loss", held.lost()).await?;
    assert_eq!(loss, Loss::Cancelled { reason: "not needed".into() });
    let late = held.complete(Completion::new()).await.expect_err("it is cancelled");
    refused!(Err::<(), _>(*late.error), Error::StaleLease { current: None, .. });
    Ok(())
}

async fn a_guard_ends_its_claim_once(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let ids = world.submit_all((0..6).map(|_| task())).await?;
    let mut held = session.claim_batch(6).await?;
    let mut next = || held.remove(0);
    next().complete(Completion::new()).await?;
    assert!(matches!(next().fail("flaky").await?, Ended::Retrying { .. }));
    assert!(matches!(next().retry_after(MINUTE, "later").await?, Ended::Retrying { .. }));
    assert_eq!(next().give_up("no").await?, Ended::Failed);
    assert_eq!(next().release().await?, Ended::Released);
    assert!(matches!(next().refuse("not now", Some(MINUTE)).await?, Ended::Refused { .. }));
    use TaskState::{Delayed, Done, Failed, Ready};
    for (id, state) in ids.into_iter().zip([Done, Delayed, Delayed, Failed, Ready, Ready]) {
        assert_eq!(world.state(id).await?, state);
        assert!(world.scheduler.task(id).await?.failures <= 1);
    }
    Ok(())
}

async fn a_guard_is_given_back_by_what_fails(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let held = session.claim().await?.expect("open");
    let long = "x".repeat(1025);
    let not_ended = held.fail(long).await.expect_err("the reason is too long");
    refused!(Err::<(), _>(*not_ended.error), Error::LimitExceeded { limit: "reason_bytes", .. });
    assert_eq!(world.state(id).await?, TaskState::Claimed, "it is still held");
    not_ended.held.complete(Completion::new()).await?;
    assert_eq!(world.state(id).await?, TaskState::Done);
    Ok(())
}

async fn a_guard_completes_and_claims_the_next(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let ids = world.submit_all((0..20).map(|_| task())).await?;
    let (mut done, mut held) = (Vec::new(), session.claim().await?);
    while let Some(current) = held.take() {
        done.push(current.task.id);
        (_, held) = current.complete_and_claim(Completion::new()).await?;
    }
    assert_eq!(done, ids);
    Ok(())
}

async fn several_are_completed_in_one_call(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let ids = world.submit_all((0..100).map(|_| task())).await?;
    let mut held = session.claim_batch(64).await?;
    let mut done = Vec::new();
    world.scheduler.cancel(ids[5], "not needed".into()).await?;
    while !held.is_empty() {
        done.extend(held.iter().map(|held| held.task.id));
        let completed = held.into_iter().map(|held| (held, Completion::new())).collect();
        let all = session.complete_all(completed, 64).await?;
        for (nth, ended) in all.ended.into_iter().enumerate() {
            assert_eq!(ended.is_err(), done.len() == 64 && nth == 5);
        }
        held = all.claimed;
    }
    assert_eq!(done, ids);
    assert_eq!(world.scheduler.stats().await?.count(TaskState::Done), 99);
    Ok(())
}

async fn a_blocked_task_is_resumed_by_its_guard(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    let id = world.submit(task()).await?;
    let held = owner.claim().await?.expect("open");
    let token = held.lease.token;
    let mut blocked = held.block(Blocker::new("x").with_help(task())).await?;
    assert_eq!((blocked.task().id, blocked.help().len()), (id, 1));
    let given_up = tokio::time::timeout(Duration::from_millis(5), blocked.resume()).await;
    assert!(given_up.is_err(), "the help is not there");
    let help = within("a claim", helper.claim()).await?.expect("open");
    help.complete(Completion::new().with_json(&"offer PCMU")?).await?;
    let resumed = within("the resumption", blocked.resume()).await?;
    assert!(resumed.lease.token > token);
    let answer = world.outcome(resumed.answers[0]).await?;
    assert_eq!(answer.result().expect("it is done").json::<String>()?, "offer PCMU");
    refused!(blocked.resume().await, Error::StaleLease { .. });
    drop(blocked);
    resumed.complete(Completion::new()).await?;
    assert_eq!(world.state(id).await?, TaskState::Done);
    Ok(())
}

async fn a_session_stays_as_long_as_a_guard(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let held = session.claim().await?.expect("open");
    drop(session);
    assert_eq!(world.scheduler.sessions(None, 10).await?.len(), 1);
    let mut blocked = held.block(Blocker::new("waits for a person")).await?;
    world.advance(MINUTE).await;
    assert_eq!(world.state(id).await?, TaskState::Blocked);
    world.scheduler.unblock(id).await?;
    let resumed = within("the resumption", blocked.resume()).await?;
    resumed.complete(Completion::new()).await?;
    drop(blocked);
    world.until_nobody_is_there().await
}

async fn a_session_that_is_dropped_has_left(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let waiting = claiming(&session);
    drop(session);
    pause().await;
    assert_eq!(world.scheduler.sessions(None, 10).await?.len(), 1, "a claim of it waits");
    let id = world.submit(task()).await?;
    let granted = within("the claim", waiting).await.expect("no panic")?.expect("open");
    world.until_nobody_is_there().await?;
    world.advance(SECOND).await;
    world.complete(granted.lease).await?;
    assert_eq!(world.state(id).await?, TaskState::Done);
    Ok(())
}

async fn a_handler_that_panics_uses_up_its_attempts(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.backoff.base = Duration::ZERO).await;
    let session = world.session("one").await?;
    let id = world.submit(task().with_attempts(2)).await?;
    for attempt in 1..=2 {
        let held = within("a claim", session.claim()).await?.expect("open");
        assert_eq!((held.task.id, held.attempt), (id, attempt));
        let handling = tokio::spawn(async move {
            let _held = held;
            std::panic::resume_unwind(Box::new("the handler is broken"));
        });
        assert!(handling.await.is_err_and(|error| error.is_panic()));
    }
    world.until(id, TaskState::Failed).await?;
    Ok(())
}
