//! Which idempotency keys of a topic were used, and for what.

use std::collections::VecDeque;
use std::time::Duration;

use foldhash::HashMap;

use crate::event::{Fingerprint, Published};
use crate::name::IdempotencyKey;
use crate::time::Timestamp;

/// What was published under a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) fingerprint: Fingerprint,
    pub(super) published: Published,
    at: Timestamp,
}

/// The keys that were used within the idempotency window.
#[derive(Debug, Default)]
pub(super) struct Keys {
    used: HashMap<IdempotencyKey, Used>,
    by_age: VecDeque<(Timestamp, IdempotencyKey)>,
    bytes: u64,
}

fn weight(key: &IdempotencyKey) -> u64 {
    (size_of::<Used>() + 3 * size_of::<IdempotencyKey>() + key.as_str().len()) as u64
}

impl Keys {
    /// What was published under `key` within the window that ends now.
    pub(super) fn get(&self, key: &IdempotencyKey, now: Timestamp, window: Duration) -> Option<&Used> {
        self.used.get(key).filter(|used| now.since(used.at) < window)
    }

    pub(super) fn insert(
        &mut self,
        key: IdempotencyKey,
        fingerprint: Fingerprint,
        published: Published,
        now: Timestamp,
    ) {
        self.bytes += weight(&key);
        self.by_age.push_back((now, key.clone()));
        if self.used.insert(key.clone(), Used { fingerprint, published, at: now }).is_some() {
            // A key that is used anew after its window stands twice in `by_age`; its older mention is void.
            self.bytes -= weight(&key);
        }
    }

    /// Forgets what is older than the window.
    pub(super) fn expire(&mut self, now: Timestamp, window: Duration) {
        while let Some((at, key)) = self.by_age.pop_front_if(|(at, _)| now.since(*at) >= window) {
            if self.used.get(&key).is_some_and(|used| used.at == at) {
                self.used.remove(&key);
                self.bytes -= weight(&key);
            }
        }
    }

    /// When the oldest key was used.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.by_age.front().map(|(at, _)| *at)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}
