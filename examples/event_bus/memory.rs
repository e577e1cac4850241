//! A day in the life of an event: published, lost in a crash, delivered again, poisonous, redriven, replayed.
//!
//! Minutes pass in a moment: the fleet runs on a clock that the example moves by hand. Everything that is printed is what
//! the bus answered.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::{
    AttemptEnd, Clock, ConsumerName, DeadLetters, EventBus, EventBusExt, EventType, GroupName, IdempotencyKey,
    ManualClock, MemoryStore, NewEvent, Position, Settled, Start, Subscribe, SwarmId, Timestamp, Topic,
    export_json_lines,
};

const BUILDS: Topic = Topic::from_static("builds");
const REPORTS: Topic = Topic::from_static("reports");
const FINISHED: EventType = EventType::from_static("build.finished");
const REPORTED: EventType = EventType::from_static("report.written");
const REPORTERS: GroupName = GroupName::from_static("reporters");
const CI: SwarmId = SwarmId::from_static("ci/linux");

fn build(number: u32) -> NewEvent {
    let key = IdempotencyKey::new(format!("build-{number}")).expect("a key");
    NewEvent::new(BUILDS, FINISHED, CI).with_data(format!("build {number}")).with_idempotency_key(key)
}

fn reporter(name: &'static str) -> Subscribe {
    Subscribe::new(BUILDS, REPORTERS).with_consumer(ConsumerName::from_static(name))
}

fn text(data: &[u8]) -> &str {
    std::str::from_utf8(data).unwrap_or("(not text)")
}

pub(crate) async fn run() -> Result<(), Box<dyn Error>> {
    let clock = Arc::new(ManualClock::new("2025-11-12T09:00:00Z".parse::<Timestamp>()?));
    let store = MemoryStore::builder().with_clock(Arc::clone(&clock)).build()?;
    let bus = store.bus();

    println!("1. Publish. The second time is recognized by its key.");
    for attempt in [1, 2] {
        let published = bus.publish_one(&build(1)).await?;
        println!("   attempt {attempt}: position {}, duplicate: {}", published.position, published.duplicate);
    }
    bus.publish(&[build(2), build(3)]).await?;

    println!("2. Crash. A reporter takes build 1 and dies with it.");
    let doomed = bus.subscribe(&reporter("doomed")).await?;
    let taken = doomed.next().await?.ok_or("the bus is closed")?;
    println!("   doomed has {:?}, attempt {}", text(&taken.event.data), taken.attempt);
    drop((doomed, taken));

    println!("3. Redelivery. Another one gets the rest at once, and build 1 when its 30 s are over.");
    let steady = bus.subscribe(&reporter("steady")).await?;
    while let Some(delivery) = steady.try_next().await? {
        println!("   steady has {:?}, attempt {}", text(&delivery.event.data), delivery.attempt);
        // The report exists if and only if the build is done: one step.
        let report = NewEvent::new(REPORTS, REPORTED, SwarmId::new("reporters/steady")?);
        delivery.commit(&[report.with_data(delivery.event.data.clone())]).await?;
        if delivery.event.position.get() == 3 {
            clock.advance(Duration::from_secs(30));
        }
    }

    println!("4. Poison. Build 4 crashes every reporter; after five attempts the group gives up on it.");
    bus.publish(&[build(4), build(5)]).await?;
    for attempt in 1..=5 {
        let crashing = bus.subscribe(&reporter("crashing")).await?;
        let delivery = crashing.next().await?.ok_or("the bus is closed")?;
        assert_eq!((delivery.attempt, text(&delivery.event.data)), (attempt, "build 4"));
        drop(crashing);
        clock.advance(Duration::from_secs(30));
    }
    let letters = bus.dead_letters(&DeadLetters::all()).await?;
    for letter in &letters {
        let crashes = letter.history.iter().filter(|attempt| attempt.end == AttemptEnd::Lost).count();
        println!("   dead letter {}: {:?} after {crashes} crashes", letter.id, text(&letter.event.data));
    }
    let neighbour = steady.next().await?.ok_or("the bus is closed")?;
    println!("   its neighbour {:?} is at attempt {}", text(&neighbour.event.data), neighbour.attempt);
    neighbour.ack().await?;

    println!("5. Redrive. The bug is fixed; the dead letter runs once more, however often it is asked for.");
    for _ in 0..2 {
        for redriven in bus.redrive(&DeadLetters::one(letters[0].id)).await? {
            println!("   dead letter {}: duplicate: {}", redriven.id, redriven.duplicate);
        }
    }
    let back = steady.next().await?.ok_or("the bus is closed")?;
    println!("   steady has {:?}, attempt {}", text(&back.event.data), back.attempt);
    match back.retry("the disk is full").await? {
        Settled::Retrying(at) => println!("   given back, due again after {:?}", at.since(clock.now())),
        other => println!("   {other:?}"),
    }
    clock.advance(Duration::from_secs(1));
    steady.next().await?.ok_or("the bus is closed")?.ack().await?;

    println!("6. Replay. What is settled is still there to read.");
    let builds = bus.read(&BUILDS, Start::Beginning, 100).await?.items;
    let reports = bus.read(&REPORTS, Start::Beginning, 100).await?.items;
    println!("   {} builds, {} reports; the first as a CloudEvent:", builds.len(), reports.len());
    println!("   {}", builds[0].to_json());

    println!("7. Journal. What changed, as JSON Lines:");
    let mut lines = Vec::new();
    export_json_lines(&store.journal(), Position::ORIGIN, &mut lines).await?;
    for line in String::from_utf8(lines)?.lines() {
        println!("   {line}");
    }

    bus.close().await?;
    assert!(steady.next().await?.is_none());
    Ok(())
}
