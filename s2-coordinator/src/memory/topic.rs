//! One topic: its events, its idempotency keys and its groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Config;
use crate::entry::Record;
use crate::error::Error;
use crate::event::{Event, Position};
use crate::memory::effects::Effects;
use crate::memory::group::GroupState;
use crate::memory::keys::Keys;
use crate::memory::log::Log;
use crate::memory::wait::WaitList;
use crate::name::{GroupName, Topic};
use crate::severity::Severity;
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct TopicState {
    pub(super) name: Topic,
    pub(super) log: Log,
    pub(super) keys: Keys,
    /// By incarnation.
    pub(super) groups: BTreeMap<u64, GroupState>,
    pub(super) tails: WaitList,
    /// Bytes of its dead letters.
    pub(super) dead_bytes: u64,
    /// Nothing is due here earlier.
    pub(super) due: Timestamp,
}

impl TopicState {
    /// A topic whose first event follows `after`.
    pub(super) fn new(name: Topic, after: Position) -> Self {
        Self {
            name,
            log: Log::new(after),
            keys: Keys::default(),
            groups: BTreeMap::new(),
            tails: WaitList::default(),
            dead_bytes: 0,
            due: Timestamp::MAX,
        }
    }

    pub(super) fn group_named(&mut self, name: &GroupName) -> Option<&mut GroupState> {
        self.groups.values_mut().find(|group| group.name == *name)
    }

    /// Everything up to here is settled by every group that still counts.
    fn safe(&self) -> Position {
        let floors = self.groups.values().filter(|group| !group.expired).map(GroupState::floor);
        floors.min().unwrap_or(Position::new(self.log.end().get() - 1))
    }

    /// Fails when `more` bytes would exceed what a topic may hold that nobody may drop: events that a group has not
    /// settled, dead letters, idempotency keys.
    pub(super) fn check_backlog(&mut self, more: u64, fx: &Effects) -> Result<(), Error> {
        let max = fx.config.limits.backlog_bytes;
        if self.log.bytes() + self.dead_bytes + self.keys.bytes() + more <= max {
            return Ok(());
        }
        self.keys.expire(fx.now, fx.config.idempotency_window);
        let held_bytes = self.log.bytes_after(self.safe()) + self.dead_bytes + self.keys.bytes();
        if held_bytes + more <= max {
            return Ok(());
        }
        Err(Error::BacklogFull { topic: self.name.clone(), held_bytes, max })
    }

    /// Appends an event. Waking is the caller's part, once for a batch.
    pub(super) fn push(&mut self, event: Arc<Event>, fx: &mut Effects) {
        self.log.push(event, fx.now);
        if let Some(age) = fx.config.topics.age {
            self.arm(fx.now + age, fx);
        }
    }

    /// Something is due here at `at`, whether or not anybody calls.
    pub(super) fn arm(&mut self, at: Timestamp, fx: &mut Effects) {
        self.due = self.due.min(at);
        fx.arm(at);
    }

    /// Wakes whoever waits for events, after `count` came.
    pub(super) fn wake(&mut self, count: usize, fx: &mut Effects) {
        fx.wake(self.tails.all(|_| true));
        for group in self.groups.values_mut() {
            fx.wake(group.wake(&self.log, count));
        }
    }

    /// Drops settled history that exceeds the retention, an eighth of it at a time, and says so in the journal.
    pub(super) fn trim(&mut self, fx: &mut Effects) {
        let (retention, now) = (fx.config.topics, fx.now);
        let too_much = self.log.bytes() > retention.bytes;
        let old_at = self.log.oldest().zip(retention.age).map(|(oldest, age)| oldest + age);
        let too_old = old_at.is_some_and(|at| at <= now);
        if let Some(at) = old_at.filter(|_| !too_old) {
            self.arm(at, fx);
        }
        if !too_much && !too_old {
            return;
        }
        let (safe, before) = (self.safe(), self.log.first());
        let eighth = retention.bytes / 8;
        let too_much = too_much && self.log.bytes() - self.log.bytes_after(safe) >= eighth;
        let room = if too_much { retention.bytes - eighth } else { u64::MAX };
        let youth = retention.age.filter(|_| too_old).map(|age| age - age / 8);
        while let Some(oldest) = self.log.oldest()
            && self.log.first() <= safe
            && (self.log.bytes() > room || youth.is_some_and(|youth| now.since(oldest) >= youth))
        {
            self.log.pop();
        }
        let first = self.log.first();
        if first > before {
            self.forget(fx);
            let record = Record::new("bus", "trim", self.name.to_text());
            fx.journal(record.with("through", first.get() - 1).with("events", first.get() - before.get()));
            // What stays was held back until now, and may not have been waited for.
            if let Some((oldest, age)) = self.log.oldest().zip(retention.age) {
                self.arm(oldest + age, fx);
            }
        }
    }

    /// Lets groups forget what the topic has forgotten.
    fn forget(&mut self, fx: &Effects) {
        let oldest = self.log.first();
        for group in self.groups.values_mut() {
            group.forget_before(oldest, fx.now, &fx.config);
        }
    }

    /// When the oldest event will be too old, if nothing holds it.
    fn aged_at(&self, config: &Config) -> Option<Timestamp> {
        let (oldest, age) = self.log.oldest().zip(config.topics.age)?;
        (self.log.first() <= self.safe()).then_some(oldest + age)
    }

    /// Lets groups that have been alone for long go of the floor.
    fn expire_groups(&mut self, fx: &mut Effects) {
        for group in self.groups.values_mut() {
            let alone = group.idle_since.is_some_and(|since| fx.now.since(since) >= fx.config.group_expiry);
            if alone && !group.expired {
                group.expired = true;
                let record = Record::new("bus", "group_expired", self.name.to_text())
                    .with("group", group.name.to_text())
                    .with("floor", group.floor())
                    .with("backlog", group.backlog(&self.log))
                    .with_severity(Severity::Medium);
                fx.journal(record);
            }
        }
    }

    /// Lets a group that had expired hold the floor again, and says what it has missed meanwhile.
    pub(super) fn return_group(&mut self, incarnation: u64, fx: &mut Effects) {
        let oldest = self.log.first();
        let Some(group) = self.groups.get_mut(&incarnation).filter(|group| group.expired) else { return };
        group.forget_before(oldest, fx.now, &fx.config);
        group.expired = false;
        let lost = std::mem::take(&mut group.lost);
        if lost > 0 {
            let record = Record::new("bus", "data_loss", self.name.to_text())
                .with("group", group.name.to_text())
                .with("events", lost)
                .with("resumes_at", oldest)
                .with_severity(Severity::High);
            fx.journal(record);
        }
    }

    /// Does what time has brought, deliveries aside.
    pub(super) fn sweep(&mut self, fx: &mut Effects) {
        self.expire_groups(fx);
        self.keys.expire(fx.now, fx.config.idempotency_window);
        self.trim(fx);
        self.forget(fx);
        self.due = self.next_due(&fx.config).unwrap_or(Timestamp::MAX);
    }

    fn next_due(&self, config: &Config) -> Option<Timestamp> {
        let deliveries = self.groups.values().filter_map(GroupState::next_due);
        let alone = self.groups.values().filter(|group| !group.expired).filter_map(|group| group.idle_since);
        // Forgetting is no decision, so it may wait until it is worth it.
        let window = config.idempotency_window;
        let keys = self.keys.oldest().map(|at| at + window + window / 8);
        let expiry = alone.map(|since| since + config.group_expiry);
        deliveries.chain(expiry).chain(self.aged_at(config)).chain(keys).min()
    }

    /// Whether nothing would be lost if the topic were forgotten.
    pub(super) fn is_vacant(&self) -> bool {
        self.log.is_empty()
            && self.groups.is_empty()
            && self.tails.is_empty()
            && self.keys.is_empty()
            && self.dead_bytes == 0
    }
}
