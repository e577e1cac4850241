//! What the scheduler on Redis promises beyond the contract: processes race and die, replies are lost, servers restart, a
//! hundred thousand tasks follow from one, and nothing stays behind.

mod heal;
mod lost;
mod processes;
mod scale;
mod time;

use std::time::Duration;

use s2_coordinator::{NewTask, Profile, RedisScheduler, RedisStore, SchedulerExt, Session, SwarmId, TaskKind};

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
