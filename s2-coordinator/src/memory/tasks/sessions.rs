//! Which sessions there are.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use foldhash::HashMap;

use crate::capability::Capabilities;
use crate::dependency::TaskId;
use crate::error::Error;
use crate::lease::{Incarnation, Lease};
use crate::memory::tasks::queue::{KindId, Place};
use crate::swarm::SwarmId;
use crate::time::Timestamp;

/// How many of the latest requests of a session are remembered.
const REQUESTS: usize = 64;
/// Among how many of those before them one is sought of which nothing is held any more, to make room.
const LOOK_AT: usize = 4;
/// How many tasks that a session refused are remembered.
const REFUSED: usize = 1_000;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) incarnation: Incarnation,
    pub(super) offers: Capabilities,
    pub(super) kind: KindId,
    pub(super) held: BTreeSet<TaskId>,
    pub(super) blocked: BTreeSet<TaskId>,
    /// What it may resume.
    pub(super) resumable: BTreeSet<Place>,
    refused: HashMap<TaskId, Timestamp>,
    /// What was granted to its latest requests, and which of them is replaced next.
    latest: Vec<(u64, Vec<Lease>)>,
    oldest: usize,
    /// The same of those before them of which something was still held then, and where one is sought that makes room.
    earlier: Vec<(u64, Vec<Lease>)>,
    next: usize,
}

impl Session {
    /// What a request was granted before.
    pub(super) fn granted(&self, request: u64) -> Option<&[Lease]> {
        let (_, leases) = self.latest.iter().chain(&self.earlier).find(|(other, _)| *other == request)?;
        Some(leases)
    }

    /// The latest requests are remembered in turn, and of those before them the ones of which something is still held.
    pub(super) fn remember(&mut self, request: u64, leases: Vec<Lease>, is_held: impl Fn(&Lease) -> bool) {
        if self.latest.len() < REQUESTS {
            return self.latest.push((request, leases));
        }
        let old = mem::replace(&mut self.latest[self.oldest], (request, leases));
        self.oldest = (self.oldest + 1) % REQUESTS;
        let held = &self.held;
        let is_held = |leases: &[Lease]| leases.iter().any(|lease| held.contains(&lease.task) && is_held(lease));
        if !is_held(&old.1) {
            return;
        }
        for _ in 0..LOOK_AT.min(self.earlier.len()) {
            let count = self.earlier.len();
            let place = &mut self.earlier[self.next];
            self.next = (self.next + 1) % count;
            if !is_held(&place.1) {
                *place = old;
                return;
            }
        }
        self.earlier.push(old);
    }

    /// Whether it refused a task and is not offered it again yet.
    pub(super) fn refuses(&self, task: TaskId) -> bool {
        self.refused.contains_key(&task)
    }

    pub(super) fn refuses_any(&self) -> bool {
        !self.refused.is_empty()
    }

    pub(super) fn refused_until(&self, task: TaskId) -> Option<Timestamp> {
        self.refused.get(&task).copied()
    }

    /// Remembers a refusal. Answers with one that is forgotten for it.
    pub(super) fn refuse(&mut self, task: TaskId, until: Timestamp) -> Option<(Timestamp, TaskId)> {
        self.refused.insert(task, until);
        if self.refused.len() <= REFUSED {
            return None;
        }
        let others = self.refused.iter().filter(|(other, _)| **other != task);
        let (&oldest, &at) = others.min_by_key(|(task, at)| (**at, **task))?;
        self.refused.remove(&oldest);
        Some((at, oldest))
    }

    pub(super) fn offer_again(&mut self, task: TaskId) {
        self.refused.remove(&task);
    }

    pub(super) fn refusals(&self) -> impl Iterator<Item = (Timestamp, TaskId)> {
        self.refused.iter().map(|(task, at)| (*at, *task))
    }
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_number: HashMap<u64, Session>,
    by_name: BTreeMap<SwarmId, u64>,
}

impl Sessions {
    pub(super) fn insert(&mut self, incarnation: Incarnation, offers: Capabilities, kind: KindId) {
        self.by_name.insert(incarnation.session.clone(), incarnation.number);
        let session = Session {
            offers,
            kind,
            held: BTreeSet::new(),
            blocked: BTreeSet::new(),
            resumable: BTreeSet::new(),
            refused: HashMap::default(),
            latest: Vec::new(),
            oldest: 0,
            earlier: Vec::new(),
            next: 0,
            incarnation,
        };
        self.by_number.insert(session.incarnation.number, session);
    }

    pub(super) fn remove(&mut self, incarnation: &Incarnation) -> Option<Session> {
        let session = self.by_number.remove(&incarnation.number)?;
        self.by_name.remove(&incarnation.session);
        Some(session)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Session> {
        self.by_number.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Session> {
        self.by_number.get_mut(&number)
    }

    /// The one that goes by a name now.
    pub(super) fn named(&self, name: &SwarmId) -> Option<&Session> {
        self.by_name.get(name).and_then(|number| self.by_number.get(number))
    }

    /// The session, if it is still there and nobody has taken its place.
    pub(super) fn check(&self, incarnation: &Incarnation) -> Result<&Session, Error> {
        let current = self.named(&incarnation.session);
        current.filter(|session| session.incarnation.number == incarnation.number).ok_or_else(|| Error::StaleSession {
            session: incarnation.session.clone(),
            held: incarnation.number,
            current: current.map(|session| session.incarnation.number),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// All of them after one of that name, by name.
    pub(super) fn after(&self, name: Option<&SwarmId>) -> impl Iterator<Item = &Session> {
        let from = name.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let range = self.by_name.range::<SwarmId, _>((from, std::ops::Bound::Unbounded));
        range.filter_map(|(_, number)| self.by_number.get(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Token;
    use crate::random::Random;

    /// A session that has `most` tasks at most, claims one at a time, and ends any of them.
    fn plays(most: usize, seed: u64) {
        let (mut sessions, mut random) = (Sessions::default(), Random::from_seed(seed));
        let incarnation = Incarnation { session: SwarmId::from_static("one"), number: 1 };
        sessions.insert(incarnation, Capabilities::default(), 1);
        let session = sessions.get_mut(1).expect("a session");
        for request in 1..=20_000 {
            let lease = Lease { task: TaskId::new(request), token: Token::new(request) };
            if session.held.len() == most {
                let nth = random.bits() as usize % most;
                let ended = session.held.iter().nth(nth).copied().expect("a task");
                session.held.remove(&ended);
            }
            session.held.insert(lease.task);
            session.remember(request, vec![lease], |_| true);
            let latest = request.saturating_sub(REQUESTS as u64) + 1..=request;
            for known in latest.chain(session.held.iter().map(|task| task.get())) {
                assert!(session.granted(known).is_some(), "{known} of {request}");
            }
            let count = session.latest.len() + session.earlier.len();
            assert!(count <= REQUESTS + 2 * most, "{count} after {request}");
        }
    }

    #[test]
    fn no_more_requests_are_remembered_than_the_latest_and_what_is_held() {
        for (most, seed) in [(1, 1), (5, 2), (70, 3), (200, 4)] {
            plays(most, seed);
        }
    }

    #[test]
    fn one_that_holds_on_is_one_of_few() {
        let mut sessions = Sessions::default();
        let incarnation = Incarnation { session: SwarmId::from_static("one"), number: 1 };
        sessions.insert(incarnation, Capabilities::default(), 1);
        let session = sessions.get_mut(1).expect("a session");
        session.held.insert(TaskId::new(1));
        for request in 1..=1_000 {
            let lease = Lease { task: TaskId::new(request), token: Token::new(request) };
            session.remember(request, vec![lease], |_| true);
        }
        assert!(session.granted(1).is_some());
        assert_eq!(session.latest.len() + session.earlier.len(), REQUESTS + 1);
    }
}
