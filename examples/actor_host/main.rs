//! An actor runtime as host, here [kameo](https://docs.rs/kameo): its actors are the sessions of a fleet. They crash, their
//! supervisor starts them anew, and no task is lost or done twice.
//!
//! ```sh
//! cargo run --example actor_host
//! ```
//!
//! Four actors calculate, and they have a bug: each leaves its results on its stack, until that is full. So every one of them
//! panics now and then, in the middle of a task that is none the worse for it: there is another attempt, by whoever is free.
//! One task crashes everybody who takes it; after three attempts nobody does any more.

mod calculator;
mod told;
mod worker;

use std::error::Error;
use std::time::Duration;

use kameo::actor::{ActorRef, Spawn};
use s2_coordinator::{
    Backoff, Config, MemoryStore, NewTask, Outcome, Run, Scheduler, SchedulerExt, SwarmId, TaskId, TaskKind,
};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::told::Told;
use crate::worker::{Crew, NAMES, Team};

const CALCULATE: TaskKind = TaskKind::from_static("calculate");
const HOST: SwarmId = SwarmId::from_static("host");
const TASKS: i64 = 200;
/// An innocent task may meet several actors whose stack is full, one after the other.
const ATTEMPTS: u32 = 8;
const POISON: &str = "1 0 /";
const POISON_ATTEMPTS: u32 = 3;
/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

type Failure = Box<dyn Error>;

/// The nth sum, and what it must come to.
fn sum(n: i64) -> (String, i64) {
    (format!("{n} {} + {} *", n * n, n % 7), (n + n * n) * (n % 7))
}

fn task(sum: &str, attempts: u32) -> NewTask {
    NewTask::new(CALCULATE, HOST).with_data(sum.to_owned()).with_attempts(attempts)
}

fn store() -> Result<MemoryStore, s2_coordinator::Error> {
    let mut config = Config::default();
    // Nobody wants to wait for an example.
    config.backoff = Backoff { base: Duration::from_millis(5), max: Duration::from_millis(50) };
    MemoryStore::builder().with_config(config).build()
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    std::panic::set_hook(Box::new(|panic| {
        println!("a panic: {}", panic.payload_as_str().unwrap_or("it does not say why"));
    }));
    timeout(PATIENCE, run(store()?)).await?
}

async fn run(store: MemoryStore) -> Result<(), Failure> {
    let (scheduler, starts) = (store.scheduler(), watch::Sender::new(0));
    let team = Team::spawn(Crew { scheduler: scheduler.clone(), starts: starts.clone() });
    let poison = scheduler.submit_one(&task(POISON, POISON_ATTEMPTS)).await?.id;
    let sums: Vec<NewTask> = (0..TASKS).map(|n| task(&sum(n).0, ATTEMPTS)).collect();
    let sums: Vec<TaskId> = scheduler.submit(&sums).await?.into_iter().map(|task| task.id).collect();

    let wrong = wrong(&scheduler, &sums).await?;
    let history = failed(scheduler.wait(poison).await?)?;
    let told = Told::by(&store.journal()).await?;
    let (crashes, (completed, twice)) = (told.crashes(), told.completed());
    // Each crash is one start more. The supervisor may still be busy with the last one.
    let wanted = NAMES.len() as u32 + crashes;
    starts.subscribe().wait_for(|starts| *starts >= wanted).await?;
    stop(team).await?;

    println!();
    for run in &history {
        println!("{POISON} crashed {}: {}", run.session, run.end.reason());
    }
    let (others, same) = told.retried();
    let restarts = *starts.borrow() - NAMES.len() as u32;
    let unfinished = scheduler.stats().await?.unfinished();
    println!("{crashes} crashes, {restarts} restarts; tried again by somebody else: {others}, by the same: {same}");
    println!("{completed} of {TASKS} sums are done, {wrong} of them wrong; {unfinished} tasks are left");
    assert_eq!((completed, wrong, unfinished), (TASKS as usize, 0, 0), "a task was lost, or done wrongly");
    assert!(!twice, "a task was done twice");
    assert_eq!(history.len(), POISON_ATTEMPTS as usize);
    assert!(crashes > POISON_ATTEMPTS, "the bug was never met");
    assert_eq!(restarts, crashes, "each crash is one restart");
    Ok(())
}

/// Waits for all sums, and counts those that came to something else than they must.
async fn wrong(scheduler: &dyn Scheduler, sums: &[TaskId]) -> Result<usize, s2_coordinator::Error> {
    let mut wrong = 0;
    for (n, task) in (0..).zip(sums) {
        let outcome = scheduler.wait(*task).await?;
        let expected = sum(n).1.to_string();
        wrong += usize::from(outcome.result().is_none_or(|result| result.data != expected));
    }
    Ok(wrong)
}

/// The attempts of a task that must have failed.
fn failed(outcome: Outcome) -> Result<Vec<Run>, Failure> {
    match outcome {
        Outcome::Failed { history, .. } => Ok(history),
        other => Err(format!("{POISON} must fail: {other:?}").into()),
    }
}

async fn stop(team: ActorRef<Team>) -> Result<(), Failure> {
    team.stop_gracefully().await?;
    team.wait_for_shutdown().await;
    Ok(())
}
