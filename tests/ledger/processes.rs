//! Processes that race, and die with money in their hands.

use std::env;
use std::time::Duration;

use s2_coordinator::RedisStore;
use s2_governor::{BudgetLedger, BudgetLedgerExt, Denial, Expiry, NanoUsd, RedisLedger, Reservation, Reserve};
use s2_tests::counts;
use s2_tests::servers::RedisServer;
use s2_tests::workers::{Worker, is_worker};

use crate::{LONG, SESSION, ask, cents, set_limit, store};

const PROCESSES: usize = 4;

async fn fleet(nth: &str) -> RedisLedger {
    let fleet = format!("fleet-{nth}").parse().expect("a name");
    RedisLedger::new(&RedisStore::connect(&env::var("URL").expect("a URL"), fleet).await.expect("a fleet"))
}

/// A worker's main: asks for money as often as it is told, in one fleet after the other, and says how often it got some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a worker of the tests in this file"]
async fn spender() {
    if !is_worker() {
        return;
    }
    let (fleets, calls) = (env::var("FLEETS").expect("how many"), env::var("CALLS").expect("how many"));
    for nth in 0..fleets.parse().expect("a number") {
        let ledger = fleet(&u32::to_string(&nth)).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (ledger, calls) = (ledger.clone(), calls.parse::<u32>().expect("a number") / 16);
            tasks.spawn(async move {
                let mut admitted = 0;
                for _ in 0..calls {
                    if let Ok(held) = ask(&ledger, cents(10)).await {
                        admitted += 1;
                        ledger.settle(&held, cents(10)).await.expect("settled");
                    }
                }
                admitted
            });
        }
        println!("admitted {nth} {}", tasks.join_all().await.into_iter().sum::<u32>());
    }
}

/// 1,024 calls of $0.10 each on $5.00 from four processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_spend_five_dollars_and_not_a_cent_more() {
    let server = RedisServer::start_volatile();
    let fleets = counts(5, 200);
    let mut ledgers = Vec::new();
    for nth in 0..fleets {
        let fleet = format!("fleet-{nth}").parse().expect("a name");
        let ledger = RedisLedger::new(&RedisStore::connect(&server.url(), fleet).await.expect("a fleet"));
        set_limit(&ledger, NanoUsd::from_dollars(5)).await;
        ledgers.push(ledger);
    }
    let args = [("URL", server.url()), ("FLEETS", fleets.to_string()), ("CALLS", "256".to_owned())];
    let mut workers: Vec<Worker> = (0..PROCESSES).map(|_| Worker::spawn("processes::spender", &args)).collect();
    let mut admitted = vec![0; fleets as usize];
    for worker in &mut workers {
        while let Some(line) = worker.line(LONG) {
            let said: Vec<usize> = line.split(' ').skip(1).map(|number| number.parse().expect("a number")).collect();
            admitted[said[0]] += said[1];
        }
        assert!(worker.wait(LONG), "a worker has not ended well");
    }
    assert_eq!(admitted, vec![50; fleets as usize]);
    for ledger in ledgers {
        let balance = ledger.balance(&SESSION).await.expect("no error");
        let state = (balance.spent, balance.held, balance.overrun());
        assert_eq!(state, (NanoUsd::from_dollars(5), NanoUsd::ZERO, NanoUsd::ZERO));
    }
}

/// For how long the reservations of those that are killed hold.
const TTL: Duration = Duration::from_millis(300);

/// A worker's main: reserves, says so, and waits for its end.
#[tokio::test]
#[ignore = "a worker of the tests in this file"]
async fn victim() {
    if !is_worker() {
        return;
    }
    let ledger = RedisLedger::new(&store(&env::var("URL").expect("a URL")).await);
    let expiry = if env::var("RELEASES").expect("whether") == "true" { Expiry::Release } else { Expiry::Presume };
    let reserve = Reserve::new(SESSION, cents(10)).with_ttl(TTL).with_expiry(expiry);
    let held = ledger.reserve(&reserve).await.expect("no error").granted().expect("granted");
    println!("held {}", serde_json::to_string(&held).expect("JSON"));
    std::future::pending::<()>().await;
}

/// Kills whoever holds money, and answers what it held.
fn kill_a_holder(server: &RedisServer, releases: bool) -> Reservation {
    let args = [("URL", server.url()), ("RELEASES", releases.to_string())];
    let mut victim = Worker::spawn("processes::victim", &args);
    let said = victim.line(LONG).expect("it holds");
    victim.kill();
    serde_json::from_str(said.strip_prefix("held ").expect("what it holds")).expect("a reservation")
}

/// Waits until nothing is held.
async fn nothing_held(ledger: &RedisLedger) {
    let nothing = async {
        while ledger.balance(&SESSION).await.expect("no error").held > NanoUsd::ZERO {
            tokio::time::sleep(TTL / 30).await;
        }
    };
    tokio::time::timeout(LONG, nothing).await.expect("it expires");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_between_reserve_and_settle_overruns_nothing() {
    let server = RedisServer::start();
    let ledger = RedisLedger::new(&store(&server.url()).await);
    let mut spent = NanoUsd::ZERO;
    for round in 0..counts(5, 100) {
        // Each has money for one call, and for a cent more.
        let limit = spent.saturating_add(cents(11));
        set_limit(&ledger, limit).await;
        let held = kill_a_holder(&server, false);
        if let Err(denied) = ask(&ledger, cents(2)).await {
            assert!(matches!(denied.reason, Denial::Held | Denial::Spent), "{denied}");
        } else {
            panic!("more was granted than there is");
        }
        nothing_held(&ledger).await;
        let denied = ask(&ledger, cents(2)).await.expect_err("it may have been spent");
        assert_eq!((denied.available, denied.presumed, denied.reason), (cents(1), cents(10), Denial::Spent));
        // Half of them had made their call.
        if round % 2 == 0 {
            ledger.settle(&held, cents(7)).await.expect("settled");
            spent = spent.saturating_add(cents(7));
        } else {
            ledger.release(&held).await.expect("released");
        }
        let balance = ledger.balance(&SESSION).await.expect("no error");
        let state = (balance.spent, balance.held, balance.presumed, balance.overrun());
        assert_eq!(state, (spent, NanoUsd::ZERO, NanoUsd::ZERO, NanoUsd::ZERO));
    }
    set_limit(&ledger, spent.saturating_add(cents(10))).await;
    let _ = kill_a_holder(&server, true);
    nothing_held(&ledger).await;
    let _ = ask(&ledger, cents(10)).await.expect("it is free again");
}
