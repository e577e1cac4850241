//! The JSON form of an event: CloudEvents 1.0, structured mode.
//!
//! Attribute names follow the standard, which allows lower-case letters and digits only; hence `idempotencykey`. The
//! position is the standard's `sequence` extension, as text, so that no reader rounds it. A JSON payload stands in
//! the envelope byte for byte; text stands there as a string; anything else as `data_base64`.
//!
//! Source: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::event::{Event, Position};
use crate::invalid::Invalid;
use crate::name::HeaderName;
use crate::text::Text;

/// The attribute names that are not extensions of the host.
const RESERVED: [&str; 13] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "topic",
    "sequence",
    "idempotencykey",
    "traceparent",
];

impl HeaderName {
    /// Whether the name is an attribute of the envelope itself, which a header must not shadow.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        RESERVED.contains(&self.as_str())
    }
}

impl Event {
    /// The event as a CloudEvent in JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(&Envelope(self)).unwrap_or_default()
    }

    /// Reads what [`Event::to_json`] wrote, or an equivalent CloudEvent that has a `topic` and a `sequence`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when it is not JSON, or an attribute is missing or not valid.
    pub fn from_json(json: &str) -> Result<Event, Invalid> {
        Attributes::read(json)?.into_event()
    }
}

/// How a payload stands in the envelope.
enum Body<'a> {
    Json(&'a RawValue),
    Text(&'a str),
    Binary,
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

fn is_text(content_type: &str) -> bool {
    content_type.to_ascii_lowercase().starts_with("text/")
}

fn body(event: &Event) -> Body<'_> {
    match event.datacontenttype.as_deref() {
        Some(kind) if is_json(kind) => serde_json::from_slice(&event.data).map_or(Body::Binary, Body::Json),
        Some(kind) if is_text(kind) => std::str::from_utf8(&event.data).map_or(Body::Binary, Body::Text),
        _ => Body::Binary,
    }
}

struct Envelope<'a>(&'a Event);

impl Serialize for Envelope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", "1.0")?;
        map.serialize_entry("id", &event.id)?;
        map.serialize_entry("source", &event.source)?;
        map.serialize_entry("type", &event.event_type)?;
        optional(&mut map, "subject", event.subject.as_ref())?;
        map.serialize_entry("time", &event.time)?;
        map.serialize_entry("topic", &event.topic)?;
        map.serialize_entry("sequence", &event.position.to_string())?;
        optional(&mut map, "idempotencykey", event.idempotency_key.as_ref())?;
        optional(&mut map, "traceparent", event.trace.as_ref())?;
        for (name, value) in &event.headers {
            map.serialize_entry(name, value)?;
        }
        optional(&mut map, "datacontenttype", event.datacontenttype.as_ref())?;
        match body(event) {
            _ if event.data.is_empty() => {}
            Body::Json(raw) => map.serialize_entry("data", raw)?,
            Body::Text(text) => map.serialize_entry("data", text)?,
            Body::Binary => map.serialize_entry("data_base64", &BASE64.encode(&event.data))?,
        }
        map.end()
    }
}

/// An attribute, if there is one.
pub(crate) fn optional<M: SerializeMap>(
    map: &mut M,
    name: &str,
    value: Option<&impl Serialize>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, value))
}

struct Attributes<'a> {
    json: &'a str,
    raw: BTreeMap<String, Box<RawValue>>,
}

impl<'a> Attributes<'a> {
    fn read(json: &'a str) -> Result<Self, Invalid> {
        let raw = serde_json::from_str(json).map_err(|error| Invalid::new("event", json, error))?;
        Ok(Self { json, raw })
    }

    fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Invalid> {
        let Some(raw) = self.raw.remove(name).filter(|raw| raw.get() != "null") else {
            return Ok(None);
        };
        let value = serde_json::from_str(raw.get());
        value.map(Some).map_err(|error| Invalid::new("event", raw.get(), format!("attribute {name}: {error}")))
    }

    fn need<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Invalid> {
        self.take(name)?.ok_or_else(|| Invalid::new("event", self.json, format!("attribute {name} is missing")))
    }

    fn into_event(mut self) -> Result<Event, Invalid> {
        let version: String = self.need("specversion")?;
        if version != "1.0" {
            return Err(Invalid::new("event", &version, "only specversion 1.0 can be read"));
        }
        let sequence: String = self.need("sequence")?;
        let position = sequence.parse().map_err(|error| Invalid::new("event", &sequence, error))?;
        let datacontenttype: Option<Text> = self.take("datacontenttype")?;
        Ok(Event {
            id: self.need("id")?,
            position: Position::new(position),
            topic: self.need("topic")?,
            event_type: self.need("type")?,
            source: self.need("source")?,
            subject: self.take("subject")?,
            time: self.need("time")?,
            data: self.data(datacontenttype.as_deref())?,
            datacontenttype,
            idempotency_key: self.take("idempotencykey")?,
            trace: self.take("traceparent")?,
            headers: self.headers()?,
        })
    }

    fn data(&mut self, content_type: Option<&str>) -> Result<Bytes, Invalid> {
        if let Some(text) = self.take::<String>("data_base64")? {
            let bytes = BASE64.decode(&text).map_err(|error| Invalid::new("event", &text, error))?;
            return Ok(bytes.into());
        }
        let Some(raw) = self.raw.remove("data") else {
            return Ok(Bytes::new());
        };
        match serde_json::from_str::<String>(raw.get()) {
            Ok(text) if content_type.is_some_and(|kind| !is_json(kind)) => Ok(text.into()),
            _ => Ok(String::from(Box::<str>::from(raw)).into()),
        }
    }

    /// What is left over: extension attributes, in alphabetical order.
    fn headers(&mut self) -> Result<Vec<(HeaderName, Text)>, Invalid> {
        let left = std::mem::take(&mut self.raw);
        let extensions = left.into_iter().filter(|(name, _)| name != "dataschema");
        let header = |(name, raw): (String, Box<RawValue>)| {
            let value = serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
            Ok((HeaderName::new(name)?, Text::from(value)))
        };
        extensions.map(header).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    use crate::event::{CONTENT_TYPE_JSON, EventId, NewEvent};
    use crate::name::{EventType, IdempotencyKey, Subject, Topic};
    use crate::swarm::SwarmId;
    use crate::time::Timestamp;

    fn event(new: impl FnOnce(NewEvent) -> NewEvent) -> Event {
        let topic = Topic::from_static("orders");
        let source = SwarmId::from_static("shop/till-1");
        let plain = NewEvent::new(topic, EventType::from_static("order.placed"), source);
        let now = Timestamp::from_micros(1_762_938_000_000_001);
        Event::published(new(plain), EventId::from_bits(7), Position::new(9_007_199_254_740_991), now)
    }

    #[test]
    fn the_envelope_is_a_cloud_event() {
        let full = event(|new| {
            new.with_json(&serde_json::json!({"total_nano_usd": 9_007_199_254_740_991_u64}))
                .unwrap()
                .with_subject(Subject::from_static("order 4711"))
                .with_idempotency_key(IdempotencyKey::from_static("till-1/4711"))
                .with_trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap())
                .with_header(HeaderName::from_static("tenant"), "acme")
        });
        expect![[r#"{"specversion":"1.0","id":"00000000-0000-0000-0000-000000000007","source":"shop/till-1","type":"order.placed","subject":"order 4711","time":"2025-11-12T09:00:00.000001Z","topic":"orders","sequence":"9007199254740991","idempotencykey":"till-1/4711","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tenant":"acme","datacontenttype":"application/json","data":{"total_nano_usd":9007199254740991}}"#]]
        .assert_eq(&full.to_json());
        assert_eq!(Event::from_json(&full.to_json()), Ok(full));
    }

    #[test]
    fn the_smallest_envelope_has_only_what_the_standard_requires() {
        let small = event(|new| new);
        expect![[r#"{"specversion":"1.0","id":"00000000-0000-0000-0000-000000000007","source":"shop/till-1","type":"order.placed","time":"2025-11-12T09:00:00.000001Z","topic":"orders","sequence":"9007199254740991"}"#]]
        .assert_eq(&small.to_json());
        assert_eq!(Event::from_json(&small.to_json()), Ok(small));
    }

    #[test]
    fn what_is_no_event_is_refused_and_named() {
        let valid = event(|new| new).to_json();
        for (json, reason) in [
            ("[]".to_owned(), "expected a map"),
            (valid.replace("1.0", "0.3"), "only specversion 1.0"),
            (valid.replace("\"topic\"", "\"tropic\""), "attribute topic is missing"),
            (valid.replace("order.placed", "order placed"), "attribute type"),
            (valid.replace("9007199254740991", "first"), "invalid digit"),
            (valid.replace("\"topic\"", "\"Bad_Name\":\"1\",\"topic\""), "is not allowed"),
        ] {
            let error = Event::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_payload_survives(
            data in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..64),
                ".*".prop_map(String::into_bytes),
                Just(b"{ \"a\" : [1, 2.50] }".to_vec()),
                Just(b"123456789012345678901234567890".to_vec()),
                Just(b"\"text\"".to_vec()),
            ],
            kind in prop_oneof![
                Just(None), Just(Some(CONTENT_TYPE_JSON)), Just(Some(Text::from("text/plain; charset=utf-8"))),
                Just(Some(Text::from("application/vnd.s2+json"))), Just(Some(Text::from("image/png"))),
            ],
        ) {
            let original = event(|new| NewEvent { datacontenttype: kind, ..new }.with_data(data));
            prop_assert_eq!(Event::from_json(&original.to_json()).unwrap(), original);
        }
    }
}
