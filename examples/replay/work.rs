//! What a session does with what it has claimed: it begins, reports, gets stuck, is paid, ends.

use std::time::Duration;

use s2_coordinator::{Blocker, Completion, Ending, Grant, Lease, Leases, Scheduler, TaskId, UtcDay};
use s2_governor::{BudgetLedger, NanoUsd, Need, Reserve, Reserved};

use crate::replay::Failure;
use crate::replay::policy::Policy;
use crate::replay::sim::{End, Event, Item, Sim, Work, Worker};
use crate::replay::tries::verified;

/// How often a session that gets on says so.
const REPORT: Duration = Duration::from_secs(15 * 60);
/// The longest that money can be held.
const HOLD: Duration = Duration::from_secs(24 * 60 * 60);

impl Sim<'_> {
    /// How long it works, and how that ends.
    fn plan(&self, worker: usize, item: Item) -> (Duration, End) {
        let being = &self.world.beings[worker];
        match item {
            Item::Help(nth) => (self.world.jobs[nth].help, End::Done),
            Item::Issue(nth) if self.states[nth].helped || being.can(nth) => (self.states[nth].left, End::Done),
            Item::Issue(nth) => (self.world.jobs[nth].stuck_after, End::Stuck),
        }
    }

    pub(super) async fn start(&mut self, worker: usize, grant: Grant) -> Result<(), Failure> {
        let (now, lease) = (self.fleet.now(), grant.lease);
        let item = *self.items.get(&lease.task).ok_or("a task that nobody has submitted")?;
        self.workers[worker].queued = self.workers[worker].queued.saturating_sub(1);
        let (takes, end) = self.plan(worker, item);
        // It may be stuck at the end, and that costs, too, until somebody notices.
        let most = self.world.beings[worker].cost(takes + self.fleet.store.config().progress);
        let reserve = Reserve::new(self.world.beings[worker].name.clone(), most).with_ttl(HOLD);
        let Reserved::Granted(held) = self.ledger.reserve(&reserve).await? else {
            return self.wait_for_money(worker, lease).await;
        };
        if let Item::Issue(nth) = item {
            self.tally.attempts += 1;
            self.tally.blocked += self.states[nth].stuck_since.take().map_or(Duration::ZERO, |since| now.since(since));
        }
        self.workers[worker].work = Some(Work { item, lease, held, since: now, end });
        self.agenda.add(now + takes, Event::Ends(worker, lease.token));
        if takes > REPORT {
            self.agenda.add(now + REPORT, Event::Reports(worker, lease.token));
        }
        Ok(())
    }

    /// A refused budget says nothing about the task: it is handed back, and somebody else may have it.
    async fn wait_for_money(&mut self, worker: usize, lease: Lease) -> Result<(), Failure> {
        let tomorrow = UtcDay::of(self.fleet.now()).next().start();
        let delay = Some(tomorrow.since(self.fleet.now()));
        self.fleet.end(lease, Ending::Refuse { reason: "the budget of today is spent".into(), delay }).await?;
        (self.workers[worker].is_broke, self.tally.denied) = (true, self.tally.denied + 1);
        self.agenda.add(tomorrow, Event::Affords(worker));
        Ok(())
    }

    pub(super) async fn report(&mut self, worker: usize) -> Result<(), Failure> {
        let Some(work) = &self.workers[worker].work else { return Ok(()) };
        if work.end != End::Lost {
            self.fleet.scheduler.progress(&work.lease).await?;
            self.agenda.add(self.fleet.now() + REPORT, Event::Reports(worker, work.lease.token));
        }
        Ok(())
    }

    /// What it has done is paid for.
    async fn pay(&mut self, worker: usize) -> Result<Option<(Work, NanoUsd)>, Failure> {
        let Some(work) = self.workers[worker].work.take() else { return Ok(None) };
        let cost = self.world.beings[worker].cost(self.fleet.now().since(work.since));
        self.ledger.settle(&work.held, cost).await?;
        self.tally.posted = self.tally.posted.saturating_add(cost);
        Ok(Some((work, cost)))
    }

    pub(super) async fn finish(&mut self, worker: usize) -> Result<(), Failure> {
        let Some(work) = &self.workers[worker].work else { return Ok(()) };
        if self.policy == Policy::LeaseOnly && work.end == End::Stuck {
            return self.go_on_in_vain(worker).await;
        }
        let Some((work, cost)) = self.pay(worker).await? else { return Ok(()) };
        match (work.item, work.end) {
            (Item::Help(nth), _) => self.helped(worker, nth, work.lease, cost).await,
            (Item::Issue(nth), End::Done) => self.done(worker, nth, work.lease).await,
            (Item::Issue(nth), End::Stuck) => self.block(worker, nth, &work).await,
            (Item::Issue(nth), End::Lost) => self.lost(nth, work.lease, cost).await,
        }
    }

    async fn done(&mut self, worker: usize, nth: usize, lease: Lease) -> Result<(), Failure> {
        self.fleet.end(lease, Ending::Complete(Completion::new())).await?;
        (self.tally.done, self.tally.ends) = (self.tally.done + 1, self.fleet.now());
        self.states[nth].by_lead |= worker == self.world.lead();
        self.tally.solved += usize::from(!self.states[nth].by_lead);
        if !self.states[nth].helped && worker != self.world.lead() {
            self.learn(worker, nth, true);
        }
        Ok(())
    }

    /// Nobody hears that it is stuck. It goes on until its claim runs out.
    async fn go_on_in_vain(&mut self, worker: usize) -> Result<(), Failure> {
        let now = self.fleet.now();
        let Some(work) = &mut self.workers[worker].work else { return Ok(()) };
        self.fleet.scheduler.progress(&work.lease).await?;
        work.end = End::Lost;
        let Item::Issue(nth) = work.item else { return Err("help gets stuck".into()) };
        self.states[nth].stuck_since = Some(now);
        let runs_out = now + self.fleet.store.config().progress;
        self.agenda.add(runs_out, Event::Ends(worker, work.lease.token));
        self.learn(worker, nth, false);
        Ok(())
    }

    /// Its claim has run out; whoever has it next begins anew.
    async fn lost(&mut self, nth: usize, lease: Lease, cost: NanoUsd) -> Result<(), Failure> {
        if self.fleet.scheduler.renew(&[lease]).await?.swap_remove(0).is_ok() {
            return Err(format!("{lease:?} made no progress and was not lost").into());
        }
        self.tally.in_vain = self.tally.in_vain.saturating_add(cost);
        self.states[nth].lost += 1;
        self.give_up(nth).await
    }

    /// It says that it is stuck, and what it has done so far is kept.
    async fn block(&mut self, worker: usize, nth: usize, work: &Work) -> Result<(), Failure> {
        let (now, job) = (self.fleet.now(), &self.world.jobs[nth]);
        let reason = Blocker::new("cannot go on").with_requires([job.area.clone()].into_iter().collect());
        self.fleet.end(work.lease, Ending::Block(reason)).await?;
        let left = job.work.saturating_sub(job.stuck_after);
        let state = &mut self.states[nth];
        (state.left, state.stuck_since, state.blocked) = (left, Some(now), worker);
        self.learn(worker, nth, false);
        self.ask_for_help(nth).await
    }

    /// Somebody has found the way: the owner goes on first, then anybody.
    pub(super) async fn unblock(&mut self, nth: usize) -> Result<(), Failure> {
        self.states[nth].helped = true;
        self.fleet.scheduler.unblock(self.states[nth].task).await?;
        self.agenda.add(self.fleet.now() + self.fleet.store.config().resume_window, Event::Looks);
        Ok(())
    }

    /// Whoever is working on this task stops. Answers what it has cost so far.
    pub(super) async fn stop(&mut self, task: TaskId) -> Result<Option<NanoUsd>, Failure> {
        let works = |worker: &Worker| worker.work.as_ref().is_some_and(|work| work.lease.task == task);
        let Some(worker) = self.workers.iter().position(works) else { return Ok(None) };
        Ok(self.pay(worker).await?.map(|(_, cost)| cost))
    }

    pub(super) fn need(&self, nth: usize) -> Need {
        let blocked = self.world.beings[self.states[nth].blocked].name.clone();
        Need::new(blocked, &[self.world.jobs[nth].area.clone()].into_iter().collect())
    }

    /// What has become of the work of a session is remembered.
    pub(super) fn learn(&mut self, worker: usize, nth: usize, solved: bool) {
        let (need, session) = (self.need(nth), &self.world.beings[worker].name);
        self.records.record(session, &need, verified(solved), self.fleet.now());
    }
}
