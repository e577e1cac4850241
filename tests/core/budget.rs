//! Budget enforcement: whoever has spent all stops claiming, a person is asked, and a decision, or midnight, lets it go on.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use s2_coordinator::{EscalationId, RedisStore, Resolution, SchedulerExt, SwarmId, TaskState};
use s2_core::{Context, S2, Settings};
use s2_governor::{BudgetLedgerExt, Limit, ProviderName, ProviderSettings};
use s2_tests::servers::RedisServer;
use s2_tests::workers::{Worker, is_worker};

use crate::{Fleet, GRACE, LONG, On, cents, name, on_both, until, within, work};

on_both! {
    budget_enforcement_trips_circuit_breaker
    midnight_lets_it_go_on
    a_halted_swarm_stops_all_of_its_sessions_and_nobody_else
    a_session_that_has_waited_for_long_claims_nothing_once_it_is_halted
    a_loop_of_ones_own_claims_nothing_while_it_is_halted
}

/// A session that spends ten cents for each task, and how many it has begun.
async fn spender(s2: &S2, session: &str) -> Arc<AtomicUsize> {
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let session = s2.session(session).run(move |cx: Context| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            cx.spend("models", cents(10), async |_| Ok::<_, std::io::Error>(())).await?;
            Ok(cx.session().clone())
        }
    });
    session.await.expect("a session");
    begun
}

/// Whether nothing is begun, however often there is something to do.
async fn nothing_begins(fleet: &Fleet, begun: &AtomicUsize) {
    let before = begun.load(Ordering::SeqCst);
    for _ in 0..100 {
        if fleet.clock.is_some() {
            fleet.advance(Duration::from_secs(1));
        }
        tokio::time::sleep(crate::TICK).await;
    }
    assert_eq!(begun.load(Ordering::SeqCst), before, "it has begun something");
}

async fn budget_enforcement_trips_circuit_breaker(on: On) {
    let fleet = on.still().await;
    fleet.s2.ledger().set_limit(&name("telephony/one"), Limit::PerDay(cents(20))).await.expect("a limit");
    let begun = spender(&fleet.s2, "telephony/one").await;
    let ids = fleet.s2.scheduler().submit(&vec![work(); 3]).await.expect("submitted");
    fleet.done::<SwarmId>(ids[1].id).await;
    nothing_begins(&fleet, &begun).await;
    assert_eq!((fleet.state(ids[2].id).await, fleet.failures(ids[2].id).await), (TaskState::Ready, 0));
    let explained = fleet.s2.why(ids[2].id).await.expect("a reason");
    assert_eq!(explained.halted.len(), 1, "{explained}");
    assert!(
        explained.to_string().contains("telephony/one is halted: budget_exceeded, spent $0.20 of $0.20"),
        "{explained}"
    );
    let asked = fleet.s2.inbox().pending(EscalationId::default(), 10).await.expect("the inbox");
    assert_eq!((asked.len(), asked[0].reason.as_str()), (1, "budget_exceeded"));
    let payload: serde_json::Value = serde_json::from_slice(&asked[0].payload).expect("JSON");
    assert_eq!((&payload["cost_incurred"], &payload["budget_original"]), (&"$0.20".into(), &"$0.20".into()));
    fleet.s2.resolve(asked[0].id, Resolution::new("danny", "resume")).await.expect("resolved");
    until(async || {
        fleet.advance(Duration::from_secs(1));
        begun.load(Ordering::SeqCst) >= 3
    })
    .await;
    // It may try again; but there is nothing left, so its limit is raised.
    fleet.s2.ledger().set_limit(&name("telephony/one"), Limit::PerDay(cents(50))).await.expect("a limit");
    until(async || {
        fleet.advance(Duration::from_secs(1));
        fleet.state(ids[2].id).await == TaskState::Done
    })
    .await;
    assert_eq!(fleet.failures(ids[2].id).await, 0, "a refused budget is no attempt");
    fleet.s2.shutdown(GRACE).await;
}

async fn midnight_lets_it_go_on(on: On) {
    let fleet = on.still().await;
    fleet.s2.ledger().set_limit(&name("telephony"), Limit::PerDay(cents(10))).await.expect("a limit");
    let begun = spender(&fleet.s2, "telephony/one").await;
    let ids = fleet.s2.scheduler().submit(&vec![work(); 2]).await.expect("submitted");
    fleet.done::<SwarmId>(ids[0].id).await;
    nothing_begins(&fleet, &begun).await;
    // The tests begin at nine in the morning, UTC.
    fleet.advance(Duration::from_secs(15 * 60 * 60));
    fleet.done::<SwarmId>(ids[1].id).await;
    assert_eq!(fleet.balance("telephony").await.spent, cents(10), "of the new day");
    fleet.s2.shutdown(GRACE).await;
}

async fn a_halted_swarm_stops_all_of_its_sessions_and_nobody_else(on: On) {
    let fleet = on.fleet().await;
    let other = fleet.again().await;
    fleet.s2.ledger().halt(&name("telephony"), "maintenance").await.expect("halted");
    let one = spender(&fleet.s2, "telephony/sip/one").await;
    let two = spender(&other, "telephony/ndi/two").await;
    spender(&other, "video/three").await;
    for _ in 0..10 {
        let id = fleet.submit(work()).await;
        assert_eq!(fleet.done::<SwarmId>(id).await, name("video/three"));
    }
    assert_eq!((one.load(Ordering::SeqCst), two.load(Ordering::SeqCst)), (0, 0));
    fleet.s2.shutdown(GRACE).await;
    other.shutdown(GRACE).await;
}

/// It waits for a task when its account is halted by somebody else: then there is one.
async fn a_session_that_has_waited_for_long_claims_nothing_once_it_is_halted(on: On) {
    let fleet = on.still().await;
    let begun = spender(&fleet.s2, "telephony/one").await;
    let first = fleet.submit(work()).await;
    fleet.done::<SwarmId>(first).await;
    for _ in 0..50 {
        tokio::time::sleep(crate::TICK).await;
    }
    fleet.advance(Duration::from_secs(5));
    fleet.s2.ledger().halt(&name("telephony"), "maintenance").await.expect("halted");
    let id = fleet.submit(work()).await;
    nothing_begins(&fleet, &begun).await;
    assert_eq!((begun.load(Ordering::SeqCst), fleet.failures(id).await), (1, 0));
    fleet.s2.ledger().resume(&name("telephony")).await.expect("resumed");
    until(async || {
        fleet.advance(Duration::from_secs(1));
        fleet.state(id).await == TaskState::Done
    })
    .await;
    fleet.s2.shutdown(GRACE).await;
}

async fn a_loop_of_ones_own_claims_nothing_while_it_is_halted(on: On) {
    let fleet = on.still().await;
    fleet.s2.ledger().halt(&name("telephony"), "maintenance").await.expect("halted");
    let session = fleet.s2.session("telephony/one").join().await.expect("a session");
    let id = fleet.submit(work()).await;
    let mut next = Box::pin(session.next());
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut next).await.is_err());
    assert_eq!(fleet.state(id).await, TaskState::Ready);
    fleet.s2.ledger().resume(&name("telephony")).await.expect("resumed");
    fleet.advance(Duration::from_secs(5));
    let job = within(next).await.expect("no error").expect("a job");
    job.complete(&()).await.expect("completed");
}

const FLEET: SwarmId = SwarmId::from_static("fleet");

async fn process(url: &str) -> S2 {
    let mut settings = Settings::default();
    settings.providers.insert(ProviderName::from_static("models"), ProviderSettings::default());
    let store = RedisStore::connect(url, FLEET).await.expect("a fleet");
    S2::builder().with_settings(settings).on_redis(&store).await.expect("a fleet")
}

/// A worker's main: a session that spends ten cents for each task, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a worker of the tests in this file"]
async fn spends() {
    if !is_worker() {
        return;
    }
    let s2 = process(&env::var("URL").expect("a URL")).await;
    spender(&s2, &env::var("SESSION").expect("a name")).await;
    println!("there");
    std::future::pending::<()>().await;
}

/// The seeds' scenario over several processes: the swarm's budget trips, everybody in it stops, a person is asked once, and all go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_trips_over_several_processes() {
    let server = RedisServer::start_volatile();
    let s2 = process(&server.url()).await;
    let swarm = name("telephony");
    s2.ledger().set_limit(&swarm, Limit::PerDay(cents(100))).await.expect("a limit");
    let mut workers: Vec<Worker> = (0..3)
        .map(|nth| {
            let args = [("URL", server.url()), ("SESSION", format!("telephony/session-{nth}"))];
            Worker::spawn("budget::spends", &args)
        })
        .collect();
    assert!(workers.iter_mut().all(|worker| worker.line(LONG).as_deref() == Some("there")));
    let mut ids = Vec::new();
    for _ in 0..15 {
        ids.push(s2.scheduler().submit_one(&work()).await.expect("submitted").id);
    }
    until(async || s2.ledger().balance(&swarm).await.expect("a balance").halted.is_some()).await;
    let balance = s2.ledger().balance(&swarm).await.expect("a balance");
    assert_eq!((balance.spent, balance.held, balance.overrun()), (cents(100), cents(0), cents(0)));
    let asked = s2.inbox().pending(EscalationId::default(), 10).await.expect("the inbox");
    assert_eq!((asked.len(), asked[0].reason.as_str()), (1, "budget_exceeded"));
    let stats = s2.scheduler().stats().await.expect("stats");
    assert_eq!(stats.unfinished(), 5);
    s2.ledger().set_limit(&swarm, Limit::PerDay(cents(1_000))).await.expect("a limit");
    for id in ids {
        let status = s2.scheduler().task(id).await.expect("a task");
        assert_eq!(status.failures, 0);
        let outcome = within(s2.scheduler().wait(id)).await.expect("an outcome");
        assert!(outcome.result().is_some(), "{outcome:?}");
    }
    assert_eq!(s2.ledger().balance(&swarm).await.expect("a balance").spent, cents(150));
}
