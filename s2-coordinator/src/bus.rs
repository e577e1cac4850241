//! The event bus: what sessions tell each other.
//!
//! Polling a shared repository every 30 s means blind periods, races and duplicate work. Here events are pushed, and
//! delivery has rules that survive crashes: each group gets every event once it settles; an event whose handler
//! dies comes back; one that kills every handler ends as a dead letter with its history; and what must happen exactly
//! once is committed together with the event that caused it.

use std::sync::Arc;

use async_trait::async_trait;

use crate::dead_letter::{DeadLetter, DeadLetterId, DeadLetters, Redriven};
use crate::error::Error;
use crate::event::{Event, NewEvent, Published};
use crate::group::Group;
use crate::name::{GroupName, Topic};
use crate::page::Page;
use crate::settle::Settle;
use crate::start::Start;
use crate::subscription::{Subscribe, Subscription};
use crate::tail::Tail;

/// What sessions tell each other: publishes, delivers, replays.
///
/// | promise | what it means |
/// |---|---|
/// | publish | a batch is atomic; under one idempotency key an event is written once |
/// | groups | each group gets every event until it settles it; its consumers share them |
/// | tail, read | everybody sees everything, without leaving state behind |
/// | order | to one consumer, events come in publish order; those that come back, come first; over several consumers there is none |
/// | settle | ack, commit, nack, dead letter, extend: for the current delivery only; a repeat gets the first answer |
/// | crash | what a dead consumer held comes back after the ack timeout, one at a time for each consumer |
/// | attempts | errors, time-outs and crashes count alike, from when handling starts; after the last one an event is a dead letter with its history |
/// | effectively once | what is committed exists if and only if the event that caused it is done |
/// | retention | what a group has not settled is never dropped; settled history is kept by size and age |
///
/// ```
/// use s2_coordinator::{EventBus, EventBusExt, EventType, GroupName, MemoryStore, NewEvent, Subscribe, SwarmId, Topic};
///
/// const BUILDS: Topic = Topic::from_static("builds");
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), s2_coordinator::Error> {
/// let bus = MemoryStore::new().bus();
/// let finished = NewEvent::new(BUILDS, EventType::from_static("build.finished"), SwarmId::from_static("ci"));
/// bus.publish_one(&finished).await?;
///
/// let reporters = bus.subscribe(&Subscribe::new(BUILDS, GroupName::from_static("reporters"))).await?;
/// let delivery = reporters.next().await?.expect("the bus is open");
/// assert_eq!(delivery.event.event_type.as_str(), "build.finished");
/// delivery.ack().await?;
/// # Ok(()) }
/// ```
///
/// Every mutating call is one atomic step. Repeated after a lost reply, settles, redrives and publishing under an
/// idempotency key get the first answer; what else can be repeated says so. Any call may fail with [`Error::Backend`], or
/// with [`Error::Invalid`] where an argument can be out of range, and a backend that does not offer something answers
/// [`Error::Unsupported`].
///
/// # To ensure correctness
///
/// An event that a group has not settled is never dropped. Positions in a topic rise by one in the order in which events
/// were published. The cases in `conformance` are the rest of the contract.
#[async_trait]
pub trait EventBus: Settle {
    /// Publishes a batch, all of it or nothing, and answers for each event in order. The events may be of several topics.
    ///
    /// An event with an idempotency key is written once per topic and key within
    /// [`Config::idempotency_window`](crate::Config::idempotency_window): saying the same again answers with the first
    /// event's id and `duplicate`. An event without one is written each time it is published.
    ///
    /// # Errors
    ///
    /// [`Error::IdempotencyConflict`] when a key was used for something else; [`Error::LimitExceeded`];
    /// [`Error::ReservedTopic`]; [`Error::BacklogFull`]; [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// The batch may or may not have been published; with idempotency keys, publish it again to be sure.
    async fn publish(&self, events: &[NewEvent]) -> Result<Vec<Published>, Error>;

    /// Joins a group, which comes to be with its first subscription.
    ///
    /// # Errors
    ///
    /// [`Error::ReservedTopic`]; [`Error::LimitExceeded`]; [`Error::NotRetained`] for a start that was trimmed;
    /// [`Error::NoRuntime`]; [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// The group may have come to be; no consumer stays behind.
    async fn subscribe(&self, how: &Subscribe) -> Result<Subscription, Error>;

    /// Watches a topic as it grows.
    ///
    /// # Errors
    ///
    /// [`Error::NotRetained`] for a start that was trimmed; [`Error::NoRuntime`]; [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    async fn tail(&self, topic: &Topic, start: Start) -> Result<Tail, Error>;

    /// Reads at most `limit` events (1 to [`Limits::batch`](crate::Limits::batch)) as they are, settled or not. To go
    /// on, start after the page's `next`. A topic that nobody has used is empty.
    ///
    /// # Errors
    ///
    /// [`Error::NotRetained`] for a start that was trimmed; [`Error::LimitExceeded`]; [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn read(&self, topic: &Topic, start: Start, limit: usize) -> Result<Page<Arc<Event>>, Error>;

    /// The groups of a topic, by name.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn groups(&self, topic: &Topic) -> Result<Vec<Group>, Error>;

    /// Forgets a group and what it had not settled; its dead letters stay. Its subscriptions end with
    /// [`Error::UnknownGroup`]. Answers whether there was one.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; repeating it is safe.
    async fn remove_group(&self, topic: &Topic, group: &GroupName) -> Result<bool, Error>;

    /// Lists dead letters, the oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`]; [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn dead_letters(&self, which: &DeadLetters) -> Result<Vec<DeadLetter>, Error>;

    /// Gives dead letters back to their groups, with all attempts anew. Each runs once: a dead letter that is named by
    /// id and was redriven before is answered as a duplicate, within
    /// [`Config::idempotency_window`](crate::Config::idempotency_window).
    ///
    /// # Errors
    ///
    /// [`Error::UnknownDeadLetter`] when one named by id is neither there nor was redriven; [`Error::UnknownGroup`] when
    /// the group of one is gone; [`Error::LimitExceeded`]; [`Error::Closed`]. Then none was redriven.
    ///
    /// # Cancel safety
    ///
    /// They may or may not have been redriven; redrive them again by id to be sure.
    async fn redrive(&self, which: &DeadLetters) -> Result<Vec<Redriven>, Error>;

    /// Drops dead letters for good and answers with their numbers. What is not there needs no purge.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`]; [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// They may or may not have been purged; repeating it is safe.
    async fn purge(&self, which: &DeadLetters) -> Result<Vec<DeadLetterId>, Error>;

    /// Ends everything that this bus handed out: waiting consumers and tails end within a second, and further calls get
    /// [`Error::Closed`]. Deliveries in hand may still be settled. Other buses of the fleet go on, and nothing is lost.
    /// Repeating it is safe.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Repeating it completes it.
    async fn close(&self) -> Result<(), Error>;
}

/// What follows from the verbs of a bus.
#[async_trait]
pub trait EventBusExt: EventBus {
    /// Publishes one event.
    ///
    /// # Errors
    ///
    /// As [`EventBus::publish`].
    ///
    /// # Cancel safety
    ///
    /// As [`EventBus::publish`].
    async fn publish_one(&self, event: &NewEvent) -> Result<Published, Error> {
        let published = self.publish(std::slice::from_ref(event)).await?;
        let unanswered = || Error::Backend { retryable: false, source: "no answer for a published event".into() };
        published.into_iter().next().ok_or_else(unanswered)
    }
}

impl<B: EventBus + ?Sized> EventBusExt for B {}
