//! Committing: outputs exist if and only if the input is done.

use std::sync::Arc;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{
    ACK_TIMEOUT, ORDERS, RESULTS, WORKERS, contents, event_on, idle, keyed, next, number, publish, refused, subscribe,
};
use crate::error::Error;
use crate::event::NewEvent;
use crate::name::Topic;
use crate::subscription::Subscribe;

cases! {
    a_commit_acks_and_publishes: [Commit, Replay];
    a_repeated_commit_publishes_once: [Commit, Replay];
    a_refused_output_leaves_the_input_undone: [Commit, Replay];
    a_stale_commit_publishes_nothing: [Commit, Replay];
    an_ack_and_a_commit_exclude_each_other: [Commit, Replay];
    a_pipeline_of_crashing_workers_has_each_effect_once: [Commit, Replay];
    a_commit_that_says_something_else_is_refused: [Commit, Fencing, Replay];
}

fn result(n: usize) -> NewEvent {
    event_on(RESULTS, n)
}

async fn a_commit_acks_and_publishes(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..2).await?;
    let subscription = subscribe(&*bus).await?;
    let published = next(&subscription).await?.commit(&[result(10), result(11)]).await?;
    let results = contents(&*bus, &RESULTS).await?;
    assert_eq!(results.iter().map(|event| number(event)).collect::<Vec<_>>(), [10, 11]);
    assert_eq!(results.iter().map(|event| event.id).collect::<Vec<_>>(), [published[0].id, published[1].id]);
    assert_eq!(next(&subscription).await?.commit(&[]).await?.len(), 0, "no output is fine");
    idle(&subscription).await?;
    assert_eq!(bus.groups(&ORDERS).await?[0].in_flight, 0);
    Ok(())
}

async fn a_repeated_commit_publishes_once(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = subscribe(&*bus).await?;
    let delivery = next(&subscription).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let delivery = delivery.clone();
        tasks.spawn(async move { delivery.commit(&[result(1)]).await });
    }
    let mut answers = Vec::new();
    for answer in tasks.join_all().await {
        answers.push(answer?);
    }
    assert!(answers.iter().all(|answer| answer == &answers[0]), "every repeat gets the first answer");
    assert_eq!(contents(&*bus, &RESULTS).await?.len(), 1);
    Ok(())
}

async fn a_refused_output_leaves_the_input_undone(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    bus.publish(&[keyed(0, "taken")]).await?;
    let subscription = subscribe(&*bus).await?;
    let delivery = next(&subscription).await?;
    let big = result(1).with_data(vec![0; 1024 * 1024 + 1]);
    refused!(delivery.commit(&[result(1), big]).await, Error::LimitExceeded { .. });
    refused!(delivery.commit(&[result(1), keyed(9, "taken")]).await, Error::IdempotencyConflict { .. });
    refused!(delivery.commit(&[result(1), event_on(Topic::JOURNAL, 1)]).await, Error::ReservedTopic { .. });
    assert_eq!(contents(&*bus, &RESULTS).await?, []);
    assert_eq!(bus.groups(&ORDERS).await?[0].in_flight, 1);
    delivery.commit(&[result(1)]).await?;
    assert_eq!(contents(&*bus, &RESULTS).await?.len(), 1);
    Ok(())
}

async fn a_stale_commit_publishes_nothing(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = subscribe(&*bus).await?;
    let old = next(&subscription).await?;
    fleet.advance(ACK_TIMEOUT).await;
    let new = next(&subscription).await?;
    refused!(old.commit(&[result(1)]).await, Error::StaleDelivery { .. });
    assert_eq!(contents(&*bus, &RESULTS).await?, []);
    new.commit(&[result(2)]).await?;
    refused!(old.commit(&[result(1)]).await, Error::StaleDelivery { .. });
    assert_eq!(contents(&*bus, &RESULTS).await?.len(), 1);
    Ok(())
}

async fn an_ack_and_a_commit_exclude_each_other(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..2).await?;
    let subscription = subscribe(&*bus).await?;
    let (acked, committed) = (next(&subscription).await?, next(&subscription).await?);
    acked.ack().await?;
    refused!(acked.commit(&[result(1)]).await, Error::AlreadySettled { .. });
    committed.commit(&[result(2)]).await?;
    refused!(committed.ack().await, Error::AlreadySettled { outcome: "committed", .. });
    assert_eq!(contents(&*bus, &RESULTS).await?.len(), 1);
    Ok(())
}

async fn a_pipeline_of_crashing_workers_has_each_effect_once(given: Given) -> Outcome {
    const EVENTS: usize = 60;
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..EVENTS).await?;
    let mut round = 0;
    while contents(&*bus, &RESULTS).await?.len() < EVENTS {
        round += 1;
        assert!(round < 200, "no progress");
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..4 {
            let bus = Arc::clone(&bus);
            workers.spawn(async move {
                // Bad luck may strike one event again and again.
                let subscription = bus.subscribe(&Subscribe::new(ORDERS, WORKERS).with_deliveries(100)).await?;
                let Some(delivery) = subscription.try_next().await? else {
                    return Ok(());
                };
                // One in four dies before it has committed, one after.
                if (worker + round) % 4 != 0 {
                    delivery.commit(&[result(number(&delivery.event))]).await?;
                }
                if (worker + round) % 4 == 1 {
                    return Ok(());
                }
                subscription.close().await
            });
        }
        for done in workers.join_all().await {
            done?;
        }
        if round % 5 == 0 {
            fleet.advance(ACK_TIMEOUT).await;
        }
    }
    let mut results: Vec<usize> = contents(&*bus, &RESULTS).await?.iter().map(|event| number(event)).collect();
    results.sort_unstable();
    assert_eq!(results, Vec::from_iter(0..EVENTS));
    Ok(())
}

async fn a_commit_that_says_something_else_is_refused(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = subscribe(&*bus).await?;
    let delivery = next(&subscription).await?;
    let first = delivery.commit(&[result(1)]).await?;
    refused!(delivery.commit(&[result(2)]).await, Error::AlreadySettled { outcome: "committed", .. });
    refused!(delivery.commit(&[result(1), result(2)]).await, Error::AlreadySettled { .. });
    refused!(delivery.commit(&[]).await, Error::AlreadySettled { .. });
    let elsewhere = event_on(Topic::from_static("elsewhere"), 1);
    refused!(delivery.commit(&[elsewhere]).await, Error::AlreadySettled { .. });
    assert_eq!(delivery.commit(&[result(1)]).await?, first);
    assert_eq!(contents(&*bus, &RESULTS).await?.len(), 1);
    Ok(())
}
