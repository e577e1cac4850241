//! Many sessions and tasks in one process.

use std::fs;
use std::time::{Duration, Instant};

use s2_coordinator::TaskState;
use s2_tests::counts;

use crate::{GRACE, On, settings, work};

/// What this process has in memory, in bytes, where the system says so.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// 1,000 sessions and 100,000 tasks in memory: below a minute and 2 GB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sessions_do_a_hundred_thousand_tasks() {
    let (sessions, tasks) = (counts(200, 1_000), counts(10_000, 100_000) as usize);
    let fleet = On::Memory.with(s2_coordinator::Config::default(), settings(""), false).await;
    let begun = Instant::now();
    for nth in 0..sessions {
        let session = fleet.s2.session(format!("swarm-{}/session-{nth}", nth % 10)).skills(["work:all"]);
        session.run(async |cx| Ok(cx.attempt())).await.expect("a session");
    }
    for batch in vec![work(); tasks].chunks(500) {
        fleet.s2.scheduler().submit(batch).await.expect("submitted");
    }
    let scheduler = fleet.s2.scheduler();
    while scheduler.stats().await.expect("stats").count(TaskState::Done) < tasks as u64 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", scheduler.stats().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = begun.elapsed();
    let memory = resident();
    println!("{sessions} sessions, {tasks} tasks: {took:?}, {memory:?} bytes");
    assert!(memory.is_none_or(|bytes| bytes < 2_000_000_000), "{memory:?} bytes");
    let leaves = Instant::now();
    fleet.s2.shutdown(GRACE).await;
    println!("left in {:?}", leaves.elapsed());
    assert_eq!(scheduler.stats().await.expect("stats").sessions, 0);
}
