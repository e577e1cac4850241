//! The session that organises help.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use s2_coordinator::{
    Capabilities, Clock, Completion, Error as CoordinatorError, EventBusExt, EventType, Held, Lease, Loss,
    NewEscalation, NewEvent, Outcome, Profile, Session, SessionInfo, Start, Subject, SwarmId, TaskId, Text, Timestamp,
};
use s2_governor::{Candidate, Verified};
use tokio::task::JoinSet;

use crate::error::Error;
use crate::help::ORGANISE;
use crate::help::ORGANISER;
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
use crate::task_error::TaskError;

const MATCHED: EventType = EventType::from_static("rescue.matched");
const RECRUITED: EventType = EventType::from_static("rescue.recruited");
const VERIFIED: EventType = EventType::from_static("rescue.verified");

/// How many rescues are taken up at a time.
const BATCH: usize = 100;

/// How many rescues are organised at a time; the others wait in the queue.
const MOST: usize = 500;

/// How long to wait for a store that is away.
const PAUSE: Duration = Duration::from_secs(1);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

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
        loop {
            if let Err(error) = follow_recruits(&s2).await {
                tracing::warn!(%error, "it is not heard who is called off its work; trying again");
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = s2.stopped(Stop::Drain) => {}
        () = follow => {}
    }
}

async fn follow_recruits(s2: &S2) -> Result<(), CoordinatorError> {
    let mut tail = s2.bus().tail(&RESCUES, Start::Now).await?;
    loop {
        match tail.next().await {
            Ok(Some(event)) => {
                if let Ok(RescueEvent::Recruited { helper, help }) = event.json() {
                    let session = s2.recruits().get(&helper).and_then(std::sync::Weak::upgrade);
                    session.into_iter().for_each(|session| session.call_off(help));
                }
            }
            Ok(None) => return Ok(()),
            Err(CoordinatorError::Lagged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Organises help whenever nobody else does.
async fn stand_by(s2: S2) {
    let mut seen = None;
    loop {
        if let Err(error) = organise_if_needed(&s2, &mut seen).await {
            tracing::warn!(%error, "help could not be organised; trying again");
        }
        tokio::select! {
            () = s2.stopped(Stop::Drain) => return,
            () = s2.parts.needed.notified() => {}
            () = tokio::time::sleep(STAND_BY) => {}
        }
    }
}

/// What an organiser was seen to do: which one, how many rescues it had and how many waited for it, and since when that is so.
#[derive(Clone, Copy)]
struct Seen {
    number: u64,
    load: usize,
    queued: usize,
    since: Instant,
}

impl Seen {
    fn of(info: &SessionInfo) -> Self {
        let SessionInfo { incarnation, load, queued, .. } = info;
        Self { number: incarnation.number, load: *load, queued: *queued, since: Instant::now() }
    }

    /// What is seen now, after this was. Whoever takes something up, or has nothing to take up, is not idle.
    fn then(self, now: Self) -> Self {
        let is_idle =
            (self.number, self.load) == (now.number, now.load) && 0 < self.queued && self.queued <= now.queued;
        if is_idle { Self { since: self.since, ..now } } else { now }
    }
}

/// Organises unless somebody else does. Who has left work undone for a while is not believed to: it is superseded.
async fn organise_if_needed(s2: &S2, seen: &mut Option<Seen>) -> Result<(), Error> {
    // The one before it by name: no other session has a name between them.
    let before = SwarmId::from_static("s2/organise");
    let next = s2.scheduler().sessions(Some(&before), 1).await?;
    if let Some(info) = next.iter().find(|info| info.incarnation.session == ORGANISER) {
        let now = seen.map_or_else(|| Seen::of(info), |before| before.then(Seen::of(info)));
        *seen = Some(now);
        if now.queued == 0 || now.since.elapsed() < STAND_BY {
            return Ok(());
        }
        tracing::warn!(organiser = now.number, "whoever organises help does not; this process takes over");
    }
    *seen = None;
    let profile = Profile::new(ORGANISER).with_capabilities(Capabilities::new([ORGANISE])?);
    let session = Session::enter(Arc::clone(s2.scheduler()), &profile).await?;
    let ended = tokio::select! {
        ended = Organiser::new(s2.clone()).serve(&session) => ended,
        () = s2.stopped(Stop::Drain) => Ok(()),
    };
    match ended {
        // Somebody else has taken over.
        Err(Error::Coordinator(CoordinatorError::StaleSession { .. })) => Ok(()),
        ended => {
            session.leave().await?;
            ended
        }
    }
}

async fn sleep_until(clock: Arc<dyn Clock>, at: Timestamp) {
    clock.sleep_until(at).await;
}

struct Organiser {
    s2: S2,
    records: Records,
    open: HashMap<TaskId, Open>,
    /// The helpers who are waited for: the rescue, the task, what became of it.
    helps: JoinSet<(TaskId, TaskId, Result<Outcome, CoordinatorError>)>,
    /// The claims of rescues that may be lost.
    losses: JoinSet<(Lease, Result<Loss, CoordinatorError>)>,
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
        let looks = self.open.values().filter_map(|open| open.look_at).min();
        let progress = self.progressed + if self.open.is_empty() { DAY } else { PROGRESS };
        looks.map_or(progress, |look_at| look_at.min(progress))
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
        if end != PartEnd::Helped {
            open.look_at = Some(self.s2.clock().now());
        }
        if end == PartEnd::Failed {
            let (helper, requires) = (part.request.helper.clone(), part.request.requires.clone());
            let (by, outcome) = (part.request.by.clone(), Verified::Failure);
            let told = RescueEvent::Verified { helper, by, requires, outcome };
            self.tell(VERIFIED, &told, &format!("failed/{help}")).await?;
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

    /// Looks for helpers, if it is time to for anybody: for all that look for some, since they share them; the oldest first, and not
    /// too many at a time.
    async fn look_for_helpers(&mut self) -> Result<(), Error> {
        let (now, most) = (self.s2.clock().now(), self.most());
        let looks = |open: &&Open| open.look_at.is_some() && open.places(most) > 0;
        if !self.open.values().filter(looks).any(|open| open.look_at <= Some(now)) {
            return Ok(());
        }
        let mut all: Vec<TaskId> = self.open.values().filter(looks).map(Open::id).collect();
        // The answer must not depend on how they are kept.
        all.sort_unstable();
        all.truncate(BATCH);
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
            // Somebody else has organised it meanwhile, and asked others: it comes back, and is taken up as it is then.
            Err(CoordinatorError::TaskConflict { .. }) => return self.hand_back(id).await,
            // Somebody has changed just now.
            Err(CoordinatorError::Invalid(_)) => {
                self.look_again(id);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        told?;
        let parts: Vec<Part> =
            submitted.iter().zip(new).map(|(done, (_, request))| Part { task: done.id, request, end: None }).collect();
        let asked: Vec<(TaskId, Candidate)> =
            submitted.iter().map(|done| done.id).zip(chosen.helpers.iter().map(|(helper, _)| helper.clone())).collect();
        if let Some(open) = self.open.get_mut(&id) {
            open.look_at = None;
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

    async fn hand_back(&mut self, id: TaskId) -> Result<(), Error> {
        if let Some(open) = self.open.remove(&id) {
            open.held.release().await.map_err(CoordinatorError::from)?;
        }
        Ok(())
    }

    fn look_again(&mut self, id: TaskId) {
        let at = self.s2.clock().now() + self.s2.settings().help.look_again;
        self.open.get_mut(&id).into_iter().for_each(|open| open.look_at = Some(at));
    }

    /// There is nobody to ask. If nobody is at it either, a person should know, once.
    async fn without_helpers(&mut self, id: TaskId, chosen: Chosen) -> Result<(), Error> {
        self.look_again(id);
        let Some(open) = self.open.get_mut(&id) else { return Ok(()) };
        if open.running() > 0 || open.helped() > 0 {
            open.look_at = None;
            return Ok(());
        }
        if std::mem::replace(&mut open.escalated, true) {
            return Ok(());
        }
        let (blocked, nth) = (open.rescue.blocked, open.parts.len());
        let evidence = serde_json::json!({ "rescue": open.rescue, "considered": chosen.others });
        let escalation = NewEscalation::new(Subject::new(format!("no_rescuer:{blocked}"))?, "no_rescuer");
        match self.s2.inbox().escalate(escalation.with_payload(evidence.to_string())).await {
            Ok(_) => {}
            Err(error @ CoordinatorError::LimitExceeded { .. }) => {
                tracing::error!(%blocked, %error, "nobody can help, and no person can be told");
            }
            Err(error) => return Err(error.into()),
        }
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

/// Whether an error is about one rescue, and stays.
fn is_lasting(error: &Error) -> bool {
    let of_all = matches!(
        error,
        Error::Coordinator(
            CoordinatorError::StaleSession { .. } | CoordinatorError::Closed | CoordinatorError::NoRuntime
        )
    );
    !of_all && !error.is_retryable()
}
