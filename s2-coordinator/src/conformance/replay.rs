//! Reading and tailing: broadcast and replay, without any state.

use crate::bus::EventBus;
use crate::conformance::harness::{Given, Outcome, cases};
use crate::conformance::kit::{ORDERS, RESULTS, contents, event_on, handle, next, number, publish, subscribe, within};
use crate::error::Error;
use crate::event::Position;
use crate::name::Topic;
use crate::start::Start;
use crate::tail::Tail;

cases! {
    reading_replays_from_any_position: [Replay];
    reading_sees_settled_and_unsettled_alike: [Replay];
    a_topic_that_nobody_used_is_empty: [Replay];
    eight_tails_each_see_every_event_in_order: [Replay];
    a_tail_may_start_anywhere: [Replay];
    a_dropped_wait_of_a_tail_skips_nothing: [Replay];
    a_tail_leaves_no_group: [Replay];
}

async fn tailed(tail: &mut Tail, count: usize) -> Result<Vec<usize>, Error> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let event = within("an event", tail.next()).await?.expect("the bus is open");
        numbers.push(number(&event));
    }
    Ok(numbers)
}

async fn reading_replays_from_any_position(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let published = publish(&*bus, 0..10).await?;
    let page = bus.read(&ORDERS, Start::After(published[3].position), 4).await?;
    assert_eq!(page.items.iter().map(|event| number(event)).collect::<Vec<_>>(), [4, 5, 6, 7]);
    assert_eq!(page.next, published[7].position);
    let rest = bus.read(&ORDERS, Start::After(page.next), 4).await?;
    assert_eq!(rest.items.len(), 2);
    let end = bus.read(&ORDERS, Start::After(rest.next), 4).await?;
    assert_eq!((end.items.len(), end.next), (0, rest.next), "the end is where the next event will follow");
    publish(&*bus, 10..11).await?;
    assert_eq!(bus.read(&ORDERS, Start::After(end.next), 4).await?.items.len(), 1);
    Ok(())
}

async fn reading_sees_settled_and_unsettled_alike(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    publish(&*bus, 0..3).await?;
    let subscription = subscribe(&*bus).await?;
    handle(&subscription, 1).await?;
    let _held = next(&subscription).await?;
    assert_eq!(contents(&*bus, &ORDERS).await?.len(), 3);
    Ok(())
}

async fn a_topic_that_nobody_used_is_empty(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let page = bus.read(&ORDERS, Start::Beginning, 10).await?;
    assert_eq!((page.items.len(), page.next), (0, Position::ORIGIN));
    assert_eq!(bus.groups(&ORDERS).await?, []);
    publish(&*bus, 0..1).await?;
    assert_eq!(bus.read(&ORDERS, Start::After(page.next), 10).await?.items.len(), 1);
    Ok(())
}

async fn eight_tails_each_see_every_event_in_order(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let mut tails = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut tail = bus.tail(&ORDERS, Start::Now).await?;
        tails.spawn(async move { tailed(&mut tail, 500).await });
    }
    for n in 0..500 {
        publish(&*bus, n..=n).await?;
        bus.publish(&[event_on(RESULTS, n)]).await?;
    }
    for numbers in tails.join_all().await {
        assert_eq!(numbers?, Vec::from_iter(0..500));
    }
    Ok(())
}

async fn a_tail_may_start_anywhere(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let published = publish(&*bus, 0..5).await?;
    let mut beginning = bus.tail(&ORDERS, Start::Beginning).await?;
    let mut after = bus.tail(&ORDERS, Start::After(published[2].position)).await?;
    let mut now = bus.tail(&ORDERS, Start::Now).await?;
    publish(&*bus, 5..6).await?;
    assert_eq!(tailed(&mut beginning, 6).await?, [0, 1, 2, 3, 4, 5]);
    assert_eq!(tailed(&mut after, 3).await?, [3, 4, 5]);
    assert_eq!(tailed(&mut now, 1).await?, [5]);
    Ok(())
}

async fn a_dropped_wait_of_a_tail_skips_nothing(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let mut tail = bus.tail(&ORDERS, Start::Now).await?;
    for n in 0..100 {
        let hasty = tokio::time::timeout(std::time::Duration::from_micros(20), tail.next());
        let (seen, published) = tokio::join!(hasty, publish(&*bus, n..=n));
        published?;
        match seen {
            Ok(event) => assert_eq!(number(&event?.expect("open")), n),
            Err(_) => assert_eq!(tailed(&mut tail, 1).await?, [n]),
        }
    }
    Ok(())
}

async fn a_tail_leaves_no_group(given: Given) -> Outcome {
    let fleet = given.fleet().await;
    let bus = fleet.bus();
    let tail = bus.tail(&ORDERS, Start::Now).await?;
    assert_eq!(bus.groups(&ORDERS).await?, []);
    drop(tail);
    let journal: &dyn EventBus = &*bus;
    journal.tail(&Topic::JOURNAL, Start::Beginning).await?;
    Ok(())
}
