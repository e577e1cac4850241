//! Receiving as one consumer of a group.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::delivery::Delivery;
use crate::error::Error;
use crate::invalid::Invalid;
use crate::limits::{Limits, check};
use crate::name::{ConsumerName, GroupName, Topic};
use crate::start::Start;

/// How to join a group.
///
/// ```
/// use std::time::Duration;
/// use s2_coordinator::{GroupName, Subscribe, Topic};
///
/// let workers = Subscribe::new(Topic::from_static("builds"), GroupName::from_static("workers"))
///     .with_prefetch(1)
///     .with_ack_timeout(Duration::from_secs(600));
/// # let _ = workers;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "this only says how to subscribe"]
#[non_exhaustive]
pub struct Subscribe {
    /// The topic.
    pub topic: Topic,
    /// The group. It comes to be with its first subscription.
    pub group: GroupName,
    /// A label for this consumer in histories; one is made up where there is none.
    pub consumer: Option<ConsumerName>,
    /// How many deliveries this consumer may hold unsettled: 64 unless set. With that many it gets nothing more.
    pub prefetch: usize,
    /// How long this consumer may take to settle; [`Config::ack_timeout`](crate::Config::ack_timeout) unless set.
    pub ack_timeout: Option<Duration>,
    /// How often an event of this group is handled before it is a dead letter;
    /// [`Config::deliveries`](crate::Config::deliveries) unless set. The latest subscription that sets it decides.
    pub deliveries: Option<u32>,
    /// Where a group that does not exist yet begins. A group that exists goes on where it stands.
    pub start: Start,
}

impl Subscribe {
    /// Joins `group` on `topic`, which begins at the oldest retained event.
    pub fn new(topic: Topic, group: GroupName) -> Self {
        Self {
            topic,
            group,
            consumer: None,
            prefetch: 64,
            ack_timeout: None,
            deliveries: None,
            start: Start::Beginning,
        }
    }

    /// Names this consumer in histories.
    pub fn with_consumer(mut self, consumer: ConsumerName) -> Self {
        self.consumer = Some(consumer);
        self
    }

    /// Sets how many deliveries this consumer may hold unsettled.
    pub fn with_prefetch(mut self, prefetch: usize) -> Self {
        self.prefetch = prefetch;
        self
    }

    /// Sets how long this consumer may take to settle.
    pub fn with_ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = Some(timeout);
        self
    }

    /// Sets how often an event of this group is handled before it is a dead letter.
    pub fn with_deliveries(mut self, deliveries: u32) -> Self {
        self.deliveries = Some(deliveries);
        self
    }

    /// Sets where a new group begins.
    pub fn with_start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }
}

impl Subscribe {
    /// Checks everything that can be wrong; backends call it before they do anything.
    ///
    /// # Errors
    ///
    /// [`Error::ReservedTopic`], [`Error::LimitExceeded`] or [`Error::Invalid`].
    pub fn check(&self, limits: &Limits) -> Result<(), Error> {
        if self.topic.is_reserved() {
            return Err(Error::ReservedTopic { topic: self.topic.clone() });
        }
        if self.prefetch == 0 || self.deliveries == Some(0) {
            let what = if self.prefetch == 0 { "prefetch" } else { "deliveries" };
            return Err(Invalid::new(what, "0", "nothing could ever be delivered").into());
        }
        let deliveries = self.deliveries.unwrap_or(1);
        check("deliveries", || format!("group {}", self.group), deliveries as usize, limits.deliveries as usize)?;
        check("prefetch", || format!("a consumer of group {}", self.group), self.prefetch, limits.prefetch)?;
        self.ack_timeout.map_or(Ok(()), |timeout| limits.check_ack_timeout(timeout))
    }
}

/// The backend's side of a [`Subscription`].
///
/// # To ensure correctness
///
/// An attempt is counted when a delivery is handed out here, not when it is fetched ahead. What a dropped future had
/// fetched is handed out by the next call. Fresh events come in the order in which they were published; those that come
/// back, come first.
///
/// Dropping the consumer, or the end of its process, leaves no trace of it but its unsettled deliveries, which come back
/// after their deadline one at a time: a consumer holds at most one event whose last handling ended in a time-out or a
/// crash. A consumer whose process has ended counts as gone one [`Config::ack_timeout`](crate::Config::ack_timeout) after
/// its last sign of life, or 6 s where that is longer, at the latest.
#[async_trait]
pub trait Consumer: Debug + Send + Sync + 'static {
    /// Waits until there is something, and answers with what there is, 1 to `max` deliveries; none once closed.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`] when the group was removed; [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a future that is dropped before it is ready has handed out nothing and counted no attempt.
    async fn next(&self, max: usize) -> Result<Vec<Delivery>, Error>;

    /// What can be had at once, up to `max` deliveries, perhaps none.
    ///
    /// # Errors
    ///
    /// As [`Consumer::next`].
    ///
    /// # Cancel safety
    ///
    /// As [`Consumer::next`].
    async fn take(&self, max: usize) -> Result<Vec<Delivery>, Error>;

    /// Stops receiving.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the consumer completes it.
    async fn close(&self) -> Result<(), Error>;
}

/// One consumer of a group. Several tasks may call it at once.
///
/// Dropping it leaves the group. Deliveries that were handed out may be settled all the same; those that are not come
/// back after their deadline.
#[derive(Debug)]
pub struct Subscription {
    consumer: Box<dyn Consumer>,
}

impl Subscription {
    /// A subscription; made by backends.
    #[must_use]
    pub fn new(consumer: impl Consumer) -> Self {
        Self { consumer: Box::new(consumer) }
    }

    /// Waits for the next delivery. `None` when this subscription or its bus was closed.
    ///
    /// To one consumer, events come in the order in which they were published; those that come back, come first.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`] when the group was removed; [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: when the future is dropped before it is ready, no delivery was handed out and no attempt counted.
    pub async fn next(&self) -> Result<Option<Delivery>, Error> {
        Ok(self.consumer.next(1).await?.pop())
    }

    /// The next delivery if there is one at once.
    ///
    /// # Errors
    ///
    /// As [`Subscription::next`].
    ///
    /// # Cancel safety
    ///
    /// As [`Subscription::next`].
    pub async fn try_next(&self) -> Result<Option<Delivery>, Error> {
        Ok(self.consumer.take(1).await?.pop())
    }

    /// Waits until there is something, and answers with what there is, up to `max` deliveries. Empty when closed. Handling
    /// of all of them has started: take as many as are handled together. [`Delivery::ack_all`] acks them in one call.
    ///
    /// # Errors
    ///
    /// As [`Subscription::next`].
    ///
    /// # Cancel safety
    ///
    /// As [`Subscription::next`].
    pub async fn next_batch(&self, max: usize) -> Result<Vec<Delivery>, Error> {
        if max == 0 { Ok(Vec::new()) } else { self.consumer.next(max).await }
    }

    /// Stops receiving: waiting calls end with `None`. What was fetched ahead but not handed out goes to others at once,
    /// without an attempt. Repeating it is safe.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the subscription completes it.
    pub async fn close(&self) -> Result<(), Error> {
        self.consumer.close().await
    }
}
