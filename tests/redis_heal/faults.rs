//! What happens to the server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use s2_coordinator::{Entry, EventBus, GroupName, Start};
use tokio::time::sleep;

use crate::scene::{Log, Scene, look, names, number};
use crate::{HEALED, LONG, ORDERS, OUTAGE, PAIR, SOLO, TICK, soon, until};

/// A fault while everybody waits, and again while events flow: all of them arrive once. Faults return when the server
/// answers again.
async fn nothing_is_lost_by(fault: impl AsyncFn(&Scene)) -> Scene {
    let scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.drained().await;
    scene.waits().await;
    fault(&scene).await;
    scene.heals().await;
    let traffic = scene.traffic();
    traffic.flows(20).await;
    fault(&scene).await;
    scene.heals().await;
    traffic.flows(20).await;
    traffic.stop().await;
    scene.each_group_had_each_event_once().await;
    scene
}

async fn nobody_misses_anything_after(fault: impl AsyncFn(&Scene)) {
    nothing_is_lost_by(fault).await.the_tail_had_each_event_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections() {
    nobody_misses_anything_after(async |scene| {
        // A connection that listens is of the second kind, whatever else it does.
        let killed = |kind| scene.server.command(&["CLIENT", "KILL", "TYPE", kind]).parse::<u32>();
        killed("normal").expect("a number");
        assert!(killed("pubsub").expect("a number") >= 1, "there are connections");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_killed_again_and_again() {
    let scene = Scene::begin().await;
    let traffic = scene.traffic();
    for _ in 0..20 {
        traffic.flows(3).await;
        scene.server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).parse::<u32>().expect("a number");
    }
    scene.heals().await;
    traffic.stop().await;
    scene.each_group_had_each_event_once().await;
    scene.the_tail_had_each_event_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause() {
    nobody_misses_anything_after(async |scene| {
        scene.server.pause(3000);
        assert!(scene.server.ping(LONG));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flushed_scripts() {
    nobody_misses_anything_after(async |scene| {
        for kind in ["SCRIPT", "FUNCTION"] {
            assert_eq!(scene.server.command(&[kind, "FLUSH"]), "OK");
        }
    })
    .await;
}

/// The groups of Redis' own are none of S²'s.
#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_consumer_group_of_the_stream() {
    nobody_misses_anything_after(async |scene| {
        let stream = scene.key("e:orders");
        assert_eq!(scene.server.command(&["XGROUP", "CREATE", &stream, "pair", "$"]), "OK");
        assert_eq!(scene.server.command(&["XGROUP", "DESTROY", &stream, "pair"]), "1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_state_of_groups() {
    let scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.drained().await;
    scene.waits().await;
    scene.delete(&scene.keys("g"));
    scene.heals().await;
    scene.drained().await;
    let restored = scene.recorded_for_both("group_restored").await;
    assert_eq!(restored.len(), 2, "{restored:?}");
    assert_eq!(scene.recorded("data_loss").await, [], "nothing was lost: {scene:?}");
    let all: BTreeSet<u64> = (1..=2).collect();
    for log in [&scene.pair, &scene.solo] {
        assert_eq!(log.count(), 2, "what was settled stays settled");
        assert_eq!(BTreeSet::from_iter(log.numbers()), all);
    }

    // With events in hand and a backlog: what was not settled comes again, and nothing is skipped.
    scene.holds_back(10).await;
    scene.delete(&scene.keys("g"));
    scene.goes_on();
    scene.heals().await;
    scene.drained().await;
    let all: BTreeSet<u64> = (1..=13).collect();
    for log in [&scene.pair, &scene.solo] {
        assert_eq!(BTreeSet::from_iter(log.numbers()), all, "{scene:?}");
    }
    assert_eq!(scene.recorded("data_loss").await, [], "nothing was lost");
    scene.the_tail_had_each_event_once();
    scene.nobody_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_stream_with_a_backlog() {
    let scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.holds_back(10).await;
    scene.delete(&[scene.key("e:orders")]);
    scene.goes_on();
    scene.heals().await;
    scene.drained().await;
    scene.data_loss_is_recorded().await;
    let losses = scene.recorded("data_loss").await;
    let lost = |group: GroupName| {
        losses.iter().filter(|entry| names(entry, &group)).map(|entry| number(entry, "events")).sum::<i64>()
    };
    assert_eq!((lost(PAIR), lost(SOLO)), (8, 9), "{losses:?}");
    for log in [&scene.pair, &scene.solo] {
        assert_eq!(look(&log.refused), Vec::<String>::new(), "what was in hand can be settled");
    }
    scene.nobody_failed();
    // And again, with nothing to lose: nothing is lost.
    scene.waits().await;
    scene.delete(&[scene.key("e:orders")]);
    scene.heals().await;
    scene.drained().await;
    assert_eq!(scene.recorded("data_loss").await.len(), losses.len());
    scene.the_tail_had_each_event_once();
    scene.nobody_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_state_of_the_topic() {
    nobody_misses_anything_after(async |scene| scene.delete(&[scene.key("t:orders")])).await;
}

/// Also before anybody publishes: what is there can be read, and its groups are listed.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_state_of_the_topic_hides_nothing() {
    let scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.drained().await;
    scene.waits().await;
    scene.delete(&[scene.key("t:orders")]);
    let (deadline, mut seen) = (Instant::now() + HEALED, (0, 0));
    while seen != (1, 2) && Instant::now() < deadline {
        let page = scene.bus.read(&ORDERS, Start::Beginning, 10).await.expect("a page");
        seen = (page.items.len(), scene.groups().await.len());
        sleep(TICK).await;
    }
    assert_eq!(seen, (1, 2), "one event and two groups are there still");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_state_of_the_fleet() {
    let scene = nothing_is_lost_by(async |scene| scene.delete(&[scene.key("meta")])).await;
    // A tail may see events again, since it cannot know that this is the same fleet.
    let published: BTreeSet<u64> = look(&scene.publisher.published).iter().map(|(number, _)| *number).collect();
    assert_eq!(BTreeSet::from_iter(scene.tail.numbers()), published);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_flushed() {
    let scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.drained().await;
    scene.waits().await;
    assert_eq!(scene.server.command(&["FLUSHALL"]), "OK");
    scene.heals().await;
    scene.data_loss_is_recorded().await;
    scene.nobody_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_flushed_with_events_in_hand() {
    let scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.holds_back(10).await;
    assert_eq!(scene.server.command(&["FLUSHALL"]), "OK");
    scene.goes_on();
    scene.heals().await;
    scene.data_loss_is_recorded().await;
    for (log, held) in [(&scene.pair, 2), (&scene.solo, 1)] {
        let refused = look(&log.refused);
        let stale = refused.iter().filter(|error| error.starts_with("StaleDelivery")).count();
        assert_eq!((refused.len(), stale), (held, held), "{refused:?}");
    }
    scene.nobody_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_and_an_immediate_restart() {
    nobody_misses_anything_after(async |scene| scene.server.restart()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_and_an_outage() {
    nobody_misses_anything_after(async |scene| {
        scene.server.kill();
        sleep(OUTAGE).await;
        scene.server.restart();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still() {
    nobody_misses_anything_after(async |scene| {
        scene.server.stop();
        sleep(OUTAGE).await;
        scene.server.resume();
        assert!(scene.server.ping(LONG));
    })
    .await;
}

/// Positions go back, and are used again: that what is fresh arrives does not depend on how much was forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_back() {
    let scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.drained().await;
    scene.waits().await;
    scene.server.snapshot();
    for _ in 0..10 {
        scene.heals().await;
    }
    scene.drained().await;
    scene.server.roll_back();
    scene.heals().await;
    scene.nobody_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_back_to_before_a_group_came_to_be() {
    let mut scene = Scene::begin().await;
    scene.publisher.publish().await;
    scene.drained().await;
    scene.waits().await;
    scene.server.snapshot();
    let (late, log) = (GroupName::from_static("late"), Arc::<Log>::default());
    scene.join(late.clone(), &log).await;
    scene.publisher.publish().await;
    assert!(until(soon(), || log.has(1) && log.has(2)).await, "the group is there");
    scene.server.roll_back();
    let deadline = Instant::now() + HEALED;
    let fresh = scene.publisher.publish().await;
    let arrived = || [&log, &scene.pair, &scene.solo].map(|log| log.has(fresh));
    until(deadline, || arrived() == [true; 3]).await;
    assert_eq!(arrived(), [true; 3], "after {HEALED:?} event {fresh} is at [late, pair, solo] ({scene:?})");
    let of_late = |entries: Vec<Entry>| entries.into_iter().filter(|entry| names(entry, &late)).count();
    assert_eq!(of_late(scene.recorded("group_restored").await), 1);
    assert_eq!(of_late(scene.recorded("data_loss").await), 1);
    assert_eq!(look(&log.errors), Vec::<String>::new());
    scene.nobody_failed();
}
