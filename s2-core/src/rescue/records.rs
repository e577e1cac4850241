//! Of what use help was until now.
//!
//! It is told on [`RESCUES`] as it is found out, and added up by whoever chooses helpers. Events are forgotten after a while, so the
//! sum is told there, too: after so many of them, and each day.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::{Error as CoordinatorError, Event, Position, Start, SwarmId, Timestamp, UtcDay};
use s2_governor::{Need, TrackRecords};

use crate::error::Error;
use crate::help::ORGANISER;
use crate::help::RESCUES;
use crate::help::RescueEvent;
use crate::s2::S2;

/// How many events are read at a time.
const PAGE: usize = 500;

/// How many bytes of the sum an event tells, or one session more.
const BYTES: usize = 128 * 1024;

/// After how many outcomes the sum is told.
const OUTCOMES: usize = 1_000;

/// After how long it is.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// After how many half-lives an outcome is forgotten: then it weighs less than a thousandth.
const HALF_LIVES: u64 = 10;

/// Of what use help was until now.
#[derive(Debug, Default)]
pub(crate) struct Records {
    records: TrackRecords,
    /// Up to where it was read.
    read: Position,
    /// Outcomes since the sum was told.
    outcomes: usize,
    /// When it was told.
    told: Timestamp,
    /// Whether anything was read.
    begun: bool,
}

impl Records {
    /// What is known now: what was found out since it was read last is added.
    pub(crate) async fn catch_up(&mut self, s2: &S2) -> Result<&TrackRecords, Error> {
        let mut news = Vec::new();
        loop {
            let page = match s2.bus().read(&RESCUES, Start::After(self.read), PAGE).await {
                Err(CoordinatorError::NotRetained { oldest, .. }) => {
                    self.read = Position::new(oldest.get().saturating_sub(1));
                    continue;
                }
                page => page?,
            };
            let is_last = page.items.len() < PAGE;
            self.read = page.next;
            news.extend(page.items.iter().filter_map(told));
            if is_last {
                break;
            }
        }
        self.add(news);
        Ok(&self.records)
    }

    /// Adds what is new. A sum that was told stands for everything before it.
    fn add(&mut self, news: Vec<(Arc<Event>, RescueEvent)>) {
        let begins = !std::mem::replace(&mut self.begun, true);
        let summed = if begins { self.begin(&news) } else { Position::default() };
        for (event, told) in news {
            match told {
                RescueEvent::Verified { helper, by, requires, outcome } if event.position > summed => {
                    self.records.record(&helper, &Need::new(by, &requires), outcome, event.time);
                    self.outcomes += 1;
                }
                RescueEvent::Summed { .. } => (self.outcomes, self.told) = (0, event.time),
                _ => {}
            }
        }
    }

    /// Begins with the latest sum of which all parts are there. Answers up to where it goes.
    fn begin(&mut self, news: &[(Arc<Event>, RescueEvent)]) -> Position {
        let mut sums: BTreeMap<Position, (usize, usize, serde_json::Map<String, serde_json::Value>)> = BTreeMap::new();
        for (_, told) in news {
            let RescueEvent::Summed { through, part: (_, of), records } = told else { continue };
            let (parts, all, sum) = sums.entry(*through).or_default();
            (*parts, *all) = (*parts + 1, *of);
            sum.extend(records.iter().map(|(session, record)| (session.to_string(), record.clone())));
        }
        let whole = sums.into_iter().rev().find(|(_, (parts, of, _))| parts >= of);
        let read = whole.and_then(|(through, (_, _, sum))| Some((through, serde_json::from_value(sum.into()).ok()?)));
        let Some((through, records)) = read else { return Position::default() };
        self.records = records;
        through
    }

    /// Tells the sum if it is time to. What is very old is forgotten.
    pub(crate) async fn tell(&mut self, s2: &S2) -> Result<(), Error> {
        let now = s2.clock().now();
        if self.records == TrackRecords::default() || self.outcomes < OUTCOMES && now.since(self.told) < DAY {
            return Ok(());
        }
        let kept = HALF_LIVES * u64::from(s2.settings().help.half_life_days);
        let oldest = now.as_micros().saturating_sub(kept * DAY.as_micros() as u64);
        self.records.forget(UtcDay::of(Timestamp::from_micros(oldest)));
        let stored = serde_json::to_value(&self.records).map_err(unstorable)?;
        let all: BTreeMap<SwarmId, serde_json::Value> = serde_json::from_value(stored).map_err(unstorable)?;
        let parts = split(all);
        let of = parts.len();
        for (nth, records) in parts.into_iter().enumerate() {
            let through = self.read;
            let told = RescueEvent::Summed { through, part: (nth, of), records };
            let event = told
                .told_by(ORGANISER)?
                .with_idempotency_key(format!("sum/{through}/{nth}/{}", UtcDay::of(now)).parse()?);
            s2.bus().publish(&[event]).await?;
        }
        (self.outcomes, self.told) = (0, now);
        Ok(())
    }
}

/// The sum in parts that an event can tell.
fn split(all: BTreeMap<SwarmId, serde_json::Value>) -> Vec<BTreeMap<SwarmId, serde_json::Value>> {
    let (mut parts, mut bytes) = (vec![BTreeMap::new()], 0);
    for (session, record) in all {
        if bytes > BYTES {
            parts.push(BTreeMap::new());
            bytes = 0;
        }
        bytes += session.as_str().len() + record.to_string().len();
        parts.last_mut().into_iter().for_each(|part| drop(part.insert(session.clone(), record.clone())));
    }
    parts
}

fn told(event: &Arc<Event>) -> Option<(Arc<Event>, RescueEvent)> {
    // What somebody else says here is none of ours.
    Some((Arc::clone(event), event.json().ok()?))
}

fn unstorable(error: serde_json::Error) -> Error {
    s2_coordinator::Error::Backend { retryable: false, source: error.into() }.into()
}

#[cfg(test)]
mod tests {
    use s2_coordinator::{Capabilities, TaskId};
    use s2_governor::Verified;

    use super::*;

    async fn tell(s2: &S2, told: RescueEvent) {
        s2.bus().publish(&[told.told_by(ORGANISER).unwrap()]).await.unwrap();
    }

    fn verified(helper: &'static str, outcome: Verified) -> RescueEvent {
        let (helper, by) = (SwarmId::from_static(helper), SwarmId::from_static("sip"));
        RescueEvent::Verified { helper, by, requires: Capabilities::new(["integration:sip"]).unwrap(), outcome }
    }

    #[tokio::test]
    async fn a_sum_stands_for_what_it_sums_up_and_is_told_once_a_day() {
        let s2 = S2::in_memory();
        tell(&s2, verified("a", Verified::Success)).await;
        tell(&s2, verified("b", Verified::Failure)).await;
        let mut first = Records::default();
        let known = first.catch_up(&s2).await.unwrap().clone();
        first.tell(&s2).await.unwrap();
        first.tell(&s2).await.unwrap();
        // Whoever begins later adds up what came after the sum, and nothing twice.
        let mut second = Records::default();
        assert_eq!(*second.catch_up(&s2).await.unwrap(), known);
        tell(&s2, verified("a", Verified::Success)).await;
        let both = (first.catch_up(&s2).await.unwrap().clone(), second.catch_up(&s2).await.unwrap().clone());
        assert_eq!(both.0, both.1);
        assert_ne!(both.0, known);
        let told = s2.bus().read(&RESCUES, Start::Beginning, PAGE).await.unwrap().items;
        assert_eq!(told.iter().filter(|event| event.event_type.as_str() == "rescue.summed").count(), 1);
    }

    #[tokio::test]
    async fn a_sum_of_which_a_part_is_missing_and_what_others_say_count_for_nothing() {
        let s2 = S2::in_memory();
        tell(&s2, verified("a", Verified::Success)).await;
        let (through, records) = (Position::new(1), BTreeMap::new());
        tell(&s2, RescueEvent::Summed { through, part: (0, 2), records }).await;
        tell(&s2, RescueEvent::Recruited { helper: SwarmId::from_static("a"), help: TaskId::new(1) }).await;
        let other = s2_coordinator::NewEvent::new(RESCUES, "other".parse().unwrap(), ORGANISER).with_data("what?");
        s2.bus().publish(&[other]).await.unwrap();
        let mut records = Records::default();
        let known = records.catch_up(&s2).await.unwrap();
        let (a, domain) = (SwarmId::from_static("a"), "integration:sip".parse().unwrap());
        assert!(known.get(&a, &domain).is_some());
    }

    #[test]
    fn a_large_sum_is_told_in_parts() {
        let record = serde_json::Value::from("x".repeat(10_000));
        let all: BTreeMap<SwarmId, _> =
            (0..50).map(|nth| (SwarmId::new(format!("session-{nth}")).unwrap(), record.clone())).collect();
        let parts = split(all.clone());
        assert_eq!(parts.len(), 4, "fourteen are more than 128 KiB");
        assert_eq!(parts.into_iter().flatten().collect::<BTreeMap<_, _>>(), all);
    }
}
