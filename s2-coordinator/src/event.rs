//! What happened: the event envelope.
//!
//! The attributes are those of CloudEvents 1.0, so that an event means the same to tools that never heard of S², plus
//! the topic, an idempotency key and a W3C trace. Payloads are opaque bytes: no floor below the host reads them.
//!
//! A host writes a [`NewEvent`]. The bus gives it an id and a position and hands out [`Event`]s.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::invalid::Invalid;
use crate::name::{EventType, HeaderName, IdempotencyKey, Subject, Topic};
use crate::number::number;
use crate::random::Random;
use crate::swarm::SwarmId;
use crate::text::Text;
use crate::time::{Timestamp, serde_as_text};
use crate::trace::TraceToken;

/// The content type of JSON payloads.
pub const CONTENT_TYPE_JSON: Text = Text::from_static("application/json");

pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Invalid> {
    serde_json::to_vec(value).map_err(|error| Invalid::new("JSON payload", std::any::type_name::<T>(), error))
}

pub(crate) fn from_json<T: DeserializeOwned>(data: &[u8]) -> Result<T, Invalid> {
    serde_json::from_slice(data).map_err(|error| Invalid::new("JSON payload", &String::from_utf8_lossy(data), error))
}

/// The id of one event, given by the bus. As text: a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Uuid);

impl EventId {
    /// A new id.
    pub fn random(random: &mut Random) -> Self {
        Self(uuid::Builder::from_random_bytes(random.bits().to_be_bytes()).into_uuid())
    }

    /// The id with these bits, for backends that store ids as numbers.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }

    /// The bits of the id.
    #[must_use]
    pub const fn to_bits(self) -> u128 {
        self.0.as_u128()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl FromStr for EventId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Uuid::try_parse(text).map(Self).map_err(|error| Invalid::new("event id", text, error))
    }
}

serde_as_text!(EventId);

number! {
    /// Where an event stands in its topic, or an entry in the journal: each is one more than the one before,
    /// without gaps. The first is 1, except in a topic that was forgotten and made anew.
    ///
    /// Positions are the only order there is; neither times nor ids order anything.
    Position
}

impl Position {
    /// Before the first event: reading after it starts at the very beginning.
    pub const ORIGIN: Position = Position::new(0);
}

/// An event that is to be published.
///
/// ```
/// use s2_coordinator::{EventType, NewEvent, SwarmId, Topic};
///
/// const BUILDS: Topic = Topic::from_static("builds");
/// const FINISHED: EventType = EventType::from_static("build.finished");
///
/// let event = NewEvent::new(BUILDS, FINISHED, SwarmId::new("ci/linux")?)
///     .with_json(&["debug", "release"])?
///     .with_idempotency_key("build-42".parse()?);
/// assert_eq!(&event.data[..], br#"["debug","release"]"#);
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an event does nothing until it is published"]
#[non_exhaustive]
pub struct NewEvent {
    /// Where it is published.
    pub topic: Topic,
    /// What happened.
    pub event_type: EventType,
    /// Who says so.
    pub source: SwarmId,
    /// What it is about.
    pub subject: Option<Subject>,
    /// When it happened, if the source says so. Data only: no decision rests on it.
    pub time: Option<Timestamp>,
    /// The media type of `data`.
    pub datacontenttype: Option<Text>,
    /// The payload.
    pub data: Bytes,
    /// Under which key it counts as published once within the idempotency window.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The trace it belongs to.
    pub trace: Option<TraceToken>,
    /// Extension attributes, in the order they were set.
    pub headers: Vec<(HeaderName, Text)>,
}

impl NewEvent {
    /// An event without payload.
    pub fn new(topic: Topic, event_type: EventType, source: SwarmId) -> Self {
        Self {
            topic,
            event_type,
            source,
            subject: None,
            time: None,
            datacontenttype: None,
            data: Bytes::new(),
            idempotency_key: None,
            trace: None,
            headers: Vec::new(),
        }
    }

    /// Sets the payload, as opaque bytes.
    pub fn with_data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = data.into();
        self
    }

    /// Sets the payload to `value` in JSON.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when `value` has no JSON form.
    pub fn with_json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, Invalid> {
        Ok(self.with_data(to_json(value)?).with_content_type(CONTENT_TYPE_JSON))
    }

    /// Sets the media type of the payload.
    pub fn with_content_type(mut self, content_type: impl Into<Text>) -> Self {
        self.datacontenttype = Some(content_type.into());
        self
    }

    /// Sets what the event is about.
    pub fn with_subject(mut self, subject: Subject) -> Self {
        self.subject = Some(subject);
        self
    }

    /// Sets when it happened, by the source's clock.
    pub fn with_time(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }

    /// Publishes at most once under this key within the idempotency window (24 h by default).
    pub fn with_idempotency_key(mut self, key: IdempotencyKey) -> Self {
        self.idempotency_key = Some(key);
        self
    }

    /// Sets the trace.
    pub fn with_trace(mut self, trace: TraceToken) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Sets an extension attribute, replacing an earlier value.
    pub fn with_header(mut self, name: HeaderName, value: impl Into<Text>) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.into()));
        self
    }

    /// What must be equal for two events under one idempotency key to count as the same: type, subject, content
    /// type and payload. Who says it, when and in which trace may differ.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let subject = self.subject.as_ref().map_or("", Subject::as_str);
        let content_type = self.datacontenttype.as_deref().unwrap_or_default();
        let mut hash = Sha256::new();
        for part in [self.event_type.as_str(), subject, content_type] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(&self.data);
        Fingerprint(hash.finalize().into())
    }
}

/// A SHA-256 of what an event says ([`NewEvent::fingerprint`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// One fingerprint of the outputs of a commit: their topics, and what they say.
    #[must_use]
    pub fn of_outputs(outputs: &[NewEvent]) -> Self {
        let mut hash = Sha256::new();
        for output in outputs {
            hash.update((output.topic.as_str().len() as u64).to_be_bytes());
            hash.update(output.topic.as_str());
            hash.update(output.fingerprint().0);
        }
        Self(hash.finalize().into())
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An event as the bus hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The id that the bus gave it.
    pub id: EventId,
    /// Where it stands in its topic.
    pub position: Position,
    /// Where it was published.
    pub topic: Topic,
    /// What happened.
    pub event_type: EventType,
    /// Who says so.
    pub source: SwarmId,
    /// What it is about.
    pub subject: Option<Subject>,
    /// When it happened: what the source said, else when it was published, by the store's clock.
    pub time: Timestamp,
    /// The media type of `data`.
    pub datacontenttype: Option<Text>,
    /// The payload.
    pub data: Bytes,
    /// Under which key it counts as published once.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The trace it belongs to.
    pub trace: Option<TraceToken>,
    /// Extension attributes.
    pub headers: Vec<(HeaderName, Text)>,
}

impl Event {
    /// The event that `new` becomes when a backend publishes it at `now`.
    #[must_use]
    pub fn published(new: NewEvent, id: EventId, position: Position, now: Timestamp) -> Self {
        Self {
            id,
            position,
            topic: new.topic,
            event_type: new.event_type,
            source: new.source,
            subject: new.subject,
            time: new.time.unwrap_or(now),
            datacontenttype: new.datacontenttype,
            data: new.data,
            idempotency_key: new.idempotency_key,
            trace: new.trace,
            headers: new.headers,
        }
    }

    /// Reads a JSON payload.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the payload is not the JSON form of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Invalid> {
        from_json(&self.data)
    }

    /// The value of an extension attribute.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Text> {
        self.headers.iter().find(|(header, _)| header.as_str() == name).map(|(_, value)| value)
    }
}

/// What became of one event of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Its id; of a duplicate, the id of the original.
    pub id: EventId,
    /// Its position; of a duplicate, that of the original.
    pub position: Position,
    /// Whether an event with the same idempotency key was there already, so that nothing was written.
    pub duplicate: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> NewEvent {
        let source = SwarmId::from_static("shop");
        NewEvent::new(Topic::from_static("orders"), EventType::from_static("order.placed"), source).with_data("1")
    }

    #[test]
    fn the_fingerprint_covers_what_is_said_and_not_who_says_it() {
        let original = event().fingerprint();
        let same = event().with_time(Timestamp::MAX).with_trace(TraceToken::root(&mut Random::from_seed(1)));
        assert_eq!(same.fingerprint(), original);
        for other in [
            event().with_data("2"),
            event().with_content_type(CONTENT_TYPE_JSON),
            event().with_subject(Subject::from_static("1")),
            NewEvent { event_type: EventType::from_static("order.paid"), ..event() },
        ] {
            assert_ne!(other.fingerprint(), original, "{other:?}");
        }
        let shifted = |subject, content_type: &'static str| {
            event().with_subject(Subject::from_static(subject)).with_content_type(content_type).fingerprint()
        };
        assert_ne!(shifted("ab", "c"), shifted("a", "bc"));
    }

    #[test]
    fn a_header_has_one_value() {
        let name = || HeaderName::from_static("tenant");
        let event = event().with_header(name(), "a").with_header(name(), "b");
        assert_eq!(event.headers, [(name(), Text::from("b"))]);
    }
}
