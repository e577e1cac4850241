//! Queues of sessions' own, and who has too much in it.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::HashMap;

use crate::dependency::TaskId;
use crate::memory::tasks::queue::{ClassId, Place};
use crate::priority::Priority;
use crate::swarm::SwarmId;

/// The own queue of a session, by class: whether the session may do a class is told for the class.
#[derive(Debug, Default)]
struct Own {
    classes: BTreeMap<ClassId, OwnClass>,
    len: usize,
}

#[derive(Debug, Default)]
struct OwnClass {
    ready: BTreeSet<Place>,
    /// The last of them is stolen first: of the lowest priority, the newest.
    by_age: BTreeSet<(Priority, TaskId)>,
}

#[derive(Debug, Default)]
pub(super) struct OwnQueues {
    of: HashMap<SwarmId, Own>,
    /// Sessions by the length of their queues.
    by_length: BTreeSet<(usize, SwarmId)>,
}

impl OwnQueues {
    pub(super) fn insert(&mut self, session: &SwarmId, class: ClassId, place: Place, priority: Priority) {
        let own = self.of.entry(session.clone()).or_default();
        let queue = own.classes.entry(class).or_default();
        queue.ready.insert(place);
        queue.by_age.insert((priority, place.task));
        self.by_length.remove(&(own.len, session.clone()));
        own.len += 1;
        self.by_length.insert((own.len, session.clone()));
    }

    pub(super) fn remove(&mut self, session: &SwarmId, class: ClassId, place: Place, priority: Priority) {
        let Some(own) = self.of.get_mut(session) else { return };
        let Some(queue) = own.classes.get_mut(&class) else { return };
        queue.ready.remove(&place);
        queue.by_age.remove(&(priority, place.task));
        if queue.ready.is_empty() {
            own.classes.remove(&class);
        }
        self.by_length.remove(&(own.len, session.clone()));
        own.len -= 1;
        if own.len == 0 {
            self.of.remove(session);
        } else {
            self.by_length.insert((own.len, session.clone()));
        }
    }

    pub(super) fn len(&self, session: &SwarmId) -> usize {
        self.of.get(session).map_or(0, |own| own.len)
    }

    /// The first task in the own queue of a session that it may do and does not skip.
    pub(super) fn first(
        &self,
        session: &SwarmId,
        may: impl Fn(ClassId) -> bool,
        skip: impl Fn(TaskId) -> bool,
    ) -> Option<Place> {
        let classes = self.of.get(session)?.classes.iter().filter(|(class, _)| may(**class));
        classes.filter_map(|(_, queue)| queue.ready.iter().copied().find(|place| !skip(place.task))).min()
    }

    /// How many tasks of a class come before one in the own queue of a session, counted up to `most`.
    pub(super) fn ahead(&self, session: &SwarmId, class: ClassId, place: Place, most: usize) -> usize {
        let queue = self.of.get(session).and_then(|own| own.classes.get(&class));
        queue.map_or(0, |queue| queue.ready.range(..place).take(most).count())
    }

    /// What an idle session steals: from the session with the longest queue above `above` that has something for it, of
    /// the lowest priority, the newest. Of queues of the same length, the first by name.
    pub(super) fn steal(
        &self,
        thief: &SwarmId,
        above: usize,
        may: impl Fn(ClassId) -> bool,
        skip: impl Fn(TaskId) -> bool,
    ) -> Option<(TaskId, SwarmId)> {
        let mut longest = self.by_length.iter().rev().take_while(|(len, _)| *len > above).peekable();
        while let Some(&(len, _)) = longest.peek() {
            let mut same = Vec::new();
            while let Some((_, session)) = longest.next_if(|(other, _)| *other == *len) {
                same.push(session);
            }
            // They come by falling name.
            let victims = same.into_iter().rev().filter(|session| *session != thief);
            for victim in victims {
                let classes = self.of.get(victim)?.classes.iter().filter(|(class, _)| may(**class));
                let last = |queue: &OwnClass| queue.by_age.iter().rev().find(|(_, task)| !skip(*task)).copied();
                if let Some((_, task)) = classes.filter_map(|(_, queue)| last(queue)).max() {
                    return Some((task, victim.clone()));
                }
            }
        }
        None
    }

    /// Whether there is a queue long enough to be stolen from.
    pub(super) fn is_any_above(&self, above: usize) -> bool {
        self.by_length.last().is_some_and(|(len, _)| *len > above)
    }
}
