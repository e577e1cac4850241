//! The journal: what changed, in order, for export and for waiting.

use std::sync::Arc;
use std::time::Duration;

use crate::conformance::harness::{Fleet, Given, Outcome, cases};
use crate::conformance::kit::{DAY, ORDERS, WORKERS, journal_of, next, publish, refused, subscribe, within};
use crate::dead_letter::DeadLetters;
use crate::entry::{Entry, Value};
use crate::error::Error;
use crate::event::{Event, Position};
use crate::journal::export_json_lines;
use crate::name::Topic;
use crate::severity::Severity;
use crate::start::Start;

cases! {
    what_changed_is_in_the_journal: [Journal, DeadLetters];
    deliveries_are_not_journalled: [Journal];
    entries_are_read_in_pages: [Journal, DeadLetters];
    the_journal_is_a_topic: [Journal, Replay, DeadLetters];
    the_export_is_one_line_of_json_for_each_entry: [Journal, DeadLetters];
    trimming_the_journal_is_journalled: [Journal, DeadLetters, Retention];
    an_expired_group_and_its_loss_are_journalled: [Journal, Retention];
}

async fn entries(fleet: &dyn Fleet) -> Result<Vec<Entry>, Error> {
    let journal = journal_of(fleet);
    let start = journal.start().await?;
    let all = journal.entries(start, 500).await?.items;
    // A backend may tell of itself, too.
    Ok(all.into_iter().filter(|entry| entry.component.as_str() == "bus").collect())
}

fn operations(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.operation.as_str()).collect()
}

/// Makes a dead letter of order `n`.
async fn bury(fleet: &dyn Fleet, n: usize) -> Outcome {
    let bus = fleet.bus();
    publish(&*bus, n..=n).await?;
    next(&subscribe(&*bus).await?).await?.dead_letter("poison").await?;
    Ok(())
}

async fn what_changed_is_in_the_journal(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    bury(&*fleet, 0).await?;
    bus.redrive(&DeadLetters::all()).await?;
    bury(&*fleet, 1).await?;
    bus.purge(&DeadLetters::all()).await?;
    bus.remove_group(&ORDERS, &WORKERS).await?;
    let entries = entries(&*fleet).await?;
    let expected = ["group_created", "dead_letter", "redrive", "dead_letter", "purge", "group_removed"];
    assert_eq!(operations(&entries), expected);
    for pair in entries.windows(2) {
        assert!(pair[0].position < pair[1].position);
    }
    for entry in &entries {
        assert_eq!(&*entry.subject, "orders");
        assert_eq!(entry.params.get("group"), Some(&Value::from("workers")));
    }
    assert_eq!((entries[0].severity, entries[1].severity), (Severity::Info, Severity::High));
    Ok(())
}

async fn deliveries_are_not_journalled(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..10).await?;
    let subscription = subscribe(&*bus).await?;
    for _ in 0..10 {
        let delivery = next(&subscription).await?;
        delivery.extend(Duration::from_secs(60)).await?;
        delivery.ack().await?;
    }
    subscription.close().await?;
    assert_eq!(operations(&entries(&*fleet).await?), ["group_created"]);
    Ok(())
}

async fn entries_are_read_in_pages(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    for n in 0..5 {
        bury(&*fleet, n).await?;
    }
    let journal = journal_of(&*fleet);
    let all = journal.entries(Position::ORIGIN, 500).await?;
    let first = journal.entries(Position::ORIGIN, 4).await?;
    assert_eq!((&first.items[..], first.next), (&all.items[..4], all.items[3].position));
    let second = journal.entries(first.next, 500).await?;
    assert_eq!((&second.items[..], second.next), (&all.items[4..], all.next));
    let end = journal.entries(second.next, 4).await?;
    assert_eq!((end.items.len(), end.next), (0, all.next));
    refused!(journal.entries(Position::ORIGIN, 0).await, Error::Invalid(_));
    refused!(journal.entries(Position::ORIGIN, 501).await, Error::LimitExceeded { limit: "batch", .. });
    Ok(())
}

async fn the_journal_is_a_topic(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let mut tail = bus.tail(&Topic::JOURNAL, Start::Now).await?;
    let waiting = tokio::spawn(async move {
        let mut events = Vec::new();
        while events.last().is_none_or(|event: &Arc<Event>| event.event_type.as_str() != "s2.bus.dead_letter") {
            events.push(within("an entry", tail.next()).await?.expect("open"));
        }
        Ok::<_, Error>(events)
    });
    tokio::task::yield_now().await;
    bury(&*fleet, 0).await?;
    let tailed = waiting.await.expect("no panic")?;
    let read = bus.read(&Topic::JOURNAL, Start::Beginning, 500).await?;
    assert!(read.items.ends_with(&tailed));
    let told: Vec<Entry> = read.items.iter().map(|event| event.json()).collect::<Result<_, _>>()?;
    assert_eq!(told, journal_of(&*fleet).entries(Position::ORIGIN, 500).await?.items);
    Ok(())
}

async fn the_export_is_one_line_of_json_for_each_entry(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    for n in 0..3 {
        bury(&*fleet, n).await?;
    }
    let mut lines = Vec::new();
    let last = export_json_lines(&*journal_of(&*fleet), Position::ORIGIN, &mut lines).await?;
    let text = String::from_utf8(lines).expect("JSON is UTF-8");
    let exported: Vec<Entry> = text.lines().map(|line| serde_json::from_str(line).expect("an entry")).collect();
    assert_eq!(exported, journal_of(&*fleet).entries(Position::ORIGIN, 500).await?.items);
    assert_eq!(Some(last), exported.last().map(|entry| entry.position));
    Ok(())
}

async fn trimming_the_journal_is_journalled(given: Given) -> Outcome {
    let fleet = given.fleet_with(|config| config.journal.bytes = 16 * 1024).await;
    for n in 0..300 {
        bury(&*fleet, n).await?;
    }
    let journal = journal_of(&*fleet);
    let start = journal.start().await?;
    assert!(start > Position::ORIGIN, "nothing was trimmed");
    refused!(journal.entries(Position::ORIGIN, 10).await, Error::NotRetained { position: Position::ORIGIN, .. });
    let kept = journal.entries(start, 500).await?.items;
    for pair in kept.windows(2) {
        assert_eq!(pair[1].position, pair[0].position.next());
    }
    let trims: Vec<&Entry> = kept.iter().filter(|entry| entry.operation.as_str() == "trim").collect();
    let last = trims.last().expect("the last trim is told");
    assert_eq!((&*last.component, last.params.get("through")), ("journal", Some(&Value::from(start))));
    Ok(())
}

async fn an_expired_group_and_its_loss_are_journalled(given: Given) -> Outcome {
    let fleet = given.fleet_with(|config| config.topics.age = Some(DAY)).await;
    let bus = fleet.bus();
    subscribe(&*bus).await?.close().await?;
    publish(&*bus, 0..3).await?;
    fleet.advance(8 * DAY).await;
    publish(&*bus, 3..4).await?;
    subscribe(&*bus).await?.close().await?;
    let entries = entries(&*fleet).await?;
    assert_eq!(operations(&entries), ["group_created", "group_expired", "trim", "data_loss"]);
    assert_eq!(entries[3].params.get("events"), Some(&Value::from(3_u64)));
    assert_eq!(entries[3].severity, Severity::High);
    Ok(())
}
