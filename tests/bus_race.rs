//! Many threads, real time, short deadlines: consumers that crash, dawdle, give back, extend and commit at once. Whatever
//! happens, each event has its effect once, and nothing is left behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use s2_coordinator::{
    Config, DeadLetters, Delivery, Error, EventBus, EventType, GroupName, MemoryBus, MemoryStore, NewEvent, Random,
    Start, Subscribe, SwarmId, Topic,
};
use s2_tests::counts;

const INPUTS: Topic = Topic::from_static("inputs");
const OUTPUTS: Topic = Topic::from_static("outputs");
const GROUP: GroupName = GroupName::from_static("group");
const DEADLINE: Duration = Duration::from_millis(20);
const WORKERS: usize = 16;

fn event(topic: Topic, n: usize) -> NewEvent {
    NewEvent::new(topic, EventType::from_static("race"), SwarmId::from_static("race")).with_data(n.to_string())
}

fn number(data: &[u8]) -> usize {
    std::str::from_utf8(data).expect("a number").parse().expect("a number")
}

/// What a worker does with a delivery; answers whether it goes on with its subscription.
async fn handle(delivery: &Delivery, chance: u128) -> Result<bool, Error> {
    let output = [event(OUTPUTS, number(&delivery.event.data))];
    match chance % 20 {
        0 => return Ok(false), // crashes
        1 => drop(delivery.nack(Duration::from_millis(1)).await),
        2 => tokio::time::sleep(DEADLINE + Duration::from_millis(5)).await, // dawdles, and then says nothing
        3 => {
            tokio::time::sleep(DEADLINE).await;
            // Too late or just in time: refused, or it counts.
            drop(delivery.commit(&output).await);
        }
        4 => {
            delivery.extend(2 * DEADLINE).await.map(drop).or_else(stale)?;
            tokio::time::sleep(DEADLINE).await;
            delivery.commit(&output).await.map(drop).or_else(stale)?;
        }
        5 => {
            let (one, two) = tokio::join!(delivery.commit(&output), delivery.commit(&output));
            assert_eq!(one.is_ok(), two.is_ok(), "a repeat is answered alike");
        }
        _ => delivery.commit(&output).await.map(drop).or_else(stale)?,
    }
    Ok(true)
}

/// On a busy machine any delivery may turn out stale; nothing else may go wrong.
fn stale(error: Error) -> Result<(), Error> {
    if matches!(error, Error::StaleDelivery { .. }) { Ok(()) } else { Err(error) }
}

async fn work(bus: MemoryBus, seed: u64, done: Arc<AtomicUsize>, events: usize) -> Result<(), Error> {
    let mut random = Random::from_seed(seed);
    while done.load(Ordering::Relaxed) < events {
        let prefetch = 1 + usize::try_from(random.bits() % 4).unwrap_or(0);
        let subscription = bus.subscribe(&Subscribe::new(INPUTS, GROUP).with_prefetch(prefetch)).await?;
        // Waits are dropped half way, too.
        while let Ok(delivery) = tokio::time::timeout(DEADLINE, subscription.next()).await {
            let Some(delivery) = delivery? else { return Ok(()) };
            if !handle(&delivery, random.bits()).await? {
                break;
            }
        }
        done.store(outputs(&bus).await?, Ordering::Relaxed);
    }
    Ok(())
}

async fn outputs(bus: &MemoryBus) -> Result<usize, Error> {
    let end = bus.read(&OUTPUTS, Start::Now, 1).await?.next;
    Ok(usize::try_from(end.get()).expect("a small number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_event_has_its_effect_once_whatever_its_consumers_do() {
    let events = counts(2_000, 40_000) as usize;
    let mut config = Config::default();
    config.ack_timeout = DEADLINE;
    config.deliveries = 100;
    let store = MemoryStore::builder().with_config(config).build().expect("a valid configuration");
    let bus = store.bus();
    drop(bus.subscribe(&Subscribe::new(INPUTS, GROUP)).await.expect("a group"));
    let done = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..WORKERS as u64 {
        tasks.spawn(work(store.bus(), seed, Arc::clone(&done), events));
    }
    for n in (0..events).step_by(100) {
        let batch: Vec<NewEvent> = (n..n + 100).map(|n| event(INPUTS, n)).collect();
        bus.publish(&batch).await.expect("published");
        tokio::task::yield_now().await;
    }
    let finished = tokio::time::timeout(Duration::from_secs(300), tasks.join_all()).await.expect("workers finish");
    finished.into_iter().for_each(|worked| worked.expect("only stale deliveries are refused"));

    let mut numbers = Vec::new();
    let mut start = Start::Beginning;
    loop {
        let page = bus.read(&OUTPUTS, start, 500).await.expect("read");
        if page.items.is_empty() {
            break;
        }
        start = Start::After(page.next);
        numbers.extend(page.items.iter().map(|event| number(&event.data)));
    }
    assert_eq!(numbers.len(), events, "an effect is missing or there twice");
    assert_eq!(BTreeSet::from_iter(numbers), (0..events).collect());
    assert!(bus.dead_letters(&DeadLetters::all()).await.expect("letters").is_empty());
    let group = &bus.groups(&INPUTS).await.expect("groups")[0];
    assert_eq!((group.in_flight, group.returning, group.backlog, group.consumers), (0, 0, 0, 0));
}
