//! A host with a loop of its own, and `s2-coordinator` alone. The agents live on one thread, remember what cannot leave it, and
//! work a bit at a time; between two bits the loop looks whether the task is still theirs and whether the host wants to stop.
//!
//! ```sh
//! cargo run --example own_loop
//! ```
//!
//! A survey asks which number below 600,000 has the longest [Collatz chain](https://en.wikipedia.org/wiki/Collatz_conjecture).
//! An agent splits it, waits for the parts, does them meanwhile, and goes on with the answers. A search without an end is
//! cancelled in the middle. One that the host interrupts to shut down is handed back, and costs no attempt.

mod agent;
mod chain;

use std::cell::RefCell;
use std::error::Error;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use s2_coordinator::{MemoryScheduler, MemoryStore, NewTask, Scheduler, SchedulerExt, SwarmId, TaskId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet};

use crate::agent::{Agent, End, SEARCH, SURVEY, Said};
use crate::chain::{Chain, Chains, longest};

const HOST: SwarmId = SwarmId::from_static("host");
const BELOW: u64 = 600_000;
/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

type Failure = Box<dyn Error>;

/// Everything that the host has: a scheduler, what its agents remember, and what they say.
struct Host {
    scheduler: MemoryScheduler,
    chains: Rc<RefCell<Chains>>,
    says: mpsc::UnboundedSender<Said>,
    said: mpsc::UnboundedReceiver<Said>,
}

/// An agent that runs, and how it is told to stop.
struct Running {
    stop: oneshot::Sender<()>,
    agent: JoinHandle<Result<(), s2_coordinator::Error>>,
}

impl Running {
    async fn stop(self) -> Result<(), Failure> {
        // One that has stopped by itself hears nothing.
        let _ = self.stop.send(());
        Ok(self.agent.await??)
    }
}

impl Host {
    async fn start(&self, name: &str) -> Result<Running, Failure> {
        let name = SwarmId::new(name)?;
        let agent = Agent::join(&self.scheduler, name, Rc::clone(&self.chains), self.says.clone()).await?;
        let (stop, stopped) = oneshot::channel();
        Ok(Running { stop, agent: tokio::task::spawn_local(agent.run(stopped)) })
    }

    async fn submit(&self, task: NewTask, range: Range<u64>) -> Result<TaskId, Failure> {
        Ok(self.scheduler.submit_one(&task.with_json(&range)?).await?.id)
    }

    /// Waits until an agent has begun with a task.
    async fn begun(&mut self, task: TaskId) -> Result<(), Failure> {
        while let Some(said) = self.said.recv().await {
            if matches!(said, Said::Progress(of) if of == task) {
                return Ok(());
            }
        }
        Err("nobody says anything any more".into())
    }

    /// Waits until an agent has put a task down, and says how.
    async fn ended(&mut self, task: TaskId) -> Result<(u32, End), Failure> {
        while let Some(said) = self.said.recv().await {
            if let Said::Ended(of, attempt, end) = said
                && of == task
            {
                return Ok((attempt, end));
            }
        }
        Err("nobody says anything any more".into())
    }

    async fn found(&self, task: TaskId) -> Result<Chain, Failure> {
        let outcome = self.scheduler.wait(task).await?;
        let result = outcome.result().ok_or("the task is not done")?;
        println!("done, with evidence: {}", serde_json::to_string(&result.evidence)?);
        Ok(result.json()?)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let (says, said) = mpsc::unbounded_channel();
    let host = Host { scheduler: MemoryStore::new().scheduler(), chains: Rc::default(), says, said };
    tokio::time::timeout(PATIENCE, LocalSet::new().run_until(run(host))).await?
}

async fn run(mut host: Host) -> Result<(), Failure> {
    let ada = host.start("host/ada").await?;

    // Split, blocked, resumed.
    let survey = host.submit(NewTask::new(SURVEY, HOST), 1..BELOW).await?;
    let found = host.found(survey).await?;
    println!("{found}\n");
    assert_eq!(found, longest(1..BELOW), "the parts must come to what the whole comes to");

    // Cancelled in the middle.
    let endless = host.submit(NewTask::new(SEARCH, HOST), 1..u64::MAX).await?;
    host.begun(endless).await?;
    host.scheduler.cancel(endless, "nobody needs it any more".into()).await?;
    let (_, end) = host.ended(endless).await?;
    assert!(matches!(end, End::Lost), "an agent works on what is cancelled: {end:?}");

    // Handed back by an agent that is told to stop, and done by the next one.
    println!();
    let range = BELOW..2 * BELOW;
    let search = host.submit(NewTask::new(SEARCH, HOST), range.clone()).await?;
    host.begun(search).await?;
    ada.stop().await?;
    let (first, end) = host.ended(search).await?;
    assert!(matches!(end, End::HandedBack), "an agent did not hand its task back: {end:?}");
    let bob = host.start("host/bob").await?;
    let found = host.found(search).await?;
    let (second, end) = host.ended(search).await?;
    println!("{found}; attempt {second}, since handing back is none");
    assert_eq!((first, second, end), (1, 1, End::Done));
    assert_eq!(found, longest(range));
    bob.stop().await?;

    let stats = host.scheduler.stats().await?;
    println!("\n{} tasks are left, {} sessions are there", stats.unfinished(), stats.sessions);
    assert_eq!((stats.unfinished(), stats.sessions), (0, 0));
    Ok(())
}
