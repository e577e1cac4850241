//! Attempts, and what is given up on.

use std::time::Duration;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{DAY, refused, within};
use crate::conformance::scheduler::kit::{LEASE, MINUTE, SECOND, World, claiming, ids, pause, requiring, task};
use crate::dependency::{Dependency, OnFailure, TaskId};
use crate::ending::{Blocker, Ended, Ending, Retry};
use crate::error::Error;
use crate::outcome::{Cause, Completion, Outcome as Of, RunEnd};
use crate::task::{Submitted, TaskState};

cases! {
    a_failed_attempt_is_followed_by_another: [Scheduler];
    errors_timeouts_and_crashes_count_alike: [Scheduler];
    a_task_with_one_attempt_has_one: [Scheduler];
    handing_back_counts_nothing: [Scheduler];
    a_refusal_counts_nothing_and_goes_to_others: [Scheduler];
    who_refused_is_offered_it_again: [Scheduler];
    giving_up_ends_a_task_at_once: [Scheduler];
    retries_back_off: [Scheduler];
    the_history_says_who_tried_and_how_it_ended: [Scheduler];
    a_task_is_overdue_wherever_it_is: [Scheduler];
    a_failed_task_is_redriven_once: [Scheduler];
    redriving_waits_again_for_what_is_not_finished: [Scheduler];
    only_what_failed_can_be_redriven: [Scheduler];
    cancelling_reaches_a_task_wherever_it_is: [Scheduler];
    a_cancelled_task_stays_cancelled: [Scheduler];
    whoever_waits_is_told_what_became_of_it: [Scheduler];
    what_is_on_hold_waits_again_for_what_is_redriven: [Scheduler];
    redriving_needs_room: [Scheduler];
    redriving_makes_no_cycle: [Scheduler];
    what_somebody_has_decided_stays_decided: [Scheduler];
}

fn fail(delay: Duration) -> Ending {
    Ending::Fail { reason: "flaky".into(), retry: Retry::After(delay) }
}

async fn a_failed_attempt_is_followed_by_another(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let id = world.submit(task()).await?;
    let first = world.grant(&one).await?;
    let Ended::Retrying { at } = world.end(first.lease, fail(MINUTE)).await? else {
        panic!("there are three attempts")
    };
    assert_eq!(at, first.task.submitted + MINUTE);
    assert_eq!((world.state(id).await?, world.scheduler.task(id).await?.failures), (TaskState::Delayed, 1));
    world.advance(MINUTE - Duration::from_micros(1)).await;
    assert_eq!(world.take(&other, 1).await?, []);
    world.advance(Duration::from_micros(1)).await;
    let second = world.grant(&other).await?;
    assert_eq!((second.task.id, second.attempt), (id, 2));
    assert_eq!(world.end(second.lease, fail(Duration::ZERO)).await?, Ended::Retrying { at });
    assert_eq!(world.grant(&one).await?.attempt, 3);
    Ok(())
}

/// Lets the next attempt of the only task end without success in one of several ways.
async fn attempt(world: &World, how: usize, nth: usize) -> Result<(), Error> {
    let session = world.session("one").await?;
    let granted = world.grant(&session).await?;
    assert_eq!(granted.attempt as usize, nth);
    match how {
        0 => drop(world.end(granted.lease, fail(Duration::ZERO)).await?),
        1 => world.advance(LEASE).await,
        2 => {
            // A crash: the session is gone, its lease ends.
            session.leave().await?;
            world.advance(LEASE).await;
        }
        _ => drop(world.session("one").await?),
    }
    Ok(())
}

async fn errors_timeouts_and_crashes_count_alike(given: Given) -> Outcome {
    for attempts in [1, 3] {
        for ways in [[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3], [0, 1, 2], [3, 2, 0]] {
            let world = World::new(&given).await;
            let id = world.submit(task().with_attempts(attempts)).await?;
            for nth in 0..attempts as usize {
                assert!(!world.state(id).await?.is_finished(), "{ways:?}, attempt {nth} of {attempts}");
                attempt(&world, ways[nth], nth + 1).await?;
            }
            let Of::Failed { cause, history } = world.outcome(id).await? else { panic!("it failed") };
            assert_eq!((cause, history.len()), (Cause::Attempts, attempts as usize));
        }
    }
    Ok(())
}

async fn a_task_with_one_attempt_has_one(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task().with_attempts(1)).await?;
    // A reply that was lost is no attempt.
    let claim = session.request(1);
    let first = world.scheduler.take(&claim).await?;
    assert_eq!(world.scheduler.take(&claim).await?, first);
    world.end(first[0].lease, Ending::Release).await?;
    let again = world.grant(&session).await?;
    assert_eq!((again.task.id, again.attempt), (id, 1));
    assert_eq!(world.end(again.lease, fail(SECOND)).await?, Ended::Failed);
    assert_eq!(world.state(id).await?, TaskState::Failed);
    Ok(())
}

async fn handing_back_counts_nothing(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task().with_attempts(1)).await?;
    for _ in 0..20 {
        let granted = world.grant(&session).await?;
        assert_eq!(granted.attempt, 1);
        world.end(granted.lease, Ending::Release).await?;
        assert_eq!(world.state(id).await?, TaskState::Ready);
    }
    Ok(())
}

async fn a_refusal_counts_nothing_and_goes_to_others(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let all = world.submit_all([task().with_attempts(1), task()]).await?;
    let granted = world.grant(&one).await?;
    let refusal = Ending::Refuse { reason: "the budget is spent".into(), delay: Some(MINUTE) };
    let Ended::Refused { until } = world.end(granted.lease, refusal).await? else { panic!("a refusal") };
    assert_eq!(until, granted.task.submitted + MINUTE);
    assert_eq!(world.drain(&one).await?, [all[1]], "it is not offered the same again");
    let next = world.grant(&other).await?;
    assert_eq!((next.task.id, next.attempt), (all[0], 1));
    Ok(())
}

async fn who_refused_is_offered_it_again(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let granted = world.grant(&session).await?;
    let refusal = Ending::Refuse { reason: "the bulkhead is full".into(), delay: Some(MINUTE) };
    world.end(granted.lease, refusal).await?;
    let waiting = claiming(&session);
    world.advance(MINUTE - SECOND).await;
    pause().await;
    assert!(!waiting.is_finished());
    world.advance(SECOND).await;
    let again = within("the offer", waiting).await.expect("no panic")?.expect("open");
    assert_eq!((again.task.id, again.attempt), (id, 1));
    // Without a delay of its own, it backs off like a retry.
    let Ended::Refused { until } = world.end(again.lease, Ending::Refuse { reason: "x".into(), delay: None }).await?
    else {
        panic!("a refusal")
    };
    let delay = until.since(granted.task.submitted + MINUTE);
    assert!(delay >= SECOND / 2 && delay <= SECOND, "{delay:?}");
    Ok(())
}

async fn giving_up_ends_a_task_at_once(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let granted = world.grant(&session).await?;
    let fatal = Ending::Fail { reason: "there is no such file".into(), retry: Retry::Never };
    assert_eq!(world.end(granted.lease, fatal).await?, Ended::Failed);
    let Of::Failed { cause, history } = world.outcome(id).await? else { panic!("it failed") };
    assert_eq!((cause, history.len()), (Cause::Fatal, 1));
    Ok(())
}

async fn retries_back_off(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    world.submit(task().with_attempts(5)).await?;
    for full in [1, 2, 4, 8] {
        let granted = world.grant(&session).await?;
        let backoff = Ending::Fail { reason: "flaky".into(), retry: Retry::Backoff };
        let Ended::Retrying { at } = world.end(granted.lease, backoff).await? else { panic!("another attempt") };
        let delay = at.since(granted.deadline - LEASE);
        let full = Duration::from_secs(full);
        assert!(delay >= full / 2 && delay <= full, "{delay:?} of {full:?}");
        world.advance(delay).await;
    }
    Ok(())
}

async fn the_history_says_who_tried_and_how_it_ended(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let id = world.submit(task().with_attempts(4)).await?;
    let mut tokens = Vec::new();
    let first = world.grant(&one).await?;
    tokens.push(first.lease.token);
    world.advance(SECOND).await;
    world.end(first.lease, fail(Duration::ZERO)).await?;
    tokens.push(world.grant(&other).await?.lease.token);
    world.advance(MINUTE).await;
    tokens.push(world.grant(&one).await?.lease.token);
    let again = world.session("one").await?;
    let last = world.grant(&again).await?;
    tokens.push(last.lease.token);
    again.leave().await?;
    world.advance(MINUTE).await;
    let Of::Failed { history, .. } = world.outcome(id).await? else { panic!("it failed") };
    let start = first.task.submitted;
    let seen: Vec<_> =
        history.iter().map(|run| (run.session.as_str(), run.started, run.ended, run.end.clone())).collect();
    assert_eq!(
        seen,
        [
            ("one", start, start + SECOND, RunEnd::Failed { reason: "flaky".into() }),
            ("other", start + SECOND, start + SECOND + LEASE, RunEnd::TimedOut),
            ("one", start + SECOND + MINUTE, start + SECOND + MINUTE, RunEnd::Lost),
            ("one", start + SECOND + MINUTE, start + SECOND + MINUTE + LEASE, RunEnd::Lost),
        ]
    );
    assert_eq!(history.iter().map(|run| run.token).collect::<Vec<_>>(), tokens);
    Ok(())
}

async fn a_task_is_overdue_wherever_it_is(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let due = || task().with_deadline(MINUTE);
    let first = world.submit(task().with_start(DAY)).await?;
    let claimed = world.submit(due().with_lease(DAY)).await?;
    let held = world.grant(&session).await?;
    assert_eq!(held.task.id, claimed);
    let all = world.submit_all([due().after(first), due().with_start(DAY), due()]).await?;
    let kept = world.submit(due()).await?;
    world.advance(MINUTE - SECOND).await;
    let granted = world.take(&session, 2).await?;
    assert_eq!(ids(&granted), [all[2], kept]);
    world.complete(granted[1].lease).await?;
    world.end(granted[0].lease, Ending::Release).await?;
    world.advance(SECOND).await;
    for id in all.into_iter().chain([claimed]) {
        let Of::Failed { cause, .. } = world.outcome(id).await? else { panic!("it is overdue") };
        assert_eq!(cause, Cause::Overdue);
    }
    refused!(world.complete(held.lease).await, Error::StaleLease { current: None, .. });
    assert_eq!(world.state(kept).await?, TaskState::Done);
    Ok(())
}

async fn a_failed_task_is_redriven_once(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task().with_attempts(1)).await?;
    let fails = async || -> Result<(), Error> {
        let granted = world.grant(&session).await?;
        assert_eq!((granted.task.id, granted.attempt), (id, 1));
        world.end(granted.lease, fail(SECOND)).await?;
        Ok(())
    };
    fails().await?;
    assert_eq!(
        world.scheduler.redrive(&[id, id]).await?,
        [Submitted { id, duplicate: false }, Submitted { id, duplicate: true }]
    );
    assert_eq!(world.scheduler.redrive(&[id]).await?, [Submitted { id, duplicate: true }]);
    fails().await?;
    assert!(!world.scheduler.redrive(&[id]).await?[0].duplicate, "it has failed again");
    assert_eq!(world.drain(&session).await?, [id]);
    assert!(world.scheduler.redrive(&[id]).await?[0].duplicate, "it was redriven, and is done");
    Ok(())
}

async fn redriving_waits_again_for_what_is_not_finished(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let first = world.submit(task().with_attempts(1)).await?;
    let second = world.submit(task().after(first)).await?;
    let third = world.submit(task().after(second)).await?;
    let granted = world.grant(&session).await?;
    world.end(granted.lease, fail(SECOND)).await?;
    assert_eq!(world.state(third).await?, TaskState::Failed);
    refused!(world.scheduler.redrive(&[second]).await, Error::WrongState { task, .. } if task == first);
    refused!(world.scheduler.redrive(&[third, second, first]).await, Error::WrongState { task, .. } if task == second);
    assert_eq!(world.scheduler.stats().await?.unfinished(), 0, "then none was redriven");
    world.scheduler.redrive(&[first, second, third]).await?;
    assert_eq!(world.drain(&session).await?, [first, second, third]);
    Ok(())
}

async fn only_what_failed_can_be_redriven(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let done = world.submit(task()).await?;
    world.drain(&session).await?;
    let (ready, cancelled) = (world.submit(task()).await?, world.submit(task()).await?);
    world.scheduler.cancel(cancelled, "no".into()).await?;
    assert!(!world.scheduler.redrive(&[cancelled]).await?[0].duplicate, "somebody has thought better of it");
    for (id, state) in [(done, TaskState::Done), (ready, TaskState::Ready)] {
        let answer = world.scheduler.redrive(&[id]).await;
        refused!(answer, Error::WrongState { task, state: is, .. } if task == id && is == state);
    }
    refused!(world.scheduler.redrive(&[TaskId::new(4)]).await, Error::UnknownTask { .. });
    assert_eq!(world.scheduler.redrive(&[]).await?, []);
    Ok(())
}

async fn cancelling_reaches_a_task_wherever_it_is(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let running = world.submit(task()).await?;
    let held = world.grant(&session).await?;
    let waiting = world.submit(task().after(running)).await?;
    let all = [waiting, world.submit(task().with_start(DAY)).await?, world.submit(task()).await?];
    let lost = tokio::spawn({
        let (scheduler, lease) = (std::sync::Arc::clone(&world.scheduler), held.lease);
        async move { scheduler.lost(&lease).await }
    });
    for id in all.into_iter().chain([running]) {
        assert!(world.scheduler.cancel(id, "not needed".into()).await?);
        assert!(world.scheduler.cancel(id, "not needed".into()).await?, "repeated");
        assert_eq!(world.outcome(id).await?, Of::Cancelled { reason: "not needed".into() });
    }
    let loss = within("the holder to hear of it", lost).await.expect("no panic")?;
    assert_eq!(loss, crate::lease::Loss::Cancelled { reason: "not needed".into() });
    refused!(world.complete(held.lease).await, Error::StaleLease { current: None, .. });
    assert_eq!(world.take(&session, 5).await?, []);
    Ok(())
}

async fn a_cancelled_task_stays_cancelled(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let delayed = world.submit(task().with_start(MINUTE)).await?;
    world.scheduler.cancel(delayed, "no".into()).await?;
    world.advance(DAY).await;
    assert_eq!(world.drain(&session).await?, []);
    let done = world.submit(task()).await?;
    world.drain(&session).await?;
    assert!(!world.scheduler.cancel(done, "no".into()).await?, "it is done");
    assert_eq!(world.state(done).await?, TaskState::Done);
    refused!(world.scheduler.cancel(TaskId::new(4), "no".into()).await, Error::UnknownTask { .. });
    Ok(())
}

async fn whoever_waits_is_told_what_became_of_it(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let all = world.submit_all([task(), task(), task()]).await?;
    let waits: Vec<_> = all
        .iter()
        .map(|&id| {
            let scheduler = std::sync::Arc::clone(&world.scheduler);
            tokio::spawn(async move { scheduler.wait(id).await })
        })
        .collect();
    pause().await;
    assert_eq!(world.scheduler.outcome(all[0]).await?, None);
    let granted = world.take(&session, 2).await?;
    world.complete(granted[0].lease).await?;
    world.end(granted[1].lease, Ending::Fail { reason: "x".into(), retry: Retry::Never }).await?;
    world.scheduler.cancel(all[2], "no".into()).await?;
    for (id, wait) in all.iter().zip(waits) {
        let told = within("the outcome", wait).await.expect("no panic")?;
        assert_eq!(Some(&told), world.scheduler.outcome(*id).await?.as_ref());
        assert_eq!(told, world.scheduler.wait(*id).await?, "also when it has long been over");
    }
    Ok(())
}

async fn what_is_on_hold_waits_again_for_what_is_redriven(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let first = world.submit(task().with_attempts(1)).await?;
    let held = Dependency::on(first).with_on_failure(OnFailure::Hold);
    let held = world.submit(task().after(held)).await?;
    let granted = world.grant(&session).await?;
    world.end(granted.lease, fail(SECOND)).await?;
    assert_eq!(world.state(held).await?, TaskState::OnHold);
    world.scheduler.redrive(&[first, held]).await?;
    assert_eq!(world.state(held).await?, TaskState::Waiting);
    assert_eq!(world.drain(&session).await?, [first, held]);
    Ok(())
}

async fn redriving_needs_room(given: Given) -> Outcome {
    let world = World::with(&given, |config| {
        config.limits.tasks = 2;
        config.limits.classes = 1;
    })
    .await;
    let session = world.session("one").await?;
    let failed = world.submit(task()).await?;
    let held = Dependency::on(failed).with_on_failure(OnFailure::Hold);
    let held = world.submit(task().after(held)).await?;
    let granted = world.grant(&session).await?;
    world.end(granted.lease, Ending::Fail { reason: "x".into(), retry: Retry::Never }).await?;
    let other = world.submit(task()).await?;
    refused!(world.scheduler.redrive(&[failed]).await, Error::LimitExceeded { limit: "tasks", .. });
    world.scheduler.redrive(&[held]).await?;
    world.scheduler.cancel(other, "x".into()).await?;
    world.scheduler.cancel(held, "x".into()).await?;
    let special = world.submit(requiring(&["a"])).await?;
    refused!(world.scheduler.redrive(&[failed]).await, Error::LimitExceeded { limit: "classes", .. });
    world.scheduler.cancel(special, "x".into()).await?;
    world.scheduler.redrive(&[failed]).await?;
    // What follows from a task that ends has its room.
    let world = World::with(&given, |config| config.limits.tasks = 1).await;
    let session = world.session("one").await?;
    world.submit(task()).await?;
    let granted = world.grant(&session).await?;
    let next = Completion::new().with_task(task());
    refused!(
        world.end(granted.lease, Ending::Complete(next.clone().with_task(task()))).await,
        Error::LimitExceeded { limit: "tasks", .. }
    );
    world.end(granted.lease, Ending::Complete(next)).await?;
    Ok(())
}

async fn redriving_makes_no_cycle(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let first = world.submit(task()).await?;
    let held = Dependency::on(first).with_on_failure(OnFailure::Hold);
    let held = world.submit(task().after(held)).await?;
    let granted = world.grant(&session).await?;
    world.end(granted.lease, Ending::Fail { reason: "x".into(), retry: Retry::Never }).await?;
    world.scheduler.redrive(&[first]).await?;
    let granted = world.grant(&session).await?;
    assert_eq!(granted.task.id, first);
    world.end(granted.lease, Ending::Block(Blocker::new("x").with_wait(held))).await?;
    let answer = world.scheduler.redrive(&[held]).await;
    let Err(Error::DependencyCycle { cycle }) = answer else { panic!("it waits for what waits for it: {answer:?}") };
    assert_eq!(cycle, [held.into(), first.into()]);
    assert_eq!(world.state(held).await?, TaskState::OnHold);
    Ok(())
}

async fn what_somebody_has_decided_stays_decided(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let first = world.submit(task()).await?;
    let held = Dependency::on(first).with_on_failure(OnFailure::Hold);
    let held = world.submit(task().after(held).with_attempts(1)).await?;
    world.scheduler.cancel(first, "not needed".into()).await?;
    for _ in 0..3 {
        assert!(!world.scheduler.redrive(&[held]).await?[0].duplicate);
        let granted = world.grant(&session).await?;
        assert_eq!(granted.task.id, held);
        world.end(granted.lease, fail(SECOND)).await?;
    }
    // Of two that failed, one because of the other, both come back in this order only.
    let second = world.submit(task().after(held)).await?;
    assert_eq!(world.state(second).await?, TaskState::Failed);
    refused!(world.scheduler.redrive(&[second, held]).await, Error::WrongState { task, .. } if task == held);
    world.scheduler.redrive(&[held, second]).await?;
    assert_eq!(world.drain(&session).await?, [held, second]);
    Ok(())
}
