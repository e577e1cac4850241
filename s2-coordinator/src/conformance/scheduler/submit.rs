//! Submitting tasks.

use std::time::Duration;

use crate::config::Config;
use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{DAY, refused};
use crate::conformance::scheduler::kit::{MINUTE, SECOND, World, capabilities, key_of, keyed, requiring, task};
use crate::dependency::{Dependency, TaskId, TaskRef};
use crate::error::Error;
use crate::name::Tag;
use crate::new_task::NewTask;
use crate::priority::Priority;
use crate::registry::Tasks;
use crate::session::SchedulerExt;
use crate::swarm::SwarmId;
use crate::task::TaskState;

cases! {
    what_was_submitted_can_be_seen: [Scheduler];
    numbers_rise_in_the_order_of_the_batch: [Scheduler];
    a_batch_is_submitted_whole_or_not_at_all: [Scheduler];
    the_same_under_the_same_key_is_a_duplicate: [Scheduler];
    something_else_under_the_same_key_is_a_conflict: [Scheduler];
    a_key_counts_as_long_as_its_task_is_known: [Scheduler];
    a_key_counts_once_within_a_batch: [Scheduler];
    what_is_not_there_cannot_be_waited_for: [Scheduler];
    cycles_are_refused_and_named: [Scheduler];
    every_limit_has_a_name: [Scheduler];
    what_can_never_run_is_refused: [Scheduler];
    parts_nest_only_so_deep: [Scheduler];
    a_task_has_only_so_many_parts: [Scheduler];
    only_so_many_tasks_are_unfinished: [Scheduler];
    only_so_many_sets_of_requirements: [Scheduler];
    legal_and_safety_matters_are_critical: [Scheduler];
    a_task_that_starts_later_is_never_early: [Scheduler];
    finished_tasks_are_forgotten_after_a_week: [Scheduler];
    finished_tasks_are_forgotten_when_they_are_too_many: [Scheduler];
    tasks_are_listed_in_order_and_by_page: [Scheduler];
    counts_add_up: [Scheduler];
}

async fn what_was_submitted_can_be_seen(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let parent = world.submit(task()).await?;
    let new = requiring(&["tool:rust"])
        .with_data("payload")
        .with_content_type("text/plain")
        .with_key(key_of("one"))
        .with_priority(Priority::P1)
        .with_tag(Tag::from_static("web"))
        .with_subject("invite.rs".parse()?)
        .with_parent(parent)
        .with_attempts(7)
        .with_lease(MINUTE)
        .with_timeout(2 * MINUTE)
        .with_deadline(DAY)
        .after(parent);
    let id = world.submit(new).await?;
    let status = world.scheduler.task(id).await?;
    assert_eq!((status.state, status.failures, status.session), (TaskState::Waiting, 0, None));
    let seen = status.task;
    assert_eq!((seen.id, &*seen.data, seen.key.clone()), (id, &b"payload"[..], Some(key_of("one"))));
    assert_eq!((seen.priority, seen.parent, seen.depth, seen.attempts), (Priority::P1, Some(parent), 1, 7));
    assert_eq!((seen.lease, seen.timeout, seen.start), (MINUTE, Some(2 * MINUTE), seen.submitted));
    assert_eq!(seen.deadline, Some(seen.submitted + DAY));
    assert_eq!((seen.after.len(), seen.after[0].0), (1, parent));
    assert_eq!((seen.requires.clone(), seen.tags.len()), (capabilities(&["tool:rust"]), 1));
    let unknown = TaskId::new(1);
    refused!(world.scheduler.task(unknown).await, Error::UnknownTask { task: TaskRef::Id(id) } if id == unknown);
    Ok(())
}

async fn numbers_rise_in_the_order_of_the_batch(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let ids = world.submit_all((0..700).map(|_| task())).await?;
    assert!(ids.is_sorted_by(|one, other| one < other));
    world.advance(DAY).await;
    let later = world.submit(task()).await?;
    assert!(later > ids[699]);
    assert!(later.get() >= world.scheduler.task(later).await?.task.submitted.as_micros());
    Ok(())
}

async fn a_batch_is_submitted_whole_or_not_at_all(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let batch = [keyed("a"), keyed("b").after(TaskId::new(5))];
    refused!(world.scheduler.submit(&batch).await, Error::UnknownTask { .. });
    assert_eq!(world.scheduler.stats().await?.unfinished(), 0);
    let session = world.session("one").await?;
    assert_eq!(world.take(&session, 1).await?, []);
    assert!(!world.scheduler.submit_one(&keyed("a")).await?.duplicate, "the key was not used");
    assert_eq!(world.scheduler.submit(&[]).await?, []);
    Ok(())
}

async fn the_same_under_the_same_key_is_a_duplicate(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let new = keyed("once").with_data("x");
    let first = world.scheduler.submit_one(&new).await?;
    assert!(!first.duplicate);
    // Who asks, how urgently and when may differ.
    let again = NewTask { source: SwarmId::from_static("other"), ..new.clone() };
    let again = world.scheduler.submit_one(&again.with_priority(Priority::P0).with_start(MINUTE)).await?;
    assert_eq!((again.id, again.duplicate), (first.id, true));
    let session = world.session("one").await?;
    assert_eq!(world.drain(&session).await?, [first.id]);
    let finished = world.scheduler.submit_one(&new).await?;
    assert_eq!((finished.id, finished.duplicate), (first.id, true), "also when it is done");
    Ok(())
}

async fn something_else_under_the_same_key_is_a_conflict(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let original = world.submit(keyed("once").with_data("x")).await?;
    for other in [
        keyed("once").with_data("y"),
        keyed("once").with_data("x").with_content_type("text/plain"),
        keyed("once").with_data("x").with_subject("z".parse()?),
        requiring(&["a"]).with_data("x").with_key(key_of("once")),
        NewTask { kind: "other".parse()?, ..keyed("once").with_data("x") },
    ] {
        let answer = world.scheduler.submit(&[task(), other]).await;
        refused!(answer, Error::TaskConflict { key, original: first } if key == key_of("once") && first == original);
    }
    assert_eq!(world.scheduler.stats().await?.unfinished(), 1);
    Ok(())
}

async fn a_key_counts_as_long_as_its_task_is_known(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let first = world.submit(keyed("once")).await?;
    world.advance(30 * DAY).await;
    assert_eq!(world.submit(keyed("once")).await?, first, "it is not finished");
    let session = world.session("one").await?;
    world.drain(&session).await?;
    world.advance(6 * DAY).await;
    assert_eq!(world.submit(keyed("once")).await?, first);
    world.advance(DAY).await;
    assert!(world.submit(keyed("once")).await? > first, "it is forgotten");
    Ok(())
}

async fn a_key_counts_once_within_a_batch(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let answers = world.scheduler.submit(&[keyed("a"), keyed("b"), keyed("a")]).await?;
    assert_eq!((answers[2].id, answers[2].duplicate), (answers[0].id, true));
    assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 2);
    refused!(world.scheduler.submit(&[keyed("c"), keyed("c").with_data("x")]).await, Error::Invalid(_));
    Ok(())
}

async fn what_is_not_there_cannot_be_waited_for(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let missing = TaskRef::Key(key_of("missing"));
    let answer = world.scheduler.submit_one(&task().after(Dependency::on(missing.clone()))).await;
    refused!(answer, Error::UnknownTask { task } if task == missing);
    refused!(world.scheduler.submit_one(&task().with_parent(TaskId::new(9))).await, Error::UnknownTask { .. });
    Ok(())
}

async fn cycles_are_refused_and_named(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let edge = |key: &str, on: &str| keyed(key).after(key_of(on));
    for (batch, around) in [
        (vec![edge("a", "a")], vec!["a"]),
        (vec![edge("a", "b"), edge("b", "a")], vec!["a", "b"]),
        (vec![keyed("x"), edge("a", "b"), edge("b", "c"), edge("c", "a").after(key_of("x"))], vec!["a", "b", "c"]),
        // A way into the cycle is not part of it, nor is what hangs on it.
        (vec![edge("in", "a"), edge("a", "b"), edge("b", "a"), edge("out", "in")], vec!["a", "b"]),
    ] {
        let Err(Error::DependencyCycle { cycle }) = world.scheduler.submit(&batch).await else {
            panic!("a cycle is refused: {batch:?}")
        };
        let mut sorted: Vec<String> = cycle.iter().map(ToString::to_string).collect();
        sorted.sort();
        assert_eq!(sorted, around.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>());
        for (nth, at) in cycle.iter().enumerate() {
            let next = &cycle[(nth + 1) % cycle.len()];
            let waits = |task: &NewTask| {
                task.key.clone().map(TaskRef::Key).as_ref() == Some(at)
                    && task.after.iter().any(|dependency| dependency.on == *next)
            };
            assert!(batch.iter().any(waits), "{at} does not wait for {next}");
        }
    }
    assert_eq!(world.scheduler.stats().await?.unfinished(), 0);
    Ok(())
}

async fn every_limit_has_a_name(given: Given) -> Outcome {
    let world = World::with(&given, |config| {
        config.limits.payload_bytes = 10;
        config.limits.capabilities = 2;
        config.limits.tags = 1;
        config.limits.dependencies = 1;
        config.limits.edges = 3;
    })
    .await;
    let known = world.submit(task()).await?;
    let other = world.submit(task()).await?;
    let tag = Tag::from_static("t");
    for (limit, max, new) in [
        ("payload_bytes", 10, task().with_data("12345678901")),
        ("header_bytes", 8 * 1024, task().with_content_type("x".repeat(8 * 1024 + 1))),
        ("capabilities", 2, requiring(&["a", "b", "c"])),
        ("tags", 1, task().with_tag(tag.clone()).with_tag(tag)),
        ("dependencies", 1, task().after(known).after(other)),
        ("attempts", 100, task().with_attempts(101)),
        ("lease", 86_400_000, task().with_lease(DAY + SECOND)),
        ("lease", 86_400_000, task().with_timeout(DAY + SECOND)),
        ("delay", 30 * 86_400_000, task().with_start(31 * DAY)),
    ] {
        let answer = world.scheduler.submit(&[task(), new]).await;
        refused!(answer, Error::LimitExceeded { limit: name, max: value, .. } if name == limit && value == max);
    }
    let edges = vec![task().after(known); 4];
    refused!(world.scheduler.submit(&edges).await, Error::LimitExceeded { limit: "edges", actual: 4, max: 3, .. });
    let batch = vec![task(); 501];
    refused!(world.scheduler.submit(&batch).await, Error::LimitExceeded { limit: "batch", actual: 501, max: 500, .. });
    let session = world.session("one").await?;
    refused!(world.take(&session, 501).await, Error::LimitExceeded { limit: "batch", .. });
    refused!(world.session_with("big", &["a", "b", "c"]).await, Error::LimitExceeded { limit: "capabilities", .. });
    let which = Tasks::all().with_limit(501);
    refused!(world.scheduler.list(&which).await, Error::LimitExceeded { limit: "batch", .. });
    refused!(world.scheduler.sessions(None, 501).await, Error::LimitExceeded { limit: "batch", .. });
    refused!(world.scheduler.redrive(&[known; 501]).await, Error::LimitExceeded { limit: "batch", .. });
    let long = "x".repeat(1025);
    refused!(world.scheduler.cancel(known, long.into()).await, Error::LimitExceeded { limit: "reason_bytes", .. });
    assert_eq!(world.scheduler.stats().await?.unfinished(), 2);
    Ok(())
}

async fn what_can_never_run_is_refused(given: Given) -> Outcome {
    let world = World::new(&given).await;
    for new in [task().with_attempts(0), task().with_lease(Duration::ZERO), task().with_timeout(Duration::ZERO)] {
        refused!(world.scheduler.submit_one(&new).await, Error::Invalid(_));
    }
    let session = world.session("one").await?;
    refused!(world.take(&session, 0).await, Error::Invalid(_));
    // A session that is there and lacks what the task requires.
    let new = requiring(&["tool:rust"]).with_assignee(SwarmId::from_static("one"));
    refused!(world.scheduler.submit_one(&new).await, Error::Invalid(_));
    Ok(())
}

async fn parts_nest_only_so_deep(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.limits.depth = 3).await;
    let mut parent = world.submit(task()).await?;
    for depth in 1..=3 {
        parent = world.submit(task().with_parent(parent)).await?;
        assert_eq!(world.scheduler.task(parent).await?.task.depth, depth);
    }
    let answer = world.scheduler.submit_one(&task().with_parent(parent)).await;
    refused!(answer, Error::LimitExceeded { limit: "depth", actual: 4, max: 3, .. });
    Ok(())
}

async fn a_task_has_only_so_many_parts(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.limits.children = 3).await;
    let parent = world.submit(task()).await?;
    let part = || task().with_parent(parent);
    world.submit_all([part(), part()]).await?;
    let answer = world.scheduler.submit(&[part(), part()]).await;
    refused!(answer, Error::LimitExceeded { limit: "children", actual: 4, max: 3, .. });
    let last = world.submit(part()).await?;
    // Over its whole life, not at a time: a part that fails and is tried in another way is one more.
    world.scheduler.cancel(last, "no".into()).await?;
    refused!(world.scheduler.submit_one(&part()).await, Error::LimitExceeded { limit: "children", .. });
    Ok(())
}

async fn only_so_many_tasks_are_unfinished(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.limits.tasks = 2).await;
    let ids = world.submit_all([task(), task()]).await?;
    refused!(world.scheduler.submit_one(&task()).await, Error::LimitExceeded { limit: "tasks", actual: 3, max: 2, .. });
    world.scheduler.cancel(ids[0], "no".into()).await?;
    world.submit(task()).await?;
    Ok(())
}

async fn only_so_many_sets_of_requirements(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.limits.classes = 2).await;
    let ids = world.submit_all([requiring(&["a"]), requiring(&["b"]), requiring(&["a"])]).await?;
    let answer = world.scheduler.submit_one(&task()).await;
    refused!(answer, Error::LimitExceeded { limit: "classes", actual: 3, max: 2, .. });
    world.scheduler.cancel(ids[1], "no".into()).await?;
    world.submit(task()).await?;
    assert_eq!(world.scheduler.stats().await?.classes, 2);
    Ok(())
}

async fn legal_and_safety_matters_are_critical(given: Given) -> Outcome {
    let world = World::new(&given).await;
    for (new, priority) in [
        (task(), Priority::P2),
        (task().with_tag(Tag::from_static("legal")), Priority::P0),
        (task().with_tag(Tag::from_static("web")).with_tag(Tag::from_static("safety")), Priority::P0),
        (task().with_tag(Tag::from_static("legal")).with_priority(Priority::P3), Priority::P3),
        (task().with_tag(Tag::from_static("legalese")), Priority::P2),
    ] {
        let id = world.submit(new).await?;
        assert_eq!(world.scheduler.task(id).await?.task.priority, priority);
    }
    Ok(())
}

async fn a_task_that_starts_later_is_never_early(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let now = world.submit(task()).await?;
    let start = world.scheduler.task(now).await?.task.submitted + MINUTE;
    let (later, at) = (world.submit(task().with_start(MINUTE)).await?, world.submit(task().with_start(start)).await?);
    let past = world.submit(task().with_start(start - DAY)).await?;
    assert_eq!(world.drain(&session).await?, [now, past]);
    world.advance(MINUTE - Duration::from_micros(1)).await;
    assert_eq!(world.take(&session, 1).await?, []);
    assert_eq!(world.state(later).await?, TaskState::Delayed);
    world.advance(Duration::from_micros(1)).await;
    assert_eq!(world.drain(&session).await?, [later, at]);
    Ok(())
}

async fn finished_tasks_are_forgotten_after_a_week(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let done = world.submit(task()).await?;
    let left = world.submit(task().with_start(20 * DAY)).await?;
    world.drain(&session).await?;
    world.advance(7 * DAY - SECOND).await;
    world.outcome(done).await?;
    world.advance(SECOND).await;
    refused!(world.scheduler.outcome(done).await, Error::UnknownTask { .. });
    refused!(world.scheduler.why(done).await, Error::UnknownTask { .. });
    refused!(world.scheduler.wait(done).await, Error::UnknownTask { .. });
    assert_eq!(world.state(left).await?, TaskState::Delayed, "what is not finished stays");
    Ok(())
}

async fn finished_tasks_are_forgotten_when_they_are_too_many(given: Given) -> Outcome {
    let world = World::with(&given, |config: &mut Config| config.finished.bytes = 20_000).await;
    let session = world.session("one").await?;
    let ids = world.submit_all((0..50).map(|_| task().with_data(vec![0; 1_000]))).await?;
    world.drain(&session).await?;
    for id in &ids {
        world.outcome(*id).await?;
    }
    // Whoever waits has had the time to be told.
    world.advance(SECOND).await;
    let mut known = Vec::new();
    for id in &ids {
        known.push(world.scheduler.outcome(*id).await.is_ok());
    }
    let kept = known.iter().filter(|known| **known).count();
    assert!((5..=19).contains(&kept), "{kept} are kept of 20,000 bytes");
    assert!(known.is_sorted(), "the oldest go first: {known:?}");
    Ok(())
}

async fn tasks_are_listed_in_order_and_by_page(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let other = NewTask { kind: "other".parse()?, ..task() };
    let parent = world.submit(task()).await?;
    let ids = world.submit_all([task(), other.clone(), task().with_parent(parent), other.with_parent(parent)]).await?;
    let held = world.grant(&session).await?;
    assert_eq!(held.task.id, parent);
    let list = async |which: Tasks| -> Result<Vec<TaskId>, Error> {
        let page = world.scheduler.list(&which).await?;
        Ok(page.items.iter().map(|status| status.task.id).collect())
    };
    assert_eq!(list(Tasks::all()).await?.len(), 5);
    assert_eq!(list(Tasks::all().with_kind("other".parse()?)).await?, [ids[1], ids[3]]);
    assert_eq!(list(Tasks::all().with_parent(parent)).await?, [ids[2], ids[3]]);
    assert_eq!(list(Tasks::all().with_state(TaskState::Claimed)).await?, [parent]);
    assert_eq!(list(Tasks::all().with_session(SwarmId::from_static("one"))).await?, [parent]);
    assert_eq!(list(Tasks::all().with_state(TaskState::Failed)).await?, []);
    let (mut seen, mut which) = (Vec::new(), Tasks::all().with_limit(2));
    loop {
        let page = world.scheduler.list(&which).await?;
        seen.extend(page.items.iter().map(|status| status.task.id));
        let Some(next) = page.next else { break };
        which = which.after(next);
    }
    assert_eq!(seen, [vec![parent], ids].concat());
    refused!(world.scheduler.list(&Tasks::all().with_limit(0)).await, Error::Invalid(_));
    Ok(())
}

async fn counts_add_up(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let first = world.submit(task()).await?;
    world.submit_all([task().after(first), task().with_start(MINUTE), task(), task()]).await?;
    let cancelled = world.submit(task()).await?;
    world.scheduler.cancel(cancelled, "no".into()).await?;
    let granted = world.take(&session, 2).await?;
    world.complete(granted[1].lease).await?;
    let stats = world.scheduler.stats().await?;
    let counts = |state| stats.count(state);
    assert_eq!(TaskState::ALL.map(counts), [1, 1, 1, 1, 0, 0, 1, 0, 1]);
    assert_eq!((stats.unfinished(), stats.sessions, stats.classes), (4, 1, 1));
    Ok(())
}
