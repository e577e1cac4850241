//! Consumers that wait cost next to nothing.

use crate::{CLERKS, LONG, ORDERS, TICK, event, group};
use s2_coordinator::{EventBus, RedisStore, Subscribe};
use s2_tests::redis::unique_name;
use s2_tests::servers::RedisServer;
use std::time::Duration;
use std::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_consumers_cost_nothing() {
    const SUBSCRIBERS: usize = 1000;
    // Two signs of life, whenever it begins.
    const WINDOW: Duration = Duration::from_secs(30);
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let bus = RedisStore::connect(&server.url(), name.clone()).await.expect("a fleet").bus();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..SUBSCRIBERS {
        let subscription = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a subscription");
        waiting.spawn(async move { subscription.next().await });
    }
    let key = format!("s2:{{{name}}}:g:{}", group(&bus, &ORDERS).await.incarnation);
    let deadline = Instant::now() + LONG;
    while s2_tests::redis::waiting(&server, &key) != SUBSCRIBERS {
        assert!(Instant::now() < deadline, "not all wait");
        sleep(TICK).await;
    }

    let counted = || {
        let info = server.command(&["INFO", "everything"]);
        let number = |text: &str| text.split(',').next().and_then(|text| text.parse::<u64>().ok());
        let field = |name: &str| info.lines().find_map(|line| number(line.strip_prefix(name)?)).unwrap_or(0);
        let scripts = ["cmdstat_fcall:calls=", "cmdstat_evalsha:calls=", "cmdstat_eval:calls="].map(field);
        (scripts.iter().sum::<u64>(), field("total_commands_processed:"))
    };
    let before = counted();
    sleep(WINDOW).await;
    let after = counted();
    let clients: u32 = server.info("connected_clients").parse().expect("a number");
    // Without the time that this test asked.
    let (scripts, commands) = (after.0 - before.0, after.1 - before.1 - 1);
    println!(
        "{SUBSCRIBERS} idle consumers: {scripts} scripts, {commands} commands in {WINDOW:?}, {} clients",
        clients - 1
    );

    for batch in vec![event(ORDERS); SUBSCRIBERS].chunks(500) {
        bus.publish(batch).await.expect("published");
    }
    let received = timeout(LONG, waiting.join_all()).await.expect("everybody gets something");
    let mut positions: Vec<u64> = received
        .into_iter()
        .map(|received| received.expect("no error").expect("a delivery").event.position.get())
        .collect();
    positions.sort_unstable();
    assert_eq!(positions, (1..=SUBSCRIBERS as u64).collect::<Vec<_>>(), "all events, each once");

    assert!(clients - 1 <= 8, "{clients} clients, one of them the test's");
    assert!(scripts <= WINDOW.as_secs(), "{scripts} scripts in {WINDOW:?}");
    assert!(commands <= WINDOW.as_secs(), "{commands} commands, those within scripts included, in {WINDOW:?}");
}
