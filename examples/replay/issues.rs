//! An issue export in the beads JSONL format, as a graph of tasks.
//!
//! * `blocks`: an issue waits for the other one, and so do its children, and theirs; nothing else orders work.
//! * `parent-child`, also spelled `parent_child`: a part of the other issue. It waits for what that waits for, and has its area.
//! * Priorities 0 to 3 are P0 to P3. Priority 4, the backlog, is P3, too, but submitted after all others, so that it comes last of
//!   those that are ready at the same time.
//! * `tombstone`: deleted, left out. All other issues are work, also those that are closed: that is what a replay is about.
//! * The area of an issue is its first label, or that of the nearest issue it is a part of, or its type.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use s2_coordinator::{Capability, IdempotencyKey, Priority};
use serde::{Deserialize, Serialize};

use crate::replay::Failure;
use crate::replay::lines::{BadLine, read_lines};

/// What of a line is used.
#[derive(Deserialize)]
struct Line {
    id: String,
    status: String,
    #[serde(default = "medium")]
    priority: u8,
    #[serde(default)]
    issue_type: Option<String>,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    dependencies: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    depends_on_id: String,
    #[serde(rename = "type")]
    kind: String,
}

fn medium() -> u8 {
    2
}

/// A task of the graph.
#[derive(Clone, Debug)]
pub struct Issue {
    /// Its name in the export, under which it is submitted.
    pub id: IdempotencyKey,
    /// Its priority.
    pub priority: Priority,
    /// What it is about.
    pub area: Capability,
    /// What it waits for: all of these come before it in the list.
    pub after: Vec<usize>,
}

/// How an export was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Read {
    /// Issues that are work.
    pub issues: usize,
    /// Deleted ones.
    pub tombstones: usize,
    /// Edges of the kind `blocks` that are kept.
    pub blocks: usize,
    /// Edges that parts have from what they are parts of.
    pub inherited: usize,
    /// Edges of the kind parent-child, in either spelling.
    pub parts: usize,
    /// Edges of these two kinds that lead out of the export.
    pub unknown: usize,
    /// Edges of the kind `blocks` that were dropped, because issues waited for each other.
    pub rings: usize,
    /// What could not be read.
    pub bad: Vec<BadLine>,
}

/// A graph of tasks, each after what it waits for.
#[derive(Clone, Debug, Default)]
pub struct Issues {
    /// The tasks.
    pub list: Vec<Issue>,
    /// How they were read.
    pub read: Read,
}

/// The graph while it is being read: edges by position in the file.
#[derive(Default)]
struct Graph {
    lines: Vec<Line>,
    keys: Vec<IdempotencyKey>,
    nth: HashMap<String, usize>,
    blocks: Vec<BTreeSet<usize>>,
    inherited: Vec<BTreeSet<usize>>,
    parent: Vec<Option<usize>>,
}

impl Issues {
    /// Reads an export.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or has no issue at all.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let (mut graph, mut read, mut deleted) = (Graph::default(), Read::default(), HashSet::new());
        read.bad = read_lines(path, |line: Line| {
            if line.status == "tombstone" {
                deleted.insert(line.id);
                return Ok(());
            }
            graph.add(line)
        })?;
        if graph.lines.is_empty() {
            return Err(format!("{}: no issue that can be read ({} bad lines)", path.display(), read.bad.len()).into());
        }
        read.tombstones = deleted.len();
        graph.connect(&mut read);
        graph.inherit();
        Ok(graph.sort(read))
    }
}

impl Graph {
    fn add(&mut self, line: Line) -> Result<(), String> {
        if line.priority > 4 {
            return Err(format!("priority {}: expected 0 to 4", line.priority));
        }
        let key = IdempotencyKey::new(line.id.as_str()).map_err(|error| error.to_string())?;
        if self.nth.contains_key(&line.id) {
            return Err(format!("{} was there before", line.id));
        }
        self.nth.insert(line.id.clone(), self.lines.len());
        self.keys.push(key);
        self.lines.push(line);
        Ok(())
    }

    fn connect(&mut self, read: &mut Read) {
        for (nth, line) in self.lines.iter().enumerate() {
            let (mut blocks, mut parent) = (BTreeSet::new(), None);
            for edge in &line.dependencies {
                let is_part = matches!(edge.kind.as_str(), "parent-child" | "parent_child");
                if !is_part && edge.kind != "blocks" {
                    continue;
                }
                match self.nth.get(&edge.depends_on_id) {
                    None => read.unknown += 1,
                    Some(on) if is_part => (parent, read.parts) = (Some(*on), read.parts + 1),
                    Some(on) => drop(blocks.insert(*on)),
                }
            }
            // One that waits for itself never starts.
            read.rings += usize::from(blocks.remove(&nth));
            self.blocks.push(blocks);
            self.parent.push(parent);
        }
    }

    /// The issues that this one is a part of, the nearest first.
    fn above(&self, nth: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.parent[nth], |above| self.parent[*above]).take(self.lines.len())
    }

    fn inherit(&mut self) {
        let of = |nth: usize| {
            let all = self.above(nth).flat_map(|above| self.blocks[above].iter().copied());
            all.filter(|on| *on != nth && !self.blocks[nth].contains(on)).collect()
        };
        self.inherited = (0..self.lines.len()).map(of).collect();
    }

    fn area(&self, nth: usize) -> Capability {
        let labels = std::iter::once(nth).chain(self.above(nth)).filter_map(|nth| self.lines[nth].labels.first());
        let names = labels.map(String::as_str).chain(self.lines[nth].issue_type.as_deref());
        // A colon would make a path of it.
        let paths = names.map(|name| Capability::new(name.replace([':', ' ', '/'], "-")));
        paths.flatten().next().unwrap_or_else(|| Capability::new("task").expect("a valid path"))
    }

    /// Each after what it waits for; of those that need not wait, by priority and then as in the file.
    fn sort(mut self, mut read: Read) -> Issues {
        let count = self.lines.len();
        let (mut waiters, mut left) = (vec![Vec::new(); count], Vec::with_capacity(count));
        for (nth, (blocks, inherited)) in self.blocks.iter().zip(&self.inherited).enumerate() {
            blocks.iter().chain(inherited).for_each(|on| waiters[*on].push(nth));
            left.push(blocks.len() + inherited.len());
        }
        let rank = |nth: usize| (self.lines[nth].priority, nth);
        let mut ready: BTreeSet<_> = (0..count).filter(|nth| left[*nth] == 0).map(rank).collect();
        let mut place: Vec<Option<usize>> = vec![None; count];
        let mut order = Vec::with_capacity(count);
        while order.len() < count {
            let nth = match ready.pop_first() {
                Some((_, nth)) => nth,
                None => self.open_ring(&place, &mut read),
            };
            if place[nth].is_some() {
                continue;
            }
            place[nth] = Some(order.len());
            order.push(nth);
            for waiter in &waiters[nth] {
                left[*waiter] = left[*waiter].saturating_sub(1);
                if left[*waiter] == 0 && place[*waiter].is_none() {
                    ready.insert((self.lines[*waiter].priority, *waiter));
                }
            }
        }
        self.finish(&order, &place, read)
    }

    /// Issues wait for each other. What is inherited is dropped first: a part that its whole waits for must not wait for it.
    /// Answers who can go on.
    fn open_ring(&mut self, place: &[Option<usize>], read: &mut Read) -> usize {
        let open = |edges: &BTreeSet<usize>| edges.iter().any(|on| place[*on].is_none());
        let waiting: Vec<usize> = (0..place.len()).filter(|nth| place[*nth].is_none()).collect();
        let by_rank = |nth: &&usize| (self.lines[**nth].priority, **nth);
        let only_inherited = waiting.iter().filter(|nth| !open(&self.blocks[**nth])).min_by_key(by_rank);
        let nth = *only_inherited.or_else(|| waiting.iter().min_by_key(by_rank)).expect("somebody waits");
        self.inherited[nth].retain(|on| place[*on].is_some());
        let before = self.blocks[nth].len();
        self.blocks[nth].retain(|on| place[*on].is_some());
        read.rings += before - self.blocks[nth].len();
        nth
    }

    fn finish(mut self, order: &[usize], place: &[Option<usize>], mut read: Read) -> Issues {
        let areas: Vec<Capability> = (0..self.lines.len()).map(|nth| self.area(nth)).collect();
        let mut list = Vec::with_capacity(order.len());
        for nth in order {
            let (blocks, inherited) = (&self.blocks[*nth], &self.inherited[*nth]);
            (read.blocks, read.inherited) = (read.blocks + blocks.len(), read.inherited + inherited.len());
            let mut after: Vec<usize> = blocks.iter().chain(inherited).filter_map(|on| place[*on]).collect();
            after.sort_unstable();
            let priority = Priority::ALL[usize::from(self.lines[*nth].priority.min(3))];
            let id = std::mem::replace(&mut self.keys[*nth], IdempotencyKey::new("moved").expect("a valid key"));
            list.push(Issue { id, priority, area: areas[*nth].clone(), after });
        }
        read.issues = list.len();
        Issues { list, read }
    }
}
