//! Who is chosen when there are not enough for all, and when somebody who works may be called off.

use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::{Blocker, Capabilities, Config, ManualClock, MemoryStore, NewTask, SchedulerExt, TaskId};
use s2_core::{Context, RescueEvent, S2, Settings, TaskError};
use s2_tests::START;

use crate::kit::{
    HOST, INVITE, Place, SIP, Tally, answers, blocked, chosen, helper, invite, settings, stories, told, until, willing,
};

stories! {
    the_most_valuable_blocker_is_helped_first,
    helpers_are_shared_so_that_both_are_helped,
}

/// Two blockers before anybody organises, and one helper: the one for which others wait comes first.
async fn the_most_valuable_blocker_is_helped_first(place: Place) {
    let s2 = place.fleet(settings(|_| {})).await;
    blocked(&s2, "first", SIP).await;
    blocked(&s2, "second", SIP).await;
    let (first, second) = (invite(&s2, "first").await, invite(&s2, "second").await);
    let after =
        NewTask::new(INVITE, HOST).after(second).with_requires(Capabilities::new(["nobody"]).expect("a capability"));
    s2.scheduler().submit(&[after.clone(), after]).await.expect("submitted");
    until("nobody can help either", || async { told(&s2).await.len() == 2 }).await;
    let served = Tally::default();
    let order = served.clone();
    helper(&s2, "helper", SIP, move |asked| {
        order.add("any");
        order.add(&format!("{} {}", order.of("any"), asked.by));
        async move { Ok(asked.by.to_string()) }
    })
    .await;
    assert_eq!(answers(&s2, second).await, ["second"]);
    assert_eq!(answers(&s2, first).await, ["first"]);
    assert_eq!((served.of("1 second"), served.of("2 first")), (1, 1), "{served:?}");
}

/// The best helper of the first is the only one of the second.
async fn helpers_are_shared_so_that_both_are_helped(place: Place) {
    let mut policy = settings(|_| {});
    policy.rescue_policy.max_rescuers_per_blocker = 1;
    let s2 = place.fleet(policy).await;
    blocked(&s2, "sip", &["integration:sip"]).await;
    blocked(&s2, "video", &["video:h264"]).await;
    let (sip, video) = (invite(&s2, "sip").await, invite(&s2, "video").await);
    until("both are blocked", || async {
        s2.scheduler().stats().await.expect("stats").count(s2_coordinator::TaskState::Blocked) == 2
    })
    .await;
    // Both enter between two looks, or the first alone is asked by whoever comes first; either is right, but nobody waits.
    let (one, other) = tokio::join!(
        willing(&s2, "expert", &["integration:sip", "video:h264"]),
        willing(&s2, "other", &["integration:sip"])
    );
    assert_eq!((one.name().as_str(), other.name().as_str()), ("expert", "other"));
    assert_eq!(answers(&s2, video).await, ["expert"]);
    assert_eq!(answers(&s2, sip).await.len(), 1);
}

struct Stage {
    s2: S2,
    clock: Arc<ManualClock>,
    called_off: Tally,
    task: TaskId,
}

/// One who is blocked, one who could help and works, and so many others who have nothing to do.
async fn stage(change: impl FnOnce(&mut Settings), idle: usize) -> Stage {
    let clock = Arc::new(ManualClock::new(START));
    let mut config = Config::default();
    config.longest_wait = Duration::MAX;
    config.progress = Duration::MAX;
    config.lease = Duration::from_secs(24 * 60 * 60);
    let store = MemoryStore::builder().with_config(config).with_clock(Arc::clone(&clock)).build().expect("a store");
    let policy = settings(|settings| {
        settings.help.look_again = Duration::from_secs(5);
        change(settings);
    });
    let s2 = S2::builder().with_settings(policy).on_memory(&store).await.expect("a fleet");
    let called_off = Tally::default();
    let tally = called_off.clone();
    let handler = move |cx: Context| {
        let tally = tally.clone();
        async move {
            match cx.help_request() {
                Some(asked) => Ok::<_, TaskError>(asked.helper.to_string()),
                None => {
                    tally.add("begun");
                    assert_eq!(cx.attempt(), 1, "called off without an attempt");
                    std::future::pending().await
                }
            }
        }
    };
    s2.session("expert").skills(SIP).run(handler).await.expect("a session");
    let work = NewTask::new(INVITE, HOST).with_requires(Capabilities::new(["integration:sip"]).expect("a capability"));
    s2.scheduler().submit_one(&work).await.expect("submitted");
    until("the expert works", || async { called_off.of("begun") == 1 }).await;
    for nth in 0..idle {
        let handler = async |_: Context| Err::<(), _>(TaskError::fatal("not my task"));
        s2.session(format!("other-{nth}")).skills(["other"]).run(handler).await.expect("a session");
    }
    blocked(&s2, "sip", SIP).await;
    let task = invite(&s2, "sip").await;
    until("nobody can help for now", || async { told(&s2).await.len() == 1 }).await;
    Stage { s2, clock, called_off, task }
}

/// Lets time pass in steps that the organiser can follow.
async fn pass(stage: &Stage, time: Duration) {
    for _ in 0..time.as_secs() / 10 {
        stage.clock.advance(Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_works_is_called_off_once_all_conditions_hold() {
    // The blocked one, three others and the expert: four of five are idle, or wait.
    let stage = stage(|_| {}, 3).await;
    pass(&stage, Duration::from_secs(29 * 60)).await;
    assert_eq!(chosen(&stage.s2).await, Vec::<String>::new(), "not before half an hour");
    pass(&stage, Duration::from_secs(2 * 60)).await;
    assert_eq!(answers(&stage.s2, stage.task).await, ["expert"]);
    assert_eq!(chosen(&stage.s2).await, ["expert"]);
    let recruited = told(&stage.s2).await.into_iter().filter(|told| matches!(told, RescueEvent::Recruited { .. }));
    assert_eq!(recruited.count(), 1);
    // Its task was handed back without an attempt, and is offered to it again after a while.
    pass(&stage, Duration::from_secs(60)).await;
    until("it works again", || async { stage.called_off.of("begun") == 2 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_called_off_if_one_condition_does_not_hold() {
    type Case = (&'static str, fn(&mut Settings), usize, u64);
    let cases: [Case; 4] = [
        ("not allowed", |settings| settings.rescue_policy.preemption_allowed = false, 3, 60),
        ("not old enough", |settings| settings.rescue_policy.preemption_conditions.age_minutes = 120, 3, 60),
        ("not idle enough", |settings| settings.rescue_policy.preemption_conditions.idle_fleet_percent = 84, 3, 60),
        (
            "fits too little",
            |settings| {
                settings.rescue_policy.min_capability_match = s2_governor::BasisPoints::from_percent(95);
            },
            3,
            60,
        ),
    ];
    for (what, change, idle, minutes) in cases {
        let stage = stage(change, idle).await;
        pass(&stage, Duration::from_secs(minutes * 60)).await;
        // Whoever comes now is asked, and still nobody else: so it was looked for helpers.
        if what != "fits too little" {
            willing(&stage.s2, "latecomer", SIP).await;
            pass(&stage, Duration::from_secs(60)).await;
            assert_eq!(answers(&stage.s2, stage.task).await, ["latecomer"], "{what}");
            assert_eq!(chosen(&stage.s2).await, ["latecomer"], "{what}");
        }
        assert_eq!(stage.called_off.of("begun"), 1, "{what}");
        stage.s2.shutdown(Duration::from_millis(400)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_room_for_another_task_is_not_called_off() {
    let s2 = S2::builder().with_settings(settings(|_| {})).on_memory(&MemoryStore::new()).await.expect("a fleet");
    let begun = Tally::default();
    let tally = begun.clone();
    let handler = move |cx: Context| {
        let tally = tally.clone();
        async move {
            tally.add("begun");
            cx.blocked(Blocker::new("for ever")).await?;
            Ok::<_, TaskError>(())
        }
    };
    s2.session("one").skills(["x"]).run(handler).await.expect("a session");
    for _ in 0..3 {
        let work = NewTask::new(INVITE, HOST).with_requires(Capabilities::new(["x"]).expect("a capability"));
        s2.scheduler().submit_one(&work).await.expect("submitted");
    }
    // Each that is blocked makes room for the next, though one task at a time is all that it does.
    until("all have begun", || async { begun.of("begun") == 3 }).await;
    s2.shutdown(Duration::from_millis(200)).await;
}
