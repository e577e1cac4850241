//! One event in the hands of one consumer.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::event::{Event, NewEvent, Published};
use crate::settle::{Receipt, Settle, Settled, Settlement};
use crate::text::Text;
use crate::time::Timestamp;

/// An event to handle, and the right to say what became of it.
///
/// Handling started when this was handed out; that counts as one attempt. Settle it before [`Delivery::deadline`], or
/// extend the deadline. A delivery that is dropped without being settled comes back after its deadline, like one whose
/// consumer crashed.
///
/// All methods may be called again: after a lost reply, the same call gets the same answer.
#[derive(Clone, Debug)]
#[must_use = "a delivery that is not settled comes back after its ack timeout"]
pub struct Delivery {
    /// The event.
    pub event: Arc<Event>,
    /// Which attempt this is since the event was published or last redriven: 1 is the first, and
    /// [`Config::deliveries`](crate::Config::deliveries) the last.
    pub attempt: u32,
    /// Until when it should be settled, by the store's clock, unless extended.
    pub deadline: Timestamp,
    /// What identifies the delivery.
    pub receipt: Receipt,
    settle: Arc<dyn Settle>,
}

impl Delivery {
    /// A delivery; made by backends.
    pub fn new(
        event: Arc<Event>,
        attempt: u32,
        deadline: Timestamp,
        receipt: Receipt,
        settle: Arc<dyn Settle>,
    ) -> Self {
        Self { event, attempt, deadline, receipt, settle }
    }

    /// The event is done.
    ///
    /// # Errors
    ///
    /// As [`Settle::settle`].
    ///
    /// # Cancel safety
    ///
    /// As [`Settle::settle`].
    pub async fn ack(&self) -> Result<(), Error> {
        self.settle(Settlement::Ack).await.map(drop)
    }

    /// Acks several deliveries of one backend in one call and answers for each.
    ///
    /// # Errors
    ///
    /// As [`Settle::settle_all`].
    ///
    /// # Cancel safety
    ///
    /// As [`Settle::settle_all`].
    pub async fn ack_all(deliveries: &[Delivery]) -> Result<Vec<Result<Settled, Error>>, Error> {
        let Some(first) = deliveries.first() else { return Ok(Vec::new()) };
        let acks = deliveries.iter().map(|delivery| (delivery.receipt.clone(), Settlement::Ack));
        first.settle.settle_all(acks.collect()).await
    }

    /// Ends the delivery in any way: what the other methods are short for.
    ///
    /// # Errors
    ///
    /// As [`Settle::settle`].
    ///
    /// # Cancel safety
    ///
    /// As [`Settle::settle`].
    pub async fn settle(&self, settlement: Settlement) -> Result<Settled, Error> {
        self.settle.settle(&self.receipt, settlement).await
    }

    /// The event is done and `outputs` are published, in one step: the outputs exist if and only if the event is done.
    ///
    /// # Errors
    ///
    /// As [`Settle::settle`].
    ///
    /// # Cancel safety
    ///
    /// As [`Settle::settle`].
    pub async fn commit(&self, outputs: &[NewEvent]) -> Result<Arc<[Published]>, Error> {
        match self.settle(Settlement::Commit(outputs.to_vec())).await? {
            Settled::Committed(published) => Ok(published),
            other => Err(self.receipt.already_settled_error(&other)),
        }
    }

    /// The event is to be handled again after `delay`; after the last attempt it becomes a dead letter. The answer says
    /// which.
    ///
    /// # Errors
    ///
    /// As [`Settle::settle`]; [`Error::LimitExceeded`] when the delay is longer than
    /// [`Limits::delay`](crate::Limits::delay).
    ///
    /// # Cancel safety
    ///
    /// As [`Settle::settle`].
    pub async fn nack(&self, delay: Duration) -> Result<Settled, Error> {
        self.settle(Settlement::Nack { delay: Some(delay), reason: None }).await
    }

    /// The event is to be handled again after the backoff of [`Config`](crate::Config), because of `reason`.
    ///
    /// # Errors
    ///
    /// As [`Settle::settle`]; [`Error::LimitExceeded`] when the reason is too long.
    ///
    /// # Cancel safety
    ///
    /// As [`Settle::settle`].
    pub async fn retry(&self, reason: impl Into<Text>) -> Result<Settled, Error> {
        self.settle(Settlement::Nack { delay: None, reason: Some(reason.into()) }).await
    }

    /// The event cannot be handled: it becomes a dead letter at once.
    ///
    /// # Errors
    ///
    /// As [`Settle::settle`]; [`Error::LimitExceeded`] when the reason is too long.
    ///
    /// # Cancel safety
    ///
    /// As [`Settle::settle`].
    pub async fn dead_letter(&self, reason: impl Into<Text>) -> Result<Settled, Error> {
        self.settle(Settlement::DeadLetter { reason: reason.into() }).await
    }

    /// Moves the deadline to `by` from now and answers with it.
    ///
    /// # Errors
    ///
    /// As [`Settle::extend`].
    ///
    /// # Cancel safety
    ///
    /// As [`Settle::extend`].
    pub async fn extend(&self, by: Duration) -> Result<Timestamp, Error> {
        self.settle.extend(&self.receipt, by).await
    }
}
