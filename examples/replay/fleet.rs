//! A fleet whose clock is moved from event to event, and what its sessions do there.

use std::collections::BTreeMap;
use std::sync::Arc;

use s2_coordinator::{
    Claim, Clock, Config, Ended, Ending, Entry, Grant, Incarnation, Journal, Lease, Leases, ManualClock,
    MemoryScheduler, MemoryStore, Position, Profile, Retention, Scheduler, SwarmId, Timestamp,
};

use crate::replay::Failure;

/// What ids and jitter come from: two runs are the same.
const SEED: u64 = 1;

/// A store whose clock stands still until it is moved.
pub(super) fn store(mut config: Config, start: Timestamp) -> Result<(MemoryStore, Arc<ManualClock>), Failure> {
    // The run is checked by the journal, so all of it is kept; and a run may take weeks.
    config.journal = Retention { bytes: u64::MAX, age: None };
    config.finished = config.journal;
    let clock = Arc::new(ManualClock::new(start));
    let builder = MemoryStore::builder().with_config(config).with_seed(SEED);
    Ok((builder.with_clock(Arc::clone(&clock)).build()?, clock))
}

/// The real scheduler in virtual time.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) store: MemoryStore,
    pub(super) scheduler: MemoryScheduler,
    clock: Arc<ManualClock>,
}

/// A session that has entered.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: SwarmId,
    incarnation: Incarnation,
    requests: u64,
}

impl Fleet {
    pub(super) fn new(config: Config, start: Timestamp) -> Result<Self, Failure> {
        let (store, clock) = store(config, start)?;
        Ok(Self { scheduler: store.scheduler(), store, clock })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn go_to(&self, at: Timestamp) {
        self.clock.advance(at.since(self.now()));
    }

    pub(super) async fn enter(&self, profile: Profile) -> Result<Member, Failure> {
        let incarnation = self.scheduler.enter(&profile).await?;
        Ok(Member { name: profile.session, incarnation, requests: 0 })
    }

    /// What the session can have now, if anything.
    pub(super) async fn take(&self, member: &mut Member) -> Result<Option<Grant>, Failure> {
        member.requests += 1;
        let claim = Claim { by: member.incarnation.clone(), request: member.requests, max: 1 };
        Ok(self.scheduler.take(&claim).await?.pop())
    }

    pub(super) async fn end(&self, lease: Lease, ending: Ending) -> Result<Ended, Failure> {
        let mut all = self.scheduler.end(vec![(lease, ending)], None).await?;
        Ok(all.ended.swap_remove(0)?)
    }

    /// All that has happened.
    pub(super) async fn entries(&self) -> Result<Vec<Entry>, Failure> {
        let (journal, mut all, mut after) = (self.store.journal(), Vec::new(), Position::ORIGIN);
        loop {
            let page = journal.entries(after, 500).await?;
            if page.items.is_empty() {
                return Ok(all);
            }
            all.extend(page.items);
            after = page.next;
        }
    }
}

/// What happens when, in order.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    events: BTreeMap<(Timestamp, u64), T>,
    added: u64,
}

impl<T> Agenda<T> {
    pub(super) const fn new() -> Self {
        Self { events: BTreeMap::new(), added: 0 }
    }

    pub(super) fn add(&mut self, at: Timestamp, event: T) {
        self.added += 1;
        self.events.insert((at, self.added), event);
    }

    pub(super) fn next(&mut self) -> Option<(Timestamp, T)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }

    /// Whether that is all that happens at this moment.
    pub(super) fn is_over(&self, moment: Timestamp) -> bool {
        self.events.first_key_value().is_none_or(|((at, _), _)| *at > moment)
    }
}
