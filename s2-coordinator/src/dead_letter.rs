//! What could not be handled: dead letters and the history that led there.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::name::{ConsumerName, EventType, GroupName, Topic};
use crate::number::number;
use crate::text::Text;
use crate::time::Timestamp;

number! {
    /// The number of a dead letter: 1, 2, 3 … over the life of the fleet. An event that dies again gets a new one.
    DeadLetterId
}

/// How one handling of an event ended without success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum AttemptEnd {
    /// The consumer gave it back.
    Nacked {
        /// What the consumer said.
        reason: Option<Text>,
        /// When it was due again; nothing after the last attempt.
        retry_at: Option<Timestamp>,
    },
    /// The consumer refused it for good.
    Refused {
        /// What the consumer said.
        reason: Text,
    },
    /// The ack timeout passed while the consumer was there.
    TimedOut,
    /// The ack timeout passed and the consumer was gone: a crash.
    Lost,
}

/// One handling of an event that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attempt {
    /// Which handling it was: 1 for the first of the event in this group, redrives included.
    pub delivery: u32,
    /// Who handled it.
    pub consumer: ConsumerName,
    /// When handling started.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How it ended.
    #[serde(flatten)]
    pub end: AttemptEnd,
}

impl Attempt {
    /// A handling that ended without success.
    #[must_use]
    pub fn new(delivery: u32, consumer: ConsumerName, started: Timestamp, ended: Timestamp, end: AttemptEnd) -> Self {
        Self { delivery, consumer, started, ended, end }
    }

    /// How long it took.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.ended.since(self.started)
    }
}

/// An event that a group gave up on. The group has moved on; the event stays here until it is redriven or purged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its number.
    pub id: DeadLetterId,
    /// The event itself.
    pub event: Arc<Event>,
    /// The group that gave up on it.
    pub group: GroupName,
    /// When, by the store's clock.
    pub died: Timestamp,
    /// Every failed handling since the event was published or last redriven.
    pub history: Vec<Attempt>,
}

impl DeadLetter {
    /// A dead letter.
    #[must_use]
    pub fn new(id: DeadLetterId, event: Arc<Event>, group: GroupName, died: Timestamp, history: Vec<Attempt>) -> Self {
        Self { id, event, group, died, history }
    }
}

/// Which dead letters are meant: those that match everything that is set.
///
/// ```
/// use s2_coordinator::{DeadLetters, Topic};
///
/// let orders = DeadLetters::all().with_topic(Topic::from_static("orders")).with_limit(50);
/// assert_eq!(orders.limit, Some(50));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetters {
    /// Only these, in any order; all when empty.
    pub ids: Vec<DeadLetterId>,
    /// Only with a greater id: how to page.
    pub after: DeadLetterId,
    /// Only of this topic.
    pub topic: Option<Topic>,
    /// Only of this group.
    pub group: Option<GroupName>,
    /// Only of this type.
    pub event_type: Option<EventType>,
    /// At most so many, the oldest first; as many as one page may have
    /// ([`Limits::batch`](crate::Limits::batch)) unless set.
    pub limit: Option<usize>,
}

impl DeadLetters {
    /// The oldest dead letters of the fleet, one page of them.
    #[must_use]
    pub fn all() -> Self {
        Self {
            ids: Vec::new(),
            after: DeadLetterId::default(),
            topic: None,
            group: None,
            event_type: None,
            limit: None,
        }
    }

    /// One dead letter.
    #[must_use]
    pub fn one(id: DeadLetterId) -> Self {
        Self::all().with_ids([id])
    }

    /// Only these.
    #[must_use]
    pub fn with_ids(mut self, ids: impl IntoIterator<Item = DeadLetterId>) -> Self {
        self.ids = ids.into_iter().collect();
        self
    }

    /// Only with a greater id.
    #[must_use]
    pub fn with_after(mut self, after: DeadLetterId) -> Self {
        self.after = after;
        self
    }

    /// Only of this topic.
    #[must_use]
    pub fn with_topic(mut self, topic: Topic) -> Self {
        self.topic = Some(topic);
        self
    }

    /// Only of this group.
    #[must_use]
    pub fn with_group(mut self, group: GroupName) -> Self {
        self.group = Some(group);
        self
    }

    /// Only of this type.
    #[must_use]
    pub fn with_event_type(mut self, event_type: EventType) -> Self {
        self.event_type = Some(event_type);
        self
    }

    /// At most so many.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Whether a dead letter is meant, the limit aside.
    #[must_use]
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        fn allows<T: PartialEq>(wanted: Option<&T>, found: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        (self.ids.is_empty() || self.ids.contains(&letter.id))
            && letter.id > self.after
            && allows(self.topic.as_ref(), &letter.event.topic)
            && allows(self.group.as_ref(), &letter.group)
            && allows(self.event_type.as_ref(), &letter.event.event_type)
    }
}

/// What became of one dead letter that was redriven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    /// Its number.
    pub id: DeadLetterId,
    /// Whether it had been redriven before, so that this time nothing happened.
    pub duplicate: bool,
}
