//! Ending a delivery.
//!
//! A delivery is identified by its [`Receipt`]: which event, to which incarnation of which group, to which consumer,
//! and for which time. Only the current one can settle, so a consumer that was taken for dead changes nothing when
//! it comes back; and a settle that is repeated, since its reply was lost, gets the first answer.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::dead_letter::DeadLetterId;
use crate::error::Error;
use crate::event::{NewEvent, Position, Published};
use crate::limits::Limits;
use crate::name::{GroupName, Topic};
use crate::text::Text;
use crate::time::Timestamp;

/// To whom deliveries go: one subscription of one group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Recipient {
    /// The topic.
    pub topic: Topic,
    /// The group.
    pub group: GroupName,
    /// Which group of that name: one that is removed and made anew is another.
    pub incarnation: u64,
    /// Which subscription of the group.
    pub consumer: u64,
}

/// Proof of one delivery. It can be kept, sent elsewhere as JSON, and used to settle from there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Flat", into = "Flat")]
pub struct Receipt {
    recipient: Arc<Recipient>,
    position: Position,
    delivery: u32,
}

/// The JSON form of a receipt.
#[derive(Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    recipient: Recipient,
    position: Position,
    delivery: u32,
}

impl From<Flat> for Receipt {
    fn from(flat: Flat) -> Self {
        Self { recipient: Arc::new(flat.recipient), position: flat.position, delivery: flat.delivery }
    }
}

impl From<Receipt> for Flat {
    fn from(receipt: Receipt) -> Self {
        Self { recipient: (*receipt.recipient).clone(), position: receipt.position, delivery: receipt.delivery }
    }
}

impl Receipt {
    /// The receipt of the `delivery`-th delivery of the event at `position`; made by backends.
    #[must_use]
    pub const fn new(recipient: Arc<Recipient>, position: Position, delivery: u32) -> Self {
        Self { recipient, position, delivery }
    }

    /// To whom it was delivered.
    #[must_use]
    pub fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// Which event.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Which delivery of this event to this group, counted from 1 and over redrives: the fencing token.
    #[must_use]
    pub const fn delivery(&self) -> u32 {
        self.delivery
    }

    /// The error that says this very delivery was settled before, in another way.
    #[must_use]
    pub fn already_settled_error(&self, outcome: &Settled) -> Error {
        Error::AlreadySettled {
            topic: self.recipient.topic.clone(),
            position: self.position,
            held: self.delivery,
            outcome: outcome.as_str(),
        }
    }

    /// The error that says this delivery is superseded by `current`.
    #[must_use]
    pub fn stale_error(&self, current: Option<u32>) -> Error {
        let Recipient { topic, group, .. } = self.recipient();
        Error::StaleDelivery {
            topic: topic.clone(),
            group: group.clone(),
            position: self.position,
            held: self.delivery,
            current,
        }
    }
}

/// How a delivery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The event is done.
    Ack,
    /// The event is done and these follow from it: all in one step, or nothing.
    Commit(Vec<NewEvent>),
    /// The event is to be handled again, after `delay` or, without one, after the backoff of
    /// [`Config`](crate::Config). After the last attempt it becomes a dead letter.
    Nack {
        /// How long to wait.
        delay: Option<Duration>,
        /// Why, for the history.
        reason: Option<Text>,
    },
    /// The event cannot be handled; it becomes a dead letter at once.
    DeadLetter {
        /// Why, for the history.
        reason: Text,
    },
}

impl Settlement {
    /// Checks delay and reason; backends call it before they do anything.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`].
    pub fn check(&self, limits: &Limits) -> Result<(), Error> {
        match self {
            Self::Ack | Self::Commit(_) => Ok(()),
            Self::DeadLetter { reason } => limits.check_reason(reason),
            Self::Nack { delay, reason } => {
                limits.check_delay(delay.unwrap_or_default())?;
                limits.check_reason(reason.as_deref().unwrap_or_default())
            }
        }
    }
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The event is done.
    Acked,
    /// The event is done, and these were published.
    Committed(Arc<[Published]>),
    /// The event comes back at this time.
    Retrying(Timestamp),
    /// The event is a dead letter now.
    DeadLettered(DeadLetterId),
}

impl Settled {
    /// The outcome in a word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Acked => "acked",
            Self::Committed(_) => "committed",
            Self::Retrying(_) => "given back",
            Self::DeadLettered(_) => "dead-lettered",
        }
    }
}

/// Settles deliveries.
///
/// # To ensure correctness
///
/// Every call is one atomic step. It acts only for the current delivery: the receipt's incarnation, consumer and
/// delivery number must be the latest of this event and group. After its deadline a delivery stays current until the
/// event is handed out again or dies.
#[async_trait]
pub trait Settle: Debug + Send + Sync + 'static {
    /// Ends a delivery.
    ///
    /// Repeating the same settlement with the same receipt gets the first answer and changes nothing, at least for one
    /// [`Config::ack_timeout`](crate::Config::ack_timeout), unless [`Limits::settles`] later ones of the group came
    /// meanwhile. The same settlement is the same verb and, for a commit, outputs
    /// that say the same. Outputs of [`Settlement::Commit`] exist if and only if the event is done.
    ///
    /// # Errors
    ///
    /// [`Error::StaleDelivery`] when the delivery was superseded; [`Error::AlreadySettled`] when it was settled
    /// differently; [`Error::NotRetained`] when the event was settled so long ago that nobody remembers by whom; for
    /// outputs, the errors of [`EventBus::publish`](crate::EventBus::publish). After any error but
    /// [`Error::Backend`] nothing has changed; after that one, settle again.
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; settle again to be sure.
    async fn settle(&self, receipt: &Receipt, settlement: Settlement) -> Result<Settled, Error>;

    /// Ends several deliveries, each in a step of its own, in order and in one call to the backend: at most
    /// [`Limits::batch`]. Answers for each as [`Settle::settle`] would.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] when there are too many; then none was settled. [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Some, all or none may have been settled; settle them again to be sure.
    async fn settle_all(&self, settlements: Vec<(Receipt, Settlement)>) -> Result<Vec<Result<Settled, Error>>, Error>;

    /// Gives the consumer `by` from now on to settle, and answers with the new deadline. Settles nothing and counts no
    /// attempt; where the deadline had passed unnoticed, the delivery is alive again.
    ///
    /// # Errors
    ///
    /// As [`Settle::settle`]; [`Error::LimitExceeded`] when `by` is longer than
    /// [`Limits::ack_timeout`](crate::Limits::ack_timeout).
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; extend again to be sure.
    async fn extend(&self, receipt: &Receipt, by: Duration) -> Result<Timestamp, Error>;
}
