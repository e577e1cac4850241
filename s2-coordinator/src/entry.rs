//! What changed: entries of the journal.
//!
//! What is not in the journal did not happen: every state change appends its entry in the same step. An entry names
//! the component and the operation, its subject and a few parameters. It is made millions of times, so names are
//! static text and numbers stay numbers until somebody exports them.

use std::fmt;

use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::{CONTENT_TYPE_JSON, Event, EventId, NewEvent, Position};
use crate::name::{EventType, Topic};
use crate::severity::Severity;
use crate::swarm::SwarmId;
use crate::text::Text;
use crate::time::Timestamp;
use crate::trace::TraceToken;

/// A parameter of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A whole number; amounts, counts and durations name their unit in the parameter's name (`delay_ms`).
    Int(i64),
    /// Text.
    Text(Text),
    /// Several values.
    List(Box<[Value]>),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<u64> for Value {
    /// Numbers above 2^63 − 1 become 2^63 − 1.
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<Position> for Value {
    fn from(value: Position) -> Self {
        Self::from(value.get())
    }
}

impl From<Text> for Value {
    fn from(value: Text) -> Self {
        Self::Text(value)
    }
}

impl From<&'static str> for Value {
    fn from(value: &'static str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value.into())
    }
}

/// The parameters of an entry, in the order they were given. In JSON an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(Text, Value)>);

impl Params {
    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(other, _)| **other == *name).map(|(_, value)| value)
    }

    /// Adds a parameter.
    pub fn push(&mut self, name: impl Into<Text>, value: impl Into<Value>) {
        if self.0.is_empty() {
            // Most entries have two or three, and blocks of one size are allocated fastest.
            self.0 = Vec::with_capacity(3);
        }
        self.0.push((name.into(), value.into()));
    }

    /// About how many bytes they occupy besides themselves.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let params = self.0.iter().map(|(name, value)| name.len() + size_of_val(value) + heap(value));
        params.sum::<usize>() as u64
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl Serialize for Params {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Params;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Params, M::Error> {
                let mut params = Vec::new();
                while let Some(param) = map.next_entry()? {
                    params.push(param);
                }
                Ok(Params(params))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// What a part of S² asks the journal to keep; the journal adds position and time.
///
/// ```
/// use s2_coordinator::{Record, Severity};
///
/// let record = Record::new("waits", "preempt", "telephony/sip")
///     .with("waited_ms", 1_800_000_u64)
///     .with_severity(Severity::High);
/// assert_eq!(record.params.iter().count(), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a record is kept once it is journalled"]
#[non_exhaustive]
pub struct Record {
    /// Which part of S² acted, such as `bus`.
    pub component: Text,
    /// What it did, such as `dead_letter`.
    pub operation: Text,
    /// To what or whom: an id, a name, a path.
    pub subject: Text,
    /// The particulars.
    pub params: Params,
    /// How serious it is.
    pub severity: Severity,
    /// The trace it belongs to.
    pub trace: Option<TraceToken>,
}

impl Record {
    /// A record without parameters, of severity [`Severity::Info`].
    pub fn new(component: impl Into<Text>, operation: impl Into<Text>, subject: impl Into<Text>) -> Self {
        Self {
            component: component.into(),
            operation: operation.into(),
            subject: subject.into(),
            params: Params::default(),
            severity: Severity::Info,
            trace: None,
        }
    }

    /// Adds a parameter.
    pub fn with(mut self, name: impl Into<Text>, value: impl Into<Value>) -> Self {
        self.params.push(name, value);
        self
    }

    /// Sets the severity.
    pub fn with_severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Sets the trace.
    pub fn with_trace(mut self, trace: impl Into<Option<TraceToken>>) -> Self {
        self.trace = trace.into();
        self
    }
}

/// One entry of the journal. Its JSON form is one line of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    /// Where it stands: 1, 2, 3 … over the life of the fleet.
    pub position: Position,
    /// When, by the store's clock.
    pub time: Timestamp,
    /// Which part of S² acted.
    pub component: Text,
    /// What it did.
    pub operation: Text,
    /// To what or whom.
    pub subject: Text,
    /// The particulars.
    pub params: Params,
    /// How serious it is.
    pub severity: Severity,
    /// The trace it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceToken>,
}

impl Entry {
    /// The entry that `record` becomes.
    #[must_use]
    pub fn new(record: Record, position: Position, time: Timestamp) -> Self {
        let Record { component, operation, subject, params, severity, trace } = record;
        Self { position, time, component, operation, subject, params, severity, trace }
    }

    /// The entry as one line of JSON, without a line break.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The entry as an event of [`Topic::JOURNAL`]: type `s2.<component>.<operation>`, the JSON form as payload. Equal
    /// entries give equal events, ids included.
    #[must_use]
    pub fn to_event(&self) -> Event {
        const UNNAMED: EventType = EventType::from_static("s2.entry");
        let event_type = EventType::new(format!("s2.{}.{}", self.component, self.operation)).unwrap_or(UNNAMED);
        let mut event = NewEvent::new(Topic::JOURNAL, event_type, SwarmId::from_static("s2"))
            .with_data(Bytes::from(self.to_json()))
            .with_content_type(CONTENT_TYPE_JSON);
        event.subject = self.subject.parse().ok();
        event.trace = self.trace;
        Event::published(event, EventId::from_bits(u128::from(self.position.get())), self.position, self.time)
    }
}

fn heap(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::List(values) => values.iter().map(|value| size_of_val(value) + heap(value)).sum(),
        Value::Bool(_) | Value::Int(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn entry() -> Entry {
        let record = Record::new("bus", "dead_letter", "orders")
            .with("attempts", 5_u32)
            .with("cost_nano_usd", 9_007_199_254_740_991_u64)
            .with("reason", String::from("poison"))
            .with("cycle", Value::List(Box::new(["a".into(), "b".into()])))
            .with_severity(Severity::High);
        Entry::new(record, Position::new(3), Timestamp::from_micros(1_762_938_000_000_000))
    }

    #[test]
    fn an_entry_is_one_line_of_json() {
        expect![[r#"{"position":3,"time":"2025-11-12T09:00:00Z","component":"bus","operation":"dead_letter","subject":"orders","params":{"attempts":5,"cost_nano_usd":9007199254740991,"reason":"poison","cycle":["a","b"]},"severity":"HIGH"}"#]]
        .assert_eq(&entry().to_json());
        assert_eq!(serde_json::from_str::<Entry>(&entry().to_json()).unwrap(), entry());
    }

    #[test]
    fn an_entry_is_an_event_of_the_journal() {
        let event = entry().to_event();
        assert_eq!((event.topic.clone(), event.event_type.as_str()), (Topic::JOURNAL, "s2.bus.dead_letter"));
        assert_eq!(event.json::<Entry>().unwrap(), entry());
        assert_eq!(event, entry().to_event());
    }
}
