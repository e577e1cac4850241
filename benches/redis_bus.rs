//! The event bus on Redis against raw Redis Streams, on a server of its own, in the same run.
//!
//! `cargo bench -p s2-benches --bench redis_bus`. Raw means the `redis` crate and nothing else: XADD, XREADGROUP BLOCK and
//! XACK, pipelined where S² takes a batch. Rounds of both alternate; what is printed are medians of the rounds.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, Value};
use s2_benches::{cpu, median, percentiles};
use s2_coordinator::{
    Delivery, EventBus, EventBusExt, EventType, GroupName, NewEvent, RedisBus, RedisStore, Subscribe, Subscription,
    SwarmId, Topic,
};
use s2_tests::servers::RedisServer;

const GROUP: GroupName = GroupName::from_static("workers");
const BATCH: usize = 64;
/// What agents tell each other is a sentence or two.
const PAYLOAD: usize = 200;
const ROUNDS: usize = 7;
const LATENCIES: usize = 2_000;
const BATCHES: usize = 150;

/// What one round of one contestant came to.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    p50: f64,
    p99: f64,
    publish: f64,
    consume: f64,
    /// Microseconds of the server's CPU for each event that is published, delivered and acked in batches.
    cpu: f64,
}

struct Raw {
    writer: MultiplexedConnection,
    reader: MultiplexedConnection,
    nth: usize,
}

impl Raw {
    async fn new(server: &RedisServer) -> Self {
        let client = Client::open(server.url()).expect("a URL");
        let info = client.get_connection_info().clone();
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let client = Client::open(info.set_tcp_settings(tcp)).expect("a URL");
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connect = || client.get_multiplexed_async_connection_with_config(&config);
        Self { writer: connect().await.expect("a server"), reader: connect().await.expect("a server"), nth: 0 }
    }

    async fn stream(&mut self) -> String {
        self.nth += 1;
        let stream = format!("raw-{}", self.nth);
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(&stream).arg("workers").arg("$").arg("MKSTREAM");
        create.query_async::<Value>(&mut self.writer).await.expect("a group");
        stream
    }

    async fn latencies(&mut self) -> Vec<Duration> {
        let (stream, data) = (self.stream().await, vec![b'x'; PAYLOAD]);
        let (sent, mut send) = tokio::sync::mpsc::channel::<Instant>(1);
        let (done, mut received) = tokio::sync::mpsc::channel::<()>(1);
        let mut reader = self.reader.clone();
        let key = stream.clone();
        let consumer = tokio::spawn(async move {
            let mut latencies = Vec::with_capacity(LATENCIES);
            for _ in 0..LATENCIES {
                let answer = read(&mut reader, &key, 1, true).await;
                let at = Instant::now();
                let sent: Instant = send.recv().await.expect("sent");
                latencies.push(at.duration_since(sent));
                ack(&mut reader, &key, &ids(&answer)).await;
                done.send(()).await.expect("there");
            }
            latencies
        });
        for _ in 0..LATENCIES {
            tokio::time::sleep(Duration::from_micros(200)).await;
            let at = Instant::now();
            let mut add = redis::cmd("XADD");
            add.arg(&stream).arg("*").arg("d").arg(&data);
            add.query_async::<Value>(&mut self.writer).await.expect("added");
            sent.send(at).await.expect("there");
            received.recv().await.expect("received");
        }
        consumer.await.expect("no panic")
    }

    async fn batches(&mut self, server: &RedisServer) -> (f64, f64, f64) {
        let (stream, data) = (self.stream().await, vec![b'x'; PAYLOAD]);
        let (mut publish, mut consume, cpu) = (Duration::ZERO, Duration::ZERO, cpu(server));
        for _ in 0..BATCHES {
            let begun = Instant::now();
            let mut pipeline = Pipeline::with_capacity(BATCH);
            for _ in 0..BATCH {
                pipeline.cmd("XADD").arg(&stream).arg("*").arg("d").arg(&data);
            }
            let ids: Vec<Value> = pipeline.query_async(&mut self.writer).await.expect("added");
            assert_eq!(ids.len(), BATCH);
            publish += begun.elapsed();
            let begun = Instant::now();
            let answer = read(&mut self.reader, &stream, BATCH, false).await;
            ack(&mut self.reader, &stream, &self::ids(&answer)).await;
            consume += begun.elapsed();
        }
        rates(publish, consume, self::cpu(server) - cpu)
    }
}

async fn read(connection: &mut MultiplexedConnection, stream: &str, count: usize, block: bool) -> Value {
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg("workers").arg("one").arg("COUNT").arg(count);
    if block {
        read.arg("BLOCK").arg(0);
    }
    read.arg("STREAMS").arg(stream).arg(">");
    read.query_async(connection).await.expect("read")
}

/// The ids of what was read: `[[stream, [[id, fields], …]]]`.
fn ids(answer: &Value) -> Vec<Vec<u8>> {
    let list = |value: &Value| if let Value::Array(list) = value { list.clone() } else { Vec::new() };
    let entries = list(answer).first().and_then(|stream| list(stream).get(1).map(&list)).unwrap_or_default();
    let id = |entry: &Value| match list(entry).first() {
        Some(Value::BulkString(id)) => id.clone(),
        other => panic!("no id: {other:?}"),
    };
    entries.iter().map(id).collect()
}

async fn ack(connection: &mut MultiplexedConnection, stream: &str, ids: &[Vec<u8>]) {
    let mut ack = redis::cmd("XACK");
    ack.arg(stream).arg("workers").arg(ids);
    let acked: usize = ack.query_async(connection).await.expect("acked");
    assert_eq!(acked, ids.len());
}

struct Ours {
    writer: RedisBus,
    reader: RedisBus,
    nth: usize,
    keyed: bool,
}

impl Ours {
    async fn new(server: &RedisServer, fleet: &'static str, keyed: bool) -> Self {
        let url = server.url();
        let connect = || RedisStore::connect(&url, SwarmId::from_static(fleet));
        let (writer, reader) = (connect().await.expect("a fleet").bus(), connect().await.expect("a fleet").bus());
        Self { writer, reader, nth: 0, keyed }
    }

    async fn subscription(&mut self) -> (Topic, Subscription) {
        self.nth += 1;
        let topic = Topic::new(format!("topic-{}", self.nth)).expect("a name");
        let subscription = self.reader.subscribe(&Subscribe::new(topic.clone(), GROUP)).await.expect("subscribed");
        (topic, subscription)
    }

    fn event(&self, topic: &Topic, nth: usize) -> NewEvent {
        let source = SwarmId::from_static("telephony/sip");
        let event =
            NewEvent::new(topic.clone(), EventType::from_static("call.placed"), source).with_data(vec![b'x'; PAYLOAD]);
        let key = || format!("call-{}-{nth}", self.nth).parse().expect("a key");
        if self.keyed { event.with_idempotency_key(key()) } else { event }
    }

    async fn latencies(&mut self) -> Vec<Duration> {
        let (topic, subscription) = self.subscription().await;
        let (sent, mut send) = tokio::sync::mpsc::channel::<Instant>(1);
        let (done, mut received) = tokio::sync::mpsc::channel::<()>(1);
        let consumer = tokio::spawn(async move {
            let mut latencies = Vec::with_capacity(LATENCIES);
            for _ in 0..LATENCIES {
                let delivery = subscription.next().await.expect("no error").expect("open");
                let at = Instant::now();
                let sent: Instant = send.recv().await.expect("sent");
                latencies.push(at.duration_since(sent));
                delivery.ack().await.expect("acked");
                done.send(()).await.expect("there");
            }
            latencies
        });
        for nth in 0..LATENCIES {
            tokio::time::sleep(Duration::from_micros(200)).await;
            let event = self.event(&topic, nth);
            let at = Instant::now();
            self.writer.publish_one(&event).await.expect("published");
            sent.send(at).await.expect("there");
            received.recv().await.expect("received");
        }
        consumer.await.expect("no panic")
    }

    async fn batches(&mut self, server: &RedisServer) -> (f64, f64, f64) {
        let (topic, subscription) = self.subscription().await;
        let (mut publish, mut consume, cpu) = (Duration::ZERO, Duration::ZERO, cpu(server));
        for nth in 0..BATCHES {
            let begun = Instant::now();
            let events: Vec<NewEvent> = (0..BATCH).map(|n| self.event(&topic, nth * BATCH + n)).collect();
            self.writer.publish(&events).await.expect("published");
            publish += begun.elapsed();
            let begun = Instant::now();
            let deliveries = subscription.next_batch(BATCH).await.expect("no error");
            assert_eq!(deliveries.len(), BATCH);
            for acked in Delivery::ack_all(&deliveries).await.expect("acked") {
                acked.expect("acked");
            }
            consume += begun.elapsed();
        }
        rates(publish, consume, self::cpu(server) - cpu)
    }
}

/// Thousands of events a second published, and consumed and acked; microseconds of CPU for each event.
fn rates(publish: Duration, consume: Duration, cpu: f64) -> (f64, f64, f64) {
    let events = (BATCH * BATCHES) as f64;
    (events / publish.as_secs_f64() / 1e3, events / consume.as_secs_f64() / 1e3, cpu * 1e6 / events)
}

fn round(latencies: Vec<Duration>, (publish, consume, cpu): (f64, f64, f64)) -> Round {
    let (p50, p99) = percentiles(latencies);
    Round { p50, p99, publish, consume, cpu }
}

fn total(round: &Round) -> f64 {
    1.0 / (1.0 / round.publish + 1.0 / round.consume)
}

fn main() {
    // With `cargo test --benches` this is only to be built.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let server = RedisServer::start_volatile();
        let mut raw = Raw::new(&server).await;
        let mut plain = Ours::new(&server, "plain", false).await;
        let mut keyed = Ours::new(&server, "keyed", true).await;
        let mut rounds = [const { Vec::new() }; 3];
        for nth in 0..=ROUNDS {
            let raw = round(raw.latencies().await, raw.batches(&server).await);
            let plain = round(plain.latencies().await, plain.batches(&server).await);
            let keyed = round(keyed.latencies().await, keyed.batches(&server).await);
            // The first round warms up.
            if nth > 0 {
                rounds.iter_mut().zip([raw, plain, keyed]).for_each(|(rounds, round)| rounds.push(round));
            }
        }
        report(&rounds);
    });
}

fn report(rounds: &[Vec<Round>; 3]) {
    println!("medians of {ROUNDS} rounds; payload {PAYLOAD} bytes; batches of {BATCH}\n");
    println!("| | publish → deliver p50 | p99 | publish | consume + ack | all three | server CPU per event |");
    println!("|---|---|---|---|---|---|---|");
    type Value<'a> = &'a dyn Fn(&Round) -> f64;
    let columns: [(Value<'_>, &str); 6] = [
        (&|round| round.p50, "µs"),
        (&|round| round.p99, "µs"),
        (&|round| round.publish, "k/s"),
        (&|round| round.consume, "k/s"),
        (&total, "k/s"),
        (&|round| round.cpu, "µs"),
    ];
    for (name, own) in ["raw Redis Streams", "S²", "S², idempotency keys"].iter().zip(rounds) {
        let cells = columns.iter().map(|(value, unit)| {
            let (own, raw) = (median(own.iter().map(value)), median(rounds[0].iter().map(value)));
            format!("{own:.1} {unit} ({:.2}×)", own / raw)
        });
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}
