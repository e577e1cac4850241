//! Names of providers.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use s2_coordinator::{Invalid, NAME_BYTES, Text};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Somebody outside of the fleet who is asked for something: a model's API, a search engine, a build farm. Letters, digits and
/// `. _ - / :`, at most 256 bytes.
///
/// What shares a limit or fails together is one provider: where keys have limits of their own, name the key, too.
///
/// ```
/// use s2_governor::ProviderName;
///
/// const MODELS: ProviderName = ProviderName::from_static("models:team-a");
/// assert!(ProviderName::new("two words").is_err());
/// # let _ = MODELS;
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProviderName(Text);

/// The byte offset of a character that is not allowed.
const fn fault(name: &str) -> Option<usize> {
    let (bytes, mut at) = (name.as_bytes(), 0);
    while at < bytes.len() {
        if !(bytes[at].is_ascii_alphanumeric() || matches!(bytes[at], b'.' | b'_' | b'-' | b'/' | b':')) {
            return Some(at);
        }
        at += 1;
    }
    None
}

impl ProviderName {
    /// Checks and keeps a name.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when it is empty, longer than [`NAME_BYTES`] or has a character that is not allowed.
    pub fn new(name: impl AsRef<str>) -> Result<Self, Invalid> {
        let name = name.as_ref();
        let reason = match fault(name) {
            _ if name.is_empty() => "must not be empty".to_owned(),
            _ if name.len() > NAME_BYTES => format!("{} bytes exceed the limit of {NAME_BYTES}", name.len()),
            Some(at) => format!("{:?} is not allowed", name[at..].chars().next().unwrap_or_default()),
            None => return Ok(Self(Text::new(name))),
        };
        Err(Invalid::new("provider", name, reason))
    }

    /// A name known at compile time; in a `const`, a bad one does not compile.
    ///
    /// # Panics
    ///
    /// When the name is not valid.
    #[must_use]
    pub const fn from_static(name: &'static str) -> Self {
        assert!(!name.is_empty() && name.len() <= NAME_BYTES && fault(name).is_none(), "not a valid provider");
        Self(Text::from_static(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The name as cheaply cloned text.
    #[must_use]
    pub fn to_text(&self) -> Text {
        self.0.clone()
    }
}

impl fmt::Debug for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProviderName({:?})", self.as_str())
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl AsRef<str> for ProviderName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for ProviderName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl FromStr for ProviderName {
    type Err = Invalid;

    fn from_str(name: &str) -> Result<Self, Invalid> {
        Self::new(name)
    }
}

impl Serialize for ProviderName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ProviderName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_refused_and_named() {
        let long = "x".repeat(257);
        for (name, reason) in [
            ("", "must not be empty"),
            ("two words", "' ' is not allowed"),
            ("größe", "'ö' is not allowed"),
            (&*long, "257 bytes exceed the limit of 256"),
        ] {
            assert_eq!(ProviderName::new(name).unwrap_err().reason(), reason, "{name:?}");
        }
        assert_eq!(ProviderName::new("models:team-a/v1.2_b").unwrap().as_str(), "models:team-a/v1.2_b");
        assert!(serde_json::from_str::<ProviderName>("\" \"").is_err());
    }
}
