//! Publishing: batches, keys, limits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{
    DAY, ORDERS, RESULTS, WORKERS, contents, event, event_on, handle, keyed, publish, refused, subscribe,
};
use crate::dead_letter::DeadLetters;
use crate::error::Error;
use crate::event::{CONTENT_TYPE_JSON, NewEvent};
use crate::name::{HeaderName, IdempotencyKey, NAME_BYTES, Subject, Topic};
use crate::start::Start;
use crate::subscription::Subscribe;
use crate::time::Timestamp;

cases! {
    what_is_published_is_what_is_read: [Replay];
    positions_rise_by_one_in_the_order_of_publishing: [];
    a_batch_with_one_bad_event_writes_nothing: [AtomicBatch, Replay];
    a_batch_may_span_topics: [AtomicBatch, Replay];
    five_thousand_by_fifty_concurrent_publishers_none_missing: [];
    sixty_four_tasks_publish_one_key_and_there_is_one_event: [Idempotency, Replay];
    another_payload_under_a_used_key_is_a_conflict_and_writes_nothing: [Idempotency, Replay];
    a_key_counts_within_its_topic_and_within_a_batch: [Idempotency, Replay];
    a_key_is_free_again_after_the_window: [Idempotency, Replay];
    every_limit_is_enforced_and_named: [AtomicBatch, Replay];
    a_reserved_topic_is_read_only: [AtomicBatch];
    a_full_backlog_refuses_until_consumers_catch_up: [AtomicBatch, Retention];
    a_full_topic_refuses_the_whole_batch: [AtomicBatch, Retention, Replay];
    dead_letters_and_keys_count_as_held_until_they_go: [Retention, DeadLetters, Idempotency];
    topics_groups_and_pages_are_bounded: [AtomicBatch, Replay, Retention];
}

async fn what_is_published_is_what_is_read(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let full = event(1)
        .with_subject(Subject::from_static("order 4711: ü"))
        .with_content_type(CONTENT_TYPE_JSON)
        .with_time(Timestamp::from_micros(1_762_938_000_123_456))
        .with_idempotency_key(IdempotencyKey::from_static("4711"))
        .with_trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?)
        .with_header(HeaderName::from_static("tenant"), "acme")
        .with_data(vec![0, 159, 146, 150, b'\n', 255]);
    let published = bus.publish(&[full.clone(), event(2)]).await?;
    let read = contents(&*bus, &ORDERS).await?;
    let first = &read[0];
    assert_eq!((first.id, first.position), (published[0].id, published[0].position));
    assert_eq!((&first.topic, &first.event_type, &first.source), (&full.topic, &full.event_type, &full.source));
    assert_eq!((&first.subject, &first.datacontenttype), (&full.subject, &full.datacontenttype));
    assert_eq!((Some(first.time), &first.data, first.trace), (full.time, &full.data, full.trace));
    assert_eq!((&first.idempotency_key, &first.headers), (&full.idempotency_key, &full.headers));
    assert!(read[1].time > Timestamp::EPOCH, "an event without a time gets the store's");
    assert_ne!(read[0].id, read[1].id);
    Ok(())
}

async fn positions_rise_by_one_in_the_order_of_publishing(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let mut published = publish(&*bus, 0..3).await?;
    published.extend(publish(&*bus, 3..5).await?);
    for pair in published.windows(2) {
        assert_eq!(pair[1].position, pair[0].position.next());
    }
    assert!(published.iter().all(|published| !published.duplicate));
    Ok(())
}

async fn a_batch_with_one_bad_event_writes_nothing(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let bad = event(2).with_data(vec![0; 1024 * 1024 + 1]);
    refused!(bus.publish(&[event(1), bad]).await, Error::LimitExceeded { limit: "payload_bytes", .. });
    assert_eq!(contents(&*bus, &ORDERS).await?, []);
    assert_eq!(bus.publish(&[]).await?, [], "an empty batch is no error");
    Ok(())
}

async fn a_batch_may_span_topics(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let published = bus.publish(&[event(1), event_on(RESULTS, 2), event(3)]).await?;
    assert_eq!(contents(&*bus, &ORDERS).await?.len(), 2);
    assert_eq!(contents(&*bus, &RESULTS).await?[0].id, published[1].id);
    Ok(())
}

async fn five_thousand_by_fifty_concurrent_publishers_none_missing(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let mut publishers = tokio::task::JoinSet::new();
    for publisher in 0..50 {
        let bus = fleet.bus();
        publishers.spawn(async move {
            for n in 0..100 {
                bus.publish(&[event(publisher * 100 + n)]).await?;
            }
            Ok::<(), Error>(())
        });
    }
    for done in publishers.join_all().await {
        done?;
    }
    let bus = fleet.bus();
    let numbers = handle(&subscribe(&*bus).await?, 5000).await?;
    assert_eq!(BTreeSet::from_iter(numbers), (0..5000).collect());
    Ok(())
}

async fn sixty_four_tasks_publish_one_key_and_there_is_one_event(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let bus = Arc::clone(&bus);
        tasks.spawn(async move { bus.publish(&[keyed(1, "once")]).await });
    }
    let mut answers = Vec::new();
    for answer in tasks.join_all().await {
        answers.extend(answer?);
    }
    assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1);
    assert!(answers.iter().all(|answer| (answer.id, answer.position) == (answers[0].id, answers[0].position)));
    assert_eq!(contents(&*bus, &ORDERS).await?.len(), 1);
    Ok(())
}

async fn another_payload_under_a_used_key_is_a_conflict_and_writes_nothing(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let first = bus.publish(&[keyed(1, "once")]).await?[0];
    match bus.publish(&[event(7), keyed(2, "once")]).await {
        Err(Error::IdempotencyConflict { topic, key, original }) => {
            assert_eq!((topic, key.as_str(), original), (ORDERS, "once", first.id));
        }
        other => panic!("expected a conflict, got {other:?}"),
    }
    assert_eq!(contents(&*bus, &ORDERS).await?.len(), 1);
    Ok(())
}

async fn a_key_counts_within_its_topic_and_within_a_batch(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let elsewhere = NewEvent { topic: RESULTS, ..keyed(1, "once") };
    let answers = bus.publish(&[keyed(1, "once"), elsewhere, keyed(1, "once"), keyed(1, "twice")]).await?;
    let duplicates: Vec<bool> = answers.iter().map(|answer| answer.duplicate).collect();
    assert_eq!(duplicates, [false, false, true, false]);
    assert_eq!(answers[2].id, answers[0].id);
    let contradiction = bus.publish(&[event(5), keyed(1, "new"), keyed(2, "new")]).await;
    assert!(contradiction.is_err(), "one batch says two things under one key: {contradiction:?}");
    assert_eq!(contents(&*bus, &ORDERS).await?.len(), 2);
    Ok(())
}

async fn a_key_is_free_again_after_the_window(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let first = bus.publish(&[keyed(1, "daily")]).await?[0];
    fleet.advance(DAY - Duration::from_secs(1)).await;
    assert_eq!(bus.publish(&[keyed(1, "daily")]).await?[0].id, first.id);
    fleet.advance(Duration::from_secs(1)).await;
    let second = bus.publish(&[keyed(2, "daily")]).await?[0];
    assert!(!second.duplicate && second.id != first.id);
    assert_eq!(bus.publish(&[keyed(2, "daily")]).await?[0].id, second.id, "the window begins anew");
    Ok(())
}

async fn every_limit_is_enforced_and_named(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let exact = |bytes: usize| event(0).with_data(vec![b'x'; bytes]);
    bus.publish(&[exact(1024 * 1024)]).await?;
    let refuse = |limit: &'static str, actual: u64, events: Vec<NewEvent>| {
        let bus = Arc::clone(&bus);
        async move {
            match bus.publish(&events).await {
                Err(Error::LimitExceeded { limit: found, actual: size, max, .. }) => {
                    assert_eq!((found, size), (limit, actual));
                    assert!(max < actual);
                }
                other => panic!("expected {limit}, got {other:?}"),
            }
        }
    };
    refuse("payload_bytes", 1024 * 1024 + 1, vec![exact(1024 * 1024 + 1)]).await;
    refuse("batch", 501, vec![event(0); 501]).await;
    let header = |bytes: usize| event(0).with_header(HeaderName::from_static("big"), "x".repeat(bytes - 3));
    bus.publish(&[header(8 * 1024)]).await?;
    refuse("header_bytes", 8 * 1024 + 1, vec![header(8 * 1024 + 1)]).await;
    refused!(bus.publish(&[event(0).with_header(HeaderName::from_static("id"), "7")]).await, Error::Invalid(_));
    assert!(Topic::new("x".repeat(NAME_BYTES)).is_ok());
    let name = Topic::new("x".repeat(NAME_BYTES + 1)).unwrap_err();
    assert!(name.reason().contains("257") && name.reason().contains("256"), "{name}");
    assert_eq!(contents(&*bus, &ORDERS).await?.len(), 2, "what was refused was not written");
    Ok(())
}

async fn a_reserved_topic_is_read_only(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    for topic in [Topic::JOURNAL, Topic::from_static("s2.anything")] {
        refused!(bus.publish(&[event_on(topic, 1)]).await, Error::ReservedTopic { .. });
    }
    Ok(())
}

async fn a_full_backlog_refuses_until_consumers_catch_up(given: Given) -> Outcome {
    let fleet = given.fleet_with(|config| config.limits.backlog_bytes = 64 * 1024).await;
    let bus = fleet.bus();
    let subscription = subscribe(&*bus).await?;
    let big = event(1).with_data(vec![b'1'; 20 * 1024]);
    bus.publish(&[big.clone(), big.clone()]).await?;
    match bus.publish(&[big.clone(), big.clone()]).await {
        Err(error @ Error::BacklogFull { .. }) => assert!(error.is_retryable()),
        other => panic!("expected a full backlog, got {other:?}"),
    }
    subscription.next().await?.expect("open").ack().await?;
    subscription.next().await?.expect("open").ack().await?;
    bus.publish(&[big.clone(), big]).await?;
    // An event without payload takes room, too.
    let empty = event(1).with_data("");
    for n in 0.. {
        match bus.publish(std::slice::from_ref(&empty)).await {
            Ok(_) => assert!(n < 2000, "empty events are not counted"),
            Err(Error::BacklogFull { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn a_full_topic_refuses_the_whole_batch(given: Given) -> Outcome {
    let fleet = given.fleet_with(|config| config.limits.backlog_bytes = 32 * 1024).await;
    let bus = fleet.bus();
    drop(bus.subscribe(&Subscribe::new(RESULTS, WORKERS)).await?);
    let big = event_on(RESULTS, 1).with_data(vec![0; 20 * 1024]);
    bus.publish(std::slice::from_ref(&big)).await?;
    match bus.publish(&[event(1), big]).await {
        Err(Error::BacklogFull { topic, held_bytes, max }) => {
            assert_eq!((topic, max), (RESULTS, 32 * 1024));
            assert!(held_bytes >= 20 * 1024);
        }
        other => panic!("expected a full backlog, got {other:?}"),
    }
    assert_eq!(contents(&*bus, &ORDERS).await?, []);
    // A topic between its parts does not hide how much a batch adds; what adds nothing is no burden.
    let fleet = given.fleet_with(|config| config.limits.backlog_bytes = 32 * 1024).await;
    let bus = fleet.bus();
    let half = |n| event(n).with_data(vec![0; 20 * 1024]);
    refused!(bus.publish(&[half(1), event_on(RESULTS, 1), half(2)]).await, Error::BacklogFull { .. });
    drop(subscribe(&*bus).await?);
    let keyed = half(1).with_idempotency_key(IdempotencyKey::from_static("once"));
    let first = bus.publish(std::slice::from_ref(&keyed)).await?[0];
    bus.publish(&[event(2).with_data(vec![0; 10 * 1024])]).await?;
    assert_eq!(bus.publish(&[keyed]).await?[0].id, first.id, "a repeat is answered, however full the topic is");
    Ok(())
}

async fn dead_letters_and_keys_count_as_held_until_they_go(given: Given) -> Outcome {
    let fleet = given.fleet_with(|config| config.limits.backlog_bytes = 64 * 1024).await;
    let bus = fleet.bus();
    let big = event(1).with_data(vec![0; 40 * 1024]);
    bus.publish(std::slice::from_ref(&big)).await?;
    let subscription = subscribe(&*bus).await?;
    subscription.next().await?.expect("open").dead_letter("poison").await?;
    refused!(bus.publish(std::slice::from_ref(&big)).await, Error::BacklogFull { .. });
    bus.purge(&DeadLetters::all()).await?;
    bus.publish(&[big]).await?;
    subscription.next().await?.expect("open").ack().await?;
    for n in 0.. {
        let key = IdempotencyKey::new(format!("key {n} {}", "x".repeat(200)))?;
        match bus.publish(&[event(n).with_idempotency_key(key)]).await {
            Ok(_) => subscription.next().await?.expect("open").ack().await?,
            Err(Error::BacklogFull { .. }) => break,
            Err(error) => return Err(error),
        }
        assert!(n < 2000, "keys are not counted");
    }
    fleet.advance(DAY).await;
    bus.publish(&[keyed(1, "after the window")]).await?;
    Ok(())
}

async fn topics_groups_and_pages_are_bounded(given: Given) -> Outcome {
    let change = |config: &mut crate::config::Config| (config.limits.topics, config.limits.groups) = (2, 1);
    let fleet = given.fleet_with(change).await;
    let bus = fleet.bus();
    bus.publish(&[event(1), event_on(RESULTS, 1)]).await?;
    let third = bus.publish(&[event(2), event_on(Topic::from_static("third"), 1)]).await;
    refused!(third, Error::LimitExceeded { limit: "topics", actual: 3, max: 2, .. });
    assert_eq!(contents(&*bus, &ORDERS).await?.len(), 1);
    let narrow = given.fleet_with(change).await.bus();
    narrow.publish(&[event(1)]).await?;
    let (a, b) = (Topic::from_static("a"), Topic::from_static("b"));
    let both = narrow.publish(&[event_on(a.clone(), 1), event_on(b, 1)]).await;
    refused!(both, Error::LimitExceeded { limit: "topics", actual: 3, .. });
    assert_eq!(contents(&*narrow, &a).await?, [], "half of a batch was written");
    let first = subscribe(&*bus).await?;
    let second = bus.subscribe(&Subscribe::new(ORDERS, "second".parse()?)).await;
    refused!(second, Error::LimitExceeded { limit: "groups", actual: 2, max: 1, .. });
    drop(first);
    refused!(bus.read(&ORDERS, Start::Beginning, 0).await, Error::Invalid(_));
    refused!(bus.read(&ORDERS, Start::Beginning, 501).await, Error::LimitExceeded { limit: "batch", .. });
    Ok(())
}
