//! Builds finish, and reporters in processes of their own write reports. One of them is killed in the middle of its work;
//! another notices, and each build has one report all the same.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use s2_coordinator::{
    Config, ConsumerName, EventBus, EventType, GroupName, Journal, NewEvent, Position, RedisStore, Start, Subscribe,
    SwarmId, Topic,
};
use s2_examples::workers::{Worker, end_with_parent};

const BUILDS: Topic = Topic::from_static("builds");
const REPORTS: Topic = Topic::from_static("reports");
const REPORTERS: GroupName = GroupName::from_static("reporters");
const COUNT: usize = 400;

async fn connect(url: &str, fleet: SwarmId) -> Result<RedisStore, Box<dyn Error>> {
    let mut config = Config::default();
    // A reporter needs a moment; one that is killed should not hold up a demonstration for half a minute.
    config.ack_timeout = Duration::from_secs(2);
    Ok(RedisStore::builder(fleet).with_config(config).connect(url).await?)
}

fn fleet() -> Result<SwarmId, Box<dyn Error>> {
    Ok(SwarmId::new(super::option("--fleet").ok_or("--fleet is missing")?)?)
}

/// A reporter: takes builds in small batches and writes a report of each, until it is killed or whoever has started it is gone.
pub(crate) async fn work(url: &str, name: &str) -> Result<(), Box<dyn Error>> {
    end_with_parent();
    let bus = connect(url, fleet()?).await?.bus();
    let how = Subscribe::new(BUILDS, REPORTERS).with_consumer(ConsumerName::new(name)?);
    let builds = bus.subscribe(&how).await?;
    let source = SwarmId::new(format!("reporters/{name}"))?;
    loop {
        for delivery in builds.next_batch(8).await? {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let report = NewEvent::new(REPORTS, EventType::from_static("report.written"), source.clone())
                .with_data(delivery.event.data.clone())
                .with_header("attempt".parse()?, delivery.attempt.to_string());
            // The report exists if and only if the build is done: one step.
            delivery.commit(&[report]).await?;
        }
    }
}

/// Starts reporters, publishes builds, kills a reporter, and looks at what came of it.
pub(crate) async fn lead(url: &str) -> Result<(), Box<dyn Error>> {
    // Each run is a fleet of its own.
    let fleet = SwarmId::new(format!("example-{}", std::process::id()))?;
    let store = connect(url, fleet.clone()).await?;
    let bus = store.bus();

    println!("1. Three reporters start, each a process of its own.");
    let names = ["ada", "grace", "edsger"];
    let mut workers = names.map(|name| Worker::start(url, fleet.as_str(), name));
    for (name, worker) in names.iter().zip(&workers) {
        println!("   {name}: process {}", worker.as_ref().map_err(ToString::to_string)?.id());
    }

    println!("2. {COUNT} builds finish.");
    let begun = Instant::now();
    let finished = |number| {
        NewEvent::new(BUILDS, EventType::from_static("build.finished"), SwarmId::from_static("ci/linux"))
            .with_data(format!("build {number}"))
    };
    for batch in (0..COUNT).collect::<Vec<_>>().chunks(50) {
        bus.publish(&batch.iter().map(finished).collect::<Vec<_>>()).await?;
    }

    println!("3. Grace is killed with builds in her hands; what she held comes back after 2 s.");
    let mut seen = bus.tail(&REPORTS, Start::Beginning).await?;
    let mut reports = Vec::new();
    while reports.len() < COUNT {
        reports.push(seen.next().await?.ok_or("the bus is closed")?);
        if reports.len() == COUNT / 4 {
            workers[1].as_mut().map_err(|error| error.to_string())?.kill()?;
        }
    }

    println!("4. Every build has one report, {:.1} s after the first was published.", begun.elapsed().as_secs_f64());
    let mut by: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for report in &reports {
        let (count, again) = by.entry(report.source.to_string()).or_default();
        *count += 1;
        *again += usize::from(report.header("attempt").is_some_and(|attempt| attempt.as_str() != "1"));
    }
    for (name, (count, again)) in by {
        println!("   {name}: {count} reports, {again} of them of builds that somebody else had held");
    }
    let mut builds: Vec<_> = reports.iter().map(|report| report.data.clone()).collect();
    builds.sort();
    builds.dedup();
    assert_eq!(builds.len(), COUNT, "a report is missing or there twice");
    drop(workers);

    println!("5. The journal, which all processes share:");
    for entry in store.journal().entries(Position::ORIGIN, 10).await?.items {
        println!("   {}", entry.to_json());
    }
    Ok(bus.close().await?)
}
