//! Crowds: what concerns many tasks at once is done in steps of bounded length, and nothing stays behind.

use std::time::Duration;

use s2_coordinator::conformance::Fleet;
use s2_coordinator::{
    Completion, Config, Ending, Leases, NewTask, Profile, Scheduler, SchedulerExt, SwarmId, TaskId, TaskKind,
    TaskState, Tasks,
};
use s2_tests::{MemoryFleet, counts};

const KIND: TaskKind = TaskKind::from_static("crowd");
const HOST: SwarmId = SwarmId::from_static("host");
const SESSION: SwarmId = SwarmId::from_static("session");
/// What one step does at most: of what follows, and of what is due.
const FOLLOWS: u64 = 500;
const DUE: u64 = 1_000;

fn task() -> NewTask {
    NewTask::new(KIND, HOST)
}

async fn submit(scheduler: &impl Scheduler, new: &NewTask, count: usize) -> Vec<TaskId> {
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let batch = vec![new.clone(); 500.min(count - ids.len())];
        ids.extend(scheduler.submit(&batch).await.expect("submitted").into_iter().map(|task| task.id));
    }
    ids
}

/// Steps until so many tasks are in a state. No step moves more than `most`, the first one included.
async fn steps(scheduler: &impl Scheduler, state: TaskState, count: u64, most: u64) {
    let mut before = scheduler.stats().await.expect("stats").count(state);
    assert!(before <= 2 * most, "{before} in the first steps");
    while before < count {
        let now = scheduler.stats().await.expect("stats").count(state);
        assert!(now > before && now - before <= most, "from {before} to {now} in a step");
        before = now;
    }
    assert_eq!(before, count);
}

#[tokio::test]
async fn a_crowd_that_waits_for_one_task_is_released_in_bounded_steps() {
    let crowd = counts(10_000, 100_000) as usize;
    let scheduler = MemoryFleet::new(Config::default()).store.scheduler();
    let first = submit(&scheduler, &task(), 1).await[0];
    let waiting = submit(&scheduler, &task().after(first), crowd).await;
    let session = scheduler.join(&Profile::new(SESSION)).await.expect("a session");
    let granted = scheduler.take(&session.request(1)).await.expect("granted");
    let done = vec![(granted[0].lease, Ending::Complete(Completion::new()))];
    scheduler.end(done, None).await.expect("no error").ended.remove(0).expect("completed");
    steps(&scheduler, TaskState::Ready, crowd as u64, FOLLOWS).await;
    let granted = scheduler.take(&session.request(500)).await.expect("granted");
    let ids: Vec<TaskId> = granted.iter().map(|grant| grant.task.id).collect();
    assert_eq!(ids, waiting[..500], "in the order in which they were submitted");
}

#[tokio::test]
async fn a_crowd_that_fails_with_one_task_does_so_in_bounded_steps() {
    let crowd = counts(10_000, 100_000) as usize;
    let scheduler = MemoryFleet::new(Config::default()).store.scheduler();
    let first = submit(&scheduler, &task(), 1).await[0];
    submit(&scheduler, &task().after(first), crowd).await;
    scheduler.cancel(first, "not needed".into()).await.expect("a task");
    steps(&scheduler, TaskState::Failed, crowd as u64, FOLLOWS).await;
}

#[tokio::test]
async fn a_crowd_whose_time_has_come_is_ready_in_bounded_steps() {
    let crowd = counts(10_000, 100_000) as usize;
    let fleet = MemoryFleet::new(Config::default());
    let scheduler = fleet.store.scheduler();
    submit(&scheduler, &task().with_start(Duration::from_secs(60)), crowd).await;
    fleet.advance(Duration::from_secs(60)).await;
    steps(&scheduler, TaskState::Ready, crowd as u64, DUE).await;
}

#[tokio::test]
async fn the_queue_of_a_session_that_leaves_is_everybodys_in_bounded_steps() {
    let crowd = counts(10_000, 100_000) as usize;
    let scheduler = MemoryFleet::new(Config::default()).store.scheduler();
    let (one, other) = (SwarmId::from_static("one"), SwarmId::from_static("other"));
    let leaving = scheduler.join(&Profile::new(one.clone())).await.expect("a session");
    let other = scheduler.join(&Profile::new(other)).await.expect("a session");
    let all = submit(&scheduler, &task().with_assignee(one), crowd).await;
    leaving.leave().await.expect("left");
    let mut done = Vec::new();
    while done.len() < crowd {
        let granted = scheduler.take(&other.request(400)).await.expect("granted");
        assert!(!granted.is_empty(), "after {} tasks", done.len());
        done.extend(granted.iter().map(|grant| grant.task.id));
        let endings = granted.iter().map(|grant| (grant.lease, Ending::Complete(Completion::new()))).collect();
        scheduler.end(endings, None).await.expect("no error");
    }
    assert_eq!(done, all);
}

#[tokio::test]
async fn a_session_that_waits_gets_what_takes_many_steps() {
    let crowd = counts(3_000, 20_000) as usize;
    let scheduler = MemoryFleet::new(Config::default()).store.scheduler();
    let first = submit(&scheduler, &task(), 1).await[0];
    submit(&scheduler, &task().after(first), crowd).await;
    let session = scheduler.join(&Profile::new(SESSION)).await.expect("a session");
    session.claim().await.expect("no error").expect("open").complete(Completion::new()).await.expect("completed");
    for _ in 0..crowd {
        let held = session.claim().await.expect("no error").expect("open");
        held.complete(Completion::new()).await.expect("completed");
    }
    assert_eq!(scheduler.stats().await.expect("stats").unfinished(), 0);
}

#[tokio::test]
async fn nothing_stays_of_a_crowd_that_is_forgotten() {
    let crowd = counts(5_000, 50_000) as usize;
    let fleet = MemoryFleet::new(Config::default());
    let scheduler = fleet.store.scheduler();
    let stuck = submit(&scheduler, &task().with_start(Duration::from_secs(20 * 24 * 60 * 60)), 1).await[0];
    let session = scheduler.join(&Profile::new(SESSION)).await.expect("a session");
    for nth in 0..crowd / 500 {
        let new = task().with_data(format!("round {nth}"));
        submit(&scheduler, &new, 500).await;
        let granted = scheduler.take(&session.request(500)).await.expect("granted");
        let endings = granted.iter().map(|grant| (grant.lease, Ending::Complete(Completion::new()))).collect();
        scheduler.end(endings, None).await.expect("no error");
    }
    assert_eq!(scheduler.stats().await.expect("stats").count(TaskState::Done), crowd as u64);
    fleet.advance(Duration::from_secs(7 * 24 * 60 * 60)).await;
    let mut steps = 0;
    while scheduler.stats().await.expect("stats").count(TaskState::Done) > 0 {
        steps += 1;
        assert!(steps <= crowd as u64 / DUE + 1, "it is not forgotten");
    }
    let page = scheduler.list(&Tasks::all()).await.expect("a page");
    assert_eq!((page.items.len(), page.items[0].task.id, page.next), (1, stuck, None));
}
