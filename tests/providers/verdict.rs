//! What two processes agree about a provider.

use crate::{Fleet, fail, is_half_open, number, permit, refreshed, refusal, seconds};
use s2_coordinator::Severity;
use s2_governor::{BreakerSettings, BreakerState, ForcedTo, Permit, WhyOpen, Window};

#[tokio::test]
async fn what_one_opens_is_open_for_the_other_and_both_find_out_together_that_it_is_back() {
    for fleet in Fleet::each().await {
        let [one, other] = fleet.breakers(&BreakerSettings::default());
        fail(&one, 10).await;
        refreshed(&other).await;
        assert_eq!(refusal(&one).await, (WhyOpen::Tripped, Some(30)));
        assert_eq!(refusal(&other).await, (WhyOpen::Tripped, Some(30)));
        fleet.clock.advance(seconds(30));
        let first = permit(&other).await;
        refreshed(&one).await;
        let mut probes = vec![first, permit(&one).await, permit(&one).await];
        refreshed(&other).await;
        probes.extend([permit(&other).await, permit(&other).await]);
        refreshed(&one).await;
        assert!(probes.iter().all(Permit::is_probe));
        assert_eq!(refusal(&one).await, (WhyOpen::Probing, Some(150)));
        assert_eq!(refusal(&other).await, (WhyOpen::Probing, Some(150)));
        // Two may fail of five, so three that do not decide it.
        for probe in probes.drain(..3) {
            probe.success();
        }
        refreshed(&one).await;
        refreshed(&other).await;
        refreshed(&one).await;
        for breaker in [&one, &other] {
            assert_eq!((breaker.verdict().state, breaker.verdict().trips), (BreakerState::Closed, 0));
            assert!(!permit(breaker).await.is_probe());
        }
        assert_eq!(fleet.told().await, ["open models", "half_open models", "close models"]);
        let open = fleet.entries().await.into_iter().find(|entry| &*entry.operation == "open").expect("an entry");
        assert_eq!((number(&open, "calls"), number(&open, "failed"), number(&open, "slow")), (10, 10, 0));
        assert_eq!(open.severity, Severity::High);
    }
}

#[tokio::test]
async fn it_stays_open_longer_each_time_that_probes_fail_but_not_for_ever() {
    for fleet in Fleet::each().await {
        let [one, _] = fleet.breakers(&BreakerSettings::default());
        fail(&one, 10).await;
        let mut begun = 0;
        for length in [30, 60, 120, 240, 480, 600, 600] {
            assert_eq!(refusal(&one).await, (WhyOpen::Tripped, Some(begun + length)));
            begun += length;
            fleet.clock.advance(seconds(length));
            // Three of five that fail decide it.
            let [first, second, third] = [permit(&one).await, permit(&one).await, permit(&one).await];
            first.failure("status 500");
            second.success();
            third.failure("status 500");
            assert!(is_half_open(&one.verdict()));
            permit(&one).await.failure("status 500");
            refreshed(&one).await;
        }
    }
}

#[tokio::test]
async fn what_was_asked_before_the_last_change_says_nothing() {
    for fleet in Fleet::each().await {
        let [one, other] = fleet.breakers(&BreakerSettings::default());
        let (old, older) = (permit(&one).await, permit(&other).await);
        fail(&one, 10).await;
        let open = refreshed(&one).await;
        old.failure("late");
        assert_eq!(refreshed(&one).await, open);
        fleet.clock.advance(seconds(30));
        let probes = [permit(&one).await, permit(&one).await, permit(&one).await, permit(&one).await];
        refreshed(&other).await;
        older.success();
        assert_eq!(refreshed(&other).await.state, refreshed(&one).await.state);
        let mut probes = probes.into_iter();
        for probe in probes.by_ref().take(3) {
            probe.failure("status 500");
        }
        let open = refreshed(&one).await;
        assert!(matches!(open.state, BreakerState::Open { .. }), "{open:?}");
        // A probe that comes back late says nothing either, but that it is back.
        probes.for_each(Permit::success);
        let later = refreshed(&one).await;
        assert_eq!((later.state, later.probes.len(), open.probes.len()), (open.state, 0, 1));
    }
}

#[tokio::test]
async fn calls_of_former_times_do_not_open_what_has_closed_since() {
    for fleet in Fleet::each().await {
        let [one, _] = fleet.breakers(&BreakerSettings::default());
        let mut old = Vec::new();
        for _ in 0..20 {
            old.push(permit(&one).await);
        }
        fail(&one, 10).await;
        fleet.clock.advance(seconds(30));
        for _ in 0..3 {
            permit(&one).await.success();
        }
        let closed = refreshed(&one).await;
        assert_eq!(closed.state, BreakerState::Closed);
        old.into_iter().for_each(|permit| permit.failure("late"));
        assert_eq!(refreshed(&one).await, closed);
        fail(&one, 9).await;
        assert_eq!(refreshed(&one).await, closed, "they are not counted either");
        fail(&one, 1).await;
        assert!(matches!(one.verdict().state, BreakerState::Open { .. }));
    }
}

#[tokio::test]
async fn cancelled_probes_are_given_back_and_those_that_never_come_back_have_failed() {
    for fleet in Fleet::each().await {
        let [one, other] = fleet.breakers(&BreakerSettings::default());
        fail(&one, 10).await;
        fleet.clock.advance(seconds(30));
        for _ in 0..20 {
            drop(permit(&one).await);
            permit(&one).await.cancelled();
            permit(&one).await.throttled(Some(std::time::Duration::ZERO));
        }
        let verdict = refreshed(&one).await;
        assert!(is_half_open(&verdict) && verdict.probes.is_empty(), "{verdict:?}");
        for _ in 0..5 {
            std::mem::forget(permit(&one).await);
        }
        assert_eq!(refusal(&one).await, (WhyOpen::Probing, Some(150)));
        fleet.clock.advance(seconds(120));
        refreshed(&other).await;
        // Whoever comes next notices: it did not go well.
        assert_eq!(refusal(&other).await, (WhyOpen::Tripped, Some(150 + 60)));
        fleet.clock.advance(seconds(60));
        for _ in 0..3 {
            permit(&other).await.success();
            refreshed(&other).await;
        }
        assert_eq!(refreshed(&one).await.state, BreakerState::Closed);
    }
}

#[tokio::test]
async fn who_asks_for_patience_gets_it_from_everybody_and_has_not_failed() {
    for fleet in Fleet::each().await {
        let [one, other] = fleet.breakers(&BreakerSettings::default());
        let waiting: Vec<_> = [permit(&one).await, permit(&one).await, permit(&one).await].into();
        let long = permit(&other).await;
        for (nth, permit) in waiting.into_iter().enumerate() {
            fleet.clock.advance(seconds(nth as u64) / 10);
            // They were refused together: it is one cool-down.
            permit.throttled(Some(seconds(20)));
        }
        refreshed(&one).await;
        refreshed(&other).await;
        assert_eq!(refusal(&one).await, (WhyOpen::CoolingDown, Some(20)));
        assert_eq!(refusal(&other).await, (WhyOpen::CoolingDown, Some(20)));
        long.throttled(Some(seconds(100_000)));
        refreshed(&other).await;
        refreshed(&one).await;
        assert_eq!(refusal(&one).await, (WhyOpen::CoolingDown, Some(600)));
        fleet.clock.advance(seconds(600));
        for _ in 0..100 {
            permit(&one).await.throttled(None);
            one.flush().await.expect("a store");
            fleet.clock.advance(seconds(5));
        }
        let verdict = refreshed(&one).await;
        assert_eq!((verdict.state, verdict.trips), (BreakerState::Closed, 0));
        assert_eq!(fleet.told().await.len(), 102, "each was told once");
    }
}

#[tokio::test]
async fn a_person_opens_and_closes_whatever_calls_say() {
    for fleet in Fleet::each().await {
        let [one, other] = fleet.breakers(&BreakerSettings::default());
        let said = async |to, reason: &'static str| one.force(to, "ada", reason).await.expect("a store");
        said(ForcedTo::Open, "maintenance").await;
        said(ForcedTo::Open, "maintenance").await;
        refreshed(&other).await;
        assert_eq!(refusal(&other).await, (WhyOpen::Forced, None));
        fleet.clock.advance(seconds(100_000));
        assert_eq!(refusal(&one).await, (WhyOpen::Forced, None));
        said(ForcedTo::Closed, "it must go on").await;
        refreshed(&other).await;
        fail(&other, 100).await;
        permit(&other).await.throttled(Some(seconds(60)));
        assert!(!permit(&other).await.is_probe());
        other.clear("grace").await.expect("a store");
        other.clear("grace").await.expect("a store");
        refreshed(&one).await;
        fail(&one, 9).await;
        assert_eq!(refreshed(&one).await.state, BreakerState::Closed, "it has counted nothing before");
        fail(&one, 1).await;
        assert_eq!(fleet.told().await, ["force models", "force models", "clear models", "open models"]);
    }
}

#[tokio::test]
async fn failures_are_told_once_a_second_and_none_is_forgotten() {
    for fleet in Fleet::each().await {
        let mut settings = BreakerSettings::default();
        settings.failure_percent = 100;
        let [one, other] = fleet.breakers(&settings);
        for breaker in [&one, &other] {
            permit(breaker).await.success();
        }
        let mut failures = 0;
        for _ in 0..30 {
            for breaker in [&one, &other] {
                permit(breaker).await.failure("status 500");
                breaker.flush().await.expect("a store");
                failures += 1;
            }
            fleet.clock.advance(seconds(1) / 10);
        }
        // What is left is told when its time has come.
        for _ in 0..3 {
            fleet.clock.advance(seconds(1));
            for breaker in [&one, &other] {
                breaker.flush().await.expect("a store");
            }
        }
        let entries = fleet.entries().await;
        assert!(entries.iter().all(|entry| &*entry.operation == "failure"), "{entries:?}");
        assert_eq!(entries.iter().map(|entry| number(entry, "failures")).sum::<i64>(), failures);
        assert!(entries.windows(2).all(|pair| pair[1].time.since(pair[0].time) >= seconds(1)), "{entries:?}");
        assert!(entries.len() <= 6, "{}", entries.len());
    }
}

#[tokio::test]
async fn slow_calls_count_also_those_that_nobody_waited_for() {
    for fleet in Fleet::each().await {
        let mut settings = BreakerSettings::default();
        settings.window = Window::Last(seconds(3600));
        settings.slow_percent = 50;
        let [one, _] = fleet.breakers(&settings);
        for _ in 0..5 {
            permit(&one).await.success();
            // Quick ones that were cancelled are no calls.
            drop(permit(&one).await);
        }
        let slow = [permit(&one).await, permit(&one).await, permit(&one).await];
        let hanging = [permit(&one).await, permit(&one).await];
        fleet.clock.advance(seconds(60));
        slow.into_iter().for_each(Permit::success);
        assert_eq!(one.verdict().state, BreakerState::Closed);
        drop(hanging);
        assert_eq!(refusal(&one).await, (WhyOpen::Tripped, Some(90)));
    }
}
