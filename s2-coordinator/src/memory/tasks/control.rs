//! What others do to tasks: cancel, assign, unblock.

use crate::dependency::TaskId;
use crate::error::Error;
use crate::memory::effects::Effects;
use crate::memory::tasks::slot::State;
use crate::memory::tasks::{Tasks, named};
use crate::outcome::Outcome;
use crate::swarm::SwarmId;
use crate::text::Text;

impl Tasks {
    pub(in crate::memory) fn cancel(&mut self, id: TaskId, reason: Text, fx: &mut Effects) -> Result<bool, Error> {
        fx.config.limits.check_reason(&reason)?;
        let slot = self.slot(id)?;
        if let Some(outcome) = slot.outcome() {
            return Ok(matches!(outcome, Outcome::Cancelled { .. }));
        }
        let entry = self.record("cancelled", id).with("reason", reason.clone());
        self.finish(id, Outcome::Cancelled { reason }, entry, fx);
        Ok(true)
    }

    pub(in crate::memory) fn assign(
        &mut self,
        id: TaskId,
        to: Option<&SwarmId>,
        fx: &mut Effects,
    ) -> Result<(), Error> {
        let slot = self.slot(id)?;
        if !matches!(slot.state, State::Waiting | State::Delayed(_) | State::Ready | State::OnHold(_)) {
            let expected = "only a task that nobody has can be assigned";
            return Err(Error::WrongState { task: id, state: slot.state(), expected });
        }
        if let Some(session) = to.and_then(|to| self.sessions.named(to))
            && !session.offers.may_take(&slot.task.requires)
        {
            let missing = session.offers.missing(&slot.task.requires);
            return Err(Error::NotEligible { session: session.incarnation.session.clone(), task: id, missing });
        }
        if slot.assignee.as_ref() == to {
            return Ok(());
        }
        let entry = self.record("assigned", id);
        fx.journal(match to {
            Some(to) => entry.with("to", named(to)),
            None => entry,
        });
        self.change(id, fx, |slot, _| (slot.assignee, slot.was_claimed) = (to.cloned(), false));
        Ok(())
    }

    pub(in crate::memory) fn unblock(&mut self, id: TaskId, fx: &mut Effects) -> Result<bool, Error> {
        let State::Blocked(blocked) = &self.slot(id)?.state else { return Ok(false) };
        let blocked = blocked.clone();
        self.drop_edges(id);
        self.offer_resumption(id, blocked, fx);
        Ok(true)
    }
}
