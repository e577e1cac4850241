//! Retention: history goes, work stays.

use std::time::Duration;

use crate::bus::EventBus;
use crate::config::Retention;
use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{
    ACK_TIMEOUT, DAY, ORDERS, WORKERS, contents, event, handle, idle, journal_of, next, number, publish, refused,
    subscribe, within,
};
use crate::dead_letter::DeadLetters;
use crate::error::Error;
use crate::event::Position;
use crate::name::GroupName;
use crate::settle::Settlement;
use crate::start::Start;
use crate::subscription::Subscribe;
use crate::time::Timestamp;

cases! {
    trimming_never_drops_what_a_group_has_not_settled: [Retention, Replay];
    settled_history_is_trimmed_by_size: [Retention, Replay];
    settled_history_is_trimmed_by_age: [Retention, Replay];
    a_start_that_was_trimmed_is_an_error: [Retention, Replay];
    a_tail_that_lags_is_told_what_it_missed: [Retention, Replay];
    a_forgotten_settle_says_so: [Retention, Fencing];
    a_dead_letter_outlives_trimming_and_can_be_redriven: [Retention, DeadLetters];
    a_group_without_consumers_lets_go_after_seven_days: [Retention, Replay];
    a_group_that_returns_in_time_misses_nothing: [Retention];
    a_removed_group_holds_nothing_back: [Retention, Replay];
    a_sources_clock_decides_nothing: [Retention, Replay];
    trimming_is_journalled_but_not_for_each_event: [Retention, Journal];
    what_a_group_lost_cannot_be_settled: [Retention, Fencing, DeadLetters];
}

const KIB: u64 = 1024;

/// Keeps about `bytes` of settled history, of any age.
async fn keeping(given: &Given, bytes: u64) -> Box<dyn crate::conformance::harness::Fleet> {
    given.fleet_with(|config| config.topics = Retention { bytes, age: None }).await
}

/// Publishes `count` events of a kilobyte each, beginning with `first`, and settles them through `group`.
async fn churn(bus: &dyn EventBus, group: &GroupName, first: usize, count: usize) -> Outcome {
    let subscription = bus.subscribe(&Subscribe::new(ORDERS, group.clone())).await?;
    for n in first..first + count {
        bus.publish(&[event(n).with_subject("x".repeat(200).parse()?).with_header("pad".parse()?, "x".repeat(800))])
            .await?;
        let delivery = next(&subscription).await?;
        delivery.ack().await?;
    }
    subscription.close().await
}

async fn trimming_never_drops_what_a_group_has_not_settled(given: Given) -> Outcome {
    let fleet = keeping(&given, 16 * KIB).await;
    let bus = fleet.bus();
    let slow = bus.subscribe(&Subscribe::new(ORDERS, "slow".parse()?)).await?;
    publish(&*bus, 0..3).await?;
    let quick = GroupName::from_static("quick");
    handle(&bus.subscribe(&Subscribe::new(ORDERS, quick.clone())).await?, 3).await?;
    let held = next(&slow).await?;
    churn(&*bus, &quick, 3, 200).await?;
    assert_eq!(number(&contents(&*bus, &ORDERS).await?[0]), 0, "what is held was dropped");
    drop((slow, held));
    fleet.advance(ACK_TIMEOUT).await;
    let slow = bus.subscribe(&Subscribe::new(ORDERS, "slow".parse()?)).await?;
    assert_eq!(handle(&slow, 203).await?, Vec::from_iter(0..203));
    churn(&*bus, &quick, 203, 1).await?;
    handle(&slow, 1).await?;
    assert!(contents(&*bus, &ORDERS).await?.len() < 100, "what everybody has settled stays");
    Ok(())
}

async fn settled_history_is_trimmed_by_size(given: Given) -> Outcome {
    let fleet = keeping(&given, 64 * KIB).await;
    let bus = fleet.bus();
    churn(&*bus, &WORKERS, 0, 500).await?;
    let kept = contents(&*bus, &ORDERS).await?;
    assert!(kept.len() >= 20 && kept.len() <= 70, "kept {} kilobytes of 64", kept.len());
    assert_eq!(number(kept.last().expect("some are kept")), 499);
    let group = &bus.groups(&ORDERS).await?[0];
    assert_eq!((group.in_flight, group.returning, group.backlog), (0, 0, 0));
    Ok(())
}

async fn settled_history_is_trimmed_by_age(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    churn(&*bus, &WORKERS, 0, 3).await?;
    fleet.advance(6 * DAY).await;
    churn(&*bus, &WORKERS, 3, 1).await?;
    assert_eq!(contents(&*bus, &ORDERS).await?.len(), 4);
    fleet.advance(DAY).await;
    churn(&*bus, &WORKERS, 4, 1).await?;
    assert_eq!(contents(&*bus, &ORDERS).await?.len(), 2);
    Ok(())
}

async fn a_start_that_was_trimmed_is_an_error(given: Given) -> Outcome {
    let fleet = keeping(&given, 16 * KIB).await;
    let bus = fleet.bus();
    churn(&*bus, &WORKERS, 0, 100).await?;
    let early = Start::After(Position::new(1));
    let oldest = match bus.read(&ORDERS, early, 10).await {
        Err(Error::NotRetained { position, oldest, topic }) => {
            assert_eq!((position, topic), (Position::new(1), ORDERS));
            oldest
        }
        other => panic!("expected an error, got {other:?}"),
    };
    refused!(bus.tail(&ORDERS, early).await, Error::NotRetained { .. });
    let late = Subscribe::new(ORDERS, "late".parse()?);
    refused!(bus.subscribe(&late.clone().with_start(early)).await, Error::NotRetained { .. });
    let page = bus.read(&ORDERS, Start::Beginning, 1).await?;
    assert_eq!(page.items[0].position, oldest);
    assert_eq!(next(&bus.subscribe(&late).await?).await?.event.position, oldest);
    Ok(())
}

async fn a_tail_that_lags_is_told_what_it_missed(given: Given) -> Outcome {
    let fleet = keeping(&given, 16 * KIB).await;
    let bus = fleet.bus();
    let mut tail = bus.tail(&ORDERS, Start::Now).await?;
    churn(&*bus, &WORKERS, 0, 100).await?;
    // A tail may have read ahead; what it has not read is gone, and it must say so.
    let mut seen = 0;
    loop {
        match within("an event", tail.next()).await {
            Ok(event) => assert_eq!(number(&event.expect("open")), seen),
            Err(Error::Lagged { missed, resumes_at, .. }) => {
                assert_eq!(resumes_at.get(), seen as u64 + missed + 1);
                let event = within("an event", tail.next()).await?.expect("open");
                assert_eq!((event.position, number(&event) as u64), (resumes_at, seen as u64 + missed));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        seen += 1;
        assert!(seen < 100 || bus.read(&ORDERS, Start::Beginning, 1).await?.items[0].position.get() > 1);
        if seen == 100 {
            return Ok(());
        }
    }
}

async fn a_forgotten_settle_says_so(given: Given) -> Outcome {
    let fleet = keeping(&given, 16 * KIB).await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = subscribe(&*bus).await?;
    let old = next(&subscription).await?;
    old.ack().await?;
    churn(&*bus, &WORKERS, 1, 100).await?;
    match bus.settle(&old.receipt, Settlement::Ack).await {
        // A backend may remember for longer than it must.
        Ok(_) | Err(Error::NotRetained { .. }) => Ok(()),
        other => panic!("expected the first answer or that it is forgotten, got {other:?}"),
    }
}

async fn a_dead_letter_outlives_trimming_and_can_be_redriven(given: Given) -> Outcome {
    let fleet = keeping(&given, 16 * KIB).await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = subscribe(&*bus).await?;
    let dead = next(&subscription).await?;
    dead.dead_letter("poison").await?;
    drop(subscription);
    churn(&*bus, &WORKERS, 1, 100).await?;
    assert_ne!(contents(&*bus, &ORDERS).await?[0].id, dead.event.id, "the topic has forgotten it");
    bus.redrive(&DeadLetters::all()).await?;
    let subscription = subscribe(&*bus).await?;
    let back = next(&subscription).await?;
    assert_eq!((back.event.id, back.attempt), (dead.event.id, 1));
    back.nack(Duration::ZERO).await?;
    let again = next(&subscription).await?;
    assert_eq!(again.attempt, 2);
    again.ack().await?;
    idle(&subscription).await?;
    assert_eq!(bus.groups(&ORDERS).await?[0].in_flight, 0);
    Ok(())
}

async fn a_group_without_consumers_lets_go_after_seven_days(given: Given) -> Outcome {
    let fleet = keeping(&given, 16 * KIB).await;
    let bus = fleet.bus();
    let gone = Subscribe::new(ORDERS, "gone".parse()?);
    let subscription = bus.subscribe(&gone).await?;
    publish(&*bus, 0..2).await?;
    next(&subscription).await?.ack().await?;
    subscription.close().await?;
    let busy = GroupName::from_static("workers");
    handle(&subscribe(&*bus).await?, 2).await?;
    churn(&*bus, &busy, 2, 100).await?;
    assert!(number(&contents(&*bus, &ORDERS).await?[0]) <= 1, "what it has not settled was dropped");
    fleet.advance(7 * DAY).await;
    churn(&*bus, &busy, 102, 100).await?;
    let group =
        bus.groups(&ORDERS).await?.into_iter().find(|group| group.name == gone.group).expect("it is still there");
    assert!(group.expired);
    let oldest = contents(&*bus, &ORDERS).await?[0].position;
    assert!(oldest.get() > 100, "it still holds back trimming");
    let back = bus.subscribe(&gone).await?;
    assert_eq!(next(&back).await?.event.position, oldest, "it goes on with what is there");
    Ok(())
}

async fn a_group_that_returns_in_time_misses_nothing(given: Given) -> Outcome {
    let fleet = keeping(&given, 16 * KIB).await;
    let bus = fleet.bus();
    subscribe(&*bus).await?.close().await?;
    publish(&*bus, 0..2).await?;
    for _ in 0..3 {
        fleet.advance(6 * DAY).await;
        subscribe(&*bus).await?.close().await?;
    }
    churn(&*bus, &GroupName::from_static("busy"), 2, 0).await?;
    assert_eq!(handle(&subscribe(&*bus).await?, 2).await?, [0, 1]);
    Ok(())
}

async fn a_removed_group_holds_nothing_back(given: Given) -> Outcome {
    let fleet = keeping(&given, 16 * KIB).await;
    let bus = fleet.bus();
    drop(bus.subscribe(&Subscribe::new(ORDERS, "idle".parse()?)).await?);
    churn(&*bus, &WORKERS, 0, 100).await?;
    let floors = bus.groups(&ORDERS).await?;
    assert_eq!((floors[0].floor.get(), floors[1].floor.get()), (0, 100));
    assert_eq!(contents(&*bus, &ORDERS).await?.len(), 100);
    bus.remove_group(&ORDERS, &"idle".parse()?).await?;
    assert!(contents(&*bus, &ORDERS).await?.len() < 50);
    Ok(())
}

async fn a_sources_clock_decides_nothing(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let skewed = |n: usize, days: u64| event(n).with_time(Timestamp::from_micros(days * 86_400_000_000));
    bus.publish(&[skewed(0, 1), skewed(1, 100_000)]).await?;
    handle(&subscribe(&*bus).await?, 2).await?;
    fleet.advance(DAY).await;
    assert_eq!(contents(&*bus, &ORDERS).await?.len(), 2, "one from 1970 is not old");
    fleet.advance(7 * DAY).await;
    assert_eq!(contents(&*bus, &ORDERS).await?.len(), 0, "one from 2243 is not young");
    Ok(())
}

async fn trimming_is_journalled_but_not_for_each_event(given: Given) -> Outcome {
    let fleet = keeping(&given, 64 * KIB).await;
    let bus = fleet.bus();
    let slow = bus.subscribe(&Subscribe::new(ORDERS, "slow".parse()?).with_prefetch(1000)).await?;
    churn(&*bus, &WORKERS, 0, 400).await?;
    handle(&slow, 400).await?;
    let journal = journal_of(&*fleet);
    let entries = journal.entries(journal.start().await?, 500).await?.items;
    let trims = entries.iter().filter(|entry| entry.operation.as_str() == "trim").count();
    assert!((1..=100).contains(&trims), "{trims} entries for some 340 events");
    Ok(())
}

async fn what_a_group_lost_cannot_be_settled(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = bus.subscribe(&Subscribe::new(ORDERS, "gone".parse()?).with_deliveries(9)).await?;
    let held = next(&subscription).await?;
    subscription.close().await?;
    fleet.advance(15 * DAY).await;
    assert_eq!(contents(&*bus, &ORDERS).await?.len(), 0, "it was not trimmed");
    refused!(held.dead_letter("late").await, Error::NotRetained { .. });
    refused!(held.nack(Duration::ZERO).await, Error::NotRetained { .. });
    assert_eq!(bus.dead_letters(&DeadLetters::all()).await?, []);
    Ok(())
}
