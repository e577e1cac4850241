//! A story, told to people.

use std::collections::{BTreeMap, BTreeSet};

use s2_coordinator::{Entry, Timestamp, Value};
use s2_core::{HELP, RESCUE};

use crate::fleet::{HELP_OUT, INTEGRATE};
use crate::story::{Considered, Story};
use crate::world::CALLS;

/// When, who, what.
type Line<'a> = (Timestamp, &'a str, String);

impl Story {
    /// What happened, in milliseconds since the task was submitted.
    pub(crate) fn print_timeline(&self) {
        let mut lines = self.done();
        lines.extend(self.considered.iter().map(told));
        lines.sort_by_key(|(time, ..)| *time);
        lines.dedup();
        let began = lines.first().map_or(Timestamp::EPOCH, |(time, ..)| *time);
        for (time, who, what) in lines {
            println!("{:>9.1} ms  {who:<17} {what}", time.since(began).as_secs_f64() * 1_000.0);
        }
    }

    /// What was done to the tasks.
    fn done(&self) -> Vec<Line<'_>> {
        let (kinds, mut waited, mut lines) = (self.kinds(), BTreeSet::new(), Vec::new());
        for entry in self.entries.iter().filter(|entry| entry.component.as_str() == "task") {
            let (operation, task) = (entry.operation.as_str(), entry.subject.as_str());
            let kind = kinds.get(task).copied().unwrap_or_default();
            if operation == "unblocked" {
                waited.insert(task);
            }
            let goes_on = operation == "claimed" && waited.contains(task);
            let said = if goes_on { Some((text(entry, "session"), "goes on".to_owned())) } else { said(entry, kind) };
            lines.extend(said.map(|(who, what)| (entry.time, who, what)));
        }
        lines
    }

    /// What each task is, by its number.
    fn kinds(&self) -> BTreeMap<&str, &str> {
        let submitted = self.entries.iter().filter(|entry| entry.operation.as_str() == "submitted");
        submitted.map(|entry| (entry.subject.as_str(), text(entry, "kind"))).collect()
    }

    /// Who was considered, and why not.
    pub(crate) fn print_considered(&self) {
        for Considered { asked, others, .. } in &self.considered {
            asked.iter().for_each(|(_, why)| println!("  + {why}"));
            others.iter().for_each(|(_, why)| println!("  - {why}"));
        }
    }

    /// The trace: what the journal says about the tasks, and how much about money.
    pub(crate) fn print_trace(&self) {
        let (tasks, money): (Vec<&Entry>, Vec<&Entry>) =
            self.entries.iter().partition(|entry| entry.component.as_str() == "task");
        tasks.iter().for_each(|entry| println!("  {}", entry.to_json()));
        let settled = money.iter().filter(|entry| entry.operation.as_str() == "settle").count();
        println!("  and {} entries of the ledger, by which {settled} calls were paid for", money.len());
    }
}

fn told(considered: &Considered) -> Line<'_> {
    let Considered { time, asked, others } = considered;
    let names: Vec<&str> = asked.iter().map(|(session, _)| session.as_str()).collect();
    let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
    let what = format!("tells whom it has asked: {names}, of {} considered", asked.len() + others.len());
    (*time, "s2/organiser", what)
}

/// A parameter of an entry; empty if it has none.
pub(crate) fn text<'a>(entry: &'a Entry, param: &str) -> &'a str {
    match entry.params.get(param) {
        Some(Value::Text(text)) => text.as_str(),
        _ => "",
    }
}

fn number(entry: &Entry, param: &str) -> i64 {
    match entry.params.get(param) {
        Some(Value::Int(number)) => *number,
        _ => 0,
    }
}

/// An entry for people: who, and what; nothing if another line says it.
fn said<'a>(entry: &'a Entry, kind: &str) -> Option<(&'a str, String)> {
    let (is_help, is_rescue) = (kind == HELP.as_str() || kind == HELP_OUT.as_str(), kind == RESCUE.as_str());
    let what = match entry.operation.as_str() {
        "submitted" if kind == INTEGRATE.as_str() => return Some((text(entry, "source"), "submits a task".to_owned())),
        "submitted" if is_help => return Some(("s2/organiser", "asks for help".to_owned())),
        "submitted" => return None,
        "blocked" => format!("is blocked: {}", text(entry, "reason")),
        "unblocked" => "may go on".to_owned(),
        "claimed" if is_help => "helps".to_owned(),
        "claimed" if is_rescue => format!("organises help, attempt {}", number(entry, "attempt")),
        "claimed" => "works".to_owned(),
        "completed" if is_help => format!("has helped: {} of {CALLS} calls were of use", number(entry, "useful")),
        "completed" if is_rescue => {
            format!("is done: {} of {} have helped", number(entry, "helped"), number(entry, "asked"))
        }
        "completed" => "is done".to_owned(),
        "expired" => format!("is gone, and {kind} with it"),
        "failed" => format!("{kind} has failed: {}", text(entry, "cause")),
        other => format!("{kind} {other}: {}", serde_json::to_string(&entry.params).unwrap_or_default()),
    };
    Some((text(entry, "session"), what))
}
