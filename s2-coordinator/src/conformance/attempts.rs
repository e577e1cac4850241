//! Attempts: what counts as one, and who pays for a crash.

use std::time::Duration;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{
    ACK_TIMEOUT, ORDERS, WORKERS, consumers, handle, idle, next, number, publish, subscribe, workers,
};
use crate::dead_letter::{AttemptEnd, DeadLetters};
use crate::settle::Settled;

cases! {
    error_timeout_and_crash_count_alike: [Redelivery];
    an_event_dies_after_exactly_so_many_errors: [DeadLetters];
    an_event_dies_after_exactly_so_many_timeouts: [DeadLetters];
    an_event_dies_after_exactly_so_many_crashes: [DeadLetters];
    a_poison_event_never_condemns_its_neighbours: [DeadLetters];
    a_crashed_consumers_events_come_back_one_at_a_time: [Redelivery];
    a_consumer_that_accumulates_is_not_stopped_by_a_crash_of_another: [Redelivery];
    what_was_not_handed_out_costs_no_attempt: [Redelivery];
    a_crash_is_noticed_although_nobody_asks: [Redelivery];
    a_group_may_allow_other_numbers: [DeadLetters];
    a_delay_that_ends_wakes_a_waiter: [Redelivery];
    a_deadline_that_passed_is_a_timeout_even_if_the_consumer_left_since: [DeadLetters];
    the_latest_subscription_decides_how_often: [DeadLetters];
    a_history_names_who_handled_it: [DeadLetters];
}

async fn error_timeout_and_crash_count_alike(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = subscribe(&*bus).await?;
    next(&subscription).await?.nack(Duration::ZERO).await?; // error
    let slow = next(&subscription).await?;
    fleet.advance(ACK_TIMEOUT).await; // timeout
    assert_eq!(slow.attempt, 2);
    let crashing = subscribe(&*bus).await?;
    assert_eq!(next(&crashing).await?.attempt, 3);
    drop(crashing); // crash
    idle(&subscription).await?;
    fleet.advance(ACK_TIMEOUT).await;
    assert_eq!(next(&subscription).await?.attempt, 4);
    Ok(())
}

async fn an_event_dies_after_exactly_so_many_errors(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..2).await?;
    let subscription = subscribe(&*bus).await?;
    for attempt in 1..=5 {
        let delivery = next(&subscription).await?;
        assert_eq!((number(&delivery.event), delivery.attempt), (0, attempt));
        match delivery.nack(Duration::ZERO).await? {
            Settled::DeadLettered(_) => assert_eq!(attempt, 5),
            other => assert!(attempt < 5, "{other:?}"),
        }
    }
    assert_eq!(handle(&subscription, 1).await?, [1]);
    let letters = bus.dead_letters(&DeadLetters::all()).await?;
    assert_eq!((letters.len(), letters[0].history.len(), number(&letters[0].event)), (1, 5, 0));
    let deliveries: Vec<u32> = letters[0].history.iter().map(|attempt| attempt.delivery).collect();
    assert_eq!(deliveries, [1, 2, 3, 4, 5]);
    assert!(letters[0].history.iter().all(|attempt| matches!(attempt.end, AttemptEnd::Nacked { .. })));
    Ok(())
}

async fn an_event_dies_after_exactly_so_many_timeouts(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = bus.subscribe(&workers().with_consumer("slow".parse()?)).await?;
    for attempt in 1..=5 {
        assert_eq!(next(&subscription).await?.attempt, attempt);
        fleet.advance(ACK_TIMEOUT).await;
    }
    idle(&subscription).await?;
    let letters = bus.dead_letters(&DeadLetters::all()).await?;
    let history = &letters[0].history;
    assert_eq!(history.len(), 5);
    assert!(history.iter().all(|attempt| attempt.end == AttemptEnd::TimedOut));
    assert!(history.iter().all(|attempt| attempt.consumer.as_str() == "slow" && attempt.duration() == ACK_TIMEOUT));
    Ok(())
}

async fn an_event_dies_after_exactly_so_many_crashes(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    for attempt in 1..=5 {
        let subscription = bus.subscribe(&workers().with_consumer("fragile".parse()?)).await?;
        assert_eq!(next(&subscription).await?.attempt, attempt);
        drop(subscription);
        consumers(&*bus, &WORKERS, 0).await?;
        fleet.advance(ACK_TIMEOUT).await;
    }
    idle(&subscribe(&*bus).await?).await?;
    let letters = bus.dead_letters(&DeadLetters::all()).await?;
    assert_eq!(letters[0].history.len(), 5);
    assert!(letters[0].history.iter().all(|attempt| attempt.end == AttemptEnd::Lost));
    assert!(letters[0].history.iter().all(|attempt| attempt.consumer.as_str() == "fragile"));
    let group = &bus.groups(&ORDERS).await?[0];
    assert_eq!((group.in_flight, group.returning, group.backlog), (0, 0, 0));
    Ok(())
}

async fn a_poison_event_never_condemns_its_neighbours(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..20).await?;
    // Event 3 kills whoever handles it, together with all that the consumer holds.
    let mut handled = Vec::new();
    let mut crashes = 0;
    while handled.len() < 19 || crashes < 5 {
        assert!(crashes <= 5, "it was handed out more often than allowed");
        let subscription = bus.subscribe(&workers().with_prefetch(10)).await?;
        let mut held = Vec::new();
        let poisoned = loop {
            let Some(delivery) = subscription.try_next().await? else {
                break false;
            };
            assert!(delivery.attempt <= 2 || number(&delivery.event) == 3, "a neighbour was condemned: {delivery:?}");
            if number(&delivery.event) == 3 {
                break true;
            }
            held.push(delivery);
        };
        if poisoned {
            crashes += 1;
        } else {
            for delivery in held {
                delivery.ack().await?;
                handled.push(number(&delivery.event));
            }
        }
        drop(subscription);
        fleet.advance(ACK_TIMEOUT).await;
    }
    handled.sort_unstable();
    assert_eq!(handled, (0..20).filter(|n| *n != 3).collect::<Vec<_>>());
    let letters = bus.dead_letters(&DeadLetters::all()).await?;
    assert_eq!(letters.iter().map(|letter| number(&letter.event)).collect::<Vec<_>>(), [3]);
    assert_eq!(crashes, 5);
    Ok(())
}

async fn a_crashed_consumers_events_come_back_one_at_a_time(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..5).await?;
    let crashing = subscribe(&*bus).await?;
    assert_eq!(crashing.next_batch(5).await?.len(), 5);
    drop(crashing);
    fleet.advance(ACK_TIMEOUT).await;
    let (one, two) = (subscribe(&*bus).await?, subscribe(&*bus).await?);
    let first = next(&one).await?;
    assert_eq!(number(&first.event), 0);
    idle(&one).await?;
    let second = next(&two).await?;
    assert_eq!(number(&second.event), 1);
    idle(&two).await?;
    first.ack().await?;
    assert_eq!(handle(&one, 3).await?, [2, 3, 4]);
    second.ack().await
}

async fn a_consumer_that_accumulates_is_not_stopped_by_a_crash_of_another(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..3).await?;
    let crashing = subscribe(&*bus).await?;
    assert_eq!(crashing.next_batch(3).await?.len(), 3);
    drop(crashing);
    fleet.advance(ACK_TIMEOUT).await;
    publish(&*bus, 3..12).await?;
    // Collects ten before it acks any: one that might be poison, and nine fresh ones.
    let batching = subscribe(&*bus).await?;
    let batch = batching.next_batch(10).await?;
    assert_eq!(
        batch.iter().map(|delivery| number(&delivery.event)).collect::<Vec<_>>(),
        [0, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    );
    Ok(())
}

async fn what_was_not_handed_out_costs_no_attempt(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..10).await?;
    for _ in 0..6 {
        // Leaves without having handled what a backend may have fetched ahead.
        let subscription = bus.subscribe(&workers().with_prefetch(10)).await?;
        next(&subscription).await?.nack(Duration::from_secs(1)).await?;
        subscription.close().await?;
        fleet.advance(ACK_TIMEOUT).await;
    }
    let subscription = subscribe(&*bus).await?;
    let letters = bus.dead_letters(&DeadLetters::all()).await?.len();
    assert_eq!(letters, 1, "only the one that was handled");
    let rest = subscription.next_batch(10).await?;
    let attempts: Vec<(usize, u32)> = rest.iter().map(|delivery| (number(&delivery.event), delivery.attempt)).collect();
    assert_eq!(attempts[0], (1, 2));
    assert!(attempts[1..].iter().all(|(_, attempt)| *attempt == 1), "{attempts:?}");
    Ok(())
}

async fn a_crash_is_noticed_although_nobody_asks(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let (crashing, waiting) = (subscribe(&*bus).await?, subscribe(&*bus).await?);
    assert_eq!(next(&crashing).await?.attempt, 1);
    let waiting = tokio::spawn(async move { next(&waiting).await });
    tokio::task::yield_now().await;
    drop(crashing);
    fleet.advance(ACK_TIMEOUT).await;
    // Nobody calls the bus: only the clock moves.
    let delivery = waiting.await.expect("no panic")?;
    assert_eq!(delivery.attempt, 2);
    Ok(())
}

async fn a_group_may_allow_other_numbers(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let strict = workers().with_deliveries(1).with_ack_timeout(Duration::from_secs(5));
    let subscription = bus.subscribe(&strict).await?;
    assert_eq!(next(&subscription).await?.attempt, 1);
    fleet.advance(Duration::from_secs(5)).await;
    idle(&subscription).await?;
    assert_eq!(bus.dead_letters(&DeadLetters::all()).await?.len(), 1);
    Ok(())
}

async fn a_delay_that_ends_wakes_a_waiter(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = subscribe(&*bus).await?;
    next(&subscription).await?.nack(Duration::from_secs(5)).await?;
    let waiting = tokio::spawn(async move { next(&subscription).await });
    tokio::task::yield_now().await;
    fleet.advance(Duration::from_secs(5)).await;
    assert_eq!(waiting.await.expect("no panic")?.attempt, 2);
    Ok(())
}

async fn a_deadline_that_passed_is_a_timeout_even_if_the_consumer_left_since(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = bus.subscribe(&workers().with_deliveries(1)).await?;
    let held = next(&subscription).await?;
    fleet.advance(2 * ACK_TIMEOUT).await;
    drop(subscription);
    let letter = &bus.dead_letters(&DeadLetters::all()).await?[0];
    assert_eq!(letter.history[0].end, AttemptEnd::TimedOut);
    assert_eq!((letter.history[0].ended, letter.died), (held.deadline, held.deadline));
    Ok(())
}

async fn the_latest_subscription_decides_how_often(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let patient = bus.subscribe(&workers().with_deliveries(9)).await?;
    for attempt in 1..=7 {
        let delivery = next(&patient).await?;
        assert_eq!(delivery.attempt, attempt);
        delivery.nack(Duration::ZERO).await?;
    }
    let _indifferent = subscribe(&*bus).await?;
    assert!(matches!(next(&patient).await?.nack(Duration::ZERO).await?, Settled::Retrying(_)));
    let _strict = bus.subscribe(&workers().with_deliveries(2)).await?;
    assert!(matches!(next(&patient).await?.nack(Duration::ZERO).await?, Settled::DeadLettered(_)));
    Ok(())
}

async fn a_history_names_who_handled_it(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let alice = bus.subscribe(&workers().with_consumer("alice".parse()?).with_deliveries(2)).await?;
    next(&alice).await?.nack(Duration::ZERO).await?;
    alice.close().await?;
    let bob = bus.subscribe(&workers().with_consumer("bob".parse()?)).await?;
    let delivery = next(&bob).await?;
    bob.close().await?;
    // Bob has left, but goes on working for a while.
    delivery.extend(2 * ACK_TIMEOUT).await?;
    fleet.advance(2 * ACK_TIMEOUT).await;
    let letter = &bus.dead_letters(&DeadLetters::all()).await?[0];
    let told: Vec<_> = letter.history.iter().map(|attempt| attempt.consumer.as_str()).collect();
    assert_eq!((told, &letter.history[1].end), (vec!["alice", "bob"], &AttemptEnd::Lost));
    assert_eq!(letter.history[1].duration(), 2 * ACK_TIMEOUT);
    Ok(())
}
