//! Calls that cost money: each is paid once and exactly, and what was not made costs nothing.

use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::TaskState;
use s2_core::{Context, Job, Meter, SpendError, TaskError};
use s2_governor::{BreakerSettings, BulkheadSettings, ForcedTo, Limit, NanoUsd};
use tokio::sync::{Notify, mpsc};

use crate::{Fleet, GRACE, On, cents, name, on_both, patient, settings, until, within, work};

on_both! {
    a_call_costs_what_it_says_and_holds_nothing_more
    an_attempt_that_is_repeated_pays_anew
    calls_of_one_claim_are_paid_each
    a_call_that_is_dropped_is_presumed_once_its_time_is_over
    a_call_longer_than_its_reservation_stays_held
    a_call_that_was_not_made_costs_nothing
    a_refused_budget_hands_the_task_back_until_there_is_money
    a_panic_in_a_call_leaves_no_place_taken
    a_handler_that_loses_its_claim_in_a_call_leaves_what_it_held
    a_call_that_settles_late_is_exact_again
}

async fn job(fleet: &Fleet) -> Job {
    let session = fleet.s2.session("telephony/one").concurrency(100).join().await.expect("a session");
    fleet.submit(work()).await;
    within(session.next()).await.expect("no error").expect("a job")
}

/// What is spent, held, and presumed.
async fn money(fleet: &Fleet) -> (NanoUsd, NanoUsd, NanoUsd) {
    let swarm = fleet.balance("telephony").await;
    let session = fleet.balance("telephony/one").await;
    assert_eq!((swarm.spent, swarm.held), (session.spent, session.held), "all levels are posted alike");
    (session.spent, session.held, session.presumed)
}

const NOTHING: NanoUsd = NanoUsd::ZERO;

async fn a_call_costs_what_it_says_and_holds_nothing_more(on: On) {
    let fleet = on.fleet().await;
    let job = job(&fleet).await;
    let cheaper = async |meter: Meter| {
        assert_eq!(money(&fleet).await, (NOTHING, cents(10), NOTHING));
        meter.actual(cents(9));
        meter.actual(cents(3));
        Ok::<_, std::io::Error>("an answer")
    };
    assert_eq!(job.spend("models", cents(10), cheaper).await.expect("answered"), "an answer");
    assert_eq!(money(&fleet).await, (cents(3), NOTHING, NOTHING));
    job.spend("models", cents(10), async |_| Ok::<_, std::io::Error>(())).await.expect("answered");
    assert_eq!(money(&fleet).await, (cents(13), NOTHING, NOTHING), "without a word it is the estimate");
    let dearer = async |meter: Meter| {
        meter.actual(cents(20));
        Err::<(), _>("status 500")
    };
    let failed = job.spend("models", cents(10), dearer).await.expect_err("it failed");
    assert_eq!((failed.code(), failed.into_call()), ("S2_CALL_FAILED", Some("status 500")));
    assert_eq!(money(&fleet).await, (cents(33), NOTHING, NOTHING), "it was billed all the same");
    let throttled = async |meter: Meter| {
        meter.throttled(Some(Duration::ZERO));
        Err::<(), _>("status 429")
    };
    job.spend("models", cents(10), throttled).await.expect_err("it was throttled");
    assert_eq!(money(&fleet).await, (cents(33), NOTHING, NOTHING), "429 costs nothing");
}

async fn an_attempt_that_is_repeated_pays_anew(on: On) {
    let fleet = on.fleet().await;
    let session = fleet.s2.session("telephony/one").run(async |cx: Context| {
        cx.spend("models", cents(10), async |_| Ok::<_, std::io::Error>(())).await?;
        if cx.attempt() < 3 { Err(TaskError::retry("not yet")) } else { Ok(cx.attempt()) }
    });
    session.await.expect("a session");
    let id = fleet.submit(work()).await;
    assert_eq!(fleet.done::<u32>(id).await, 3);
    assert_eq!(money(&fleet).await, (cents(30), NOTHING, NOTHING));
    fleet.s2.shutdown(GRACE).await;
}

async fn calls_of_one_claim_are_paid_each(on: On) {
    let fleet = on.fleet().await;
    let job = job(&fleet).await;
    let call = || job.spend("models", cents(1), async |_| Ok::<_, std::io::Error>(()));
    let (one, two, three) = tokio::join!(call(), call(), call());
    let inner = async |_| job.spend("models", cents(5), async |_| Ok::<_, std::io::Error>(())).await;
    job.spend("models", cents(10), inner).await.expect("one call within another");
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!(money(&fleet).await, (cents(18), NOTHING, NOTHING));
}

async fn a_call_that_is_dropped_is_presumed_once_its_time_is_over(on: On) {
    let fleet = on.still().await;
    let job = job(&fleet).await;
    let begun = Notify::new();
    let call = async |_| {
        begun.notify_one();
        std::future::pending::<Result<(), std::io::Error>>().await
    };
    tokio::select! {
        _ = job.spend("models", cents(10), call) => panic!("it does not end"),
        () = within(begun.notified()) => {}
    }
    assert_eq!(money(&fleet).await, (NOTHING, cents(10), NOTHING));
    fleet.advance(Duration::from_secs(11 * 60));
    assert_eq!(money(&fleet).await, (cents(10), NOTHING, cents(10)));
}

async fn a_call_longer_than_its_reservation_stays_held(on: On) {
    let fleet = on.still().await;
    let job = job(&fleet).await;
    let (begun, ends) = (Notify::new(), Notify::new());
    let call = async |meter: Meter| {
        begun.notify_one();
        ends.notified().await;
        meter.actual(cents(4));
        Ok::<_, std::io::Error>(())
    };
    let lasts = async {
        begun.notified().await;
        for _ in 0..10 {
            // What holds for ten minutes is extended in the middle of them, in the background.
            fleet.advance(Duration::from_secs(6 * 60));
            for _ in 0..20 {
                tokio::time::sleep(crate::TICK).await;
            }
        }
        assert_eq!(money(&fleet).await, (NOTHING, cents(10), NOTHING), "after an hour");
        ends.notify_one();
    };
    let (spent, ()) = within(async { tokio::join!(job.spend("models", cents(10), call), lasts) }).await;
    spent.expect("answered");
    assert_eq!(money(&fleet).await, (cents(4), NOTHING, NOTHING));
}

/// A process that stood still for as long as the reservation: what the call has cost takes the place of what was presumed.
async fn a_call_that_settles_late_is_exact_again(on: On) {
    let fleet = on.still().await;
    let job = job(&fleet).await;
    let call = async |meter: Meter| {
        fleet.advance(Duration::from_secs(20 * 60));
        assert_eq!(money(&fleet).await, (cents(10), NOTHING, cents(10)));
        meter.actual(cents(4));
        Ok::<_, std::io::Error>(())
    };
    job.spend("models", cents(10), call).await.expect("answered");
    assert_eq!(money(&fleet).await, (cents(4), NOTHING, NOTHING));
}

async fn a_call_that_was_not_made_costs_nothing(on: On) {
    let mut settings = settings("");
    let models = settings.providers.values_mut().next().expect("models");
    let mut bulkhead = BulkheadSettings::default();
    (bulkhead.concurrent, bulkhead.waiting) = (1, 0);
    *models = models.clone().with_bulkhead(bulkhead).with_breaker(BreakerSettings::default());
    let fleet = on.with(patient(), settings, false).await;
    let job = job(&fleet).await;
    fn never(_: Meter) -> std::future::Ready<Result<(), std::io::Error>> {
        panic!("it was made")
    }
    let unknown = job.spend("nobody", cents(1), never).await.expect_err("nobody has named it");
    assert_eq!(unknown.code(), "S2_PROVIDER_NOT_ISOLATED");
    let within_another = async |_| {
        let busy = job.spend("models", cents(1), never).await.expect_err("its only place is taken");
        assert_eq!(busy.code(), "S2_BULKHEAD_FULL");
        Ok::<_, std::io::Error>(())
    };
    job.spend("models", cents(1), within_another).await.expect("answered");
    assert_eq!(money(&fleet).await, (cents(1), NOTHING, NOTHING));
    let provider = fleet.s2.providers().get("models").expect("a provider");
    provider.breaker().force(ForcedTo::Open, "a person", "maintenance").await.expect("forced");
    let open = job.spend("models", cents(1), never).await.expect_err("it is left alone");
    assert_eq!(open.code(), "S2_BREAKER_OPEN");
    provider.breaker().clear("a person").await.expect("cleared");
    fleet.s2.ledger().set_limit(&name("telephony"), Limit::PerDay(cents(5))).await.expect("a limit");
    let poor = job.spend("models", cents(5), never).await.expect_err("there is not as much");
    assert!(matches!(&poor, SpendError::Denied(denied) if denied.available == cents(4)), "{poor:?}");
    assert_eq!(money(&fleet).await, (cents(1), NOTHING, NOTHING));
    job.spend("models", cents(4), async |_| Ok::<_, std::io::Error>(())).await.expect("its place is free");
}

async fn a_refused_budget_hands_the_task_back_until_there_is_money(on: On) {
    let fleet = on.fleet().await;
    fleet.s2.ledger().set_limit(&name("telephony"), Limit::PerDay(cents(5))).await.expect("a limit");
    let (said, mut heard) = mpsc::unbounded_channel();
    let session = fleet.s2.session("telephony/one").run(move |cx: Context| {
        let said = said.clone();
        async move {
            said.send(cx.attempt()).expect("somebody listens");
            cx.spend("models", cents(10), async |_| Ok::<_, std::io::Error>(())).await?;
            Ok(cx.attempt())
        }
    });
    session.await.expect("a session");
    let id = fleet.submit(work()).await;
    for _ in 0..5 {
        assert_eq!(within(heard.recv()).await, Some(1));
    }
    assert_eq!(fleet.failures(id).await, 0);
    fleet.s2.ledger().set_limit(&name("telephony"), Limit::Unlimited).await.expect("a limit");
    assert_eq!(fleet.done::<u32>(id).await, 1);
    fleet.s2.shutdown(GRACE).await;
}

async fn a_panic_in_a_call_leaves_no_place_taken(on: On) {
    let mut settings = settings("");
    let models = settings.providers.values_mut().next().expect("models");
    let mut bulkhead = BulkheadSettings::default();
    (bulkhead.concurrent, bulkhead.waiting) = (1, 0);
    *models = models.clone().with_bulkhead(bulkhead);
    let fleet = on.with(crate::quick(), settings, false).await;
    let session = fleet.s2.session("telephony/one").run(async |cx: Context| {
        let call = async |_| {
            assert!(cx.attempt() > 2, "in the middle of a call");
            Ok::<_, std::io::Error>(cx.attempt())
        };
        Ok(cx.spend("models", cents(10), call).await?)
    });
    session.await.expect("a session");
    let id = fleet.submit(work()).await;
    assert_eq!(fleet.done::<u32>(id).await, 3);
    assert_eq!(money(&fleet).await, (cents(10), cents(20), NOTHING), "what two calls may have cost is held");
    fleet.s2.shutdown(GRACE).await;
}

async fn a_handler_that_loses_its_claim_in_a_call_leaves_what_it_held(on: On) {
    let fleet = on.still().await;
    let begun = Arc::new(Notify::new());
    let begins = Arc::clone(&begun);
    let session = fleet.s2.session("telephony/one").run(move |cx: Context| {
        let begins = Arc::clone(&begins);
        async move {
            let call = async |_| {
                begins.notify_one();
                std::future::pending::<Result<(), std::io::Error>>().await
            };
            Ok(cx.spend("models", cents(10), call).await?)
        }
    });
    session.await.expect("a session");
    let id = fleet.submit(work()).await;
    within(begun.notified()).await;
    fleet.s2.scheduler().cancel(id, "enough".into()).await.expect("cancelled");
    let provider = fleet.s2.providers().get("models").expect("a provider");
    until(async || provider.bulkhead().running() == 0).await;
    assert_eq!(money(&fleet).await, (NOTHING, cents(10), NOTHING));
    fleet.advance(Duration::from_secs(11 * 60));
    assert_eq!(money(&fleet).await, (cents(10), NOTHING, cents(10)));
    assert_eq!(fleet.state(id).await, TaskState::Cancelled);
    fleet.s2.shutdown(GRACE).await;
}
