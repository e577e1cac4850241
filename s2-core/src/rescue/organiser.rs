//! Organising help: from a rescue that is taken up to its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::{
    Clock, Completion, Error as CoordinatorError, Held, Lease, Loss, Outcome, Session, TaskId, Text, Timestamp,
};
use s2_governor::Verified;
use tokio::task::JoinSet;

use crate::error::Error;
use crate::help::RescueEvent;
use crate::rescue::matching::choose;
use crate::rescue::open::Open;
use crate::rescue::open::Part;
use crate::rescue::open::PartEnd;
use crate::rescue::open::judge;
use crate::rescue::records::Records;
use crate::s2::S2;
use crate::task_error::TaskError;

/// How many rescues are taken up at a time.
const BATCH: usize = 100;

/// How many rescues are organised at a time; the others wait in the queue.
pub(super) const MOST: usize = 500;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How often a rescue says that it is alive: well below the half hour after which it would be taken for stuck.
const PROGRESS: Duration = Duration::from_secs(5 * 60);

async fn sleep_until(clock: Arc<dyn Clock>, at: Timestamp) {
    clock.sleep_until(at).await;
}

pub(super) struct Organiser {
    pub(super) s2: S2,
    records: Records,
    pub(super) open: HashMap<TaskId, Open>,
    /// The helpers who are waited for: the rescue, the task, what became of it.
    helps: JoinSet<(TaskId, TaskId, Result<Outcome, CoordinatorError>)>,
    /// The claims of rescues that may be lost.
    losses: JoinSet<(Lease, Result<Loss, CoordinatorError>)>,
    /// When it was last said that rescues go on.
    progressed: Timestamp,
}

impl Organiser {
    pub(super) fn new(s2: S2) -> Self {
        let progressed = s2.clock().now();
        let (records, open, helps, losses) = Default::default();
        Self { s2, records, open, helps, losses, progressed }
    }

    /// Organises until the session is superseded, or the scheduler is closed.
    pub(super) async fn serve(mut self, session: &Session) -> Result<(), Error> {
        let mut claim = Box::pin(session.claim_batch(BATCH));
        loop {
            let later = sleep_until(self.s2.clock(), self.later());
            tokio::select! {
                claimed = &mut claim, if self.open.len() < MOST => {
                    let claimed = claimed?;
                    if claimed.is_empty() {
                        return Ok(());
                    }
                    // Asked for at once, so that nobody takes this session for idle.
                    claim = Box::pin(session.claim_batch(BATCH));
                    for held in claimed {
                        self.take_up(held).await?;
                    }
                }
                Some(ended) = self.helps.join_next() => self.ended(ended).await?,
                Some(Ok((lease, loss))) = self.losses.join_next() => self.lost(lease, loss).await,
                () = later => {}
            }
            self.go_on().await?;
        }
    }

    /// When it is time to look for helpers, or to say that rescues go on, or what is known.
    fn later(&self) -> Timestamp {
        let looks = self.open.values().filter_map(|open| self.look_at(open)).min();
        let progress = self.progressed + if self.open.is_empty() { DAY } else { PROGRESS };
        looks.map_or(progress, |look_at| look_at.min(progress))
    }

    /// When helpers are to be looked for, if there is room for any.
    fn look_at(&self, open: &Open) -> Option<Timestamp> {
        open.look_at.filter(|_| open.places(self.most()) > 0)
    }

    async fn take_up(&mut self, held: Held) -> Result<(), Error> {
        let (id, lease) = (held.task.id, held.lease);
        let open = match Open::take_up(&self.s2, held).await {
            Ok(open) => open,
            Err(Error::Invalid(invalid)) => {
                // Nobody else could read it either; dropped, it would come back for ever.
                tracing::error!(%id, error = %invalid, "this rescue says nothing that can be understood");
                drop(self.s2.scheduler().cancel(id, "it cannot be understood".into()).await);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let scheduler = Arc::clone(self.s2.scheduler());
        self.losses.spawn(async move { (lease, scheduler.lost(&lease).await) });
        let running: Vec<_> = open.parts.iter().filter(|part| part.end.is_none()).map(|part| part.task).collect();
        running.into_iter().for_each(|help| self.wait_for(id, help));
        self.open.insert(id, open);
        Ok(())
    }

    pub(super) fn wait_for(&mut self, rescue: TaskId, help: TaskId) {
        let scheduler = Arc::clone(self.s2.scheduler());
        self.helps.spawn(async move { (rescue, help, scheduler.wait(help).await) });
    }

    /// A helper has ended.
    async fn ended(
        &mut self,
        ended: Result<(TaskId, TaskId, Result<Outcome, CoordinatorError>), tokio::task::JoinError>,
    ) -> Result<(), Error> {
        let Ok((rescue, help, outcome)) = ended else { return Ok(()) };
        let Some(open) = self.open.get_mut(&rescue) else { return Ok(()) };
        let Some(part) = open.parts.iter_mut().find(|part| part.task == help) else { return Ok(()) };
        let end = match outcome {
            Ok(outcome) => judge(&self.s2, &part.request, &outcome),
            Err(CoordinatorError::UnknownTask { .. }) => PartEnd::Failed,
            Err(error) => return Err(error.into()),
        };
        part.end = Some(end);
        if end != PartEnd::Helped {
            open.look_at = Some(self.s2.clock().now());
        }
        if end == PartEnd::Failed {
            let (helper, requires) = (part.request.helper.clone(), part.request.requires.clone());
            let (by, outcome) = (part.request.by.clone(), Verified::Failure);
            let told = RescueEvent::Verified { helper, by, requires, outcome };
            self.tell(&told, &format!("failed/{help}")).await?;
        }
        Ok(())
    }

    /// A claim is lost. If nobody waits for the rescue any more, those who were asked are called off; otherwise it goes on
    /// elsewhere, or comes back.
    async fn lost(&mut self, lease: Lease, loss: Result<Loss, CoordinatorError>) {
        if self.open.get(&lease.task).is_none_or(|open| open.held.lease != lease) {
            return;
        }
        let Some(open) = self.open.remove(&lease.task) else { return };
        if matches!(loss, Ok(Loss::Cancelled { .. } | Loss::Overdue | Loss::Forgotten)) {
            self.call_off(&open.parts, "the rescue was called off").await;
        }
    }

    /// Calls off whoever is still at it: as far as it works. What is left ends at its deadline.
    async fn call_off(&self, parts: &[Part], why: &'static str) {
        for part in parts.iter().filter(|part| part.end.is_none()) {
            drop(self.s2.scheduler().cancel(part.task, why.into()).await);
        }
    }

    /// Does what can be done now.
    async fn go_on(&mut self) -> Result<(), Error> {
        self.finish().await?;
        self.look_for_helpers().await?;
        self.finish().await?;
        let now = self.s2.clock().now();
        if now.since(self.progressed) >= PROGRESS {
            self.progressed = now;
            for open in self.open.values() {
                drop(open.held.progress().await);
            }
        }
        if let Err(error) = self.records.tell(&self.s2).await {
            tracing::warn!(%error, "what is known of helpers could not be told");
        }
        Ok(())
    }

    /// Ends the rescues that have enough.
    async fn finish(&mut self) -> Result<(), Error> {
        let (enough, most) = (self.s2.settings().help.enough, self.most());
        let done = self.open.values().filter(|open| open.is_enough(enough, most));
        for id in done.map(Open::id).collect::<Vec<_>>() {
            let Some(open) = self.open.remove(&id) else { continue };
            let helpers = open.helpers();
            let completion = Completion::new()
                .with_json(&helpers)?
                .with_evidence("asked", open.parts.len() as u64)
                .with_evidence("helped", helpers.len() as u64);
            match open.held.complete(completion).await {
                Ok(_) => self.call_off(&open.parts, "others have helped").await,
                // Somebody else organises it, or nobody waits for it.
                Err(lost) if matches!(*lost.error, CoordinatorError::StaleLease { .. }) => {}
                Err(error) => return Err(CoordinatorError::from(error).into()),
            }
        }
        Ok(())
    }

    fn most(&self) -> usize {
        self.s2.settings().rescue_policy.max_rescuers_per_blocker
    }

    /// Calls off those that are looked at again, and that nobody waits for any more.
    async fn call_off_deserted(&mut self, looked_at: &[TaskId]) -> Result<(), Error> {
        let again = looked_at.iter().filter_map(|id| self.open.get(id)).filter(|open| open.escalated);
        let (blocked, mut deserted): (Vec<TaskId>, Vec<Lease>) =
            again.map(|open| (open.rescue.blocked, open.held.lease)).unzip();
        if blocked.is_empty() {
            return Ok(());
        }
        let waiters = self.s2.scheduler().waits(&blocked).await?;
        deserted.retain(|lease| !waiters.iter().any(|waiter| waiter.on.contains(&lease.task)));
        for lease in deserted {
            let reason = Text::from("nobody waits for it any more");
            _ = self.s2.scheduler().cancel(lease.task, reason.clone()).await?;
            self.lost(lease, Ok(Loss::Cancelled { reason })).await;
        }
        Ok(())
    }

    /// Looks for helpers, if it is time to for anybody: for all that look for some, since they share them. Not for too many at a
    /// time: those come first that were not looked at for longest.
    async fn look_for_helpers(&mut self) -> Result<(), Error> {
        let now = self.s2.clock().now();
        let looks = self.open.values().filter_map(|open| Some((self.look_at(open)?, open.id())));
        let mut all: Vec<(Timestamp, TaskId)> = looks.collect();
        all.sort_unstable();
        if all.first().is_none_or(|(look_at, _)| *look_at > now) {
            return Ok(());
        }
        let mut all: Vec<TaskId> = all.into_iter().take(BATCH).map(|(_, id)| id).collect();
        // Equal ones in the order in which they were submitted.
        all.sort_unstable();
        self.call_off_deserted(&all).await?;
        let looking: Vec<&Open> = all.iter().filter_map(|id| self.open.get(id)).collect();
        if looking.is_empty() {
            return Ok(());
        }
        let mut chosen = choose(&self.s2, &mut self.records, &looking).await?;
        for id in all {
            let chosen = chosen.remove(&id).unwrap_or_default();
            match self.ask(id, chosen).await {
                Err(error) if is_lasting(&error) => self.give_up(id, &error).await,
                asked => asked?,
            }
        }
        Ok(())
    }

    /// A rescue that cannot go on must not keep the others from it.
    async fn give_up(&mut self, id: TaskId, error: &Error) {
        tracing::error!(rescue = %id, %error, "this rescue cannot go on; whoever is blocked goes on without help");
        let Some(open) = self.open.remove(&id) else { return };
        self.call_off(&open.parts, "the rescue cannot go on").await;
        drop(open.held.give_up(TaskError::fatal(error).reason()).await);
    }
}

/// Whether an error is about one rescue, and stays.
fn is_lasting(error: &Error) -> bool {
    let of_all = matches!(
        error,
        Error::Coordinator(
            CoordinatorError::StaleSession { .. }
                | CoordinatorError::Closed
                | CoordinatorError::NoRuntime
                | CoordinatorError::Backend { .. }
        )
    );
    !of_all && !error.is_retryable()
}
