//! How a recorded attempt ends when it is replayed, and what comes next.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use s2_coordinator::{
    Blocker, Completion, Ending, Error as S2Error, Leases, NewTask, Retry, Scheduler, SwarmId, TaskId, TaskKind, Token,
};
use s2_governor::{BasisPoints, Candidate, Help, Matcher, NanoUsd, Need, RescuePolicy};

use crate::replay::Failure;
use crate::replay::change::{Change, ChangeRun};
use crate::replay::check::Claims;
use crate::replay::history::{DISPATCHER, Event, History, Running, offers};
use crate::replay::report::{hours, percent};
use crate::replay::tries::verified;

const HELP: TaskKind = TaskKind::from_static("help");
/// Where items lie that were reset and not given to anybody yet: nobody of this name is there.
const SHELF: SwarmId = SwarmId::from_static("shelf");
/// What a second of help costs: synthetic, and without influence on which share of it is in vain.
const SECOND: NanoUsd = NanoUsd::from_nanos(1_000_000);

impl History<'_> {
    /// The record says that it ends here.
    pub(super) async fn end(&mut self, token: Token) -> Result<(), Failure> {
        let Some(running) = self.running.get(&token) else { return Ok(()) };
        if running.attempt.closed {
            return self.close(token).await;
        }
        // Somebody resets it. Nobody tries to help a second time in the same way.
        let give_up = Ending::Fail { reason: "reset".into(), retry: Retry::Never };
        let ending = if running.is_help { give_up } else { Ending::Release };
        let ended = self.fleet.scheduler.end(vec![(running.lease, ending)], None).await?.ended.swap_remove(0);
        // The scheduler may have ended it at this very moment.
        match ended {
            Ok(_) | Err(S2Error::StaleLease { .. }) => self.come_to_nothing(token).await,
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn set_free(&mut self, token: Token) {
        if let Some(worker) = self.bound.remove(&token) {
            self.workers[worker].busy -= 1;
        }
    }

    /// An attempt is over. Answers whose it was and how long it took.
    fn conclude_attempt(&mut self, token: Token, useful: bool) -> Result<(Running<'_>, Duration), Failure> {
        let running = self.running.remove(&token).ok_or("an attempt that is not running ends")?;
        let took = self.fleet.now().since(running.since);
        self.states[running.chain].running -= 1;
        if !useful {
            (self.tally.in_vain, self.tally.held_in_vain) = (self.tally.in_vain + 1, self.tally.held_in_vain + took);
        }
        if running.is_help {
            let cost = SECOND.checked_mul(took.as_secs()).unwrap_or(NanoUsd::MAX);
            let useful = if useful { BasisPoints::FULL } else { BasisPoints::ZERO };
            self.tally.help.add(Help::new(cost, useful));
            self.tally.helped += 1;
        }
        Ok((running, took))
    }

    fn learn(&mut self, worker: &SwarmId, success: bool) -> Result<(), Failure> {
        let need = Need::new(DISPATCHER, &offers(worker)?);
        self.records.record(worker, &need, verified(success), self.fleet.now());
        Ok(())
    }

    /// It was reset, or the scheduler has ended the claim.
    pub(super) async fn come_to_nothing(&mut self, token: Token) -> Result<(), Failure> {
        let now = self.fleet.now();
        let (running, _) = self.conclude_attempt(token, false)?;
        let (chain, worker) = (running.chain, running.worker);
        let name = self.workers[worker].member.name.clone();
        self.learn(&name, false)?;
        if self.states[chain].running > 0 {
            return Ok(());
        }
        let task = self.states[chain].task.ok_or("an item that nobody has submitted")?;
        let Some(next) = self.chains[chain].1.get(self.states[chain].next) else {
            self.states[chain].done = true;
            self.fleet.scheduler.cancel(task, "the record ends here".into()).await?;
            return Ok(());
        };
        self.states[chain].idle_since = Some(now);
        match self.change {
            Change::AsRecorded => {
                self.fleet.scheduler.assign(task, Some(&SHELF)).await?;
                self.agenda.add(next.start, Event::Given(chain));
            }
            Change::Leases | Change::ProgressDeadline => self.fleet.scheduler.assign(task, None).await?,
            Change::GangUp if self.states[chain].is_rescued => self.waiting.push(chain),
            Change::GangUp => self.fleet.scheduler.assign(task, Some(&DISPATCHER)).await?,
        }
        Ok(())
    }

    async fn close(&mut self, token: Token) -> Result<(), Failure> {
        let now = self.fleet.now();
        let (running, _) = self.conclude_attempt(token, true)?;
        let (chain, worker, lease, is_help) = (running.chain, running.worker, running.lease, running.is_help);
        self.fleet.end(lease, Ending::Complete(Completion::new())).await?;
        let name = self.workers[worker].member.name.clone();
        self.learn(&name, true)?;
        self.states[chain].done = true;
        self.tally.closed += 1;
        self.tally.until_closed += now.since(self.chains[chain].1[0].start);
        if is_help {
            self.stop_others(chain).await?;
            let task = self.states[chain].task.ok_or("an item that nobody has submitted")?;
            self.fleet.scheduler.unblock(task).await?;
        }
        Ok(())
    }

    /// Whoever else works on it is not needed any more.
    async fn stop_others(&mut self, chain: usize) -> Result<(), Failure> {
        let others: Vec<(Token, TaskId)> = self
            .running
            .values()
            .filter(|running| running.chain == chain)
            .map(|running| (running.lease.token, running.lease.task))
            .collect();
        for (token, task) in others {
            self.conclude_attempt(token, false)?;
            self.set_free(token);
            self.fleet.scheduler.cancel(task, "somebody else has closed it".into()).await?;
        }
        Ok(())
    }

    /// Who is idle asks for something to do; those who came to nothing are helped first.
    pub(super) async fn dispatch(&mut self) -> Result<(), Failure> {
        if self.change == Change::GangUp {
            self.take_back().await?;
            self.gang_up().await?;
        }
        for worker in 0..self.workers.len() {
            if self.workers[worker].busy == 0 {
                self.take(worker).await?;
            }
        }
        Ok(())
    }

    /// What came to nothing is blocked until a helper has closed it.
    async fn take_back(&mut self) -> Result<(), Failure> {
        while let Some(grant) = self.fleet.take(&mut self.dispatcher).await? {
            let chain = *self.of_task.get(&grant.lease.task).ok_or("a task that nobody has submitted")?;
            if self.states[chain].done {
                self.fleet.end(grant.lease, Ending::Complete(Completion::new())).await?;
                continue;
            }
            self.fleet.end(grant.lease, Ending::Block(Blocker::new("an attempt came to nothing"))).await?;
            self.states[chain].is_rescued = true;
            self.waiting.push(chain);
        }
        Ok(())
    }

    async fn gang_up(&mut self) -> Result<(), Failure> {
        let idle = self.workers.iter().filter(|worker| worker.busy == 0).map(|worker| &worker.member.name);
        let idle =
            idle.map(|name| Ok(Candidate::new(name.clone(), offers(name)?))).collect::<Result<Vec<_>, Failure>>()?;
        if self.waiting.is_empty() || idle.is_empty() {
            return Ok(());
        }
        let need = |chain: &usize| Ok(Need::new(DISPATCHER, &offers(&self.chains[*chain].1[0].worker)?));
        let needs = self.waiting.iter().map(need).collect::<Result<Vec<_>, Failure>>()?;
        let policy = RescuePolicy::default();
        let matcher = Matcher::new(&policy, self.fleet.now()).with_records(&self.records);
        let gangs = matcher.assign(&needs, &idle)?.into_iter();
        let names = |gang: Vec<s2_governor::Assessment<'_>>| -> Vec<SwarmId> {
            gang.into_iter().map(|helper| helper.candidate.session.clone()).collect()
        };
        let gangs: Vec<_> = self.waiting.drain(..).zip(gangs.map(names)).collect();
        for (chain, gang) in gangs {
            if gang.is_empty() {
                self.waiting.push(chain);
            }
            let left = self.chains[chain].1.len() - self.states[chain].next;
            for helper in gang.into_iter().take(left) {
                self.ask(chain, helper).await?;
            }
        }
        Ok(())
    }

    /// A task of its own for each helper, tried once.
    async fn ask(&mut self, chain: usize, helper: SwarmId) -> Result<(), Failure> {
        let task = self.states[chain].task.ok_or("an item that nobody has submitted")?;
        let help = NewTask::new(HELP, DISPATCHER).with_assignee(helper).with_parent(task).with_attempts(1);
        let help = self.fleet.scheduler.submit(&[help]).await?[0].id;
        self.of_task.insert(help, chain);
        Ok(())
    }

    /// What it came to, checked by the journal.
    pub(super) async fn conclude(&self) -> Result<ChangeRun, Failure> {
        let claims = Claims::of(&self.fleet.entries().await?);
        let mut holders: HashMap<&str, HashSet<&str>> = HashMap::new();
        for (task, chain) in &self.of_task {
            let had = claims.holders.get(&task.to_string()).into_iter().flatten().map(String::as_str);
            holders.entry(&self.chains[*chain].0).or_default().extend(had.filter(|name| *name != DISPATCHER.as_str()));
        }
        let unfinished = self.fleet.scheduler.stats().await?.unfinished();
        if claims.duplicates > 0 || unfinished > 0 {
            return Err(format!("{}: {} duplicates, {unfinished} unfinished", self.change, claims.duplicates).into());
        }
        Ok(ChangeRun {
            change: self.change,
            twice: holders.values().filter(|names| names.len() > 1).count(),
            attempts: self.tally.attempts,
            in_vain: self.tally.in_vain,
            in_vain_h: hours(self.tally.held_in_vain),
            waiting_h: hours(self.tally.waiting),
            until_closed_h: hours(self.tally.until_closed),
            closed: self.tally.closed,
            waste_percent: (self.tally.helped > 0).then(|| percent(self.tally.help.share())),
            duplicates: claims.duplicates,
        })
    }
}
