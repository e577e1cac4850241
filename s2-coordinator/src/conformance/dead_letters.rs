//! Dead letters: kept, found, redriven once, purged.

use std::time::Duration;

use crate::bus::EventBus;
use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{
    ORDERS, RESULTS, WORKERS, event, event_on, idle, next, number, publish, refused, subscribe,
};
use crate::dead_letter::{AttemptEnd, DeadLetter, DeadLetterId, DeadLetters, Redriven};
use crate::error::Error;
use crate::name::EventType;
use crate::settle::Settled;
use crate::subscription::Subscribe;

cases! {
    a_refused_event_is_a_dead_letter_at_once: [DeadLetters];
    dead_letters_are_found_by_what_they_are: [DeadLetters];
    a_redriven_event_runs_once_with_all_attempts_anew: [DeadLetters];
    a_redrive_by_filter_runs_each_once: [DeadLetters];
    an_event_that_dies_again_is_another_dead_letter: [DeadLetters];
    a_receipt_of_a_former_life_is_stale: [DeadLetters, Fencing];
    a_redrive_that_cannot_be_done_does_nothing: [DeadLetters];
    a_purged_dead_letter_is_gone: [DeadLetters];
    other_groups_are_not_concerned: [DeadLetters];
    a_redriven_event_wakes_a_waiter: [DeadLetters];
    ids_and_filters_are_combined: [DeadLetters];
}

/// Publishes and refuses `numbers` of the orders.
async fn refuse(bus: &dyn EventBus, numbers: std::ops::Range<usize>) -> Result<Vec<DeadLetterId>, Error> {
    let subscription = subscribe(bus).await?;
    let mut ids = Vec::new();
    for n in numbers {
        publish(bus, n..=n).await?;
        match next(&subscription).await?.dead_letter("poison").await? {
            Settled::DeadLettered(id) => ids.push(id),
            other => panic!("expected a dead letter, got {other:?}"),
        }
    }
    Ok(ids)
}

async fn letters(bus: &dyn EventBus) -> Result<Vec<DeadLetter>, Error> {
    bus.dead_letters(&DeadLetters::all()).await
}

async fn a_refused_event_is_a_dead_letter_at_once(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let ids = refuse(&*bus, 0..1).await?;
    let letters = letters(&*bus).await?;
    let letter = &letters[0];
    assert_eq!((letter.id, &letter.event.topic, &letter.group), (ids[0], &ORDERS, &WORKERS));
    assert_eq!(letter.history.len(), 1);
    assert_eq!(letter.history[0].end, AttemptEnd::Refused { reason: "poison".into() });
    assert!(letter.died >= letter.history[0].started);
    publish(&*bus, 1..2).await?;
    assert_eq!(number(&next(&subscribe(&*bus).await?).await?.event), 1, "the group goes on");
    Ok(())
}

async fn dead_letters_are_found_by_what_they_are(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let ids = refuse(&*bus, 0..4).await?;
    bus.publish(&[event_on(RESULTS, 9)]).await?;
    let results = bus.subscribe(&Subscribe::new(RESULTS, WORKERS)).await?;
    next(&results).await?.dead_letter("poison").await?;
    let found = |which: DeadLetters| {
        let bus = fleet.bus();
        async move {
            let letters = bus.dead_letters(&which).await?;
            Ok::<_, Error>(letters.iter().map(|letter| number(&letter.event)).collect::<Vec<_>>())
        }
    };
    let all = DeadLetters::all();
    assert_eq!(found(all.clone()).await?, [0, 1, 2, 3, 9]);
    assert_eq!(found(all.clone().with_limit(2)).await?, [0, 1]);
    assert_eq!(found(all.clone().with_after(ids[1]).with_limit(2)).await?, [2, 3]);
    assert_eq!(found(all.clone().with_topic(RESULTS)).await?, [9]);
    assert!(found(all.clone().with_group("others".parse()?)).await?.is_empty());
    assert!(found(all.clone().with_event_type(EventType::from_static("order.paid"))).await?.is_empty());
    assert_eq!(found(all.clone().with_ids([ids[3], ids[0]])).await?, [0, 3]);
    assert_eq!(found(DeadLetters::one(ids[2])).await?, [2]);
    refused!(bus.dead_letters(&all.clone().with_limit(0)).await, Error::Invalid(_));
    refused!(bus.dead_letters(&all.with_limit(501)).await, Error::LimitExceeded { limit: "batch", .. });
    Ok(())
}

async fn a_redriven_event_runs_once_with_all_attempts_anew(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let id = refuse(&*bus, 0..1).await?[0];
    let one = DeadLetters::one(id);
    assert_eq!(bus.redrive(&one).await?, [Redriven { id, duplicate: false }]);
    for _ in 0..3 {
        assert_eq!(bus.redrive(&one).await?, [Redriven { id, duplicate: true }]);
    }
    assert_eq!(letters(&*bus).await?, []);
    let subscription = subscribe(&*bus).await?;
    let delivery = next(&subscription).await?;
    assert_eq!((number(&delivery.event), delivery.attempt), (0, 1));
    idle(&subscription).await?;
    delivery.ack().await?;
    assert_eq!(bus.redrive(&one).await?, [Redriven { id, duplicate: true }]);
    idle(&subscription).await
}

async fn a_redrive_by_filter_runs_each_once(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let ids = refuse(&*bus, 0..5).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let bus = fleet.bus();
        tasks.spawn(async move { bus.redrive(&DeadLetters::all().with_topic(ORDERS)).await });
    }
    let mut redriven = Vec::new();
    for answer in tasks.join_all().await {
        redriven.extend(answer?.into_iter().map(|redriven| redriven.id));
    }
    redriven.sort_unstable();
    assert_eq!(redriven, ids);
    let subscription = subscribe(&*bus).await?;
    let back = subscription.next_batch(10).await?;
    assert_eq!(back.iter().map(|delivery| number(&delivery.event)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    Ok(())
}

async fn an_event_that_dies_again_is_another_dead_letter(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let first = refuse(&*bus, 0..1).await?[0];
    bus.redrive(&DeadLetters::one(first)).await?;
    let subscription = subscribe(&*bus).await?;
    for _ in 0..5 {
        next(&subscription).await?.nack(Duration::ZERO).await?;
    }
    let again = letters(&*bus).await?;
    assert!(again[0].id > first);
    assert_eq!(again[0].history.len(), 5, "the history of this life");
    assert_eq!(bus.redrive(&DeadLetters::one(first)).await?, [Redriven { id: first, duplicate: true }]);
    idle(&subscription).await
}

async fn a_receipt_of_a_former_life_is_stale(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = bus.subscribe(&Subscribe::new(ORDERS, WORKERS).with_deliveries(1)).await?;
    let former = next(&subscription).await?;
    fleet.advance(Duration::from_secs(30)).await;
    let letter = &letters(&*bus).await?[0];
    refused!(former.ack().await, Error::StaleDelivery { current: None, .. });
    bus.redrive(&DeadLetters::one(letter.id)).await?;
    refused!(former.ack().await, Error::StaleDelivery { .. });
    let current = next(&subscription).await?;
    refused!(former.nack(Duration::ZERO).await, Error::StaleDelivery { .. });
    current.ack().await
}

async fn a_redrive_that_cannot_be_done_does_nothing(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let ids = refuse(&*bus, 0..2).await?;
    let unknown = DeadLetterId::new(4711);
    let answer = bus.redrive(&DeadLetters::all().with_ids([ids[0], unknown])).await;
    refused!(answer, Error::UnknownDeadLetter { id } if id == unknown);
    assert_eq!(letters(&*bus).await?.len(), 2);
    bus.remove_group(&ORDERS, &WORKERS).await?;
    refused!(bus.redrive(&DeadLetters::all()).await, Error::UnknownGroup { .. });
    subscribe(&*bus).await?;
    refused!(bus.redrive(&DeadLetters::all()).await, Error::UnknownGroup { .. });
    assert_eq!(letters(&*bus).await?.len(), 2, "they outlive their group");
    Ok(())
}

async fn a_purged_dead_letter_is_gone(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let ids = refuse(&*bus, 0..3).await?;
    assert_eq!(bus.purge(&DeadLetters::all().with_ids([ids[0], ids[2]])).await?, [ids[0], ids[2]]);
    assert_eq!(bus.purge(&DeadLetters::one(ids[0])).await?, [], "what is gone needs no purge");
    assert_eq!(letters(&*bus).await?.len(), 1);
    refused!(bus.redrive(&DeadLetters::one(ids[0])).await, Error::UnknownDeadLetter { .. });
    idle(&subscribe(&*bus).await?).await
}

async fn other_groups_are_not_concerned(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let audit = bus.subscribe(&Subscribe::new(ORDERS, "audit".parse()?)).await?;
    let id = refuse(&*bus, 0..1).await?[0];
    next(&audit).await?.ack().await?;
    bus.redrive(&DeadLetters::one(id)).await?;
    idle(&audit).await?;
    bus.publish(&[event(1)]).await?;
    assert_eq!(number(&next(&audit).await?.event), 1);
    Ok(())
}

async fn a_redriven_event_wakes_a_waiter(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    refuse(&*bus, 0..1).await?;
    let subscription = subscribe(&*bus).await?;
    let waiting = tokio::spawn(async move { next(&subscription).await });
    tokio::task::yield_now().await;
    bus.redrive(&DeadLetters::all()).await?;
    assert_eq!(waiting.await.expect("no panic")?.attempt, 1);
    Ok(())
}

async fn ids_and_filters_are_combined(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let ids = refuse(&*bus, 0..3).await?;
    let both = DeadLetters::all().with_ids([ids[0], ids[1]]);
    assert_eq!(bus.redrive(&both.clone().with_topic(RESULTS)).await?, [], "one that is there is not unknown");
    assert_eq!(bus.redrive(&both.clone().with_limit(1)).await?, [Redriven { id: ids[0], duplicate: false }]);
    let rest = [Redriven { id: ids[0], duplicate: true }, Redriven { id: ids[1], duplicate: false }];
    assert_eq!(bus.redrive(&both).await?, rest);
    assert_eq!(letters(&*bus).await?.len(), 1);
    Ok(())
}
