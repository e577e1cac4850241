//! 64 sessions race for 10,000 tasks. Some crash, and come back as if nothing had happened.
//!
//! ```sh
//! cargo run --example claim_race
//! cargo run --example claim_race --features redis -- --redis redis://127.0.0.1
//! ```
//!
//! Each attempt of a task is claimed by one session; a session that was taken for dead changes nothing when it comes back;
//! and each task is done once.

use std::collections::HashMap;
use std::error::Error;
use std::time::{Duration, Instant};

use s2_coordinator::{
    Completion, Config, Ending, Error as S2Error, MemoryStore, NewTask, Profile, Scheduler, SchedulerExt, SwarmId,
    TaskId, TaskKind, TaskState,
};

const REVIEW: TaskKind = TaskKind::from_static("review");
const HOST: SwarmId = SwarmId::from_static("host");
const SESSIONS: usize = 64;
const TASKS: usize = 10_000;
/// Every so many-th claim of a session ends in a crash, as far as anybody can tell.
const CRASHES: usize = 100;
const LEASE: Duration = Duration::from_millis(200);

/// What one session has seen.
#[derive(Default)]
struct Seen {
    claimed: Vec<(TaskId, u32)>,
    completed: Vec<TaskId>,
    waits: Vec<Duration>,
    refused: usize,
}

/// Claims and completes tasks until the scheduler is closed.
async fn work(scheduler: impl Scheduler + Clone, nth: usize) -> Result<Seen, S2Error> {
    let name = SwarmId::new(format!("reviewers/session-{nth}"))?;
    let session = scheduler.join(&Profile::new(name)).await?;
    let (mut seen, mut late) = (Seen::default(), Vec::new());
    loop {
        let asked = Instant::now();
        let Some(held) = session.claim().await? else { break };
        seen.waits.push(asked.elapsed());
        seen.claimed.push((held.task.id, held.attempt));
        if seen.claimed.len() % CRASHES == 0 {
            // Its machine stands still: nobody renews the lease, and it will go on as if nothing had happened.
            late.push(held.into_grant());
            continue;
        }
        let task = held.task.id;
        match held.complete(Completion::new()).await {
            Ok(_) => seen.completed.push(task),
            Err(not_ended) => return Err(not_ended.into()),
        }
    }
    // The zombies come back.
    for grant in late {
        let done = Ending::Complete(Completion::new().with_data("too late"));
        let ended = scheduler.end(vec![(grant.lease, done)], None).await?;
        seen.refused += usize::from(matches!(ended.ended[0], Err(S2Error::StaleLease { .. })));
    }
    Ok(seen)
}

/// The value that follows an option on the command line.
fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| arg != name).nth(1)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    config.lease = LEASE;
    match option("--redis") {
        #[cfg(feature = "redis")]
        Some(url) => {
            // Each run is a fleet of its own.
            let fleet = SwarmId::new(format!("claim-race-{}", std::process::id()))?;
            let store = s2_coordinator::RedisStore::builder(fleet).with_config(config).connect(&url).await?;
            race(store.scheduler()).await
        }
        #[cfg(not(feature = "redis"))]
        Some(_) => {
            Err("this was built without Redis: cargo run --example claim_race --features redis -- --redis URL".into())
        }
        None => race(MemoryStore::builder().with_config(config).build()?.scheduler()).await,
    }
}

async fn race(scheduler: impl Scheduler + Clone) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let racing: Vec<_> = (0..SESSIONS).map(|nth| tokio::spawn(work(scheduler.clone(), nth))).collect();
    let mut tasks = Vec::with_capacity(TASKS);
    for batch in 0..TASKS / 500 {
        let batch: Vec<NewTask> =
            (0..500).map(|nth| NewTask::new(REVIEW, HOST).with_data(format!("file {}", batch * 500 + nth))).collect();
        tasks.extend(scheduler.submit(&batch).await?.into_iter().map(|task| task.id));
    }
    for task in &tasks {
        scheduler.wait(*task).await?;
    }
    let elapsed = started.elapsed();
    let stats = scheduler.stats().await?;
    scheduler.close().await?;

    let (mut claims, mut completions): (HashMap<(TaskId, u32), usize>, HashMap<TaskId, usize>) = Default::default();
    let (mut waits, mut refused) = (Vec::new(), 0);
    for session in racing {
        let seen = session.await??;
        seen.claimed.into_iter().for_each(|claim| *claims.entry(claim).or_default() += 1);
        seen.completed.into_iter().for_each(|task| *completions.entry(task).or_default() += 1);
        waits.extend(seen.waits);
        refused += seen.refused;
    }
    waits.sort_unstable();
    let crashes = claims.len() - completions.len();
    let twice = claims.values().filter(|times| **times > 1).count();
    println!("{SESSIONS} sessions, {TASKS} tasks, {} done in {elapsed:.1?}", stats.count(TaskState::Done));
    println!("claims             {}, of which {crashes} ended in a crash and were tried again", claims.len());
    println!("claimed twice      {twice}");
    println!("completed twice    {}", completions.values().filter(|times| **times > 1).count());
    println!("zombies refused    {refused} of {crashes}");
    println!("throughput         {:.0} tasks/s", TASKS as f64 / elapsed.as_secs_f64());
    let at = |share: usize| waits[(waits.len() - 1) * share / 100];
    println!("waiting to claim   p50 {:.1?}, p99 {:.1?}, most {:.1?}", at(50), at(99), at(100));
    assert!(twice == 0 && completions.len() == TASKS && refused == crashes, "this is what must never happen");
    Ok(())
}
