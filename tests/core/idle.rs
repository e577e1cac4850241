//! Sessions that have nothing to do cost next to nothing.

use std::time::{Duration, Instant};

use s2_coordinator::{SchedulerExt, TaskState};
use s2_tests::counts;
use s2_tests::servers::RedisServer;

use crate::{GRACE, LONG, On, TICK, settings, until, within, work};

/// Commands that the server has processed, those within scripts included.
fn commands(server: &RedisServer) -> u64 {
    server.info("total_commands_processed").parse().expect("a number")
}

/// A thousand sessions of one process that wait on one Redis, with a person who is shown what is escalated: at most 20 commands
/// a second, and 8 connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_sessions_cost_next_to_nothing() {
    const SESSIONS: usize = 1_000;
    let window = Duration::from_secs(u64::from(counts(10, 60)));
    let fleet = On::Redis.with(s2_coordinator::Config::default(), settings(""), false).await;
    let server = fleet.server.as_ref().expect("a server");
    fleet.s2.on_escalation(|_| async {});
    for nth in 0..SESSIONS {
        let session = fleet.s2.session(format!("swarm-{}/session-{nth}", nth % 10)).skills(["work:all"]);
        session.run(async |cx| Ok(cx.session().clone())).await.expect("a session");
    }
    // All of them wait once nothing changes any more.
    let quiet = async || {
        let before = commands(server);
        tokio::time::sleep(Duration::from_millis(500)).await;
        commands(server) - before < 20
    };
    until(quiet).await;
    let before = commands(server);
    let begun = Instant::now();
    tokio::time::sleep(window).await;
    let (after, took) = (commands(server), begun.elapsed());
    let clients: u32 = server.info("connected_clients").parse().expect("a number");
    let rate = (after - before) as f64 / took.as_secs_f64();
    println!("{SESSIONS} idle sessions: {rate:.1} commands a second, {} connections", clients - 1);
    assert!(rate <= 20.0, "{rate} commands a second");
    assert!(clients - 1 <= 8, "{clients} clients, one of them the test's");
    // They are awake.
    let id = fleet.s2.scheduler().submit_one(&work()).await.expect("submitted").id;
    within(fleet.s2.scheduler().wait(id)).await.expect("an outcome");
    assert_eq!(fleet.state(id).await, TaskState::Done);
    let leaves = Instant::now();
    fleet.s2.shutdown(GRACE).await;
    assert!(leaves.elapsed() < LONG + TICK, "{:?}", leaves.elapsed());
}
