//! One task, and where it is.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::capability::Capabilities;
use crate::config::Config;
use crate::dependency::{OnFailure, TaskId};
use crate::ending::{Blocker, Ended, Ending};
use crate::error::Error;
use crate::lease::{Grant, Incarnation, Lease, Loss, Preempted, Token};
use crate::memory::tasks::queue::{ClassId, Place};
use crate::order::OrderKey;
use crate::outcome::{Outcome, Run};
use crate::swarm::SwarmId;
use crate::task::{Task, TaskState, TaskStatus};
use crate::text::Text;
use crate::time::Timestamp;
use crate::waits::{Needs, Waiter};

/// How many ended claims of a task are remembered.
const ENDS: usize = 8;

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) task: Arc<Task>,
    pub(super) class: ClassId,
    pub(super) state: State,
    /// From when its key counts: when it became ready, or will at the earliest.
    pub(super) since: Timestamp,
    /// Its own key, or that of what waits for it, if that is smaller.
    pub(super) key: OrderKey,
    pub(super) failures: u32,
    pub(super) history: Vec<Run>,
    /// What it waits for.
    pub(super) waits: Vec<(TaskId, OnFailure)>,
    /// What waits for it, and is told when it is finished.
    pub(super) dependants: BTreeSet<(OrderKey, TaskId)>,
    /// In whose own queue it stands when it is ready.
    pub(super) assignee: Option<SwarmId>,
    /// Whether somebody has had it since it was assigned.
    pub(super) was_claimed: bool,
    /// What it has waited for while it was blocked.
    pub(super) answers: Vec<TaskId>,
    /// That it went on without all of them.
    pub(super) released: Option<Box<Released>>,
    pub(super) children: usize,
    pub(super) redriven: bool,
    /// Who had blocked it, until somebody has it again.
    pub(super) blocked_by: Option<Box<Blocked>>,
    /// How its latest claim ended.
    last_end: Option<(Token, End)>,
    /// How those before it did, the latest first. Most tasks are claimed once.
    ends_before: VecDeque<(Token, End)>,
}

#[derive(Debug)]
pub(super) enum State {
    Waiting,
    Delayed(Timestamp),
    Ready,
    /// Ready for the session that had blocked it, and until then for nobody else.
    Resumable(Box<Blocked>, Timestamp),
    Claimed(Hold),
    Blocked(Box<Blocked>),
    OnHold(TaskId),
    Finished(Outcome, Timestamp),
}

/// A claim.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) by: Incarnation,
    pub(super) token: Token,
    pub(super) started: Timestamp,
    pub(super) deadline: Timestamp,
    pub(super) expires: Option<Timestamp>,
    /// When progress was last reported.
    pub(super) progressed: Timestamp,
    /// The claim that was ended by blocking, if this one resumes it.
    pub(super) resumes: Option<Token>,
}

/// Who waits for help.
#[derive(Clone, Debug)]
pub(super) struct Blocked {
    pub(super) by: Incarnation,
    /// The claim that was ended by blocking.
    pub(super) token: Token,
    pub(super) reason: Text,
    /// What one must be capable of to help.
    pub(super) requires: Capabilities,
    pub(super) awaited: bool,
    pub(super) needs: Needs,
    pub(super) since: Timestamp,
    /// Whether it was released before and has been blocked on the same again.
    pub(super) again: bool,
    /// A ring that it was in and that only a person may open.
    pub(super) cycle: Vec<TaskId>,
}

/// That a blocked task was released without what it waited for.
#[derive(Clone, Debug)]
pub(super) struct Released {
    pub(super) preempted: Preempted,
    /// Whether it has not been blocked since.
    pub(super) is_latest: bool,
    /// What it was blocked by, after how many failures.
    pub(super) failures: u32,
    pub(super) reason: Text,
    pub(super) from: Vec<TaskId>,
}

impl Blocked {
    /// Until when it waits at the longest.
    pub(super) fn patience(&self, config: &Config) -> Option<Timestamp> {
        Some(self.since + config.longest_wait).filter(|at| *at < Timestamp::MAX)
    }
}

#[derive(Clone, Debug)]
enum End {
    ByHolder(Ended),
    Lost(Loss),
}

impl Slot {
    pub(super) fn new(task: Arc<Task>, class: ClassId, key: OrderKey) -> Self {
        Self {
            class,
            state: State::Waiting,
            since: task.start,
            key,
            failures: 0,
            history: Vec::new(),
            waits: Vec::new(),
            dependants: BTreeSet::new(),
            assignee: None,
            was_claimed: false,
            answers: Vec::new(),
            released: None,
            children: 0,
            redriven: false,
            blocked_by: None,
            last_end: None,
            ends_before: VecDeque::new(),
            task,
        }
    }

    pub(super) fn id(&self) -> TaskId {
        self.task.id
    }

    pub(super) fn place(&self) -> Place {
        Place::new(self.key, self.task.path, self.task.id)
    }

    pub(super) const fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            State::Finished(outcome, _) => Some(outcome),
            _ => None,
        }
    }

    pub(super) const fn hold(&self) -> Option<&Hold> {
        match &self.state {
            State::Claimed(hold) => Some(hold),
            _ => None,
        }
    }

    /// The claim with this token, if it is the current one and its time is not over.
    pub(super) fn hold_of(&self, token: Token, now: Timestamp) -> Result<&Hold, Error> {
        let held = self.hold().filter(|hold| hold.token == token && hold.deadline > now);
        held.ok_or_else(|| self.stale(token))
    }

    pub(super) fn stale(&self, held: Token) -> Error {
        Error::StaleLease { task: self.id(), held, current: self.hold().map(|hold| hold.token) }
    }

    /// The first answer to whoever has ended this claim before and says so again.
    pub(super) fn answer(&self, held: Token, ending: &Ending, now: Timestamp) -> Result<Option<Ended>, Error> {
        let Some(End::ByHolder(ended)) = self.end_of(held) else {
            return self.hold_of(held, now).map(|_| None);
        };
        if self.is_same(ending, ended) {
            return Ok(Some(ended.clone()));
        }
        Err(Error::AlreadyEnded { task: self.id(), held, outcome: ended.as_str() })
    }

    fn is_same(&self, ending: &Ending, ended: &Ended) -> bool {
        match (ending, ended) {
            (Ending::Complete(said), Ended::Completed { tasks, events }) => {
                let result = self.outcome().and_then(Outcome::result);
                result.is_none_or(|result| *result == said.result)
                    && said.tasks.len() == tasks.len()
                    && said.events.len() == events.len()
            }
            (Ending::Fail { .. }, Ended::Retrying { .. } | Ended::Failed)
            | (Ending::Release, Ended::Released)
            | (Ending::Refuse { .. }, Ended::Refused { .. }) => true,
            (Ending::Block(said), Ended::Blocked { help }) => said.help.len() == help.len(),
            _ => false,
        }
    }

    pub(super) fn ended_by_holder(&mut self, token: Token, ended: Ended) {
        self.remember(token, End::ByHolder(ended));
    }

    /// The claim is over, unless its holder has just ended it.
    pub(super) fn was_lost(&mut self, token: Token, loss: Loss) {
        if self.last_end.as_ref().is_none_or(|(last, _)| *last != token) {
            self.remember(token, End::Lost(loss));
        }
    }

    fn remember(&mut self, token: Token, end: End) {
        if let Some(before) = self.last_end.replace((token, end)) {
            self.ends_before.push_front(before);
            self.ends_before.truncate(ENDS - 1);
        }
    }

    fn ends(&self) -> impl Iterator<Item = &(Token, End)> {
        self.last_end.iter().chain(&self.ends_before)
    }

    fn end_of(&self, token: Token) -> Option<&End> {
        self.ends().find(|(other, _)| *other == token).map(|(_, end)| end)
    }

    /// Why a claim is over; nothing while it is not.
    pub(super) fn loss(&self, token: Token) -> Option<Loss> {
        if self.hold().is_some_and(|hold| hold.token == token) {
            return None;
        }
        match self.end_of(token) {
            Some(End::ByHolder(_)) => Some(Loss::Ended),
            Some(End::Lost(loss)) => Some(loss.clone()),
            None => Some(Loss::Forgotten),
        }
    }

    /// The current claim as it was granted.
    pub(super) fn grant(&self) -> Option<Grant> {
        let hold = self.hold()?;
        let mut grant =
            Grant::new(Arc::clone(&self.task), self.failures + 1, hold.token, hold.started, self.answers.clone());
        grant.deadline = hold.deadline;
        grant.preempted = self.preempted().map(Box::new);
        Some(grant)
    }

    pub(super) fn state(&self) -> TaskState {
        match &self.state {
            State::Waiting => TaskState::Waiting,
            State::Delayed(_) => TaskState::Delayed,
            State::Ready | State::Resumable(..) => TaskState::Ready,
            State::Claimed(_) => TaskState::Claimed,
            State::Blocked(_) => TaskState::Blocked,
            State::OnHold(_) => TaskState::OnHold,
            State::Finished(Outcome::Done(_), _) => TaskState::Done,
            State::Finished(Outcome::Failed { .. }, _) => TaskState::Failed,
            State::Finished(Outcome::Cancelled { .. }, _) => TaskState::Cancelled,
        }
    }

    /// In whose queue or hands it is.
    pub(super) fn session(&self) -> Option<&SwarmId> {
        match &self.state {
            State::Claimed(hold) => Some(&hold.by.session),
            State::Blocked(blocked) | State::Resumable(blocked, _) => Some(&blocked.by.session),
            State::Ready => self.assignee.as_ref(),
            _ => None,
        }
    }

    /// The task as one that waits, or is waited for.
    pub(super) fn waiter(&self) -> Waiter {
        let mut waiter = Waiter::new(self.id(), self.state());
        waiter.session = self.session().cloned();
        if let Some(wait) = self.wait() {
            (waiter.needs, waiter.blocked) = (wait.needs, Some(wait.since));
            // Who takes it up instead of a session that is gone may find another way.
            waiter.again = wait.again && matches!(self.state, State::Blocked(_));
        }
        waiter.on = self.waits.iter().map(|(on, _)| *on).collect();
        waiter.on.sort_unstable();
        waiter
    }

    /// Why it goes on without what it last waited for, if it does.
    pub(super) fn preempted(&self) -> Option<Preempted> {
        self.released.as_ref().filter(|released| released.is_latest).map(|released| released.preempted.clone())
    }

    /// Whether it is to be blocked by what it was released from in the same attempt. New help is told by the reason.
    pub(super) fn is_blocked_again(&self, waits: &[TaskId], blocker: &Blocker) -> bool {
        self.released.as_ref().is_some_and(|before| {
            let is_same = blocker.on.is_empty() && before.reason == blocker.reason
                || before.from.iter().any(|task| waits.contains(task));
            before.failures == self.failures && is_same
        })
    }

    /// Who has blocked it, while it waits for what that one asked for.
    pub(super) fn wait(&self) -> Option<&Blocked> {
        match &self.state {
            State::Blocked(blocked) => Some(blocked),
            State::Waiting => self.blocked_by.as_deref(),
            _ => None,
        }
    }

    pub(super) fn status(&self) -> TaskStatus {
        TaskStatus::new(Arc::clone(&self.task), self.state(), self.failures, self.session().cloned())
    }

    /// About how many bytes it occupies.
    pub(super) fn weight(&self) -> u64 {
        let runs =
            |history: &[Run]| history.iter().map(|run| size_of::<Run>() + run.end.weight()).sum::<usize>() as u64;
        let said = match self.outcome() {
            None => 0,
            Some(Outcome::Done(result)) => result.data.len() as u64 + result.evidence.weight(),
            Some(Outcome::Failed { history, .. }) => runs(history),
            Some(Outcome::Cancelled { reason }) => reason.len() as u64,
        };
        let ends = self.ends().map(|(_, end)| match end {
            End::ByHolder(Ended::Completed { tasks, events }) => size_of_val(&**tasks) + size_of_val(&**events),
            End::ByHolder(Ended::Blocked { help }) => size_of_val(&**help),
            _ => 0,
        });
        let ends = (ends.sum::<usize>() + self.ends_before.len() * size_of::<(Token, End)>()) as u64;
        let answers = (self.answers.len() * size_of::<TaskId>()) as u64;
        size_of::<Self>() as u64 + self.task.weight() + said + ends + answers + runs(&self.history)
    }

    pub(super) fn lease(&self, token: Token) -> Lease {
        Lease { task: self.id(), token }
    }
}
