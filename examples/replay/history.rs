//! The recorded attempts, one event after the other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use s2_coordinator::{
    Capabilities, Capability, Config, Lease, Leases, NewTask, Profile, Scheduler, SwarmId, TaskId, TaskKind, TaskState,
    Timestamp, Token,
};
use s2_governor::{TrackRecords, Waste};

use crate::replay::Failure;
use crate::replay::attempts::{Attempt, Attempts};
use crate::replay::change::Change;
use crate::replay::fleet::{Agenda, Fleet, Member};
use crate::replay::progress::Bar;

const ITEM: TaskKind = TaskKind::from_static("item");
/// Gives items to workers, and gathers helpers.
pub(super) const DISPATCHER: SwarmId = SwarmId::from_static("dispatcher");
/// Each lease of 30 s is renewed in time.
const RENEW: Duration = Duration::from_secs(20);
/// How often those that came to something are taken to have reported.
const REPORT: Duration = Duration::from_secs(15 * 60);

/// An attempt that is being replayed.
#[derive(Debug)]
pub(super) struct Running<'a> {
    pub(super) chain: usize,
    pub(super) worker: usize,
    pub(super) attempt: &'a Attempt,
    pub(super) lease: Lease,
    pub(super) since: Timestamp,
    pub(super) is_help: bool,
}

/// Where an item is.
#[derive(Debug)]
pub(super) struct State {
    pub(super) task: Option<TaskId>,
    /// Which attempt comes next.
    pub(super) next: usize,
    /// Since when nobody works on it.
    pub(super) idle_since: Option<Timestamp>,
    pub(super) running: usize,
    /// It waits for helpers, or for what they find.
    pub(super) is_rescued: bool,
    pub(super) done: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// It is given to a worker, as recorded.
    Given(usize),
    Renews(Token),
    Reports(Token),
    /// As recorded, it is closed or reset.
    Ends(Token),
    /// The claim should be over by now.
    RunsOut(Token),
    /// The worker has nothing any more that the record knows of.
    Returns(Token),
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) member: Member,
    /// What it is busy with, wedged or dead from, until the record says otherwise.
    pub(super) busy: usize,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) attempts: usize,
    pub(super) in_vain: usize,
    pub(super) held_in_vain: Duration,
    pub(super) waiting: Duration,
    pub(super) until_closed: Duration,
    pub(super) closed: usize,
    pub(super) help: Waste,
    pub(super) helped: usize,
}

#[derive(Debug)]
pub(super) struct History<'a> {
    pub(super) chains: &'a [(String, Vec<Attempt>)],
    pub(super) change: Change,
    pub(super) fleet: Fleet,
    pub(super) agenda: Agenda<Event>,
    pub(super) workers: Vec<Worker>,
    pub(super) dispatcher: Member,
    pub(super) states: Vec<State>,
    pub(super) running: BTreeMap<Token, Running<'a>>,
    /// Who is busy because of which claim.
    pub(super) bound: HashMap<Token, usize>,
    pub(super) of_task: HashMap<TaskId, usize>,
    /// Items whose next attempts wait for helpers.
    pub(super) waiting: Vec<usize>,
    pub(super) records: TrackRecords,
    pub(super) tally: Tally,
}

fn config(change: Change) -> Config {
    let mut config = Config::default();
    if change < Change::ProgressDeadline {
        config.progress = Duration::MAX;
    }
    if change == Change::AsRecorded {
        config.lease = config.limits.lease;
    }
    config.attempts = config.limits.attempts;
    (config.steal_above, config.longest_wait, config.flatline) = (usize::MAX, Duration::MAX, Duration::MAX);
    config
}

/// What workers of this path are good at: what belongs to their group.
fn area(worker: &SwarmId) -> Result<Capability, Failure> {
    let group = worker.as_str().split('/').next().unwrap_or_default();
    Ok(Capability::new(format!("rig:{group}"))?)
}

pub(super) fn offers(worker: &SwarmId) -> Result<Capabilities, Failure> {
    Ok([area(worker)?].into_iter().collect())
}

impl<'a> History<'a> {
    pub(super) async fn new(attempts: &'a Attempts, change: Change) -> Result<Self, Failure> {
        let chains = attempts.chains.as_slice();
        let first = chains.iter().map(|(_, chain)| chain[0].start).min().unwrap_or(Timestamp::EPOCH);
        let fleet = Fleet::new(config(change), first)?;
        let names: BTreeSet<&SwarmId> = chains.iter().flat_map(|(_, chain)| chain).map(|one| &one.worker).collect();
        let mut workers = Vec::new();
        for name in names {
            let profile = Profile::new(name.clone()).with_capabilities(offers(name)?);
            workers.push(Worker { member: fleet.enter(profile).await?, busy: 0 });
        }
        let dispatcher = fleet.enter(Profile::new(DISPATCHER)).await?;
        let (mut agenda, mut states) = (Agenda::new(), Vec::new());
        for (nth, (_, chain)) in chains.iter().enumerate() {
            agenda.add(chain[0].start, Event::Given(nth));
            states.push(State { task: None, next: 0, idle_since: None, running: 0, is_rescued: false, done: false });
        }
        Ok(Self {
            chains,
            change,
            fleet,
            agenda,
            workers,
            dispatcher,
            states,
            running: BTreeMap::new(),
            bound: HashMap::new(),
            of_task: HashMap::new(),
            waiting: Vec::new(),
            records: TrackRecords::default(),
            tally: Tally::default(),
        })
    }

    pub(super) async fn run(&mut self, bar: &mut Bar) -> Result<(), Failure> {
        while let Some((at, event)) = self.agenda.next() {
            self.fleet.go_to(at);
            match event {
                Event::Given(chain) => self.give(chain).await?,
                Event::Renews(token) => self.renew(token).await?,
                Event::Reports(token) => self.report(token).await?,
                Event::Ends(token) => self.end(token).await?,
                Event::RunsOut(token) => self.run_out(token).await?,
                Event::Returns(token) => self.set_free(token),
            }
            if self.change > Change::AsRecorded && self.agenda.is_over(self.fleet.now()) {
                self.dispatch().await?;
            }
            bar.at(self.states.iter().filter(|state| state.done).count(), self.states.len());
        }
        Ok(())
    }

    pub(super) fn place(&self, worker: &SwarmId) -> Result<usize, Failure> {
        let place = self.workers.iter().position(|other| other.member.name == *worker);
        place.ok_or_else(|| format!("{worker} is not there").into())
    }

    /// Somebody gives the item to the worker of its next recorded attempt.
    async fn give(&mut self, chain: usize) -> Result<(), Failure> {
        let worker = self.chains[chain].1[self.states[chain].next].worker.clone();
        match self.states[chain].task {
            Some(task) => self.fleet.scheduler.assign(task, Some(&worker)).await?,
            None => {
                let task = NewTask::new(ITEM, DISPATCHER).with_assignee(worker.clone());
                let task = self.fleet.scheduler.submit(&[task]).await?[0].id;
                self.states[chain].task = Some(task);
                self.of_task.insert(task, chain);
            }
        }
        let place = self.place(&worker)?;
        if self.take(place).await? { Ok(()) } else { Err("the worker does not get what it was given".into()) }
    }

    /// The worker claims what there is for it, and an attempt begins. Answers whether there was anything.
    pub(super) async fn take(&mut self, worker: usize) -> Result<bool, Failure> {
        let Some(grant) = self.fleet.take(&mut self.workers[worker].member).await? else { return Ok(false) };
        let (now, lease) = (self.fleet.now(), grant.lease);
        let chain = *self.of_task.get(&lease.task).ok_or("a task that nobody has submitted")?;
        let is_help = self.states[chain].task != Some(lease.task);
        let state = &mut self.states[chain];
        self.tally.waiting += state.idle_since.take().map_or(Duration::ZERO, |since| now.since(since));
        let attempt = self.chains[chain].1.get(state.next).ok_or("more attempts than are recorded")?;
        (state.next, state.running) = (state.next + 1, state.running + 1);
        self.tally.attempts += 1;
        self.workers[worker].busy += 1;
        self.running.insert(lease.token, Running { chain, worker, attempt, lease, since: now, is_help });
        self.bound.insert(lease.token, worker);
        self.plan(now, attempt, lease.token);
        Ok(true)
    }

    /// What the record says of an attempt that begins now.
    fn plan(&mut self, now: Timestamp, attempt: &Attempt, token: Token) {
        self.agenda.add(now + attempt.held, Event::Ends(token));
        self.agenda.add(now + attempt.held, Event::Returns(token));
        if self.change == Change::AsRecorded {
            return;
        }
        self.agenda.add(now, Event::Renews(token));
        if self.change >= Change::ProgressDeadline && !attempt.closed {
            for at in &attempt.reports {
                self.agenda.add(now + *at, Event::Reports(token));
            }
            self.agenda.add(now + self.fleet.store.config().progress, Event::RunsOut(token));
        } else if self.change >= Change::ProgressDeadline {
            self.agenda.add(now + REPORT, Event::Reports(token));
        }
    }

    async fn renew(&mut self, token: Token) -> Result<(), Failure> {
        let Some(running) = self.running.get(&token) else { return Ok(()) };
        let alive = if running.attempt.closed { running.attempt.held } else { running.attempt.alive };
        let (now, last) = (self.fleet.now(), running.since + alive);
        if self.fleet.scheduler.renew(&[running.lease]).await?.swap_remove(0).is_err() {
            return self.come_to_nothing(token).await;
        }
        if now < last {
            self.agenda.add((now + RENEW).min(last), Event::Renews(token));
        } else {
            self.agenda.add(now + self.fleet.store.config().lease, Event::RunsOut(token));
        }
        Ok(())
    }

    async fn report(&mut self, token: Token) -> Result<(), Failure> {
        let Some(running) = self.running.get(&token) else { return Ok(()) };
        let (now, closed) = (self.fleet.now(), running.attempt.closed);
        if self.fleet.scheduler.progress(&running.lease).await.is_err() {
            return self.come_to_nothing(token).await;
        }
        let (after, event) = match closed {
            true => (REPORT, Event::Reports(token)),
            false => (self.fleet.store.config().progress, Event::RunsOut(token)),
        };
        self.agenda.add(now + after, event);
        Ok(())
    }

    /// Nothing was heard for so long that the claim may be over. The scheduler knows.
    pub(super) async fn run_out(&mut self, token: Token) -> Result<(), Failure> {
        let Some(running) = self.running.get(&token) else { return Ok(()) };
        let status = self.fleet.scheduler.task(running.lease.task).await?;
        let has_it = status.session.as_ref() == Some(&self.workers[running.worker].member.name)
            && status.state == TaskState::Claimed;
        if has_it { Ok(()) } else { self.come_to_nothing(token).await }
    }
}
