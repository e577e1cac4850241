//! Who waits for whom.
//!
//! A task waits for others because it depends on them, or because its session has blocked it. Such waits can close a ring, and
//! then nobody in it goes on by itself. What is decided here is decided over plain data, by every backend alike.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::dependency::TaskId;
use crate::swarm::SwarmId;
use crate::task::TaskState;
use crate::time::Timestamp;

/// How many of the tasks that a blocked one waits for are needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Needs {
    /// All of them must be over, well or not.
    #[default]
    All,
    /// The first that is done will do; or all of them are over, and none is.
    Any,
}

/// A task that waits, or is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Waiter {
    /// The task.
    pub task: TaskId,
    /// Where it is.
    pub state: TaskState,
    /// In whose queue or hands it is.
    pub session: Option<SwarmId>,
    /// How many of those that it waits for are needed.
    pub needs: Needs,
    /// What it waits for and what is not over, by number.
    pub on: Vec<TaskId>,
    /// Since when somebody has blocked it, if nobody has.
    pub blocked: Option<Timestamp>,
    /// Whether it was released before, and its session has blocked it on the same again: then it takes a person.
    pub again: bool,
}

impl Waiter {
    /// A task that waits for nothing; made by backends.
    #[must_use]
    pub const fn new(task: TaskId, state: TaskState) -> Self {
        Self { task, state, session: None, needs: Needs::All, on: Vec::new(), blocked: None, again: false }
    }

    /// Whether it can go on without what it waits for: somebody has blocked it, and may find another way.
    #[must_use]
    pub const fn is_releasable(&self) -> bool {
        self.blocked.is_some() && !self.again
    }
}

/// Tasks that wait for each other, or a part of them.
///
/// A task that waits for nothing goes on by itself, whatever it takes: it may be running, or a person may have to decide. One
/// that waits goes on when enough of what it waits for does. The others are *stuck*. What is not a part of the graph goes on.
///
/// ```
/// use s2_coordinator::{TaskId, TaskState, WaitGraph, Waiter};
///
/// let waits = |task: u64, on: &[u64]| {
///     let mut waiter = Waiter::new(TaskId::new(task), TaskState::Blocked);
///     waiter.on = on.iter().copied().map(TaskId::new).collect();
///     waiter
/// };
/// // Two wait for each other, a third for one of them, a fourth for somebody who works.
/// let graph: WaitGraph = [waits(1, &[2]), waits(2, &[1]), waits(3, &[1]), waits(4, &[5]), waits(5, &[])].into_iter().collect();
/// assert_eq!(graph.stuck(), [1, 2, 3].map(TaskId::new).into());
/// let ring = graph.ring_from(TaskId::new(3)).expect("it waits for a ring");
/// assert_eq!(ring.iter().map(|waiter| waiter.task.get()).collect::<Vec<_>>(), [1, 2]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WaitGraph {
    waiters: BTreeMap<TaskId, Waiter>,
}

impl FromIterator<Waiter> for WaitGraph {
    fn from_iter<I: IntoIterator<Item = Waiter>>(waiters: I) -> Self {
        Self { waiters: waiters.into_iter().map(|waiter| (waiter.task, waiter)).collect() }
    }
}

impl Extend<Waiter> for WaitGraph {
    fn extend<I: IntoIterator<Item = Waiter>>(&mut self, waiters: I) {
        self.waiters.extend(waiters.into_iter().map(|waiter| (waiter.task, waiter)));
    }
}

impl WaitGraph {
    /// How many tasks it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// A task of it.
    #[must_use]
    pub fn get(&self, task: TaskId) -> Option<&Waiter> {
        self.waiters.get(&task)
    }

    /// Its tasks, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.values()
    }

    /// Takes a task out: it goes on.
    pub fn remove(&mut self, task: TaskId) -> Option<Waiter> {
        self.waiters.remove(&task)
    }

    /// What its tasks wait for and what is no part of it, by number.
    #[must_use]
    pub fn missing(&self) -> Vec<TaskId> {
        let on = self.waiters.values().flat_map(|waiter| &waiter.on).copied();
        let mut missing: Vec<TaskId> = on.filter(|on| !self.waiters.contains_key(on)).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// The tasks that never go on by themselves.
    #[must_use]
    pub fn stuck(&self) -> HashSet<TaskId> {
        let mut needed: HashMap<TaskId, usize> = HashMap::with_capacity(self.waiters.len());
        let mut waited_by: HashMap<TaskId, Vec<TaskId>> = HashMap::new();
        let mut going: Vec<TaskId> = Vec::new();
        for (&task, waiter) in &self.waiters {
            let inside = || waiter.on.iter().filter(|on| self.waiters.contains_key(on));
            let count = match waiter.needs {
                Needs::All => inside().count(),
                Needs::Any if inside().count() < waiter.on.len() => 0,
                Needs::Any => waiter.on.len().min(1),
            };
            if count == 0 {
                going.push(task);
                continue;
            }
            needed.insert(task, count);
            inside().for_each(|on| waited_by.entry(*on).or_default().push(task));
        }
        while let Some(task) = going.pop() {
            for waits in waited_by.remove(&task).into_iter().flatten() {
                // One of `Any` counts below its first only once: it is not there any more.
                let Some(count) = needed.get_mut(&waits) else { continue };
                *count -= 1;
                if *count == 0 {
                    needed.remove(&waits);
                    going.push(waits);
                }
            }
        }
        needed.into_keys().collect()
    }

    /// If a task is stuck, a ring that it is in or waits for: each waits for the next, and the last for the first, which has
    /// the smallest number.
    #[must_use]
    pub fn ring_from(&self, task: TaskId) -> Option<Vec<&Waiter>> {
        let stuck = self.stuck();
        let mut at = self.waiters.get(&task).filter(|_| stuck.contains(&task))?;
        let (mut way, mut passed) = (Vec::new(), HashMap::new());
        // Whoever is stuck waits for somebody who is stuck.
        while !passed.contains_key(&at.task) {
            passed.insert(at.task, way.len());
            way.push(at);
            let next = at.on.iter().filter(|on| stuck.contains(on)).min()?;
            at = self.waiters.get(next)?;
        }
        let mut ring = way.split_off(passed[&at.task]);
        let first = (0..ring.len()).min_by_key(|nth| ring[*nth].task)?;
        ring.rotate_left(first);
        Some(ring)
    }

    /// What a step has to check besides a ring before it opens it: those of which one would be enough, in the ring and among
    /// those whom it waits for, with all that they wait for.
    #[cfg(feature = "redis")]
    pub(crate) fn witness(&self, ring: &[&Waiter]) -> Vec<&Waiter> {
        let stuck = self.stuck();
        let mut next: Vec<TaskId> = ring.iter().map(|waiter| waiter.task).collect();
        let mut seen: HashSet<TaskId> = next.iter().copied().collect();
        let mut witness = Vec::new();
        while let Some(waiter) = next.pop().and_then(|task| self.waiters.get(&task)) {
            let all = waiter.needs == Needs::Any;
            let on = waiter.on.iter().filter(|on| stuck.contains(on)).take(if all { usize::MAX } else { 1 });
            next.extend(on.filter(|on| seen.insert(**on)));
            if all || ring.iter().all(|other| other.task != waiter.task) {
                witness.push(waiter);
            }
        }
        witness
    }

    /// The graph in the language of Graphviz. Who is stuck is red.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let stuck = self.stuck();
        let mut text = String::from("digraph waits {\n  node [shape=box];\n");
        for waiter in self.iter() {
            let color = if stuck.contains(&waiter.task) { ", color=red" } else { "" };
            let (task, label) = (waiter.task, label(waiter, "\\n"));
            _ = writeln!(text, "  t{task} [label=\"{label}\"{color}];");
            let style = if waiter.needs == Needs::Any { " [style=dashed]" } else { "" };
            waiter.on.iter().for_each(|on| _ = writeln!(text, "  t{task} -> t{on}{style};"));
        }
        text + "}\n"
    }

    /// The graph in the language of Mermaid. Who is stuck is red.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let stuck = self.stuck();
        let mut text = String::from("graph LR\n");
        for waiter in self.iter() {
            let (task, label) = (waiter.task, label(waiter, "<br/>"));
            _ = writeln!(text, "  t{task}[\"{label}\"]");
            let arrow = if waiter.needs == Needs::Any { "-.->" } else { "-->" };
            waiter.on.iter().for_each(|on| _ = writeln!(text, "  t{task} {arrow} t{on}"));
            if stuck.contains(&waiter.task) {
                _ = writeln!(text, "  style t{task} stroke:red");
            }
        }
        text
    }
}

fn label(waiter: &Waiter, newline: &str) -> String {
    let session = waiter.session.as_ref().map(|session| format!("{newline}{session}"));
    format!("{} {}{}", waiter.task, waiter.state, session.unwrap_or_default())
}
