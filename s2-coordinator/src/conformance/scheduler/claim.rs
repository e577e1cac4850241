//! Handing tasks out.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{refused, within};
use crate::conformance::scheduler::kit::{MINUTE, World, claiming, done, ids, pause, pause_shortly, requiring, task};
use crate::error::Error;
use crate::lease::Claim;
use crate::outcome::Completion;
use crate::session::SchedulerExt;
use crate::task::TaskState;

cases! {
    a_task_goes_to_one_session: [Scheduler];
    many_sessions_race_for_many_tasks: [Scheduler];
    a_claim_takes_as_many_as_it_asks_for: [Scheduler];
    who_finds_nothing_waits_and_is_woken: [Scheduler];
    each_task_wakes_one_who_waits: [Scheduler];
    a_claim_that_is_dropped_has_claimed_nothing: [Scheduler];
    a_woken_claim_that_is_dropped_makes_way: [Scheduler];
    a_waiting_claim_is_woken_when_time_comes: [Scheduler];
    a_waiting_claim_is_woken_when_a_lease_ends: [Scheduler];
    a_repeated_claim_answers_with_the_same_leases: [Scheduler];
    a_repeated_claim_leaves_out_what_has_ended: [Scheduler];
    a_claim_of_which_something_is_held_is_remembered: [Scheduler];
    only_who_offers_everything_that_is_required_gets_it: [Scheduler];
    a_task_waits_for_who_can_do_it: [Scheduler];
    the_first_of_all_queues_comes_first: [Scheduler];
    a_session_has_only_so_many: [Scheduler];
    a_session_that_left_claims_nothing: [Scheduler];
    a_claim_that_nobody_polls_keeps_no_other_waiting: [Scheduler];
    a_session_is_superseded_by_the_next_of_its_name: [Scheduler];
    closing_ends_what_waits_and_nothing_else: [Scheduler];
    the_next_is_claimed_in_the_same_step: [Scheduler];
    a_grant_says_what_there_is_to_do: [Scheduler];
    who_takes_something_else_leaves_the_rest_to_others: [Scheduler];
    who_is_woken_and_gone_leaves_it_to_others: [Scheduler];
    a_repeated_claim_that_has_ended_does_not_wait: [Scheduler];
    a_dropped_claim_keeps_nothing_when_its_session_leaves: [Scheduler];
    a_claim_that_has_not_heard_keeps_nothing_when_its_session_leaves: [Scheduler];
    claims_race_with_the_end_of_their_session: [Scheduler];
}

async fn a_task_goes_to_one_session(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let id = world.submit(task()).await?;
    let granted = world.grant(&one).await?;
    assert_eq!((granted.task.id, granted.attempt), (id, 1));
    assert_eq!(world.take(&other, 1).await?, []);
    assert_eq!(world.state(id).await?, TaskState::Claimed);
    world.complete(granted.lease).await?;
    assert_eq!(world.take(&other, 1).await?, []);
    assert_eq!(world.state(id).await?, TaskState::Done);
    Ok(())
}

async fn many_sessions_race_for_many_tasks(given: Given) -> Outcome {
    const TASKS: usize = 600;
    let world = World::new(&given).await;
    let mut racing = Vec::new();
    for nth in 0..16 {
        let session = world.session(&format!("session-{nth}")).await?;
        racing.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(held) = session.claim().await? {
                seen.push((held.task.id, held.attempt, held.lease.token));
                held.complete(Completion::new()).await?;
            }
            Ok::<_, Error>(seen)
        }));
    }
    for id in world.submit_all((0..TASKS).map(|_| task())).await? {
        within("the end of a task", world.scheduler.wait(id)).await?;
    }
    world.scheduler.close().await?;
    let (mut times, mut tokens) = (HashMap::new(), Vec::new());
    for racer in racing {
        for (task, attempt, token) in within("the end of the race", racer).await.expect("no panic")? {
            *times.entry((task, attempt)).or_insert(0) += 1;
            tokens.push(token);
        }
    }
    assert_eq!(times.len(), TASKS);
    assert!(times.values().all(|times| *times == 1), "each attempt is claimed once");
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), TASKS, "no two claims have the same token");
    Ok(())
}

async fn a_claim_takes_as_many_as_it_asks_for(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let all = world.submit_all((0..5).map(|_| task())).await?;
    assert_eq!(ids(&world.take(&session, 3).await?), all[..3]);
    assert_eq!(ids(&world.scheduler.claim(&session.request(500)).await?), all[3..]);
    Ok(())
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

async fn a_repeated_claim_answers_with_the_same_leases(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    world.submit_all((0..5).map(|_| task())).await?;
    let claim = session.request(2);
    let first = world.scheduler.take(&claim).await?;
    assert_eq!(first.len(), 2);
    assert_eq!(world.scheduler.take(&claim).await?, first);
    assert_eq!(world.scheduler.claim(&claim).await?, first);
    let more = world.take(&session, 2).await?;
    assert!(ids(&more).iter().all(|id| !ids(&first).contains(id)), "another request gets others");
    assert_eq!(world.scheduler.take(&claim).await?, first);
    // Any number will do.
    let claim = Claim { request: u64::MAX, max: 1, ..claim };
    let last = world.scheduler.take(&claim).await?;
    assert_eq!((last.len(), world.scheduler.take(&claim).await?), (1, last));
    world.submit(task()).await?;
    // Of another session, the same number is another request.
    let other = world.session("other").await?;
    let its = world.scheduler.take(&Claim { by: other.incarnation().clone(), ..claim }).await?;
    assert_eq!(its.len(), 1);
    Ok(())
}

async fn a_repeated_claim_leaves_out_what_has_ended(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    world.submit_all((0..3).map(|_| task())).await?;
    let claim = session.request(2);
    let first = world.scheduler.take(&claim).await?;
    world.complete(first[0].lease).await?;
    assert_eq!(world.scheduler.take(&claim).await?, first[1..]);
    world.complete(first[1].lease).await?;
    assert_eq!(world.scheduler.take(&claim).await?, [], "nothing new is claimed under an old number");
    Ok(())
}

async fn a_claim_of_which_something_is_held_is_remembered(given: Given) -> Outcome {
    /// As many requests are remembered in any case.
    const LATEST: usize = 64;
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    world.submit_all((0..4).map(|_| task())).await?;
    let mut held = Vec::new();
    for max in [1, 1, 2] {
        let claim = session.request(max);
        held.push((world.scheduler.take(&claim).await?, claim));
        world.rounds(&session, 20).await?;
    }
    for step in 0..4 {
        world.rounds(&session, LATEST + step).await?;
        for (granted, claim) in &held {
            assert_eq!(world.scheduler.take(claim).await?, *granted, "after {step} steps");
        }
        let (granted, _) = &mut held[[0, 1, 2, 2][step]];
        world.complete(granted.remove(0).lease).await?;
    }
    let latest = world.rounds(&session, 3 * LATEST).await?.split_off(2 * LATEST);
    world.submit(task()).await?;
    for claim in &latest {
        assert_eq!(world.scheduler.take(claim).await?, [], "it has ended");
    }
    assert_eq!(world.take(&session, 2).await?.len(), 1);
    Ok(())
}

async fn only_who_offers_everything_that_is_required_gets_it(given: Given) -> Outcome {
    let world = World::new(&given).await;
    for (offers, requires, gets) in [
        (&["a"][..], &[][..], true),
        (&[], &["a"], false),
        (&["a"], &["a"], true),
        (&["a:b"], &["a"], true),
        (&["a"], &["a:b"], false),
        (&["ab"], &["a"], false),
        (&["a", "b"], &["b", "a"], true),
        (&["a"], &["a", "b"], false),
        (&["tool:rust", "integration:sip"], &["tool:rust", "integration:sip"], true),
    ] {
        let id = world.submit(requiring(requires)).await?;
        let session = world.session_with("one", offers).await?;
        assert_eq!(!world.take(&session, 1).await?.is_empty(), gets, "{offers:?} for {requires:?}");
        world.scheduler.cancel(id, "next".into()).await?;
    }
    Ok(())
}

async fn a_task_waits_for_who_can_do_it(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let plain = world.session("plain").await?;
    let (special, common) = (world.submit(requiring(&["tool:rust"])).await?, world.submit(task()).await?);
    assert_eq!(world.drain(&plain).await?, [common], "it does not stand in the way");
    let able = world.session_with("able", &["tool:rust"]).await?;
    assert_eq!(world.drain(&able).await?, [special]);
    // One who waits for anything is not woken for what it cannot do, and one who can is.
    let waiting = claiming(&able);
    let idle = claiming(&plain);
    pause().await;
    let next = world.submit(requiring(&["tool"])).await?;
    assert_eq!(within("the claim", waiting).await.expect("no panic")?.expect("open").task.id, next);
    assert!(!idle.is_finished());
    idle.abort();
    Ok(())
}

async fn the_first_of_all_queues_comes_first(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let both = world.session_with("both", &["a", "b"]).await?;
    let mut submitted = Vec::new();
    for requires in [&["a"][..], &["b"], &[], &["b"], &["a", "b"], &["a"], &[]] {
        submitted.push(world.submit(requiring(requires)).await?);
        world.advance(Duration::from_micros(10)).await;
    }
    assert_eq!(world.drain(&both).await?, submitted);
    // What another has taken in between is not missed.
    let only = world.session_with("only", &["a"]).await?;
    let rest = world.submit_all([requiring(&["a"]), requiring(&["b"]), requiring(&["a"])]).await?;
    assert_eq!(ids(&world.take(&only, 1).await?), rest[..1]);
    assert_eq!(world.drain(&both).await?, rest[1..]);
    Ok(())
}

async fn a_session_has_only_so_many(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.limits.leases = 3).await;
    let session = world.session("one").await?;
    world.submit_all((0..6).map(|_| task())).await?;
    let granted = world.take(&session, 5).await?;
    assert_eq!(granted.len(), 3);
    refused!(world.take(&session, 1).await, Error::LimitExceeded { limit: "leases", actual: 4, max: 3, .. });
    world.complete(granted[0].lease).await?;
    assert_eq!(world.take(&session, 5).await?.len(), 1);
    Ok(())
}

async fn a_session_that_left_claims_nothing(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let waiting = claiming(&session);
    pause().await;
    session.leave().await?;
    session.leave().await?;
    assert_eq!(within("the end of the wait", waiting).await.expect("no panic")?, None);
    world.submit(task()).await?;
    assert!(session.claim().await?.is_none());
    refused!(world.take(&session, 1).await, Error::StaleSession { current: None, .. });
    assert!(!world.scheduler.leave(session.incarnation()).await?);
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

async fn a_session_is_superseded_by_the_next_of_its_name(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let older = world.session("one").await?;
    let waiting = claiming(&older);
    pause().await;
    let newer = world.session("one").await?;
    let number = newer.incarnation().number;
    assert!(number > older.incarnation().number);
    let answer = within("the end of the wait", waiting).await.expect("no panic");
    refused!(answer, Error::StaleSession { current: Some(current), .. } if current == number);
    let id = world.submit(task()).await?;
    refused!(world.take(&older, 1).await, Error::StaleSession { .. });
    // That the older leaves does not concern the newer.
    assert!(!world.scheduler.leave(older.incarnation()).await?);
    drop(older);
    assert_eq!(ids(&world.take(&newer, 1).await?), [id]);
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

async fn the_next_is_claimed_in_the_same_step(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let all = world.submit_all((0..4).map(|_| task())).await?;
    let first = world.grant(&session).await?;
    let claim = session.request(2);
    let answer = world.scheduler.end(vec![(first.lease, done())], Some(&claim)).await?;
    assert!(answer.ended[0].is_ok());
    assert_eq!(ids(&answer.granted), all[1..3]);
    let again = world.scheduler.end(vec![(first.lease, done())], Some(&claim)).await?;
    assert_eq!(again.granted, answer.granted, "repeated, it claims the same");
    let endings = answer.granted.iter().map(|grant| (grant.lease, done())).collect();
    let last = world.scheduler.end(endings, Some(&session.request(64))).await?;
    assert_eq!((last.ended.len(), ids(&last.granted)), (2, all[3..].to_vec()));
    // A task that waited for the one that is done can be the next.
    let blocked = world.submit(task().after(all[3])).await?;
    let next = world.scheduler.end(vec![(last.granted[0].lease, done())], Some(&session.request(1))).await?;
    assert_eq!(ids(&next.granted), [blocked]);
    Ok(())
}

async fn a_grant_says_what_there_is_to_do(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task().with_data("x").with_timeout(2 * MINUTE).with_lease(MINUTE)).await?;
    let granted = world.grant(&session).await?;
    assert_eq!((granted.task.id, &*granted.task.data, granted.lease.task), (id, &b"x"[..], id));
    let submitted = granted.task.submitted;
    assert_eq!((granted.deadline, granted.expires), (submitted + MINUTE, Some(submitted + 2 * MINUTE)));
    assert_eq!((granted.attempt, granted.answers.len()), (1, 0));
    assert!(granted.lease.token.get() >= submitted.as_micros());
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

async fn a_repeated_claim_that_has_ended_does_not_wait(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    world.submit(task()).await?;
    let claim = session.request(1);
    let granted = world.scheduler.claim(&claim).await?;
    world.complete(granted[0].lease).await?;
    assert_eq!(within("the answer", world.scheduler.claim(&claim)).await?, []);
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
