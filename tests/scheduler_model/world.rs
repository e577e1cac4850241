//! What a history brings about, in a fleet and in the model.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::conformance::Fleet;
use s2_coordinator::{
    Blocker, Capabilities, Claim, Completion, Config, Dependency, Ended, Ending, Error, Incarnation, Lease, Needs,
    NewTask, Position, Priority, Profile, Retry, Scheduler, SchedulerExt, SwarmId, TaskId, TaskKind, Tasks,
};
use s2_tests::redis::RedisFleet;
use s2_tests::servers::RedisServer;
use s2_tests::{MemoryFleet, START};

use crate::SECOND;
use crate::model::{self, ABOVE, At, LEASE, LONGEST_WAIT, Model, Name, Nth, PROGRESS, Set, WINDOW};
use crate::step::{How, New, Step};

const KIND: TaskKind = TaskKind::from_static("model");
const HOST: SwarmId = SwarmId::from_static("host");

/// Everything that a history has brought about.
pub(super) struct World {
    fleet: Box<dyn Fleet>,
    /// The server, if there is one.
    server: Option<Arc<RedisServer>>,
    scheduler: Arc<dyn Scheduler>,
    pub(super) model: Model,
    tasks: Vec<TaskId>,
    /// Sessions by name and number of the model.
    sessions: Vec<(Name, u64, Incarnation)>,
    /// Claims: the task, and the number of the model.
    leases: Vec<(Nth, usize, Lease)>,
    claims: Vec<Claim>,
    requests: u64,
}

fn pick<T: Clone>(from: &[T], nth: usize) -> Option<T> {
    if from.is_empty() { None } else { Some(from[nth % from.len()].clone()) }
}

/// Mostly one of the latest, so that something comes of it.
fn latest<T: Clone>(from: &[T], nth: usize) -> Option<T> {
    let few = if nth.is_multiple_of(4) { from.len() } else { from.len().min(4) };
    pick(&from[from.len() - few..], nth)
}

fn name(name: Name) -> SwarmId {
    SwarmId::new(format!("session-{name}")).expect("a name")
}

fn capabilities(set: Set) -> Capabilities {
    let members = [(1, "a"), (2, "b")].into_iter().filter(|(bit, _)| set & bit != 0).map(|(_, member)| member);
    Capabilities::new(members).expect("capabilities")
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

impl World {
    fn new(fleet: Box<dyn Fleet>, server: Option<Arc<RedisServer>>) -> Self {
        let scheduler = fleet.scheduler().expect("a scheduler");
        let model = Model { now: START.as_micros(), ..Model::default() };
        let (tasks, sessions, leases, claims) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { fleet, server, scheduler, model, tasks, sessions, leases, claims, requests: 0 }
    }

    pub(super) fn in_memory() -> Self {
        Self::new(Box::new(MemoryFleet::new(config())), None)
    }

    pub(super) async fn on_redis(server: Arc<RedisServer>) -> Self {
        Self::new(Box::new(RedisFleet::new(&server, config()).await), Some(server))
    }

    /// What the journal says of tasks and sessions. Numbers that the fleet gives go by the order in which they turn up.
    pub(super) async fn journal(&self) -> String {
        let journal = self.fleet.journal().expect("a journal");
        let (mut text, mut after, mut numbers) = (String::new(), Position::ORIGIN, Vec::new());
        loop {
            let page = journal.entries(after, 500).await.expect("entries");
            if page.items.is_empty() {
                return text;
            }
            for entry in page.items {
                let json = entry.to_json();
                let said = json.split_once(r#","time""#).map_or(&*json, |(_, said)| said);
                for word in said.split_inclusive(|byte: char| !byte.is_ascii_digit()) {
                    let digits = word.trim_end_matches(|byte: char| !byte.is_ascii_digit());
                    if digits.len() < 16 {
                        text.push_str(word);
                        continue;
                    }
                    let nth = numbers.iter().position(|other| other == digits).unwrap_or_else(|| {
                        numbers.push(digits.to_owned());
                        numbers.len() - 1
                    });
                    write!(text, "#{nth}{}", &word[digits.len()..]).expect("text");
                }
                text.push('\n');
            }
            after = page.next;
        }
    }

    fn task(&self, new: &New) -> (NewTask, model::Task) {
        let task = NewTask::new(KIND, HOST)
            .with_priority(Priority::ALL[new.level])
            .with_requires(capabilities(new.requires))
            .with_attempts(new.attempts);
        let now = self.model.now;
        let model = model::Task {
            level: new.level as u64,
            requires: new.requires,
            after: Vec::new(),
            start: now,
            deadline: None,
            attempts: new.attempts,
            at: At::Waiting,
            since: now,
            failures: 0,
            assignee: None,
            waits: Vec::new(),
            redriven: false,
            was_claimed: false,
            blocked_by: None,
            wait: None,
            released: None,
        };
        (task, model)
    }

    async fn submit(&mut self, task: NewTask, model: model::Task) {
        let id = self.scheduler.submit_one(&task).await.expect("submitted").id;
        self.tasks.push(id);
        self.model.submit(model);
        self.model.settle();
    }

    fn nth(&self, id: TaskId) -> Nth {
        self.tasks.iter().position(|other| *other == id).expect("a task of this history")
    }

    /// What was granted is what the model grants.
    fn granted(&mut self, granted: Vec<s2_coordinator::Grant>, expected: Vec<(Nth, usize)>) {
        let seen: Vec<Nth> = granted.iter().map(|grant| self.nth(grant.task.id)).collect();
        assert_eq!(seen, expected.iter().map(|(nth, _)| *nth).collect::<Vec<_>>());
        for (grant, (nth, lease)) in granted.into_iter().zip(expected) {
            assert_eq!(grant.attempt, self.model.tasks[nth].failures + 1);
            let latest = self.model.tasks[nth].released.as_ref().and_then(|released| released.latest.clone());
            let preempted = grant.preempted.as_ref().map(|preempted| {
                (
                    preempted.cycle.iter().map(|id| self.nth(*id)).collect::<Vec<_>>(),
                    preempted.waited.as_micros() as u64,
                )
            });
            assert_eq!(preempted, latest);
            self.leases.push((nth, lease, grant.lease));
        }
    }

    fn claim(&mut self, incarnation: &Incarnation, max: usize) -> Claim {
        self.requests += 1;
        Claim { by: incarnation.clone(), request: self.requests, max }
    }

    /// Ends a claim, and answers whether it counted.
    async fn end(&mut self, (nth, number, lease): (Nth, usize, Lease), ending: Ending) -> Option<Ended> {
        let holds = self.model.holds(nth, number);
        let ended = self.scheduler.end(vec![(lease, ending)], None).await.expect("no error").ended.remove(0);
        match ended {
            Ok(ended) if holds => return Some(ended),
            // It was ended by its holder before: the same answer, or word that it was.
            Ok(_) | Err(Error::AlreadyEnded { .. } | Error::StaleLease { .. }) if !holds => {}
            other => panic!("holds: {holds}, {other:?}"),
        }
        None
    }

    pub(super) async fn run(&mut self, step: Step) {
        match step {
            Step::Submit(new) => {
                let (task, model) = self.task(&new);
                self.submit(task, model).await;
            }
            Step::SubmitAfter(new, on) => {
                let (mut task, mut model) = self.task(&new);
                for (on, on_failure) in on {
                    let Some(id) = latest(&self.tasks, on) else { continue };
                    let nth = self.nth(id);
                    if model.after.iter().all(|(other, _)| *other != nth) {
                        task = task.after(Dependency::on(id).with_on_failure(on_failure));
                        model.after.push((nth, on_failure));
                    }
                }
                self.submit(task, model).await;
            }
            Step::SubmitLater(new, delay) => {
                let (task, mut model) = self.task(&new);
                (model.start, model.since) = (self.model.now + delay, self.model.now + delay);
                self.submit(task.with_start(micros(delay)), model).await;
            }
            Step::SubmitDue(new, due) => {
                let (task, mut model) = self.task(&new);
                model.deadline = Some(self.model.now + due);
                self.submit(task.with_deadline(micros(due)), model).await;
            }
            Step::SubmitOnce(new) => {
                let (task, model) = self.task(&new);
                let key = format!("key-{}", self.tasks.len()).parse().expect("a key");
                let task = task.with_key(key);
                self.submit(task.clone(), model).await;
                let again = self.scheduler.submit_one(&task).await.expect("submitted");
                assert_eq!((Some(&again.id), again.duplicate), (self.tasks.last(), true));
            }
            Step::SubmitAssigned(new, to) => {
                let (task, mut model) = self.task(&new);
                let task = task.with_assignee(name(to));
                let able = self.model.sessions.get(&to).is_none_or(|session| new.requires & !session.offers == 0);
                model.assignee = Some(to);
                if able {
                    self.submit(task, model).await;
                } else {
                    assert!(matches!(self.scheduler.submit_one(&task).await, Err(Error::Invalid(_))));
                }
            }
            Step::Enter { name: nth, offers } => {
                let profile = Profile::new(name(nth)).with_capabilities(capabilities(offers));
                let incarnation = self.scheduler.enter(&profile).await.expect("entered");
                let number = self.model.enter(nth, offers);
                self.sessions.push((nth, number, incarnation));
            }
            Step::Leave { session } => {
                let Some((nth, number, incarnation)) = latest(&self.sessions, session) else { return };
                let left = self.scheduler.leave(&incarnation).await.expect("left");
                assert_eq!(left, self.model.leave(nth, number));
            }
            Step::Claim { session, max } => {
                let Some((nth, number, incarnation)) = latest(&self.sessions, session) else { return };
                let claim = self.claim(&incarnation, max);
                let granted = self.scheduler.take(&claim).await;
                if self.model.sessions.get(&nth).is_none_or(|session| session.number != number) {
                    assert!(matches!(granted, Err(Error::StaleSession { .. })), "{granted:?}");
                    return;
                }
                let expected = self.model.claim(nth, number, max);
                if !expected.is_empty() {
                    self.claims.push(claim);
                }
                self.granted(granted.expect("granted"), expected);
            }
            Step::ClaimAgain { claim } => {
                let Some(claim) = latest(&self.claims, claim) else { return };
                // Those that are still held, and no others.
                if let Ok(granted) = self.scheduler.take(&claim).await {
                    for grant in granted {
                        let known =
                            self.leases.iter().find(|(_, _, lease)| *lease == grant.lease).expect("an old lease");
                        assert!(self.model.holds(known.0, known.1));
                    }
                }
            }
            Step::Complete { lease } => {
                let Some(held) = latest(&self.leases, lease) else { return };
                if self.end(held, Ending::Complete(Completion::new())).await.is_some() {
                    self.model.complete(held.0);
                }
            }
            Step::CompleteAndClaim { lease, session } => {
                let Some(held) = latest(&self.leases, lease) else { return };
                let Some((nth, number, incarnation)) = latest(&self.sessions, session) else { return };
                let claim = self.claim(&incarnation, 1);
                let ending = vec![(held.2, Ending::Complete(Completion::new()))];
                let all = self.scheduler.end(ending, Some(&claim)).await;
                if self.model.sessions.get(&nth).is_none_or(|session| session.number != number) {
                    assert!(matches!(all, Err(Error::StaleSession { .. })), "{all:?}");
                    return;
                }
                let all = all.expect("no error");
                if self.model.holds(held.0, held.1) {
                    assert!(all.ended[0].is_ok());
                    self.model.complete(held.0);
                }
                let expected = self.model.claim(nth, number, 1);
                self.granted(all.granted, expected);
            }
            Step::CompleteWith { lease, new } => {
                let Some(held) = latest(&self.leases, lease) else { return };
                let (task, model) = self.task(&new);
                let ending = Ending::Complete(Completion::new().with_task(task));
                let Some(Ended::Completed { tasks, .. }) = self.end(held, ending).await else { return };
                self.tasks.push(tasks[0].id);
                self.model.submit(model);
                self.model.complete(held.0);
            }
            Step::Fail { lease, delay } => self.fail(lease, Retry::After(micros(delay)), Some(delay)).await,
            Step::FailAtOnce { lease } => self.fail(lease, Retry::After(Duration::ZERO), Some(0)).await,
            Step::GiveUp { lease } => self.fail(lease, Retry::Never, None).await,
            Step::Release { lease } => {
                let Some(held) = latest(&self.leases, lease) else { return };
                if self.end(held, Ending::Release).await.is_some() {
                    self.model.release(held.0);
                }
            }
            Step::Refuse { lease, delay } => {
                let Some(held) = latest(&self.leases, lease) else { return };
                let ending = Ending::Refuse { reason: "not now".into(), delay: Some(micros(delay)) };
                if self.end(held, ending).await.is_some() {
                    self.model.refuse(held.0, delay);
                }
            }
            Step::Block { lease, new, how } => self.block(lease, &[], Some(new), how).await,
            Step::BlockOn { lease, on, how } => self.block(lease, &[on], None, how).await,
            Step::BlockOnSome { lease, on, new, how } => self.block(lease, &on, new, how).await,
            Step::BlockOnNothing { lease, how } => self.block(lease, &[], None, how).await,
            Step::Progress { lease } => {
                let Some((nth, number, lease)) = latest(&self.leases, lease) else { return };
                let answer = self.scheduler.progress(&lease).await;
                assert_eq!(answer.is_ok(), self.model.holds(nth, number), "{answer:?}");
                if answer.is_ok() {
                    self.model.renew(nth, true);
                }
            }
            Step::Renew { lease } => {
                let Some(held) = latest(&self.leases, lease) else { return };
                self.renew(&[held]).await;
            }
            Step::RenewAll => {
                let all = self.leases.clone();
                self.renew(&all).await;
            }
            Step::Abandon { lease } => {
                let Some((nth, number, lease)) = latest(&self.leases, lease) else { return };
                self.scheduler.abandon(&lease);
                self.model.abandon(nth, number);
                // On Redis it is on its way: what is sent after it is answered after it.
                tokio::task::yield_now().await;
                self.scheduler.stats().await.expect("stats");
            }
            Step::Resume { lease, session } => {
                let Some((task, number, lease)) = latest(&self.leases, lease) else { return };
                let Some((nth, of, incarnation)) = latest(&self.sessions, session) else { return };
                let stale = self.model.sessions.get(&nth).is_none_or(|session| session.number != of);
                let waits = matches!(self.model.tasks[task].at, At::Blocked { number: by, lease: held, .. } if by == of && held == number);
                if waits && !stale {
                    return; // It would wait.
                }
                let expected = if stale { None } else { self.model.resume(nth, of, task, number) };
                match (self.scheduler.resume(&incarnation, &lease).await, expected) {
                    (Ok(grant), Some(expected)) => self.granted(vec![grant], vec![expected]),
                    // It was resumed before: the same answer.
                    (Ok(grant), None) => {
                        let known =
                            self.leases.iter().find(|(_, _, lease)| *lease == grant.lease).expect("an old lease");
                        assert!(self.model.holds(known.0, known.1));
                    }
                    (Err(Error::StaleLease { .. } | Error::StaleSession { .. }), None) => {}
                    other => panic!("{other:?}"),
                }
            }
            Step::Unblock { task } => {
                let Some(id) = pick(&self.tasks, task) else { return };
                let nth = self.nth(id);
                assert_eq!(self.scheduler.unblock(id).await.expect("a task"), self.model.unblock(nth));
            }
            Step::Cancel { task } => {
                let Some(id) = latest(&self.tasks, task) else { return };
                let nth = self.nth(id);
                let cancelled = self.scheduler.cancel(id, "not needed".into()).await.expect("a task");
                assert_eq!(cancelled, self.model.cancel(nth));
            }
            Step::Assign { task, to } => self.assign(task, Some(to)).await,
            Step::Unassign { task } => self.assign(task, None).await,
            Step::Redrive { task } => {
                let Some(id) = pick(&self.tasks, task) else { return };
                let nth = self.nth(id);
                let redriven = self.scheduler.redrive(&[id]).await;
                match (redriven, self.model.redrive(nth)) {
                    (Ok(answers), Some(anew)) => assert_eq!(answers[0].duplicate, !anew),
                    (Err(Error::WrongState { .. } | Error::DependencyCycle { .. }), None) => {}
                    other => panic!("{other:?}"),
                }
            }
            Step::Advance { micros } => self.advance(micros).await,
            Step::AdvanceToLeaseEnd => {
                let ends = self.model.tasks.iter().filter_map(|task| match task.at {
                    At::Claimed { deadline, .. } => Some(deadline),
                    _ => None,
                });
                let Some(end) = ends.min() else { return };
                self.advance(end - self.model.now).await;
            }
            Step::AdvanceLong { seconds } => self.advance(seconds * SECOND).await,
            Step::Forget => {
                if let Some(server) = &self.server {
                    assert_eq!(server.command(&["FUNCTION", "FLUSH"]), "OK");
                }
            }
            Step::EndAgain { lease } => {
                let Some(held) = pick(&self.leases, lease) else { return };
                if !self.model.holds(held.0, held.1) {
                    self.end(held, Ending::Complete(Completion::new())).await;
                }
            }
        }
    }

    async fn block(&mut self, lease: usize, on: &[usize], new: Option<New>, how: How) {
        let Some(held) = latest(&self.leases, lease) else { return };
        let mut blocker = Blocker::new(format!("reason {}", how.reason));
        (blocker.awaited, blocker.needs) = (how.awaited, if how.any { Needs::Any } else { Needs::All });
        blocker.on = on.iter().filter_map(|on| latest(&self.tasks, *on)).collect();
        let mut on: Vec<Nth> = blocker.on.iter().map(|id| self.nth(*id)).collect();
        let reason = (how.reason, on.is_empty());
        let help = new.map(|new| self.task(&new));
        if let Some((task, _)) = &help {
            blocker = blocker.with_help(task.clone());
        }
        if self.model.holds(held.0, held.1) && on.contains(&held.0) {
            let all = self.scheduler.end(vec![(held.2, Ending::Block(blocker))], None).await.expect("no error");
            assert!(matches!(all.ended[0], Err(Error::DependencyCycle { .. })), "{all:?}");
            return;
        }
        let Some(Ended::Blocked { help: submitted }) = self.end(held, Ending::Block(blocker)).await else { return };
        if let Some((_, model)) = help {
            self.tasks.push(submitted[0].id);
            on.push(self.model.submit(model));
        }
        self.model.block(held.0, &on, how.awaited, how.any, reason);
    }

    async fn fail(&mut self, lease: usize, retry: Retry, delay: Option<u64>) {
        let Some(held) = latest(&self.leases, lease) else { return };
        let ending = Ending::Fail { reason: "flaky".into(), retry };
        if let Some(ended) = self.end(held, ending).await {
            self.model.fail(held.0, delay);
            assert_eq!(ended == Ended::Failed, self.model.tasks[held.0].at == At::Failed);
        }
    }

    async fn renew(&mut self, held: &[(Nth, usize, Lease)]) {
        for chunk in held.chunks(500) {
            let leases: Vec<Lease> = chunk.iter().map(|(_, _, lease)| *lease).collect();
            let answers = self.scheduler.renew(&leases).await.expect("no error");
            for ((nth, number, _), answer) in chunk.iter().zip(answers) {
                assert_eq!(answer.is_ok(), self.model.holds(*nth, *number), "{answer:?}");
                if answer.is_ok() {
                    self.model.renew(*nth, false);
                }
            }
        }
    }

    async fn assign(&mut self, task: usize, to: Option<Name>) {
        let Some(id) = latest(&self.tasks, task) else { return };
        let nth = self.nth(id);
        let assigned = self.scheduler.assign(id, to.map(name).as_ref()).await;
        let refused = matches!(assigned, Err(Error::WrongState { .. } | Error::NotEligible { .. }));
        assert_eq!(assigned.is_ok(), self.model.assign(nth, to), "{assigned:?}");
        assert!(assigned.is_ok() || refused);
    }

    async fn advance(&mut self, by: u64) {
        self.fleet.advance(micros(by)).await;
        self.model.advance(by);
        // What time has brought about is done by the next step, whoever makes it.
        self.scheduler.stats().await.expect("stats");
    }

    /// Every task is where the model has it.
    pub(super) async fn check(&self, step: &Step) {
        let mut counts = [0; s2_coordinator::TaskState::ALL.len()];
        let all = self.scheduler.list(&Tasks::all()).await.expect("tasks");
        assert_eq!(all.items.iter().map(|status| status.task.id).collect::<Vec<_>>(), self.tasks);
        for (status, task) in all.items.into_iter().zip(&self.model.tasks) {
            let expected = (task.state(), task.failures, task.session().map(name));
            assert_eq!((status.state, status.failures, status.session), expected, "after {step:?}: {task:?}");
            counts[task.state() as usize] += 1;
        }
        let stats = self.scheduler.stats().await.expect("stats");
        assert_eq!((stats.tasks, stats.sessions), (counts, self.model.sessions.len() as u64));
        for info in self.scheduler.sessions(None, 500).await.expect("sessions") {
            let is_its = |of: Name| name(of) == info.incarnation.session;
            let blocked = |task: &&model::Task| matches!(task.at, At::Blocked { name, .. } if is_its(name));
            let blocked = self.model.tasks.iter().filter(blocked).count();
            assert_eq!(info.blocked, blocked, "after {step:?}");
        }
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.steal_above = ABOVE;
    config.lease = micros(LEASE);
    config.resume_window = micros(WINDOW);
    config.progress = micros(PROGRESS);
    config.longest_wait = micros(LONGEST_WAIT);
    // Nothing is forgotten within a history.
    config.finished.age = None;
    config
}
