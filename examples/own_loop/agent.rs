//! An agent with a loop of its own. It cannot leave its thread, since it shares what it remembers by [`Rc`].

use std::cell::RefCell;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;

use s2_coordinator::{
    Blocked, Blocker, Completion, Error, Held, Loss, NewTask, Profile, Scheduler, SchedulerExt, Session, SwarmId,
    TaskId, TaskKind,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;

use crate::chain::{Chain, Chains};

/// The longest chain of a range, in parts.
pub(crate) const SURVEY: TaskKind = TaskKind::from_static("survey");
/// The longest chain of a range.
pub(crate) const SEARCH: TaskKind = TaskKind::from_static("search");
const PARTS: u64 = 4;
/// How many numbers are a bit of work.
const BIT: u64 = 10_000;

/// What an agent tells its host.
#[derive(Debug)]
pub(crate) enum Said {
    /// It has done a bit of this task.
    Progress(TaskId),
    /// It has put this task down, after so many attempts.
    Ended(TaskId, u32, End),
}

/// How an agent puts a task down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Done,
    Lost,
    HandedBack,
}

/// How working on a task ended.
enum Worked {
    Found(Chain),
    Lost(Loss),
    Stopped,
}

pub(crate) struct Agent<S> {
    name: SwarmId,
    scheduler: S,
    session: Session,
    chains: Rc<RefCell<Chains>>,
    says: mpsc::UnboundedSender<Said>,
}

impl<S: Scheduler + Clone> Agent<S> {
    pub(crate) async fn join(
        scheduler: &S,
        name: SwarmId,
        chains: Rc<RefCell<Chains>>,
        says: mpsc::UnboundedSender<Said>,
    ) -> Result<Self, Error> {
        let session = scheduler.join(&Profile::new(name.clone())).await?;
        Ok(Self { name, scheduler: scheduler.clone(), session, chains, says })
    }

    /// The loop: waits for whatever comes first, a task, the help for one that is blocked, or the end.
    pub(crate) async fn run(self, mut stop: oneshot::Receiver<()>) -> Result<(), Error> {
        let mut blocked = None;
        loop {
            let held = tokio::select! {
                biased;
                _ = &mut stop => break,
                held = resume(&mut blocked) => {
                    blocked = None;
                    held?
                }
                held = self.session.claim() => match held? {
                    Some(held) => held,
                    None => break,
                },
            };
            if held.task.kind == SURVEY {
                blocked = self.survey(held).await?;
            } else if self.search(held, &mut stop).await? == End::HandedBack {
                break;
            }
        }
        println!("{} leaves", self.name);
        self.session.leave().await
    }

    /// Splits a survey into parts and hands it back until they are done; then puts their answers together.
    async fn survey(&self, held: Held) -> Result<Option<Blocked>, Error> {
        if held.answers.is_empty() {
            let blocker = self.parts(held.task.json()?)?;
            let blocked = held.block(blocker).await?;
            println!("{} has split the {SURVEY}, and waits for {} parts", self.name, blocked.help().len());
            return Ok(Some(blocked));
        }
        println!("{} goes on with the {SURVEY}: it has {} answers", self.name, held.answers.len());
        let mut longest = Chain::default();
        for part in &held.answers {
            let outcome = self.scheduler.outcome(*part).await?;
            if let Some(result) = outcome.as_ref().and_then(|outcome| outcome.result()) {
                longest = longest.longer(result.json()?);
            }
        }
        let parts = held.answers.len() as u64;
        held.complete(Completion::new().with_json(&longest)?.with_evidence("parts", parts)).await?;
        Ok(None)
    }

    fn parts(&self, whole: Range<u64>) -> Result<Blocker, Error> {
        let at = |part: u64| whole.start + (whole.end - whole.start) * part / PARTS;
        (0..PARTS).try_fold(Blocker::new("the parts are not done"), |blocker, part| {
            let help = NewTask::new(SEARCH, self.name.clone()).with_json(&(at(part)..at(part + 1)))?;
            Ok(blocker.with_help(help))
        })
    }

    /// Works on a range, and says how that ended.
    async fn search(&self, held: Held, stop: &mut oneshot::Receiver<()>) -> Result<End, Error> {
        let (task, attempt) = (held.task.id, held.attempt);
        let end = match self.work(&held, stop).await? {
            Worked::Found(chain) => {
                let range: Range<u64> = held.task.json()?;
                let evidence = range.end - range.start;
                held.complete(Completion::new().with_json(&chain)?.with_evidence("numbers", evidence)).await?;
                End::Done
            }
            Worked::Lost(loss) => {
                println!("{} stops in the middle of a {SEARCH}: {loss:?}", self.name);
                End::Lost
            }
            Worked::Stopped => {
                println!("{} hands a {SEARCH} back", self.name);
                held.release().await?;
                End::HandedBack
            }
        };
        // A host that does not listen any more is no reason to fail.
        let _ = self.says.send(Said::Ended(task, attempt, end));
        Ok(end)
    }

    /// A bit at a time, as long as the task is its own and the host does not want to stop.
    async fn work(&self, held: &Held, stop: &mut oneshot::Receiver<()>) -> Result<Worked, Error> {
        let mut rest: Range<u64> = held.task.json()?;
        let (mut lost, mut longest) = (pin!(held.lost()), Chain::default());
        while !rest.is_empty() {
            tokio::select! {
                biased;
                loss = &mut lost => return Ok(Worked::Lost(loss?)),
                _ = &mut *stop => return Ok(Worked::Stopped),
                // Others of this thread have their turn.
                () = yield_now() => {}
            }
            let bit = rest.start..rest.end.min(rest.start + BIT);
            rest.start = bit.end;
            longest = bit.map(|number| self.chains.borrow_mut().of(number)).fold(longest, Chain::longer);
            held.progress().await?;
            let _ = self.says.send(Said::Progress(held.task.id));
        }
        Ok(Worked::Found(longest))
    }
}

/// What is blocked, as soon as it can go on; without anything, never.
async fn resume(blocked: &mut Option<Blocked>) -> Result<Held, Error> {
    match blocked {
        Some(blocked) => blocked.resume().await,
        None => std::future::pending().await,
    }
}
