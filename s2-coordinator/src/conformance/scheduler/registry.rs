//! Sessions, and what the journal says.

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::journal_of;
use crate::conformance::scheduler::kit::{LEASE, MINUTE, World, capabilities, task};
use crate::ending::{Blocker, Ending, Retry};
use crate::entry::Value;
use crate::error::Error;
use crate::event::Position;
use crate::outcome::Completion;
use crate::swarm::SwarmId;

cases! {
    sessions_are_listed_by_name: [Scheduler];
    a_session_says_how_busy_it_is: [Scheduler];
    only_so_many_sessions: [Scheduler];
    what_happens_to_a_task_is_journalled: [Scheduler, Journal];
    evidence_stands_in_the_journal: [Scheduler, Journal];
    what_does_not_happen_is_not_journalled: [Scheduler, Journal];
    whatever_is_told_of_a_task_bears_its_trace: [Scheduler, Journal];
}

async fn sessions_are_listed_by_name(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let mut sessions = Vec::new();
    for name in ["c", "a/x", "b", "a"] {
        sessions.push(world.session_with(name, &[&format!("skill:{}", name.len())]).await?);
    }
    let names = async |after: Option<&str>, limit| {
        let after = after.map(|name| SwarmId::new(name).expect("a name"));
        let page = world.scheduler.sessions(after.as_ref(), limit).await?;
        Ok::<_, Error>(page.iter().map(|info| info.incarnation.session.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(names(None, 10).await?, ["a", "a/x", "b", "c"]);
    assert_eq!(names(None, 2).await?, ["a", "a/x"]);
    assert_eq!(names(Some("a/x"), 10).await?, ["b", "c"]);
    assert_eq!(names(Some("aa"), 10).await?, ["b", "c"]);
    let first = &world.scheduler.sessions(None, 1).await?[0];
    assert_eq!((&first.incarnation, &first.capabilities), (sessions[3].incarnation(), &capabilities(&["skill:1"])));
    Ok(())
}

async fn a_session_says_how_busy_it_is(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let one = SwarmId::from_static("one");
    world.submit_all((0..5).map(|_| task().with_assignee(one.clone()))).await?;
    let granted = world.take(&session, 3).await?;
    world.end(granted[0].lease, Ending::Block(Blocker::new("waits for a person"))).await?;
    let info = &world.scheduler.sessions(None, 1).await?[0];
    assert_eq!((info.load, info.queued, info.blocked), (2, 2, 1));
    world.advance(LEASE).await;
    let info = &world.scheduler.sessions(None, 1).await?[0];
    assert_eq!((info.load, info.queued, info.blocked), (0, 4, 1));
    Ok(())
}

async fn only_so_many_sessions(given: Given) -> Outcome {
    let world = World::with(&given, |config| config.limits.sessions = 2).await;
    let first = world.session("one").await?;
    let _second = world.session("two").await?;
    let Err(Error::LimitExceeded { limit, max, .. }) = world.session("three").await else { panic!("there are two") };
    assert_eq!((limit, max), ("sessions", 2));
    let again = world.session("one").await?;
    drop(first);
    again.leave().await?;
    world.session("three").await?;
    Ok(())
}

async fn what_happens_to_a_task_is_journalled(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task().with_attempts(4)).await?;
    let next = async || world.grant(&session).await.map(|granted| granted.lease);
    world.end(next().await?, Ending::Release).await?;
    let retry = Ending::Fail { reason: "flaky".into(), retry: Retry::After(MINUTE) };
    world.end(next().await?, retry).await?;
    world.advance(MINUTE).await;
    next().await?;
    world.advance(LEASE).await;
    world.end(next().await?, Ending::Block(Blocker::new("waits for a person"))).await?;
    world.scheduler.unblock(id).await?;
    let refusal = Ending::Refuse { reason: "the budget is spent".into(), delay: Some(MINUTE) };
    world.end(next().await?, refusal).await?;
    world.advance(MINUTE).await;
    let fatal = Ending::Fail { reason: "no".into(), retry: Retry::Never };
    world.end(next().await?, fatal).await?;
    world.scheduler.redrive(&[id]).await?;
    world.scheduler.assign(id, Some(&SwarmId::from_static("one"))).await?;
    world.complete(next().await?).await?;
    let other = world.submit(task()).await?;
    world.scheduler.cancel(other, "not needed".into()).await?;
    session.leave().await?;
    let expected = [
        "session.entered",
        "task.submitted",
        "task.claimed",
        "task.released",
        "task.claimed",
        "task.retried",
        "task.claimed",
        "task.expired",
        "task.claimed",
        "task.blocked",
        "task.unblocked",
        "task.claimed",
        "task.refused",
        "task.claimed",
        "task.failed",
        "task.redriven",
        "task.assigned",
        "task.claimed",
        "task.completed",
        "task.submitted",
        "task.cancelled",
        "session.left",
    ];
    assert_eq!(world.operations().await?, expected);
    Ok(())
}

async fn evidence_stands_in_the_journal(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let granted = world.grant(&session).await?;
    let completion = Completion::new().with_evidence("tool_calls", 12_u32).with_evidence("commit", "f00d");
    world.end(granted.lease, Ending::Complete(completion.clone())).await?;
    let entries = journal_of(&*world.fleet).entries(Position::ORIGIN, 500).await?.items;
    let entry = entries.iter().find(|entry| &*entry.operation == "completed").expect("it is journalled");
    assert_eq!((&*entry.component, &*entry.subject), ("task", &*id.to_string()));
    assert_eq!(entry.params.get("session"), Some(&Value::Text("one".into())));
    assert_eq!(entry.params.get("token"), Some(&Value::from(granted.lease.token.get())));
    assert_eq!(entry.params.get("tool_calls"), Some(&Value::Int(12)));
    assert_eq!(entry.params.get("commit"), Some(&Value::Text("f00d".into())));
    assert_eq!(world.outcome(id).await?.result().expect("it is done").evidence, completion.result.evidence);
    Ok(())
}

async fn what_does_not_happen_is_not_journalled(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let granted = world.grant(&session).await?;
    let before = world.operations().await?;
    for _ in 0..3 {
        world.renew(granted.lease).await?;
        assert_eq!(world.take(&session, 1).await?, []);
        world.scheduler.why(id).await?;
        world.scheduler.stats().await?;
        assert!(!world.scheduler.unblock(id).await?);
        assert!(world.scheduler.redrive(&[id]).await.is_err());
        assert!(world.scheduler.assign(id, None).await.is_err());
        assert!(world.submit(task().with_attempts(0)).await.is_err());
    }
    assert_eq!(world.operations().await?, before);
    Ok(())
}

async fn whatever_is_told_of_a_task_bears_its_trace(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let journal = journal_of(&*world.fleet);
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?;
    let id = world.submit(task().with_trace(trace)).await?;
    world.scheduler.assign(id, Some(&SwarmId::from_static("one"))).await?;
    let endings = [
        Ending::Release,
        Ending::Block(Blocker::new("waits")),
        Ending::Fail { reason: "failed".into(), retry: Retry::After(MINUTE) },
        Ending::Refuse { reason: "refused".into(), delay: None },
    ];
    for ending in endings {
        let grant = world.grant(&one).await?;
        world.end(grant.lease, ending).await?;
        world.scheduler.unblock(id).await?;
        world.advance(MINUTE).await;
    }
    let _crashed = world.grant(&other).await?;
    world.advance(MINUTE).await;
    let grant = world.grant(&one).await?;
    world.end(grant.lease, Ending::Complete(Completion::new())).await?;
    let entries = journal.entries(Position::ORIGIN, 100).await?.items;
    let of_task: Vec<_> = entries.iter().filter(|entry| &*entry.component == "task").collect();
    let told: Vec<&str> = of_task.iter().map(|entry| &*entry.operation).collect();
    for operation in
        ["submitted", "assigned", "claimed", "released", "blocked", "unblocked", "retried", "refused", "expired"]
    {
        assert!(told.contains(&operation), "{operation} in {told:?}");
    }
    assert!(of_task.iter().all(|entry| entry.trace == Some(trace)), "{of_task:?}");
    Ok(())
}
