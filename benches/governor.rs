//! The ledger in memory against a map behind a lock, and on Redis against a script that does nothing, in the same run.
//!
//! `cargo bench -p s2-benches --bench governor`. In memory, a pair is a reservation and its settlement on three levels, both
//! journalled; bare, it is an entry that is put into a map behind a lock and taken out. On Redis, calls of both kinds alternate.
//! What is printed are medians of five rounds.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};
use s2_benches::{cpu, median, percentiles};
use s2_coordinator::{MemoryStore, RedisStore, SwarmId};
use s2_governor::{BudgetLedger, Limit, MemoryLedger, NanoUsd, RedisLedger, Reserve};
use s2_tests::servers::RedisServer;

const ROUNDS: usize = 5;
const PAIRS: usize = 200_000;
const CALLS: usize = 3_000;
const SESSION: SwarmId = SwarmId::from_static("telephony/sip/session-4");
const COST: NanoUsd = NanoUsd::from_nanos(1);

/// Nanoseconds of each of so many.
fn nanos(begun: Instant, count: usize) -> f64 {
    begun.elapsed().as_nanos() as f64 / count as f64
}

fn bare_pairs() -> f64 {
    let map = Mutex::new(HashMap::new());
    let begun = Instant::now();
    for nth in 0..PAIRS {
        map.lock().expect("not poisoned").insert(nth, COST);
        black_box(map.lock().expect("not poisoned").remove(&nth));
    }
    nanos(begun, PAIRS)
}

async fn pairs(ledger: &MemoryLedger, count: usize) {
    let reserve = Reserve::new(SESSION, COST);
    for _ in 0..count {
        let held = ledger.reserve(&reserve).await.expect("no error").granted().expect("granted");
        black_box(ledger.settle(&held, COST).await.expect("settled"));
    }
}

fn memory_ledger() -> MemoryLedger {
    MemoryLedger::new(&MemoryStore::new())
}

/// Pairs a second of so many threads together, each with as many pairs.
fn together(threads: usize) -> f64 {
    let (ledger, barrier) = (memory_ledger(), Barrier::new(threads + 1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                // Until the journal and what is remembered are full.
                runtime.block_on(pairs(&ledger, PAIRS));
                barrier.wait();
                runtime.block_on(pairs(&ledger, PAIRS));
                barrier.wait();
            });
        }
        barrier.wait();
        let begun = Instant::now();
        barrier.wait();
        (threads * PAIRS) as f64 / begun.elapsed().as_secs_f64()
    })
}

fn in_memory() {
    let (mut bare, mut one, mut two) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(bare_pairs());
        one.push(together(1));
        two.push(together(2));
    }
    let (bare, one, two) = (median(bare), median(one), median(two));
    println!("memory, 3 levels, journalled");
    println!("  map behind a lock, put and taken   {bare:8.0} ns");
    println!("  reserve and settle                 {:8.0} ns  {:.1}×", 1e9 / one, 1e9 / one / bare);
    println!("  two threads on one account         {:8.0} pairs/s, {:.2}× of one thread's {one:.0}", two, two / one);
}

async fn bare_call(connection: &mut MultiplexedConnection, sha: &str) {
    let answer: i64 = redis::cmd("EVALSHA").arg(sha).arg(0).query_async(connection).await.expect("an answer");
    assert_eq!(answer, 1);
}

fn path(depth: usize) -> SwarmId {
    SwarmId::new(vec!["swarm"; depth].join("/")).expect("a path")
}

/// The times of calls that alternate: nothing, a reservation, its settlement.
async fn round(ledger: &RedisLedger, bare: &mut MultiplexedConnection, sha: &str, depth: usize) -> [Vec<Duration>; 3] {
    let mut times = [const { Vec::new() }; 3];
    let reserve = Reserve::new(path(depth), COST);
    for _ in 0..CALLS {
        let begun = Instant::now();
        bare_call(bare, sha).await;
        times[0].push(begun.elapsed());
        let begun = Instant::now();
        let held = ledger.reserve(&reserve).await.expect("no error").granted().expect("granted");
        times[1].push(begun.elapsed());
        let begun = Instant::now();
        ledger.settle(&held, COST).await.expect("settled");
        times[2].push(begun.elapsed());
    }
    times
}

async fn on_redis() {
    let server = RedisServer::start_volatile();
    let store = RedisStore::connect(&server.url(), SwarmId::from_static("bench")).await.expect("a fleet");
    let ledger = RedisLedger::new(&store);
    ledger.set_limit(&path(1), Limit::Unlimited).await.expect("a limit");
    let client = Client::open(server.url()).expect("a client");
    let config = AsyncConnectionConfig::new();
    let mut bare = client.get_multiplexed_async_connection_with_config(&config).await.expect("a connection");
    let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg("return 1").query_async(&mut bare).await.expect("a script");
    println!("Redis, µs                     p50      p99   of a bare EVALSHA");
    for depth in [1, 3, 6, 16] {
        let mut figures = [const { Vec::new() }; 6];
        round(&ledger, &mut bare, &sha, depth).await;
        for _ in 0..ROUNDS {
            let times = round(&ledger, &mut bare, &sha, depth).await;
            for (nth, times) in times.into_iter().enumerate() {
                let (p50, p99) = percentiles(times);
                figures[2 * nth].push(p50);
                figures[2 * nth + 1].push(p99);
            }
        }
        let [bare50, bare99, reserve50, reserve99, settle50, settle99] = figures.map(median);
        println!("  bare EVALSHA \"return 1\"    {bare50:6.0}   {bare99:6.0}");
        for (name, p50, p99) in [("reserve", reserve50, reserve99), ("settle ", settle50, settle99)] {
            println!(
                "  {name} on {depth:2} levels      {p50:6.0}   {p99:6.0}   {:.2}× {:.2}×",
                p50 / bare50,
                p99 / bare99
            );
        }
    }
    let (begun, before) = (Instant::now(), cpu(&server));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            for _ in 0..CALLS / 10 {
                let reserve = Reserve::new(path(3), COST);
                let held = ledger.reserve(&reserve).await.expect("no error").granted().expect("granted");
                ledger.settle(&held, COST).await.expect("settled");
            }
        });
    }
    tasks.join_all().await;
    let (pairs, took) = ((64 * (CALLS / 10)) as f64, begun.elapsed().as_secs_f64());
    println!(
        "  64 sessions on 3 levels: {:.1} k pairs/s, {:.0} µs of the server's CPU for each",
        pairs / took / 1e3,
        (cpu(&server) - before) * 1e6 / pairs
    );
}

fn main() {
    in_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(on_redis());
}
