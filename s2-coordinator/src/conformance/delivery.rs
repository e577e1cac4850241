//! Delivery: groups, order, prefetch, waiting.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{
    ORDERS, WORKERS, consumers, event, event_on, handle, idle, next, number, publish, refused, subscribe, within,
    workers,
};
use crate::error::Error;
use crate::name::{ConsumerName, GroupName, Topic};
use crate::start::Start;
use crate::subscription::Subscribe;

cases! {
    a_hundred_events_before_the_first_subscriber_are_delivered: [];
    twenty_topics_are_isolated: [];
    one_consumer_sees_a_thousand_events_in_publish_order: [];
    two_groups_each_get_everything: [];
    the_consumers_of_a_group_share_the_events: [];
    a_late_group_starts_at_the_beginning: [];
    a_group_may_start_now_or_after_a_position: [];
    a_full_prefetch_gets_nothing_more_until_an_ack: [];
    a_waiting_consumer_is_woken: [];
    a_dropped_wait_loses_nothing: [];
    a_batch_takes_what_is_there_and_no_more_than_asked: [];
    a_subscription_with_bad_settings_is_refused: [];
    ten_thousand_consumer_names_leave_nothing_behind: [];
    two_tasks_may_wait_on_one_subscription: [];
    what_comes_back_comes_first: [Redelivery];
}

async fn a_hundred_events_before_the_first_subscriber_are_delivered(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..100).await?;
    let subscription = subscribe(&*bus).await?;
    assert_eq!(handle(&subscription, 100).await?, Vec::from_iter(0..100));
    idle(&subscription).await
}

async fn twenty_topics_are_isolated(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let topics: Vec<Topic> = (0..20).map(|n| Topic::new(format!("topic-{n}"))).collect::<Result<_, _>>()?;
    for n in 0..200 {
        bus.publish(&[event_on(topics[n % 20].clone(), n)]).await?;
    }
    for (nth, topic) in topics.iter().enumerate() {
        let subscription = bus.subscribe(&Subscribe::new(topic.clone(), WORKERS)).await?;
        assert_eq!(handle(&subscription, 10).await?, (0..10).map(|n| n * 20 + nth).collect::<Vec<_>>());
        idle(&subscription).await?;
    }
    Ok(())
}

async fn one_consumer_sees_a_thousand_events_in_publish_order(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let subscription = subscribe(&*bus).await?;
    let (published, handled) = tokio::join!(publish(&*bus, 0..1000), handle(&subscription, 1000));
    assert_eq!((published?.len(), handled?), (1000, Vec::from_iter(0..1000)));
    Ok(())
}

async fn two_groups_each_get_everything(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..50).await?;
    let billing = bus.subscribe(&Subscribe::new(ORDERS, GroupName::from_static("billing"))).await?;
    let shipping = bus.subscribe(&Subscribe::new(ORDERS, GroupName::from_static("shipping"))).await?;
    publish(&*bus, 50..100).await?;
    assert_eq!(handle(&billing, 100).await?, Vec::from_iter(0..100));
    assert_eq!(handle(&shipping, 100).await?, Vec::from_iter(0..100));
    Ok(())
}

async fn the_consumers_of_a_group_share_the_events(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let mut consumers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let subscription = subscribe(&*fleet.bus()).await?;
        consumers.spawn(async move {
            let mut numbers = Vec::new();
            // The last event tells everyone to stop; whoever gets it closes nothing but itself.
            while let Some(delivery) = subscription.next().await? {
                delivery.ack().await?;
                match number(&delivery.event) {
                    n if n >= 2000 => break,
                    n => numbers.push(n),
                }
            }
            Ok::<Vec<usize>, Error>(numbers)
        });
    }
    publish(&*bus, 0..2008).await?;
    let mut all = Vec::new();
    for numbers in within("all consumers", consumers.join_all()).await {
        all.extend(numbers?);
    }
    assert_eq!(all.len(), 2000, "no event went to two consumers");
    assert_eq!(BTreeSet::from_iter(all), (0..2000).collect());
    Ok(())
}

async fn a_late_group_starts_at_the_beginning(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..10).await?;
    handle(&subscribe(&*bus).await?, 10).await?;
    let late = bus.subscribe(&Subscribe::new(ORDERS, GroupName::from_static("late"))).await?;
    assert_eq!(handle(&late, 10).await?, Vec::from_iter(0..10));
    Ok(())
}

async fn a_group_may_start_now_or_after_a_position(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let published = publish(&*bus, 0..10).await?;
    let start = |name, start| Subscribe::new(ORDERS, GroupName::from_static(name)).with_start(start);
    let now = bus.subscribe(&start("now", Start::Now)).await?;
    let after = bus.subscribe(&start("after", Start::After(published[6].position))).await?;
    idle(&now).await?;
    publish(&*bus, 10..11).await?;
    assert_eq!(handle(&now, 1).await?, [10]);
    assert_eq!(handle(&after, 4).await?, [7, 8, 9, 10]);
    let again = bus.subscribe(&start("after", Start::Beginning)).await?;
    idle(&again).await
}

async fn a_full_prefetch_gets_nothing_more_until_an_ack(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..10).await?;
    let subscription = bus.subscribe(&workers().with_prefetch(3)).await?;
    let held = [next(&subscription).await?, next(&subscription).await?, next(&subscription).await?];
    idle(&subscription).await?;
    let mut waiting = Box::pin(subscription.next());
    let nothing = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
    assert!(nothing.is_err(), "a fourth delivery was handed out: {nothing:?}");
    held[1].ack().await?;
    let fourth = within("a delivery after the ack", waiting).await?.expect("open");
    assert_eq!(number(&fourth.event), 3);
    idle(&subscription).await
}

async fn a_waiting_consumer_is_woken(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let subscription = Arc::new(subscribe(&*bus).await?);
    for n in 0..100 {
        let waiting = tokio::spawn({
            let subscription = Arc::clone(&subscription);
            async move { handle(&subscription, 1).await }
        });
        tokio::task::yield_now().await;
        publish(&*bus, n..=n).await?;
        assert_eq!(waiting.await.expect("no panic")?, [n]);
    }
    Ok(())
}

async fn a_dropped_wait_loses_nothing(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let (hasty, patient) = (subscribe(&*bus).await?, subscribe(&*bus).await?);
    for n in 0..200 {
        let give_up = tokio::time::timeout(Duration::from_micros(50), hasty.next());
        let (taken, waited, published) =
            tokio::join!(give_up, tokio::time::timeout(Duration::from_secs(30), patient.next()), async {
                tokio::task::yield_now().await;
                publish(&*bus, n..=n).await?;
                // Whichever consumer the first event went to, this one ends the patient wait.
                publish(&*bus, 1000..1001).await
            });
        published?;
        let mut seen = Vec::new();
        for delivery in [taken.ok(), waited.ok()].into_iter().flatten() {
            let delivery = delivery?.expect("open");
            delivery.ack().await?;
            assert_eq!(delivery.attempt, 1, "an attempt was counted for a wait that was dropped");
            seen.push(number(&delivery.event));
        }
        // What a dropped wait had fetched, the same subscription hands out.
        while seen.len() < 2 {
            for subscription in [&hasty, &patient] {
                if let Some(delivery) = subscription.try_next().await? {
                    delivery.ack().await?;
                    assert_eq!(delivery.attempt, 1);
                    seen.push(number(&delivery.event));
                }
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [n, 1000]);
    }
    idle(&hasty).await
}

async fn a_batch_takes_what_is_there_and_no_more_than_asked(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..10).await?;
    let subscription = subscribe(&*bus).await?;
    let batch = within("a batch", subscription.next_batch(8)).await?;
    assert_eq!(batch.iter().map(|delivery| number(&delivery.event)).collect::<Vec<_>>(), Vec::from_iter(0..8));
    assert_eq!(within("a batch", subscription.next_batch(8)).await?.len(), 2);
    Ok(())
}

async fn a_subscription_with_bad_settings_is_refused(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    refused!(bus.subscribe(&workers().with_prefetch(0)).await, Error::Invalid(_));
    refused!(bus.subscribe(&workers().with_deliveries(0)).await, Error::Invalid(_));
    refused!(bus.subscribe(&workers().with_ack_timeout(Duration::ZERO)).await, Error::Invalid(_));
    let many = bus.subscribe(&workers().with_prefetch(10_001)).await;
    refused!(many, Error::LimitExceeded { limit: "prefetch", actual: 10_001, max: 10_000, .. });
    let long = bus.subscribe(&workers().with_ack_timeout(Duration::from_secs(86_401))).await;
    refused!(long, Error::LimitExceeded { limit: "ack_timeout", .. });
    refused!(bus.subscribe(&Subscribe::new(Topic::JOURNAL, WORKERS)).await, Error::ReservedTopic { .. });
    assert_eq!(bus.groups(&ORDERS).await?, [], "what was refused left a group behind");
    Ok(())
}

async fn ten_thousand_consumer_names_leave_nothing_behind(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..2).await?;
    for n in 0..10_000 {
        let consumer = ConsumerName::new(format!("worker-{n}"))?;
        let subscription = bus.subscribe(&workers().with_consumer(consumer)).await?;
        if n == 0 {
            next(&subscription).await?.ack().await?;
        }
        if n % 2 == 0 {
            subscription.close().await?;
        }
    }
    consumers(&*bus, &WORKERS, 0).await?;
    let groups = bus.groups(&ORDERS).await?;
    assert_eq!((groups[0].in_flight, groups[0].backlog), (0, 1));
    bus.publish(&[event(2)]).await?;
    assert_eq!(handle(&subscribe(&*bus).await?, 2).await?, [1, 2]);
    Ok(())
}

async fn two_tasks_may_wait_on_one_subscription(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let subscription = Arc::new(subscribe(&*bus).await?);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let subscription = Arc::clone(&subscription);
        tasks.spawn(async move { handle(&subscription, 50).await });
    }
    publish(&*bus, 0..100).await?;
    let mut numbers = Vec::new();
    for handled in within("both tasks", tasks.join_all()).await {
        numbers.extend(handled?);
    }
    assert_eq!(BTreeSet::from_iter(numbers), (0..100).collect());
    Ok(())
}

async fn what_comes_back_comes_first(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..6).await?;
    let subscription = subscribe(&*bus).await?;
    let (first, second) = (next(&subscription).await?, next(&subscription).await?);
    second.nack(Duration::ZERO).await?;
    first.nack(Duration::ZERO).await?;
    assert_eq!(handle(&subscription, 6).await?, Vec::from_iter(0..6));
    Ok(())
}
