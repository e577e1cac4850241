//! Replies that are lost, and callers that are gone.

use std::time::Duration;

use s2_coordinator::RedisStore;
use s2_governor::{BudgetLedger, BudgetLedgerExt, Charge, Limit, NanoUsd, RedisLedger, Reserve};
use s2_tests::proxy::Proxy;
use s2_tests::servers::RedisServer;

use crate::{LONG, SESSION, ask, cents, set_limit, store};

struct World {
    proxy: Proxy,
    lossy: RedisLedger,
    direct: RedisLedger,
    // Ends last.
    _server: RedisServer,
}

impl World {
    async fn new() -> Self {
        let server = RedisServer::start_volatile();
        let proxy = Proxy::of(&server);
        let lossy = RedisLedger::new(&store(&proxy.url()).await);
        let direct = RedisLedger::new(&store(&server.url()).await);
        Self { proxy, lossy, direct, _server: server }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_whose_reply_is_lost_happens_once_and_gets_the_first_answer() {
    let world = World::new().await;
    let (lossy, direct) = (&world.lossy, &world.direct);
    let limited = world.proxy.losing(lossy.set_limit(&SESSION, Limit::PerDay(cents(100)))).await;
    assert_eq!(limited.limit, cents(100));
    let spent = || async {
        let balance = direct.balance(&SESSION).await.expect("no error");
        (balance.spent, balance.held)
    };

    let held = world.proxy.losing(lossy.reserve(&Reserve::new(SESSION, cents(60)))).await.granted().expect("granted");
    assert_eq!(spent().await, (NanoUsd::ZERO, cents(60)));
    let denied =
        world.proxy.losing(lossy.reserve(&Reserve::new(SESSION, cents(60)))).await.granted().expect_err("denied");
    assert_eq!(denied.available, cents(40));
    let until = world.proxy.losing(lossy.extend(&held, Duration::from_secs(900))).await;
    assert!(until > held.until);
    let posted = world.proxy.losing(lossy.settle(&held, cents(70))).await;
    assert_eq!((posted.remaining, spent().await), (cents(30), (cents(70), NanoUsd::ZERO)));
    let posted = world.proxy.losing(lossy.charge(&Charge::new(SESSION, cents(10)))).await;
    assert_eq!((posted.remaining, spent().await), (cents(20), (cents(80), NanoUsd::ZERO)));
    let held = world.proxy.losing(lossy.reserve(&Reserve::new(SESSION, cents(20)))).await.granted().expect("granted");
    world.proxy.losing(lossy.release(&held)).await;
    assert_eq!(spent().await, (cents(80), NanoUsd::ZERO));
    let halted = world.proxy.losing(lossy.halt(&SESSION, "stop")).await;
    assert_eq!(halted.halted.as_deref(), Some("stop"));
    assert_eq!(world.proxy.losing(lossy.resume(&SESSION)).await.halted, None);
    assert_eq!(world.proxy.losing(lossy.statement(&SESSION, None, None, 10)).await.balance.spent, cents(80));
    assert_eq!(spent().await, (cents(80), NanoUsd::ZERO));
}

/// Whoever asks for money and is cancelled must not keep it.
#[tokio::test(flavor = "multi_thread")]
async fn money_that_nobody_waits_for_is_given_back() {
    let server = RedisServer::start_volatile();
    let (ledger, other) =
        (RedisLedger::new(&store(&server.url()).await), RedisLedger::new(&store(&server.url()).await));
    set_limit(&ledger, cents(100)).await;
    server.stop();
    for _ in 0..20 {
        let asking = ask(&ledger, cents(5));
        assert!(tokio::time::timeout(Duration::from_millis(2), asking).await.is_err(), "the server stands still");
    }
    server.resume();
    tokio::time::timeout(LONG, async {
        // All of them were granted; then all of them are given back.
        while ask(&other, cents(100)).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is given back");
    let balance = other.balance(&SESSION).await.expect("no error");
    assert_eq!((balance.spent, balance.held), (NanoUsd::ZERO, cents(100)));
}

/// A call that fails may come to something later: then the money is given back, too.
#[tokio::test(flavor = "multi_thread")]
async fn money_of_a_call_that_failed_is_given_back() {
    let server = RedisServer::start_volatile();
    let hasty = RedisStore::builder(crate::FLEET).with_patience(Duration::from_millis(300));
    let hasty = RedisLedger::new(&hasty.connect(&server.url()).await.expect("a fleet"));
    let patient = RedisLedger::new(&store(&server.url()).await);
    set_limit(&hasty, cents(100)).await;
    server.stop();
    let reserve = Reserve::new(SESSION, cents(100));
    let error = hasty.reserve(&reserve).await.expect_err("the server stands still");
    assert_eq!((error.code(), error.is_retryable()), ("S2_BACKEND", true), "{error}");
    server.resume();
    let free = async {
        while ask(&patient, cents(100)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, free).await.expect("it is given back");
}
