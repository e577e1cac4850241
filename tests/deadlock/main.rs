//! Tasks that wait for each other: every graph, every policy, over processes that die.

mod graphs;
mod policies;
mod processes;

use std::time::Duration;

use s2_coordinator::{Blocker, Ending, Grant, NewTask, Scheduler, SchedulerExt, Session, SwarmId, TaskId, TaskKind};

const WORK: TaskKind = TaskKind::from_static("work");
const HOST: SwarmId = SwarmId::from_static("host");
const FLEET: SwarmId = SwarmId::from_static("fleet");
const LONG: Duration = Duration::from_secs(60);

fn task() -> NewTask {
    NewTask::new(WORK, HOST)
}

async fn claimed(scheduler: &impl Scheduler, session: &Session, count: usize) -> Vec<Grant> {
    for _ in 0..count {
        scheduler.submit_one(&task()).await.expect("submitted");
    }
    scheduler.take(&session.request(count)).await.expect("claimed")
}

async fn block(scheduler: &impl Scheduler, grant: &Grant, on: impl IntoIterator<Item = TaskId>) {
    let mut blocker = Blocker::new("it waits");
    blocker.on.extend(on);
    let ended = scheduler.end(vec![(grant.lease, Ending::Block(blocker))], None).await.expect("no error").ended;
    assert!(ended[0].is_ok(), "{ended:?}");
}
