//! Records of the journal as bytes, in a third of the memory: they are written millions of times, and seldom read.

use crate::entry::{Record, Value};
use crate::severity::Severity;
use crate::text::Text;
use crate::trace::TraceToken;

const FALSE: u8 = 0;
const TRUE: u8 = 1;
const INT: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;

/// Adds the packed form of a record to `out`.
pub(super) fn pack(record: &Record, out: &mut Vec<u8>) {
    out.push(record.severity as u8);
    out.push(u8::from(record.trace.is_some()));
    if let Some(trace) = record.trace {
        out.extend(trace.to_bytes());
    }
    for text in [&record.component, &record.operation, &record.subject] {
        put_text(text, out);
    }
    put_length(record.params.iter().len(), out);
    for (name, value) in record.params.iter() {
        put_text(name, out);
        put_value(value, out);
    }
}

/// The record of which `packed` is the packed form.
pub(super) fn unpack(packed: &[u8]) -> Record {
    let mut packed = Packed(packed);
    let severity = Severity::ALL[usize::from(packed.byte())];
    let trace = (packed.byte() == 1).then(|| TraceToken::from_bytes(packed.array()));
    let record = Record::new(packed.text(), packed.text(), packed.text()).with_severity(severity).with_trace(trace);
    (0..packed.length()).fold(record, |record, _| record.with(packed.text(), packed.value()))
}

/// Seven bits a byte, the lowest first; all but the last have the eighth.
fn put_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_length(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn put_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Bool(false) => out.push(FALSE),
        Value::Bool(true) => out.push(TRUE),
        Value::Int(value) => {
            out.push(INT);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::Text(text) => {
            out.push(TEXT);
            put_text(text, out);
        }
        Value::List(values) => {
            out.push(LIST);
            put_length(values.len(), out);
            values.iter().for_each(|value| put_value(value, out));
        }
    }
}

/// What is left to read of something packed.
struct Packed<'a>(&'a [u8]);

impl<'a> Packed<'a> {
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N));
        array
    }

    fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn length(&mut self) -> usize {
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return length;
            }
        }
    }

    fn text(&mut self) -> Text {
        let length = self.length();
        Text::new(&String::from_utf8_lossy(self.bytes(length)))
    }

    fn value(&mut self) -> Value {
        match self.byte() {
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            INT => Value::Int(i64::from_le_bytes(self.array())),
            TEXT => Value::Text(self.text()),
            _ => Value::List((0..self.length()).map(|_| self.value()).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,300}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 30, 5, |inner| {
            prop::collection::vec(inner, 0..5).prop_map(|values| Value::List(values.into()))
        })
    }

    proptest! {
        #[test]
        fn what_is_unpacked_is_what_was_packed(
            names in (".{0,9}", ".{0,30}", ".{0,20000}"),
            params in prop::collection::vec((".{0,30}", values()), 0..9),
            severity in 0..Severity::ALL.len(),
            trace in any::<Option<u64>>(),
        ) {
            let trace = trace.map(|seed| TraceToken::root(&mut Random::from_seed(seed)));
            let (component, operation, subject) = names;
            let record = Record::new(component, operation, subject).with_severity(Severity::ALL[severity]).with_trace(trace);
            let record = params.into_iter().fold(record, |record, (name, value)| record.with(name, value));
            let mut packed = Vec::new();
            pack(&record, &mut packed);
            prop_assert_eq!(unpack(&packed), record);
        }
    }
}
