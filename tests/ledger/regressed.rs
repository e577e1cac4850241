//! Servers that come back with less than they had.

use s2_coordinator::{EscalationId, Inbox, Journal, Position, RedisStore, Severity, SwarmId};
use s2_governor::{BudgetLedger, BudgetLedgerExt, Charge, Denial, NanoUsd, RedisLedger, Seen};
use s2_tests::servers::RedisServer;

use crate::{SESSION, ask, cents, set_limit, store};

const OTHERS: SwarmId = SwarmId::from_static("others");

async fn charge(ledger: &RedisLedger, cost: NanoUsd) {
    ledger.charge(&Charge::new(SESSION, cost)).await.expect("charged");
}

/// The ledger says that it is frozen: to whoever asks for money, to people, and in the journal.
async fn is_frozen(store: &RedisStore, ledger: &RedisLedger) {
    let denied = ask(ledger, cents(1)).await.expect_err("nothing is granted");
    assert_eq!(denied.reason, Denial::Frozen, "{denied}");
    assert_eq!(ledger.balance(&SESSION).await.expect("no error").halted.as_deref(), Some("frozen"));
    let asked = store.inbox().pending(EscalationId::default(), 10).await.expect("no error");
    assert_eq!(asked.iter().map(|it| it.key.as_str()).collect::<Vec<_>>(), ["budget:regressed"]);
    let entries = store.journal().entries(Position::ORIGIN, 500).await.expect("no error").items;
    let frozen: Vec<_> = entries.iter().filter(|entry| *entry.operation == *"freeze").collect();
    assert_eq!((frozen.len(), frozen[0].severity), (1, Severity::Critical), "{entries:?}");
}

#[tokio::test]
async fn a_ledger_that_was_rolled_back_grants_nothing_until_a_person_has_looked_at_it() {
    let server = RedisServer::start();
    let store = store(&server.url()).await;
    let ledger = RedisLedger::new(&store);
    set_limit(&ledger, cents(100)).await;
    charge(&ledger, cents(10)).await;
    server.snapshot();
    charge(&ledger, cents(60)).await;
    let held = ask(&ledger, cents(30)).await.expect("granted");
    server.roll_back();
    is_frozen(&store, &ledger).await;
    // What is known to have been spent still counts.
    ledger.settle(&held, cents(30)).await.expect("it was granted");
    ledger.settle(&held, cents(30)).await.expect("it was granted");
    charge(&ledger, cents(60)).await;
    let resumed = ledger.resume(&SESSION).await.expect("resumed");
    assert_eq!((resumed.spent, resumed.held, resumed.halted), (cents(100), NanoUsd::ZERO, None));
    assert_eq!(ask(&ledger, cents(1)).await.expect_err("all is spent").reason, Denial::Spent);
}

#[tokio::test]
async fn a_ledger_that_was_flushed_grants_nothing_until_a_person_has_looked_at_it() {
    let server = RedisServer::start();
    let store = store(&server.url()).await;
    let ledger = RedisLedger::new(&store);
    charge(&ledger, cents(10)).await;
    assert_eq!(server.command(&["FLUSHALL"]), "OK");
    is_frozen(&store, &ledger).await;
    ledger.resume(&SwarmId::from_static("telephony")).await.expect("resumed");
    let _ = ask(&ledger, cents(1)).await.expect("its swarm was resumed");
    ledger.resume(&OTHERS).await.expect("resumed");
    assert_eq!(ask(&ledger, cents(1)).await.map(|held| held.amount), Ok(cents(1)));
}

/// Others may have done more since than was lost: it is noticed all the same.
#[tokio::test]
async fn it_is_noticed_though_others_go_on_meanwhile() {
    let server = RedisServer::start();
    let store = store(&server.url()).await;
    let ledger = RedisLedger::new(&store);
    charge(&ledger, cents(1)).await;
    server.snapshot();
    for _ in 0..5 {
        charge(&ledger, cents(1)).await;
    }
    server.roll_back();
    // It has seen nothing, and spends more often than what was lost.
    let newcomer = RedisLedger::new(&crate::store(&server.url()).await);
    for _ in 0..20 {
        newcomer.charge(&Charge::new(OTHERS, cents(1))).await.expect("charged");
    }
    is_frozen(&store, &ledger).await;
    assert_eq!(ask(&newcomer, cents(1)).await.expect_err("nothing is granted").reason, Denial::Frozen);
}

#[tokio::test]
async fn several_that_have_seen_what_was_lost_freeze_it_once() {
    let server = RedisServer::start();
    let stores = [store(&server.url()).await, store(&server.url()).await, store(&server.url()).await];
    let (store, ledgers) = (stores[0].clone(), stores.each_ref().map(RedisLedger::new));
    server.snapshot();
    for ledger in &ledgers {
        charge(ledger, cents(1)).await;
    }
    server.roll_back();
    is_frozen(&store, &ledgers[0]).await;
    ledgers[0].resume(&SESSION).await.expect("resumed");
    for ledger in &ledgers {
        let _ = ask(ledger, cents(1)).await.expect("a person has looked at it");
    }
    // The next time is noticed, too.
    server.snapshot();
    charge(&ledgers[2], cents(1)).await;
    server.roll_back();
    assert_eq!(ask(&ledgers[2], cents(1)).await.expect_err("frozen again").reason, Denial::Frozen);
}

/// A host may keep what it has seen where the server cannot forget it.
#[tokio::test]
async fn a_host_that_was_not_alive_notices_by_what_it_has_kept() {
    let server = RedisServer::start();
    let kept: Seen = {
        let ledger = RedisLedger::new(&store(&server.url()).await);
        charge(&ledger, cents(1)).await;
        server.snapshot();
        charge(&ledger, cents(1)).await;
        let kept = serde_json::to_string(&ledger.seen()).expect("JSON");
        serde_json::from_str(&kept).expect("what was kept")
    };
    server.roll_back();
    let store = store(&server.url()).await;
    let unknowing = RedisLedger::new(&store);
    let _ = ask(&unknowing, cents(1)).await.expect("nobody knows");
    is_frozen(&store, &RedisLedger::new(&store).with_seen(kept)).await;
}

/// What knows more than the server need not be a process: a reservation that somebody has kept will do.
#[tokio::test]
async fn a_reservation_that_the_server_has_lost_gives_it_away() {
    let server = RedisServer::start();
    let store = store(&server.url()).await;
    let held = {
        let ledger = RedisLedger::new(&store);
        charge(&ledger, cents(1)).await;
        server.snapshot();
        ask(&ledger, cents(5)).await.expect("granted")
    };
    drop(store);
    server.roll_back();
    let store = crate::store(&server.url()).await;
    let heir = RedisLedger::new(&store);
    heir.settle(&held, cents(4)).await.expect("it was granted");
    is_frozen(&store, &heir).await;
    assert_eq!(heir.balance(&SESSION).await.expect("no error").spent, cents(5));
    heir.settle(&held, cents(4)).await.expect("the first answer");
    assert_eq!(heir.balance(&SESSION).await.expect("no error").spent, cents(5), "once");
}

/// A process that does nothing speaks up, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_idle_notices_when_its_connection_is_back() {
    let server = RedisServer::start();
    let idle = store(&server.url()).await;
    let ledger = RedisLedger::new(&idle);
    charge(&ledger, cents(1)).await;
    server.snapshot();
    charge(&ledger, cents(1)).await;
    server.roll_back();
    let frozen = async {
        // Looked at by somebody who knows nothing, and says nothing.
        while server.command(&["ZCARD", "s2:{fleet}:inbox"]) == "0" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::LONG, frozen).await.expect("it is noticed");
    is_frozen(&idle, &ledger).await;
}

/// Restarts are no loss, however many there are, for whoever was not there.
#[tokio::test]
async fn twenty_lives_later_nothing_is_lost() {
    let server = RedisServer::start();
    let store = store(&server.url()).await;
    let ledger = RedisLedger::new(&store);
    charge(&ledger, cents(1)).await;
    let old = ledger.seen();
    for _ in 0..20 {
        charge(&ledger, cents(1)).await;
        assert_eq!(server.command(&["FUNCTION", "FLUSH"]), "OK");
    }
    drop((ledger, store));
    let store = crate::store(&server.url()).await;
    let ledger = RedisLedger::new(&store).with_seen(old);
    let _ = ask(&ledger, cents(1)).await.expect("nothing was lost");
    assert_eq!(store.inbox().pending(EscalationId::default(), 10).await.expect("no error"), []);
}

/// One loss is one question, whoever has seen what.
#[tokio::test]
async fn handles_of_different_lives_freeze_a_loss_once() {
    let server = RedisServer::start();
    let (one, other) = (store(&server.url()).await, store(&server.url()).await);
    let (first, second) = (RedisLedger::new(&one), RedisLedger::new(&other));
    charge(&first, cents(1)).await;
    let early = first.seen();
    server.restart();
    charge(&second, cents(1)).await;
    assert_eq!(server.command(&["FLUSHALL"]), "OK");
    is_frozen(&other, &second).await;
    second.resume(&SESSION).await.expect("resumed");
    let late = RedisLedger::new(&store(&server.url()).await).with_seen(early);
    let _ = ask(&late, cents(1)).await.expect("a person has looked at it");
}

#[tokio::test]
async fn a_server_that_has_lost_nothing_goes_on() {
    let server = RedisServer::start();
    let store = store(&server.url()).await;
    let ledger = RedisLedger::new(&store);
    set_limit(&ledger, cents(100)).await;
    for round in 1..=3 {
        charge(&ledger, cents(10)).await;
        server.restart();
        assert_eq!(ledger.balance(&SESSION).await.expect("no error").spent, cents(10 * round));
        let _ = ask(&ledger, cents(1)).await.expect("nothing was lost");
    }
    assert_eq!(server.command(&["FUNCTION", "FLUSH"]), "OK");
    assert_eq!(server.command(&["SCRIPT", "FLUSH"]), "OK");
    let _ = ask(&ledger, cents(1)).await.expect("nothing was lost");
    assert_eq!(store.inbox().pending(EscalationId::default(), 10).await.expect("no error"), []);
}
