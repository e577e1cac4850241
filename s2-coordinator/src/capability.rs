//! What a session can do, and what a task requires.

use crate::invalid::Invalid;
use crate::name::{NAME_BYTES, text_newtype};
use crate::text::Text;

/// A path of words joined by `:`, from the general to the special, such as `integration:sip`.
///
/// Letters, digits and `. _ + # -`. Upper case is folded to lower case, so that `tool:Rust` and `tool:rust` are one
/// capability and not two that never meet.
///
/// ```
/// use s2_coordinator::Capability;
///
/// let sip = Capability::new("Integration:SIP")?;
/// assert_eq!(sip.as_str(), "integration:sip");
/// assert!(Capability::new("integration")?.covers(&sip));
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capability(Text);

text_newtype!(Capability);

impl Capability {
    /// How many words a path may have.
    pub const DEPTH: usize = 16;

    /// Checks and keeps a path, in lower case.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the path or one of its words is empty, too long, too deep or has a character that is not
    /// allowed.
    pub fn new(path: impl AsRef<str>) -> Result<Self, Invalid> {
        let path = path.as_ref();
        let invalid = |reason: &str| Err(Invalid::new("capability", path, reason));
        if path.len() > NAME_BYTES {
            return invalid("longer than 256 bytes");
        }
        if path.split(':').any(str::is_empty) {
            return invalid("a word is empty");
        }
        if path.split(':').count() > Self::DEPTH {
            return invalid("deeper than 16 words");
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._+#-:".contains(&byte);
        if !path.bytes().all(allowed) {
            return invalid("a word has letters, digits and . _ + # - only");
        }
        Ok(Self(Text::from(path.to_ascii_lowercase())))
    }

    /// The words, general first.
    pub fn words(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.as_str().split(':')
    }

    /// Whether `other` is this capability or a more special one below it.
    #[must_use]
    pub fn covers(&self, other: &Capability) -> bool {
        match other.as_str().strip_prefix(self.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with(':'),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_paths_are_refused_and_named() {
        for (path, reason) in [
            ("", "a word is empty"),
            ("a::b", "a word is empty"),
            (":a", "a word is empty"),
            ("a b", "a word has letters, digits and . _ + # - only"),
            ("a/b", "a word has letters, digits and . _ + # - only"),
            (&["a"; 17].join(":"), "deeper than 16 words"),
            (&"a".repeat(257), "longer than 256 bytes"),
        ] {
            assert_eq!(Capability::new(path).unwrap_err().reason(), reason, "{path:?}");
        }
        for path in ["c++", "tool:c#", "video:h.264", "cli"] {
            assert_eq!(Capability::new(path).unwrap().as_str(), path);
        }
    }

    #[test]
    fn the_general_covers_the_special_but_not_its_namesake() {
        let general = Capability::new("integration").unwrap();
        assert!(general.covers(&general));
        assert!(general.covers(&Capability::new("integration:sip").unwrap()));
        assert!(!general.covers(&Capability::new("integrations:sip").unwrap()));
        assert!(!Capability::new("integration:sip").unwrap().covers(&general));
    }
}
