//! Which sessions there are.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::HashMap;

use crate::capability::Capabilities;
use crate::dependency::TaskId;
use crate::error::Error;
use crate::lease::Incarnation;
use crate::memory::tasks::queue::{KindId, Place};
use crate::memory::tasks::requests::Requests;
use crate::swarm::SwarmId;
use crate::time::Timestamp;

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
    /// What it was granted.
    pub(super) requests: Requests,
}

impl Session {
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
            requests: Requests::default(),
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
        let session = self.get(incarnation.number).filter(|session| session.incarnation == *incarnation);
        session.ok_or_else(|| Error::StaleSession {
            session: incarnation.session.clone(),
            held: incarnation.number,
            current: self.named(&incarnation.session).map(|session| session.incarnation.number),
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
