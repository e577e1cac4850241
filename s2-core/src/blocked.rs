//! Not being able to go on, and going on with help.

use std::collections::HashSet;
use std::sync::Arc;

use s2_coordinator::{
    Blocker, Capabilities, Completion, Error as CoordinatorError, Grant, IdempotencyKey, Lease, NewEscalation, NewTask,
    NotEnded, Outcome, Resolution, Scheduler, SchedulerExt, Subject, SwarmId, TaskId, Tasks, Text,
};
use serde::Serialize;

use crate::context::Context;
use crate::context::Given;
use crate::error::Error;
use crate::help::Answer;
use crate::help::Helped;
use crate::help::ORGANISE;
use crate::help::ORGANISER;
use crate::help::PERSON;
use crate::help::QUESTION;
use crate::help::RESCUE;
use crate::help::Rescue;
use crate::help::Rescued;
use crate::hooks::asked;
use crate::s2::S2;

/// How often a rescue survives its organiser.
const ORGANISERS: u32 = 20;

/// What a question says.
#[derive(Clone, Debug, Serialize)]
struct Question {
    task: TaskId,
    question: Text,
}

/// What a person is shown. Who asks is no part of the question: it may be another session that goes on.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    session: &'a SwarmId,
    #[serde(flatten)]
    asked: Question,
}

impl Context {
    /// The session cannot go on. Its place is free for other tasks until help is there; then this future ends, with what came
    /// out. The handler and all that it has stay as they are meanwhile.
    ///
    /// If the blocker names neither tasks that help nor tasks that are waited for, the fleet gangs up on it: whoever is free
    /// and fits best is asked, and the next best if one declines or takes too long. Whoever fits is found by what the blocker
    /// requires, or else by [`RescueHooks::requires`](crate::RescueHooks::requires).
    ///
    /// If the process dies meanwhile, the task begins anew once help is there, and [`Context::resumed`] has the answers.
    ///
    /// ```
    /// # use s2_core::{Context, TaskError};
    /// use s2_coordinator::{Blocker, Capabilities};
    ///
    /// async fn handler(cx: Context) -> Result<String, TaskError> {
    ///     let blocker = Blocker::new("the invite is answered with 488")
    ///         .with_requires(Capabilities::new(["integration:sip", "telephony:protocols"])?);
    ///     let rescued = cx.blocked(blocker).await?;
    ///     let answer = rescued.first().ok_or_else(|| TaskError::retry("nobody could help"))?;
    ///     Ok(answer.result.json()?)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// `S2_STALE_LEASE` when the claim is lost; whatever submitting the tasks that help can fail with: then it is not blocked.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the task is taken up by somebody else once help is there.
    pub async fn blocked(&self, blocker: Blocker) -> Result<Rescued, Error> {
        let gangs_up = blocker.help.is_empty() && blocker.on.is_empty();
        let blocker = if gangs_up { self.with_rescue(blocker)? } else { blocker };
        let work = &self.work;
        let held = work.take().ok_or_else(|| work.stale())?;
        let mut blocked = match held.block(blocker).await {
            Ok(blocked) => blocked,
            Err(NotEnded { held, error }) => {
                work.put(held)?;
                return Err((*error).into());
            }
        };
        work.make_room();
        work.s2.parts.needed.notify_one();
        let help: Vec<TaskId> = blocked.help().iter().map(|submitted| submitted.id).collect();
        let resumed = blocked.resume().await;
        let goes_on = match &resumed {
            Ok(_) | Err(CoordinatorError::StaleLease { .. }) => true,
            // Somebody else takes it up, once help is there.
            Err(_) => false,
        };
        if gangs_up && goes_on {
            // Whatever is not over is waited for by nobody: the task goes on without it, or does not go on at all.
            for rescue in help {
                call_off(&work.s2, rescue, "the blocked task goes on without help").await;
            }
        }
        let held = resumed?;
        let rescued = self.rescued(&held).await;
        work.put(held).and(rescued)
    }

    /// What the task had waited for before its handler began, if its session was gone when help came: the answers.
    ///
    /// # Errors
    ///
    /// `S2_BACKEND`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    pub async fn resumed(&self) -> Result<Option<Rescued>, Error> {
        let grant = &self.work.grant;
        if grant.answers.is_empty() && grant.preempted.is_none() {
            return Ok(None);
        }
        self.rescued(grant).await.map(Some)
    }

    /// Asks a person, and waits for the answer: an escalation with the reason `question`, which
    /// [`S2::resolve`](crate::S2::resolve) answers. The place is free meanwhile. The same question of the same task is asked
    /// once, also if the handler begins anew.
    ///
    /// # Errors
    ///
    /// `S2_UNANSWERED` when the question was cancelled; otherwise as [`Context::blocked`].
    ///
    /// # Cancel safety
    ///
    /// As [`Context::blocked`].
    pub async fn ask(&self, question: impl Into<Text>) -> Result<Resolution, Error> {
        let (s2, question) = (&self.work.s2, question.into());
        let new = self.question(&question)?;
        let id = s2.scheduler().submit_one(&new).await?.id;
        // One that begins anew may have its answer already.
        if s2.scheduler().outcome(id).await?.is_none() {
            self.show(id, &question).await?;
        }
        loop {
            let rescued = self.blocked(Blocker::new(question.clone()).with_wait(id)).await?;
            if let Some(answer) = rescued.answers.iter().find(|answer| answer.task == id) {
                return Ok(answer.result.json()?);
            }
            if s2.scheduler().outcome(id).await?.is_some() {
                return Err(Error::Unanswered { question });
            }
        }
    }

    /// Shows a question to people.
    async fn show(&self, id: TaskId, question: &Text) -> Result<(), Error> {
        let asked = Question { task: self.task().id, question: question.clone() };
        let shown = Completion::new().with_json(&Shown { session: self.session(), asked })?.result.data;
        let escalation = NewEscalation::new(Subject::new(format!("question:{id}"))?, "question");
        self.work.s2.inbox().escalate(escalation.with_payload(shown)).await?;
        Ok(())
    }

    fn question(&self, question: &Text) -> Result<NewTask, Error> {
        let task = self.task();
        let asked = Question { task: task.id, question: question.clone() };
        let key: IdempotencyKey = format!("question/{}/{:016x}", task.id, fnv(question)).parse()?;
        let mut new = NewTask::new(QUESTION, self.session().clone()).with_key(key).with_json(&asked)?;
        new.trace = task.trace;
        Ok(new.with_requires(Capabilities::new([PERSON])?).with_priority(task.priority))
    }

    /// Adds the task by which help is organised.
    fn with_rescue(&self, mut blocker: Blocker) -> Result<Blocker, Error> {
        let (work, task) = (&self.work, self.task());
        let lease = self.lease().ok_or_else(|| work.stale())?;
        if blocker.requires.is_empty() {
            let requires = || work.s2.parts.hooks.requires(task, &blocker.reason);
            let requires = asked("requires", requires);
            blocker.requires = requires.unwrap_or_else(|| task.requires.clone());
        }
        let since = *work.said().blocked.entry(blocker.reason.clone()).or_insert_with(|| work.s2.clock().now());
        let rescue = Rescue {
            blocked: task.id,
            by: self.session().clone(),
            kind: task.kind.clone(),
            subject: task.subject.clone(),
            reason: blocker.reason.clone(),
            requires: blocker.requires.clone(),
            since,
            weight: 4 - u64::from(task.priority.level()),
        };
        let mut new = NewTask::new(RESCUE, self.session().clone()).with_key(rescue_key(&lease)?).with_json(&rescue)?;
        new = new.with_requires(Capabilities::new([ORGANISE])?).with_assignee(ORGANISER);
        new.trace = task.trace;
        Ok(blocker.with_help(new.with_attempts(ORGANISERS).with_priority(task.priority)))
    }

    /// What came out of what was waited for.
    async fn rescued(&self, grant: &Grant) -> Result<Rescued, Error> {
        let mut rescued = Rescued { answers: Vec::new(), preempted: grant.preempted.clone() };
        let mut given = Vec::new();
        for id in &grant.answers {
            answers(&self.work.s2, *id, &mut given).await?;
        }
        rescued.answers.extend(given.iter().map(|given| given.answer.clone()));
        // Asked for twice, it is given once.
        let mut said = self.work.said();
        let known: HashSet<TaskId> = said.given.iter().map(|given| given.answer.task).collect();
        said.given.extend(given.into_iter().filter(|given| !known.contains(&given.answer.task)));
        drop(said);
        Ok(rescued)
    }
}

fn rescue_key(lease: &Lease) -> Result<IdempotencyKey, Error> {
    Ok(format!("rescue/{}/{}", lease.task, lease.token).parse()?)
}

/// The answers of a task: its own, or, if help was organised by it, those of the helpers.
async fn answers(s2: &S2, id: TaskId, given: &mut Vec<Given>) -> Result<(), Error> {
    let Some(Outcome::Done(result)) = s2.scheduler().outcome(id).await? else { return Ok(()) };
    let task = s2.scheduler().task(id).await?.task;
    if task.kind != RESCUE {
        given.push(Given::new(Answer { task: id, helper: None, result }, Capabilities::default()));
        return Ok(());
    }
    let requires = task.json::<Rescue>()?.requires;
    for Helped { helper, task } in result.json::<Vec<Helped>>()? {
        if let Some(Outcome::Done(result)) = s2.scheduler().outcome(task).await? {
            given.push(Given::new(Answer { task, helper: Some(helper), result }, requires.clone()));
        }
    }
    Ok(())
}

/// Cancels what was organised and all who were asked, unless it is over: as far as it works. What is left ends at its deadline.
async fn call_off(s2: &S2, rescue: TaskId, why: &'static str) {
    let scheduler: &Arc<dyn Scheduler> = s2.scheduler();
    if let Ok(Some(_)) = scheduler.outcome(rescue).await {
        return;
    }
    let mut all = vec![rescue];
    if let Ok(page) = scheduler.list(&Tasks::all().with_parent(rescue).after(rescue)).await {
        all.extend(page.items.iter().filter(|status| !status.state.is_finished()).map(|status| status.task.id));
    }
    for task in all {
        if let Err(error) = scheduler.cancel(task, why.into()).await {
            tracing::warn!(%task, %error, "help that nobody needs any more could not be cancelled");
        }
    }
}

/// The hash of Fowler, Noll and Vo, in 64 bits: the same in every version and process.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
