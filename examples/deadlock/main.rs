//! Three sessions wait for each other, and a fourth for one of them. Nobody would ever go on; so one does.
//!
//! ```sh
//! cargo run --example deadlock
//! cargo run --example deadlock --features redis -- --redis redis://127.0.0.1
//! ```
//!
//! The graph is printed in the language of Mermaid, before and as it would be if nobody did anything about it.

use std::error::Error;
use std::time::Duration;

use s2_coordinator::{
    Blocker, Completion, Error as S2Error, Journal, MemoryStore, NewTask, Position, Preempted, Profile, Scheduler,
    SchedulerExt, Session, SwarmId, TaskId, TaskKind, TaskState, Waiter, Why,
};

const INTEGRATE: TaskKind = TaskKind::from_static("integrate");
const HOST: SwarmId = SwarmId::from_static("telephony");

/// Who needs what from whom. The first three are a ring, and the last only waits for it.
const NEEDS: [(&str, &str, &str); 4] = [
    ("telephony/ndi", "the codec that was negotiated", "telephony/sip"),
    ("telephony/sip", "the ports of the relay", "telephony/webrtc"),
    ("telephony/webrtc", "the frame rate of the source", "telephony/ndi"),
    ("telephony/docs", "the names of the sources", "telephony/ndi"),
];

/// The value that follows an option on the command line.
fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| arg != name).nth(1)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match option("--redis") {
        #[cfg(feature = "redis")]
        Some(url) => {
            // Each run is a fleet of its own.
            let fleet = SwarmId::new(format!("deadlock-{}", std::process::id()))?;
            let store = s2_coordinator::RedisStore::connect(&url, fleet).await?;
            run(store.scheduler(), store.journal()).await
        }
        #[cfg(not(feature = "redis"))]
        Some(_) => {
            Err("this was built without Redis: cargo run --example deadlock --features redis -- --redis URL".into())
        }
        None => {
            let store = MemoryStore::new();
            run(store.scheduler(), store.journal()).await
        }
    }
}

/// Takes its task, waits for what it needs, and does it, with that or without. Answers why without, if so.
async fn work(
    session: Session,
    needs: &'static str,
    on: TaskId,
    name: &'static str,
) -> Result<Option<Preempted>, S2Error> {
    let held = session.claim().await?.ok_or(S2Error::Closed)?;
    println!("{name} waits: it needs {needs}");
    let mut blocked = held.block(Blocker::new(needs).with_wait(on)).await?;
    // It could claim other tasks meanwhile: a blocked one takes no place.
    let held = blocked.resume().await?;
    let preempted = held.preempted.as_deref().cloned();
    match &preempted {
        Some(preempted) => println!("{name} goes on without {needs}: {} wait for each other", preempted.cycle.len()),
        None => println!("{name} goes on: it has {needs}"),
    }
    held.complete(Completion::new()).await?;
    Ok(preempted)
}

async fn run(scheduler: impl Scheduler + Clone, journal: impl Journal) -> Result<(), Box<dyn Error>> {
    // Each session has a task of its own.
    let tasks: Vec<NewTask> = NEEDS
        .iter()
        .map(|(name, ..)| Ok(NewTask::new(INTEGRATE, HOST).with_assignee(SwarmId::new(*name)?)))
        .collect::<Result<_, S2Error>>()?;
    let tasks: Vec<TaskId> = scheduler.submit(&tasks).await?.into_iter().map(|task| task.id).collect();
    let task_of = |name: &str| NEEDS.iter().position(|(other, ..)| *other == name).map(|nth| tasks[nth]);

    let mut working = Vec::new();
    // The ring closes last: first the two that begin it, then who only waits for it.
    for nth in [0, 1, 3, 2] {
        let (name, needs, whose) = NEEDS[nth];
        let on = task_of(whose).ok_or("everybody has a task")?;
        if nth == 2 {
            let mut graph = scheduler.wait_graph(&[]).await?;
            println!("\nSo far, everything depends on {name}:\n\n{}", graph.to_mermaid());
            if let Why::Blocked { session, reason, chain, .. } = scheduler.why(tasks[3]).await? {
                let chain = chain.iter().filter_map(|link| Some(format!("{}, {}", link.session.as_ref()?, link.state)));
                println!("Why is {session} not running? {reason}: {}\n", chain.collect::<Vec<_>>().join("; "));
            }
            let mut closing = Waiter::new(tasks[2], TaskState::Blocked);
            (closing.session, closing.on) = (Some(SwarmId::new(name)?), vec![on]);
            graph.extend([closing]);
            println!("If {name} waits, too, that is a ring:\n\n{}", graph.to_mermaid());
        }
        let session = scheduler.join(&Profile::new(SwarmId::new(name)?)).await?;
        working.push(tokio::spawn(work(session, needs, on, name)));
        // For the sake of the story, one after the other.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut released = 0;
    for session in working {
        released += usize::from(session.await??.is_some());
    }
    println!("\nThe journal says:");
    for entry in journal.entries(Position::ORIGIN, 500).await?.items {
        if &*entry.component == "deadlock" || &*entry.operation == "preempted" {
            println!("{}", entry.to_json());
        }
    }
    let unfinished = scheduler.stats().await?.unfinished();
    println!("\n{released} of {} went on without what it waited for; {unfinished} tasks are left", NEEDS.len());
    Ok(())
}
