//! Settling in memory.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::dead_letter::AttemptEnd;
use crate::error::Error;
use crate::event::{Fingerprint, NewEvent};
use crate::memory::effects::Effects;
use crate::memory::place::Place;
use crate::memory::topics::Topics;
use crate::name::Topic;
use crate::settle::{Receipt, Settled, Settlement};
use crate::time::Timestamp;

impl Topics {
    pub(super) fn settle(
        &mut self,
        receipt: &Receipt,
        settlement: Settlement,
        fx: &mut Effects,
    ) -> Result<Settled, Error> {
        let outputs: Vec<Topic> = outputs(&settlement).iter().map(|output| output.topic.clone()).collect();
        let outcome = self.settle_one(receipt, settlement, fx);
        self.trim(&receipt.recipient().topic, fx);
        outputs.iter().for_each(|topic| self.trim(topic, fx));
        outcome
    }

    /// Ends several deliveries, and trims their topics, and those of what follows, once.
    pub(super) fn settle_all(
        &mut self,
        settlements: Vec<(Receipt, Settlement)>,
        fx: &mut Effects,
    ) -> Vec<Result<Settled, Error>> {
        let topics: BTreeSet<Topic> =
            settlements.iter().map(|(receipt, _)| receipt.recipient().topic.clone()).collect();
        let outputs = settlements.iter().flat_map(|(_, settlement)| outputs(settlement));
        let outputs: BTreeSet<Topic> = outputs.map(|output| output.topic.clone()).collect();
        let outcomes =
            settlements.into_iter().map(|(receipt, settlement)| self.settle_one(&receipt, settlement, fx)).collect();
        topics.iter().chain(&outputs).for_each(|topic| self.trim(topic, fx));
        outcomes
    }

    fn settle_one(&mut self, receipt: &Receipt, settlement: Settlement, fx: &mut Effects) -> Result<Settled, Error> {
        settlement.check(&fx.config.limits)?;
        let position = receipt.position();
        let said = match &settlement {
            Settlement::Commit(outputs) => Some(Fingerprint::of_outputs(outputs)),
            _ => None,
        };
        let mut place = self.place_of(receipt)?;
        if let Some(before) = place.group.answer(receipt, Some((&settlement, said)))? {
            return Ok(before);
        }
        let outcome = match settlement {
            Settlement::Ack => Settled::Acked,
            Settlement::Commit(outputs) => {
                let published = self.write(&outputs, fx)?;
                place = self.place_of(receipt)?;
                Settled::Committed(published.into())
            }
            Settlement::Nack { delay, reason } if !place.group.is_last_attempt(position) => {
                return Ok(place.give_back(position, delay, reason, fx));
            }
            Settlement::Nack { reason, .. } => {
                place.give_up(receipt, AttemptEnd::Nacked { reason, retry_at: None }, fx)?
            }
            Settlement::DeadLetter { reason } => place.give_up(receipt, AttemptEnd::Refused { reason }, fx)?,
        };
        if !matches!(outcome, Settled::DeadLettered(_)) {
            place.group.finish(position, fx.now, outcome.clone(), said);
        }
        place.wake(1, fx);
        Ok(outcome)
    }

    pub(super) fn extend(&mut self, receipt: &Receipt, by: Duration, fx: &mut Effects) -> Result<Timestamp, Error> {
        fx.config.limits.check_ack_timeout(by)?;
        let mut place = self.place_of(receipt)?;
        place.group.answer(receipt, None)?;
        let deadline = fx.now + by;
        place.group.extend(receipt.position(), deadline);
        place.arm(deadline, fx);
        Ok(deadline)
    }

    fn place_of(&mut self, receipt: &Receipt) -> Result<Place<'_>, Error> {
        self.place(receipt.recipient()).ok_or_else(|| receipt.stale_error(None))
    }
}

/// What follows from a settlement.
fn outputs(settlement: &Settlement) -> &[NewEvent] {
    match settlement {
        Settlement::Commit(outputs) => outputs,
        _ => &[],
    }
}

impl Place<'_> {
    fn give_up(&mut self, receipt: &Receipt, end: AttemptEnd, fx: &mut Effects) -> Result<Settled, Error> {
        let id = self.bury(receipt.position(), fx.now, end, fx).ok_or_else(|| receipt.stale_error(None))?;
        Ok(Settled::DeadLettered(id))
    }
}
