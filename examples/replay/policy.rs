//! Three ways to deal with work that is stuck.

use std::fmt;

use s2_coordinator::{Completion, Ending, Lease, NewTask, Scheduler, SwarmId, TaskKind};
use s2_governor::{BasisPoints, BudgetLedgerExt, Candidate, Help, Matcher, NanoUsd, Need};
use serde::Serialize;

use crate::replay::Failure;
use crate::replay::sim::{Item, Sim};
use crate::replay::world::LONGEST_HELP;

const HELP: TaskKind = TaskKind::from_static("help");
/// After so many claims that came to nothing a person gives the issue to the lead.
const PATIENCE: usize = 3;

/// What happens when a session is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// It says so, and the lead solves all blockers, one after the other.
    EscalateToOne,
    /// It says nothing, and works on in vain until its claim runs out. Then somebody else begins anew.
    LeaseOnly,
    /// It says so, and those who fit best help, two at most. If that is in vain, or nobody fits, the lead does.
    GangUp,
}

impl Policy {
    /// All of them.
    pub const ALL: [Policy; 3] = [Self::EscalateToOne, Self::LeaseOnly, Self::GangUp];
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::EscalateToOne => "escalate to one",
            Self::LeaseOnly => "lease only",
            Self::GangUp => "gang up",
        })
    }
}

impl Sim<'_> {
    pub(super) async fn ask_for_help(&mut self, nth: usize) -> Result<(), Failure> {
        if self.policy != Policy::GangUp {
            return self.ask_lead(nth).await;
        }
        self.waiting.push(nth);
        Ok(())
    }

    /// Whether anybody but the blocked one fits, had it nothing else to do.
    fn fits_anybody(&self, nth: usize) -> bool {
        let beings = self.world.beings[..self.world.lead()].iter();
        let all: Vec<Candidate> =
            beings.map(|being| Candidate::new(being.name.clone(), being.offers.clone())).collect();
        let matcher = Matcher::new(&self.rescue, self.fleet.now()).with_records(&self.records);
        !matcher.choose(&self.need(nth), &all).helpers.is_empty()
    }

    async fn ask_lead(&mut self, nth: usize) -> Result<(), Failure> {
        self.tally.escalated += 1;
        self.states[nth].by_lead = true;
        self.ask(nth, self.world.lead()).await
    }

    /// Gives somebody the task of helping with an issue.
    async fn ask(&mut self, nth: usize, helper: usize) -> Result<(), Failure> {
        let (blocked, asked) = (&self.world.beings[self.states[nth].blocked], &self.world.beings[helper]);
        let help = NewTask::new(HELP, blocked.name.clone()).with_parent(self.states[nth].task);
        let help = help.with_assignee(asked.name.clone()).with_priority(self.issues.list[nth].priority);
        let id = self.fleet.scheduler.submit(&[help]).await?[0].id;
        self.items.insert(id, Item::Help(nth));
        self.states[nth].help.push((id, helper));
        self.workers[helper].queued += 1;
        Ok(())
    }

    /// All who wait for help get the best of those who have nothing to do.
    pub(super) async fn gang_up(&mut self) -> Result<(), Failure> {
        let (waiting, hopeless): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|nth| self.fits_anybody(*nth));
        self.waiting = waiting;
        for nth in hopeless {
            self.ask_lead(nth).await?;
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        let free = self.candidates().await?;
        // The more depends on it, the more it is worth.
        let value = |nth: usize| 1 + self.states[nth].dependants;
        let needs: Vec<Need> = self.waiting.iter().map(|nth| self.need(*nth).with_value(value(*nth))).collect();
        let matcher = Matcher::new(&self.rescue, self.fleet.now()).with_records(&self.records);
        let mut gangs = Vec::new();
        for (nth, helpers) in self.waiting.iter().zip(matcher.assign(&needs, &free)?) {
            let place = |name: &SwarmId| self.world.beings.iter().position(|being| being.name == *name);
            let gang: Option<Vec<usize>> = helpers.iter().map(|helper| place(&helper.candidate.session)).collect();
            gangs.push((*nth, gang.ok_or("the matcher chose somebody who is not there")?));
        }
        for (nth, gang) in gangs.into_iter().filter(|(_, gang)| !gang.is_empty()) {
            self.waiting.retain(|other| *other != nth);
            for helper in gang {
                self.ask(nth, helper).await?;
            }
        }
        Ok(())
    }

    /// Who might help now, as the scheduler and the ledger know them.
    async fn candidates(&self) -> Result<Vec<Candidate>, Failure> {
        let mut all = Vec::new();
        for info in self.fleet.scheduler.sessions(None, 500).await? {
            let name = &info.incarnation.session;
            let Some(worker) = self.world.beings.iter().position(|being| being.name == *name) else { continue };
            if worker == self.world.lead() || !self.is_free(worker) {
                continue;
            }
            let balance = self.ledger.balance(name).await?;
            let cost = self.world.beings[worker].cost(LONGEST_HELP);
            let candidate = Candidate::from(&info).with_cost(cost).with_headroom(balance.available());
            all.push(candidate.with_halted(balance.halted.is_some()));
        }
        Ok(all)
    }

    /// Help has come to an end: it was of use, or it was not.
    pub(super) async fn helped(&mut self, by: usize, nth: usize, lease: Lease, cost: NanoUsd) -> Result<(), Failure> {
        let solved = self.world.beings[by].can(nth);
        self.fleet.end(lease, Ending::Complete(Completion::new().with_evidence("solved", solved))).await?;
        self.states[nth].help.retain(|(task, _)| *task != lease.task);
        self.count_help(nth, cost, solved);
        if by != self.world.lead() {
            self.learn(by, nth, solved);
        }
        if solved {
            for (task, _) in std::mem::take(&mut self.states[nth].help) {
                let cost = self.stop(task).await?.unwrap_or(NanoUsd::ZERO);
                self.fleet.scheduler.cancel(task, "somebody else has found the way".into()).await?;
                self.count_help(nth, cost, false);
            }
            return self.unblock(nth).await;
        }
        if self.states[nth].help.is_empty() { self.ask_lead(nth).await } else { Ok(()) }
    }

    /// What nobody but the lead could have solved says nothing about how well helpers are chosen.
    fn count_help(&mut self, nth: usize, cost: NanoUsd, solved: bool) {
        self.tally.helped += 1;
        let useful = if solved { BasisPoints::FULL } else { BasisPoints::ZERO };
        let counts = solved || self.world.is_solvable(nth);
        self.tally.help.add(if counts { Help::new(cost, useful) } else { Help::unsolvable(cost) });
        if !solved {
            self.tally.in_vain = self.tally.in_vain.saturating_add(cost);
        }
    }

    /// Without help, an issue that has come to nothing too often is given to the lead.
    pub(super) async fn give_up(&mut self, nth: usize) -> Result<(), Failure> {
        let lead = self.world.lead();
        if self.states[nth].lost != PATIENCE {
            return Ok(());
        }
        (self.tally.escalated, self.states[nth].by_lead) = (self.tally.escalated + 1, true);
        self.workers[lead].queued += 1;
        let name = &self.world.beings[lead].name;
        Ok(self.fleet.scheduler.assign(self.states[nth].task, Some(name)).await?)
    }
}
