//! What a script answers.

use bytes::Bytes;
use redis::Value;
use rmpv::ValueRef;

/// The answer of a [`Script`](crate::Script), or what another process was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Lua's `nil` or `false`.
    Nil,
    /// A whole number; scripts keep 53 bits of it.
    Int(i64),
    /// Text or bytes.
    Bytes(Bytes),
    /// A table without names.
    List(Vec<Reply>),
}

impl Reply {
    /// The number, if it is one or text that is one.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            Self::Nil | Self::List(_) => None,
        }
    }

    /// The bytes, if it is text.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&Bytes> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The text, if it is valid UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// The elements, if it is a list.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Reply]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    /// The number, if it is one that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        u64::try_from(self.as_int()?).ok()
    }

    /// The element at a place, if it is a list that has one there.
    #[must_use]
    pub fn get(&self, nth: usize) -> Option<&Reply> {
        self.as_list()?.get(nth)
    }

    /// Reads what a script packed, without copying texts.
    pub(super) fn unpack(packed: &Bytes) -> Option<Self> {
        let mut rest = &packed[..];
        let value = rmpv::decode::read_value_ref(&mut rest).ok()?;
        Some(Self::from_packed(&value, packed))
    }

    fn from_packed(value: &ValueRef<'_>, packed: &Bytes) -> Self {
        match value {
            ValueRef::Integer(number) => number.as_i64().map_or(Self::Nil, Self::Int),
            ValueRef::Boolean(true) => Self::Int(1),
            ValueRef::String(text) => Self::Bytes(packed.slice_ref(text.as_bytes())),
            ValueRef::Binary(bytes) => Self::Bytes(packed.slice_ref(bytes)),
            ValueRef::Array(values) => {
                Self::List(values.iter().map(|value| Self::from_packed(value, packed)).collect())
            }
            // A script packs a number that is no integer, or names, only by mistake.
            _ => Self::Nil,
        }
    }
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        match value {
            Value::Int(number) => Self::Int(number),
            Value::BulkString(bytes) => Self::Bytes(bytes.into()),
            Value::SimpleString(text) => Self::Bytes(text.into()),
            Value::Okay => Self::Bytes(Bytes::from_static(b"OK")),
            Value::Boolean(true) => Self::Int(1),
            Value::Array(values) | Value::Set(values) => Self::List(values.into_iter().map(Self::from).collect()),
            _ => Self::Nil,
        }
    }
}
