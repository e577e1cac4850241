//! Every graph: against brute force, and so long that nothing may recurse.

use std::collections::HashSet;

use proptest::prelude::*;
use s2_coordinator::{
    Blocker, Config, Ending, Leases, MemoryStore, Needs, Profile, Scheduler, SchedulerExt, SwarmId, TaskId, TaskState,
    WaitGraph, Waiter,
};
use s2_tests::counts;

use crate::{claimed, task};

/// What each of some tasks waits for, and whether one is enough. Who waits for nothing goes on.
type Edges = Vec<(bool, Vec<usize>)>;

fn edges(most: usize) -> impl Strategy<Value = Edges> {
    (2..=most).prop_flat_map(|count| {
        let on = prop::collection::btree_set(0..count, 0..=3.min(count));
        let one = (prop::bool::weighted(0.3), on.prop_map(|on| on.into_iter().collect()));
        prop::collection::vec(one, count)
    })
}

/// Who goes on, by trying: whoever can, does, until nobody can.
fn goes_on(edges: &Edges) -> Vec<bool> {
    let mut goes = vec![false; edges.len()];
    for _ in 0..edges.len() {
        for (nth, (any, on)) in edges.iter().enumerate() {
            goes[nth] |= on.is_empty()
                || if *any { on.iter().any(|other| goes[*other]) } else { on.iter().all(|other| goes[*other]) };
        }
    }
    goes
}

fn id(nth: usize) -> TaskId {
    TaskId::new(nth as u64 + 1)
}

fn waiter(nth: usize, any: bool, on: impl IntoIterator<Item = usize>) -> Waiter {
    let mut waiter = Waiter::new(id(nth), TaskState::Blocked);
    waiter.needs = if any { Needs::Any } else { Needs::All };
    waiter.on = on.into_iter().map(id).collect();
    waiter
}

fn graph(edges: &Edges) -> WaitGraph {
    edges.iter().enumerate().map(|(nth, (any, on))| waiter(nth, *any, on.iter().copied())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: counts(5_000, 100_000), ..ProptestConfig::default() })]

    #[test]
    fn who_is_stuck_is_who_can_never_go_on(edges in edges(9)) {
        let (graph, goes) = (graph(&edges), goes_on(&edges));
        let stuck: HashSet<TaskId> = (0..edges.len()).filter(|nth| !goes[*nth]).map(id).collect();
        prop_assert_eq!(&graph.stuck(), &stuck);
        for nth in 0..edges.len() {
            let ring = graph.ring_from(id(nth));
            prop_assert_eq!(ring.is_some(), stuck.contains(&id(nth)));
            let Some(ring) = ring else { continue };
            // Each waits for the next, each once, and the first is the smallest.
            for (place, waiter) in ring.iter().enumerate() {
                prop_assert!(waiter.on.contains(&ring[(place + 1) % ring.len()].task));
                prop_assert!(stuck.contains(&waiter.task) && waiter.task >= ring[0].task);
            }
            let each: HashSet<_> = ring.iter().map(|waiter| waiter.task).collect();
            prop_assert_eq!(each.len(), ring.len());
        }
        // However much is cut off, what is left of it is as it was.
        let cut: WaitGraph = graph.iter().filter(|waiter| waiter.task != id(0)).cloned().collect();
        prop_assert_eq!(cut.missing().is_empty(), edges.iter().skip(1).all(|(_, on)| !on.contains(&0)));
    }

    #[test]
    fn the_scheduler_leaves_nobody_stuck_and_disturbs_nobody_else(edges in edges(8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(play(edges))?;
    }
}

/// Blocks tasks one after the other, and looks after each who waits.
async fn play(edges: Edges) -> Result<(), TestCaseError> {
    let mut config = Config::default();
    config.limits.leases = 100;
    let scheduler = MemoryStore::builder().with_config(config).build().expect("a fleet").scheduler();
    let session = scheduler.join(&Profile::new(SwarmId::from_static("one"))).await.expect("a session");
    let granted = claimed(&scheduler, &session, edges.len()).await;
    // Who is blocked, and on what; everybody else goes on.
    let mut waits: Edges = vec![(false, Vec::new()); edges.len()];
    for (nth, (any, on)) in edges.iter().enumerate() {
        let on: Vec<usize> = on.iter().copied().filter(|on| *on != nth).collect();
        if on.is_empty() {
            continue;
        }
        let mut blocker = Blocker::new("it waits");
        blocker.needs = if *any { Needs::Any } else { Needs::All };
        blocker.on = on.iter().map(|on| granted[*on].task.id).collect();
        let ending = vec![(granted[nth].lease, Ending::Block(blocker))];
        prop_assert!(scheduler.end(ending, None).await.expect("no error").ended[0].is_ok());
        waits[nth] = (*any, on);
        let stuck_before = goes_on(&waits).iter().any(|goes| !goes);
        let mut released = 0;
        for (other, wait) in waits.iter_mut().enumerate() {
            let state = scheduler.task(granted[other].task.id).await.expect("a task").state;
            if !wait.1.is_empty() && state != TaskState::Blocked {
                prop_assert_eq!(state, TaskState::Ready);
                (wait.1, released) = (Vec::new(), released + 1);
            }
        }
        prop_assert_eq!(released > 0, stuck_before, "released: {}, after {} of {:?}", released, nth, edges);
        prop_assert!(goes_on(&waits).iter().all(|goes| *goes), "somebody is stuck after {nth} of {edges:?}");
    }
    Ok(())
}

#[test]
fn a_chain_of_a_million_overflows_no_stack() {
    const LENGTH: usize = 1_000_000;
    let chain = |last: Option<usize>| {
        (0..LENGTH).map(move |nth| waiter(nth, false, if nth + 1 < LENGTH { Some(nth + 1) } else { last }))
    };
    let graph: WaitGraph = chain(None).collect();
    assert!(graph.stuck().is_empty());
    assert_eq!(graph.ring_from(id(0)), None);
    // A lasso: a long way to a ring, which is all that is found.
    let graph: WaitGraph = chain(Some(LENGTH - 3)).collect();
    assert_eq!(graph.stuck().len(), LENGTH);
    let ring = graph.ring_from(id(0)).expect("a ring");
    assert_eq!(
        ring.iter().map(|waiter| waiter.task).collect::<Vec<_>>(),
        [id(LENGTH - 3), id(LENGTH - 2), id(LENGTH - 1)]
    );
    // A ring of all of them.
    let graph: WaitGraph = chain(Some(0)).collect();
    assert_eq!(graph.ring_from(id(LENGTH / 2)).expect("a ring").len(), LENGTH);
}

#[tokio::test]
async fn a_long_chain_of_tasks_that_closes_is_opened() {
    const LENGTH: usize = 100_000;
    let scheduler = MemoryStore::new().scheduler();
    let session = scheduler.join(&Profile::new(SwarmId::from_static("one"))).await.expect("a session");
    let first = claimed(&scheduler, &session, 1).await.remove(0);
    let mut last = first.task.id;
    for _ in 0..LENGTH / 500 {
        let mut batch = vec![task().after(last).with_key("0".parse().expect("a key"))];
        for nth in 1..500 {
            let before: s2_coordinator::IdempotencyKey = format!("{last}-{}", nth - 1).parse().expect("a key");
            batch[nth - 1] = batch[nth - 1].clone().with_key(before.clone());
            batch.push(task().after(before));
        }
        last = scheduler.submit(&batch).await.expect("submitted").last().expect("one").id;
    }
    crate::block(&scheduler, &first, [last]).await;
    // What is urgent about it goes all the way first, in many steps.
    let resumed = tokio::time::timeout(crate::LONG, session.claim()).await.expect("it comes").expect("no error");
    let resumed = resumed.expect("open").into_grant();
    assert_eq!(resumed.preempted.expect("it goes on").cycle.len(), LENGTH + 1);
}

#[test]
fn people_can_look_at_it() {
    let mut graph = graph(&vec![(false, vec![1]), (true, vec![0]), (false, vec![0]), (false, vec![])]);
    let mut named = graph.remove(id(3)).expect("it is there");
    named.session = Some("telephony/sip".parse().expect("a name"));
    graph.extend([named]);
    let dot = graph.to_dot();
    assert!(
        dot.contains("t1 -> t2;") && dot.contains("t2 -> t1 [style=dashed];") && dot.contains("telephony/sip"),
        "{dot}"
    );
    assert!(dot.contains("t3 [label=\"3 blocked\", color=red];") && dot.starts_with("digraph"), "{dot}");
    let mermaid = graph.to_mermaid();
    assert!(mermaid.contains("t1 --> t2\n") && mermaid.contains("t2 -.-> t1\n"), "{mermaid}");
    assert!(mermaid.contains("style t3 stroke:red") && !mermaid.contains("style t4"), "{mermaid}");
}
