//! Queues of sessions' own, and who takes over from whom.

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{journal_of, refused, within};
use crate::conformance::scheduler::kit::{HOST, MINUTE, World, capabilities, claiming, ids, pause, requiring, task};
use crate::dependency::TaskId;
use crate::ending::{Blocker, Ending, Retry};
use crate::entry::Value;
use crate::error::Error;
use crate::event::Position;
use crate::name::Subject;
use crate::new_task::NewTask;
use crate::priority::Priority;
use crate::priority::Priority::{P0, P1, P2, P3};
use crate::swarm::SwarmId;
use crate::task::TaskState;
use crate::why::Why;

cases! {
    the_own_queue_comes_first: [Scheduler];
    nobody_else_claims_from_it: [Scheduler];
    who_is_idle_steals_by_these_rules: [Scheduler];
    who_has_something_does_not_steal: [Scheduler];
    a_waiting_session_is_woken_to_steal: [Scheduler];
    a_waiting_session_is_woken_to_steal_once_it_is_idle: [Scheduler];
    a_waiting_session_is_woken_for_its_own_queue: [Scheduler];
    who_was_woken_to_steal_is_woken_for_anything_else: [Scheduler];
    what_is_stolen_is_not_owned_any_more: [Scheduler, Journal];
    a_task_is_assigned_and_reassigned: [Scheduler];
    only_who_can_do_it_is_assigned: [Scheduler];
    only_what_nobody_has_is_assigned: [Scheduler];
    who_comes_later_finds_what_was_assigned: [Scheduler];
    who_leaves_gives_up_its_queue: [Scheduler];
    the_next_of_a_name_takes_over_its_queue: [Scheduler];
    what_was_assigned_and_lost_goes_to_anybody: [Scheduler];
    the_length_counts_whatever_crosses_it: [Scheduler];
    who_leaves_gives_up_what_comes_back: [Scheduler];
    what_is_refused_is_offered_to_others: [Scheduler];
    a_dedicated_session_gets_only_what_asks_for_it: [Scheduler];
}

fn assigned(to: &str) -> NewTask {
    task().with_assignee(SwarmId::new(to).expect("a name"))
}

async fn the_own_queue_comes_first(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let shared = world.submit(task().with_priority(P0)).await?;
    let late = world.submit(assigned("one").with_priority(P3)).await?;
    let early = world.submit(assigned("one").with_priority(P1)).await?;
    assert_eq!(world.drain(&session).await?, [early, late, shared]);
    Ok(())
}

async fn nobody_else_claims_from_it(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let all = world.submit_all((0..5).map(|_| assigned("one"))).await?;
    assert_eq!(world.take(&other, 1).await?, []);
    assert_eq!(world.scheduler.task(all[0]).await?.session, Some(SwarmId::from_static("one")));
    assert_eq!(world.scheduler.sessions(None, 1).await?[0].queued, 5);
    assert_eq!(world.drain(&one).await?, all);
    Ok(())
}

/// The own queue of a session: priorities and requirements in the order of submission.
type Queue<'a> = (&'a str, Vec<(Priority, &'a [&'a str])>);

/// What it shows, the queues that there are, and what is stolen: from whom, and its place in that queue.
type Theft<'a> = (&'a str, Vec<Queue<'a>>, Option<(&'a str, usize)>);

async fn who_is_idle_steals_by_these_rules(given: Given) -> Outcome {
    let plain = |count: usize| vec![(P2, &[][..]); count];
    let all = |priorities: &[Priority]| priorities.iter().map(|priority| (*priority, &[][..])).collect::<Vec<_>>();
    // The thief offers `a`.
    let cases: Vec<Theft<'_>> = vec![
        ("five are not too many", vec![("x", plain(5))], None),
        ("six are", vec![("x", plain(6))], Some(("x", 5))),
        ("nothing there", vec![], None),
        ("the busiest first", vec![("x", plain(6)), ("y", plain(7)), ("z", plain(6))], Some(("y", 6))),
        ("of the same length the first by name", vec![("z", plain(6)), ("y", plain(6))], Some(("y", 5))),
        ("the newest", vec![("x", plain(9))], Some(("x", 8))),
        ("the lowest priority", vec![("x", all(&[P3, P0, P1, P2, P2, P2]))], Some(("x", 0))),
        ("of the lowest the newest", vec![("x", all(&[P3, P0, P3, P2, P2, P1]))], Some(("x", 2))),
        ("P0 if there is nothing else", vec![("x", all(&[P0; 6]))], Some(("x", 5))),
        ("not what it cannot do", vec![("x", [plain(5), vec![(P3, &["b"][..])]].concat())], Some(("x", 4))),
        ("what it can do", vec![("x", [vec![(P3, &["a"][..])], plain(5)].concat())], Some(("x", 0))),
        ("nothing it can do", vec![("x", vec![(P2, &["b"][..]); 8])], None),
        (
            "the next busiest if the busiest has nothing for it",
            vec![("x", vec![(P2, &["b"][..]); 8]), ("y", plain(6))],
            Some(("y", 5)),
        ),
        (
            "what it cannot do counts for the length",
            vec![("x", [vec![(P2, &["b"][..]); 5], plain(1)].concat())],
            Some(("x", 5)),
        ),
        ("not from itself", vec![("thief", vec![(P2, &["b"][..]); 7])], None),
        ("not below what is too many", vec![("x", plain(5)), ("y", plain(5)), ("z", plain(5))], None),
        ("from who is not there, too", vec![("absent", plain(6))], Some(("absent", 5))),
    ];
    for (case, queues, stolen) in cases {
        let world = World::new(&given).await;
        let mut victims = Vec::new();
        let mut submitted: Vec<(&str, Vec<TaskId>)> = Vec::new();
        for (name, queue) in queues {
            if name != "absent" && name != "thief" {
                victims.push(world.session_with(name, &["a", "b"]).await?);
            }
            let new = |(priority, requires): &(Priority, &[&str])| {
                requiring(requires).with_priority(*priority).with_assignee(SwarmId::new(name).expect("a name"))
            };
            submitted.push((name, world.submit_all(queue.iter().map(new)).await?));
        }
        let thief = world.session_with("thief", &["a"]).await?;
        let expected: Vec<TaskId> = stolen
            .iter()
            .flat_map(|(name, nth)| submitted.iter().find(|(other, _)| other == name).map(|(_, queue)| queue[*nth]))
            .collect();
        assert_eq!(ids(&world.take(&thief, 5).await?), expected, "{case}");
    }
    Ok(())
}

async fn who_has_something_does_not_steal(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (_busy, idle) = (world.session("busy").await?, world.session("idle").await?);
    let shared = world.submit(task()).await?;
    let own = world.submit(assigned("idle")).await?;
    let queue = world.submit_all((0..8).map(|_| assigned("busy"))).await?;
    let granted = world.take(&idle, 5).await?;
    assert_eq!(ids(&granted), [own, shared], "what is its own, what is anybody's, and no more");
    assert_eq!(world.take(&idle, 1).await?, []);
    for grant in granted {
        world.complete(grant.lease).await?;
    }
    assert_eq!(ids(&world.take(&idle, 5).await?), queue[7..], "one at a time");
    Ok(())
}

async fn a_waiting_session_is_woken_to_steal(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (_busy, idle) = (world.session("busy").await?, world.session("idle").await?);
    let waiting = claiming(&idle);
    pause().await;
    world.submit_all((0..5).map(|_| assigned("busy"))).await?;
    pause().await;
    assert!(!waiting.is_finished());
    let sixth = world.submit(assigned("busy")).await?;
    assert_eq!(within("the theft", waiting).await.expect("no panic")?.expect("open").task.id, sixth);
    Ok(())
}

async fn a_waiting_session_is_woken_to_steal_once_it_is_idle(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (_busy, session) = (world.session("busy").await?, world.session("session").await?);
    world.submit(task()).await?;
    let held = world.grant(&session).await?;
    let queue = world.submit_all((0..6).map(|_| assigned("busy"))).await?;
    let waiting = claiming(&session);
    pause().await;
    assert!(!waiting.is_finished());
    world.complete(held.lease).await?;
    assert_eq!(within("the theft", waiting).await.expect("no panic")?.expect("open").task.id, queue[5]);
    Ok(())
}

async fn who_was_woken_to_steal_is_woken_for_anything_else(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (_busy, idle) = (world.session("busy").await?, world.session("idle").await?);
    let waiting = claiming(&idle);
    pause().await;
    world.submit_all((0..6).map(|_| assigned("busy"))).await?;
    let stolen = within("the theft", waiting).await.expect("no panic")?.expect("open");
    world.complete(stolen.lease).await?;
    // The five that are left are too few to steal from, and what is stolen was of this class, too.
    let waiting = claiming(&idle);
    pause().await;
    assert!(!waiting.is_finished());
    let shared = world.submit(task()).await?;
    assert_eq!(within("the claim", waiting).await.expect("no panic")?.expect("open").task.id, shared);
    Ok(())
}

async fn a_waiting_session_is_woken_for_its_own_queue(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let (its, others) = (claiming(&one), claiming(&other));
    pause().await;
    let id = world.submit(assigned("other")).await?;
    assert_eq!(within("the claim", others).await.expect("no panic")?.expect("open").task.id, id);
    assert!(!its.is_finished());
    let shared = world.submit(task()).await?;
    assert_eq!(within("the claim", its).await.expect("no panic")?.expect("open").task.id, shared);
    Ok(())
}

async fn what_is_stolen_is_not_owned_any_more(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (_busy, thief) = (world.session("busy").await?, world.session("thief").await?);
    let queue = world.submit_all((0..6).map(|_| assigned("busy"))).await?;
    let stolen = world.grant(&thief).await?;
    assert_eq!(stolen.task.id, queue[5]);
    world.end(stolen.lease, Ending::Release).await?;
    let other = world.session("other").await?;
    assert_eq!(ids(&world.take(&other, 5).await?), queue[5..], "it is anybody's");
    let operations = world.operations().await?;
    assert_eq!(operations.iter().filter(|operation| *operation == "task.stolen").count(), 1);
    let entries = journal_of(&*world.fleet).entries(Position::ORIGIN, 500).await?.items;
    let entry = entries.iter().find(|entry| &*entry.operation == "stolen").expect("it is journalled");
    assert_eq!(*entry.subject, *queue[5].to_string());
    assert_eq!(entry.params.get("from"), Some(&Value::Text("busy".into())));
    assert_eq!(entry.params.get("to"), Some(&Value::Text("thief".into())));
    Ok(())
}

async fn a_task_is_assigned_and_reassigned(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let first = world.submit(task()).await?;
    let id = world.submit(task().after(first)).await?;
    for to in ["one", "other", "other"] {
        world.scheduler.assign(id, Some(&SwarmId::new(to)?)).await?;
    }
    assert_eq!(world.drain(&one).await?, [first]);
    assert_eq!(ids(&world.take(&other, 1).await?), [id]);
    let second = world.submit(assigned("other")).await?;
    assert_eq!(world.take(&one, 1).await?, []);
    world.scheduler.assign(second, None).await?;
    assert_eq!(ids(&world.take(&one, 1).await?), [second]);
    refused!(world.scheduler.assign(TaskId::new(4), Some(&HOST)).await, Error::UnknownTask { .. });
    Ok(())
}

async fn only_who_can_do_it_is_assigned(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let able = world.session_with("able", &["tool:rust"]).await?;
    let unable = world.session_with("unable", &["tool:go"]).await?;
    let id = world.submit(requiring(&["tool:rust", "tool"])).await?;
    let answer = world.scheduler.assign(id, Some(&unable.incarnation().session)).await;
    refused!(answer, Error::NotEligible { missing, task, .. } if missing == capabilities(&["tool:rust"]) && task == id);
    world.scheduler.assign(id, Some(&able.incarnation().session)).await?;
    // One of that name that comes with less does not get it, and keeps it from nobody.
    let lesser = world.session("able").await?;
    assert_eq!(world.take(&lesser, 1).await?, []);
    let another = world.session_with("another", &["tool:rust"]).await?;
    assert_eq!(world.drain(&another).await?, [id]);
    // Likewise what is ready only later.
    let later = requiring(&["tool:rust"]).with_start(MINUTE).with_assignee(SwarmId::from_static("third"));
    let later = world.submit(later).await?;
    let _third = world.session("third").await?;
    world.advance(MINUTE).await;
    assert_eq!(ids(&world.take(&another, 1).await?), [later]);
    Ok(())
}

async fn only_what_nobody_has_is_assigned(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let session = world.session("one").await?;
    let id = world.submit(task()).await?;
    let held = world.grant(&session).await?;
    refused!(world.scheduler.assign(id, None).await, Error::WrongState { state: TaskState::Claimed, .. });
    world.complete(held.lease).await?;
    refused!(world.scheduler.assign(id, None).await, Error::WrongState { state: TaskState::Done, .. });
    Ok(())
}

async fn who_comes_later_finds_what_was_assigned(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let id = world.submit(assigned("later").with_subject(Subject::from_static("x"))).await?;
    let other = world.session("other").await?;
    assert_eq!(world.take(&other, 1).await?, []);
    let later = world.session("later").await?;
    assert_eq!(world.drain(&later).await?, [id]);
    Ok(())
}

async fn who_leaves_gives_up_its_queue(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let all = world.submit_all((0..3).map(|_| assigned("one"))).await?;
    let waiting = claiming(&other);
    pause().await;
    one.leave().await?;
    let first = within("the claim", waiting).await.expect("no panic")?.expect("open");
    assert_eq!(first.task.id, all[0]);
    assert_eq!(world.drain(&other).await?, all[1..]);
    Ok(())
}

async fn the_next_of_a_name_takes_over_its_queue(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (older, other) = (world.session("one").await?, world.session("other").await?);
    let all = world.submit_all((0..3).map(|_| assigned("one"))).await?;
    let held = world.grant(&older).await?;
    assert_eq!(held.task.id, all[0]);
    let newer = world.session("one").await?;
    drop(older);
    assert_eq!(world.take(&other, 1).await?, [], "what the older one had is its own, too");
    assert_eq!(world.drain(&newer).await?, all);
    Ok(())
}

async fn what_was_assigned_and_lost_goes_to_anybody(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let id = world.submit(assigned("one")).await?;
    let _crashed = world.grant(&one).await?;
    one.leave().await?;
    assert_eq!(world.take(&other, 1).await?, []);
    world.advance(MINUTE).await;
    let taken = world.grant(&other).await?;
    assert_eq!((taken.task.id, taken.attempt), (id, 2));
    // While its session is there, it stays its own.
    let back = world.session("one").await?;
    let own = world.submit(assigned("one")).await?;
    let _crashed = world.grant(&back).await?;
    world.advance(MINUTE).await;
    assert_eq!(ids(&world.take(&back, 1).await?), [own]);
    Ok(())
}

async fn the_length_counts_whatever_crosses_it(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (_busy, thief) = (world.session_with("busy", &["a", "b"]).await?, world.session_with("thief", &["a"]).await?);
    let busy = |requires: &[&str]| requiring(requires).with_assignee(SwarmId::from_static("busy"));
    let queue = world.submit_all((0..5).map(|_| busy(&["a"]))).await?;
    let waiting = claiming(&thief);
    pause().await;
    world.submit(busy(&["b"])).await?;
    assert_eq!(within("the theft", waiting).await.expect("no panic")?.expect("open").task.id, queue[4]);
    Ok(())
}

async fn who_leaves_gives_up_what_comes_back(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let all = world.submit_all((0..3).map(|_| assigned("one"))).await?;
    let granted = world.take(&one, 3).await?;
    let help = Blocker::new("x").with_help(task());
    world.end(granted[2].lease, Ending::Block(help)).await?;
    one.leave().await?;
    world.end(granted[0].lease, Ending::Release).await?;
    let retry = Ending::Fail { reason: "flaky".into(), retry: Retry::After(MINUTE) };
    world.end(granted[1].lease, retry.clone()).await?;
    let first = world.drain(&other).await?;
    assert!(first.contains(&all[0]) && first.contains(&all[2]) && !first.contains(&all[1]), "{first:?}");
    world.advance(MINUTE).await;
    assert_eq!(world.drain(&other).await?, [all[1]]);
    // Also if it fails before its session leaves.
    let one = world.session("one").await?;
    let last = world.submit(assigned("one")).await?;
    world.end(world.grant(&one).await?.lease, retry).await?;
    one.leave().await?;
    world.advance(MINUTE).await;
    assert_eq!(world.drain(&other).await?, [last]);
    Ok(())
}

async fn what_is_refused_is_offered_to_others(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let (one, other) = (world.session("one").await?, world.session("other").await?);
    let id = world.submit(assigned("one")).await?;
    let granted = world.grant(&one).await?;
    let refusal = Ending::Refuse { reason: "the budget is spent".into(), delay: Some(MINUTE) };
    world.end(granted.lease, refusal).await?;
    assert_eq!(world.take(&one, 1).await?, []);
    assert_eq!(ids(&world.take(&other, 1).await?), [id]);
    Ok(())
}

async fn a_dedicated_session_gets_only_what_asks_for_it(given: Given) -> Outcome {
    let world = World::new(&given).await;
    let dedicated = world.session_with("dedicated", &["only:gpu", "a"]).await?;
    let plain = world.submit_all([task(), requiring(&["a"])]).await?;
    let special = world.submit(requiring(&["only:gpu", "a"])).await?;
    let broad = world.submit(requiring(&["only"])).await?;
    assert_eq!(world.scheduler.why(plain[1]).await?, Why::NoSession);
    assert_eq!(world.drain(&dedicated).await?, [special]);
    // It steals nothing else, and nothing else can be put into its queue.
    let _queue = world.submit_all((0..6).map(|_| assigned("busy"))).await?;
    assert_eq!(world.take(&dedicated, 1).await?, []);
    let name = SwarmId::from_static("dedicated");
    refused!(world.scheduler.assign(plain[1], Some(&name)).await, Error::NotEligible { missing, .. } if missing.is_empty());
    let named = world.submit(requiring(&["a"]).with_assignee(name)).await.expect_err("it is dedicated");
    assert!(named.to_string().contains("it is dedicated to others"), "{named}");
    // Others do what is left, as far as they can.
    let other = world.session_with("other", &["a"]).await?;
    assert_eq!(ids(&world.take(&other, 2).await?), plain);
    let why = Why::NotCapable { closest: SwarmId::from_static("dedicated"), missing: capabilities(&["only:cpu"]) };
    let wanted = world.submit(requiring(&["only:cpu", "a"])).await?;
    assert_eq!(world.scheduler.why(wanted).await?, why);
    assert_eq!(world.scheduler.task(broad).await?.state, TaskState::Ready);
    Ok(())
}
