//! Who consumes in a group.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::name::ConsumerName;

/// One open subscription.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: ConsumerName,
    /// The bus through which it subscribed.
    pub(super) bus: u64,
    pub(super) ack_timeout: Duration,
    prefetch: usize,
    in_flight: usize,
    /// How many of them are suspects.
    suspects: usize,
}

impl Member {
    pub(super) const fn new(name: ConsumerName, bus: u64, prefetch: usize, ack_timeout: Duration) -> Self {
        Self { name, bus, ack_timeout, prefetch, in_flight: 0, suspects: 0 }
    }

    /// Whether it may have another event.
    pub(super) const fn has_room(&self) -> bool {
        self.in_flight < self.prefetch
    }

    /// Whether it may have an event that might take its neighbours along: one at a time.
    pub(super) const fn may_have_suspect(&self) -> bool {
        self.suspects == 0
    }
}

/// The open subscriptions, and how many deliveries are not settled, theirs and those of subscriptions that have ended.
#[derive(Debug, Default)]
pub(super) struct Members {
    members: BTreeMap<u64, Member>,
    in_flight: usize,
}

impl Members {
    pub(super) fn join(&mut self, consumer: u64, member: Member) {
        self.members.insert(consumer, member);
    }

    /// Ends the subscriptions that qualify and answers which.
    pub(super) fn leave(&mut self, leaves: impl Fn(u64, &Member) -> bool) -> BTreeSet<u64> {
        self.members.extract_if(.., |id, member| leaves(*id, member)).map(|(id, _)| id).collect()
    }

    pub(super) fn get(&self, consumer: u64) -> Option<&Member> {
        self.members.get(&consumer)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Notes that a consumer holds an event.
    pub(super) fn hold(&mut self, consumer: u64, suspect: bool) {
        self.in_flight += 1;
        if let Some(member) = self.members.get_mut(&consumer) {
            member.in_flight += 1;
            member.suspects += usize::from(suspect);
        }
    }

    /// Notes that a consumer no longer holds an event that it held.
    pub(super) fn release(&mut self, consumer: u64, suspect: bool) {
        self.in_flight -= 1;
        if let Some(member) = self.members.get_mut(&consumer) {
            member.in_flight -= 1;
            member.suspects -= usize::from(suspect);
        }
    }
}
