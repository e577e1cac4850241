//! The way of one event through one group.

use std::time::Duration;

use crate::dead_letter::{Attempt, AttemptEnd, DeadLetterId};
use crate::error::Error;
use crate::event::Fingerprint;
use crate::name::ConsumerName;
use crate::settle::{Receipt, Settled, Settlement};
use crate::time::Timestamp;

#[derive(Clone, Debug)]
pub(super) enum State {
    /// In the hands of [`Slot::consumer`].
    InFlight { deadline: Timestamp },
    /// Given back, to return at this time.
    Delayed(Timestamp),
    /// Waits to be handed out again.
    Ready,
    /// Done, as far as this group is concerned.
    Settled(Settled),
}

#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// How often it was handed out: the fencing token of the latest delivery.
    pub(super) delivery: u32,
    /// How often it had been handed out when it was last redriven.
    born: u32,
    /// To whom it was handed out last.
    pub(super) consumer: u64,
    handler: ConsumerName,
    /// When it was handed out last, or settled.
    since: Timestamp,
    /// Whether its last handling ended in a time-out or a crash, so that it might take its neighbours along.
    pub(super) suspect: bool,
    pub(super) state: State,
    /// What a commit said.
    said: Option<Box<Fingerprint>>,
    history: Vec<Failure>,
}

/// A handling that failed, and the dead letter that it led to.
#[derive(Clone, Debug)]
struct Failure {
    attempt: Attempt,
    consumer: u64,
    death: Option<DeadLetterId>,
}

impl Failure {
    fn is_suspicious(&self) -> bool {
        matches!(self.attempt.end, AttemptEnd::TimedOut | AttemptEnd::Lost)
    }

    /// What the consumer was told, if this was its doing.
    fn answer(&self) -> Option<Settled> {
        match (&self.attempt.end, self.death) {
            (AttemptEnd::Nacked { .. } | AttemptEnd::Refused { .. }, Some(id)) => Some(Settled::DeadLettered(id)),
            (AttemptEnd::Nacked { retry_at: Some(at), .. }, None) => Some(Settled::Retrying(*at)),
            _ => None,
        }
    }

    /// Whether `settlement` is what ended the delivery so.
    fn is_of(&self, settlement: &Settlement) -> bool {
        matches!(
            (&self.attempt.end, settlement),
            (AttemptEnd::Nacked { .. }, Settlement::Nack { .. })
                | (AttemptEnd::Refused { .. }, Settlement::DeadLetter { .. })
        )
    }
}

impl Slot {
    pub(super) const fn new() -> Self {
        const NOBODY: ConsumerName = ConsumerName::from_static("nobody");
        Self {
            delivery: 0,
            born: 0,
            consumer: 0,
            handler: NOBODY,
            since: Timestamp::EPOCH,
            suspect: false,
            state: State::Ready,
            said: None,
            history: Vec::new(),
        }
    }

    /// How often it was tried since it was published or last redriven.
    pub(super) const fn attempts(&self) -> u32 {
        self.delivery - self.born
    }

    pub(super) const fn is_settled(&self) -> bool {
        matches!(self.state, State::Settled(_))
    }

    /// Whether it was settled so long ago that nobody repeats it any more.
    pub(super) fn is_past(&self, now: Timestamp, window: Duration) -> bool {
        self.is_settled() && now.since(self.since) >= window
    }

    pub(super) fn hand_out(&mut self, consumer: u64, handler: ConsumerName, now: Timestamp, deadline: Timestamp) {
        self.delivery += 1;
        self.consumer = consumer;
        self.handler = handler;
        self.since = now;
        self.state = State::InFlight { deadline };
    }

    pub(super) fn settle(&mut self, now: Timestamp, outcome: Settled) {
        self.forgive();
        self.since = now;
        self.state = State::Settled(outcome);
    }

    /// Notes what a commit said.
    pub(super) fn say(&mut self, said: Fingerprint) {
        self.said = Some(Box::new(said));
    }

    /// Notes that the current delivery failed. A settle that came late, but in time, replaces the time-out.
    pub(super) fn fail(&mut self, now: Timestamp, end: AttemptEnd) {
        self.forgive();
        let attempt = Attempt::new(self.delivery, self.handler.clone(), self.since, now, end);
        self.history.push(Failure { attempt, consumer: self.consumer, death: None });
    }

    /// Forgets that the current delivery timed out.
    pub(super) fn forgive(&mut self) {
        let forgiven =
            self.history.pop_if(|failure| failure.attempt.delivery == self.delivery && failure.is_suspicious());
        if forgiven.is_some() {
            let of_this_life = |failure: &&Failure| failure.attempt.delivery > self.born;
            self.suspect = self.history.last().filter(of_this_life).is_some_and(Failure::is_suspicious);
        }
    }

    /// Notes which dead letter the last failure led to.
    pub(super) fn die(&mut self, now: Timestamp, id: DeadLetterId) {
        if let Some(last) = self.history.last_mut() {
            last.death = Some(id);
        }
        self.since = now;
        self.state = State::Settled(Settled::DeadLettered(id));
    }

    /// All attempts anew.
    pub(super) fn be_reborn(&mut self) {
        self.born = self.delivery;
        self.suspect = false;
        self.state = State::Ready;
    }

    /// The failures of this life.
    pub(super) fn history(&self) -> Vec<Attempt> {
        let lived = self.history.iter().filter(|failure| failure.attempt.delivery > self.born);
        lived.map(|failure| failure.attempt.clone()).collect()
    }

    /// The delivery that counts, if one does.
    fn current(&self) -> Option<u32> {
        (!self.is_settled() && self.delivery > self.born).then_some(self.delivery)
    }

    /// The first answer, if this receipt has settled before and `settlement` says the same; nothing if it is that of the
    /// current delivery. Without a settlement, only the current delivery will do.
    pub(super) fn answer(
        &self,
        receipt: &Receipt,
        settlement: Option<(&Settlement, Option<Fingerprint>)>,
    ) -> Result<Option<Settled>, Error> {
        let failure = self.history.iter().rev().find(|failure| failure.attempt.delivery == receipt.delivery());
        if let Some(failure) = failure {
            if failure.consumer != receipt.recipient().consumer {
                return Err(receipt.stale_error(self.current()));
            }
            if let Some(answer) = failure.answer() {
                let alike = settlement.is_some_and(|(settlement, _)| failure.is_of(settlement));
                return if alike { Ok(Some(answer)) } else { Err(receipt.already_settled_error(&answer)) };
            }
            // The deadline passed. While the event is not handed out again, nor dead, better late than twice.
            if failure.death.is_some() || self.born >= receipt.delivery() {
                return Err(receipt.stale_error(self.current()));
            }
        }
        if self.delivery != receipt.delivery() || self.consumer != receipt.recipient().consumer {
            return Err(receipt.stale_error(self.current()));
        }
        let State::Settled(answer) = &self.state else { return Ok(None) };
        let alike = match settlement {
            Some((Settlement::Ack, _)) => *answer == Settled::Acked,
            Some((Settlement::Commit(_), said)) => self.said.as_deref() == said.as_ref(),
            _ => false,
        };
        if alike { Ok(Some(answer.clone())) } else { Err(receipt.already_settled_error(answer)) }
    }
}
