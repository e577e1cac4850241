//! One provider hangs, the others do not notice.

use crate::{Fleet, LONG, MODELS, TICK, seconds};
use s2_coordinator::{ManualClock, SystemClock};
use s2_governor::{Bulkhead, BulkheadSettings, Error, Provider, ProviderName, ProviderSettings, Providers};
use s2_tests::START;
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tokio::task::yield_now;
use tokio::time::timeout;

const SEARCH: ProviderName = ProviderName::from_static("search");

fn bulkhead(concurrent: u32, waiting: u32) -> Bulkhead {
    let mut settings = BulkheadSettings::default();
    (settings.concurrent, settings.waiting) = (concurrent, waiting);
    Bulkhead::new(MODELS, settings, Arc::new(SystemClock::new())).expect("a bulkhead")
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(TICK).await;
        }
    };
    timeout(LONG, waiting).await.expect("it is so in the end");
}

/// How long all but one of a hundred calls take at most.
async fn p99(provider: &Provider, calls: usize) -> Duration {
    let mut took = Vec::with_capacity(calls);
    for _ in 0..calls {
        let begun = Instant::now();
        let answer = provider.call(async {
            yield_now().await;
            Ok::<_, String>(())
        });
        answer.await.expect("admitted").expect("an answer");
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    took[calls * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_that_wait_for_one_provider_do_not_hold_up_another() {
    let fleet = Fleet::in_memory();
    let providers = Providers::new(Arc::clone(&fleet.boards[0]));
    let mut settings = ProviderSettings::default();
    settings.bulkhead.waiting = 10_000;
    let hanging = providers.isolate(MODELS, settings).expect("isolated");
    let other = providers.isolate(SEARCH, ProviderSettings::default()).expect("isolated");
    let calls = 20_000;
    p99(&other, calls).await;
    let alone = p99(&other, calls).await;
    let waiting: Vec<_> = (0..10_010)
        .map(|_| {
            let hanging = hanging.clone();
            tokio::spawn(async move { hanging.call(std::future::pending::<Result<(), String>>()).await })
        })
        .collect();
    until(|| hanging.bulkhead().waiting() == 10_000).await;
    let beside = p99(&other, calls).await;
    println!("p99 alone {alone:?}, beside 10,000 that wait {beside:?}");
    assert!(beside < alone * 20 + Duration::from_millis(5), "{beside:?}, alone {alone:?}");
    let full = hanging.call(async { Ok::<_, String>(()) }).await.expect_err("the line is full");
    assert_eq!(full.to_string(), "provider models is busy: 10000 calls wait, the limit is 10000");
    for waiting in waiting {
        waiting.abort();
    }
    until(|| hanging.bulkhead().waiting() == 0 && hanging.bulkhead().running() == 0).await;
    hanging.call(async { Ok::<_, String>(()) }).await.expect("admitted").expect("an answer");
}

#[tokio::test]
async fn a_provider_that_nobody_isolated_is_not_asked() {
    let fleet = Fleet::in_memory();
    let providers = Providers::new(Arc::clone(&fleet.boards[0]));
    let error = providers.get("models").expect_err("not isolated");
    assert_eq!((error.code(), error.is_retryable()), ("S2_PROVIDER_NOT_ISOLATED", false));
    assert_eq!(error.to_string(), r#"provider "models" is not isolated; isolated are: none"#);
    providers.isolate(SEARCH, ProviderSettings::default()).expect("isolated");
    providers.isolate(SEARCH, ProviderSettings::default()).expect("it is the same");
    let mut settings = ProviderSettings::default();
    settings.bulkhead.concurrent = 3;
    let error = providers.isolate(SEARCH, settings).expect_err("others than before");
    assert_eq!(error.to_string(), r#"invalid provider "search": it is isolated already, with other settings"#);
    let Err(Error::ProviderNotIsolated { provider, known }) = providers.get("no name") else { panic!("not isolated") };
    assert_eq!((provider.as_str(), known), ("no name", vec![SEARCH]));
}

#[tokio::test]
async fn waiters_come_in_the_order_in_which_they_came_and_cancelled_ones_free_their_place() {
    let bulkhead = bulkhead(1, 2);
    let slot = bulkhead.enter().await.expect("a turn");
    let mut waiters: Vec<_> = (0..2)
        .map(|_| {
            let bulkhead = bulkhead.clone();
            tokio::spawn(async move { bulkhead.enter().await })
        })
        .collect();
    until(|| bulkhead.waiting() == 2).await;
    let full = bulkhead.enter().await.expect_err("there is no place");
    assert_eq!((full.waiting, full.limit, full.waited), (2, 2, Duration::ZERO));
    let first = waiters.remove(0);
    first.abort();
    assert!(first.await.expect_err("aborted").is_cancelled());
    assert_eq!(bulkhead.waiting(), 1);
    let third = tokio::spawn({
        let bulkhead = bulkhead.clone();
        async move { bulkhead.enter().await }
    });
    until(|| bulkhead.waiting() == 2).await;
    drop(slot);
    let second = waiters.remove(0).await.expect("no panic").expect("a turn");
    assert!(!third.is_finished());
    drop(second);
    drop(third.await.expect("no panic").expect("a turn"));
    assert_eq!((bulkhead.running(), bulkhead.waiting()), (0, 0));
}

#[tokio::test]
async fn who_has_waited_too_long_gives_up() {
    let clock = Arc::new(ManualClock::new(START));
    let mut settings = BulkheadSettings::default();
    (settings.concurrent, settings.longest_wait) = (1, Some(seconds(5)));
    let bulkhead = Bulkhead::new(MODELS, settings, Arc::<ManualClock>::clone(&clock)).expect("a bulkhead");
    let slot = bulkhead.enter().await.expect("a turn");
    let waiting = tokio::spawn({
        let bulkhead = bulkhead.clone();
        async move { bulkhead.enter().await }
    });
    until(|| bulkhead.waiting() == 1).await;
    clock.advance(seconds(5));
    let gave_up = waiting.await.expect("no panic").expect_err("it has waited for too long");
    assert_eq!((gave_up.waited, bulkhead.waiting()), (seconds(5), 0));
    drop(slot);
    assert_eq!(bulkhead.call(async { 7 }).await, Ok(7));
}

#[tokio::test]
async fn calls_that_block_have_threads_of_their_own_and_as_many_as_may() {
    let bulkhead = bulkhead(3, 100);
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let calls: Vec<_> = (0..30)
        .map(|_| {
            let (bulkhead, running, most) = (bulkhead.clone(), Arc::clone(&running), Arc::clone(&most));
            tokio::spawn(async move {
                let call = move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    thread::current().name().expect("a name").to_owned()
                };
                bulkhead.call_blocking(call).await.expect("an answer")
            })
        })
        .collect();
    let mut names = Vec::new();
    for call in calls {
        names.push(call.await.expect("no panic"));
    }
    names.sort();
    names.dedup();
    let own = ["provider-models-1", "provider-models-2", "provider-models-3"];
    assert!(names.iter().all(|name| own.contains(&name.as_str())), "{names:?}");
    assert!(most.load(Ordering::SeqCst) <= 3);
}

#[tokio::test]
async fn a_panic_ends_a_call_and_not_its_thread() {
    let bulkhead = bulkhead(1, 1);
    for _ in 0..3 {
        let error = bulkhead.call_blocking(|| -> u32 { panic!("no such model") }).await.expect_err("a panic");
        assert_eq!(error.to_string(), "a call to provider models panicked: no such model");
        assert_eq!(error.code(), "S2_CALL_PANICKED");
    }
    let name = bulkhead.call_blocking(|| thread::current().name().map(str::to_owned)).await.expect("an answer");
    assert_eq!(name.as_deref(), Some("provider-models-1"));
}

#[tokio::test]
async fn a_blocking_call_that_nobody_waits_for_keeps_its_place_until_it_ends() {
    let bulkhead = bulkhead(1, 0);
    let (go, gone) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    let call = tokio::spawn({
        let bulkhead = bulkhead.clone();
        async move {
            let call = move || {
                began.send(()).expect("somebody waits");
                let _ = gone.recv();
            };
            bulkhead.call_blocking(call).await
        }
    });
    until(|| bulkhead.running() == 1 && begun.try_recv().is_ok()).await;
    call.abort();
    assert!(call.await.expect_err("aborted").is_cancelled());
    assert!(bulkhead.enter().await.is_err(), "it still runs");
    drop(go);
    until(|| bulkhead.running() == 0).await;
}

#[tokio::test]
async fn threads_end_with_their_provider() {
    let bulkhead = bulkhead(2, 0);
    let (said, ended) = mpsc::channel::<()>();
    thread_local!(static KEPT: RefCell<Option<mpsc::Sender<()>>> = const { RefCell::new(None) });
    bulkhead.call_blocking(|| KEPT.set(Some(said))).await.expect("an answer");
    assert_eq!(ended.try_recv(), Err(mpsc::TryRecvError::Empty));
    drop(bulkhead);
    // Its end drops what the thread kept.
    assert_eq!(ended.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected));
}
