//! Opening, closing, removing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bus::EventBus;
use crate::conformance::harness::{Fleet, Given, Outcome, cases};
use crate::conformance::kit::{
    ORDERS, WORKERS, event, handle, idle, next, number, publish, refused, subscribe, within,
};
use crate::dead_letter::DeadLetters;
use crate::error::Error;
use crate::name::Topic;
use crate::start::Start;

cases! {
    five_thousand_survive_repeated_close_and_reopen: [];
    ten_concurrent_closes_are_one: [];
    idle_readers_end_within_a_second_of_closing: [Replay];
    a_closed_bus_refuses_everything_but_settling: [Replay, DeadLetters];
    closing_one_bus_leaves_the_others_alone: [];
    a_closed_subscription_leaves_the_group: [];
    a_removed_group_is_gone_for_everyone: [Fencing];
    closing_ends_tails_of_the_journal: [Replay, Journal];
    closing_does_not_wait_for_a_wait_that_nobody_polls: [Redelivery];
    what_a_bus_gave_outlives_its_handle: [Replay];
}

async fn five_thousand_survive_repeated_close_and_reopen(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let mut numbers = Vec::new();
    for round in 0..50 {
        let bus = fleet.bus();
        publish(&*bus, round * 100..(round + 1) * 100).await?;
        let subscription = subscribe(&*bus).await?;
        // Leaves ten behind for the next round, fetched ahead or not.
        let count = if round == 0 { 90 } else { 100 };
        numbers.extend(handle(&subscription, count).await?);
        if round % 2 == 0 {
            subscription.close().await?;
        }
        bus.close().await?;
    }
    numbers.extend(handle(&subscribe(&*fleet.bus()).await?, 10).await?);
    assert_eq!(numbers, Vec::from_iter(0..5000));
    Ok(())
}

async fn ten_concurrent_closes_are_one(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let subscription = Arc::new(subscribe(&*bus).await?);
    let mut closes = tokio::task::JoinSet::new();
    for n in 0..10 {
        let (bus, subscription) = (Arc::clone(&bus), Arc::clone(&subscription));
        closes.spawn(async move { if n % 2 == 0 { bus.close().await } else { subscription.close().await } });
    }
    for closed in within("all closes", closes.join_all()).await {
        closed?;
    }
    bus.close().await?;
    assert!(subscription.next().await?.is_none());
    assert_eq!(fleet.bus().groups(&ORDERS).await?[0].consumers, 0);
    Ok(())
}

async fn idle_readers_end_within_a_second_of_closing(given: Given) -> Outcome {
    let mut quickest = Duration::MAX;
    // A machine under load may miss a second once, but not three times.
    for _ in 0..3 {
        quickest = quickest.min(close_under_readers(&*given.fleet().await).await?);
    }
    assert!(quickest < Duration::from_secs(1), "closing took {quickest:?}");
    Ok(())
}

async fn close_under_readers(fleet: &dyn Fleet) -> Result<Duration, Error> {
    let bus = fleet.bus();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let subscription = subscribe(&*bus).await?;
        readers.spawn(async move { subscription.next().await.map(|delivery| delivery.is_none()) });
        let mut tail = bus.tail(&ORDERS, Start::Now).await?;
        readers.spawn(async move { tail.next().await.map(|event| event.is_none()) });
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let closing = Instant::now();
    bus.close().await?;
    for ended in within("all readers", readers.join_all()).await {
        assert!(ended?, "a reader got something");
    }
    Ok(closing.elapsed())
}

async fn a_closed_bus_refuses_everything_but_settling(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..2).await?;
    let subscription = subscribe(&*bus).await?;
    let held = next(&subscription).await?;
    bus.close().await?;
    assert!(subscription.next().await?.is_none());
    assert!(subscription.try_next().await?.is_none());
    refused!(bus.publish(&[event(1)]).await, Error::Closed);
    refused!(subscribe(&*bus).await, Error::Closed);
    refused!(bus.tail(&ORDERS, Start::Now).await, Error::Closed);
    refused!(bus.read(&ORDERS, Start::Now, 1).await, Error::Closed);
    refused!(bus.groups(&ORDERS).await, Error::Closed);
    refused!(bus.remove_group(&ORDERS, &WORKERS).await, Error::Closed);
    refused!(bus.dead_letters(&DeadLetters::all()).await, Error::Closed);
    refused!(bus.redrive(&DeadLetters::all()).await, Error::Closed);
    refused!(bus.purge(&DeadLetters::all()).await, Error::Closed);
    held.extend(Duration::from_secs(60)).await?;
    held.ack().await?;
    assert_eq!(handle(&subscribe(&*fleet.bus()).await?, 1).await?, [1]);
    Ok(())
}

async fn closing_one_bus_leaves_the_others_alone(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let (one, other) = (fleet.bus(), fleet.bus());
    let (closed, open) = (subscribe(&*one).await?, subscribe(&*other).await?);
    one.close().await?;
    publish(&*other, 0..1).await?;
    assert!(closed.next().await?.is_none());
    assert_eq!(handle(&open, 1).await?, [0]);
    Ok(())
}

async fn a_closed_subscription_leaves_the_group(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let (leaving, staying) = (Arc::new(subscribe(&*bus).await?), subscribe(&*bus).await?);
    let waiting = tokio::spawn({
        let leaving = Arc::clone(&leaving);
        async move { leaving.next().await.map(|delivery| delivery.is_none()) }
    });
    tokio::task::yield_now().await;
    leaving.close().await?;
    assert!(within("the end of the wait", waiting).await.expect("no panic")?, "a closed subscription delivered");
    publish(&*bus, 0..2).await?;
    assert_eq!(handle(&staying, 2).await?, [0, 1]);
    assert!(leaving.next().await?.is_none());
    assert_eq!(bus.groups(&ORDERS).await?[0].consumers, 1);
    Ok(())
}

async fn a_removed_group_is_gone_for_everyone(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus: Arc<dyn EventBus> = fleet.bus();
    publish(&*bus, 0..2).await?;
    let subscription = Arc::new(subscribe(&*bus).await?);
    let held = next(&subscription).await?;
    handle(&subscription, 1).await?;
    let waiting = tokio::spawn({
        let subscription = Arc::clone(&subscription);
        async move { subscription.next().await.map(|_| ()) }
    });
    tokio::task::yield_now().await;
    assert!(bus.remove_group(&ORDERS, &WORKERS).await?);
    assert!(!bus.remove_group(&ORDERS, &WORKERS).await?);
    refused!(within("the end of the wait", waiting).await.expect("no panic"), Error::UnknownGroup { .. });
    refused!(subscription.try_next().await, Error::UnknownGroup { .. });
    refused!(held.ack().await, Error::StaleDelivery { current: None, .. });
    let anew = subscribe(&*bus).await?;
    refused!(held.ack().await, Error::StaleDelivery { .. });
    assert_eq!(handle(&anew, 2).await?, [0, 1], "a group made anew starts anew");
    idle(&anew).await
}

async fn closing_ends_tails_of_the_journal(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let mut tail = bus.tail(&Topic::JOURNAL, Start::Now).await?;
    let waiting = tokio::spawn(async move { tail.next().await.map(|event| event.is_none()) });
    tokio::task::yield_now().await;
    bus.close().await?;
    assert!(within("the end of the tail", waiting).await.expect("no panic")?);
    Ok(())
}

async fn closing_does_not_wait_for_a_wait_that_nobody_polls(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let subscription = subscribe(&*bus).await?;
    let mut wait = Box::pin(subscription.next());
    let begun = tokio::time::timeout(Duration::from_millis(50), &mut wait).await;
    assert!(begun.is_err(), "there is nothing to deliver: {begun:?}");
    within("closing", bus.close()).await?;
    assert!(within("the end of the wait", wait).await?.is_none());
    assert_eq!(fleet.bus().groups(&ORDERS).await?[0].consumers, 0);
    Ok(())
}

/// Only closing ends a subscription or a tail: nobody need keep the handle that it came from.
async fn what_a_bus_gave_outlives_its_handle(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let subscription = subscribe(&*fleet.bus()).await?;
    let mut tail = fleet.bus().tail(&ORDERS, Start::Now).await?;
    let followed = tokio::spawn(async move { tail.next().await });
    let handled = tokio::spawn(async move { handle(&subscription, 1).await });
    publish(&*fleet.bus(), 7..8).await?;
    let followed = within("the event", followed).await.expect("no panic")?;
    assert_eq!(followed.map(|event| number(&event)), Some(7));
    assert_eq!(within("the delivery", handled).await.expect("no panic")?, [7]);
    Ok(())
}
