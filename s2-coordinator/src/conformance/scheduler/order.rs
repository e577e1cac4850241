//! Which task comes first.

use std::time::Duration;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::scheduler::kit::{LEASE, MINUTE, SECOND, World, done, ids, key_of, keyed, task};
use crate::dependency::TaskId;
use crate::ending::{Ending, Retry};
use crate::order::OrderKey;
use crate::priority::Priority;
use crate::priority::Priority::{P0, P1, P2, P3};

cases! {
    tasks_come_by_one_key: [Scheduler];
    of_equal_tasks_the_first_comes_first: [Scheduler];
    nothing_starves_under_a_flood: [Scheduler];
    priorities_may_be_strict: [Scheduler];
    what_is_handed_back_keeps_its_place: [Scheduler];
    what_is_tried_again_counts_from_then: [Scheduler];
    a_task_takes_the_key_of_what_waits_for_it: [Scheduler];
    a_key_is_given_back: [Scheduler];
    keys_are_inherited_through_a_thousand_levels: [Scheduler];
    longer_chains_come_first_if_asked_for: [Scheduler];
}

async fn tasks_come_by_one_key(given: Given) -> Outcome {
    // Submitted at these seconds with these priorities, they come in this order.
    for (submitted, order) in [
        (vec![(0, P2), (0, P0), (0, P3), (0, P1)], vec![1, 3, 0, 2]),
        (vec![(0, P3), (100, P2), (200, P1), (300, P0)], vec![3, 2, 1, 0]),
        (vec![(0, P1), (599, P0)], vec![1, 0]),
        (vec![(0, P1), (601, P0)], vec![0, 1]),
        (vec![(0, P1), (600, P0)], vec![0, 1]),
        (vec![(0, P3), (1_799, P0)], vec![1, 0]),
        (vec![(0, P3), (1_801, P0)], vec![0, 1]),
        (vec![(0, P3), (0, P2), (700, P2), (700, P0), (1_900, P0)], vec![3, 1, 0, 2, 4]),
    ] {
        let world = World::new(&given).await;
        let session = world.session("one").await?;
        let (mut all, mut now) = (Vec::new(), 0);
        for &(at, priority) in &submitted {
            world.advance(Duration::from_secs(at - now)).await;
            now = at;
            all.push(world.submit(task().with_priority(priority)).await?);
        }
        let expected: Vec<TaskId> = order.iter().map(|nth: &usize| all[*nth]).collect();
        assert_eq!(world.drain(&session).await?, expected, "{submitted:?}");
    }
    Ok(())
}

async fn of_equal_tasks_the_first_comes_first(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let all = world.submit_all((0..300).map(|_| task())).await?;
    assert_eq!(world.drain(&session).await?, all);
    Ok(())
}

async fn nothing_starves_under_a_flood(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.priority_step = MINUTE).await;
    let session = world.session("one").await?;
    let low = world.submit(task().with_priority(P3)).await?;
    let mut steps = 0;
    loop {
        // Two come for each that is done.
        world.submit_all([task().with_priority(P0), task().with_priority(P0)]).await?;
        let granted = world.grant(&session).await?;
        world.complete(granted.lease).await?;
        if granted.task.id == low {
            break;
        }
        world.advance(MINUTE / 4).await;
        steps += 1;
        assert!(steps < 1_000, "it starves");
    }
    // What became ready within three steps of it may come first: that is 24 tasks, done one every quarter of a step.
    assert!(steps <= 26, "it waited for {steps} others");
    Ok(())
}

async fn priorities_may_be_strict(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.priority_step = OrderKey::STRICT).await;
    let session = world.session("one").await?;
    let low = world.submit(task().with_priority(P3)).await?;
    let middle = world.submit(task().with_priority(P2)).await?;
    world.advance(Duration::from_secs(400 * 86_400)).await;
    let high = world.submit(task().with_priority(P0)).await?;
    let later = world.submit(task().with_priority(P2)).await?;
    assert_eq!(world.drain(&session).await?, [high, middle, later, low]);
    Ok(())
}

async fn what_is_handed_back_keeps_its_place(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(world.submit(task()).await?);
        world.advance(SECOND).await;
    }
    let first = world.grant(&session).await?;
    world.end(first.lease, Ending::Release).await?;
    assert_eq!(world.drain(&session).await?, all);
    Ok(())
}

async fn what_is_tried_again_counts_from_then(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let (failing, crashing) = (world.submit(task()).await?, world.submit(task()).await?);
    world.advance(SECOND).await;
    let granted = world.take(&session, 2).await?;
    assert_eq!(ids(&granted), [failing, crashing]);
    let between = world.submit(task()).await?;
    let retry = Ending::Fail { reason: "flaky".into(), retry: Retry::After(10 * SECOND) };
    world.end(granted[0].lease, retry).await?;
    world.advance(LEASE).await;
    assert_eq!(world.drain(&session).await?, [between, failing, crashing]);
    Ok(())
}

async fn a_task_takes_the_key_of_what_waits_for_it(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let tail = world.submit(task().with_priority(P3)).await?;
    let middle = world.submit(task().with_priority(P3).after(tail)).await?;
    let other = world.submit(task().with_priority(P1)).await?;
    assert_eq!(ids(&world.take(&session, 1).await?), [other]);
    let another = world.submit(task().with_priority(P1)).await?;
    let urgent = world.submit(task().with_priority(P0).after(middle)).await?;
    assert_eq!(world.drain(&session).await?, [tail, middle, urgent, another]);
    Ok(())
}

async fn a_key_is_given_back(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let low = world.submit(task().with_priority(P3)).await?;
    let urgent = world.submit(task().with_priority(P0).after(low)).await?;
    let less = world.submit(task().with_priority(P1).after(low)).await?;
    let [zero, one, two] = [P0, P1, P2].map(|priority: Priority| task().with_priority(priority));
    let others = world.submit_all([two, one, zero]).await?;
    // As urgent as P0, and first by sequence.
    let first = world.grant(&session).await?;
    assert_eq!(first.task.id, low);
    world.end(first.lease, Ending::Release).await?;
    world.scheduler.cancel(urgent, "not needed".into()).await?;
    let granted = world.take(&session, 2).await?;
    assert_eq!(ids(&granted), [others[2], low], "as urgent as P1 now");
    world.end(granted[1].lease, Ending::Release).await?;
    world.scheduler.cancel(less, "not needed".into()).await?;
    assert_eq!(world.drain(&session).await?, [others[1], others[0], low], "P3 as it was");
    Ok(())
}

async fn keys_are_inherited_through_a_thousand_levels(given: Given) -> Outcome {
    const LEVELS: usize = 1_000;
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let link = |nth: usize| {
        let link = keyed(&format!("link-{nth}")).with_priority(P3);
        if nth == 0 { link } else { link.after(key_of(&format!("link-{}", nth - 1))) }
    };
    let chain = world.submit_all((0..LEVELS).map(link)).await?;
    let other = world.submit(task().with_priority(P2)).await?;
    let urgent = world.submit(task().with_priority(P0).after(chain[LEVELS - 1])).await?;
    // It takes a few steps until the first link knows.
    let first = loop {
        let granted = world.grant(&session).await?;
        world.end(granted.lease, Ending::Release).await?;
        if granted.task.id != other {
            break granted.task.id;
        }
    };
    assert_eq!(first, chain[0]);
    world.scheduler.cancel(urgent, "not needed".into()).await?;
    let back = loop {
        let granted = world.grant(&session).await?;
        world.end(granted.lease, Ending::Release).await?;
        if granted.task.id != chain[0] {
            break granted.task.id;
        }
    };
    assert_eq!(back, other, "P3 as it was");
    let granted = world.grant(&session).await?;
    world.end(granted.lease, done()).await?;
    assert_eq!(world.drain(&session).await?, chain);
    Ok(())
}

async fn longer_chains_come_first_if_asked_for(given: Given) -> Outcome {
    let batch = [
        keyed("short"),
        keyed("long"),
        keyed("middle"),
        keyed("long-2").after(key_of("long")),
        keyed("long-3").after(key_of("long-2")),
        keyed("middle-2").after(key_of("middle")),
        keyed("urgent").with_priority(P1),
    ];
    for (by_path, expected) in
        [(false, ["urgent", "short", "long", "middle"]), (true, ["urgent", "long", "middle", "short"])]
    {
        let world = World::with(&given, |config| config.critical_path = by_path).await;
        let session = world.session("one").await?;
        world.submit_all(batch.clone()).await?;
        let granted = world.take(&session, 4).await?;
        let keys: Vec<_> = granted.iter().filter_map(|grant| grant.task.key.as_ref()).map(|key| key.as_str()).collect();
        assert_eq!(keys, expected, "by path: {by_path}");
    }
    Ok(())
}
