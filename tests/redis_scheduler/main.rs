//! What the scheduler on Redis promises beyond the contract: processes race and die, replies are lost, servers restart, a
//! hundred thousand tasks follow from one, and nothing stays behind.

mod heal;
mod lost;
mod processes;
mod scale;
mod time;
mod together;

use std::time::Duration;

use s2_coordinator::{
    Completion, Config, Error, NewTask, Profile, RedisScheduler, RedisStore, Scheduler, SchedulerExt, Session, SwarmId,
    TaskId, TaskKind,
};
use s2_tests::servers::RedisServer;

const WORK: TaskKind = TaskKind::from_static("work");
const HOST: SwarmId = SwarmId::from_static("host");
const FLEET: SwarmId = SwarmId::from_static("fleet");
const LONG: Duration = Duration::from_secs(60);

fn task() -> NewTask {
    NewTask::new(WORK, HOST)
}

async fn store(url: &str) -> RedisStore {
    RedisStore::connect(url, FLEET).await.expect("a fleet")
}

async fn session(scheduler: &RedisScheduler, name: &str) -> Session {
    scheduler.join(&Profile::new(SwarmId::new(name).expect("a name"))).await.expect("a session")
}

/// The first step of a server that is about tasks names one that is not there, by a number of few digits.
#[tokio::test]
async fn a_server_that_knows_no_task_says_so() {
    let server = RedisServer::start_volatile();
    let scheduler = store(&server.url()).await.scheduler();
    let unknown = scheduler.why(TaskId::new(1000)).await;
    assert!(matches!(unknown, Err(Error::UnknownTask { .. })), "{unknown:?}");
}

/// Limits are those of each process. A process that allows fewer tasks than there are does not keep them from ending.
#[tokio::test]
async fn a_process_with_a_lower_limit_completes_what_is_there() {
    let server = RedisServer::start_volatile();
    let generous = store(&server.url()).await.scheduler();
    let submitted = generous.submit(&[task(), task(), task()]).await.expect("submitted");
    let mut config = Config::default();
    config.limits.tasks = 1;
    let strict =
        RedisStore::builder(FLEET).with_config(config).connect(&server.url()).await.expect("a fleet").scheduler();
    let session = session(&strict, "session").await;
    for _ in &submitted {
        session
            .try_claim()
            .await
            .expect("no error")
            .expect("a task")
            .complete(Completion::new())
            .await
            .expect("completed");
    }
    assert_eq!(generous.stats().await.expect("stats").unfinished(), 0);
}
