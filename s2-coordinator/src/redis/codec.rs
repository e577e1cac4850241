//! How events lie in a stream: attributes as JSON with the names of CloudEvents, data as they are.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::dead_letter::{Attempt, AttemptEnd, DeadLetter, DeadLetterId};
use crate::entry::Entry;
use crate::escalation::{Escalation, EscalationId, NewEscalation};
use crate::event::{Event, EventId, NewEvent, Position, Published};
use crate::event_json::optional;
use crate::group::Group;
use crate::name::{HeaderName, Topic};
use crate::redis::reply::Reply;
use crate::start::Start;
use crate::text::Text;
use crate::time::Timestamp;

/// The text of an event that is to be published: its attributes as JSON, which has no line feed, a line feed, and its data.
pub(super) fn text(event: &NewEvent, id: EventId) -> Vec<u8> {
    let mut text = Vec::with_capacity(256 + event.data.len());
    // Attributes are texts, which all have a JSON form.
    serde_json::to_writer(&mut text, &Attributes { event, id }).unwrap_or_default();
    text.push(b'\n');
    text.extend_from_slice(&event.data);
    text
}

struct Attributes<'a> {
    event: &'a NewEvent,
    id: EventId,
}

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.event;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("source", &event.source)?;
        map.serialize_entry("type", &event.event_type)?;
        optional(&mut map, "subject", event.subject.as_ref())?;
        optional(&mut map, "time", event.time.as_ref())?;
        optional(&mut map, "idempotencykey", event.idempotency_key.as_ref())?;
        optional(&mut map, "traceparent", event.trace.as_ref())?;
        for (name, value) in &event.headers {
            map.serialize_entry(name, value)?;
        }
        optional(&mut map, "datacontenttype", event.datacontenttype.as_ref())?;
        map.end()
    }
}

/// One of what lies in a stream: its position, when it was recorded, and its text.
pub(super) type Recorded<'a> = (Position, Timestamp, &'a Bytes);

/// Reads what lies together: the id of the first, which says its position and when it was recorded, and the text of each.
pub(super) fn run<'a>(id: &Reply, texts: &'a [Reply]) -> Option<impl Iterator<Item = Recorded<'a>> + use<'a>> {
    let (position, recorded) = id.as_str()?.split_once('-')?;
    let (first, recorded) = (position.parse::<u64>().ok()?, Timestamp::from_micros(recorded.parse().ok()?));
    let texts: Vec<&Bytes> = texts.iter().map(Reply::as_bytes).collect::<Option<_>>()?;
    Some(texts.into_iter().zip(first..).map(move |(text, position)| (Position::new(position), recorded, text)))
}

/// Reads an event of a stream.
pub(super) fn event(topic: &Topic, (position, recorded, text): Recorded<'_>) -> Option<Event> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    let read: Read = serde_json::from_slice(&text[..end]).ok()?;
    let (id, new) = read.into_event(topic, text.slice(end + 1..))?;
    Some(Event::published(new, id, position, recorded))
}

#[derive(Default)]
struct Read {
    id: Option<EventId>,
    event_type: Option<crate::name::EventType>,
    source: Option<crate::swarm::SwarmId>,
    subject: Option<crate::name::Subject>,
    time: Option<Timestamp>,
    key: Option<crate::name::IdempotencyKey>,
    trace: Option<crate::trace::TraceToken>,
    content_type: Option<Text>,
    headers: Vec<(HeaderName, Text)>,
}

impl Read {
    fn into_event(self, topic: &Topic, data: Bytes) -> Option<(EventId, NewEvent)> {
        let mut event = NewEvent::new(topic.clone(), self.event_type?, self.source?).with_data(data);
        event.subject = self.subject;
        event.time = self.time;
        event.idempotency_key = self.key;
        event.trace = self.trace;
        event.datacontenttype = self.content_type;
        event.headers = self.headers;
        Some((self.id?, event))
    }
}

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Read;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the attributes of an event")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Read, M::Error> {
                let mut read = Read::default();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    match &*name {
                        "id" => read.id = map.next_value()?,
                        "source" => read.source = map.next_value()?,
                        "type" => read.event_type = map.next_value()?,
                        "subject" => read.subject = map.next_value()?,
                        "time" => read.time = map.next_value()?,
                        "idempotencykey" => read.key = map.next_value()?,
                        "traceparent" => read.trace = map.next_value()?,
                        "datacontenttype" => read.content_type = map.next_value()?,
                        other => match HeaderName::new(other) {
                            Ok(header) => read.headers.push((header, map.next_value()?)),
                            Err(_) => drop(map.next_value::<IgnoredAny>()?),
                        },
                    }
                }
                Ok(read)
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Where a reader begins, in a word, and after which position.
pub(super) fn start(start: Start) -> (&'static str, Position) {
    match start {
        Start::Beginning => ("beginning", Position::ORIGIN),
        Start::Now => ("now", Position::ORIGIN),
        Start::After(position) => ("after", position),
    }
}

/// What became of published events: the position of the first, where all were written and lie in a row; else for each the
/// position if it was written, position and id if it was there.
pub(super) fn published(answers: &Reply, ids: &[EventId]) -> Option<Vec<Published>> {
    if let Some(first) = answers.as_u64() {
        let written = |(id, position)| Published { id, position: Position::new(position), duplicate: false };
        return Some(ids.iter().copied().zip(first..).map(written).collect());
    }
    let answers = answers.as_list()?;
    let one = |(answer, id): (&Reply, &EventId)| match answer {
        Reply::List(original) => Some(Published {
            id: event_id(original.get(1)?)?,
            position: Position::new(original.first()?.as_u64()?),
            duplicate: true,
        }),
        position => Some(Published { id: *id, position: Position::new(position.as_u64()?), duplicate: false }),
    };
    (answers.len() == ids.len()).then(|| answers.iter().zip(ids).map(one).collect())?
}

/// An event that a settlement or the end of a claim has published: id, position, whether it was there already.
pub(super) fn one_published(reply: &Reply) -> Option<Published> {
    let position = Position::new(reply.get(1)?.as_u64()?);
    Some(Published { id: event_id(reply.get(0)?)?, position, duplicate: reply.get(2)?.as_u64()? == 1 })
}

/// The 16 bytes of an id.
pub(super) fn event_id(reply: &Reply) -> Option<EventId> {
    let bytes: [u8; 16] = reply.as_bytes()?[..].try_into().ok()?;
    Some(EventId::from_bits(u128::from_be_bytes(bytes)))
}

/// An entry of the journal, from what a script said.
pub(super) fn entry((position, time, said): Recorded<'_>) -> Option<Entry> {
    let said = std::str::from_utf8(said).ok()?.strip_prefix('{')?;
    serde_json::from_str(&format!(r#"{{"position":{position},"time":"{time}",{said}"#)).ok()
}

/// A dead letter: number, header, and the id and the text of its event.
pub(super) fn dead_letter(reply: &Reply) -> Option<DeadLetter> {
    let id = DeadLetterId::new(reply.get(0)?.as_u64()?);
    let header = Reply::unpack(reply.get(1)?.as_bytes()?)?;
    let topic: Topic = header.get(0)?.as_str()?.parse().ok()?;
    let event = event(&topic, run(reply.get(2)?, reply.as_list()?.get(3..)?)?.next()?)?;
    let born = header.get(11)?.as_u64()?;
    let failures = header.get(12)?.as_list()?.iter();
    let lived = failures.filter(|failure| failure.get(0).and_then(Reply::as_u64).is_some_and(|nth| nth > born));
    let history = lived.map(attempt).collect::<Option<Vec<_>>>()?;
    let died = Timestamp::from_micros(header.get(3)?.as_u64()?);
    Some(DeadLetter::new(id, event.into(), header.get(1)?.as_str()?.parse().ok()?, died, history))
}

/// A failure as a script keeps it: delivery, consumer, name, start, end, kind, reason, when it was due again, death.
fn attempt(failure: &Reply) -> Option<Attempt> {
    let time = |nth: usize| failure.get(nth)?.as_u64().map(Timestamp::from_micros);
    let reason = failure.get(6)?.as_str().map(Text::new);
    let end = match failure.get(5)?.as_str()? {
        "nacked" => AttemptEnd::Nacked { reason, retry_at: time(7) },
        "refused" => AttemptEnd::Refused { reason: reason.unwrap_or_default() },
        "timed_out" => AttemptEnd::TimedOut,
        "lost" => AttemptEnd::Lost,
        _ => return None,
    };
    let delivery = u32::try_from(failure.get(0)?.as_u64()?).ok()?;
    Some(Attempt::new(delivery, failure.get(2)?.as_str()?.parse().ok()?, time(3)?, time(4)?, end))
}

/// An escalation: number and key, reason, payload, severity, trace, when it was raised, how often.
pub(super) fn escalation(reply: &Reply) -> Option<Escalation> {
    let id = EscalationId::new(reply.get(0)?.as_u64()?);
    let parts = Reply::unpack(reply.get(1)?.as_bytes()?)?;
    let text = |nth: usize| parts.get(nth)?.as_str();
    let severity = text(3)?.parse().ok()?;
    let mut new = NewEscalation::new(text(0)?.parse().ok()?, Text::new(text(1)?))
        .with_payload(parts.get(2)?.as_bytes()?.clone())
        .with_severity(severity);
    new.trace = text(4)?.parse().ok();
    let mut escalation = Escalation::raised(new, id, Timestamp::from_micros(parts.get(5)?.as_u64()?));
    escalation.times = parts.get(6)?.as_u64()?;
    Some(escalation)
}

/// A group: name, incarnation, floor, consumers, in flight, returning, backlog, whether it has expired.
pub(super) fn group(reply: &Reply) -> Option<Group> {
    let number = |nth: usize| reply.get(nth)?.as_u64();
    let count = |nth: usize| usize::try_from(number(nth)?).ok();
    let mut group = Group::new(reply.get(0)?.as_str()?.parse().ok()?, number(1)?);
    group.floor = Position::new(number(2)?);
    group.consumers = count(3)?;
    group.in_flight = count(4)?;
    group.returning = count(5)?;
    group.backlog = number(6)?;
    group.expired = number(7)? == 1;
    Some(group)
}
