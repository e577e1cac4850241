//! What must be done first.

use std::collections::HashMap;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::refused;
use crate::conformance::scheduler::kit::{World, done, ids, key_of, keyed, task};
use crate::dependency::{Dependency, OnFailure, TaskId};
use crate::ending::{Ending, Retry};
use crate::error::Error;
use crate::new_task::NewTask;
use crate::outcome::{Cause, Outcome as Of};
use crate::task::TaskState;

cases! {
    what_is_needed_comes_first: [Scheduler];
    a_diamond_ends_in_order: [Scheduler];
    ten_thousand_tasks_end_in_a_valid_order: [Scheduler];
    a_failed_dependency_acts_as_asked: [Scheduler];
    a_cancelled_dependency_counts_as_failed: [Scheduler];
    what_is_over_already_acts_as_asked: [Scheduler];
    failure_runs_down_a_chain: [Scheduler];
    the_strictest_of_several_failures_counts: [Scheduler];
    a_crowd_is_released_over_many_steps: [Scheduler];
    what_waits_and_is_cancelled_is_not_released: [Scheduler];
    a_task_waits_once_for_what_is_named_twice: [Scheduler];
    what_is_redriven_while_it_is_told_tells_the_rest_anew: [Scheduler];
}

fn after(on: TaskId, on_failure: OnFailure) -> NewTask {
    task().after(Dependency::on(on).with_on_failure(on_failure))
}

async fn what_is_needed_comes_first(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let first = world.submit(task()).await?;
    let second = world.submit(task().after(first)).await?;
    assert_eq!(world.state(second).await?, TaskState::Waiting);
    let granted = world.take(&session, 5).await?;
    assert_eq!(ids(&granted), [first]);
    world.complete(granted[0].lease).await?;
    assert_eq!(world.state(second).await?, TaskState::Ready);
    assert_eq!(world.drain(&session).await?, [second]);
    let third = world.submit(task().after(first).after(second)).await?;
    assert_eq!(world.drain(&session).await?, [third], "what is done is not waited for");
    Ok(())
}

async fn a_diamond_ends_in_order(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let batch = [
        keyed("bottom").after(key_of("left")).after(key_of("right")),
        keyed("left").after(key_of("top")),
        keyed("right").after(key_of("top")),
        keyed("top"),
    ];
    let all = world.submit_all(batch).await?;
    assert_eq!(ids(&world.take(&session, 5).await?), [all[3]]);
    let top = world.scheduler.task(all[3]).await?;
    assert_eq!(top.state, TaskState::Claimed);
    world.scheduler.cancel(all[3], "start again".into()).await?;
    let again = [
        keyed("bottom-2").after(key_of("left-2")).after(key_of("right-2")),
        keyed("left-2").after(key_of("top-2")),
        keyed("right-2").after(key_of("top-2")),
        keyed("top-2"),
    ];
    let all = world.submit_all(again).await?;
    assert_eq!(world.drain(&session).await?, [all[3], all[1], all[2], all[0]]);
    Ok(())
}

async fn ten_thousand_tasks_end_in_a_valid_order(given: Given) -> Outcome {
    const TASKS: usize = 10_000;
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    // Each waits for up to three earlier ones, near and far.
    let waits = |nth: usize| {
        let mut on = vec![nth / 2, nth.saturating_sub(1 + nth % 7), nth.saturating_sub(nth % 97)];
        on.retain(|on| *on < nth);
        on.sort_unstable();
        on.dedup();
        on
    };
    let new = |nth: usize| {
        let key = |nth: usize| key_of(&format!("task-{nth}"));
        waits(nth).into_iter().fold(keyed(&format!("task-{nth}")), |new, on| new.after(key(on)))
    };
    let all = world.submit_all((0..TASKS).map(new)).await?;
    let nth: HashMap<TaskId, usize> = all.iter().enumerate().map(|(nth, id)| (*id, nth)).collect();
    let mut done_at = vec![None; TASKS];
    let (mut count, mut granted) = (0, world.take(&session, 500).await?);
    while !granted.is_empty() {
        for grant in &granted {
            let nth = nth[&grant.task.id];
            assert!(waits(nth).into_iter().all(|on| done_at[on].is_some_and(|at| at < count)), "{nth} is too early");
        }
        count += 1;
        granted.iter().for_each(|grant| done_at[nth[&grant.task.id]] = Some(count - 1));
        let endings = granted.iter().map(|grant| (grant.lease, done())).collect();
        let all = world.scheduler.end(endings, Some(&session.request(500))).await?;
        all.ended.into_iter().collect::<Result<Vec<_>, _>>()?;
        granted = all.granted;
        while granted.is_empty() && world.scheduler.stats().await?.unfinished() > 0 {
            granted = world.take(&session, 500).await?;
        }
    }
    assert_eq!(world.scheduler.stats().await?.count(TaskState::Done), TASKS as u64);
    Ok(())
}

async fn a_failed_dependency_acts_as_asked(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let first = world.submit(task()).await?;
    let fails = world.submit(task().after(first)).await?;
    let holds = world.submit(after(first, OnFailure::Hold)).await?;
    let runs = world.submit(after(first, OnFailure::Run)).await?;
    let granted = world.grant(&session).await?;
    world.end(granted.lease, Ending::Fail { reason: "no".into(), retry: Retry::Never }).await?;
    let of = Of::Failed { cause: Cause::Dependency { task: first }, history: Vec::new() };
    assert_eq!(world.outcome(fails).await?, of);
    assert_eq!(world.state(holds).await?, TaskState::OnHold);
    assert_eq!(world.drain(&session).await?, [runs]);
    // Somebody decides: it goes on without.
    assert!(!world.scheduler.redrive(&[holds]).await?[0].duplicate);
    assert_eq!(world.drain(&session).await?, [holds]);
    Ok(())
}

async fn a_cancelled_dependency_counts_as_failed(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let first = world.submit(task()).await?;
    let [fails, holds, runs] = [OnFailure::Fail, OnFailure::Hold, OnFailure::Run].map(|it| after(first, it));
    let all = world.submit_all([fails, holds, runs]).await?;
    world.scheduler.cancel(first, "not needed".into()).await?;
    for (id, state) in all.into_iter().zip([TaskState::Failed, TaskState::OnHold, TaskState::Ready]) {
        assert_eq!(world.state(id).await?, state);
    }
    Ok(())
}

async fn what_is_over_already_acts_as_asked(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let first = world.submit(task()).await?;
    world.scheduler.cancel(first, "not needed".into()).await?;
    for (on_failure, state) in
        [(OnFailure::Fail, TaskState::Failed), (OnFailure::Hold, TaskState::OnHold), (OnFailure::Run, TaskState::Ready)]
    {
        let id = world.submit(after(first, on_failure)).await?;
        assert_eq!(world.state(id).await?, state);
    }
    Ok(())
}

async fn failure_runs_down_a_chain(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let link = |nth: usize| {
        let link = keyed(&format!("link-{nth}"));
        if nth == 0 { link } else { link.after(key_of(&format!("link-{}", nth - 1))) }
    };
    let chain = world.submit_all((0..1_200).map(link)).await?;
    world.scheduler.cancel(chain[0], "not needed".into()).await?;
    world.until(chain[1_199], TaskState::Failed).await?;
    let of = Of::Failed { cause: Cause::Dependency { task: chain[1_198] }, history: Vec::new() };
    assert_eq!(world.outcome(chain[1_199]).await?, of);
    assert_eq!(world.scheduler.stats().await?.unfinished(), 0);
    Ok(())
}

async fn the_strictest_of_several_failures_counts(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.submit(task()).await?, world.submit(task()).await?);
    let both = task()
        .after(Dependency::on(one).with_on_failure(OnFailure::Hold))
        .after(Dependency::on(other).with_on_failure(OnFailure::Fail));
    let id = world.submit(both.clone()).await?;
    world.scheduler.cancel(one, "no".into()).await?;
    assert_eq!(world.state(id).await?, TaskState::OnHold);
    world.scheduler.cancel(other, "no".into()).await?;
    assert_eq!(world.state(id).await?, TaskState::Failed);
    let late = world.submit(both).await?;
    assert_eq!(world.state(late).await?, TaskState::Failed);
    // Redriven, what failed because of something still does.
    refused!(world.scheduler.redrive(&[late]).await, Error::WrongState { task, .. } if task == other);
    Ok(())
}

async fn a_crowd_is_released_over_many_steps(given: Given) -> Outcome {
    const CROWD: usize = 1_700;
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let first = world.submit(task()).await?;
    let crowd = world.submit_all((0..CROWD).map(|_| task().after(first))).await?;
    let granted = world.grant(&session).await?;
    world.complete(granted.lease).await?;
    let mut released = Vec::new();
    while released.len() < CROWD {
        let granted = world.take(&session, 100).await?;
        released.extend(ids(&granted));
        for grant in granted {
            world.complete(grant.lease).await?;
        }
    }
    assert_eq!(released, crowd, "in the order in which they were submitted");
    Ok(())
}

async fn what_waits_and_is_cancelled_is_not_released(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let first = world.submit(task()).await?;
    let waits = world.submit_all([task().after(first), task().after(first)]).await?;
    world.scheduler.cancel(waits[0], "not needed".into()).await?;
    assert_eq!(world.drain(&session).await?, [first, waits[1]]);
    assert_eq!(world.state(waits[0]).await?, TaskState::Cancelled);
    Ok(())
}

async fn a_task_waits_once_for_what_is_named_twice(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let first = world.submit(keyed("first")).await?;
    let second = world.submit(task().after(first).after(key_of("first"))).await?;
    assert_eq!(world.scheduler.task(second).await?.task.after.len(), 1);
    assert_eq!(world.drain(&session).await?, [first, second]);
    Ok(())
}

async fn what_is_redriven_while_it_is_told_tells_the_rest_anew(given: Given) -> Outcome {
    const CROWD: usize = 2_500;
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let first = world.submit(task().with_attempts(1)).await?;
    let crowd = world.submit_all((0..CROWD).map(|_| task().after(first))).await?;
    let granted = world.grant(&session).await?;
    let all = world.end(granted.lease, Ending::Fail { reason: "x".into(), retry: Retry::Never }).await?;
    assert_eq!(all, crate::ending::Ended::Failed);
    world.scheduler.redrive(&[first]).await?;
    let late = world.submit(task().after(first)).await?;
    let failed = async || -> Result<Vec<TaskId>, Error> {
        let mut failed = Vec::new();
        for id in crowd.iter().chain([&late]) {
            if world.state(*id).await? == TaskState::Failed {
                failed.push(*id);
            }
        }
        Ok(failed)
    };
    let before = failed().await?;
    assert!(!before.contains(&late), "it has not failed since");
    assert_eq!(world.state(first).await?, TaskState::Ready);
    let done = world.drain(&session).await?;
    assert_eq!(done.len(), 1 + CROWD + 1 - before.len());
    assert_eq!(failed().await?, before);
    Ok(())
}
