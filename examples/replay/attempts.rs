//! Who had which item when, and how that ended, from the events of a real swarm.
//!
//! A worker (an assignee of the group `polecats`) has an item from the event that sets it to `hooked` or `in_progress` until it is
//! `closed` or back to `open`: a reset. An event that names no assignee leaves it as it was before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use s2_coordinator::{SwarmId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::replay::Failure;
use crate::replay::lines::{BadLine, read_lines};
use crate::replay::report::hours;

/// The segment of a path that says that somebody is a worker.
const WORKERS: &str = "polecats";
/// A closed attempt that took longer than this is a long one.
const LONG: Duration = Duration::from_secs(15 * 60);

#[derive(Deserialize)]
struct Line {
    issue_id: String,
    event_type: String,
    actor: String,
    created_at: Timestamp,
    old_value: Option<String>,
    new_value: Option<String>,
}

/// What a value says; it is JSON in a string.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Value {
    status: Option<String>,
    assignee: Option<String>,
}

/// A line that was understood.
struct Change {
    item: String,
    actor: String,
    at: Timestamp,
    what: What,
}

enum What {
    /// A worker gets the item.
    Given(SwarmId),
    Closed,
    Reset,
    Other,
}

/// That a worker had an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Who.
    pub worker: SwarmId,
    /// From when.
    pub start: Timestamp,
    /// For how long.
    pub held: Duration,
    /// Whether it was closed then. Otherwise it was reset.
    pub closed: bool,
    /// When the worker did something with the item, counted from the start.
    pub reports: Vec<Duration>,
    /// When it last did anything, counted from the start.
    pub alive: Duration,
}

/// What the record says.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Facts {
    /// Events.
    pub events: usize,
    /// Lines that could not be read.
    pub bad: Vec<BadLine>,
    /// Items that were given to workers.
    pub items: usize,
    /// Of these, those that were given to two or more.
    pub twice: usize,
    /// How often a worker had an item.
    pub attempts: usize,
    /// Of these, those that ended in a reset.
    pub reset: usize,
    /// For how long these held their items.
    pub reset_h: f64,
    /// Those that were closed.
    pub closed: usize,
    /// For how long these held their items.
    pub closed_h: f64,
    /// Closed ones that took longer than 15 min.
    pub closed_long: usize,
}

/// The attempts of a swarm.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    /// For each item its attempts, in order, in pieces that end when it was closed.
    pub chains: Vec<(String, Vec<Attempt>)>,
    /// What the record says.
    pub facts: Facts,
}

fn understand(line: Line) -> Result<Change, String> {
    let value = |text: &Option<String>| match text {
        Some(text) => serde_json::from_str::<Option<Value>>(text).map_err(|error| format!("a value: {error}")),
        None => Ok(None),
    };
    let (old, new) = (value(&line.old_value)?.unwrap_or_default(), value(&line.new_value)?.unwrap_or_default());
    let assignee = new.assignee.or(old.assignee).unwrap_or_default();
    let is_worker = assignee.split('/').any(|segment| segment == WORKERS);
    let what = match (line.event_type.as_str(), new.status.as_deref()) {
        ("closed", _) | (_, Some("closed")) => What::Closed,
        (_, Some("open")) => What::Reset,
        (_, Some("hooked" | "in_progress")) if is_worker => {
            What::Given(SwarmId::new(assignee).map_err(|error| error.to_string())?)
        }
        _ => What::Other,
    };
    Ok(Change { item: line.issue_id, actor: line.actor, at: line.created_at, what })
}

/// Reads events one after the other.
#[derive(Default)]
struct Reader {
    open: HashMap<String, Attempt>,
    given: BTreeMap<String, BTreeSet<SwarmId>>,
    ended: BTreeMap<String, Vec<Attempt>>,
    seen: HashMap<String, Timestamp>,
}

impl Reader {
    fn read(&mut self, change: Change) {
        let Change { item, actor, at, what } = change;
        if let Some(attempt) = self.open.get_mut(&item).filter(|attempt| actor == attempt.worker.as_str()) {
            attempt.reports.push(at.since(attempt.start));
        }
        self.seen.insert(actor, at);
        match what {
            What::Given(worker) => {
                self.given.entry(item.clone()).or_default().insert(worker.clone());
                let (held, alive) = (Duration::ZERO, Duration::ZERO);
                self.open.entry(item).or_insert(Attempt {
                    worker,
                    start: at,
                    held,
                    closed: false,
                    reports: vec![],
                    alive,
                });
            }
            What::Closed => self.end(item, at, true),
            What::Reset => self.end(item, at, false),
            What::Other => {}
        }
    }

    fn end(&mut self, item: String, at: Timestamp, closed: bool) {
        let Some(mut attempt) = self.open.remove(&item) else { return };
        (attempt.held, attempt.closed) = (at.since(attempt.start), closed);
        let seen = self.seen.get(attempt.worker.as_str()).copied().unwrap_or(attempt.start);
        attempt.alive = seen.since(attempt.start);
        self.ended.entry(item).or_default().push(attempt);
    }

    fn facts(&self, events: usize, bad: Vec<BadLine>) -> Facts {
        let (closed, reset): (Vec<&Attempt>, Vec<&Attempt>) =
            self.ended.values().flatten().partition(|attempt| attempt.closed);
        let held = |all: &[&Attempt]| hours(all.iter().map(|attempt| attempt.held).sum());
        Facts {
            events,
            bad,
            items: self.given.len(),
            twice: self.given.values().filter(|workers| workers.len() > 1).count(),
            attempts: closed.len() + reset.len(),
            reset: reset.len(),
            reset_h: held(&reset),
            closed: closed.len(),
            closed_h: held(&closed),
            closed_long: closed.iter().filter(|attempt| attempt.held > LONG).count(),
        }
    }
}

impl Attempts {
    /// Reads events.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or has no attempt at all.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let mut changes = Vec::new();
        let bad = read_lines(path, |line: Line| {
            changes.push(understand(line)?);
            Ok(())
        })?;
        // Of one moment, in the order of the file.
        changes.sort_by_key(|change| change.at);
        let (events, mut reader) = (changes.len(), Reader::default());
        changes.into_iter().for_each(|change| reader.read(change));
        let facts = reader.facts(events, bad);
        if facts.attempts == 0 {
            return Err(format!("{}: nobody has worked on anything", path.display()).into());
        }
        let mut chains = Vec::new();
        for (item, attempts) in reader.ended {
            let pieces = attempts.chunk_by(|attempt, _| !attempt.closed);
            chains.extend(pieces.map(|piece| (item.clone(), piece.to_vec())));
        }
        Ok(Self { chains, facts })
    }
}
