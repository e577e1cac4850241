//! The bus in memory against raw channels, in the same run.
//!
//! `cargo bench -p s2-benches --bench bus` prints criterion's figures, then a table of ratios to the raw limit and the
//! latency from publish to delivery.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use s2_benches::percentiles;
use s2_coordinator::{
    EventBus, EventType, GroupName, MemoryBus, MemoryStore, NewEvent, Start, Subscribe, Subscription, SwarmId, Topic,
};
use tokio::runtime::{Builder, Runtime};

const TOPIC: Topic = Topic::from_static("bench");
const GROUP: GroupName = GroupName::from_static("workers");
/// Events of one round.
const ROUND: usize = 1000;
const BATCH: usize = 64;
/// What raw channels carry: the payload alone, without envelope, group or ack.
const PAYLOAD: Bytes = Bytes::from_static(b"payload of 16 b.");

fn event() -> NewEvent {
    NewEvent::new(TOPIC, EventType::from_static("bench.tick"), SwarmId::from_static("bench")).with_data(PAYLOAD)
}

fn one_core() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

async fn group() -> (MemoryBus, Subscription) {
    let bus = MemoryStore::new().bus();
    let subscription = bus.subscribe(&Subscribe::new(TOPIC, GROUP).with_prefetch(ROUND)).await.expect("a subscription");
    (bus, subscription)
}

/// Publishes, receives and acks a round, one event at a time.
async fn one_by_one(bus: &MemoryBus, subscription: &Subscription, event: &NewEvent) {
    for _ in 0..ROUND {
        bus.publish(std::slice::from_ref(event)).await.expect("published");
        let delivery = subscription.next().await.expect("no error").expect("open");
        delivery.ack().await.expect("acked");
    }
}

/// Likewise, published and received in batches.
async fn in_batches(bus: &MemoryBus, subscription: &Subscription, events: &[NewEvent]) {
    for _ in 0..ROUND / BATCH {
        bus.publish(events).await.expect("published");
        for delivery in subscription.next_batch(BATCH).await.expect("no error") {
            delivery.ack().await.expect("acked");
        }
    }
}

async fn through_async_channel(sender: &async_channel::Sender<Bytes>, receiver: &async_channel::Receiver<Bytes>) {
    for _ in 0..ROUND {
        sender.send(PAYLOAD).await.expect("sent");
        black_box(receiver.recv().await.expect("received"));
    }
}

async fn through_mpsc(sender: &tokio::sync::mpsc::Sender<Bytes>, receiver: &mut tokio::sync::mpsc::Receiver<Bytes>) {
    for _ in 0..ROUND {
        sender.send(PAYLOAD).await.expect("sent");
        black_box(receiver.recv().await.expect("received"));
    }
}

/// Eight tails read a round each.
async fn to_tails(bus: &MemoryBus, tails: &mut [s2_coordinator::Tail], events: &[NewEvent]) {
    for _ in 0..ROUND / BATCH {
        bus.publish(events).await.expect("published");
        for tail in &mut *tails {
            for _ in 0..BATCH {
                black_box(tail.next().await.expect("no gap").expect("open"));
            }
        }
    }
}

async fn to_broadcast(
    sender: &tokio::sync::broadcast::Sender<Bytes>,
    receivers: &mut [tokio::sync::broadcast::Receiver<Bytes>],
) {
    for _ in 0..ROUND / BATCH {
        for _ in 0..BATCH {
            sender.send(PAYLOAD).expect("sent");
        }
        for receiver in &mut *receivers {
            for _ in 0..BATCH {
                black_box(receiver.recv().await.expect("received"));
            }
        }
    }
}

fn throughput(criterion: &mut Criterion) {
    let runtime = one_core();
    let mut group_bench = criterion.benchmark_group("publish, group, ack");
    group_bench.throughput(Throughput::Elements(ROUND as u64));
    let (bus, subscription) = runtime.block_on(group());
    let (event, events) = (event(), vec![event(); BATCH]);
    group_bench.bench_function("s2, one by one", |bencher| {
        bencher.iter(|| runtime.block_on(one_by_one(&bus, &subscription, &event)));
    });
    group_bench.throughput(Throughput::Elements((ROUND / BATCH * BATCH) as u64));
    group_bench.bench_function("s2, batches of 64", |bencher| {
        bencher.iter(|| runtime.block_on(in_batches(&bus, &subscription, &events)));
    });
    group_bench.throughput(Throughput::Elements(ROUND as u64));
    let (sender, receiver) = async_channel::bounded(ROUND);
    group_bench.bench_function("raw async-channel", |bencher| {
        bencher.iter(|| runtime.block_on(through_async_channel(&sender, &receiver)));
    });
    let (sender, mut receiver) = tokio::sync::mpsc::channel(ROUND);
    group_bench.bench_function("raw tokio mpsc", |bencher| {
        bencher.iter(|| runtime.block_on(through_mpsc(&sender, &mut receiver)));
    });
    group_bench.finish();

    let mut tail_bench = criterion.benchmark_group("tail to 8");
    tail_bench.throughput(Throughput::Elements((8 * (ROUND / BATCH * BATCH)) as u64));
    let bus = MemoryStore::new().bus();
    let mut tails = runtime.block_on(async {
        let mut tails = Vec::new();
        for _ in 0..8 {
            tails.push(bus.tail(&TOPIC, Start::Now).await.expect("a tail"));
        }
        tails
    });
    tail_bench.bench_function("s2", |bencher| {
        bencher.iter(|| runtime.block_on(to_tails(&bus, &mut tails, &events)));
    });
    let (sender, _) = tokio::sync::broadcast::channel(ROUND);
    let mut receivers: Vec<_> = (0..8).map(|_| sender.subscribe()).collect();
    tail_bench.bench_function("raw tokio broadcast", |bencher| {
        bencher.iter(|| runtime.block_on(to_broadcast(&sender, &mut receivers)));
    });
    tail_bench.finish();
}

/// Nanoseconds per event of the fastest of nine runs of `rounds` rounds: the least disturbed one.
fn best(mut round: impl FnMut()) -> f64 {
    const ROUNDS: u32 = 100;
    let run = |round: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| round());
        start.elapsed()
    };
    run(&mut round);
    let fastest = (0..9).map(|_| run(&mut round)).min().unwrap_or(Duration::MAX);
    fastest.as_secs_f64() * 1e9 / f64::from(ROUNDS) / ROUND as f64
}

fn ratios() {
    let runtime = one_core();
    let (bus, subscription) = runtime.block_on(group());
    let (event, events) = (event(), vec![event(); BATCH]);
    let single = best(|| runtime.block_on(one_by_one(&bus, &subscription, &event)));
    let batched = best(|| runtime.block_on(in_batches(&bus, &subscription, &events)));
    let batched = batched * ROUND as f64 / (ROUND / BATCH * BATCH) as f64;
    let (sender, receiver) = async_channel::bounded(ROUND);
    let channel = best(|| runtime.block_on(through_async_channel(&sender, &receiver)));
    let (sender, mut receiver) = tokio::sync::mpsc::channel(ROUND);
    let mpsc = best(|| runtime.block_on(through_mpsc(&sender, &mut receiver)));
    println!("\n| one core, one event through one group | ns per event | events/s | × async-channel |");
    println!("|---|---|---|---|");
    for (name, ns) in [
        ("raw async-channel", channel),
        ("raw tokio mpsc", mpsc),
        ("s2 publish, next, ack one by one", single),
        ("s2 publish and receive by 64, ack each", batched),
    ] {
        println!("| {name} | {ns:.0} | {:.2} M | {:.1} |", 1e3 / ns, ns / channel);
    }
}

/// From publish to delivery at a consumer that waits, the publisher going idle in between: S² and a raw channel.
fn latency(name: &str, runtime: &Runtime) {
    const SAMPLES: usize = 20_000;
    let epoch = Instant::now();
    let stamp = move || u64::try_from(epoch.elapsed().as_nanos()).expect("a short run");
    let since = move |start: u64| Duration::from_nanos(stamp().saturating_sub(start));

    let s2 = runtime.block_on(async move {
        let (bus, subscription) = group().await;
        let consumer = tokio::spawn(async move {
            let mut samples = Vec::with_capacity(SAMPLES);
            while samples.len() < SAMPLES {
                let delivery = subscription.next().await.expect("no error").expect("open");
                let start = u64::from_be_bytes(delivery.event.data[..].try_into().expect("eight bytes"));
                samples.push(since(start));
                delivery.ack().await.expect("acked");
            }
            samples
        });
        let event = event();
        while !consumer.is_finished() {
            bus.publish(&[event.clone().with_data(stamp().to_be_bytes().to_vec())]).await.expect("published");
            pause().await;
        }
        consumer.await.expect("no panic")
    });
    let raw = runtime.block_on(async move {
        let (sender, receiver) = async_channel::bounded::<u64>(ROUND);
        let consumer = tokio::spawn(async move {
            let mut samples = Vec::with_capacity(SAMPLES);
            while samples.len() < SAMPLES {
                samples.push(since(receiver.recv().await.expect("received")));
            }
            samples
        });
        while !consumer.is_finished() {
            let _ = sender.send(stamp()).await;
            pause().await;
        }
        consumer.await.expect("no panic")
    });
    let ((raw50, raw99), (s50, s99)) = (percentiles(raw), percentiles(s2));
    println!("| {name}, raw async-channel | {raw50:.1} | {raw99:.1} |");
    println!("| {name}, s2 | {s50:.1} ({:.1}×) | {s99:.1} ({:.1}×) |", s50 / raw50, s99 / raw99);
}

/// Lets the consumer finish and wait again.
async fn pause() {
    tokio::time::sleep(Duration::from_micros(20)).await;
}

fn latencies() {
    println!("\n| publish → delivery at a waiting consumer | p50 µs | p99 µs |");
    println!("|---|---|---|");
    latency("one thread", &one_core());
    let two = Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime");
    latency("two threads, asleep", &two);
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .configure_from_args();
    throughput(&mut criterion);
    criterion.final_summary();
    if std::env::args().any(|argument| argument == "--bench") {
        ratios();
        latencies();
    }
}
