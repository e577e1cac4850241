//! Claims that wait.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{refused, within};
use crate::conformance::scheduler::kit::{MINUTE, World, claiming, pause, pause_shortly, requiring, task};
use crate::error::Error;
use crate::outcome::Completion;
use crate::session::SchedulerExt;
use crate::task::TaskState;

cases! {
    who_finds_nothing_waits_and_is_woken: [Scheduler];
    each_task_wakes_one_who_waits: [Scheduler];
    calls_that_wait_for_the_same_are_answered_alike: [Scheduler];
    a_claim_that_is_dropped_has_claimed_nothing: [Scheduler];
    who_gives_up_and_asks_again_keeps_what_it_gets: [Scheduler];
    who_gives_up_finds_what_was_on_its_way: [Scheduler];
    a_woken_claim_that_is_dropped_makes_way: [Scheduler];
    a_waiting_claim_is_woken_when_time_comes: [Scheduler];
    a_waiting_claim_is_woken_when_a_lease_ends: [Scheduler];
    a_claim_that_nobody_polls_keeps_no_other_waiting: [Scheduler];
    closing_ends_what_waits_and_nothing_else: [Scheduler];
    who_takes_something_else_leaves_the_rest_to_others: [Scheduler];
    who_is_woken_and_gone_leaves_it_to_others: [Scheduler];
    a_dropped_claim_keeps_nothing_when_its_session_leaves: [Scheduler];
    a_claim_that_has_not_heard_keeps_nothing_when_its_session_leaves: [Scheduler];
    claims_race_with_the_end_of_their_session: [Scheduler];
}

async fn who_finds_nothing_waits_and_is_woken(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let waiting = claiming(&session);
    pause().await;
    assert!(!waiting.is_finished());
    let id = world.submit(task()).await?;
    let granted = within("the claim", waiting).await.expect("no panic")?.expect("open");
    assert_eq!(granted.task.id, id);
    Ok(())
}

async fn each_task_wakes_one_who_waits(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let mut waiting = Vec::new();
    for nth in 0..8 {
        let session = world.session(&format!("session-{nth}")).await?;
        waiting.push(claiming(&session));
    }
    pause().await;
    let mut submitted = world.submit_all((0..8).map(|_| task())).await?;
    let mut claimed = Vec::new();
    for waiter in waiting {
        claimed.push(within("a claim", waiter).await.expect("no panic")?.expect("open").task.id);
    }
    claimed.sort_unstable();
    submitted.sort_unstable();
    assert_eq!(claimed, submitted);
    Ok(())
}

async fn calls_that_wait_for_the_same_are_answered_alike(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    for gone in 0..3 {
        let claim = session.request(1);
        let mut calls = Vec::new();
        for _ in 0..3 {
            let (scheduler, claim) = (Arc::clone(&world.scheduler), claim.clone());
            calls.push(tokio::spawn(async move { scheduler.claim(&claim).await }));
            pause_shortly().await;
        }
        pause().await;
        calls.remove(gone).abort();
        pause().await;
        let id = world.submit(task()).await?;
        for call in calls {
            let granted = within("the claim", call).await.expect("no panic")?;
            assert_eq!(granted.iter().map(|grant| grant.task.id).collect::<Vec<_>>(), [id], "without call {gone}");
        }
        assert_eq!(world.state(id).await?, TaskState::Claimed);
    }
    Ok(())
}

async fn a_claim_that_is_dropped_has_claimed_nothing(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    for _ in 0..10 {
        let dropped = tokio::time::timeout(Duration::from_millis(2), session.claim()).await;
        assert!(dropped.is_err(), "there is nothing to do");
    }
    let id = world.submit(task()).await?;
    let granted = world.grant(&session).await?;
    assert_eq!((granted.task.id, granted.attempt), (id, 1));
    Ok(())
}

async fn who_gives_up_and_asks_again_keeps_what_it_gets(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let mut kept = Vec::new();
    for round in 0..60 {
        let claim = session.request(1);
        let mut waiting = Box::pin(world.scheduler.claim(&claim));
        let waits = tokio::time::timeout(Duration::from_millis(round % 3), &mut waiting).await;
        assert!(waits.is_err(), "there is nothing");
        let id = world.submit(task()).await?;
        drop(waiting);
        let granted = world.scheduler.take(&claim).await?;
        match granted.first() {
            Some(grant) => kept.push(grant.lease),
            // It is on its way back.
            None => assert_eq!(within("the claim", world.scheduler.claim(&session.request(1))).await?[0].task.id, id),
        }
    }
    pause().await;
    for lease in kept {
        world.complete(lease).await?;
    }
    Ok(())
}

async fn who_gives_up_finds_what_was_on_its_way(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    for fused in [false, true] {
        let mut waiting = Box::pin(session.claim());
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut waiting).await.is_err(), "there is nothing");
        let id = world.submit(task()).await?;
        drop(waiting);
        let granted = if fused {
            world.scheduler.end(Vec::new(), Some(&session.request(1))).await?.granted
        } else {
            world.take(&session, 1).await?
        };
        assert_eq!(granted.iter().map(|grant| (grant.task.id, grant.attempt)).collect::<Vec<_>>(), [(id, 1)]);
    }
    Ok(())
}

async fn a_woken_claim_that_is_dropped_makes_way(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    for _ in 0..50 {
        let first = claiming(&one);
        tokio::task::yield_now().await;
        let second = claiming(&other);
        tokio::task::yield_now().await;
        let id = world.submit(task()).await?;
        // It may have been woken, or have claimed, or neither.
        first.abort();
        let granted = match first.await {
            Ok(granted) => {
                second.abort();
                granted?.expect("open")
            }
            Err(_) => within("the other's claim", second).await.expect("no panic")?.expect("open"),
        };
        assert_eq!(granted.task.id, id);
        world.complete(granted.lease).await?;
    }
    Ok(())
}

async fn a_waiting_claim_is_woken_when_time_comes(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task().with_start(MINUTE)).await?;
    let waiting = claiming(&session);
    pause().await;
    assert!(!waiting.is_finished());
    world.advance(MINUTE).await;
    assert_eq!(within("the claim", waiting).await.expect("no panic")?.expect("open").task.id, id);
    Ok(())
}

async fn a_waiting_claim_is_woken_when_a_lease_ends(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let id = world.submit(task()).await?;
    let _crashed = world.grant(&one).await?;
    let waiting = claiming(&other);
    pause().await;
    world.advance(MINUTE).await;
    let granted = within("the claim", waiting).await.expect("no panic")?.expect("open");
    assert_eq!((granted.task.id, granted.attempt), (id, 2));
    Ok(())
}

async fn a_claim_that_nobody_polls_keeps_no_other_waiting(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let mut unpolled = pin!(session.claim());
    tokio::select! {
        biased;
        _ = &mut unpolled => panic!("there is nothing to claim"),
        () = pause() => {}
    }
    let submitted = world.submit_all([task(), task()]).await?;
    let held = within("a claim beside it", session.claim()).await?.expect("open");
    // One of them went to the claim that is not polled.
    assert!(submitted.contains(&held.task.id));
    held.release().await?;
    session.leave().await?;
    assert!(within("a claim after the leave", session.claim()).await?.is_none());
    let answer = within("the claim that was not polled", unpolled).await?;
    assert!(answer.is_none(), "what it was granted went back");
    let other = world.session("two").await?;
    assert_eq!(world.take(&other, 3).await?.len(), 2, "both are there for others");
    Ok(())
}

async fn closing_ends_what_waits_and_nothing_else(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let other = world.fleet.scheduler().expect("a scheduler");
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let held = world.grant(&session).await?;
    let waiting = claiming(&session);
    let watching = tokio::spawn({
        let scheduler = Arc::clone(&world.scheduler);
        async move { scheduler.wait(id).await }
    });
    let outcome = tokio::spawn({
        let other = Arc::clone(&other);
        async move { other.wait(id).await }
    });
    pause().await;
    world.scheduler.close().await?;
    world.scheduler.close().await?;
    assert_eq!(within("the end of the claim", waiting).await.expect("no panic")?, None);
    refused!(within("the end of the wait", watching).await.expect("no panic"), Error::Closed);
    refused!(world.scheduler.submit(&[task()]).await, Error::Closed);
    refused!(world.scheduler.stats().await, Error::Closed);
    other.submit_one(&task()).await?;
    let ended = world.scheduler.end(Vec::new(), Some(&session.request(1))).await?;
    assert_eq!(ended.granted, [], "nothing is claimed on a handle that is closed");
    world.renew(held.lease).await?;
    world.complete(held.lease).await?;
    within("the outcome", outcome).await.expect("no panic")?;
    assert_eq!(other.task(id).await?.state, TaskState::Done);
    Ok(())
}

async fn who_takes_something_else_leaves_the_rest_to_others(given: Given) -> Outcome {
    for _ in 0..20 {
        let world = World::new(&given).await;
        let (one, other) = (world.session("one").await?, world.session("other").await?);
        let first = claiming(&one);
        tokio::task::yield_now().await;
        let second = claiming(&other);
        pause_shortly().await;
        let own = task().with_assignee(one.incarnation().session.clone());
        let all = world.scheduler.submit(&[own, task()]).await?;
        let first = within("the first claim", first).await.expect("no panic")?.expect("open");
        let second = within("the second claim", second).await.expect("no panic")?.expect("open");
        assert_eq!([first.task.id, second.task.id], [all[0].id, all[1].id]);

        let (a, both, b) = (
            world.session_with("a", &["a"]).await?,
            world.session_with("both", &["a", "b"]).await?,
            world.session_with("b", &["b"]).await?,
        );
        let mut waiting = Vec::new();
        for session in [&a, &both, &b] {
            waiting.push(claiming(session));
            pause_shortly().await;
        }
        let special = [world.submit(requiring(&["a"])).await?, world.submit(requiring(&["b"])).await?];
        let mut claimed = Vec::new();
        while claimed.len() < 2 {
            for at in (0..waiting.len()).rev().filter(|at| waiting[*at].is_finished()).collect::<Vec<_>>() {
                let granted = waiting.remove(at).await.expect("no panic")?.expect("open");
                claimed.push(granted.task.id);
            }
            within("a claim", pause_shortly()).await;
        }
        claimed.sort_unstable();
        assert_eq!(claimed, special);
        waiting.into_iter().for_each(|waiting| waiting.abort());
    }
    Ok(())
}

async fn who_is_woken_and_gone_leaves_it_to_others(given: Given) -> Outcome {
    for superseded in [false, true] {
        let world = World::with(&given, |config| config.limits.leases = 1).await;
        let (one, other) = (world.session("one").await?, world.session("other").await?);
        let gone = claiming(&one);
        pause_shortly().await;
        let waiting = claiming(&other);
        pause_shortly().await;
        let id = world.submit(task()).await?;
        if superseded {
            world.session("one").await?;
        } else {
            one.leave().await?;
        }
        let granted = match within("the end of the wait", gone).await.expect("no panic") {
            Ok(Some(granted)) => granted,
            _ => within("the claim", waiting).await.expect("no panic")?.expect("open"),
        };
        assert_eq!(granted.task.id, id);
    }
    // One that has as many as it may stands in nobody's way.
    let world = World::with(&given, |config| config.limits.leases = 1).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let mut waiting = vec![claiming(&one), claiming(&one)];
    pause().await;
    waiting.push(claiming(&other));
    pause().await;
    world.submit_all([task(), task()]).await?;
    let mut granted = 0;
    for waiting in waiting {
        match within("the end of a claim", waiting).await.expect("no panic") {
            Ok(claimed) => granted += usize::from(claimed.is_some()),
            Err(error) => assert!(matches!(error, Error::LimitExceeded { limit: "leases", .. }), "{error}"),
        }
    }
    assert_eq!(granted, 2);
    Ok(())
}

async fn a_dropped_claim_keeps_nothing_when_its_session_leaves(given: Given) -> Outcome {
    let world = World::new(&given).await;
    for round in 0..20 {
        let one = world.session(&format!("one-{round}")).await?;
        let waiting = claiming(&one);
        pause_shortly().await;
        // It is handed out to a claim that nobody waits for any more.
        let id = world.submit(task()).await?;
        waiting.abort();
        if let Ok(Ok(Some(grant))) = waiting.await {
            world.scheduler.abandon(&grant.lease);
        }
        one.leave().await?;
        let other = world.session(&format!("other-{round}")).await?;
        let taken = within("the task comes back", async { other.claim().await }).await?;
        let held = taken.expect("the scheduler is open");
        assert_eq!(held.task.id, id);
        held.complete(Completion::new()).await?;
    }
    Ok(())
}

async fn a_claim_that_has_not_heard_keeps_nothing_when_its_session_leaves(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let mut waiting = pin!(one.claim());
    for _ in 0..10 {
        let waits = tokio::time::timeout(Duration::from_millis(5), waiting.as_mut()).await;
        assert!(waits.is_err(), "there is nothing to do");
    }
    // From here on nobody looks after it.
    let id = world.submit(task()).await?;
    one.leave().await?;
    assert_eq!(world.grant(&other).await?.task.id, id);
    assert!(within("the end of the wait", waiting).await?.is_none());
    Ok(())
}

/// Ends after being asked so many times.
async fn a_moment(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

async fn claims_race_with_the_end_of_their_session(given: Given) -> Outcome {
    const ROUNDS: usize = 12;
    let world = World::new(&given).await;
    let other = world.session("other").await?;
    for round in 0..ROUNDS {
        let leaves = world.session(&format!("leaves-{round}")).await?;
        let impatient: Vec<_> = (1..=4)
            .map(|nth| {
                let session = leaves.clone();
                tokio::spawn(async move {
                    for patience in (0..).map(|turn| (turn * nth * 7 + round) % 50 + turn / 10) {
                        tokio::select! {
                            biased;
                            claimed = session.claim() => match claimed {
                                Ok(Some(held)) => {
                                    drop(held);
                                    tokio::task::yield_now().await;
                                }
                                Ok(None) => return Ok(()),
                                Err(error) => return Err(error),
                            },
                            () = a_moment(patience) => {}
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        let submitted = world.submit_all((0..3).map(|_| task())).await?;
        a_moment(round).await;
        leaves.leave().await?;
        for impatient in impatient {
            within("the end of the claims", impatient).await.expect("no panic")?;
        }
        for _ in submitted {
            let held = within("the task comes back", other.claim()).await?.expect("open");
            held.complete(Completion::new()).await?;
        }
    }
    Ok(())
}
