//! Waiting for each other: what an edge costs among 10,000 tasks that wait, and how long a ring lasts.
//!
//! `cargo bench -p s2-benches --bench waits`. An edge in memory is compared with an insert into a map behind a lock, a ring on
//! Redis with as many bare `EVALSHA "return 1"` as it takes round trips, in the same run. What is printed are the 50th and the
//! 99th of a hundred.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use s2_benches::{bare_trips, percentiles};
use s2_coordinator::{
    Blocker, Config, Ending, Grant, MemoryStore, NewTask, Profile, RedisStore, Scheduler, SchedulerExt, Session,
    SwarmId, TaskId, TaskKind, TaskState,
};
use s2_tests::servers::RedisServer;

const KIND: TaskKind = TaskKind::from_static("wait");
const HOST: SwarmId = SwarmId::from_static("host");
/// Tasks that wait.
const WAITS: usize = 10_000;
const EDGES: usize = 5_000;
const RINGS: usize = 200;

fn config() -> Config {
    let mut config = Config::default();
    config.lease = Duration::from_secs(3600);
    config.longest_wait = Duration::MAX;
    config.progress = Duration::MAX;
    config
}

/// A pseudo-random number below `end`, the same in each run.
fn below(state: &mut u64, end: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % end
}

/// Tasks in the hands of sessions, at most a hundred each.
async fn claimed(scheduler: &impl Scheduler, sessions: &[Session], count: usize) -> Vec<Grant> {
    let mut granted = Vec::with_capacity(count);
    for (batch, session) in (0..count.div_ceil(100)).zip(sessions) {
        let tasks = vec![NewTask::new(KIND, HOST); (count - batch * 100).min(100)];
        scheduler.submit(&tasks).await.expect("submitted");
        granted.extend(scheduler.take(&session.request(100)).await.expect("claimed"));
    }
    assert_eq!(granted.len(), count);
    granted
}

async fn joined(scheduler: &(impl Scheduler + Clone)) -> Vec<Session> {
    let mut sessions = Vec::new();
    for nth in 0..(WAITS + EDGES) / 100 {
        let name = SwarmId::new(format!("session-{nth}")).expect("a name");
        sessions.push(scheduler.join(&Profile::new(name)).await.expect("a session"));
    }
    sessions
}

async fn block(scheduler: &impl Scheduler, grant: &Grant, on: TaskId) -> Duration {
    let ending = Ending::Block(Blocker::new("waits").with_wait(on));
    let begun = Instant::now();
    let ended = scheduler.end(vec![(grant.lease, ending)], None).await.expect("no error").ended;
    let took = begun.elapsed();
    assert!(ended[0].is_ok(), "{ended:?}");
    took
}

/// A random forest of waits: each task waits for one that was submitted before it. Answers what the last edges took.
async fn edges(scheduler: &impl Scheduler, sessions: &[Session]) -> (f64, f64) {
    let granted = claimed(scheduler, sessions, WAITS + EDGES).await;
    let (mut state, mut times) = (1, Vec::with_capacity(EDGES));
    for nth in 1..granted.len() {
        let took = block(scheduler, &granted[nth], granted[below(&mut state, nth)].task.id).await;
        if nth > WAITS {
            times.push(took);
        }
    }
    percentiles(times)
}

/// Rings of so many, one after the other. Answers how long each lasted: from the call that closes it to its answer, after
/// which one of them may go on.
async fn rings(scheduler: &impl Scheduler, sessions: &[Session], size: usize) -> (f64, f64) {
    let mut times = Vec::with_capacity(RINGS);
    for _ in 0..RINGS {
        let granted = claimed(scheduler, sessions, size).await;
        let mut last = Duration::ZERO;
        for nth in 0..size {
            last = block(scheduler, &granted[nth], granted[(nth + 1) % size].task.id).await;
        }
        times.push(last);
        assert_eq!(scheduler.task(granted[0].task.id).await.expect("a task").state, TaskState::Ready);
        for grant in granted.iter().rev() {
            scheduler.cancel(grant.task.id, "enough".into()).await.expect("cancelled");
        }
    }
    percentiles(times)
}

fn bare_inserts() -> (f64, f64) {
    let edges: Mutex<HashMap<u64, Vec<u64>>> = Mutex::default();
    let (mut state, mut times) = (1, Vec::with_capacity(EDGES));
    for nth in 1..(WAITS + EDGES) as u64 {
        let on = below(&mut state, nth as usize) as u64;
        let begun = Instant::now();
        edges.lock().expect("no panic").entry(nth).or_default().push(on);
        if nth > WAITS as u64 {
            times.push(begun.elapsed());
        }
    }
    percentiles(times)
}

fn line(what: &str, measured: (f64, f64), raw: (f64, f64)) {
    let (p50, p99) = measured;
    println!(
        "{what:<44} {p50:>9.1} {p99:>9.1} {:>9.1} {:>9.1} {:>7.2}× {:>6.2}×",
        raw.0,
        raw.1,
        p50 / raw.0,
        p99 / raw.1
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    println!("{:<44} {:>9} {:>9} {:>9} {:>9} {:>8} {:>7}", "", "p50 µs", "p99 µs", "raw p50", "raw p99", "p50", "p99");
    let memory = MemoryStore::builder().with_config(config()).build().expect("a fleet").scheduler();
    let sessions = joined(&memory).await;
    let raw = bare_inserts();
    line("memory: an edge, 10,000 waiting", edges(&memory, &sessions).await, raw);
    for size in [2, 10, 100] {
        line(&format!("memory: a ring of {size}, 15,000 waiting"), rings(&memory, &sessions, size).await, raw);
    }
    let server = RedisServer::start_volatile();
    let store = RedisStore::builder(HOST).with_config(config()).connect(&server.url()).await.expect("a fleet");
    let redis = store.scheduler();
    let sessions = joined(&redis).await;
    let _ = server.command(&["CONFIG", "SET", "slowlog-log-slower-than", "1000"]);
    let one = bare_trips(&server, 1).await;
    line("Redis: an edge, 10,000 waiting", edges(&redis, &sessions).await, one);
    let four = bare_trips(&server, 4).await;
    let _ = server.command(&["SLOWLOG", "RESET"]);
    for size in [2, 10, 100] {
        line(&format!("Redis: a ring of {size}, 15,000 waiting"), rings(&redis, &sessions, size).await, four);
    }
    // The calls that submit and claim batches are others' business; a ring is a few calls of its own.
    let slow = server.command(&["SLOWLOG", "GET", "200"]);
    let longest = ["tasks_end", "tasks_suspects", "tasks_release", "tasks_waits"].map(|verb| {
        let lines: Vec<&str> = slow.lines().collect();
        let took = |nth: usize| lines[..nth].iter().rev().filter_map(|line| line.trim().parse::<u64>().ok()).next();
        let of = lines.iter().enumerate().filter(|(_, line)| line.contains(verb)).filter_map(|(nth, _)| took(nth));
        (verb, of.max().unwrap_or(0))
    });
    println!("calls of more than 1 ms on the server, the longest of each in µs: {longest:?}");
}
