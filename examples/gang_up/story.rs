//! What happened, as the journal, the bus and the ledger tell it. Nothing here was seen otherwise, so it is told alike of one
//! process and of several.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use s2_coordinator::{Entry, Position, Start, SwarmId, TaskId, Timestamp, TraceToken, Value};
use s2_core::{HELP, RESCUE, RESCUES, RescueEvent, S2};
use s2_governor::{BasisPoints, BudgetLedgerExt, Help, NanoUsd};

use crate::fleet::{Given, HELP_OUT, INTEGRATE};
use crate::world::{CALLS, others};

/// How much is read at a time.
const PAGE: usize = 500;

/// Who was asked, and why, and who was not, and why not.
#[derive(Debug)]
pub(crate) struct Considered {
    pub(crate) time: Timestamp,
    pub(crate) asked: Vec<(SwarmId, String)>,
    pub(crate) others: Vec<(SwarmId, String)>,
}

/// What happened to a blocker.
#[derive(Debug)]
pub(crate) struct Story {
    blocked: TaskId,
    /// The journal, as far as it is about this.
    pub(crate) entries: Vec<Entry>,
    pub(crate) considered: Vec<Considered>,
    /// What SIP has got.
    pub(crate) given: Vec<Given>,
    /// What each of the others has spent.
    pub(crate) spent: BTreeMap<SwarmId, NanoUsd>,
}

impl Story {
    /// Waits until SIP is done, and reads what happened.
    pub(crate) async fn of(s2: &S2, blocked: TaskId, trace: TraceToken) -> Result<Self, Box<dyn Error>> {
        let outcome = s2.scheduler().wait(blocked).await?;
        let result = outcome.result().ok_or_else(|| format!("SIP's task is not done: {outcome:?}"))?;
        let given = result.json()?;
        let mut spent = BTreeMap::new();
        for session in others() {
            let balance = s2.ledger().balance(&session).await?;
            spent.insert(session, balance.spent);
        }
        let (entries, considered) = (entries(s2, trace).await?, considered(s2, blocked).await?);
        Ok(Self { blocked, entries, considered, given, spent })
    }

    /// How long it took from being blocked to the end, by the clock of the store.
    pub(crate) fn took(&self) -> Duration {
        let of_sip = |entry: &&Entry| entry.subject.as_str() == self.blocked.to_string();
        let time = |operation: &str| {
            let mut entries = self.entries.iter().filter(of_sip);
            entries.find(|entry| entry.operation.as_str() == operation).map(|entry| entry.time)
        };
        let (blocked, done) = (time("blocked").unwrap_or_default(), time("completed").unwrap_or_default());
        done.since(blocked)
    }

    /// What all of them have spent.
    pub(crate) fn cost(&self) -> NanoUsd {
        self.spent.values().fold(NanoUsd::ZERO, |sum, cost| sum.saturating_add(*cost))
    }

    /// What each has spent, and of how much use that was. Who has spent and given nothing has helped in vain.
    pub(crate) fn help(&self) -> impl Iterator<Item = Help> {
        self.spent.iter().map(|(session, cost)| Help::new(*cost, self.usefulness(session)))
    }

    fn usefulness(&self, session: &SwarmId) -> BasisPoints {
        let given = self.given.iter().filter(|given| given.by == *session);
        let (calls, useful) = given.fold((0, 0), |(calls, useful), given| (calls + given.calls, useful + given.useful));
        let share = u16::try_from(useful * 10_000 / calls.max(1)).ok();
        share.and_then(|share| BasisPoints::new(share).ok()).unwrap_or(BasisPoints::ZERO)
    }

    /// Who was asked, each time that helpers were looked for.
    pub(crate) fn choices(&self) -> Vec<Vec<SwarmId>> {
        self.considered.iter().map(|one| one.asked.iter().map(|(session, _)| session.clone()).collect()).collect()
    }

    /// What happened, in milliseconds since the task was submitted.
    pub(crate) fn print_timeline(&self) {
        let began = self.entries.first().map_or(Timestamp::EPOCH, |entry| entry.time);
        let kinds = self.kinds();
        let (mut lines, mut waited): (Vec<(Timestamp, String, String)>, BTreeSet<&str>) = Default::default();
        for entry in self.entries.iter().filter(|entry| entry.component.as_str() == "task") {
            let kind = kinds.get(entry.subject.as_str()).copied().unwrap_or_default();
            let goes_on = entry.operation.as_str() == "claimed" && waited.contains(entry.subject.as_str());
            if entry.operation.as_str() == "unblocked" {
                waited.insert(entry.subject.as_str());
            }
            let said = if goes_on { Some((text(entry, "session"), "goes on".to_owned())) } else { said(entry, kind) };
            lines.extend(said.map(|(who, what)| (entry.time, who.to_owned(), what)));
        }
        for Considered { time, asked, others } in &self.considered {
            let names: Vec<&str> = asked.iter().map(|(session, _)| session.as_str()).collect();
            let (names, all) =
                (if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }, asked.len() + others.len());
            let what = format!("tells whom it has asked: {names}, of {all} considered");
            lines.push((*time, "s2/organiser".to_owned(), what));
        }
        lines.sort_by_key(|(time, ..)| *time);
        lines.dedup();
        for (time, who, what) in lines {
            println!("{:>9.1} ms  {who:<17} {what}", time.since(began).as_secs_f64() * 1_000.0);
        }
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

/// Everything that the journal says about a trace and its tasks.
async fn entries(s2: &S2, trace: TraceToken) -> Result<Vec<Entry>, Box<dyn Error>> {
    let (mut all, mut tasks, mut after) = (Vec::new(), BTreeSet::new(), s2.journal().start().await?);
    loop {
        let page = s2.journal().entries(after, PAGE).await?;
        if page.items.is_empty() {
            return Ok(all);
        }
        after = page.next;
        for entry in page.items {
            let is_of_it = entry.trace.is_some_and(|other| other.trace_id() == trace.trace_id());
            // What becomes of a task while it waits names the task only.
            let is_task = entry.component.as_str() == "task";
            if is_of_it && is_task {
                tasks.insert(entry.subject.clone());
            }
            if is_of_it || is_task && tasks.contains(&entry.subject) {
                all.push(entry);
            }
        }
    }
}

async fn considered(s2: &S2, task: TaskId) -> Result<Vec<Considered>, Box<dyn Error>> {
    let (mut all, mut after) = (Vec::new(), Position::ORIGIN);
    loop {
        let page = s2.bus().read(&RESCUES, Start::After(after), PAGE).await?;
        if page.items.is_empty() {
            return Ok(all);
        }
        after = page.next;
        for event in page.items {
            if let RescueEvent::Matched { blocked, helpers, others, .. } = event.json()?
                && blocked == task
            {
                let named = |(session, why): (SwarmId, s2_coordinator::Text)| (session, why.to_string());
                let (asked, others) = (helpers.into_iter().map(named), others.into_iter().map(named));
                all.push(Considered { time: event.time, asked: asked.collect(), others: others.collect() });
            }
        }
    }
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
