//! Whether a run kept what was promised, by the journal and the accounts. A run that did not is an error.

use std::collections::{BTreeMap, HashMap, HashSet};

use s2_coordinator::{Entry, Scheduler, SwarmId, UtcDay, Value};
use s2_governor::{BudgetLedger, NanoUsd};

use crate::replay::sim::Sim;
use crate::replay::{Failure, START};

/// What the journal says of the claims of tasks.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// How often each task was completed.
    pub(super) completed: HashMap<String, usize>,
    /// Claims of a task that another session had, and completions of one that was completed.
    pub(super) duplicates: usize,
    /// Where in the journal each task was claimed first, and where it was completed.
    first: HashMap<String, usize>,
    last: HashMap<String, usize>,
    /// Who has had each task.
    pub(super) holders: BTreeMap<String, HashSet<String>>,
}

impl Claims {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let (mut claims, mut held) = (Self::default(), HashSet::new());
        for (at, entry) in entries.iter().enumerate().filter(|(_, entry)| &*entry.component == "task") {
            let task = entry.subject.to_string();
            match &*entry.operation {
                "claimed" => {
                    claims.duplicates += usize::from(!held.insert(task.clone()) || claims.last.contains_key(&task));
                    claims.first.entry(task.clone()).or_insert(at);
                    if let Some(Value::Text(session)) = entry.params.get("session") {
                        claims.holders.entry(task).or_default().insert(session.to_string());
                    }
                }
                "completed" => {
                    let times = claims.completed.entry(task.clone()).or_default();
                    *times += 1;
                    claims.duplicates += usize::from(*times > 1 || !held.remove(&task));
                    claims.last.insert(task, at);
                }
                "released" | "refused" | "retried" | "stalled" | "expired" | "blocked" | "cancelled" | "failed" => {
                    held.remove(&task);
                }
                _ => {}
            }
        }
        claims
    }

    /// Whether one was over before the other was begun.
    fn is_before(&self, one: &str, other: &str) -> bool {
        matches!((self.last.get(one), self.first.get(other)), (Some(over), Some(begun)) if over < begun)
    }
}

impl Sim<'_> {
    /// Checks the run. Answers how often work was done twice, which is never, and what was spent.
    pub(super) async fn check(&self) -> Result<(usize, NanoUsd), Failure> {
        let claims = Claims::of(&self.fleet.entries().await?);
        let name = |nth: usize| self.states[nth].task.to_string();
        for (nth, issue) in self.issues.list.iter().enumerate() {
            if claims.completed.get(&name(nth)) != Some(&1) {
                return Err(format!("{} was not done once: {:?}", issue.id, claims.completed.get(&name(nth))).into());
            }
            if let Some(on) = issue.after.iter().find(|on| !claims.is_before(&name(**on), &name(nth))) {
                return Err(format!("{} was begun before {} was over", issue.id, self.issues.list[*on].id).into());
            }
        }
        if claims.duplicates > 0 {
            return Err(format!("{} duplicates", claims.duplicates).into());
        }
        match self.fleet.scheduler.stats().await?.unfinished() {
            0 => Ok((claims.duplicates, self.check_money().await?)),
            left => Err(format!("{left} tasks are left").into()),
        }
    }

    /// No account is overrun on any day, nothing is held any more, and what was spent is what sessions say they have cost.
    async fn check_money(&self) -> Result<NanoUsd, Failure> {
        let (mut spent, mut day) = (NanoUsd::ZERO, UtcDay::of(START));
        let swarms: HashSet<SwarmId> =
            self.world.beings.iter().filter_map(|being| being.name.ancestors().last()).collect();
        while day <= UtcDay::of(self.fleet.now()) {
            for swarm in &swarms {
                let statement = self.ledger.statement(swarm, Some(day), None, 500).await?;
                spent = spent.saturating_add(statement.balance.spent);
                for account in std::iter::once(&statement.balance).chain(&statement.within) {
                    if account.overrun() > NanoUsd::ZERO || account.held > NanoUsd::ZERO {
                        return Err(
                            format!("an account that is overrun, or on which money is held: {account:?}").into()
                        );
                    }
                }
            }
            day = day.next();
        }
        if spent != self.tally.posted {
            return Err(format!("the accounts say {spent}, the sessions {}", self.tally.posted).into());
        }
        Ok(spent)
    }
}

#[cfg(test)]
mod tests {
    use s2_coordinator::{Position, Record};

    use super::*;

    /// What a journal with these entries says: operation and task.
    fn claims(entries: &[(&'static str, &'static str)]) -> Claims {
        let entry = |(nth, (operation, task)): (usize, &(&'static str, &'static str))| {
            let record = Record::new("task", *operation, *task).with("session", format!("session-{nth}"));
            Entry::new(record, Position::new(nth as u64 + 1), START)
        };
        Claims::of(&entries.iter().enumerate().map(entry).collect::<Vec<_>>())
    }

    #[test]
    fn whatever_two_have_or_is_done_twice_is_a_duplicate() {
        for (entries, duplicates) in [
            (&[("claimed", "1"), ("completed", "1")][..], 0),
            (&[("claimed", "1"), ("stalled", "1"), ("claimed", "1"), ("completed", "1")], 0),
            (&[("claimed", "1"), ("claimed", "1")], 1),
            (&[("claimed", "1"), ("completed", "1"), ("claimed", "1")], 1),
            (&[("claimed", "1"), ("completed", "1"), ("completed", "1")], 1),
            (&[("claimed", "1"), ("claimed", "2"), ("completed", "1"), ("completed", "2")], 0),
        ] {
            assert_eq!(claims(entries).duplicates, duplicates, "{entries:?}");
        }
    }

    #[test]
    fn one_is_before_another_only_if_it_was_over_by_then() {
        let order = [("claimed", "1"), ("completed", "1"), ("claimed", "2"), ("claimed", "3"), ("completed", "2")];
        let claims = claims(&order);
        assert!(claims.is_before("1", "2"));
        assert!(!claims.is_before("2", "3"), "it was begun too early");
        assert!(!claims.is_before("3", "1") && !claims.is_before("1", "4"));
        assert_eq!(claims.holders["1"].len(), 1);
    }
}
