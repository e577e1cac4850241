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
    pub(super) groups: BTreeMap<GroupName, GroupState>,
    pub(super) tails: WaitList,
    /// Bytes of its dead letters.
    pub(super) dead_bytes: u64,
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
        }
    }

    /// Everything up to here is settled by every group that still counts.
    fn safe(&self) -> Position {
        let floors = self.groups.values().filter(|group| !group.expired).map(GroupState::floor);
        floors.min().unwrap_or(Position::new(self.log.end().get() - 1))
    }

    /// Fails when `more` bytes would exceed what a topic may hold that nobody may drop: events that a group has not
    /// settled, dead letters, idempotency keys.
    pub(super) fn check_backlog(&mut self, more: u64, fx: &mut Effects) -> Result<(), Error> {
        let max = fx.config.limits.backlog_bytes;
        let kept = self.dead_bytes + self.keys.bytes();
        if self.log.bytes() + kept + more <= max {
            return Ok(());
        }
        self.expire_groups(fx);
        let held_bytes = self.log.bytes_after(self.safe()) + kept;
        if held_bytes + more <= max {
            return Ok(());
        }
        Err(Error::BacklogFull { topic: self.name.clone(), held_bytes, max })
    }

    /// Appends an event. Waking is the caller's part, once for a batch.
    pub(super) fn push(&mut self, event: Arc<Event>, fx: &mut Effects) {
        self.log.push(event, fx.now);
        if let Some(age) = fx.config.topics.age {
            fx.arm(fx.now + age);
        }
    }

    /// Wakes whoever waits for events, after `count` came or came back.
    pub(super) fn wake(&mut self, count: usize, fx: &mut Effects) {
        fx.wake(self.tails.all(|_| true));
        for group in self.groups.values_mut() {
            fx.wake(group.wake(&self.log, count));
        }
    }

    /// Drops settled history that exceeds the retention, an eighth at a time, and says so in the journal.
    pub(super) fn trim(&mut self, fx: &mut Effects) {
        let (retention, now) = (fx.config.topics, fx.now);
        let aged =
            |oldest: Option<Timestamp>| oldest.zip(retention.age).is_some_and(|(oldest, age)| now.since(oldest) >= age);
        let full = self.log.bytes() > retention.bytes;
        if !full && !aged(self.log.oldest()) {
            return;
        }
        self.expire_groups(fx);
        let room = if full { retention.bytes - retention.bytes / 8 } else { retention.bytes };
        let (safe, before) = (self.safe(), self.log.first());
        while !self.log.is_empty() && self.log.first() <= safe && (self.log.bytes() > room || aged(self.log.oldest())) {
            self.log.pop();
        }
        let first = self.log.first();
        if first > before {
            for group in self.groups.values_mut().filter(|group| !group.expired) {
                group.forget_below(first);
            }
            let record = Record::new("bus", "trim", self.name.to_text());
            fx.journal(record.with("through", first.get() - 1).with("events", first.get() - before.get()));
        }
    }

    /// Lets groups that have been alone for long go of the floor.
    pub(super) fn expire_groups(&mut self, fx: &mut Effects) {
        for (name, group) in &mut self.groups {
            let alone = group.idle_since.is_some_and(|since| fx.now.since(since) >= fx.config.group_expiry);
            if alone && !group.expired {
                group.expired = true;
                let backlog = self.log.end().get() - group.cursor().get();
                let record = Record::new("bus", "group_expired", self.name.to_text())
                    .with("group", name.to_text())
                    .with("floor", group.floor())
                    .with("backlog", backlog)
                    .with_severity(Severity::Medium);
                fx.journal(record);
            }
        }
    }

    /// Lets a group that had expired hold the floor again, and says what it has missed meanwhile.
    pub(super) fn return_group(&mut self, name: &GroupName, fx: &mut Effects) {
        let Some(group) = self.groups.get_mut(name).filter(|group| group.expired) else {
            return;
        };
        group.expired = false;
        let missed = group.forget_below(self.log.first());
        if missed > 0 {
            let record = Record::new("bus", "data_loss", self.name.to_text())
                .with("group", name.to_text())
                .with("events", missed)
                .with("resumes_at", self.log.first())
                .with_severity(Severity::High);
            fx.journal(record);
        }
    }

    /// Ends what is due in one group and answers with what has to be buried.
    pub(super) fn expire_deliveries(&mut self, name: &GroupName, fx: &mut Effects) -> Vec<Position> {
        let Some(group) = self.groups.get_mut(name) else {
            return Vec::new();
        };
        if group.next_due().is_none_or(|at| at > fx.now) {
            return Vec::new();
        }
        let dying = group.expire(fx.now);
        fx.wake(group.wake(&self.log, usize::MAX));
        dying
    }

    /// When something is due here next, whether or not anybody calls.
    pub(super) fn next_due(&self, config: &Config) -> Option<Timestamp> {
        let deliveries = self.groups.values().filter_map(GroupState::next_due);
        let alone = self.groups.values().filter(|group| !group.expired).filter_map(|group| group.idle_since);
        let oldest = self.log.oldest().filter(|_| self.log.first() <= self.safe());
        let aged = oldest.zip(config.topics.age).map(|(oldest, age)| oldest + age);
        let keys = self.keys.oldest().map(|at| at + config.idempotency_window);
        deliveries.chain(alone.map(|since| since + config.group_expiry)).chain(aged).chain(keys).min()
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
