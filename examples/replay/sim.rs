//! The graph, done by the real scheduler, ledger and matcher in virtual time, by sessions that only pretend to work.
//!
//! Events follow each other as fast as they can be computed: the clock jumps from one to the next. What happens is decided by the
//! scheduler; a session asks for something to do when it has nothing, and hears what follows from what others did at that moment.

use std::collections::HashMap;
use std::time::Duration;

use s2_coordinator::{Config, Lease, NewTask, Profile, Scheduler, SwarmId, TaskId, TaskKind, Timestamp, Token, UtcDay};
use s2_governor::{
    BudgetLedger, LedgerSettings, Limit, MemoryLedger, NanoUsd, RescuePolicy, Reservation, TrackRecords, Waste,
};

use crate::replay::fleet::{Agenda, Fleet, Member};
use crate::replay::issues::Issues;
use crate::replay::policy::Policy;
use crate::replay::progress::Bar;
use crate::replay::world::World;
use crate::replay::{Failure, START};

const ISSUE: TaskKind = TaskKind::from_static("issue");
const HOST: SwarmId = SwarmId::from_static("host");
/// How long a session that is alive has what it claimed. It is long, so that there are not too many events: what ends the
/// claim of a session that is stuck is that it reports no progress.
const LEASE: Duration = Duration::from_secs(60 * 60);

/// What a session is working on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Issue(usize),
    /// Help with the issue of this number.
    Help(usize),
}

/// How a stretch of work ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Stuck,
    /// The claim has run out, since nothing came of it.
    Lost,
}

#[derive(Debug)]
pub(super) struct Work {
    pub(super) item: Item,
    pub(super) lease: Lease,
    pub(super) held: Reservation,
    pub(super) since: Timestamp,
    pub(super) end: End,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) member: Member,
    pub(super) work: Option<Work>,
    /// Its budget of today is spent.
    pub(super) is_broke: bool,
    /// Tasks of its own queue; the lead asks for nothing else.
    pub(super) queued: usize,
}

/// Where an issue is.
#[derive(Debug)]
pub(super) struct State {
    pub(super) task: TaskId,
    /// What is left to do of it.
    pub(super) left: Duration,
    /// Somebody has found the way.
    pub(super) helped: bool,
    pub(super) stuck_since: Option<Timestamp>,
    /// Claims that came to nothing.
    pub(super) lost: usize,
    pub(super) by_lead: bool,
    /// Who is stuck with it.
    pub(super) blocked: usize,
    /// How many issues wait for it directly.
    pub(super) dependants: u64,
    /// Help that is on its way, and who was asked for it.
    pub(super) help: Vec<(TaskId, usize)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Ends(usize, Token),
    Reports(usize, Token),
    /// Something may have become ready.
    Looks,
    /// It is another day.
    Affords(usize),
}

/// What a run came to, while it runs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) done: usize,
    pub(super) attempts: usize,
    pub(super) blocked: Duration,
    pub(super) solved: usize,
    pub(super) escalated: usize,
    pub(super) in_vain: NanoUsd,
    pub(super) posted: NanoUsd,
    pub(super) denied: usize,
    pub(super) help: Waste,
    pub(super) helped: usize,
    pub(super) ends: Timestamp,
}

/// One run.
#[derive(Debug)]
pub(super) struct Sim<'a> {
    pub(super) issues: &'a Issues,
    pub(super) world: &'a World,
    pub(super) policy: Policy,
    pub(super) fleet: Fleet,
    pub(super) ledger: MemoryLedger,
    pub(super) rescue: RescuePolicy,
    pub(super) records: TrackRecords,
    pub(super) workers: Vec<Worker>,
    pub(super) states: Vec<State>,
    pub(super) items: HashMap<TaskId, Item>,
    /// Issues that wait for somebody who can help.
    pub(super) waiting: Vec<usize>,
    pub(super) tally: Tally,
    pub(super) agenda: Agenda<Event>,
}

fn config(issues: &Issues, world: &World) -> Config {
    let mut config = Config::default();
    config.lease = LEASE;
    config.attempts = config.limits.attempts;
    // The lead's queue is the lead's, and who waits for help has nothing to go on with.
    (config.steal_above, config.longest_wait) = (usize::MAX, Duration::MAX);
    // A person is asked by the policies themselves.
    config.flatline = Duration::MAX;
    config.limits.dependencies = issues.list.len().max(1);
    config.limits.edges = usize::MAX;
    config.limits.capabilities = world.beings.iter().map(|being| being.offers.len()).max().unwrap_or(0).max(64);
    config
}

impl<'a> Sim<'a> {
    pub(super) async fn new(issues: &'a Issues, world: &'a World, policy: Policy) -> Result<Self, Failure> {
        let fleet = Fleet::new(config(issues, world), START)?;
        let mut settings = LedgerSettings::default();
        settings.kept_days = 3_650;
        let ledger = MemoryLedger::with_settings(&fleet.store, settings)?;
        let mut sim = Self {
            issues,
            world,
            policy,
            fleet,
            ledger,
            rescue: RescuePolicy::default(),
            records: TrackRecords::default(),
            workers: Vec::new(),
            states: Vec::new(),
            items: HashMap::new(),
            waiting: Vec::new(),
            tally: Tally::default(),
            agenda: Agenda::new(),
        };
        sim.submit().await?;
        for being in &world.beings {
            let profile = Profile::new(being.name.clone()).with_capabilities(being.offers.clone());
            let member = sim.fleet.enter(profile).await?;
            sim.workers.push(Worker { member, work: None, is_broke: false, queued: 0 });
        }
        // Of the lead there is no other, so it is not halted.
        sim.ledger.set_limit(&world.beings[world.lead()].name, Limit::Unlimited).await?;
        Ok(sim)
    }

    async fn submit(&mut self) -> Result<(), Failure> {
        let task = |nth: usize| {
            let issue = &self.issues.list[nth];
            let task = NewTask::new(ISSUE, HOST).with_key(issue.id.clone()).with_priority(issue.priority);
            issue.after.iter().fold(task, |task, on| task.after(self.issues.list[*on].id.clone()))
        };
        let all: Vec<NewTask> = (0..self.issues.list.len()).map(task).collect();
        let mut submitted = Vec::with_capacity(all.len());
        for batch in all.chunks(500) {
            submitted.extend(self.fleet.scheduler.submit(batch).await?);
        }
        for (nth, submitted) in submitted.into_iter().enumerate() {
            self.items.insert(submitted.id, Item::Issue(nth));
            self.states.push(State {
                task: submitted.id,
                left: self.world.jobs[nth].work,
                helped: false,
                stuck_since: None,
                lost: 0,
                by_lead: false,
                blocked: 0,
                dependants: 0,
                help: Vec::new(),
            });
        }
        for on in self.issues.list.iter().flat_map(|issue| &issue.after) {
            self.states[*on].dependants += 1;
        }
        Ok(())
    }

    /// Until everything is done.
    pub(super) async fn run(&mut self, bar: &mut Bar) -> Result<(), Failure> {
        self.dispatch().await?;
        while self.tally.done < self.states.len() {
            // If nothing happens any more today, those who could help have spent what they may.
            let tomorrow = UtcDay::of(self.fleet.now()).next().start();
            let (at, event) = match self.agenda.next() {
                Some(next) => next,
                None if !self.waiting.is_empty() => (tomorrow, Event::Looks),
                None => break,
            };
            self.fleet.go_to(at);
            match event {
                Event::Ends(worker, token) if self.works(worker, token) => self.finish(worker).await?,
                Event::Reports(worker, token) if self.works(worker, token) => self.report(worker).await?,
                Event::Affords(worker) => self.workers[worker].is_broke = false,
                // What was cancelled meanwhile neither reports nor ends.
                Event::Ends(..) | Event::Reports(..) | Event::Looks => {}
            }
            if self.agenda.is_over(self.fleet.now()) {
                self.dispatch().await?;
            }
            bar.at(self.tally.done, self.states.len());
        }
        match self.states.len() - self.tally.done {
            0 => Ok(()),
            left => Err(format!("nothing happens any more, and {left} issues are not done").into()),
        }
    }

    fn works(&self, worker: usize, token: Token) -> bool {
        self.workers[worker].work.as_ref().is_some_and(|work| work.lease.token == token)
    }

    pub(super) fn is_free(&self, worker: usize) -> bool {
        self.workers[worker].work.is_none() && !self.workers[worker].is_broke
    }

    /// Who has nothing to do asks for something.
    async fn dispatch(&mut self) -> Result<(), Failure> {
        self.gang_up().await?;
        for worker in 0..self.workers.len() {
            let asks = worker != self.world.lead() || self.workers[worker].queued > 0;
            if asks && self.is_free(worker) {
                let granted = self.fleet.take(&mut self.workers[worker].member).await?;
                if let Some(grant) = granted {
                    self.start(worker, grant).await?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn took(&self) -> Duration {
        self.tally.ends.since(START)
    }
}
