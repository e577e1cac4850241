//! Why a task is not running.

use std::time::Duration;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::scheduler::kit::{LEASE, MINUTE, World, capabilities, key_of, keyed, requiring, task};
use crate::dependency::{Dependency, OnFailure, TaskId};
use crate::ending::{Blocker, Ending, Retry};
use crate::error::Error;
use crate::lease::Preempted;
use crate::outcome::Cause;
use crate::swarm::SwarmId;
use crate::task::TaskState;
use crate::waits::Needs;
use crate::why::{Link, Why};

cases! {
    it_waits_for_others: [Scheduler];
    others_wait_for_others: [Scheduler];
    others_wait_for_it: [Scheduler];
    its_session_is_gone: [Scheduler];
    its_time_has_not_come: [Scheduler];
    nobody_is_there_or_nobody_can: [Scheduler];
    others_come_first: [Scheduler];
    it_is_in_somebodys_own_queue: [Scheduler];
    everybody_who_could_has_refused: [Scheduler];
    somebody_has_it: [Scheduler];
    it_waits_for_help: [Scheduler];
    it_is_over: [Scheduler];
}

async fn it_waits_for_others(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let first = world.submit(task()).await?;
    let second = world.submit(task().after(first)).await?;
    let last = world.submit(task().after(second).after(first)).await?;
    let on = vec![(first, TaskState::Ready), (second, TaskState::Waiting)];
    let chain = vec![link(first, TaskState::Ready)];
    assert_eq!(world.scheduler.why(last).await?, Why::Waiting { on, count: 2, chain, deserted: None });
    let many = world.submit_all((0..30).map(|nth| keyed(&format!("task-{nth}")))).await?;
    let all = (0..30).rev().fold(task(), |task, nth| task.after(key_of(&format!("task-{nth}"))));
    let all = world.submit(all).await?;
    let on = many[..20].iter().map(|id| (*id, TaskState::Ready)).collect();
    let chain = vec![link(many[0], TaskState::Ready)];
    assert_eq!(world.scheduler.why(all).await?, Why::Waiting { on, count: 30, chain, deserted: None });
    Ok(())
}

/// A task that nobody has.
fn link(task: TaskId, state: TaskState) -> Link {
    Link { task, state, session: None }
}

async fn others_wait_for_others(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let by = |task, state| Link { task, state, session: Some(session.incarnation().session.clone()) };
    // Who waits for whom: a chain of dependencies, a session that waits, one that works.
    let first = world.submit(task()).await?;
    let second = world.submit(task()).await?;
    let mut tasks = vec![first];
    for _ in 0..22 {
        tasks.push(world.submit(task().after(*tasks.last().expect("one"))).await?);
    }
    let granted = world.take(&session, 2).await?;
    world.end(granted[0].lease, Ending::Block(Blocker::new("x").with_wait(second))).await?;
    let chain = |of: usize| {
        let waiting = tasks[1..of].iter().rev().map(|task| link(*task, TaskState::Waiting));
        let all = waiting.chain([by(first, TaskState::Blocked), by(second, TaskState::Claimed)]);
        all.take(20).collect::<Vec<_>>()
    };
    for nth in [1, 5, 18, 19, 22] {
        let Why::Waiting { chain: told, count: 1, .. } = world.scheduler.why(tasks[nth]).await? else {
            panic!("waits")
        };
        assert_eq!(told, chain(nth), "the chain of {nth}");
    }
    Ok(())
}

async fn its_session_is_gone(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let ids = world.submit_all([task(), task()]).await?;
    let granted = world.take(&session, 2).await?;
    let help = world.submit(task()).await?;
    world.end(granted[1].lease, Ending::Block(Blocker::new("x").with_wait(help))).await?;
    let by = session.incarnation().clone();
    session.leave().await?;
    let (lease, deadline) = (granted[0].lease, granted[0].deadline);
    assert_eq!(world.scheduler.why(ids[0]).await?, Why::Lost { by: by.clone(), lease, deadline });
    let (on, chain) = (vec![(help, TaskState::Ready)], vec![link(help, TaskState::Ready)]);
    let why = Why::Waiting { on, count: 1, chain, deserted: Some(by.session) };
    assert_eq!(world.scheduler.why(ids[1]).await?, why);
    world.advance(LEASE).await;
    assert_eq!(world.scheduler.why(ids[0]).await?, Why::NoSession);
    Ok(())
}

async fn others_wait_for_it(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let name = session.incarnation().session.clone();
    let id = world.submit(task()).await?;
    let next = world.submit(task().after(id)).await?;
    let granted = world.grant(&session).await?;
    world.end(granted.lease, Ending::Block(Blocker::new("x").with_wait(next))).await?;
    let until = granted.task.submitted + MINUTE;
    let preempted = Some(Preempted::new(vec![id, next], Duration::ZERO));
    let why = Why::Resumable { session: name.clone(), until, preempted };
    assert_eq!(world.scheduler.why(id).await?, why);
    // Blocked by the same again: now a person has to decide.
    let granted = world.grant(&session).await?;
    world.end(granted.lease, Ending::Block(Blocker::new("x").with_wait(next))).await?;
    let since = granted.task.submitted;
    let why = Why::Deadlocked { session: name.clone(), reason: "x".into(), since, cycle: vec![id, next] };
    assert_eq!(world.scheduler.why(id).await?, why);
    let Why::Waiting { chain, .. } = world.scheduler.why(next).await? else { panic!("it waits") };
    assert_eq!(chain, [Link { session: Some(name), ..link(id, TaskState::Blocked) }]);
    Ok(())
}

async fn its_time_has_not_come(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let later = world.submit(task().with_start(MINUTE)).await?;
    let start = world.scheduler.task(later).await?.task.start;
    assert_eq!(world.scheduler.why(later).await?, Why::NotYet { start });
    let failed = world.submit(task()).await?;
    let granted = world.grant(&session).await?;
    let ending = Ending::Fail { reason: "flaky".into(), retry: Retry::After(MINUTE) };
    world.end(granted.lease, ending).await?;
    let why = Why::BacksOff { until: start, failures: 1, reason: "flaky".into() };
    assert_eq!(world.scheduler.why(failed).await?, why);
    Ok(())
}

async fn nobody_is_there_or_nobody_can(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let id = world.submit(requiring(&["a", "b", "c"])).await?;
    assert_eq!(world.scheduler.why(id).await?, Why::NoSession);
    let far = world.session_with("far", &["a"]).await?;
    let near = world.session_with("near", &["b", "c"]).await?;
    let closest = near.incarnation().session.clone();
    let why = Why::NotCapable { closest, missing: capabilities(&["a"]) };
    assert_eq!(world.scheduler.why(id).await?, why);
    near.leave().await?;
    let closest = far.incarnation().session.clone();
    let why = Why::NotCapable { closest, missing: capabilities(&["b", "c"]) };
    assert_eq!(world.scheduler.why(id).await?, why);
    Ok(())
}

async fn others_come_first(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let all = world.submit_all((0..1_200).map(|_| requiring(&["a"]))).await?;
    let _sessions = [
        world.session_with("one", &["a"]).await?,
        world.session_with("two", &["a", "b"]).await?,
        world.session_with("three", &["b"]).await?,
    ];
    for (nth, ahead) in [(0, 0), (7, 7), (999, 999), (1_000, 1_000), (1_199, 1_000)] {
        assert_eq!(world.scheduler.why(all[nth]).await?, Why::Queued { ahead, eligible: 2 });
    }
    Ok(())
}

async fn it_is_in_somebodys_own_queue(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = SwarmId::from_static("one");
    let assigned = || requiring(&["a"]).with_assignee(session.clone());
    let all = world.submit_all([assigned(), assigned()]).await?;
    assert_eq!(world.scheduler.why(all[1]).await?, Why::Absent { session: session.clone() });
    let able = world.session_with("one", &["a"]).await?;
    assert_eq!(world.scheduler.why(all[1]).await?, Why::Assigned { session: session.clone(), ahead: 1 });
    let granted = world.grant(&able).await?;
    world.end(granted.lease, Ending::Refuse { reason: "x".into(), delay: Some(MINUTE) }).await?;
    let until = granted.task.submitted + MINUTE;
    assert_eq!(world.scheduler.why(all[0]).await?, Why::Refused { until });
    Ok(())
}

async fn everybody_who_could_has_refused(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let id = world.submit(requiring(&["a"])).await?;
    let able = [world.session_with("one", &["a"]).await?, world.session_with("two", &["a"]).await?];
    let _other = world.session("other").await?;
    let start = world.scheduler.task(id).await?.task.submitted;
    for (nth, session) in able.iter().enumerate() {
        assert_eq!(world.scheduler.why(id).await?, Why::Queued { ahead: 0, eligible: 2 });
        let granted = world.grant(session).await?;
        let delay = MINUTE * u32::try_from(2 - nth).expect("a small number");
        world.end(granted.lease, Ending::Refuse { reason: "x".into(), delay: Some(delay) }).await?;
    }
    assert_eq!(world.scheduler.why(id).await?, Why::Refused { until: start + MINUTE });
    world.advance(MINUTE).await;
    assert_eq!(world.scheduler.why(id).await?, Why::Queued { ahead: 0, eligible: 2 });
    Ok(())
}

async fn somebody_has_it(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let granted = world.grant(&session).await?;
    let since = granted.task.submitted;
    let running = |deadline, progressed| {
        let by = session.incarnation().clone();
        Why::Running { by, lease: granted.lease, since, deadline, progressed }
    };
    assert_eq!(world.scheduler.why(id).await?, running(since + LEASE, since));
    world.advance(LEASE / 2).await;
    world.renew(granted.lease).await?;
    let then = since + LEASE / 2;
    assert_eq!(world.scheduler.why(id).await?, running(then + LEASE, since));
    world.scheduler.progress(&granted.lease).await?;
    assert_eq!(world.scheduler.why(id).await?, running(then + LEASE, then));
    Ok(())
}

async fn it_waits_for_help(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (owner, helper) = (world.session("owner").await?, world.session("helper").await?);
    let id = world.submit(task()).await?;
    let granted = world.grant(&owner).await?;
    let blocker = Blocker { awaited: true, ..Blocker::new("488 not acceptable").with_help(task()) };
    let blocker = blocker.with_requires(capabilities(&["integration:sip"]));
    world.end(granted.lease, Ending::Block(blocker)).await?;
    let help = world.grant(&helper).await?;
    let session = owner.incarnation().session.clone();
    let (on, requires) = (vec![(help.task.id, TaskState::Claimed)], capabilities(&["integration:sip"]));
    let helps = Link { session: Some(helper.incarnation().session.clone()), ..link(help.task.id, TaskState::Claimed) };
    let why = Why::Blocked {
        session: session.clone(),
        reason: "488 not acceptable".into(),
        requires,
        on,
        count: 1,
        needs: Needs::All,
        since: granted.task.submitted,
        chain: vec![helps],
    };
    assert_eq!(world.scheduler.why(id).await?, why);
    world.complete(help.lease).await?;
    let until = granted.task.submitted + MINUTE;
    assert_eq!(world.scheduler.why(id).await?, Why::Resumable { session, until, preempted: None });
    Ok(())
}

async fn it_is_over(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let ids = world.submit_all([task(), task().with_attempts(1), task(), task(), task().with_deadline(MINUTE)]).await?;
    let [done, failed, fatal, cancelled, overdue] = ids[..] else { panic!("five") };
    let depends = world.submit(task().after(failed)).await?;
    let held = task().after(Dependency::on(failed).with_on_failure(OnFailure::Hold));
    let held = world.submit(held).await?;
    let granted = world.take(&session, 3).await?;
    world.complete(granted[0].lease).await?;
    world.end(granted[1].lease, Ending::Fail { reason: "flaky".into(), retry: Retry::Backoff }).await?;
    world.end(granted[2].lease, Ending::Fail { reason: "no".into(), retry: Retry::Never }).await?;
    world.scheduler.cancel(cancelled, "not needed".into()).await?;
    world.advance(MINUTE).await;
    let of = |cause, reason: Option<&'static str>| Why::Failed { cause, reason: reason.map(Into::into) };
    for (id, why) in [
        (done, Why::Done),
        (failed, of(Cause::Attempts, Some("flaky"))),
        (fatal, of(Cause::Fatal, Some("no"))),
        (cancelled, Why::Cancelled { reason: "not needed".into() }),
        (overdue, of(Cause::Overdue, None)),
        (depends, of(Cause::Dependency { task: failed }, None)),
        (held, Why::OnHold { because: failed }),
    ] {
        assert_eq!(world.scheduler.why(id).await?, why);
    }
    let json = serde_json::to_value(world.scheduler.why(depends).await?).expect("JSON");
    assert_eq!(json["why"], "failed");
    Ok::<_, Error>(())
}
