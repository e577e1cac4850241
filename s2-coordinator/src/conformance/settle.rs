//! Settling: fencing, repetition, extension.

use std::time::Duration;

use crate::config::Retention;
use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{
    ACK_TIMEOUT, ORDERS, WORKERS, event, handle, idle, next, number, publish, refused, subscribe, workers,
};
use crate::delivery::Delivery;
use crate::error::Error;
use crate::settle::{Receipt, Settled, Settlement};
use crate::start::Start;

cases! {
    a_nacked_event_comes_back_after_its_delay_and_not_before: [Redelivery];
    a_nack_without_a_delay_backs_off: [Redelivery];
    a_repeated_settle_gets_the_first_answer: [Fencing, DeadLetters];
    a_settle_that_contradicts_the_first_is_refused: [Fencing, DeadLetters];
    a_repeated_nack_gets_the_first_answer_even_after_redelivery: [Fencing];
    a_stale_settle_changes_nothing: [Fencing];
    a_foreign_settle_changes_nothing: [Fencing];
    a_receipt_settles_from_elsewhere: [Fencing];
    a_late_ack_counts_while_nobody_else_has_the_event: [Fencing];
    an_extended_delivery_stays_where_it_is: [Redelivery];
    a_stale_delivery_cannot_be_extended: [Fencing];
    sixteen_tasks_settle_one_delivery_and_it_is_settled_once: [Fencing];
    delays_and_reasons_are_bounded: [Redelivery];
    a_repeat_after_trimming_still_gets_the_first_answer: [Fencing, Retention];
    the_verb_that_killed_an_event_is_the_one_that_is_answered: [Fencing, DeadLetters];
    many_are_settled_in_one_call_each_on_its_own: [Fencing];
    one_receipt_twice_in_a_batch_counts_once: [Fencing];
}

const SECOND: Duration = Duration::from_secs(1);

async fn a_nacked_event_comes_back_after_its_delay_and_not_before(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..2).await?;
    let subscription = subscribe(&*bus).await?;
    let delivery = next(&subscription).await?;
    let Settled::Retrying(at) = delivery.nack(10 * SECOND).await? else { panic!("the first attempt was the last") };
    assert_eq!(handle(&subscription, 1).await?, [1], "the rest goes on meanwhile");
    fleet.advance(9 * SECOND).await;
    idle(&subscription).await?;
    fleet.advance(SECOND).await;
    let again = next(&subscription).await?;
    assert_eq!((number(&again.event), again.attempt, again.event.id), (0, 2, delivery.event.id));
    assert!(again.deadline >= at);
    again.nack(Duration::ZERO).await?;
    assert_eq!(next(&subscription).await?.attempt, 3, "without a delay it comes back at once");
    Ok(())
}

async fn a_nack_without_a_delay_backs_off(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = subscribe(&*bus).await?;
    for full in [SECOND, 2 * SECOND, 4 * SECOND] {
        let delivery = next(&subscription).await?;
        let now = delivery.deadline - ACK_TIMEOUT;
        let Settled::Retrying(at) = delivery.retry("busy").await? else { panic!("dead too early") };
        let delay = at.since(now);
        assert!(delay >= full / 2 && delay <= full + SECOND / 2, "{delay:?} is no backoff of {full:?}");
        fleet.advance(full).await;
    }
    Ok(())
}

async fn a_repeated_settle_gets_the_first_answer(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..3).await?;
    let subscription = subscribe(&*bus).await?;
    let (acked, nacked, dead) = (next(&subscription).await?, next(&subscription).await?, next(&subscription).await?);
    let nack = nacked.nack(10 * SECOND).await?;
    let death = dead.dead_letter("no such article").await?;
    acked.ack().await?;
    fleet.advance(5 * SECOND).await;
    for _ in 0..3 {
        acked.ack().await?;
        assert_eq!(nacked.nack(10 * SECOND).await?, nack);
        assert_eq!(dead.dead_letter("no such article").await?, death);
    }
    let group = &bus.groups(&ORDERS).await?[0];
    assert_eq!((group.in_flight, group.returning, group.backlog), (0, 1, 0));
    Ok(())
}

async fn a_settle_that_contradicts_the_first_is_refused(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..2).await?;
    let subscription = subscribe(&*bus).await?;
    let (first, second) = (next(&subscription).await?, next(&subscription).await?);
    first.ack().await?;
    second.nack(SECOND).await?;
    refused!(first.nack(SECOND).await, Error::AlreadySettled { outcome: "acked", .. });
    refused!(first.dead_letter("late regret").await, Error::AlreadySettled { .. });
    refused!(first.extend(SECOND).await, Error::AlreadySettled { .. });
    refused!(second.ack().await, Error::AlreadySettled { outcome: "given back", .. });
    fleet.advance(SECOND).await;
    assert_eq!(number(&next(&subscription).await?.event), 1);
    idle(&subscription).await
}

async fn a_repeated_nack_gets_the_first_answer_even_after_redelivery(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = subscribe(&*bus).await?;
    let first = next(&subscription).await?;
    let answer = first.nack(Duration::ZERO).await?;
    let second = next(&subscription).await?;
    assert_eq!(first.nack(Duration::ZERO).await?, answer);
    second.ack().await?;
    assert_eq!(first.nack(Duration::ZERO).await?, answer);
    idle(&subscription).await
}

async fn a_stale_settle_changes_nothing(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let (slow, quick) = (subscribe(&*bus).await?, subscribe(&*bus).await?);
    let old = next(&slow).await?;
    fleet.advance(ACK_TIMEOUT).await;
    let new = next(&quick).await?;
    assert_eq!(new.attempt, 2);
    match old.ack().await {
        Err(Error::StaleDelivery { held: 1, current: Some(2), group, .. }) => assert_eq!(group, WORKERS),
        other => panic!("expected a stale delivery, got {other:?}"),
    }
    refused!(old.nack(SECOND).await, Error::StaleDelivery { .. });
    refused!(old.dead_letter("late").await, Error::StaleDelivery { .. });
    refused!(old.commit(&[event(9)]).await, Error::StaleDelivery { .. });
    assert_eq!(bus.groups(&ORDERS).await?[0].in_flight, 1);
    new.ack().await?;
    refused!(old.ack().await, Error::StaleDelivery { current: None, .. });
    idle(&quick).await
}

async fn a_foreign_settle_changes_nothing(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..2).await?;
    let (mine, yours) = (subscribe(&*bus).await?, subscribe(&*bus).await?);
    let (held, other) = (next(&mine).await?, next(&yours).await?);
    let forge = |change: &dyn Fn(&mut serde_json::Value)| -> Receipt {
        let mut json = serde_json::to_value(&held.receipt).expect("a receipt has a JSON form");
        change(&mut json);
        serde_json::from_value(json).expect("still a receipt")
    };
    let foreign = serde_json::to_value(&other.receipt).expect("a receipt has a JSON form")["consumer"].clone();
    for receipt in [
        forge(&|json| json["consumer"] = foreign.clone()),
        forge(&|json| json["incarnation"] = 987_654.into()),
        forge(&|json| json["delivery"] = 2.into()),
        forge(&|json| json["position"] = 99.into()),
        forge(&|json| json["group"] = "others".into()),
        forge(&|json| json["topic"] = "others".into()),
    ] {
        refused!(bus.settle(&receipt, Settlement::Ack).await, Error::StaleDelivery { .. });
        refused!(bus.extend(&receipt, SECOND).await, Error::StaleDelivery { .. });
    }
    assert_eq!(bus.groups(&ORDERS).await?[0].in_flight, 2);
    held.ack().await
}

async fn a_receipt_settles_from_elsewhere(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = subscribe(&*bus).await?;
    let json = serde_json::to_string(&next(&subscription).await?.receipt).expect("a receipt has a JSON form");
    drop(subscription);
    let receipt: Receipt = serde_json::from_str(&json).expect("what was written can be read");
    assert_eq!(fleet.bus().settle(&receipt, Settlement::Ack).await?, Settled::Acked);
    assert_eq!(bus.groups(&ORDERS).await?[0].in_flight, 0);
    Ok(())
}

async fn a_late_ack_counts_while_nobody_else_has_the_event(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = subscribe(&*bus).await?;
    let delivery = next(&subscription).await?;
    fleet.advance(2 * ACK_TIMEOUT).await;
    delivery.ack().await?;
    delivery.ack().await?;
    idle(&subscription).await
}

async fn an_extended_delivery_stays_where_it_is(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let (busy, free) = (subscribe(&*bus).await?, subscribe(&*bus).await?);
    let delivery = next(&busy).await?;
    for _ in 0..5 {
        fleet.advance(ACK_TIMEOUT - SECOND).await;
        let deadline = delivery.extend(ACK_TIMEOUT).await?;
        assert!(deadline > delivery.deadline);
    }
    idle(&free).await?;
    delivery.extend(2 * SECOND).await?;
    fleet.advance(2 * SECOND).await;
    let again = next(&free).await?;
    assert_eq!(again.attempt, 2, "extending counts no attempt");
    refused!(again.extend(Duration::from_secs(86_401)).await, Error::LimitExceeded { limit: "ack_timeout", .. });
    Ok(())
}

async fn a_stale_delivery_cannot_be_extended(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = subscribe(&*bus).await?;
    let old = next(&subscription).await?;
    fleet.advance(ACK_TIMEOUT).await;
    old.extend(ACK_TIMEOUT).await?;
    idle(&subscription).await?;
    fleet.advance(ACK_TIMEOUT).await;
    let new = next(&subscription).await?;
    assert_eq!(new.attempt, 2, "an expiry that was undone in time counts once");
    refused!(old.extend(ACK_TIMEOUT).await, Error::StaleDelivery { .. });
    new.ack().await
}

async fn sixteen_tasks_settle_one_delivery_and_it_is_settled_once(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    for round in 0..20 {
        publish(&*bus, round..=round).await?;
        let subscription = subscribe(&*bus).await?;
        let delivery = next(&subscription).await?;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..16 {
            let delivery = delivery.clone();
            tasks.spawn(async move {
                if n % 2 == 0 {
                    return delivery.ack().await.is_ok();
                }
                // The winner may have given it back: then that is the one answer.
                matches!(delivery.nack(Duration::ZERO).await, Ok(Settled::Retrying(_)))
            });
        }
        let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 8, "either all acks or all nacks are answered");
        match subscription.try_next().await? {
            Some(again) => again.ack().await?,
            None => idle(&subscription).await?,
        }
    }
    Ok(())
}

async fn delays_and_reasons_are_bounded(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..1).await?;
    let subscription = bus.subscribe(&workers()).await?;
    let delivery = next(&subscription).await?;
    let month = Duration::from_secs(30 * 24 * 60 * 60);
    refused!(delivery.nack(month + SECOND).await, Error::LimitExceeded { limit: "delay", .. });
    refused!(delivery.retry("x".repeat(1025)).await, Error::LimitExceeded { limit: "reason_bytes", actual: 1025, .. });
    refused!(delivery.dead_letter("x".repeat(1025)).await, Error::LimitExceeded { .. });
    delivery.ack().await
}

async fn a_repeat_after_trimming_still_gets_the_first_answer(given: Given) -> Outcome {
    let fleet = given.fleet_with(|config| config.topics = Retention { bytes: 8 * 1024, age: None }).await;
    let bus = fleet.bus();
    let subscription = subscribe(&*bus).await?;
    for n in 0..50 {
        bus.publish(&[event(n).with_header("pad".parse()?, "x".repeat(1000))]).await?;
    }
    let mut deliveries = Vec::new();
    for _ in 0..50 {
        deliveries.push(next(&subscription).await?);
    }
    for delivery in &deliveries {
        delivery.ack().await?;
        delivery.ack().await?;
    }
    fleet.advance(ACK_TIMEOUT - SECOND).await;
    assert!(bus.read(&ORDERS, Start::Beginning, 500).await?.items.len() < 20, "nothing was trimmed");
    for delivery in &deliveries {
        delivery.ack().await?;
        refused!(delivery.nack(SECOND).await, Error::AlreadySettled { .. });
    }
    Ok(())
}

async fn the_verb_that_killed_an_event_is_the_one_that_is_answered(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..2).await?;
    let subscription = bus.subscribe(&workers().with_deliveries(1)).await?;
    let (nacked, refused) = (next(&subscription).await?, next(&subscription).await?);
    let (death, other) = (nacked.retry("busy").await?, refused.dead_letter("poison").await?);
    assert_eq!(nacked.retry("busy").await?, death);
    assert_eq!(refused.dead_letter("poison").await?, other);
    refused!(nacked.dead_letter("poison").await, Error::AlreadySettled { outcome: "dead-lettered", .. });
    refused!(refused.retry("busy").await, Error::AlreadySettled { .. });
    refused!(refused.ack().await, Error::AlreadySettled { .. });
    Ok(())
}

async fn many_are_settled_in_one_call_each_on_its_own(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..70).await?;
    let subscription = bus.subscribe(&workers().with_prefetch(100)).await?;
    let mut held = Vec::new();
    while held.len() < 70 {
        held.extend(subscription.next_batch(70).await?);
    }
    held[3].nack(SECOND).await?;
    let answers = Delivery::ack_all(&held).await?;
    assert_eq!(answers.len(), 70);
    for (nth, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(Settled::Acked) => assert_ne!(nth, 3),
            other => assert!(nth == 3 && matches!(other, Err(Error::AlreadySettled { .. })), "{nth}: {other:?}"),
        }
    }
    assert!(Delivery::ack_all(&held[4..]).await?.into_iter().all(|answer| answer.is_ok()), "repeats are answered");
    assert!(Delivery::ack_all(&[]).await?.is_empty());
    let many = vec![(held[0].receipt.clone(), Settlement::Ack); 501];
    refused!(bus.settle_all(many).await, Error::LimitExceeded { limit: "batch", actual: 501, .. });
    let group = &bus.groups(&ORDERS).await?[0];
    assert_eq!((group.in_flight, group.returning, group.backlog), (0, 1, 0));
    Ok(())
}

async fn one_receipt_twice_in_a_batch_counts_once(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..4).await?;
    let subscription = bus.subscribe(&workers().with_prefetch(3)).await?;
    let held = subscription.next_batch(3).await?;
    assert_eq!(held.len(), 3);
    let twice = [0, 0, 1, 2, 1, 2, 2].map(|nth: usize| (held[nth].receipt.clone(), Settlement::Ack));
    for settled in bus.settle_all(twice.into()).await? {
        assert_eq!(settled?, Settled::Acked);
    }
    let group = &bus.groups(&ORDERS).await?[0];
    assert_eq!((group.in_flight, group.returning, group.backlog, group.floor.get()), (0, 0, 1, 3));
    // There is room for three again.
    publish(&*bus, 4..6).await?;
    assert_eq!(subscription.next_batch(3).await?.len(), 3);
    Ok(())
}
