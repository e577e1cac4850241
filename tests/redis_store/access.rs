//! A cluster will do, and a user with no more rights than `docs/wire` says.

use crate::{BILLS, CLERKS, LONG, ORDERS, TICK, entries, event, store};
use s2_coordinator::{
    Blocker, Completion, DeadLetters, EventBus, EventBusExt, IdempotencyKey, Inbox, NewEscalation, NewTask, Position,
    Profile, RedisStore, Resolution, Scheduler, SchedulerExt, Settled, Start, Subject, Subscribe, SwarmId, TaskKind,
    TaskState,
};
use s2_governor::{
    BreakerSettings, BreakerState, BudgetLedger, Charge, CircuitBreaker, Limit, NanoUsd, ProviderName, RedisBoard,
    RedisLedger, Reserve,
};
use s2_tests::redis::unique_name;
use s2_tests::servers::RedisServer;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

/// Spends money until there is none, and asks a provider until it is left alone: each key and each verb.
async fn spend_and_ask(store: &RedisStore) {
    let (ledger, session) = (RedisLedger::new(store), SwarmId::from_static("shop/clerk"));
    let cents = NanoUsd::from_cents;
    ledger.set_limit(&session, Limit::PerDay(cents(100))).await.expect("a limit");
    let reserve = Reserve::new(session.clone(), cents(10));
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(ledger.reserve(&reserve).await.expect("no error").granted().expect("granted"));
    }
    ledger.settle(&held[0], cents(5)).await.expect("settled");
    ledger.release(&held[1]).await.expect("released");
    ledger.extend(&held[2], Duration::from_secs(3600)).await.expect("extended");
    // Enough to look for what may be forgotten.
    for _ in 0..64 {
        ledger.charge(&Charge::new(session.clone(), cents(2))).await.expect("charged");
    }
    ledger.halt(&session, "enough").await.expect("halted");
    ledger.resume(&session).await.expect("resumed");
    let shop = ledger.statement(&SwarmId::from_static("shop"), None, None, 10).await.expect("a statement");
    assert_eq!((shop.balance.spent, shop.within.len()), (cents(133), 1));

    let (board, provider) = (Arc::new(RedisBoard::new(store)), ProviderName::from_static("models"));
    let breaker = CircuitBreaker::new(board, provider, BreakerSettings::default()).expect("a breaker");
    for _ in 0..10 {
        breaker.acquire().await.expect("closed").failure("status 500");
    }
    breaker.flush().await.expect("told");
    let verdict = breaker.refresh().await.expect("a verdict");
    assert!(matches!(verdict.state, BreakerState::Open { .. }), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_lies_in_one_slot_of_a_cluster() {
    let server = RedisServer::start_with(&[("cluster-enabled", "yes")]);
    assert_eq!(server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), "OK");
    let deadline = Instant::now() + LONG;
    while !server.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok") {
        assert!(Instant::now() < deadline, "the cluster does not come up");
        sleep(TICK).await;
    }
    let store = store(&server).await;
    let (bus, inbox) = (store.bus(), store.inbox());
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS).with_deliveries(2)).await.expect("a group");
    let mut tail = bus.tail(&BILLS, Start::Now).await.expect("a tail");
    let told = tokio::spawn(async move { tail.next().await });
    let waiting = tokio::spawn(async move { (clerk.next().await, clerk) });
    let keyed = event(ORDERS).with_idempotency_key(IdempotencyKey::from_static("once"));
    bus.publish(&[keyed, event(ORDERS), event(ORDERS)]).await.expect("published");
    let (first, clerk) = timeout(LONG, waiting).await.expect("delivered").expect("no panic");
    first.expect("no error").expect("a delivery").commit(&[event(BILLS)]).await.expect("committed");
    let billed = timeout(LONG, told).await.expect("told").expect("no panic").expect("no error");
    assert_eq!(billed.expect("an event").topic, BILLS);

    let second = clerk.next().await.expect("no error").expect("a delivery");
    let Settled::DeadLettered(id) = second.dead_letter("poison").await.expect("refused") else {
        panic!("a dead letter")
    };
    bus.redrive(&DeadLetters::one(id)).await.expect("redriven");
    let again = clerk.next().await.expect("no error").expect("a delivery");
    assert_eq!((again.event.position, again.attempt), (Position::new(2), 1));
    again.nack(Duration::ZERO).await.expect("given back");
    let held = clerk.next().await.expect("no error").expect("a delivery");
    assert_eq!(held.attempt, 2);
    let raised = inbox.escalate(NewEscalation::new(Subject::from_static("budget"), "exceeded")).await.expect("raised");
    inbox.escalate(NewEscalation::new(Subject::from_static("other"), "exceeded")).await.expect("raised");
    inbox.resolve(raised.id, Resolution::new("ann", "resume")).await.expect("resolved");
    let third = clerk.next().await.expect("no error").expect("a delivery");
    third.dead_letter("poison").await.expect("refused");
    let operations: Vec<String> = entries(&store).await.iter().map(|entry| entry.operation.to_string()).collect();
    assert_eq!(
        operations,
        ["group_created", "dead_letter", "redrive", "escalate", "escalate", "resolve", "dead_letter"]
    );

    let scheduler = store.scheduler();
    let work = NewTask::new(TaskKind::from_static("work"), SwarmId::from_static("shop"));
    let session = scheduler.join(&Profile::new(SwarmId::from_static("clerk"))).await.expect("a session");
    let waiting = tokio::spawn(async move { (session.claim().await, session) });
    let submitted = scheduler.submit(&vec![work.clone(); 3]).await.expect("submitted");
    let (held, session) = timeout(LONG, waiting).await.expect("claimed").expect("no panic");
    let blocker = Blocker::new("stuck").with_wait(submitted[1].id);
    let blocked = held.expect("no error").expect("open").block(blocker).await.expect("blocked");
    session.claim().await.expect("no error").expect("open").complete(Completion::new()).await.expect("completed");
    drop(blocked);
    assert_eq!(scheduler.stats().await.expect("stats").count(TaskState::Done), 1);

    spend_and_ask(&store).await;

    let keys = server.command(&["KEYS", "*"]);
    let slot = |key: &str| server.command(&["CLUSTER", "KEYSLOT", key]);
    let one = slot(keys.lines().next().expect("keys"));
    for key in keys.lines() {
        assert_eq!(slot(key), one, "{key}");
    }
    for kind in [
        "meta",
        "journal",
        "e:orders",
        "t:orders",
        "tg:orders",
        "k:orders",
        "letter",
        "escalation",
        "redriven",
        "tasks",
        "ids",
        "timers",
        "budget",
        "budget:due",
        "budget:ended",
        "budget:accounts",
        "provider:models",
    ] {
        assert!(keys.lines().any(|key| key.ends_with(&format!(":{kind}"))), "no key {kind} among\n{keys}");
    }
}

/// What `docs/wire` says a user needs, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_needs_no_more_rights_than_are_documented() {
    let server = RedisServer::start_volatile();
    let rules = "on >secret ~s2:{* &s2:{* +@read +@write +@pubsub +time +fcall +function|load +info +hello +ping";
    let mut command = vec!["ACL", "SETUSER", "guest"];
    command.extend(rules.split(' '));
    assert_eq!(server.command(&command), "OK");
    let url = server.url().replace("redis://", "redis://guest:secret@");
    let store = RedisStore::connect(&url, unique_name()).await.expect("a fleet");
    let (bus, inbox) = (store.bus(), store.inbox());
    let clerk = bus.subscribe(&Subscribe::new(ORDERS, CLERKS)).await.expect("a group");
    let mut tail = bus.tail(&ORDERS, Start::Now).await.expect("a tail");
    let waiting = tokio::spawn(async move { (clerk.next().await, tail.next().await) });
    let published = bus.publish_one(&event(ORDERS)).await.expect("published");
    let (delivery, told) = timeout(LONG, waiting).await.expect("delivered").expect("no panic");
    assert_eq!(told.expect("no error").expect("an event").id, published.id);
    delivery.expect("no error").expect("open").dead_letter("poison").await.expect("refused");
    inbox.escalate(NewEscalation::new(Subject::from_static("budget"), "exceeded")).await.expect("raised");
    assert_eq!(entries(&store).await.len(), 3);
    let scheduler = store.scheduler();
    let session = scheduler.join(&Profile::new(SwarmId::from_static("clerk"))).await.expect("a session");
    let waiting = tokio::spawn(async move { session.claim().await });
    let work = NewTask::new(TaskKind::from_static("work"), SwarmId::from_static("shop"));
    let submitted = scheduler.submit_one(&work).await.expect("submitted");
    let held = timeout(LONG, waiting).await.expect("claimed").expect("no panic").expect("no error").expect("open");
    held.complete(Completion::new()).await.expect("completed");
    scheduler.wait(submitted.id).await.expect("an outcome");
    spend_and_ask(&store).await;
    let foreign = server.command(&["ACL", "DRYRUN", "guest", "GET", "other"]);
    assert!(foreign.contains("no permissions"), "{foreign}");
}
