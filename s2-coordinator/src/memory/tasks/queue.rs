//! What is ready, and who may have it.
//!
//! Tasks with the same requirements form a *class*; sessions that offer the same form a *kind*. Whether a kind may do a
//! class is told once. Each kind has its classes in the order of their first tasks, so that a claim looks at one class
//! however many there are. That order is a lower bound: who claims from a class leaves the other kinds' bounds as they
//! are, and they are put right when they come first.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

use foldhash::HashMap;

use crate::capability::Capabilities;
use crate::dependency::TaskId;
use crate::memory::wait::{Ticket, WaitList};
use crate::order::OrderKey;

/// Where a task stands: by key, then by the chain that waits for it, then by sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    key: OrderKey,
    /// Longer chains first.
    path: u32,
    pub(super) task: TaskId,
}

impl Place {
    pub(super) fn new(key: OrderKey, path: u32, task: TaskId) -> Self {
        Self { key, path: u32::MAX - path, task }
    }
}

pub(super) type ClassId = usize;
pub(super) type KindId = usize;

/// Tasks with the same requirements.
#[derive(Debug)]
pub(super) struct Class {
    requires: Capabilities,
    pub(super) ready: BTreeSet<Place>,
    /// Who may do them.
    kinds: BTreeSet<KindId>,
    /// How many tasks of it are not finished.
    tasks: usize,
}

/// Sessions that offer the same.
#[derive(Debug)]
pub(super) struct Kind {
    offers: Capabilities,
    sessions: usize,
    pub(super) waiting: WaitList,
    /// The classes with something to do, by where their first task stands, or before.
    heads: BTreeSet<(Place, ClassId)>,
    bounds: HashMap<ClassId, Place>,
    /// The classes it may do.
    classes: BTreeSet<ClassId>,
}

impl Kind {
    fn set(&mut self, class: ClassId, bound: Option<Place>) {
        let before = self.bounds.get(&class).copied();
        if before == bound {
            return;
        }
        if let Some(place) = before {
            self.heads.remove(&(place, class));
        }
        self.place(class, bound);
    }

    /// The same for the class that comes first.
    fn set_first(&mut self, bound: Option<Place>) {
        if let Some((_, class)) = self.heads.pop_first() {
            self.place(class, bound);
        }
    }

    fn place(&mut self, class: ClassId, bound: Option<Place>) {
        if let Some(place) = bound {
            self.bounds.insert(class, place);
            self.heads.insert((place, class));
        } else {
            self.bounds.remove(&class);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Queues {
    classes: BTreeMap<ClassId, Class>,
    by_requirements: HashMap<Capabilities, ClassId>,
    kinds: BTreeMap<KindId, Kind>,
    by_offer: HashMap<Capabilities, KindId>,
    last: usize,
    /// Classes that got something to do in this step, once for each task.
    fresh: Vec<ClassId>,
}

impl Queues {
    /// The class of tasks with these requirements, which has one more from now on; and its own copy of them, for all its tasks.
    pub(super) fn enter_class(&mut self, requires: &Capabilities) -> (ClassId, Capabilities) {
        if let Some((known, &id)) = self.by_requirements.get_key_value(requires) {
            if let Some(class) = self.classes.get_mut(&id) {
                class.tasks += 1;
            }
            return (id, known.clone());
        }
        self.last += 1;
        let id = self.last;
        let mut kinds = BTreeSet::new();
        for (&kind, state) in &mut self.kinds {
            if state.offers.may_take(requires) {
                state.classes.insert(id);
                kinds.insert(kind);
            }
        }
        self.by_requirements.insert(requires.clone(), id);
        self.classes.insert(id, Class { requires: requires.clone(), ready: BTreeSet::new(), kinds, tasks: 1 });
        (id, requires.clone())
    }

    /// A task of a class is finished.
    pub(super) fn leave_class(&mut self, id: ClassId) {
        let Some(class) = self.classes.get_mut(&id) else { return };
        class.tasks -= 1;
        if class.tasks > 0 {
            return;
        }
        debug_assert!(class.ready.is_empty(), "what is finished is not queued");
        for kind in &class.kinds {
            if let Some(state) = self.kinds.get_mut(kind) {
                state.set(id, None);
                state.classes.remove(&id);
            }
        }
        self.by_requirements.remove(&class.requires);
        self.classes.remove(&id);
    }

    /// The kind of a session that offers this, which has one more from now on.
    pub(super) fn enter_kind(&mut self, offers: &Capabilities) -> KindId {
        if let Some(&id) = self.by_offer.get(offers) {
            if let Some(kind) = self.kinds.get_mut(&id) {
                kind.sessions += 1;
            }
            return id;
        }
        self.last += 1;
        let id = self.last;
        let mut kind = Kind {
            offers: offers.clone(),
            sessions: 1,
            waiting: WaitList::default(),
            heads: BTreeSet::new(),
            bounds: HashMap::default(),
            classes: BTreeSet::new(),
        };
        for (&class, state) in &mut self.classes {
            if offers.may_take(&state.requires) {
                state.kinds.insert(id);
                kind.classes.insert(class);
                kind.set(class, state.ready.first().copied());
            }
        }
        self.by_offer.insert(offers.clone(), id);
        self.kinds.insert(id, kind);
        id
    }

    /// A session of a kind is gone.
    pub(super) fn leave_kind(&mut self, id: KindId) {
        let Some(kind) = self.kinds.get_mut(&id) else { return };
        kind.sessions -= 1;
        if kind.sessions > 0 {
            return;
        }
        for class in &kind.classes {
            if let Some(state) = self.classes.get_mut(class) {
                state.kinds.remove(&id);
            }
        }
        self.by_offer.remove(&kind.offers);
        self.kinds.remove(&id);
    }

    pub(super) fn class(&self, id: ClassId) -> Option<&Class> {
        self.classes.get(&id)
    }

    pub(super) fn kind_mut(&mut self, id: KindId) -> Option<&mut Kind> {
        self.kinds.get_mut(&id)
    }

    pub(super) fn class_count(&self) -> usize {
        self.classes.len()
    }

    pub(super) fn knows(&self, requires: &Capabilities) -> bool {
        self.by_requirements.contains_key(requires)
    }

    /// Whether sessions of a kind may do tasks of a class.
    pub(super) fn may(&self, kind: KindId, class: ClassId) -> bool {
        self.classes.get(&class).is_some_and(|class| class.kinds.contains(&kind))
    }

    pub(super) fn insert(&mut self, id: ClassId, place: Place) {
        let Some(class) = self.classes.get_mut(&id) else { return };
        class.ready.insert(place);
        self.fresh.push(id);
        for kind in &class.kinds {
            if let Some(state) = self.kinds.get_mut(kind)
                && state.bounds.get(&id).is_none_or(|bound| place < *bound)
            {
                state.set(id, Some(place));
            }
        }
    }

    pub(super) fn remove(&mut self, id: ClassId, place: Place) {
        if let Some(class) = self.classes.get_mut(&id) {
            class.ready.remove(&place);
        }
    }

    /// The first task that a kind may do and that is not skipped.
    pub(super) fn first(&mut self, kind: KindId, skip: Option<&dyn Fn(TaskId) -> bool>) -> Option<Place> {
        let (state, classes) = (self.kinds.get_mut(&kind)?, &self.classes);
        let first = loop {
            let &(bound, id) = state.heads.first()?;
            let first = classes.get(&id).and_then(|class| class.ready.first().copied());
            if first == Some(bound) {
                break bound;
            }
            state.set_first(first);
        };
        let Some(skip) = skip else { return Some(first) };
        let ready = state.heads.iter().filter_map(|(_, id)| classes.get(id));
        ready.filter_map(|class| class.ready.iter().copied().find(|place| !skip(place.task))).min()
    }

    /// Queues a waiting claim of a session.
    pub(super) fn wait(&mut self, kind: KindId, ticket: Ticket, session: u64, waker: &Waker) {
        if let Some(kind) = self.kinds.get_mut(&kind) {
            kind.waiting.register(ticket, session, waker);
        }
    }

    /// Removes a waiting claim, and answers whether it was still queued. One that had been woken leaves what is there to
    /// others; of a session that is gone, nobody knows what it was woken for.
    pub(super) fn stop_waiting(&mut self, kind: Option<KindId>, ticket: Ticket) -> bool {
        let state = kind.and_then(|kind| self.kinds.get_mut(&kind));
        if state.is_some_and(|state| state.waiting.remove(ticket)) {
            return true;
        }
        let state = kind.and_then(|kind| self.kinds.get(&kind));
        let may = |id: &ClassId| state.is_none_or(|state| state.classes.contains(id));
        let ready = self.classes.iter().filter(|(id, class)| !class.ready.is_empty() && may(id));
        self.fresh.extend(ready.map(|(id, _)| *id));
        false
    }

    /// Takes those who wait for what has become ready out of their queues, the longest waiter first, to be woken.
    pub(super) fn wake(&mut self, refuses: &dyn Fn(u64, &Class) -> bool) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for id in std::mem::take(&mut self.fresh) {
            let Some(class) = self.classes.get(&id).filter(|class| !class.ready.is_empty()) else { continue };
            let qualifies = |session: u64| !refuses(session, class);
            let kinds =
                class.kinds.iter().filter_map(|kind| Some((self.kinds.get(kind)?.waiting.ticket(qualifies)?, *kind)));
            let Some((ticket, kind)) = kinds.min() else { continue };
            wakers.extend(self.kinds.get_mut(&kind).and_then(|kind| kind.waiting.take(ticket)));
        }
        wakers
    }

    /// Takes all waiting claims out of all queues, to be woken.
    pub(super) fn wake_all(&mut self) -> Vec<Waker> {
        self.kinds.values_mut().flat_map(|kind| kind.waiting.all(|_| true)).collect()
    }

    /// The longest waiter that qualifies.
    pub(super) fn longest_waiter(&self, qualifies: impl Fn(u64) -> bool) -> Option<(Ticket, KindId)> {
        self.kinds.iter().filter_map(|(id, kind)| Some((kind.waiting.ticket(&qualifies)?, *id))).min()
    }
}
