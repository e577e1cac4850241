//! A session: it claims tasks, one after the other or several at once, and does them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use s2_coordinator::{
    Capabilities, Error as CoordinatorError, Held, Invalid, Profile, Session as Claimant, SwarmId, TaskId,
};
use s2_governor::BudgetLedgerExt;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::context::Context;
use crate::context::Work;
use crate::error::Error;
use crate::help::HELP;
use crate::help::HelpRequest;
use crate::job::Job;
use crate::places::Place;
use crate::places::Places;
use crate::rescue;
use crate::s2::Recruit;
use crate::s2::S2;
use crate::s2::Stop;
use crate::task_error::TaskError;

/// How long a session waits before it tries again what the store could not do.
const PAUSE: Duration = Duration::from_secs(1);

/// How many tasks a session has at once at most.
const MOST_AT_ONCE: usize = 1_000_000;

/// The swarm of S²'s own sessions.
const OWN: SwarmId = SwarmId::from_static("s2");

/// How often a halted session looks whether it may go on.
const HALTED: Duration = Duration::from_secs(5);

/// A session that is to enter the fleet. What is wrong with what was said comes up when it does.
#[derive(Debug)]
#[must_use = "a session does nothing until it runs or joins"]
pub struct SessionBuilder {
    s2: S2,
    name: Result<SwarmId, Invalid>,
    offers: Vec<String>,
    concurrency: usize,
}

impl SessionBuilder {
    pub(crate) fn new(s2: S2, name: Result<SwarmId, Invalid>) -> Self {
        Self { s2, name, offers: Vec::new(), concurrency: 1 }
    }

    /// Adds what it can do, as paths such as `integration:sip`.
    pub fn skills<P: AsRef<str>>(mut self, skills: impl IntoIterator<Item = P>) -> Self {
        self.offers.extend(skills.into_iter().map(|skill| skill.as_ref().to_owned()));
        self
    }

    /// Adds the tools that it masters: `rust` is the capability `tool:rust`.
    pub fn tools<P: AsRef<str>>(mut self, tools: impl IntoIterator<Item = P>) -> Self {
        self.offers.extend(tools.into_iter().map(|tool| format!("tool:{}", tool.as_ref())));
        self
    }

    /// Sets how many tasks it has at once: 1 unless set. Tasks that are blocked do not count.
    pub fn concurrency(mut self, tasks: usize) -> Self {
        self.concurrency = tasks;
        self
    }

    /// Enters the fleet, for a host with a loop of its own: it asks for [`Session::next`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name or a capability; [`Error::ShuttingDown`]; `S2_NO_RUNTIME`; as
    /// [`Scheduler::enter`](s2_coordinator::Scheduler::enter).
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn join(self) -> Result<Session, Error> {
        let Self { s2, name, offers, concurrency } = self;
        if s2.is_stopping() {
            return Err(Error::ShuttingDown);
        }
        tokio::runtime::Handle::try_current().map_err(|_| CoordinatorError::NoRuntime)?;
        if !(1..=MOST_AT_ONCE).contains(&concurrency) {
            let range = format!("must be from 1 to {MOST_AT_ONCE}");
            return Err(Invalid::new("concurrency", &concurrency.to_string(), range).into());
        }
        let name = name?;
        if OWN.contains(&name) {
            return Err(Invalid::new("session", name.as_str(), "names below s2 are of S² itself").into());
        }
        let profile = Profile::new(name).with_capabilities(Capabilities::new(&offers)?);
        let claimant = Claimant::enter(Arc::clone(s2.scheduler()), &profile).await?;
        rescue::begin(&s2);
        let (places, left, claimant) = (Places::new(concurrency), watch::Sender::default(), Mutex::new(claimant));
        let member = Arc::new(Member { s2, profile, claimant, places, left, jobs: Mutex::default() });
        let recruit: Arc<dyn Recruit> = Arc::<Member>::clone(&member);
        member.s2.recruits().insert(member.profile.session.clone(), Arc::downgrade(&recruit));
        Ok(Session { member })
    }

    /// Enters the fleet, and handles tasks in the background until the process leaves, the session does, or a newer one of its
    /// name takes its place.
    ///
    /// A handler is dropped when its claim is lost; a panic fails the attempt. While an account on the way up is halted, nothing is
    /// claimed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use s2_coordinator::{NewTask, Scheduler, SchedulerExt, SwarmId, TaskKind};
    /// use s2_core::{Context, S2};
    ///
    /// let s2 = S2::in_memory();
    /// let ndi = s2.session("telephony/ndi").skills(["integration:sip"]).tools(["rust"]).concurrency(2);
    /// ndi.run(async |cx: Context| Ok(cx.task().json::<String>()?.len())).await?;
    ///
    /// let task = NewTask::new(TaskKind::new("measure")?, SwarmId::new("host")?).with_json("src/invite.rs")?;
    /// let id = s2.scheduler().submit_one(&task).await?.id;
    /// assert_eq!(s2.scheduler().wait(id).await?.result().expect("done").json::<usize>()?, 13);
    /// s2.shutdown(std::time::Duration::from_secs(1)).await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`SessionBuilder::join`].
    ///
    /// # Cancel safety
    ///
    /// As [`SessionBuilder::join`].
    pub async fn run<T, F, H>(self, handler: H) -> Result<Session, Error>
    where
        T: Serialize + Send + 'static,
        F: Future<Output = Result<T, TaskError>> + Send + 'static,
        H: Fn(Context) -> F + Send + Sync + 'static,
    {
        let s2 = self.s2.clone();
        let session = self.join().await?;
        s2.spawn(serve(Arc::clone(&session.member), handler));
        Ok(session)
    }
}

/// A session of this process. Clones are the same one. It is in the fleet until it leaves, or the process does; one that was joined and
/// not run leaves when the last clone, and the last job that it has, is dropped.
#[derive(Clone, Debug)]
pub struct Session {
    member: Arc<Member>,
}

struct Member {
    s2: S2,
    profile: Profile,
    /// It enters anew when it was taken for lost.
    claimant: Mutex<Claimant>,
    places: Arc<Places>,
    /// Whether it has left.
    left: watch::Sender<bool>,
    /// What it has in hand, the newest last, and how to tell it to give way.
    jobs: Mutex<Vec<(Weak<Work>, Arc<Notify>)>>,
}

impl Session {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &SwarmId {
        &self.member.profile.session
    }

    /// Waits for the next task: until there is a place for it, no account on the way up is halted, and there is something to
    /// do. `None` when the session has left, or the process does.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::claim`](s2_coordinator::Scheduler::claim).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it is ready, it has claimed nothing.
    pub async fn next(&self) -> Result<Option<Job>, Error> {
        tokio::select! {
            biased;
            () = self.member.s2.stopped(Stop::Drain) => Ok(None),
            job = self.member.next() => job,
        }
    }

    /// Leaves the fleet. What it has in hand may be ended all the same.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::leave`](s2_coordinator::Scheduler::leave).
    ///
    /// # Cancel safety
    ///
    /// Repeating it completes it.
    pub async fn leave(&self) -> Result<(), Error> {
        self.member.left.send_replace(true);
        Ok(self.member.claimant().leave().await?)
    }
}

impl Member {
    async fn next(&self) -> Result<Option<Job>, Error> {
        loop {
            let place = tokio::select! {
                biased;
                () = self.left() => return Ok(None),
                place = self.free_place() => place?,
            };
            let asked = self.s2.clock().now();
            let claimed = tokio::select! {
                biased;
                // A task that was blocked goes on in this place; what was claimed meanwhile is handed back.
                () = self.places.overbooked() => continue,
                claimed = self.claim() => claimed?,
            };
            let Some(held) = claimed else { return Ok(None) };
            if self.is_for_somebody_else(&held) {
                // Whoever was asked is gone, or slow: whom to ask instead is for the organiser to say.
                held.give_up("somebody else was asked").await.map_err(CoordinatorError::from)?;
                continue;
            }
            // Much may have been spent while it waited.
            if self.s2.clock().now().since(asked) < PAUSE || !self.is_halted().await? {
                return Ok(Some(self.job(held, place)));
            }
            held.refuse("the account of the session is halted", None).await.map_err(CoordinatorError::from)?;
        }
    }

    /// Whether somebody's help is asked for, and not this session's.
    fn is_for_somebody_else(&self, held: &Held) -> bool {
        held.task.kind == HELP
            && held.task.json::<HelpRequest>().is_ok_and(|request| request.helper != self.profile.session)
    }

    fn claimant(&self) -> Claimant {
        self.claimant.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Claims; if the fleet has taken the session for lost, since nothing was heard of this process for too long, it enters anew.
    async fn claim(&self) -> Result<Option<Held>, Error> {
        loop {
            let claimant = self.claimant();
            match claimant.claim().await {
                Err(CoordinatorError::StaleSession { current: None, .. }) if !*self.left.borrow() => {
                    tracing::warn!(session = %self.profile.session, "it was taken for lost, and enters anew");
                    let claimant = Claimant::enter(Arc::clone(self.s2.scheduler()), &self.profile).await?;
                    *self.claimant.lock().unwrap_or_else(PoisonError::into_inner) = claimant;
                }
                claimed => return Ok(claimed?),
            }
        }
    }

    async fn left(&self) {
        // The sender lives as long as this.
        drop(self.left.subscribe().wait_for(|left| *left).await);
    }

    /// Waits until there is a place, and no account on the way up is halted.
    async fn free_place(&self) -> Result<Place, Error> {
        let place = self.places.take().await;
        self.not_halted().await?;
        Ok(place)
    }

    async fn is_halted(&self) -> Result<bool, Error> {
        Ok(self.s2.ledger().halted(&self.profile.session).await?.is_some())
    }

    async fn not_halted(&self) -> Result<(), Error> {
        while self.is_halted().await? {
            let clock = self.s2.clock();
            clock.sleep_until(clock.now() + HALTED).await;
        }
        Ok(())
    }

    fn job(&self, held: Held, place: Place) -> Job {
        let work = Arc::new(Work::new(self.s2.clone(), self.profile.session.clone(), held, place, &self.places));
        let give_way = Arc::new(Notify::new());
        let mut jobs = self.jobs();
        jobs.retain(|(work, _)| work.strong_count() > 0);
        jobs.push((Arc::downgrade(&work), Arc::clone(&give_way)));
        Job::new(Context { work }, give_way)
    }

    fn jobs(&self) -> MutexGuard<'_, Vec<(Weak<Work>, Arc<Notify>)>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recruit for Member {
    fn call_off(&self, help: TaskId) {
        let mut jobs = self.jobs();
        jobs.retain(|(work, _)| work.upgrade().is_some_and(|work| work.has_place()));
        let task = |(work, _): &(Weak<Work>, _)| work.upgrade().map(|work| Arc::clone(&work.grant.task));
        // Whoever waits for a task has a place, too, and takes the help there.
        if jobs.len() < self.places.most() || jobs.iter().filter_map(task).any(|task| task.id == help) {
            return;
        }
        let newest = jobs.iter().rev().find(|job| task(job).is_some_and(|task| task.kind != HELP));
        newest.into_iter().for_each(|(_, give_way)| give_way.notify_one());
    }

    fn claimant(&self) -> Claimant {
        Self::claimant(self)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("claimant", &self.claimant).finish_non_exhaustive()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut recruits = self.s2.recruits();
        // A newer one of its name may have taken its place.
        if recruits.get(&self.profile.session).is_some_and(|known| known.strong_count() == 0) {
            recruits.remove(&self.profile.session);
        }
    }
}

/// Handles tasks until the process leaves.
async fn serve<T, F, H>(member: Arc<Member>, handler: H)
where
    T: Serialize + Send + 'static,
    F: Future<Output = Result<T, TaskError>> + Send + 'static,
    H: Fn(Context) -> F + Send + Sync + 'static,
{
    let (session, handler) = (Session { member }, Arc::new(handler));
    let mut jobs = JoinSet::new();
    loop {
        match session.next().await {
            Ok(Some(job)) => {
                while jobs.try_join_next().is_some() {}
                let (handler, cx) = (Arc::clone(&handler), Context::clone(&job));
                // What it does before there is a future may panic, too.
                jobs.spawn(job.run(async move { handler(cx).await }));
            }
            Ok(None) => break,
            Err(Error::Coordinator(error @ (CoordinatorError::StaleSession { .. } | CoordinatorError::Closed))) => {
                tracing::warn!(session = %session.name(), %error, "the session ends");
                break;
            }
            Err(error) => {
                tracing::warn!(session = %session.name(), %error, "no task could be claimed; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    while jobs.join_next().await.is_some() {}
    if let Err(error) = session.leave().await {
        tracing::warn!(session = %session.name(), %error, "the session could not leave; it will be missed");
    }
}

#[cfg(test)]
mod tests {
    use s2_coordinator::{NewTask, Outcome, SchedulerExt, TaskKind};

    use super::*;

    #[tokio::test]
    async fn nobody_helps_who_was_not_asked() {
        let s2 = S2::in_memory();
        let requires = Capabilities::new(["integration:sip"]).unwrap();
        let sip = s2.session("telephony/sip").skills(["integration:sip"]).join().await.unwrap();
        let request = HelpRequest {
            blocked: TaskId::new(1),
            by: sip.name().clone(),
            kind: TaskKind::from_static("integrate"),
            subject: None,
            reason: "488".into(),
            requires: requires.clone(),
            helper: SwarmId::from_static("telephony/ndi"),
            because: "it fits".into(),
            details: None,
        };
        // Whoever was asked is gone, so it is offered to everybody who fits.
        let help = NewTask::new(HELP, sip.name().clone()).with_json(&request).unwrap().with_requires(requires);
        let help = s2.scheduler().submit_one(&help.with_attempts(1)).await.unwrap().id;
        let other = NewTask::new(TaskKind::from_static("other"), sip.name().clone());
        let other = s2.scheduler().submit_one(&other).await.unwrap().id;
        assert_eq!(sip.next().await.unwrap().unwrap().task().id, other);
        let outcome = s2.scheduler().outcome(help).await.unwrap();
        assert!(matches!(outcome, Some(Outcome::Failed { .. })), "{outcome:?}");
    }
}
