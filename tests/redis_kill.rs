//! Kill test: processes that publish and handle events, and their server, are killed, stopped, paused and cut off while
//! they work. Whatever happens, what was acknowledged is there once, and so is each effect that was committed.
//!
//! The faults are drawn at random; `S2_SEED` draws those of an earlier run again.

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use s2_coordinator::{
    Config, DeadLetters, Delivery, Error, Event, EventBus, EventBusExt, EventType, Group, GroupName, IdempotencyKey,
    NewEvent, Random, RedisBus, Retention, Start, Subscribe, Subscription, SwarmId, Topic,
};
use s2_tests::chaos::{Chaos, RECOVERY, TICK, Tally, again, below, connect, enough, given, is_away, seed};
use s2_tests::counts;
use s2_tests::servers::RedisServer;
use s2_tests::workers::is_worker;
use tokio::task::JoinSet;

const INPUTS: Topic = Topic::from_static("inputs");
const OUTPUTS: Topic = Topic::from_static("outputs");
/// The first event ends the producers, the second the consumers.
const ENOUGH: Topic = Topic::from_static("enough");
const GROUP: GroupName = GroupName::from_static("workers");
const FLEET: SwarmId = SwarmId::from_static("kill");

const PRODUCERS: usize = 2;
const CONSUMERS: usize = 4;
/// Producers pause while more than so many events wait to be handled.
const BACKLOG: u64 = 500;
const ACK_TIMEOUT: Duration = Duration::from_secs(2);

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

// What all processes have in common.

fn config() -> Config {
    let mut config = Config::default();
    config.ack_timeout = ACK_TIMEOUT;
    config.deliveries = 100;
    // Nothing is dropped before the judge has seen it.
    config.topics = Retention { bytes: 1 << 30, age: None };
    config
}

fn event(topic: Topic, data: String) -> NewEvent {
    NewEvent::new(topic, EventType::from_static("kill"), FLEET).with_data(data)
}

fn numbers(event: &Event) -> Outcome<Vec<u64>> {
    Ok(std::str::from_utf8(&event.data)?.split(' ').map(str::parse).collect::<Result<_, _>>()?)
}

async fn group(bus: &RedisBus) -> Result<Group, Error> {
    let topic = INPUTS;
    let groups = again(|| bus.groups(&topic)).await?;
    groups.into_iter().next().ok_or(Error::UnknownGroup { topic, group: GROUP })
}

// A producer.

/// A worker's main: publishes until it is enough, and says what was acknowledged.
#[tokio::test]
#[ignore = "a worker of the test in this file"]
async fn producer() {
    if is_worker()
        && let Err(error) = produce().await
    {
        println!("broken {error:?}");
    }
}

async fn produce() -> Outcome {
    let (mut random, mut next) = (Random::from_seed(given("SEED")?), given("FIRST")?);
    let store = connect(&env::var("URL")?, &FLEET, &config(), below(&mut random, 4) > 0).await?;
    let (bus, enough) = (store.bus(), enough(&store, &ENOUGH, 1).await?);
    while !enough.is_finished() {
        // Rather many calls than large ones: it is calls that lose their answers.
        let most = 1 + below(&mut random, 20);
        let batch = next..next + 1 + below(&mut random, most);
        next = batch.end;
        publish(&bus, &batch, random.bits()).await?;
        while batch.start.is_multiple_of(8) && group(&bus).await?.backlog > BACKLOG {
            tokio::time::sleep(5 * TICK).await;
        }
    }
    Ok(enough.await??)
}

async fn publish(bus: &RedisBus, batch: &Range<u64>, chance: u128) -> Outcome {
    let keyed = chance.is_multiple_of(2);
    let events: Result<Vec<_>, Error> = batch.clone().map(|number| input(number, batch, keyed)).collect();
    let events = events?;
    let published = match bus.publish(&events).await {
        Err(error) if is_away(&error) && keyed => again(|| bus.publish(&events)).await?,
        Err(error) if is_away(&error) => {
            // It may or may not have happened. Without keys, another call would be another batch.
            println!("unsure");
            return Ok(());
        }
        published => published?,
    };
    println!("acked {} {}", batch.start, batch.end);
    if chance.is_multiple_of(16) {
        let repeated = again(|| bus.publish(&events)).await?;
        let alike = published.iter().zip(&repeated).all(|(first, repeat)| repeat.duplicate && repeat.id == first.id);
        return alike.then_some(()).ok_or_else(|| format!("{published:?}, and then {repeated:?}").into());
    }
    Ok(())
}

/// An event that says its number and that of its batch.
fn input(number: u64, batch: &Range<u64>, keyed: bool) -> Result<NewEvent, Error> {
    let event = event(INPUTS, format!("{number} {} {}", batch.start, batch.end));
    let key = IdempotencyKey::new(format!("input-{number}"))?;
    Ok(if keyed { event.with_idempotency_key(key) } else { event })
}

// A consumer.

/// A worker's main: commits an output for each input until it is enough, and says so.
#[tokio::test]
#[ignore = "a worker of the test in this file"]
async fn consumer() {
    if is_worker()
        && let Err(error) = consume().await
    {
        println!("broken {error:?}");
    }
}

async fn consume() -> Outcome {
    let mut random = Random::from_seed(given("SEED")?);
    let store = connect(&env::var("URL")?, &FLEET, &config(), below(&mut random, 4) > 0).await?;
    let (bus, mut enough) = (store.bus(), enough(&store, &ENOUGH, 2).await?);
    let how = Subscribe::new(INPUTS, GROUP);
    loop {
        let subscription = again(|| bus.subscribe(&how)).await?;
        tokio::select! {
            ended = &mut enough => break Ok(ended??),
            worked = work(&subscription, &mut random) => worked?,
        }
    }
}

/// Works with one subscription for a while.
async fn work(subscription: &Subscription, random: &mut Random) -> Outcome {
    // Some wait through anything; others drop their waits half way.
    let patience = if below(random, 2) == 0 { Duration::from_secs(5) } else { Duration::from_millis(50) };
    for _ in 0..50 {
        let max = 1 + usize::try_from(below(random, 10))?;
        let deliveries = match tokio::time::timeout(patience, subscription.next_batch(max)).await {
            Ok(Err(error)) if is_away(&error) => continue,
            Ok(deliveries) => deliveries?,
            Err(_) => continue,
        };
        let mut handling = JoinSet::new();
        for delivery in deliveries {
            let chance = below(random, 50);
            handling.spawn(async move { handle(&delivery, chance).await });
        }
        while let Some(handled) = handling.join_next().await {
            println!("{}", handled??);
        }
    }
    Ok(())
}

/// Handles a delivery; answers what became of it.
async fn handle(delivery: &Delivery, chance: u64) -> Outcome<&'static str> {
    let number = numbers(&delivery.event)?[0];
    let output = [event(OUTPUTS, number.to_string())];
    match chance {
        0 => return Ok("held"),
        1..=3 => return after(again(|| delivery.nack(Duration::ZERO)).await, "returned"),
        4..=6 => _ = after(again(|| delivery.extend(ACK_TIMEOUT)).await, "extended")?,
        _ => {}
    }
    after(again(|| delivery.commit(&output)).await, "done")
}

/// While processes stand still any delivery may turn out stale; nothing else may go wrong.
fn after<T>(settled: Result<T, Error>, done: &'static str) -> Outcome<&'static str> {
    match settled {
        Ok(_) => Ok(done),
        Err(Error::StaleDelivery { .. } | Error::NotRetained { .. }) => Ok("stale"),
        Err(error) => Err(error.into()),
    }
}

// The judge.

/// An event of the inputs: where it is, its number, and the numbers of its batch.
type Input = (u64, u64, Range<u64>);

/// What is there in the end.
#[derive(Clone, Default)]
struct Evidence {
    /// The numbers of batches that were acknowledged.
    acked: Vec<Range<u64>>,
    inputs: Vec<Input>,
    /// The events of the outputs: where each is, and the number of its input.
    outputs: Vec<(u64, u64)>,
    letters: usize,
}

impl Evidence {
    async fn collect(bus: &RedisBus, acked: Vec<Range<u64>>) -> Outcome<Self> {
        let mut evidence = Self { acked, ..Self::default() };
        for event in read_all(bus, &INPUTS).await? {
            let [number, first, end] = numbers(&event)?[..] else { return Err("no input".into()) };
            evidence.inputs.push((event.position.get(), number, first..end));
        }
        for event in read_all(bus, &OUTPUTS).await? {
            evidence.outputs.push((event.position.get(), numbers(&event)?[0]));
        }
        evidence.letters = bus.dead_letters(&DeadLetters::all()).await?.len();
        Ok(evidence)
    }

    /// What is wrong.
    fn judge(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let inputs = occurrences(self.inputs.iter().map(|(_, number, _)| *number));
        let outputs = occurrences(self.outputs.iter().map(|(_, number)| *number));
        wrong.extend(gap(self.inputs.iter().map(|(position, ..)| *position)).map(|gap| format!("inputs: {gap}")));
        wrong.extend(gap(self.outputs.iter().map(|(position, _)| *position)).map(|gap| format!("outputs: {gap}")));
        let lost = self.acked.iter().cloned().flatten().filter(|number| !inputs.contains_key(number));
        wrong.extend(lost.map(|number| format!("input {number} was acknowledged and is not there")));
        for batch in self.inputs.chunk_by(|(.., one), (.., next)| one == next) {
            if !batch.iter().map(|(_, number, _)| *number).eq(batch[0].2.clone()) {
                wrong.push(format!("a batch is not there as a whole: {batch:?}"));
            }
        }
        for (number, times) in &inputs {
            let effects = outputs.get(number).copied().unwrap_or(0);
            if (*times, effects) != (1, 1) {
                let at: Vec<u64> = self.inputs.iter().filter(|(_, one, _)| one == number).map(|(at, ..)| *at).collect();
                let out: Vec<u64> = self.outputs.iter().filter(|(_, one)| one == number).map(|(at, _)| *at).collect();
                let places = format!("at {at:?}, and at {out:?}");
                wrong.push(format!("input {number} is there {times} times, its output {effects} times: {places}"));
            }
        }
        let stray = outputs.keys().filter(|number| !inputs.contains_key(number));
        wrong.extend(stray.map(|number| format!("output {number} has no input")));
        wrong.extend((self.letters > 0).then(|| format!("{} dead letters", self.letters)));
        wrong
    }
}

fn occurrences(numbers: impl Iterator<Item = u64>) -> BTreeMap<u64, usize> {
    let mut times = BTreeMap::new();
    numbers.for_each(|number| *times.entry(number).or_default() += 1);
    times
}

fn gap(positions: impl Iterator<Item = u64>) -> Option<String> {
    let (expected, found) = (1..).zip(positions).find(|(expected, found)| expected != found)?;
    Some(format!("position {found} where {expected} should be"))
}

async fn read_all(bus: &RedisBus, topic: &Topic) -> Result<Vec<Arc<Event>>, Error> {
    let (mut events, mut start) = (Vec::new(), Start::Beginning);
    loop {
        let page = bus.read(topic, start, 500).await?;
        if page.items.is_empty() {
            break Ok(events);
        }
        start = Start::After(page.next);
        events.extend(page.items);
    }
}

#[test]
fn the_judge_sees_what_is_wrong() {
    // Three batches, the last one not acknowledged.
    let input = |position: u64, batch: Range<u64>| (position, position + 9, batch);
    let inputs = vec![input(1, 10..12), input(2, 10..12), input(3, 12..13), input(4, 13..14)];
    let outputs = vec![(1, 11), (2, 10), (3, 13), (4, 12)];
    let good = Evidence { acked: vec![12..13, 10..12], inputs, outputs, letters: 0 };
    assert_eq!(good.judge(), [""; 0]);

    let check = |spoil: fn(&mut Evidence), wrong: &[&str]| {
        let mut evidence = good.clone();
        spoil(&mut evidence);
        let said = evidence.judge();
        assert!(
            said.len() == wrong.len() && said.iter().zip(wrong).all(|(said, part)| said.contains(part)),
            "{said:?}"
        );
    };
    check(|bad| bad.acked.push(20..21), &["input 20 was acknowledged and is not there"]);
    check(|bad| bad.inputs.push((5, 13, 13..14)), &["not there as a whole", "input 13 is there 2 times"]);
    let twice: fn(&mut Evidence) = |bad| bad.inputs.extend([(5, 10, 10..12), (6, 11, 10..12)]);
    check(twice, &["input 10 is there 2 times", "input 11 is there 2 times"]);
    check(|bad| _ = bad.outputs.pop(), &["input 12 is there 1 times, its output 0 times"]);
    check(|bad| bad.outputs.push((5, 12)), &["input 12 is there 1 times, its output 2 times"]);
    check(|bad| bad.outputs.push((5, 14)), &["output 14 has no input"]);
    check(|bad| bad.inputs.push((5, 14, 14..16)), &["not there as a whole", "input 14 is there 1 times, its output 0"]);
    check(|bad| bad.inputs[3].0 = 5, &["inputs: position 5 where 4 should be"]);
    check(|bad| bad.outputs.iter_mut().for_each(|output| output.0 += 1), &["outputs: position 2 where 1 should be"]);
    check(|bad| bad.letters = 1, &["1 dead letters"]);
}

/// Waits until a group is as it should be.
async fn until(bus: &RedisBus, what: &str, so: impl Fn(&Group) -> bool) {
    let deadline = Instant::now() + RECOVERY;
    loop {
        let group = group(bus).await.expect("the group");
        if so(&group) {
            return;
        }
        assert!(Instant::now() < deadline, "after {RECOVERY:?} the group is not {what}: {group:?}");
        tokio::time::sleep(TICK).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_effect_exists_once_whoever_is_killed() {
    let seed = seed();
    let server = RedisServer::start();
    let bus = connect(&server.url(), &FLEET, &config(), false).await.expect("a fleet").bus();
    drop(bus.subscribe(&Subscribe::new(INPUTS, GROUP)).await.expect("a group"));

    let begun = Instant::now();
    let mut chaos = Chaos::new(&server, seed, ("producer", PRODUCERS), ("consumer", CONSUMERS));
    chaos.rage(counts(20, 200));
    let raged = begun.elapsed();
    bus.publish_one(&event(ENOUGH, "producers".to_owned())).await.expect("published");
    chaos.end("producer");
    until(&bus, "done", |group| (group.in_flight, group.returning, group.backlog) == (0, 0, 0)).await;
    let worked = begun.elapsed();
    bus.publish_one(&event(ENOUGH, "consumers".to_owned())).await.expect("published");
    chaos.end("consumer");
    until(&bus, "left by all", |group| group.consumers == 0).await;

    let acked: usize = chaos.acked.iter().map(|batch| usize::try_from(batch.end - batch.start).expect("a few")).sum();
    let evidence = Evidence::collect(&bus, std::mem::take(&mut chaos.acked)).await.expect("evidence");
    let (inputs, outputs) = (evidence.inputs.len(), evidence.outputs.len());
    for (fault, Tally { faults, recovery }) in &chaos.tallies {
        let recovery = recovery.map_or("-".to_owned(), |recovery| format!("{recovery:.1?}"));
        println!("{faults:4} x {fault:?}; something was done again within {recovery}");
    }
    println!("{inputs} events published, {acked} acknowledged, {outputs} outputs; workers said {:?}", chaos.said);
    let rate = f64::from(u32::try_from(outputs).expect("not so many")) / worked.as_secs_f64();
    println!("{rate:.0} events/s; faults for {raged:.1?}, all settled after {:.1?} more", worked - raged);
    let wrong = evidence.judge();
    assert!(
        wrong.is_empty(),
        "{} things are wrong (S2_SEED={seed}): {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(20)]
    );
}
