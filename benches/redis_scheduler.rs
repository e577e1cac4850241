//! The scheduler on Redis against bare scripts that do the same writes, on a server of its own, in the same run.
//!
//! `cargo bench -p s2-benches --bench redis_scheduler`. Bare means: `EVALSHA` of scripts that pop the first task, read its
//! payload, count a token up, write the state of the task, its lease and an entry of the journal, and the same when it is
//! done; no fencing, no classes, no limits, nothing that follows. Rounds of both alternate; what is printed are medians.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Value};
use s2_benches::{cpu, median, percentiles};
use s2_coordinator::{
    Capabilities, Completion, Config, Held, NewTask, Profile, RedisScheduler, RedisStore, Scheduler, SchedulerExt,
    Session, SwarmId, TaskKind,
};
use s2_tests::servers::RedisServer;

const KIND: TaskKind = TaskKind::from_static("review");
const HOST: SwarmId = SwarmId::from_static("telephony/sip");
const WORKERS: usize = 64;
const BATCH: usize = 64;
/// What is to be done is told in a sentence or two.
const PAYLOAD: usize = 200;
const ROUNDS: usize = 5;
const LATENCIES: usize = 1_000;
/// Tasks of a part of a round.
const ALONE: usize = 3_000;
const MANY: usize = 32_000;

/// What one part of a round came to.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    /// Thousands of tasks a second.
    rate: f64,
    /// Microseconds of the server's CPU for each.
    cpu: f64,
    /// Calls for each.
    calls: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Round {
    submit: Rate,
    alone: Rate,
    together: Rate,
    batched: Rate,
    p50: f64,
    p99: f64,
}

/// Measures what so many tasks cost.
struct Meter<'a> {
    server: &'a RedisServer,
    tasks: usize,
    begun: Instant,
    cpu: f64,
    calls: f64,
}

impl<'a> Meter<'a> {
    fn new(server: &'a RedisServer, tasks: usize) -> Self {
        Self { server, tasks, cpu: cpu(server), calls: calls(server), begun: Instant::now() }
    }

    fn rate(self) -> Rate {
        let (took, tasks) = (self.begun.elapsed().as_secs_f64(), self.tasks as f64);
        Rate {
            rate: tasks / took / 1e3,
            cpu: (cpu(self.server) - self.cpu) * 1e6 / tasks,
            calls: (calls(self.server) - self.calls) / tasks,
        }
    }
}

/// How many scripts the server has run.
fn calls(server: &RedisServer) -> f64 {
    let stats = server.command(&["INFO", "commandstats"]);
    let of = |name: &str| {
        let line =
            stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")).map(str::to_owned));
        line.and_then(|line| line.split(',').next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    of("fcall") + of("evalsha")
}

/// The bare scripts, by their hashes.
struct Raw {
    connection: MultiplexedConnection,
    listener: Client,
    submit: String,
    claim: String,
    complete: String,
    fused: String,
}

fn call(script: &str) -> Cmd {
    let mut call = redis::cmd("EVALSHA");
    call.arg(script).arg(0);
    call
}

async fn run(mut connection: MultiplexedConnection, call: Cmd) -> Value {
    call.query_async(&mut connection).await.expect("an answer")
}

const RAW_CLAIM: &str = "
local function claim()
  local id = redis.call('ZPOPMIN', 'raw:ready')[1]
  if not id then
    return false
  end
  local text, token = redis.call('HGET', 'raw:texts', id), redis.call('INCR', 'raw:token')
  local time = redis.call('TIME')
  local deadline = time[1] * 1000000 + time[2] + 30000000
  redis.call('HSET', 'raw:tasks', id, 'claimed:' .. ARGV[1] .. ':' .. token)
  redis.call('ZADD', 'raw:leases', deadline, id)
  redis.call('XADD', 'raw:journal', '*', 'e', '{\"component\":\"task\",\"operation\":\"claimed\",\"subject\":\"' .. id .. '\",\"params\":{\"session\":\"' .. ARGV[1] .. '\",\"token\":' .. token .. '}}')
  return { id, text, token, string.format('%.0f', deadline) }
end
local function complete(id)
  if string.sub(redis.call('HGET', 'raw:tasks', id) or '', 1, 7) ~= 'claimed' then
    return 0
  end
  redis.call('HSET', 'raw:tasks', id, 'done')
  redis.call('ZREM', 'raw:leases', id)
  redis.call('RPUSH', 'raw:finished', id)
  redis.call('XADD', 'raw:journal', '*', 'e', '{\"component\":\"task\",\"operation\":\"completed\",\"subject\":\"' .. id .. '\",\"params\":{\"session\":\"' .. ARGV[1] .. '\"}}')
  return 1
end
";

impl Raw {
    async fn new(server: &RedisServer) -> Self {
        let client = Client::open(server.url()).expect("a URL");
        let info = client.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let client = Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp)).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await.expect("a server");
        let load = async |script: &str| {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script);
            load.query_async::<String>(&mut connection.clone()).await.expect("loaded")
        };
        let submit = "
            for nth = 1, #ARGV, 2 do
              redis.call('HSET', 'raw:texts', ARGV[nth], ARGV[nth + 1])
              redis.call('HSET', 'raw:tasks', ARGV[nth], 'ready')
              redis.call('ZADD', 'raw:ready', ARGV[nth], ARGV[nth])
              redis.call('XADD', 'raw:journal', '*', 'e', '{\"component\":\"task\",\"operation\":\"submitted\",\"subject\":\"' .. ARGV[nth] .. '\"}')
            end
            redis.call('PUBLISH', 'raw:wake', 'x')
            return #ARGV / 2";
        let submit = load(submit).await;
        let claim = load(&format!("{RAW_CLAIM}\nreturn claim()")).await;
        let complete = load(&format!("{RAW_CLAIM}\nreturn complete(ARGV[2])")).await;
        let fused = load(&format!("{RAW_CLAIM}\ncomplete(ARGV[2]) return claim()")).await;
        Self { connection, listener: client, submit, claim, complete, fused }
    }

    async fn submit(&mut self, from: usize, count: usize) {
        let text = "x".repeat(PAYLOAD);
        for first in (from..from + count).step_by(100) {
            let mut call = call(&self.submit);
            for id in first..(first + 100).min(from + count) {
                call.arg(id).arg(&text);
            }
            run(self.connection.clone(), call).await;
        }
    }

    /// Works until there is nothing left, in one call for each task.
    fn work(&self, name: usize) -> impl Future<Output = usize> + Send + 'static {
        let (claim, fused, connection) = (call(&self.claim), call(&self.fused), self.connection.clone());
        async move {
            let name = format!("worker-{name}");
            let mut claim = claim;
            claim.arg(&name);
            let mut next = run(connection.clone(), claim).await;
            let mut done = 0;
            while let Value::Array(parts) = &next {
                let Some(Value::BulkString(id)) = parts.first() else { break };
                done += 1;
                let mut fused = fused.clone();
                fused.arg(&name).arg(id.as_slice());
                next = run(connection.clone(), fused).await;
            }
            done
        }
    }

    async fn latencies(&mut self, mut from: usize) -> Vec<Duration> {
        let (sender, mut pushed) = tokio::sync::mpsc::unbounded_channel();
        let config = AsyncConnectionConfig::new().set_push_sender(sender);
        let mut listener = self.listener.get_multiplexed_async_connection_with_config(&config).await.expect("a server");
        listener.subscribe("raw:wake").await.expect("subscribed");
        let mut latencies = Vec::with_capacity(LATENCIES);
        let text = "x".repeat(PAYLOAD);
        while pushed.try_recv().is_ok() {}
        for _ in 0..LATENCIES {
            tokio::time::sleep(Duration::from_micros(200)).await;
            from += 1;
            let (mut submit, mut claim) = (call(&self.submit), call(&self.claim));
            submit.arg(from).arg(&text);
            claim.arg("idle");
            let at = Instant::now();
            let submitted = tokio::spawn(run(self.connection.clone(), submit));
            while pushed.recv().await.expect("a push").kind != redis::PushKind::Message {}
            let claimed = run(self.connection.clone(), claim).await;
            latencies.push(at.elapsed());
            submitted.await.expect("no panic");
            let Value::Array(parts) = claimed else { panic!("nothing claimed") };
            let Some(Value::BulkString(id)) = parts.first() else { panic!("no id") };
            let mut complete = call(&self.complete);
            complete.arg("idle").arg(id.as_slice());
            run(self.connection.clone(), complete).await;
        }
        latencies
    }

    async fn round(&mut self, server: &RedisServer, nth: usize) -> Round {
        let from = nth * 1_000_000;
        let meter = Meter::new(server, MANY);
        self.submit(from, MANY).await;
        let submit = meter.rate();
        let meter = Meter::new(server, MANY);
        let workers: Vec<_> = (0..WORKERS).map(|name| tokio::spawn(self.work(name))).collect();
        assert_eq!(sum(workers).await, MANY);
        let together = meter.rate();
        self.submit(from + MANY, ALONE).await;
        let meter = Meter::new(server, ALONE);
        assert_eq!(self.work(0).await, ALONE);
        let alone = meter.rate();
        let (p50, p99) = percentiles(self.latencies(from + 2 * MANY).await);
        Round { submit, alone, together, batched: together, p50, p99 }
    }
}

async fn sum(workers: Vec<tokio::task::JoinHandle<usize>>) -> usize {
    let mut sum = 0;
    for worker in workers {
        sum += worker.await.expect("no panic");
    }
    sum
}

struct Ours {
    host: RedisScheduler,
    workers: RedisScheduler,
    sessions: Vec<Session>,
}

fn task() -> NewTask {
    NewTask::new(KIND, HOST).with_data(vec![b'x'; PAYLOAD])
}

async fn work(session: Session) -> usize {
    let mut next = session.try_claim().await.expect("no error");
    let mut done = 0;
    while let Some(held) = next {
        (_, next) = held.complete_and_claim(Completion::new()).await.expect("no error");
        done += 1;
    }
    done
}

impl Ours {
    async fn new(server: &RedisServer, fleet: &'static str) -> Self {
        let url = server.url();
        let connect = || RedisStore::connect(&url, SwarmId::from_static(fleet));
        let host = connect().await.expect("a fleet").scheduler();
        let workers = connect().await.expect("a fleet").scheduler();
        let mut sessions = Vec::new();
        for nth in 0..WORKERS {
            let profile = Profile::new(SwarmId::new(format!("worker-{nth}")).expect("a name"));
            sessions.push(workers.join(&profile).await.expect("joined"));
        }
        Self { host, workers, sessions }
    }

    async fn submit(&self, count: usize) {
        for first in (0..count).step_by(100) {
            let tasks: Vec<NewTask> = (first..(first + 100).min(count)).map(|_| task()).collect();
            self.host.submit(&tasks).await.expect("submitted");
        }
    }

    async fn latencies(&self) -> Vec<Duration> {
        let session = self.sessions[0].clone();
        let (sent, mut send) = tokio::sync::mpsc::channel::<Instant>(1);
        let (done, mut started) = tokio::sync::mpsc::channel::<()>(1);
        let worker = tokio::spawn(async move {
            let mut latencies = Vec::with_capacity(LATENCIES);
            for _ in 0..LATENCIES {
                let held = session.claim().await.expect("no error").expect("open");
                let at = Instant::now();
                let sent: Instant = send.recv().await.expect("sent");
                latencies.push(at.duration_since(sent));
                held.complete(Completion::new()).await.expect("completed");
                done.send(()).await.expect("there");
            }
            latencies
        });
        for _ in 0..LATENCIES {
            tokio::time::sleep(Duration::from_micros(400)).await;
            let task = task();
            let at = Instant::now();
            sent.send(at).await.expect("there");
            self.host.submit_one(&task).await.expect("submitted");
            started.recv().await.expect("started");
        }
        worker.await.expect("no panic")
    }

    async fn batched(&self) -> usize {
        let session = &self.sessions[0];
        let (mut held, mut done) = (session.claim_batch(BATCH).await.expect("no error"), 0);
        while !held.is_empty() {
            done += held.len();
            let all: Vec<(Held, Completion)> = held.into_iter().map(|held| (held, Completion::new())).collect();
            let all = session.complete_all(all, BATCH).await.expect("no error");
            assert!(all.ended.iter().all(Result::is_ok));
            held = all.claimed;
        }
        done
    }

    async fn round(&self, server: &RedisServer) -> Round {
        let meter = Meter::new(server, MANY);
        self.submit(MANY).await;
        let submit = meter.rate();
        let meter = Meter::new(server, MANY);
        let workers: Vec<_> = self.sessions.iter().map(|session| tokio::spawn(work(session.clone()))).collect();
        assert_eq!(sum(workers).await, MANY);
        let together = meter.rate();
        self.submit(ALONE).await;
        let meter = Meter::new(server, ALONE);
        assert_eq!(work(self.sessions[0].clone()).await, ALONE);
        let alone = meter.rate();
        self.submit(MANY).await;
        let meter = Meter::new(server, MANY);
        assert_eq!(self.batched().await, MANY);
        let batched = meter.rate();
        let (p50, p99) = percentiles(self.latencies().await);
        Round { submit, alone, together, batched, p50, p99 }
    }
}

/// What a claim and a completion cost with so many tasks of 200 classes queued, and the longest script.
async fn queued(server: &RedisServer, count: usize) -> (f64, f64, (f64, String)) {
    for command in [&["FLUSHALL"][..], &["CONFIG", "SET", "slowlog-log-slower-than", "1000"], &["SLOWLOG", "RESET"]] {
        assert_eq!(server.command(command), "OK");
    }
    let fleet = SwarmId::new(format!("queued-{count}")).expect("a name");
    let mut config = Config::default();
    config.limits.capabilities = 256;
    let scheduler =
        RedisStore::builder(fleet).with_config(config).connect(&server.url()).await.expect("a fleet").scheduler();
    let classes: Vec<String> = (0..200).map(|nth| format!("skill:{nth}")).collect();
    let offers = Capabilities::new(["skill"].into_iter().map(str::to_owned).chain(classes.iter().cloned()));
    let profile = Profile::new(SwarmId::from_static("worker")).with_capabilities(offers.expect("capabilities"));
    for first in (0..count).step_by(500) {
        let tasks: Vec<NewTask> = (first..(first + 500).min(count))
            .map(|nth| task().with_requires(Capabilities::new([&classes[nth % 200]]).expect("capabilities")))
            .collect();
        scheduler.submit(&tasks).await.expect("submitted");
    }
    let memory = server.info("used_memory").parse::<f64>().expect("bytes") / count as f64;
    let session = scheduler.join(&profile).await.expect("joined");
    let some = 1_000.min(count);
    let mut held = session.try_claim().await.expect("no error");
    let meter = Meter::new(server, some - 1);
    for _ in 1..some {
        let now = held.take().expect("a task");
        (_, held) = now.complete_and_claim(Completion::new()).await.expect("no error");
    }
    let cpu = meter.rate().cpu;
    (cpu, memory, longest_of(&server.command(&["SLOWLOG", "GET", "-1"])))
}

/// The longest duration of a slow log, in milliseconds, and of what: each entry is a number, a time, a duration and the words
/// of the command.
fn longest_of(slow: &str) -> (f64, String) {
    let lines: Vec<&str> = slow.lines().map(str::trim).collect();
    let scripts = lines.windows(4).filter(|lines| matches!(lines[2], "FCALL" | "FUNCTION"));
    let longest = scripts.filter_map(|lines| Some((lines[1].parse::<u64>().ok()?, lines[3]))).max();
    let (micros, name) = longest.unwrap_or_default();
    let name: String = name.split('_').skip(2).collect::<Vec<_>>().join("_").chars().take(40).collect();
    (micros as f64 / 1e3, name)
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
        let ours = Ours::new(&server, "ours").await;
        let mut rounds = [const { Vec::new() }; 2];
        for nth in 0..=ROUNDS {
            let round = [raw.round(&server, nth).await, ours.round(&server).await];
            // The first round warms up.
            if nth > 0 {
                rounds.iter_mut().zip(round).for_each(|(rounds, round)| rounds.push(round));
            }
        }
        report(&rounds);
        drop(ours.workers);
        drop(ours.sessions);
        println!("\n| queued, of 200 classes | server CPU of claim + completion | bytes a task | longest script |");
        println!("|---|---|---|---|");
        for count in [1_000, 100_000, 1_000_000] {
            let (cpu, memory, (longest, script)) = queued(&server, count).await;
            println!("| {count} | {cpu:.1} µs | {memory:.0} | {longest:.1} ms {script} |");
        }
    });
}

fn report(rounds: &[Vec<Round>; 2]) {
    println!("medians of {ROUNDS} rounds; payload {PAYLOAD} bytes; {WORKERS} workers; batches of {BATCH}\n");
    println!("| | bulk submit by 100 | 1 worker | {WORKERS} workers | batches | idle start p50 | p99 |");
    println!("|---|---|---|---|---|---|---|");
    type Value<'a> = &'a dyn Fn(&Round) -> f64;
    let columns: [(Value<'_>, &str); 6] = [
        (&|round| round.submit.rate, "k/s"),
        (&|round| round.alone.rate, "k/s"),
        (&|round| round.together.rate, "k/s"),
        (&|round| round.batched.rate, "k/s"),
        (&|round| round.p50, "µs"),
        (&|round| round.p99, "µs"),
    ];
    for (name, own) in ["bare scripts, fused", "S²"].iter().zip(rounds) {
        let cells = columns.iter().map(|(value, unit)| {
            let (own, raw) = (median(own.iter().map(value)), median(rounds[0].iter().map(value)));
            format!("{own:.1} {unit} ({:.2}×)", own / raw)
        });
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    println!("\n| server CPU per task; calls per task | bulk submit | 1 worker | {WORKERS} workers | batches |");
    println!("|---|---|---|---|---|");
    for (name, own) in ["bare scripts, fused", "S²"].iter().zip(rounds) {
        let cells = [
            |round: &Round| round.submit,
            |round: &Round| round.alone,
            |round: &Round| round.together,
            |round: &Round| round.batched,
        ]
        .map(|part| {
            format!(
                "{:.1} µs; {:.2}",
                median(own.iter().map(|it| part(it).cpu)),
                median(own.iter().map(|it| part(it).calls))
            )
        });
        println!("| {name} | {} |", cells.join(" | "));
    }
}
