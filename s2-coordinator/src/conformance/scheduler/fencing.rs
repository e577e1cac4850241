//! Whoever was superseded changes nothing, and whoever repeats gets the first answer.

use std::time::Duration;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{refused, within};
use crate::conformance::scheduler::kit::{LEASE, MINUTE, SECOND, World, done, pause, task};
use crate::dependency::TaskId;
use crate::ending::{Blocker, Ended, Ending, Retry};
use crate::error::Error;
use crate::lease::{Lease, Loss, Token};
use crate::name::{EventType, Topic};
use crate::outcome::Completion;
use crate::task::TaskState;

cases! {
    tokens_rise: [Scheduler];
    a_zombie_changes_nothing: [Scheduler];
    whoever_ends_late_is_told_who_has_it: [Scheduler];
    a_renewed_lease_lasts: [Scheduler];
    an_attempt_takes_only_so_long_however_often_it_is_renewed: [Scheduler];
    renewing_is_answered_for_each: [Scheduler];
    every_ending_that_is_repeated_gets_the_first_answer: [Scheduler];
    an_ending_is_answered_alike_after_others_have_had_the_task: [Scheduler];
    ending_in_another_way_is_refused: [Scheduler];
    what_follows_from_a_task_follows_once: [Scheduler];
    what_cannot_be_ended_is_still_held: [Scheduler];
    a_batch_of_endings_is_answered_one_by_one: [Scheduler];
    a_lease_is_lost_for_a_reason: [Scheduler];
    a_lease_that_was_never_granted_is_stale: [Scheduler];
    a_receipt_can_be_kept_as_json: [Scheduler];
}

/// Every way to end a claim.
fn endings() -> [Ending; 8] {
    let reason = "because";
    [
        done(),
        Ending::Fail { reason: reason.into(), retry: Retry::Backoff },
        Ending::Fail { reason: reason.into(), retry: Retry::After(MINUTE) },
        Ending::Fail { reason: reason.into(), retry: Retry::Never },
        Ending::Release,
        Ending::Refuse { reason: reason.into(), delay: None },
        Ending::Refuse { reason: reason.into(), delay: Some(MINUTE) },
        Ending::Block(Blocker::new(reason).with_help(task())),
    ]
}

async fn tokens_rise(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    world.submit(task()).await?;
    let mut last = Token::default();
    for _ in 0..20 {
        let lease = world.grant(&session).await?.lease;
        assert!(lease.token > last);
        last = lease.token;
        world.end(lease, Ending::Release).await?;
    }
    Ok(())
}

async fn a_zombie_changes_nothing(given: Given) -> Outcome {
    for ending in endings() {
        let world = World::new(&given).await;
        let (zombie, heir) = (world.session("zombie").await?, world.session("heir").await?);
        let id = world.submit(task().with_attempts(5)).await?;
        let late = world.grant(&zombie).await?.lease;
        world.advance(LEASE).await;
        for current in [None, Some(world.grant(&heir).await?.lease)] {
            let before = (world.scheduler.task(id).await?, world.operations().await?.len());
            let answer = world.end(late, ending.clone()).await;
            refused!(answer, Error::StaleLease { task, held, .. } if task == id && held == late.token);
            refused!(world.renew(late).await, Error::StaleLease { .. });
            let resumed = world.scheduler.resume(zombie.incarnation(), &late).await;
            refused!(resumed, Error::StaleLease { .. });
            world.scheduler.abandon(&late);
            assert_eq!(world.scheduler.lost(&late).await?, Loss::Expired);
            let after = (world.scheduler.task(id).await?, world.operations().await?.len());
            assert_eq!(before, after, "{ending:?}");
            if let Some(current) = current {
                world.complete(current).await?;
                refused!(world.end(late, ending.clone()).await, Error::StaleLease { current: None, .. });
            }
        }
        assert_eq!(world.state(id).await?, TaskState::Done);
    }
    Ok(())
}

async fn whoever_ends_late_is_told_who_has_it(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    world.submit(task()).await?;
    let late = world.grant(&one).await?.lease;
    world.advance(LEASE).await;
    refused!(world.complete(late).await, Error::StaleLease { current: None, .. });
    let now = world.grant(&other).await?.lease;
    refused!(world.complete(late).await, Error::StaleLease { current: Some(token), .. } if token == now.token);
    Ok(())
}

async fn a_renewed_lease_lasts(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let granted = world.grant(&session).await?;
    let mut deadline = granted.deadline;
    for _ in 0..10 {
        world.advance(LEASE - Duration::from_micros(1)).await;
        let renewed = world.renew(granted.lease).await?;
        assert_eq!(renewed, deadline + (LEASE - Duration::from_micros(1)));
        deadline = renewed;
    }
    assert_eq!(world.state(id).await?, TaskState::Claimed);
    world.advance(LEASE).await;
    refused!(world.renew(granted.lease).await, Error::StaleLease { .. });
    Ok(())
}

async fn an_attempt_takes_only_so_long_however_often_it_is_renewed(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task().with_timeout(MINUTE)).await?;
    let granted = world.grant(&session).await?;
    let end = granted.expires.expect("it is limited");
    world.advance(20 * SECOND).await;
    let renew = async || world.renew(granted.lease).await;
    assert_eq!(renew().await?, granted.deadline + 20 * SECOND);
    world.advance(20 * SECOND).await;
    assert_eq!(renew().await?, end, "not beyond what an attempt may take");
    world.advance(20 * SECOND).await;
    refused!(renew().await, Error::StaleLease { .. });
    assert_eq!(world.scheduler.task(id).await?.failures, 1);
    Ok(())
}

async fn renewing_is_answered_for_each(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    world.submit_all((0..3).map(|_| task())).await?;
    let granted = world.take(&session, 3).await?;
    world.complete(granted[1].lease).await?;
    let leases: Vec<Lease> = granted.iter().map(|grant| grant.lease).collect();
    let renewed = world.scheduler.renew(&leases).await?;
    assert_eq!(renewed.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(world.scheduler.renew(&[]).await?.len(), 0);
    let many = vec![leases[0]; 501];
    refused!(world.scheduler.renew(&many).await, Error::LimitExceeded { limit: "batch", .. });
    Ok(())
}

async fn every_ending_that_is_repeated_gets_the_first_answer(given: Given) -> Outcome {
    for ending in endings() {
        let world = World::new(&given).await;
        let session = world.session("one").await?;
        let id = world.submit(task().with_attempts(1 + u32::from(ending != endings()[3]))).await?;
        let lease = world.grant(&session).await?.lease;
        let first = world.end(lease, ending.clone()).await?;
        let before = (world.scheduler.task(id).await?, world.operations().await?.len());
        for _ in 0..3 {
            assert_eq!(world.end(lease, ending.clone()).await?, first);
        }
        assert_eq!((world.scheduler.task(id).await?, world.operations().await?.len()), before, "{ending:?}");
    }
    Ok(())
}

async fn an_ending_is_answered_alike_after_others_have_had_the_task(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let id = world.submit(task()).await?;
    let lease = world.grant(&one).await?.lease;
    let fail = Ending::Fail { reason: "flaky".into(), retry: Retry::After(SECOND) };
    let first = world.end(lease, fail.clone()).await?;
    world.advance(SECOND).await;
    let next = world.grant(&other).await?;
    assert_eq!(world.end(lease, fail.clone()).await?, first);
    assert_eq!(world.state(id).await?, TaskState::Claimed);
    world.complete(next.lease).await?;
    assert_eq!(world.end(lease, fail).await?, first, "superseded, yes, but this is what it has done itself");
    assert_eq!(world.complete(next.lease).await?, world.complete(next.lease).await?);
    Ok(())
}

async fn ending_in_another_way_is_refused(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    for (nth, first) in endings().into_iter().enumerate() {
        let id = world.submit(task()).await?;
        let lease = world.grant(&session).await?.lease;
        assert_eq!(lease.task, id);
        let ended = world.end(lease, first.clone()).await?;
        for (other, second) in endings().into_iter().enumerate() {
            let kind = std::mem::discriminant(&first);
            if other != nth && std::mem::discriminant(&second) != kind {
                let answer = world.end(lease, second).await;
                refused!(answer, Error::AlreadyEnded { outcome, .. } if outcome == ended.as_str());
            }
        }
        world.scheduler.cancel(id, "next".into()).await?;
        if let Ended::Blocked { help } = ended {
            world.scheduler.cancel(help[0].id, "next".into()).await?;
        }
    }
    // Done with another result is another way, too.
    world.submit(task()).await?;
    let lease = world.grant(&session).await?.lease;
    world.complete(lease).await?;
    let other = Ending::Complete(Completion::new().with_data("other"));
    refused!(world.end(lease, other).await, Error::AlreadyEnded { outcome: "completed", .. });
    Ok(())
}

async fn what_follows_from_a_task_follows_once(given: Given) -> Outcome {
    const TOPIC: Topic = Topic::from_static("results");
    let world = World::new(&given).await;
    let (session, bus) = (world.session("one").await?, world.fleet.bus());
    let id = world.submit(task()).await?;
    let lease = world.grant(&session).await?.lease;
    let event = crate::event::NewEvent::new(TOPIC, EventType::from_static("work.done"), "one".parse()?);
    let completion = Completion::new().with_data("42").with_task(task()).with_task(task()).with_event(event);
    let ending = Ending::Complete(completion);
    let Ended::Completed { tasks, events } = world.end(lease, ending.clone()).await? else { panic!("it is done") };
    assert_eq!((tasks.len(), events.len()), (2, 1));
    for follow in tasks.iter() {
        let follow = world.scheduler.task(follow.id).await?;
        assert_eq!((follow.task.parent, follow.task.depth), (Some(id), 1), "parts of what they follow from");
    }
    assert_eq!(world.end(lease, ending).await?, Ended::Completed { tasks, events });
    assert_eq!(bus.read(&TOPIC, crate::start::Start::Beginning, 10).await?.items.len(), 1);
    assert_eq!(world.scheduler.stats().await?.unfinished(), 2);
    assert_eq!(world.outcome(id).await?.result().expect("it is done").data, "42");
    Ok(())
}

async fn what_cannot_be_ended_is_still_held(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let lease = world.grant(&session).await?.lease;
    let reserved = crate::event::NewEvent::new(Topic::JOURNAL, EventType::from_static("x"), "one".parse()?);
    let long: String = "x".repeat(1025);
    for ending in [
        Ending::Complete(Completion::new().with_task(task().after(TaskId::new(1)))),
        Ending::Complete(Completion::new().with_task(task()).with_event(reserved)),
        Ending::Complete(Completion::new().with_data(vec![0; 1024 * 1024 + 1])),
        Ending::Complete(Completion::new().with_evidence("log", "x".repeat(9_000))),
        Ending::Fail { reason: long.clone().into(), retry: Retry::Backoff },
        Ending::Fail { reason: "later".into(), retry: Retry::After(Duration::from_secs(40 * 86_400)) },
        Ending::Refuse { reason: long.clone().into(), delay: None },
        Ending::Block(Blocker::new(long)),
        Ending::Block(Blocker::new("x").with_wait(TaskId::new(1))),
        Ending::Block(Blocker::new("x").with_wait(id)),
        Ending::Block(Blocker::new("x").with_help(task().after(id))),
    ] {
        assert!(world.end(lease, ending.clone()).await.is_err(), "{ending:?}");
        assert_eq!(world.state(id).await?, TaskState::Claimed);
        assert_eq!(world.scheduler.stats().await?.unfinished(), 1, "nothing of it was written: {ending:?}");
    }
    world.complete(lease).await?;
    Ok(())
}

async fn a_batch_of_endings_is_answered_one_by_one(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    world.submit_all((0..4).map(|_| task())).await?;
    let granted = world.take(&session, 4).await?;
    world.end(granted[1].lease, Ending::Release).await?;
    let endings = granted.iter().map(|grant| (grant.lease, done())).collect();
    let all = world.scheduler.end(endings, None).await?;
    assert_eq!(all.ended.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, true]);
    assert!(matches!(all.ended[1], Err(Error::AlreadyEnded { outcome: "released", .. })));
    let many = vec![(granted[0].lease, done()); 501];
    refused!(world.scheduler.end(many, None).await, Error::LimitExceeded { limit: "batch", .. });
    // What follows from all of them together is limited, too, and then nothing has happened.
    world.submit(task()).await?;
    let granted = world.take(&session, 2).await?;
    let follows = |_| Ending::Complete(Completion { tasks: vec![task(); 251], ..Completion::new() });
    let endings = granted.iter().map(|grant| (grant.lease, follows(grant))).collect();
    let answer = world.scheduler.end(endings, None).await;
    refused!(answer, Error::LimitExceeded { limit: "batch", actual: 502, max: 500, .. });
    for grant in granted {
        assert_eq!(world.state(grant.task.id).await?, TaskState::Claimed);
    }
    Ok(())
}

async fn a_lease_is_lost_for_a_reason(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let mut expected = Vec::new();
    for nth in 0..5 {
        let new = if nth == 2 { task().with_deadline(SECOND) } else { task() };
        world.submit(new).await?;
        expected.push(world.grant(&session).await?);
    }
    let losing: Vec<_> = expected
        .iter()
        .map(|grant| {
            let (scheduler, lease) = (std::sync::Arc::clone(&world.scheduler), grant.lease);
            tokio::spawn(async move { scheduler.lost(&lease).await })
        })
        .collect();
    pause().await;
    world.complete(expected[0].lease).await?;
    world.scheduler.cancel(expected[1].task.id, "not needed".into()).await?;
    world.advance(SECOND).await;
    world.renew(expected[4].lease).await?;
    world.advance(LEASE - SECOND).await;
    world.session("one").await?;
    let reasons =
        [Loss::Ended, Loss::Cancelled { reason: "not needed".into() }, Loss::Overdue, Loss::Expired, Loss::Superseded];
    for ((lost, reason), grant) in losing.into_iter().zip(reasons).zip(expected) {
        assert_eq!(within("the loss", lost).await.expect("no panic")?, reason);
        assert_eq!(world.scheduler.lost(&grant.lease).await?, reason, "told again to whoever asks later");
    }
    Ok(())
}

async fn a_lease_that_was_never_granted_is_stale(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let id = world.submit(task()).await?;
    for lease in [Lease { task: id, token: Token::new(3) }, Lease { task: TaskId::new(3), token: Token::new(3) }] {
        refused!(world.complete(lease).await, Error::StaleLease { current: None, .. });
        refused!(world.renew(lease).await, Error::StaleLease { .. });
        assert_eq!(world.scheduler.lost(&lease).await?, Loss::Forgotten);
        world.scheduler.abandon(&lease);
    }
    assert_eq!(world.state(id).await?, TaskState::Ready);
    Ok(())
}

async fn a_receipt_can_be_kept_as_json(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let kept = serde_json::to_string(&world.grant(&session).await?.lease).expect("JSON");
    let lease: Lease = serde_json::from_str(&kept).expect("a lease");
    world.complete(lease).await?;
    assert_eq!(world.state(id).await?, TaskState::Done);
    Ok(())
}
