//! Validated names: topics, groups, consumers, event types, subjects, keys.
//!
//! Each kind of name has a type of its own, so a group cannot be passed where a topic is meant, and a name that
//! exists is a name that is valid. Literals are checked by the compiler when the constant is evaluated:
//!
//! ```
//! use s2_coordinator::{GroupName, Topic};
//!
//! const BUILDS: Topic = Topic::from_static("builds");
//! let group = GroupName::new(format!("workers-{}", 7))?;
//! assert_eq!(BUILDS.as_str(), "builds");
//! # Ok::<(), s2_coordinator::Invalid>(())
//! ```

use crate::invalid::Invalid;
use crate::text::Text;

/// The longest name, in bytes. Every kind of name shares it.
pub const NAME_BYTES: usize = 256;

/// Which characters a kind of name may have.
#[derive(Clone, Copy)]
pub(crate) enum Charset {
    /// ASCII letters, digits and `. _ - / :`. Such a name is safe in keys, logs, paths and URLs.
    Word,
    /// Lower-case ASCII letters and digits: what CloudEvents allows in attribute names.
    Attribute,
    /// Anything but control characters.
    Prose,
}

/// What is wrong with a name.
pub(crate) enum Fault {
    Empty,
    Long,
    /// The byte offset of a character that is not allowed.
    Character(usize),
}

impl Charset {
    const fn allows(self, byte: u8) -> bool {
        match self {
            Self::Word => byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/' | b':'),
            Self::Attribute => byte.is_ascii_lowercase() || byte.is_ascii_digit(),
            Self::Prose => byte >= b' ' && byte != 0x7f,
        }
    }

    pub(crate) const fn fault(self, name: &str) -> Option<Fault> {
        let bytes = name.as_bytes();
        if bytes.is_empty() {
            return Some(Fault::Empty);
        }
        if bytes.len() > NAME_BYTES {
            return Some(Fault::Long);
        }
        let mut at = 0;
        while at < bytes.len() {
            if !self.allows(bytes[at]) {
                return Some(Fault::Character(at));
            }
            at += 1;
        }
        None
    }
}

/// Checks a name of the kind `what`.
pub(crate) fn check(what: &'static str, charset: Charset, name: &str) -> Result<(), Invalid> {
    let reason = match charset.fault(name) {
        None => return Ok(()),
        Some(Fault::Empty) => "must not be empty".to_owned(),
        Some(Fault::Long) => format!("{} bytes exceed the limit of {NAME_BYTES}", name.len()),
        Some(Fault::Character(at)) => {
            let found = name[at..].chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
            format!("{found:?} is not allowed")
        }
    };
    Err(Invalid::new(what, name, reason))
}

/// Implements what every newtype over validated text shares. The type must have `fn new(..) -> Result<Self, Invalid>`.
macro_rules! text_newtype {
    ($Name:ident) => {
        impl $Name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }

            /// The name as cheaply cloned text.
            #[must_use]
            pub fn to_text(&self) -> crate::text::Text {
                self.0.clone()
            }
        }

        impl std::fmt::Debug for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($Name), "({:?})"), self.as_str())
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl AsRef<str> for $Name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl std::borrow::Borrow<str> for $Name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl std::str::FromStr for $Name {
            type Err = crate::invalid::Invalid;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                Self::new(name)
            }
        }

        impl serde::Serialize for $Name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $Name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::new(name).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_newtype;

macro_rules! name {
    ($(#[$doc:meta])* $Name:ident, $what:literal, $charset:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $Name(Text);

        impl $Name {
            /// Checks and keeps a name.
            ///
            /// # Errors
            ///
            /// [`Invalid`] when it is empty, longer than [`NAME_BYTES`] or has a character that is not allowed.
            pub fn new(name: impl AsRef<str>) -> Result<Self, Invalid> {
                let name = name.as_ref();
                check($what, $charset, name)?;
                Ok(Self(Text::new(name)))
            }

            /// A name known at compile time; in a `const`, a bad one does not compile.
            ///
            /// # Panics
            ///
            /// When the name is not valid.
            #[must_use]
            pub const fn from_static(name: &'static str) -> Self {
                assert!($charset.fault(name).is_none(), concat!("not a valid ", $what));
                Self(Text::from_static(name))
            }
        }

        text_newtype!($Name);
    };
}

name! {
    /// Where events are published. Letters, digits and `. _ - / :`, at most 256 bytes.
    ///
    /// Topics exist by being used. Names that begin with `s2.` belong to S² ([`Topic::is_reserved`]).
    Topic, "topic", Charset::Word
}

impl Topic {
    /// The journal of the fleet, readable as a topic.
    pub const JOURNAL: Topic = Topic::from_static("s2.journal");

    /// Whether the topic belongs to S², so that hosts may read but not publish or subscribe a group.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.as_str().starts_with("s2.")
    }
}

name! {
    /// A group of consumers that share the events of a topic: each event settles once per group.
    GroupName, "group", Charset::Word
}

name! {
    /// A label for one consumer of a group, for people. It need not be unique and leaves nothing behind.
    ConsumerName, "consumer", Charset::Word
}

name! {
    /// What happened, such as `order.placed`: the `type` of a CloudEvent.
    EventType, "event type", Charset::Word
}

name! {
    /// What an event is about, such as a file or an order: the `subject` of a CloudEvent. Free text without control
    /// characters.
    Subject, "subject", Charset::Prose
}

name! {
    /// Under which key an event counts as published once. Free text without control characters.
    IdempotencyKey, "idempotency key", Charset::Prose
}

name! {
    /// What is to be done, such as `review`. Letters, digits and `. _ - / :`.
    TaskKind, "task kind", Charset::Word
}

name! {
    /// What a task touches, such as `legal`. Letters, digits and `. _ - / :`.
    Tag, "tag", Charset::Word
}

impl Tag {
    /// Whether a task with this tag is critical unless said otherwise: legal and safety matters.
    #[must_use]
    pub fn is_critical(&self) -> bool {
        matches!(self.as_str(), "legal" | "safety")
    }
}

name! {
    /// The name of an extension attribute of an event: lower-case letters and digits, as CloudEvents asks.
    HeaderName, "header name", Charset::Attribute
}
