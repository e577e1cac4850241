//! The scheduler in memory against a heap and a map behind one lock, in the same run.
//!
//! `cargo bench -p s2-benches --bench scheduler` prints criterion's figures, then a table: how many tasks a second, one
//! session on one core, with few and with a million tasks in the queue.

use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

use criterion::{Criterion, Throughput};
use s2_benches::median;
use s2_coordinator::{
    Capabilities, Completion, Ending, Leases, MemoryScheduler, MemoryStore, NewTask, Profile, Scheduler, SchedulerExt,
    Session, SwarmId, TaskKind,
};
use tokio::runtime::{Builder, Runtime};

const KIND: TaskKind = TaskKind::from_static("bench");
const HOST: SwarmId = SwarmId::from_static("host");
/// Tasks of one round.
const ROUND: usize = 1_000;
const BATCH: usize = 64;
const BULK: usize = 100;
const CLASSES: usize = 200;
const OFFERS: usize = 20;

/// What any scheduler in memory does at least: an ordered queue, and a map of who has what, behind one lock.
#[derive(Default)]
struct Bare {
    queue: BTreeSet<(u64, u64)>,
    held: HashMap<u64, u64>,
    last: u64,
}

fn bare_round(bare: &Mutex<Bare>) {
    for _ in 0..ROUND {
        let lock = || bare.lock().expect("not poisoned");
        let mut submit = lock();
        submit.last += 1;
        let id = submit.last;
        submit.queue.insert((id, id));
        drop(submit);
        let mut claim = lock();
        let (_, id) = claim.queue.pop_first().expect("a task");
        claim.held.insert(id, id);
        drop(claim);
        black_box(lock().held.remove(&id));
    }
}

fn task(nth: usize) -> NewTask {
    let nth = nth % CLASSES;
    let class = [format!("skill:{}", nth % OFFERS), format!("skill:{}", nth / OFFERS)];
    let class = Capabilities::new(class).expect("capabilities");
    NewTask::new(KIND, HOST).with_requires(class)
}

async fn fleet() -> (MemoryScheduler, Session) {
    let scheduler = MemoryStore::new().scheduler();
    // Nobody offers more than 64 capabilities; pairs of them make the classes.
    let offers = (0..OFFERS).map(|nth| format!("skill:{nth}"));
    let profile = Profile::new(SwarmId::from_static("session"));
    let profile = profile.with_capabilities(Capabilities::new(offers).expect("capabilities"));
    let session = scheduler.join(&profile).await.expect("a session");
    (scheduler, session)
}

async fn queue(scheduler: &MemoryScheduler, count: usize) {
    let mut left = count;
    while left > 0 {
        let batch: Vec<NewTask> = (0..left.min(500)).map(|nth| task(left + nth)).collect();
        scheduler.submit(&batch).await.expect("submitted");
        left -= batch.len();
    }
}

/// Submits, claims and completes a round, one task at a time.
async fn one_by_one(scheduler: &MemoryScheduler, session: &Session, new: &NewTask) {
    for _ in 0..ROUND {
        scheduler.submit(std::slice::from_ref(new)).await.expect("submitted");
        let granted = scheduler.take(&session.request(1)).await.expect("no error");
        let done = vec![(granted[0].lease, Ending::Complete(Completion::new()))];
        scheduler.end(done, None).await.expect("no error");
    }
}

/// Claims and completes, each completion claiming the next.
async fn fused(scheduler: &MemoryScheduler, session: &Session, rounds: usize) {
    let mut granted = scheduler.take(&session.request(1)).await.expect("no error");
    for _ in 0..rounds {
        let done = vec![(granted[0].lease, Ending::Complete(Completion::new()))];
        granted = scheduler.end(done, Some(&session.request(1))).await.expect("no error").granted;
    }
    scheduler.end(vec![(granted[0].lease, Ending::Release)], None).await.expect("no error");
}

async fn in_batches(scheduler: &MemoryScheduler, session: &Session, rounds: usize) {
    let mut granted = scheduler.take(&session.request(BATCH)).await.expect("no error");
    for _ in 0..rounds / BATCH {
        let done = granted.iter().map(|grant| (grant.lease, Ending::Complete(Completion::new()))).collect();
        granted = scheduler.end(done, Some(&session.request(BATCH))).await.expect("no error").granted;
    }
    let release = granted.iter().map(|grant| (grant.lease, Ending::Release)).collect();
    scheduler.end(release, None).await.expect("no error");
}

fn one_core() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn per_second(count: usize, started: Instant) -> f64 {
    count as f64 / started.elapsed().as_secs_f64()
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096.0 / (1024.0 * 1024.0)
}

fn table(runtime: &Runtime) {
    const ROUNDS: usize = 7;
    const TASKS: usize = 20_000;
    let bare = Mutex::new(Bare::default());
    let raw = median((0..ROUNDS).map(|_| {
        let started = Instant::now();
        (0..TASKS / ROUND).for_each(|_| bare_round(&bare));
        per_second(TASKS, started)
    }));
    println!("\nmedians of {ROUNDS} rounds of {TASKS} tasks; one session, one core, {CLASSES} sets of requirements\n");
    println!("| in the queue | fused, one by one | by {BATCH} | bulk submit by {BULK} | memory |");
    println!("|---|---|---|---|---|");
    println!("| bare heap, map and lock: submit, claim, complete | {:.0} k/s (1.00×) | | | |", raw / 1e3);
    for queued in [1_000, 100_000, 1_000_000] {
        let (scheduler, session) = runtime.block_on(fleet());
        runtime.block_on(queue(&scheduler, queued + TASKS));
        let memory = resident_mib();
        let (mut single, mut batch, mut bulk) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let started = Instant::now();
            runtime.block_on(fused(&scheduler, &session, TASKS));
            single.push(per_second(TASKS, started));
            let news: Vec<NewTask> = (0..TASKS).map(task).collect();
            let started = Instant::now();
            for bulk in news.chunks(BULK) {
                runtime.block_on(scheduler.submit(bulk)).expect("submitted");
            }
            bulk.push(per_second(TASKS, started));
            let started = Instant::now();
            runtime.block_on(in_batches(&scheduler, &session, TASKS));
            batch.push(per_second(TASKS, started));
            runtime.block_on(queue(&scheduler, TASKS));
        }
        let (single, batch, bulk) = (median(single), median(batch), median(bulk));
        println!(
            "| {queued} | {:.0} k/s ({:.2}×) | {:.0} k/s | {:.0} k/s | {memory:.0} MiB |",
            single / 1e3,
            single / raw,
            batch / 1e3,
            bulk / 1e3
        );
    }
}

fn main() {
    let runtime = one_core();
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("scheduler");
    group.throughput(Throughput::Elements(ROUND as u64));
    let bare = Mutex::new(Bare::default());
    group.bench_function("bare heap, map and lock", |bencher| bencher.iter(|| bare_round(&bare)));
    let (scheduler, session) = runtime.block_on(fleet());
    let new = NewTask::new(KIND, HOST);
    group.bench_function("submit, claim, complete", |bencher| {
        bencher.iter(|| runtime.block_on(one_by_one(&scheduler, &session, &new)));
    });
    group.finish();
    table(&runtime);
    criterion.final_summary();
}
