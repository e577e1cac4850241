//! Which request of which host an event, a task or a decision belongs to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::invalid::Invalid;
use crate::random::Random;
use crate::time::serde_as_text;

/// A W3C `traceparent`: trace id, id of the current span, flags.
///
/// ```
/// use s2_coordinator::{Random, TraceToken};
///
/// let token: TraceToken = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?;
/// let child = token.child(&mut Random::from_system());
/// assert_eq!(child.trace_id(), token.trace_id());
/// assert_ne!(child.span_id(), token.span_id());
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
///
/// Source: <https://www.w3.org/TR/trace-context/#traceparent-header>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceToken {
    // As bytes they need no alignment: a token has 25, and what may have one 26.
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

impl TraceToken {
    /// The first token of a new trace, marked as sampled.
    pub fn root(random: &mut Random) -> Self {
        Self { trace_id: random.bits().max(1).to_be_bytes(), span_id: span(random), flags: 1 }
    }

    /// A token for work that belongs to this one: same trace, another span.
    #[must_use]
    pub fn child(&self, random: &mut Random) -> Self {
        Self { span_id: span(random), ..*self }
    }

    /// The id of the whole trace; never zero.
    #[must_use]
    pub const fn trace_id(&self) -> u128 {
        u128::from_be_bytes(self.trace_id)
    }

    /// The id of the span that the work belongs to; never zero.
    #[must_use]
    pub const fn span_id(&self) -> u64 {
        u64::from_be_bytes(self.span_id)
    }

    pub(crate) fn to_bytes(self) -> impl Iterator<Item = u8> + use<> {
        self.trace_id.into_iter().chain(self.span_id).chain([self.flags])
    }

    pub(crate) fn from_bytes(bytes: [u8; 25]) -> Self {
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&bytes[..16]);
        span_id.copy_from_slice(&bytes[16..24]);
        Self { trace_id, span_id, flags: bytes[24] }
    }

    /// Whether the caller records this trace (the `sampled` flag).
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

fn span(random: &mut Random) -> [u8; 8] {
    (random.bits() as u64).max(1).to_be_bytes()
}

impl fmt::Display for TraceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id(), self.span_id(), self.flags)
    }
}

impl FromStr for TraceToken {
    type Err = Invalid;

    /// Reads version 00, and of later versions what version 00 defines, as the standard asks.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |reason| Invalid::new("traceparent", text, reason);
        let mut parts = text.splitn(5, '-');
        let mut hex = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits);
            let lower = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
            part.filter(|part| part.bytes().all(lower)).and_then(|part| u128::from_str_radix(part, 16).ok())
        };
        let (Some(version), Some(trace_id), Some(span_id), Some(flags)) = (hex(2), hex(32), hex(16), hex(2)) else {
            return Err(invalid("expected 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, lower case"));
        };
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return Err(invalid("not a version that can be read"));
        }
        let (Ok(span_id), Ok(flags)) = (u64::try_from(span_id), u8::try_from(flags)) else {
            return Err(invalid("a field is too large"));
        };
        if trace_id == 0 || span_id == 0 {
            return Err(invalid("trace and span ids must not be zero"));
        }
        Ok(Self { trace_id: trace_id.to_be_bytes(), span_id: span_id.to_be_bytes(), flags })
    }
}

serde_as_text!(TraceToken);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_examples_are_read_or_refused() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        for (text, ok) in [
            (valid, true),
            ("00-4BF92F3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-00", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-00", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-extra", false),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-extra", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-00", false),
            ("00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<TraceToken>().is_ok(), ok, "{text}");
        }
        assert_eq!(valid.parse::<TraceToken>().unwrap().to_string(), valid);
    }

    #[test]
    fn a_root_is_sampled_and_read_back() {
        let root = TraceToken::root(&mut Random::from_seed(1));
        assert!(root.is_sampled());
        assert_eq!(root.to_string().parse(), Ok(root));
    }
}
