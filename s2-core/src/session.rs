//! A session: it claims tasks, one after the other or several at once, and does them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use s2_coordinator::{Error as CoordinatorError, Held, Profile, Session as Claimant, SwarmId, TaskId};
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

/// How often a halted session looks whether it may go on.
const HALTED: Duration = Duration::from_secs(5);

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
    pub(crate) async fn enter(s2: S2, profile: Profile, concurrency: usize) -> Result<Self, Error> {
        let claimant = Claimant::enter(Arc::clone(s2.scheduler()), &profile).await?;
        rescue::begin(&s2);
        let (places, left, claimant) = (Places::new(concurrency), watch::Sender::default(), Mutex::new(claimant));
        let member = Arc::new(Member { s2, profile, claimant, places, left, jobs: Mutex::default() });
        let recruit: Arc<dyn Recruit> = Arc::<Member>::clone(&member);
        member.s2.recruits().insert(member.profile.session.clone(), Arc::downgrade(&recruit));
        Ok(Self { member })
    }

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

    /// Handles tasks until the process leaves.
    pub(crate) async fn serve<T, F, H>(self, handler: H)
    where
        T: Serialize + Send + 'static,
        F: Future<Output = Result<T, TaskError>> + Send + 'static,
        H: Fn(Context) -> F + Send + Sync + 'static,
    {
        let handler = Arc::new(handler);
        let mut jobs = JoinSet::new();
        loop {
            match self.next().await {
                Ok(Some(job)) => {
                    while jobs.try_join_next().is_some() {}
                    let (handler, cx) = (Arc::clone(&handler), Context::clone(&job));
                    // What it does before there is a future may panic, too.
                    jobs.spawn(job.run(async move { handler(cx).await }));
                }
                Ok(None) => break,
                Err(Error::Coordinator(error @ (CoordinatorError::StaleSession { .. } | CoordinatorError::Closed))) => {
                    tracing::warn!(session = %self.name(), %error, "the session ends");
                    break;
                }
                Err(error) => {
                    tracing::warn!(session = %self.name(), %error, "no task could be claimed; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        while jobs.join_next().await.is_some() {}
        if let Err(error) = self.leave().await {
            tracing::warn!(session = %self.name(), %error, "the session could not leave; it will be missed");
        }
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
            // It may have gone on while this was on its way.
            if self.places.is_overbooked() {
                held.release().await.map_err(CoordinatorError::from)?;
                continue;
            }
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

#[cfg(test)]
mod tests {
    use s2_coordinator::{Capabilities, NewTask, Outcome, SchedulerExt, TaskKind};

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
