//! Waiting for help.

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{refused, within};
use crate::conformance::scheduler::kit::{MINUTE, SECOND, World, claiming, ids, keyed, pause, requiring, task};
use crate::ending::{Blocker, Ended, Ending, Retry};
use crate::error::Error;
use crate::lease::{Grant, Loss};
use crate::priority::Priority;
use crate::session::Session;
use crate::task::{Submitted, TaskState};

cases! {
    help_frees_a_blocked_task: [Scheduler];
    a_blocked_task_frees_its_session: [Scheduler];
    only_its_session_may_resume_at_first: [Scheduler];
    after_a_while_anybody_takes_it_up: [Scheduler];
    its_session_may_resume_as_long_as_nobody_else_has: [Scheduler];
    without_anybody_waiting_the_session_gets_it_back_by_claiming: [Scheduler];
    a_wait_that_is_given_up_makes_it_claimable: [Scheduler];
    resuming_again_answers_with_the_same_lease: [Scheduler];
    help_that_fails_is_an_answer_too: [Scheduler];
    what_is_there_already_can_be_waited_for: [Scheduler];
    only_unblocking_clears_what_nothing_helps: [Scheduler];
    unblocking_does_not_wait_for_the_help: [Scheduler];
    nothing_waits_for_itself: [Scheduler];
    help_is_as_urgent_as_what_waits_for_it: [Scheduler];
    a_session_that_leaves_gives_up_what_it_had_blocked: [Scheduler];
    a_blocked_task_can_be_cancelled: [Scheduler];
    a_task_may_be_blocked_again: [Scheduler];
    only_who_blocked_a_task_resumes_it: [Scheduler];
    what_was_assigned_and_blocked_is_anybodys_after_a_while: [Scheduler];
}

async fn blocked(world: &World, session: &Session, blocker: Blocker) -> Result<(Grant, Vec<Submitted>), Error> {
    let granted = world.grant(session).await?;
    let blocker = Blocker { awaited: true, ..blocker };
    let Ended::Blocked { help } = world.end(granted.lease, Ending::Block(blocker)).await? else { panic!("blocked") };
    Ok((granted, help.to_vec()))
}

async fn help_frees_a_blocked_task(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    let id = world.submit(task().with_attempts(1)).await?;
    let blocker = Blocker::new("the invite is refused").with_help(task()).with_help(task());
    let (granted, help) = blocked(&world, &owner, blocker).await?;
    assert_eq!(world.state(id).await?, TaskState::Blocked);
    assert_eq!(world.scheduler.lost(&granted.lease).await?, Loss::Ended);
    let waiting = tokio::spawn({
        let (scheduler, owner) = (std::sync::Arc::clone(&world.scheduler), owner.incarnation().clone());
        async move { scheduler.resume(&owner, &granted.lease).await }
    });
    let all = world.take(&helper, 5).await?;
    assert_eq!(ids(&all), help.iter().map(|help| help.id).collect::<Vec<_>>());
    assert!(all.iter().all(|grant| grant.task.parent == Some(id)), "help is a part of what it helps");
    world.complete(all[0].lease).await?;
    assert_eq!(world.state(id).await?, TaskState::Blocked, "all of it is needed");
    world.complete(all[1].lease).await?;
    let resumed = within("the resumption", waiting).await.expect("no panic")?;
    assert_eq!((resumed.task.id, resumed.attempt), (id, 1), "the same attempt");
    assert!(resumed.lease.token > granted.lease.token);
    assert_eq!(resumed.answers, ids(&all));
    refused!(world.complete(granted.lease).await, Error::AlreadyEnded { outcome: "blocked", .. });
    world.complete(resumed.lease).await?;
    assert_eq!(world.state(id).await?, TaskState::Done);
    Ok(())
}

async fn a_blocked_task_frees_its_session(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.limits.leases = 1).await;
    let owner = world.session("owner").await?;
    let id = world.submit(task()).await?;
    let (_, help) = blocked(&world, &owner, Blocker::new("x").with_help(task())).await?;
    let info = world.scheduler.sessions(None, 10).await?;
    assert_eq!((info[0].load, info[0].blocked), (0, 1));
    let other = world.grant(&owner).await?;
    assert_eq!(other.task.id, help[0].id, "it may even help itself");
    world.advance(10 * MINUTE).await;
    assert_eq!(world.state(id).await?, TaskState::Blocked, "it waits as long as its session is there");
    Ok(())
}

async fn only_its_session_may_resume_at_first(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    let id = world.submit(task()).await?;
    let (granted, _) = blocked(&world, &owner, Blocker::new("x").with_help(task())).await?;
    world.drain(&helper).await?;
    assert_eq!(world.state(id).await?, TaskState::Ready);
    world.advance(MINUTE - SECOND).await;
    assert_eq!(world.take(&helper, 1).await?, []);
    assert_eq!(world.take(&owner, 1).await?, [], "somebody waits for this very one");
    refused!(world.scheduler.resume(helper.incarnation(), &granted.lease).await, Error::StaleLease { .. });
    let resumed = world.scheduler.resume(owner.incarnation(), &granted.lease).await?;
    assert_eq!(resumed.task.id, id);
    Ok(())
}

async fn after_a_while_anybody_takes_it_up(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    let id = world.submit(task()).await?;
    let (granted, help) = blocked(&world, &owner, Blocker::new("x").with_help(task())).await?;
    world.drain(&helper).await?;
    world.advance(MINUTE).await;
    let taken = world.grant(&helper).await?;
    assert_eq!((taken.task.id, taken.attempt, taken.answers.clone()), (id, 1, vec![help[0].id]));
    let late = world.scheduler.resume(owner.incarnation(), &granted.lease).await;
    refused!(late, Error::StaleLease { current: Some(token), .. } if token == taken.lease.token);
    Ok(())
}

async fn its_session_may_resume_as_long_as_nobody_else_has(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    let id = world.submit(task()).await?;
    let (granted, _) = blocked(&world, &owner, Blocker::new("x").with_help(task())).await?;
    world.drain(&helper).await?;
    world.advance(5 * MINUTE).await;
    assert_eq!(world.scheduler.resume(owner.incarnation(), &granted.lease).await?.task.id, id);
    Ok(())
}

async fn without_anybody_waiting_the_session_gets_it_back_by_claiming(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    let id = world.submit(task()).await?;
    let granted = world.grant(&owner).await?;
    world.end(granted.lease, Ending::Block(Blocker::new("x").with_help(task()))).await?;
    let help = world.grant(&helper).await?;
    let waiting = claiming(&owner);
    pause().await;
    world.complete(help.lease).await?;
    let resumed = within("the claim", waiting).await.expect("no panic")?.expect("open");
    assert_eq!((resumed.task.id, resumed.attempt), (id, 1));
    assert_eq!(world.take(&helper, 1).await?, []);
    Ok(())
}

async fn a_wait_that_is_given_up_makes_it_claimable(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    let id = world.submit(task()).await?;
    let held = owner.claim().await?.expect("open");
    let waiting = held.block(Blocker::new("x").with_help(task())).await?;
    drop(waiting);
    world.drain(&helper).await?;
    let again = within("the claim", owner.claim()).await?.expect("open");
    assert_eq!(again.task.id, id);
    Ok(())
}

async fn resuming_again_answers_with_the_same_lease(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    world.submit(task()).await?;
    let (granted, _) = blocked(&world, &owner, Blocker::new("x").with_help(task())).await?;
    world.drain(&helper).await?;
    let first = world.scheduler.resume(owner.incarnation(), &granted.lease).await?;
    assert_eq!(world.scheduler.resume(owner.incarnation(), &granted.lease).await?, first);
    world.complete(first.lease).await?;
    let late = world.scheduler.resume(owner.incarnation(), &granted.lease).await;
    refused!(late, Error::StaleLease { current: None, .. });
    Ok(())
}

async fn help_that_fails_is_an_answer_too(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    world.submit(task()).await?;
    let blocker = Blocker::new("x").with_help(task()).with_help(task());
    let (granted, help) = blocked(&world, &owner, blocker).await?;
    let first = world.grant(&helper).await?;
    world.end(first.lease, Ending::Fail { reason: "cannot".into(), retry: Retry::Never }).await?;
    world.scheduler.cancel(help[1].id, "enough".into()).await?;
    let resumed = world.scheduler.resume(owner.incarnation(), &granted.lease).await?;
    for answer in &resumed.answers {
        assert!(world.outcome(*answer).await?.result().is_none());
    }
    Ok(())
}

async fn what_is_there_already_can_be_waited_for(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, other) = (world.session("owner").await?, world.session("other").await?);
    let id = world.submit(task()).await?;
    let elsewhere = world.submit(task()).await?;
    let (granted, help) = blocked(&world, &owner, Blocker::new("x").with_wait(elsewhere)).await?;
    assert_eq!((granted.task.id, help.len()), (id, 0));
    assert_eq!(world.drain(&other).await?, [elsewhere]);
    let resumed = world.scheduler.resume(owner.incarnation(), &granted.lease).await?;
    assert_eq!(resumed.answers, [elsewhere]);
    // What is over already is an answer at once.
    let again = Ending::Block(Blocker::new("x").with_wait(elsewhere));
    world.end(resumed.lease, again).await?;
    assert_eq!(world.scheduler.resume(owner.incarnation(), &resumed.lease).await?.task.id, id);
    Ok(())
}

async fn only_unblocking_clears_what_nothing_helps(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let owner = world.session("owner").await?;
    let id = world.submit(task()).await?;
    let (granted, _) = blocked(&world, &owner, Blocker::new("waits for a person")).await?;
    world.advance(10 * MINUTE).await;
    assert_eq!(world.state(id).await?, TaskState::Blocked);
    assert!(world.scheduler.unblock(id).await?);
    assert!(!world.scheduler.unblock(id).await?, "it is not blocked any more");
    assert_eq!(world.scheduler.resume(owner.incarnation(), &granted.lease).await?.task.id, id);
    refused!(world.scheduler.unblock(crate::dependency::TaskId::new(4)).await, Error::UnknownTask { .. });
    Ok(())
}

async fn unblocking_does_not_wait_for_the_help(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    let id = world.submit(task()).await?;
    let (granted, help) = blocked(&world, &owner, Blocker::new("x").with_help(task())).await?;
    assert!(world.scheduler.unblock(id).await?);
    let resumed = world.scheduler.resume(owner.incarnation(), &granted.lease).await?;
    assert_eq!(world.drain(&helper).await?, [help[0].id], "the help goes on");
    assert_eq!(world.state(id).await?, TaskState::Claimed, "and changes nothing any more");
    world.complete(resumed.lease).await?;
    Ok(())
}

async fn nothing_waits_for_itself(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let owner = world.session("owner").await?;
    let id = world.submit(task()).await?;
    let next = world.submit(task().after(id)).await?;
    let last = world.submit(task().after(next)).await?;
    let granted = world.grant(&owner).await?;
    for (blocker, around) in [
        (Blocker::new("x").with_wait(id), vec![id]),
        (Blocker::new("x").with_help(task().after(last)), vec![id, last, next]),
        (Blocker::new("x").with_help(task().after(next)), vec![id, next]),
    ] {
        let answer = world.end(granted.lease, Ending::Block(blocker)).await;
        let Err(Error::DependencyCycle { cycle }) = answer else { panic!("a cycle is refused: {answer:?}") };
        assert_eq!(cycle, around.into_iter().map(Into::into).collect::<Vec<_>>());
    }
    assert_eq!(world.state(id).await?, TaskState::Claimed);
    // Nor does it help itself, under its key.
    let known = world.submit(keyed("known")).await?;
    let granted = world.take(&owner, 1).await?;
    let answer = world.end(granted[0].lease, Ending::Block(Blocker::new("x").with_help(keyed("known")))).await;
    let Err(Error::DependencyCycle { cycle }) = answer else { panic!("a cycle is refused: {answer:?}") };
    assert_eq!(cycle, [known.into()]);
    Ok(())
}

async fn help_is_as_urgent_as_what_waits_for_it(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    world.submit(task().with_priority(Priority::P0)).await?;
    let other = world.submit(task().with_priority(Priority::P1)).await?;
    let help = task().with_priority(Priority::P3);
    let (_, help) = blocked(&world, &owner, Blocker::new("x").with_help(help)).await?;
    assert_eq!(ids(&world.take(&helper, 2).await?), [help[0].id, other]);
    Ok(())
}

async fn a_session_that_leaves_gives_up_what_it_had_blocked(given: Given) -> Outcome {
    for superseded in [false, true] {
        let world = World::new(&given).await;
        let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
        let ids = world.submit_all([task(), task(), task()]).await?;
        let (first, _) = blocked(&world, &owner, Blocker::new("x").with_help(task())).await?;
        let _external = blocked(&world, &owner, Blocker::new("waits for a person")).await?;
        let (resumable, _) = blocked(&world, &owner, Blocker::new("x")).await?;
        world.scheduler.unblock(resumable.task.id).await?;
        if superseded {
            world.session("owner").await?;
        } else {
            owner.leave().await?;
        }
        assert_eq!(world.state(first.task.id).await?, TaskState::Waiting, "the help is still needed");
        let mut done = world.drain(&helper).await?;
        done.retain(|id| ids.contains(id));
        done.sort_unstable();
        assert_eq!(done, ids, "somebody else does them all");
        let late = world.scheduler.resume(owner.incarnation(), &first.lease).await;
        refused!(late, Error::StaleSession { .. });
    }
    Ok(())
}

async fn a_blocked_task_can_be_cancelled(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    let id = world.submit(task()).await?;
    let (granted, help) = blocked(&world, &owner, Blocker::new("x").with_help(task())).await?;
    let waiting = tokio::spawn({
        let (scheduler, owner) = (std::sync::Arc::clone(&world.scheduler), owner.incarnation().clone());
        async move { scheduler.resume(&owner, &granted.lease).await }
    });
    pause().await;
    assert!(world.scheduler.cancel(id, "not needed".into()).await?);
    let answer = within("the end of the wait", waiting).await.expect("no panic");
    refused!(answer, Error::StaleLease { current: None, .. });
    assert_eq!(world.drain(&helper).await?, [help[0].id]);
    assert_eq!(world.state(id).await?, TaskState::Cancelled);
    Ok(())
}

async fn a_task_may_be_blocked_again(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    let id = world.submit(task()).await?;
    let mut granted = world.grant(&owner).await?;
    for _ in 0..5 {
        let blocker = Blocker { awaited: true, ..Blocker::new("x").with_help(task()) };
        world.end(granted.lease, Ending::Block(blocker)).await?;
        assert_eq!(world.drain(&helper).await?.len(), 1);
        let resumed = world.scheduler.resume(owner.incarnation(), &granted.lease).await?;
        assert_eq!((resumed.task.id, resumed.answers.len()), (id, 1));
        granted = resumed;
    }
    world.complete(granted.lease).await?;
    Ok(())
}

async fn only_who_blocked_a_task_resumes_it(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, other) = (world.session_with("owner", &["a"]).await?, world.session("other").await?);
    let id = world.submit(requiring(&["a"])).await?;
    let (granted, _) = blocked(&world, &owner, Blocker::new("waits for a person")).await?;
    world.scheduler.unblock(id).await?;
    for after in [SECOND, 5 * MINUTE] {
        world.advance(after).await;
        let answer = world.scheduler.resume(other.incarnation(), &granted.lease).await;
        refused!(answer, Error::StaleLease { current: None, .. });
    }
    assert_eq!(world.scheduler.resume(owner.incarnation(), &granted.lease).await?.task.id, id);
    Ok(())
}

async fn what_was_assigned_and_blocked_is_anybodys_after_a_while(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, other) = (world.session("owner").await?, world.session("other").await?);
    let id = world.submit(task().with_assignee(owner.incarnation().session.clone())).await?;
    let _blocked = blocked(&world, &owner, Blocker::new("waits for a person")).await?;
    world.scheduler.unblock(id).await?;
    world.advance(MINUTE).await;
    assert_eq!(ids(&world.take(&other, 1).await?), [id]);
    Ok(())
}
