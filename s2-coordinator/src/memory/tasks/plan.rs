//! A batch of tasks that is to be submitted: everything that can be wrong with it, before anything is written.

use std::collections::BTreeSet;

use foldhash::HashMap;

use crate::capability::Capabilities;
use crate::dependency::{OnFailure, TaskId, TaskRef};
use crate::error::{Error, lacks};
use crate::invalid::Invalid;
use crate::limits::{Limits, check};
use crate::memory::tasks::Tasks;
use crate::name::IdempotencyKey;
use crate::new_task::NewTask;

/// What a task of a batch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Known(TaskId),
    /// A task of the batch.
    Nth(usize),
}

/// What becomes of a task of a batch.
#[derive(Debug)]
pub(super) enum Planned {
    /// It is there already.
    Duplicate(TaskId),
    /// It is the same as an earlier one of the batch.
    Same(usize),
    New(Plan),
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) after: Vec<(Target, OnFailure)>,
    pub(super) parent: Option<TaskId>,
    pub(super) depth: u32,
    /// The longest chain of tasks of the batch that wait for it, itself included.
    pub(super) path: u32,
}

impl Planned {
    pub(super) const fn as_new(&self) -> Option<&Plan> {
        match self {
            Self::New(plan) => Some(plan),
            Self::Duplicate(_) | Self::Same(_) => None,
        }
    }
}

impl Tasks {
    /// Checks a batch against what is there. `parent` is what its tasks are parts of unless they say otherwise, and `ends`
    /// whether that one is done in the same step.
    pub(super) fn plan(
        &self,
        tasks: &[NewTask],
        parent: Option<TaskId>,
        ends: bool,
        limits: &Limits,
    ) -> Result<Vec<Planned>, Error> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        limits.check_tasks(tasks)?;
        let mut firsts: HashMap<&IdempotencyKey, usize> = HashMap::default();
        let mut planned = Vec::with_capacity(tasks.len());
        for (nth, task) in tasks.iter().enumerate() {
            planned.push(self.plan_one(nth, task, tasks, parent, &mut firsts)?);
        }
        for (nth, task) in tasks.iter().enumerate() {
            if let Planned::New(plan) = &mut planned[nth] {
                plan.after = self.resolve(task, &firsts)?;
            }
        }
        let order = in_order(&planned).map_err(|cycle| Error::DependencyCycle {
            cycle: cycle.into_iter().filter_map(|nth| tasks[nth].key.clone()).map(TaskRef::Key).collect(),
        })?;
        measure_paths(&mut planned, &order);
        let new = || planned.iter().enumerate().filter_map(|(nth, planned)| Some((nth, planned.as_new()?)));
        // If they follow from a task, that one makes room.
        let requires: Vec<_> = new().map(|(nth, _)| &tasks[nth].requires).collect();
        self.check_room(&requires, usize::from(ends), limits)?;
        let mut children: HashMap<TaskId, usize> = HashMap::default();
        for (nth, plan) in new() {
            let what = || format!("task {nth} ({})", tasks[nth].kind);
            check("depth", what, plan.depth as usize, limits.depth as usize)?;
            if let Some(parent) = plan.parent {
                let count = children.entry(parent).or_insert(self.slot(parent)?.children);
                *count += 1;
                check("children", || format!("task {parent}"), *count, limits.children)?;
            }
        }
        Ok(planned)
    }

    fn plan_one<'a>(
        &self,
        nth: usize,
        task: &'a NewTask,
        tasks: &[NewTask],
        parent: Option<TaskId>,
        firsts: &mut HashMap<&'a IdempotencyKey, usize>,
    ) -> Result<Planned, Error> {
        if let Some(key) = &task.key {
            if let Some(&original) = self.keys.get(key) {
                let is_same = self.slot(original)?.task.is_same(task);
                return if is_same {
                    Ok(Planned::Duplicate(original))
                } else {
                    Err(Error::TaskConflict { key: key.clone(), original })
                };
            }
            if let Some(&first) = firsts.get(key) {
                return if task.asks() == tasks[first].asks() {
                    Ok(Planned::Same(first))
                } else {
                    let reason = format!("tasks {first} and {nth} of the batch have it and ask for different things");
                    Err(Invalid::new("key", key.as_str(), reason).into())
                };
            }
            firsts.insert(key, nth);
        }
        if let Some(assignee) = &task.assignee
            && let Some(session) = self.sessions.named(assignee)
            && !session.offers.may_take(&task.requires)
        {
            let missing = session.offers.missing(&task.requires);
            let reason = format!("task {nth} ({}) is not for it: {}", task.kind, lacks(&missing));
            return Err(Invalid::new("assignee", assignee.as_str(), reason).into());
        }
        let parent = task.parent.or(parent);
        let depth = parent.map_or(Ok(0), |parent| self.slot(parent).map(|slot| slot.task.depth + 1))?;
        Ok(Planned::New(Plan { after: Vec::new(), parent, depth, path: 1 }))
    }

    /// What a task waits for, each once.
    fn resolve(
        &self,
        task: &NewTask,
        firsts: &HashMap<&IdempotencyKey, usize>,
    ) -> Result<Vec<(Target, OnFailure)>, Error> {
        let mut after: Vec<(Target, OnFailure)> = Vec::with_capacity(task.after.len());
        for dependency in &task.after {
            let unknown = || Error::UnknownTask { task: dependency.on.clone() };
            let target = match &dependency.on {
                TaskRef::Id(id) => Target::Known(self.slots.get(id).map(|_| *id).ok_or_else(unknown)?),
                TaskRef::Key(key) => match firsts.get(key) {
                    Some(&nth) => Target::Nth(nth),
                    None => Target::Known(*self.keys.get(key).ok_or_else(unknown)?),
                },
            };
            if after.iter().all(|(other, _)| *other != target) {
                after.push((target, dependency.on_failure));
            }
        }
        Ok(after)
    }

    /// Checks whether there is room for tasks with these requirements, when so many others end.
    pub(super) fn check_room(&self, new: &[&Capabilities], ending: usize, limits: &Limits) -> Result<(), Error> {
        let unfinished = usize::try_from(self.stats().unfinished()).unwrap_or(usize::MAX);
        check("tasks", || "the fleet".into(), (unfinished + new.len()).saturating_sub(ending), limits.tasks)?;
        let classes: BTreeSet<_> = new.iter().filter(|requires| !self.queues.knows(requires)).collect();
        check("classes", || "the fleet".into(), self.queues.class_count() + classes.len(), limits.classes)
    }
}

/// The tasks of a batch that wait for one, for each.
fn dependants(planned: &[Planned]) -> Vec<Vec<usize>> {
    let mut dependants = vec![Vec::new(); planned.len()];
    for (nth, plan) in planned.iter().enumerate() {
        for (target, _) in plan.as_new().into_iter().flat_map(|plan| &plan.after) {
            if let Target::Nth(on) = target {
                dependants[*on].push(nth);
            }
        }
    }
    dependants
}

fn waits(planned: &[Planned], nth: usize) -> impl Iterator<Item = usize> {
    let after = planned[nth].as_new().into_iter().flat_map(|plan| &plan.after);
    after.filter_map(|(target, _)| match target {
        Target::Nth(on) => Some(*on),
        Target::Known(_) => None,
    })
}

/// An order in which each task comes after what it waits for; otherwise some that wait for each other.
fn in_order(planned: &[Planned]) -> Result<Vec<usize>, Vec<usize>> {
    let dependants = dependants(planned);
    let mut left: Vec<usize> = (0..planned.len()).map(|nth| waits(planned, nth).count()).collect();
    let mut order: Vec<usize> = (0..planned.len()).filter(|nth| left[*nth] == 0).collect();
    let mut done = 0;
    while done < order.len() {
        for &dependant in &dependants[order[done]] {
            left[dependant] -= 1;
            if left[dependant] == 0 {
                order.push(dependant);
            }
        }
        done += 1;
    }
    let Some(mut at) = left.iter().position(|left| *left > 0) else { return Ok(order) };
    // Each that is left waits for another that is left; so following them leads around a cycle.
    let mut passed = Vec::new();
    while !passed.contains(&at) {
        passed.push(at);
        at = waits(planned, at).find(|on| left[*on] > 0).unwrap_or(at);
    }
    let begin = passed.iter().position(|nth| *nth == at).unwrap_or(0);
    Err(passed.split_off(begin))
}

fn measure_paths(planned: &mut [Planned], order: &[usize]) {
    for &nth in order.iter().rev() {
        let path = planned[nth].as_new().map_or(0, |plan| plan.path);
        let waits: Vec<usize> = waits(planned, nth).collect();
        for on in waits {
            if let Planned::New(plan) = &mut planned[on] {
                plan.path = plan.path.max(path + 1);
            }
        }
    }
}
