//! A provider that fails is left alone, and nobody else suffers.

use std::env;
use std::time::{Duration, Instant};

use s2_coordinator::{RedisStore, SchedulerExt, SwarmId, TaskId, TaskState};
use s2_core::{Context, Meter, S2, Settings};
use s2_tests::servers::RedisServer;
use s2_tests::workers::{Worker, is_worker};

use crate::{GRACE, LONG, On, cents, on_both, quick, until, within, work};

on_both! {
    provider_failure_isolated
    a_provider_that_hangs_takes_its_own_places_only
    a_provider_that_asks_for_patience_gets_it
    a_request_that_was_wrong_says_nothing_about_the_provider
}

const TWO: &str = "
providers:
  broken: { bulkhead: { concurrent: 2, waiting: 1 }, breaker: { minimum_calls: 5, open_ms: 1000, probes: 1 } }
  well: {}
";

fn settings() -> Settings {
    crate::settings(TWO)
}

/// Asks the provider that the task names.
async fn asks(cx: Context) -> Result<u32, s2_core::TaskError> {
    let provider: String = cx.task().json()?;
    let call = async |_: Meter| match provider.as_str() {
        "broken" => Err("status 500".to_owned()),
        _ => Ok(cx.attempt()),
    };
    let answer = cx.spend(&provider, cents(1), call).await;
    answer.map_err(|error| match error {
        s2_core::SpendError::BreakerOpen(open) => s2_core::TaskError::from(open),
        s2_core::SpendError::BulkheadFull(full) => s2_core::TaskError::from(full),
        other => s2_core::TaskError::retry(other),
    })
}

async fn provider_failure_isolated(on: On) {
    let mut config = quick();
    config.attempts = 5;
    let fleet = on.with(config, settings(), false).await;
    for nth in 0..4 {
        fleet.s2.session(format!("session-{nth}")).run(asks).await.expect("a session");
    }
    let broken =
        fleet.s2.scheduler().submit(&vec![work().with_json("broken").expect("JSON"); 10]).await.expect("submitted");
    let well =
        fleet.s2.scheduler().submit(&vec![work().with_json("well").expect("JSON"); 40]).await.expect("submitted");
    for submitted in well {
        assert_eq!(fleet.done::<u32>(submitted.id).await, 1);
    }
    let provider = fleet.s2.providers().get("broken").expect("a provider");
    until(async || provider.breaker().verdict().trips > 0).await;
    let explained = fleet.s2.why(broken[9].id).await.expect("a reason");
    assert_eq!(explained.breakers.len(), 1, "{explained}");
    assert!(explained.to_string().contains("provider broken is left alone until "), "{explained}");
    // Ten tasks that ask again and again: only calls that were made are attempts, and only they cost something.
    let mut failures = 0;
    for submitted in &broken {
        failures += fleet.failures(submitted.id).await;
    }
    assert!(failures < 50, "not all attempts of all tasks are used up: {failures}");
    let mut spent = 0;
    for nth in 0..4 {
        spent += fleet.balance(&format!("session-{nth}")).await.spent.as_nanos();
    }
    assert!(spent >= (40 + u64::from(failures)) * cents(1).as_nanos(), "{spent} for {failures} failures");
    fleet.s2.shutdown(GRACE).await;
}

async fn a_provider_that_hangs_takes_its_own_places_only(on: On) {
    let fleet = on.with(quick(), settings(), false).await;
    let session = fleet.s2.session("one").concurrency(10).run(async |cx: Context| {
        let provider: String = cx.task().json()?;
        let call = async |_: Meter| {
            if provider == "broken" {
                std::future::pending::<()>().await;
            }
            Ok::<_, std::io::Error>(cx.attempt())
        };
        Ok(cx.spend(&provider, cents(1), call).await?)
    });
    session.await.expect("a session");
    // Two hang, one waits, and the others hear at once that there is no room; they are handed back, without an attempt.
    let hang =
        fleet.s2.scheduler().submit(&vec![work().with_json("broken").expect("JSON"); 5]).await.expect("submitted");
    let provider = fleet.s2.providers().get("broken").expect("a provider");
    until(async || provider.bulkhead().running() == 2 && provider.bulkhead().waiting() == 1).await;
    let begun = Instant::now();
    for _ in 0..20 {
        let id = fleet.submit(work().with_json("well").expect("JSON")).await;
        assert_eq!(fleet.done::<u32>(id).await, 1);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for submitted in hang {
        assert_eq!(fleet.failures(submitted.id).await, 0);
    }
    fleet.s2.shutdown(Duration::ZERO).await;
    assert_eq!((provider.bulkhead().running(), provider.bulkhead().waiting()), (0, 0));
}

async fn a_provider_that_asks_for_patience_gets_it(on: On) {
    let fleet = on.with(quick(), settings(), false).await;
    let session = fleet.s2.session("one").run(async |cx: Context| {
        let call = async |meter: Meter| {
            meter.throttled(Some(Duration::from_secs(3_600)));
            Err::<u32, _>(std::io::Error::other("status 429"))
        };
        Ok(cx.spend("well", cents(1), call).await?)
    });
    session.await.expect("a session");
    let id = fleet.submit(work()).await;
    let provider = fleet.s2.providers().get("well").expect("a provider");
    // The call that was throttled was an attempt; from then on nobody asks, and the task waits for as long as it was told: the
    // ten minutes that a provider may ask for at most.
    until(async || fleet.failures(id).await == 1 && fleet.state(id).await == TaskState::Ready).await;
    until(async || matches!(fleet.s2.scheduler().why(id).await, Ok(s2_coordinator::Why::Refused { .. }))).await;
    let s2_coordinator::Why::Refused { until: again } = fleet.s2.scheduler().why(id).await.expect("a task") else {
        panic!("refused")
    };
    let cools = provider.breaker().verdict().cool_down.expect("it asked for patience");
    // The task was refused in a later step than the one that read the clock.
    assert!(again >= cools && again.since(cools) < Duration::from_secs(1), "{again} is not {cools}");
    assert_eq!(fleet.s2.why(id).await.expect("a reason").breakers[0].until, Some(cools));
    assert_eq!(provider.breaker().verdict().trips, 0, "a limit is no fault");
    assert_eq!(fleet.balance("one").await.spent, cents(0));
    fleet.s2.shutdown(GRACE).await;
}

async fn a_request_that_was_wrong_says_nothing_about_the_provider(on: On) {
    let fleet = on.with(quick(), settings(), false).await;
    let session = fleet.s2.session("one").join().await.expect("a session");
    fleet.submit(work()).await;
    let job = within(session.next()).await.expect("no error").expect("a job");
    for _ in 0..20 {
        let call = async |meter: Meter| {
            meter.not_the_provider();
            Err::<(), _>("status 400")
        };
        let failed = job.spend("broken", cents(1), call).await.expect_err("it was wrong");
        assert_eq!(failed.code(), "S2_CALL_FAILED");
    }
}

const FLEET: SwarmId = SwarmId::from_static("fleet");

async fn process(url: &str) -> S2 {
    let mut config = quick();
    config.attempts = 5;
    let store = RedisStore::builder(FLEET).with_config(config).connect(url).await.expect("a fleet");
    S2::builder().with_settings(settings()).on_redis(&store).await.expect("a fleet")
}

/// A worker's main: a session that asks the providers that its tasks name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a worker of the tests in this file"]
async fn asker() {
    if !is_worker() {
        return;
    }
    let s2 = process(&env::var("URL").expect("a URL")).await;
    s2.session(env::var("SESSION").expect("a name")).concurrency(4).run(asks).await.expect("a session");
    println!("there");
    std::future::pending::<()>().await;
}

/// Three processes ask a provider that fails, and one that does not: all of them leave the first one alone, and the second one
/// answers everything at the first attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_provider_is_left_alone_by_all_processes() {
    let server = RedisServer::start_volatile();
    let s2 = process(&server.url()).await;
    let mut workers: Vec<Worker> = (0..3)
        .map(|nth| Worker::spawn("providers::asker", &[("URL", server.url()), ("SESSION", format!("session-{nth}"))]))
        .collect();
    assert!(workers.iter_mut().all(|worker| worker.line(LONG).as_deref() == Some("there")));
    let named = |provider: &str, count| vec![work().with_json(provider).expect("JSON"); count];
    s2.scheduler().submit(&named("broken", 30)).await.expect("submitted");
    let well = s2.scheduler().submit(&named("well", 100)).await.expect("submitted");
    let ids: Vec<TaskId> = well.iter().map(|submitted| submitted.id).collect();
    for id in ids {
        let outcome = within(s2.scheduler().wait(id)).await.expect("an outcome");
        assert_eq!(outcome.result().expect("done").json::<u32>().expect("a number"), 1);
    }
    let broken = s2.providers().get("broken").expect("a provider");
    until(async || broken.breaker().refresh().await.expect("the board").trips > 0).await;
    let last = s2.scheduler().submit_one(&work().with_json("well").expect("JSON")).await.expect("submitted").id;
    within(s2.scheduler().wait(last)).await.expect("an outcome");
}
