//! Tasks that wait for each other.

use std::time::Duration;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{inbox_of, journal_of, refused};
use crate::conformance::scheduler::kit::{LEASE, MINUTE, SECOND, World, ids, keyed, task};
use crate::dependency::{Dependency, OnFailure, TaskId};
use crate::ending::{Blocker, Ending, Retry};
use crate::entry::{Entry, Value};
use crate::error::Error;
use crate::escalation::EscalationId;
use crate::event::Position;
use crate::lease::{Grant, Lease};
use crate::session::{SchedulerExt, Session};
use crate::severity::Severity;
use crate::task::TaskState;

cases! {
    who_waits_longest_goes_on: [Scheduler];
    of_those_who_wait_equally_long_the_first_goes_on: [Scheduler];
    who_waits_for_a_ring_is_left_alone: [Scheduler];
    a_task_may_be_blocked_by_what_depends_on_it: [Scheduler];
    help_that_is_there_may_wait_for_what_it_is_to_help: [Scheduler];
    several_rings_are_opened_one_by_one: [Scheduler];
    a_ring_of_many_sessions_has_one_that_goes_on: [Scheduler];
    a_ring_of_who_is_gone_is_opened_too: [Scheduler];
    one_that_is_done_is_enough: [Scheduler];
    without_any_that_is_done_all_must_be_over: [Scheduler];
    a_ring_closes_when_a_lease_ends: [Scheduler];
    a_ring_closes_when_a_task_is_cancelled: [Scheduler];
    a_ring_closes_when_a_dependency_fails: [Scheduler];
    a_way_out_is_no_deadlock: [Scheduler];
    who_waits_too_long_goes_on: [Scheduler];
    without_a_longest_wait_one_waits_as_long_as_it_takes: [Scheduler];
    who_was_released_and_waits_for_the_same_needs_a_person: [Scheduler];
    a_wait_ends_in_time_though_its_session_is_gone: [Scheduler];
    another_attempt_may_wait_for_the_same: [Scheduler];
    waits_are_told_as_far_as_they_go: [Scheduler];
}

async fn blocked(world: &World, session: &Session, task: TaskId, blocker: Blocker) -> Result<Lease, Error> {
    let granted = world.grant(session).await?;
    assert_eq!(granted.task.id, task);
    world.end(granted.lease, Ending::Block(Blocker { awaited: true, ..blocker })).await?;
    Ok(granted.lease)
}

async fn on(world: &World, session: &Session, task: TaskId, on: TaskId) -> Result<Lease, Error> {
    blocked(world, session, task, Blocker::new("x").with_wait(on)).await
}

async fn cycle_of(world: &World, session: &Session, lease: Lease) -> Result<Vec<TaskId>, Error> {
    let resumed = world.scheduler.resume(session.incarnation(), &lease).await?;
    let cycle = resumed.preempted.clone().expect("it goes on without help").cycle;
    world.complete(resumed.lease).await?;
    Ok(cycle)
}

async fn entries(world: &World, component: &str) -> Result<Vec<Entry>, Error> {
    let mut entries = journal_of(&*world.fleet).entries(Position::ORIGIN, 500).await?.items;
    entries.retain(|entry| &*entry.component == component);
    Ok(entries)
}

fn list(tasks: &[TaskId]) -> Value {
    Value::List(tasks.iter().map(|task| task.get().into()).collect())
}

async fn who_waits_longest_goes_on(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, two) = (world.session("one").await?, world.session("two").await?);
    let all = world.submit_all([task(), task()]).await?;
    let first = world.grant(&one).await?;
    let second = world.grant(&two).await?;
    let wait = |on| Ending::Block(Blocker { awaited: true, ..Blocker::new("x").with_wait(on) });
    world.end(second.lease, wait(all[0])).await?;
    world.advance(SECOND).await;
    world.end(first.lease, wait(all[1])).await?;
    assert_eq!((world.state(all[0]).await?, world.state(all[1]).await?), (TaskState::Blocked, TaskState::Ready));
    let resumed = world.scheduler.resume(two.incarnation(), &second.lease).await?;
    let preempted = resumed.preempted.clone().expect("it goes on without help");
    assert_eq!((&*preempted.cycle, preempted.waited), (&[all[1], all[0]][..], SECOND));
    assert_eq!((resumed.attempt, resumed.answers.clone()), (1, vec![all[0]]), "the same attempt");
    let cycle = list(&all);
    let said = entries(&world, "deadlock").await?;
    assert_eq!(said.iter().map(|entry| &*entry.operation).collect::<Vec<_>>(), ["detected", "resolved"]);
    assert_eq!((said[0].params.get("cycle"), said[0].severity), (Some(&cycle), Severity::High));
    assert_eq!(said[1].params.get("task"), Some(&all[1].get().into()));
    let told = entries(&world, "task").await?.into_iter().find(|entry| &*entry.operation == "preempted");
    let told = told.expect("it is told");
    assert_eq!((told.subject.to_string(), told.severity), (all[1].to_string(), Severity::High));
    assert_eq!(told.params.get("session"), Some(&"two".into()));
    assert_eq!(told.params.get("cycle"), Some(&list(&[all[1], all[0]])));
    // The other one gets what it waits for.
    world.complete(resumed.lease).await?;
    let resumed = world.scheduler.resume(one.incarnation(), &first.lease).await?;
    assert_eq!((resumed.preempted, resumed.attempt), (None, 1));
    assert_eq!(entries(&world, "deadlock").await?.len(), 2, "and that was all");
    Ok(())
}

async fn of_those_who_wait_equally_long_the_first_goes_on(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let all = world.submit_all([task(), task(), task()]).await?;
    let granted = world.take(&session, 3).await?;
    // The same call closes the ring.
    let wait = |nth: usize| Ending::Block(Blocker::new("x").with_wait(all[(nth + 2) % 3]));
    let endings = granted.iter().enumerate().map(|(nth, grant)| (grant.lease, wait(nth))).collect();
    let ended = world.scheduler.end(endings, None).await?.ended;
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    let resumed = world.grant(&session).await?;
    let cycle = resumed.preempted.map(|preempted| preempted.cycle);
    assert_eq!((resumed.task.id, cycle), (all[0], Some(vec![all[0], all[2], all[1]])));
    assert_eq!(world.take(&session, 5).await?, []);
    world.complete(resumed.lease).await?;
    assert_eq!(world.drain(&session).await?, [all[1], all[2]]);
    Ok(())
}

async fn who_waits_for_a_ring_is_left_alone(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let all = world.submit_all([task(), task(), task()]).await?;
    let dependant = world.submit(task().after(all[0])).await?;
    let tail = on(&world, &session, all[0], all[1]).await?;
    world.advance(SECOND).await;
    let inside = on(&world, &session, all[1], all[2]).await?;
    world.advance(SECOND).await;
    on(&world, &session, all[2], all[1]).await?;
    assert_eq!(world.state(all[0]).await?, TaskState::Blocked, "it waits longest, but nobody waits for it");
    assert_eq!(cycle_of(&world, &session, inside).await?, [all[1], all[2]]);
    let resumed = world.scheduler.resume(session.incarnation(), &tail).await?;
    assert_eq!(resumed.preempted, None);
    assert_eq!(world.state(dependant).await?, TaskState::Waiting);
    Ok(())
}

async fn a_task_may_be_blocked_by_what_depends_on_it(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let next = world.submit(task().after(id)).await?;
    let last = world.submit(task().after(next)).await?;
    let lease = on(&world, &session, id, last).await?;
    assert_eq!(cycle_of(&world, &session, lease).await?, [id, last, next]);
    assert_eq!(world.drain(&session).await?, [next, last]);
    Ok(())
}

async fn help_that_is_there_may_wait_for_what_it_is_to_help(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let known = world.submit(keyed("known").after(id)).await?;
    let blocker = Blocker::new("x").with_help(keyed("known").after(id));
    let lease = blocked(&world, &session, id, blocker).await?;
    assert_eq!(cycle_of(&world, &session, lease).await?, [id, known]);
    Ok(())
}

async fn several_rings_are_opened_one_by_one(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let all = world.submit_all([task(), task(), task()]).await?;
    let second_and_third = world.submit(task().after(all[1]).after(all[2])).await?;
    let granted = world.take(&session, 3).await?;
    let wait = |on| Ending::Block(Blocker { awaited: true, ..Blocker::new("x").with_wait(on) });
    for grant in &granted[1..] {
        world.end(grant.lease, wait(all[0])).await?;
        world.advance(SECOND).await;
    }
    // The last one closes two rings; opening one of them is not enough.
    let both = Blocker::new("x").with_wait(all[1]).with_wait(all[2]);
    world.end(granted[0].lease, Ending::Block(Blocker { awaited: true, ..both })).await?;
    assert_eq!(world.state(all[0]).await?, TaskState::Blocked);
    assert_eq!(cycle_of(&world, &session, granted[1].lease).await?, [all[1], all[0]]);
    assert_eq!(cycle_of(&world, &session, granted[2].lease).await?, [all[2], all[0]]);
    assert_eq!(world.state(second_and_third).await?, TaskState::Ready);
    Ok(())
}

async fn a_ring_of_many_sessions_has_one_that_goes_on(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let all = world.submit_all((0..100).map(|_| task())).await?;
    let mut waiting = Vec::new();
    for nth in 0..100 {
        waiting.push(world.session(&format!("session-{nth}")).await?);
    }
    let mut leases = Vec::new();
    for session in &waiting {
        leases.push(world.grant(session).await?.lease);
    }
    for (nth, lease) in leases.iter().enumerate() {
        let blocker = Blocker::new("x").with_wait(all[(nth + 1) % 100]);
        world.end(*lease, Ending::Block(Blocker { awaited: true, ..blocker })).await?;
    }
    assert_eq!(world.scheduler.stats().await?.count(TaskState::Blocked), 99);
    assert_eq!(cycle_of(&world, &waiting[0], leases[0]).await?, all);
    // Then one after the other.
    for nth in (1..100).rev() {
        let resumed = world.scheduler.resume(waiting[nth].incarnation(), &leases[nth]).await?;
        assert_eq!(resumed.preempted, None);
        world.complete(resumed.lease).await?;
    }
    Ok(())
}

async fn a_ring_of_who_is_gone_is_opened_too(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, two) = (world.session("one").await?, world.session("two").await?);
    let all = world.submit_all([task(), task()]).await?;
    on(&world, &one, all[0], all[1]).await?;
    one.leave().await?;
    assert_eq!(world.state(all[0]).await?, TaskState::Waiting);
    let lease = on(&world, &two, all[1], all[0]).await?;
    let taken = world.grant(&two).await?;
    let cycle = taken.preempted.map(|preempted| preempted.cycle);
    assert_eq!((taken.task.id, taken.attempt, cycle), (all[0], 1, Some(all.clone())), "somebody else takes it up");
    world.complete(taken.lease).await?;
    assert_eq!(world.scheduler.resume(two.incarnation(), &lease).await?.preempted, None);
    Ok(())
}

async fn one_that_is_done_is_enough(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    let id = world.submit(task()).await?;
    let blocker = Blocker::new("x").with_help(task()).with_help(task()).with_help(task()).with_any();
    let lease = blocked(&world, &owner, id, blocker).await?;
    let help = world.take(&helper, 3).await?;
    world.end(help[0].lease, Ending::Fail { reason: "cannot".into(), retry: Retry::Never }).await?;
    assert_eq!(world.state(id).await?, TaskState::Blocked);
    world.complete(help[1].lease).await?;
    let resumed = world.scheduler.resume(owner.incarnation(), &lease).await?;
    assert_eq!((resumed.answers.clone(), resumed.preempted.clone()), (ids(&help), None));
    assert_eq!(world.state(help[2].task.id).await?, TaskState::Claimed, "the others go on");
    world.complete(help[2].lease).await?;
    assert_eq!(world.state(id).await?, TaskState::Claimed, "and change nothing any more");
    // What is done already is enough at once.
    let open = world.submit(task()).await?;
    let again = Blocker::new("y").with_wait(open).with_wait(help[1].task.id).with_any();
    world.end(resumed.lease, Ending::Block(Blocker { awaited: true, ..again })).await?;
    assert_eq!(world.scheduler.resume(owner.incarnation(), &resumed.lease).await?.answers, [help[1].task.id, open]);
    Ok(())
}

async fn without_any_that_is_done_all_must_be_over(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    let id = world.submit(task()).await?;
    let blocker = Blocker::new("x").with_help(task()).with_help(task()).with_any();
    let lease = blocked(&world, &owner, id, blocker).await?;
    let help = world.take(&helper, 2).await?;
    for grant in &help {
        assert_eq!(world.state(id).await?, TaskState::Blocked);
        world.end(grant.lease, Ending::Fail { reason: "cannot".into(), retry: Retry::Never }).await?;
    }
    let resumed = world.scheduler.resume(owner.incarnation(), &lease).await?;
    assert_eq!((resumed.answers, resumed.preempted), (ids(&help), None), "that is an answer, too");
    // Nothing is waited for: whoever is asked for none has none.
    world.end(resumed.lease, Ending::Block(Blocker::new("waits for a person").with_any())).await?;
    assert_eq!(world.state(id).await?, TaskState::Blocked);
    Ok(())
}

/// A task whose session waits for one of two others: the first depends on it, the second is in the hands of a helper, and is
/// what `help` makes of it.
async fn with_a_way_out(
    world: &World,
    help: impl AsyncFnOnce(&World) -> Result<TaskId, Error>,
) -> Result<(Session, Lease, Vec<TaskId>, TaskId), Error> {
    let owner = world.session("owner").await?;
    let id = world.submit(task()).await?;
    let granted = world.grant(&owner).await?;
    let dependant = world.submit(task().after(id)).await?;
    let way_out = help(world).await?;
    let blocker = Blocker::new("x").with_wait(dependant).with_wait(way_out).with_any();
    world.end(granted.lease, Ending::Block(Blocker { awaited: true, ..blocker })).await?;
    assert_eq!(world.state(id).await?, TaskState::Blocked, "there is a way out");
    Ok((owner, granted.lease, vec![id, dependant], way_out))
}

async fn a_ring_closes_when_a_lease_ends(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let helper = world.session("helper").await?;
    let (owner, lease, cycle, way_out) = with_a_way_out(&world, async |world| {
        let id = world.submit(task().with_attempts(2)).await?;
        _ = world.grant(&helper).await?;
        Ok(id)
    })
    .await?;
    world.advance(LEASE).await;
    assert_eq!(world.state(cycle[0]).await?, TaskState::Blocked, "there is another attempt");
    _ = world.grant(&helper).await?;
    world.advance(LEASE).await;
    assert_eq!(world.state(way_out).await?, TaskState::Failed);
    assert_eq!(cycle_of(&world, &owner, lease).await?, cycle);
    Ok(())
}

async fn a_ring_closes_when_a_task_is_cancelled(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, lease, cycle, way_out) = with_a_way_out(&world, async |world| world.submit(task()).await).await?;
    world.scheduler.cancel(way_out, "no longer needed".into()).await?;
    assert_eq!(cycle_of(&world, &owner, lease).await?, cycle);
    Ok(())
}

async fn a_ring_closes_when_a_dependency_fails(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let helper = world.session("helper").await?;
    let (owner, lease, cycle, _) = with_a_way_out(&world, async |world| {
        let first = world.submit(task()).await?;
        world.submit(task().after(first)).await
    })
    .await?;
    let granted = world.grant(&helper).await?;
    world.end(granted.lease, Ending::Fail { reason: "cannot".into(), retry: Retry::Never }).await?;
    assert_eq!(cycle_of(&world, &owner, lease).await?, cycle);
    Ok(())
}

async fn a_way_out_is_no_deadlock(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let all = world.submit_all([task(), task(), task(), task()]).await?;
    // A diamond, a person who has to decide, and a task on hold.
    on(&world, &session, all[0], all[3]).await?;
    on(&world, &session, all[1], all[3]).await?;
    let both = Blocker::new("x").with_wait(all[0]).with_wait(all[1]);
    blocked(&world, &session, all[2], both).await?;
    blocked(&world, &session, all[3], Blocker::new("waits for a person")).await?;
    let fails = world.submit(task()).await?;
    let held = world.submit(task().after(Dependency::on(fails).with_on_failure(OnFailure::Hold))).await?;
    world.scheduler.cancel(fails, "x".into()).await?;
    let waits = world.submit(task()).await?;
    on(&world, &session, waits, held).await?;
    world.advance(10 * MINUTE).await;
    for task in all.iter().chain([&waits]) {
        assert_eq!(world.state(*task).await?, TaskState::Blocked);
    }
    assert_eq!(entries(&world, "deadlock").await?, []);
    Ok(())
}

async fn who_waits_too_long_goes_on(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let all = world.submit_all([task(), task()]).await?;
    let first = blocked(&world, &session, all[0], Blocker::new("waits for a person")).await?;
    world.advance(MINUTE).await;
    let help = task().with_start(60 * MINUTE);
    let second = blocked(&world, &session, all[1], Blocker::new("x").with_help(help)).await?;
    world.advance(29 * MINUTE - SECOND).await;
    assert_eq!(world.scheduler.stats().await?.count(TaskState::Blocked), 2);
    for (nth, (lease, id)) in [(first, all[0]), (second, all[1])].into_iter().enumerate() {
        world.advance(if nth == 0 { SECOND } else { MINUTE }).await;
        assert_eq!(world.state(id).await?, TaskState::Ready);
        let resumed = world.scheduler.resume(session.incarnation(), &lease).await?;
        let preempted = resumed.preempted.clone().expect("it goes on without help");
        assert_eq!((&*preempted.cycle, preempted.waited), (&[][..], 30 * MINUTE));
        assert_eq!(resumed.attempt, 1);
        world.complete(resumed.lease).await?;
    }
    assert_eq!(entries(&world, "deadlock").await?, []);
    Ok(())
}

async fn without_a_longest_wait_one_waits_as_long_as_it_takes(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.longest_wait = Duration::MAX).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    blocked(&world, &session, id, Blocker::new("waits for a person")).await?;
    world.advance(60 * 24 * MINUTE).await;
    assert_eq!(world.state(id).await?, TaskState::Blocked);
    Ok(())
}

async fn who_was_released_and_waits_for_the_same_needs_a_person(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.flatline = Duration::MAX).await;
    let inbox = inbox_of(&*world.fleet);
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let next = world.submit(task().after(id)).await?;
    let again = async |lease: Lease, blocker: Blocker| -> Result<Grant, Error> {
        let resumed = world.scheduler.resume(session.incarnation(), &lease).await?;
        world.end(resumed.lease, Ending::Block(Blocker { awaited: true, ..blocker })).await?;
        Ok(resumed)
    };
    let asked = async || -> Result<Vec<(String, u64)>, Error> {
        let pending = inbox.pending(EscalationId::default(), 10).await?;
        Ok(pending.iter().map(|asked| (asked.key.to_string(), asked.times)).collect())
    };
    let first = on(&world, &session, id, next).await?;
    let resumed = again(first, Blocker::new("something else").with_wait(next)).await?;
    assert_eq!(world.state(id).await?, TaskState::Blocked, "it is not released again and again");
    let (blocked_again, deadlock) = (format!("blocked_again:{id}"), format!("deadlock:{id}"));
    assert_eq!(asked().await?, [(blocked_again.clone(), 1), (deadlock.clone(), 1)]);
    world.advance(29 * MINUTE).await;
    assert_eq!(world.state(id).await?, TaskState::Blocked);
    // A person decides.
    assert!(world.scheduler.unblock(id).await?);
    // For the same reason, new help is the same again; what is there already is not.
    let resumed = again(resumed.lease, Blocker::new("x").with_help(task())).await?;
    assert_eq!(resumed.preempted, None);
    assert_eq!(asked().await?[0], (blocked_again.clone(), 2));
    let help = world.drain(&session).await?;
    let other = world.submit(task()).await?;
    let resumed = again(resumed.lease, Blocker::new("x").with_wait(other)).await?;
    assert_eq!((resumed.preempted, resumed.answers), (None, help));
    assert_eq!(asked().await?, [(blocked_again, 2), (deadlock, 1)]);
    // However often, a wait ends after half an hour.
    world.advance(30 * MINUTE).await;
    let resumed = world.scheduler.resume(session.incarnation(), &resumed.lease).await?;
    assert_eq!(resumed.preempted.map(|preempted| preempted.waited), Some(30 * MINUTE));
    Ok(())
}

async fn a_wait_ends_in_time_though_its_session_is_gone(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    blocked(&world, &session, id, Blocker::new("x").with_help(task().with_start(60 * MINUTE))).await?;
    world.advance(MINUTE).await;
    session.leave().await?;
    let heir = world.session("heir").await?;
    world.advance(29 * MINUTE - SECOND).await;
    assert_eq!(world.take(&heir, 1).await?, []);
    world.advance(SECOND).await;
    let taken = world.grant(&heir).await?;
    assert_eq!((taken.task.id, taken.attempt), (id, 1));
    assert_eq!(taken.preempted.map(|preempted| preempted.waited), Some(30 * MINUTE));
    Ok(())
}

async fn another_attempt_may_wait_for_the_same(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let next = world.submit(task().after(id)).await?;
    let mut lease = on(&world, &session, id, next).await?;
    for _ in 0..2 {
        let resumed = world.scheduler.resume(session.incarnation(), &lease).await?;
        assert_eq!(resumed.preempted.expect("it goes on").cycle, [id, next]);
        world.end(resumed.lease, Ending::Fail { reason: "x".into(), retry: Retry::After(Duration::ZERO) }).await?;
        lease = on(&world, &session, id, next).await?;
    }
    assert_eq!(inbox_of(&*world.fleet).pending(EscalationId::default(), 10).await?, []);
    Ok(())
}

async fn waits_are_told_as_far_as_they_go(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let first = world.submit(task()).await?;
    let mut chain = vec![first];
    for _ in 0..600 {
        chain.push(world.submit(task().after(*chain.last().expect("one"))).await?);
    }
    let blocker = Blocker::new("x").with_help(task()).with_help(task()).with_any();
    blocked(&world, &session, first, blocker).await?;
    let told = world.scheduler.waits(&[chain[600], TaskId::new(4)]).await?;
    assert_eq!(told.len(), 500);
    assert!(told.iter().zip(chain.iter().rev()).all(|(waiter, id)| waiter.task == *id), "the nearest first");
    let graph = world.scheduler.wait_graph(&[chain[600]]).await?;
    assert_eq!((graph.len(), graph.missing()), (603, vec![]));
    let waiter = graph.get(first).expect("a part of it");
    assert_eq!((waiter.state, waiter.session.as_ref()), (TaskState::Blocked, Some(&session.incarnation().session)));
    assert_eq!((waiter.needs, waiter.on.len(), waiter.blocked.is_some()), (crate::waits::Needs::Any, 2, true));
    assert_eq!(world.scheduler.wait_graph(&[]).await?, graph);
    refused!(world.scheduler.waits(&[first; 501]).await, Error::LimitExceeded { limit: "batch", actual: 501, .. });
    Ok(())
}
