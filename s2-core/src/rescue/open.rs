//! A rescue on its way.

use std::collections::HashSet;

use s2_coordinator::{
    Capabilities, Capability, Held, NewTask, Outcome, SwarmId, TaskId, TaskState, Tasks, Text, Timestamp, When,
};

use crate::error::Error;
use crate::help::HELP;
use crate::help::HelpRequest;
use crate::help::Helped;
use crate::help::Rescue;
use crate::hooks::asked;
use crate::s2::S2;
use crate::settings::Enough;

/// A rescue on its way.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) held: Held,
    pub(super) rescue: Rescue,
    pub(super) parts: Vec<Part>,
    /// When helpers are to be looked for, if they are.
    pub(super) look_at: Option<Timestamp>,
    /// Whether a person was told that there are none.
    pub(super) escalated: bool,
}

/// Somebody was asked.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) task: TaskId,
    pub(super) request: HelpRequest,
    pub(super) end: Option<PartEnd>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartEnd {
    /// The result is accepted.
    Helped,
    /// It declined, took too long, was lost, or its result is of no use.
    Failed,
    /// It was cancelled: that says nothing about it.
    CalledOff,
}

impl Open {
    /// Takes up a rescue where it stands.
    pub(super) async fn take_up(s2: &S2, held: Held) -> Result<Self, Error> {
        let rescue: Rescue = held.task.json()?;
        let mut parts = Vec::new();
        // Nobody was asked before there was anything to ask for; so older tasks need not be looked at.
        let mut which = Some(Tasks::all().with_parent(held.task.id).after(held.task.id));
        while let Some(listed) = which {
            let page = s2.scheduler().list(&listed).await?;
            for status in &page.items {
                let request: HelpRequest = status.task.json()?;
                let end = part_end(s2, status.task.id, status.state, &request).await?;
                parts.push(Part { task: status.task.id, request, end });
            }
            which = page.next.map(|next| listed.after(next));
        }
        let mut open = Self { held, rescue, parts, look_at: None, escalated: false };
        let most = s2.settings().rescue_policy.max_rescuers_per_blocker;
        open.look_at = (open.places(most) > 0).then(|| s2.clock().now());
        Ok(open)
    }

    pub(super) fn id(&self) -> TaskId {
        self.held.task.id
    }

    /// Who was asked before.
    pub(super) fn was_asked(&self, session: &SwarmId) -> bool {
        self.parts.iter().any(|part| part.request.helper == *session)
    }

    pub(super) fn running(&self) -> usize {
        self.parts.iter().filter(|part| part.end.is_none()).count()
    }

    pub(super) fn helped(&self) -> usize {
        self.parts.iter().filter(|part| part.end == Some(PartEnd::Helped)).count()
    }

    /// Whether there is enough help.
    pub(super) fn is_enough(&self, enough: Enough, most: usize) -> bool {
        match enough {
            Enough::First => self.helped() > 0,
            Enough::All => {
                self.running() == 0 && self.helped() > 0 && (self.helped() >= most || self.look_at.is_none())
            }
        }
    }

    /// How many more may be asked.
    pub(super) fn places(&self, most: usize) -> usize {
        most.saturating_sub(self.running() + self.helped())
    }

    /// What the rescue came to.
    pub(super) fn helpers(&self) -> Vec<Helped> {
        let helped = self.parts.iter().filter(|part| part.end == Some(PartEnd::Helped));
        helped.map(|part| Helped { helper: part.request.helper.clone(), task: part.task }).collect()
    }

    /// What a helper is asked for.
    pub(super) fn request(&self, s2: &S2, helper: SwarmId, because: &Text) -> HelpRequest {
        let Rescue { blocked, by, kind, subject, reason, requires, .. } = self.rescue.clone();
        let because = because.clone();
        let mut request = HelpRequest { blocked, by, kind, subject, reason, requires, helper, because, details: None };
        request.details = asked("details", || s2.parts.hooks.details(&request)).flatten();
        request
    }

    /// The task by which the `nth` helper is asked: once, whoever organises.
    pub(super) fn help(
        &self,
        s2: &S2,
        nth: usize,
        request: &HelpRequest,
        offers: &Capabilities,
    ) -> Result<NewTask, Error> {
        let task = &self.held.task;
        let missing: HashSet<Capability> = Vec::from(offers.missing(&request.requires)).into_iter().collect();
        let fits = request.requires.iter().filter(|path| !missing.contains(*path)).cloned().collect();
        let mut new = NewTask::new(HELP, request.by.clone())
            .with_key(format!("help/{}/{nth}", task.id).parse()?)
            .with_json(request)?
            .with_parent(task.id)
            // Nobody who knows less steals it.
            .with_requires(fits)
            .with_assignee(request.helper.clone())
            .with_attempts(1)
            .with_priority(task.priority)
            .with_deadline(When::In(s2.settings().help.timeout));
        new.trace = task.trace;
        new.subject = request.subject.clone();
        Ok(new)
    }
}

/// What came of asking somebody, if it is over.
pub(super) async fn part_end(
    s2: &S2,
    task: TaskId,
    state: TaskState,
    request: &HelpRequest,
) -> Result<Option<PartEnd>, Error> {
    if !state.is_finished() {
        return Ok(None);
    }
    let outcome = s2.scheduler().outcome(task).await?;
    Ok(outcome.map(|outcome| judge(s2, request, &outcome)))
}

/// Whether what came out is of use.
pub(super) fn judge(s2: &S2, request: &HelpRequest, outcome: &Outcome) -> PartEnd {
    match outcome {
        Outcome::Done(result) => {
            let accepts = asked("accepts", || s2.parts.hooks.accepts(request, result)).unwrap_or(false);
            if accepts { PartEnd::Helped } else { PartEnd::Failed }
        }
        Outcome::Failed { .. } => PartEnd::Failed,
        Outcome::Cancelled { .. } => PartEnd::CalledOff,
    }
}
