//! Handing tasks out.

use std::collections::HashMap;
use std::time::Duration;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{refused, within};
use crate::conformance::scheduler::kit::{MINUTE, World, claiming, done, ids, pause, requiring, task};
use crate::error::Error;
use crate::lease::Claim;
use crate::outcome::Completion;
use crate::task::TaskState;

cases! {
    a_task_goes_to_one_session: [Scheduler];
    many_sessions_race_for_many_tasks: [Scheduler];
    a_claim_takes_as_many_as_it_asks_for: [Scheduler];
    a_repeated_claim_answers_with_the_same_leases: [Scheduler];
    a_repeated_claim_leaves_out_what_has_ended: [Scheduler];
    a_claim_of_which_something_is_held_is_remembered: [Scheduler];
    only_who_offers_everything_that_is_required_gets_it: [Scheduler];
    a_task_waits_for_who_can_do_it: [Scheduler];
    the_first_of_all_queues_comes_first: [Scheduler];
    a_session_has_only_so_many: [Scheduler];
    a_session_that_left_claims_nothing: [Scheduler];
    a_session_is_superseded_by_the_next_of_its_name: [Scheduler];
    the_next_is_claimed_in_the_same_step: [Scheduler];
    a_grant_says_what_there_is_to_do: [Scheduler];
    a_repeated_claim_that_has_ended_does_not_wait: [Scheduler];
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
