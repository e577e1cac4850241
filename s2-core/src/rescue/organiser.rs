//! The session that organises help.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use s2_coordinator::{
    Capabilities, Clock, Completion, Error as CoordinatorError, EventBusExt, EventType, Held, Loss, NewEscalation,
    NewEvent, Outcome, Profile, Session, Start, Subject, SwarmId, TaskId, Text, Timestamp,
};
use s2_governor::{Candidate, Verified};
use tokio::task::JoinSet;

use crate::blocked::ORGANISE;
use crate::blocked::ORGANISER;
use crate::error::Error;
use crate::help::RESCUES;
use crate::help::RescueEvent;
use crate::rescue::matching::Chosen;
use crate::rescue::matching::choose;
use crate::rescue::open::Open;
use crate::rescue::open::Part;
use crate::rescue::open::PartEnd;
use crate::rescue::open::judge;
use crate::rescue::records::Records;
use crate::s2::S2;
use crate::s2::Stop;

const MATCHED: EventType = EventType::from_static("rescue.matched");
const RECRUITED: EventType = EventType::from_static("rescue.recruited");
const VERIFIED: EventType = EventType::from_static("rescue.verified");

/// How many rescues are taken up at a time.
const BATCH: usize = 100;

/// How often a process looks whether somebody organises.
const STAND_BY: Duration = Duration::from_secs(5);

/// How often a rescue says that it is alive: well below the half hour after which it would be taken for stuck.
const PROGRESS: Duration = Duration::from_secs(5 * 60);

/// Begins to organise help in this process, as soon as nobody else does, and to call sessions off their work.
pub(crate) fn begin(s2: &S2) {
    if !s2.begins() {
        return;
    }
    s2.spawn(call_off_recruits(s2.clone()));
    if s2.settings().help.organise {
        s2.spawn(stand_by(s2.clone()));
    }
}

/// Tells sessions of this process that somebody needs them more urgently.
async fn call_off_recruits(s2: S2) {
    let follow = async {
        let mut tail = s2.bus().tail(&RESCUES, Start::Now).await?;
        loop {
            match tail.next().await {
                Ok(Some(event)) => {
                    if let Ok(RescueEvent::Recruited { helper, .. }) = event.json() {
                        let session = s2.recruits().get(&helper).and_then(std::sync::Weak::upgrade);
                        session.into_iter().for_each(|session| session.call_off());
                    }
                }
                Ok(None) => return Ok::<_, CoordinatorError>(()),
                Err(CoordinatorError::Lagged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    };
    tokio::select! {
        () = s2.stopped(Stop::Drain) => {}
        ended = follow => if let Err(error) = ended {
            tracing::error!(%error, "sessions of this process cannot be called off their work any more");
        }
    }
}

/// Organises help whenever nobody else does.
async fn stand_by(s2: S2) {
    let mut idle = None;
    loop {
        let ended = tokio::select! {
            () = s2.stopped(Stop::Drain) => return,
            ended = organise_if_needed(&s2, &mut idle) => ended,
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "help could not be organised; trying again");
        }
        tokio::select! {
            () = s2.stopped(Stop::Drain) => return,
            () = s2.parts.needed.notified() => {}
            () = tokio::time::sleep(STAND_BY) => {}
        }
    }
}

/// Organises unless somebody else does. Who has left work undone since the last look is not believed to: it is taken for `idle`, and
/// superseded.
async fn organise_if_needed(s2: &S2, idle: &mut Option<(u64, Instant)>) -> Result<(), Error> {
    // The one before it by name: nothing is between them.
    let before = SwarmId::from_static("s2/organise");
    let next = s2.scheduler().sessions(Some(&before), 1).await?;
    if let Some(info) = next.iter().find(|info| info.incarnation.session == ORGANISER) {
        let number = info.incarnation.number;
        let since = idle.filter(|(known, _)| *known == number).map_or_else(Instant::now, |(_, since)| since);
        *idle = (info.queued > 0).then_some((number, since));
        if info.queued == 0 || since.elapsed() < STAND_BY {
            return Ok(());
        }
        tracing::warn!(organiser = number, "whoever organises help does not; this process takes over");
    }
    *idle = None;
    let profile = Profile::new(ORGANISER).with_capabilities(Capabilities::new([ORGANISE])?);
    let session = Session::enter(Arc::clone(s2.scheduler()), &profile).await?;
    let ended = Organiser::new(s2.clone()).serve(&session).await;
    match ended {
        // Somebody else has taken over.
        Err(Error::Coordinator(CoordinatorError::StaleSession { .. })) => Ok(()),
        ended => {
            session.leave().await?;
            ended
        }
    }
}

async fn sleep_until(clock: Arc<dyn Clock>, at: Option<Timestamp>) {
    match at {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct Organiser {
    s2: S2,
    records: Records,
    open: HashMap<TaskId, Open>,
    /// The helpers who are waited for: the rescue, the task, what became of it.
    helps: JoinSet<(TaskId, TaskId, Result<Outcome, CoordinatorError>)>,
    /// The rescues that may be lost.
    losses: JoinSet<(TaskId, Result<Loss, CoordinatorError>)>,
    /// When it was last said that rescues go on.
    progressed: Timestamp,
}

impl Organiser {
    fn new(s2: S2) -> Self {
        let progressed = s2.clock().now();
        let (records, open, helps, losses) = Default::default();
        Self { s2, records, open, helps, losses, progressed }
    }

    /// Organises until the session is superseded, or the scheduler is closed.
    async fn serve(mut self, session: &Session) -> Result<(), Error> {
        let mut claim = Box::pin(session.claim_batch(BATCH));
        loop {
            let later = sleep_until(self.s2.clock(), self.later());
            tokio::select! {
                claimed = &mut claim => {
                    let claimed = claimed?;
                    if claimed.is_empty() {
                        return Ok(());
                    }
                    for held in claimed {
                        self.take_up(held).await?;
                    }
                    claim = Box::pin(session.claim_batch(BATCH));
                }
                Some(ended) = self.helps.join_next() => self.ended(ended).await?,
                Some(Ok((rescue, _))) = self.losses.join_next() => self.lost(rescue).await,
                () = later => {}
            }
            self.go_on().await?;
        }
    }

    /// When it is time to look for helpers again, or to say that rescues go on.
    fn later(&self) -> Option<Timestamp> {
        let looks = self.open.values().any(|open| open.looks);
        let look_again = || self.s2.clock().now() + self.s2.settings().help.look_again;
        let at = if looks { look_again() } else { self.progressed + PROGRESS };
        (!self.open.is_empty()).then_some(at)
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
        self.losses.spawn(async move { (id, scheduler.lost(&lease).await) });
        let running: Vec<_> = open.parts.iter().filter(|part| part.end.is_none()).map(|part| part.task).collect();
        running.into_iter().for_each(|help| self.wait_for(id, help));
        self.open.insert(id, open);
        Ok(())
    }

    fn wait_for(&mut self, rescue: TaskId, help: TaskId) {
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
        if end == PartEnd::Failed {
            open.looks = true;
            let (helper, requires) = (part.request.helper.clone(), part.request.requires.clone());
            let (by, outcome) = (part.request.by.clone(), Verified::Failure);
            let told = RescueEvent::Verified { helper, by, requires, outcome };
            self.tell(VERIFIED, &told, &format!("failed/{help}")).await?;
        }
        Ok(())
    }

    /// Nobody waits for this rescue any more.
    async fn lost(&mut self, rescue: TaskId) {
        let Some(open) = self.open.remove(&rescue) else { return };
        for part in open.parts.iter().filter(|part| part.end.is_none()) {
            drop(self.s2.scheduler().cancel(part.task, "the rescue was called off".into()).await);
        }
    }

    /// Does what can be done now.
    async fn go_on(&mut self) -> Result<(), Error> {
        self.finish().await?;
        if self.open.values().any(|open| open.looks) {
            self.look_for_helpers().await?;
            self.finish().await?;
        }
        let now = self.s2.clock().now();
        if now.since(self.progressed) >= PROGRESS {
            self.progressed = now;
            for open in self.open.values() {
                drop(open.held.progress().await);
            }
        }
        self.records.tell(&self.s2).await
    }

    /// Ends the rescues that have enough.
    async fn finish(&mut self) -> Result<(), Error> {
        let (enough, most) = (self.s2.settings().help.enough, self.most());
        let done: Vec<TaskId> = self.open.values().filter(|open| open.is_enough(enough, most)).map(Open::id).collect();
        for id in done {
            let Some(Open { held, parts, rescue, .. }) = self.open.remove(&id) else { continue };
            let open = Open { held, parts, rescue, looks: false, escalated: false };
            let helpers = open.helpers();
            let (asked, helped) = (open.parts.len() as u64, helpers.len() as u64);
            let completion =
                Completion::new().with_json(&helpers)?.with_evidence("asked", asked).with_evidence("helped", helped);
            let running: Vec<TaskId> =
                open.parts.iter().filter(|part| part.end.is_none()).map(|part| part.task).collect();
            match open.held.complete(completion).await {
                Ok(_) => {}
                // Somebody else organises it, or nobody waits for it.
                Err(lost) if matches!(*lost.error, CoordinatorError::StaleLease { .. }) => continue,
                Err(error) => return Err(CoordinatorError::from(error).into()),
            }
            for help in running {
                drop(self.s2.scheduler().cancel(help, "others have helped".into()).await);
            }
        }
        Ok(())
    }

    fn most(&self) -> usize {
        self.s2.settings().rescue_policy.max_rescuers_per_blocker
    }

    /// Calls off those that are looked at again, and that nobody waits for any more.
    async fn call_off_deserted(&mut self) -> Result<(), Error> {
        let looked_at = self.open.values().filter(|open| open.looks && open.escalated);
        let (blocked, mut deserted): (Vec<TaskId>, Vec<TaskId>) =
            looked_at.map(|open| (open.rescue.blocked, open.id())).unzip();
        for batch in blocked.chunks(BATCH) {
            let waiters = self.s2.scheduler().waits(batch).await?;
            deserted.retain(|rescue| !waiters.iter().any(|waiter| waiter.on.contains(rescue)));
        }
        for rescue in deserted {
            _ = self.s2.scheduler().cancel(rescue, "nobody waits for it any more".into()).await?;
            self.lost(rescue).await;
        }
        Ok(())
    }

    async fn look_for_helpers(&mut self) -> Result<(), Error> {
        self.call_off_deserted().await?;
        let most = self.most();
        let looking: Vec<&Open> = {
            let mut looking: Vec<_> = self.open.values().filter(|open| open.looks && open.places(most) > 0).collect();
            // The answer must not depend on how they are kept.
            looking.sort_by_key(|open| open.id());
            looking
        };
        let all: Vec<TaskId> = looking.iter().map(|open| open.id()).collect();
        let mut chosen = choose(&self.s2, &mut self.records, &looking).await?;
        for id in all {
            let chosen = chosen.remove(&id).unwrap_or_default();
            self.ask(id, chosen).await?;
        }
        Ok(())
    }

    /// Asks those who were chosen for a rescue.
    async fn ask(&mut self, id: TaskId, chosen: Chosen) -> Result<(), Error> {
        let Some(open) = self.open.get(&id) else { return Ok(()) };
        if chosen.helpers.is_empty() {
            return self.without_helpers(id, chosen).await;
        }
        let nth = open.parts.len();
        let mut new = Vec::with_capacity(chosen.helpers.len());
        for (place, (helper, because)) in chosen.helpers.iter().enumerate() {
            let request = open.request(&self.s2, helper.session.clone(), because);
            new.push((open.help(&self.s2, nth + place, &request, &helper.capabilities)?, request));
        }
        let tasks: Vec<_> = new.iter().map(|(task, _)| task.clone()).collect();
        // Side by side: neither waits for the other, and whoever dies has most likely done both.
        let (submitted, told) = tokio::join!(self.s2.scheduler().submit(&tasks), self.told(id, nth, &chosen));
        let submitted = match submitted {
            Ok(submitted) => submitted,
            // Somebody else organises it by now, and has asked others; or somebody has gone just now.
            Err(
                CoordinatorError::TaskConflict { .. }
                | CoordinatorError::UnknownTask { .. }
                | CoordinatorError::Invalid(_),
            ) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        told?;
        let parts: Vec<Part> =
            submitted.iter().zip(new).map(|(done, (_, request))| Part { task: done.id, request, end: None }).collect();
        let asked: Vec<(TaskId, Candidate)> =
            submitted.iter().map(|done| done.id).zip(chosen.helpers.iter().map(|(helper, _)| helper.clone())).collect();
        if let Some(open) = self.open.get_mut(&id) {
            open.looks = false;
            open.parts.extend(parts);
        }
        for (help, helper) in asked {
            self.wait_for(id, help);
            if helper.is_busy() {
                let told = RescueEvent::Recruited { helper: helper.session, help };
                self.tell(RECRUITED, &told, &format!("recruited/{help}")).await?;
            }
        }
        Ok(())
    }

    /// There is nobody to ask. If nobody is at it either, a person should know, once.
    async fn without_helpers(&mut self, id: TaskId, chosen: Chosen) -> Result<(), Error> {
        let Some(open) = self.open.get_mut(&id) else { return Ok(()) };
        if open.running() > 0 || open.helped() > 0 {
            open.looks = false;
            return Ok(());
        }
        if std::mem::replace(&mut open.escalated, true) {
            return Ok(());
        }
        let (blocked, nth) = (open.rescue.blocked, open.parts.len());
        let evidence = serde_json::json!({ "rescue": open.rescue, "considered": chosen.others });
        let escalation = NewEscalation::new(Subject::new(format!("no_rescuer:{blocked}"))?, "no_rescuer");
        self.s2.inbox().escalate(escalation.with_payload(evidence.to_string())).await?;
        self.told(id, nth, &chosen).await
    }

    /// Tells who was chosen and why.
    async fn told(&self, id: TaskId, nth: usize, chosen: &Chosen) -> Result<(), Error> {
        let Some(open) = self.open.get(&id) else { return Ok(()) };
        let helpers: Vec<(SwarmId, Text)> =
            chosen.helpers.iter().map(|(helper, because)| (helper.session.clone(), because.clone())).collect();
        let (blocked, by, others) = (open.rescue.blocked, open.rescue.by.clone(), chosen.others.clone());
        let told = RescueEvent::Matched { blocked, by, rescue: id, helpers, others };
        // Each time that somebody is asked, and once for each organiser that nobody is to be asked.
        let whom = if chosen.helpers.is_empty() { "nobody" } else { "somebody" };
        self.tell(MATCHED, &told, &format!("matched/{id}/{nth}/{whom}/{}", open.held.lease.token)).await
    }

    async fn tell(&self, what: EventType, told: &RescueEvent, key: &str) -> Result<(), Error> {
        let event = NewEvent::new(RESCUES, what, ORGANISER).with_json(told)?.with_idempotency_key(key.parse()?);
        match self.s2.bus().publish_one(&event).await {
            // Told before, by somebody who has organised it before.
            Err(CoordinatorError::IdempotencyConflict { .. }) => Ok(()),
            told => Ok(told.map(drop)?),
        }
    }
}
