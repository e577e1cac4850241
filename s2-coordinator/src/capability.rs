//! What a session can do, and what a task requires.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

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

/// A set of capabilities: what a session offers, or what a task requires. Two sets with the same members are equal, in
/// whatever order they were given.
///
/// ```
/// use s2_coordinator::Capabilities;
///
/// let session = Capabilities::new(["integration:sip", "tool:rust"])?;
/// assert!(session.satisfy(&Capabilities::new(["integration:sip", "tool"])?));
/// let missing = session.missing(&Capabilities::new(["tool:rust", "tool:go"])?);
/// assert_eq!(missing.to_string(), "tool:go");
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Vec<Capability>", into = "Vec<Capability>")]
pub struct Capabilities(Arc<[Capability]>);

impl Capabilities {
    /// The set of these paths.
    ///
    /// # Errors
    ///
    /// [`Invalid`] as [`Capability::new`].
    pub fn new<P: AsRef<str>>(paths: impl IntoIterator<Item = P>) -> Result<Self, Invalid> {
        paths.into_iter().map(Capability::new).collect()
    }

    /// Its members, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Capability> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether who offers this set may do what requires `required`: each required capability is offered, itself or as
    /// something more special. Who requires nothing is satisfied by everybody.
    #[must_use]
    pub fn satisfy(&self, required: &Capabilities) -> bool {
        required.iter().all(|wanted| self.offer(wanted))
    }

    /// What of `required` is not offered.
    #[must_use]
    pub fn missing(&self, required: &Capabilities) -> Capabilities {
        required.iter().filter(|wanted| !self.offer(wanted)).cloned().collect()
    }

    /// Whether a session that offers this gets tasks that require `required` without being named by them: it
    /// [satisfies](Capabilities::satisfy) them and, if it is dedicated, they ask for that.
    ///
    /// A session is dedicated if it offers something below the word `only`, such as `only:gpu`: then it gets only tasks that
    /// require something below it, too. So rare or internal sessions are not taken by what anybody could do.
    ///
    /// ```
    /// use s2_coordinator::Capabilities;
    ///
    /// let session = Capabilities::new(["only:gpu", "tool:rust"])?;
    /// assert!(session.may_take(&Capabilities::new(["only:gpu"])?));
    /// assert!(!session.may_take(&Capabilities::new(["tool:rust"])?));
    /// assert!(!session.may_take(&Capabilities::default()));
    /// # Ok::<(), s2_coordinator::Invalid>(())
    /// ```
    #[must_use]
    pub fn may_take(&self, required: &Capabilities) -> bool {
        self.satisfy(required) && (!self.is_dedicated() || required.is_dedicated())
    }

    /// Whether something below the word `only` is among them.
    #[must_use]
    pub fn is_dedicated(&self) -> bool {
        self.iter().any(|path| path.as_str().starts_with("only:"))
    }

    fn offer(&self, wanted: &Capability) -> bool {
        self.iter().any(|offered| wanted.covers(offered))
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(members: I) -> Self {
        Self::from(members.into_iter().collect::<Vec<_>>())
    }
}

impl From<Vec<Capability>> for Capabilities {
    fn from(mut members: Vec<Capability>) -> Self {
        members.sort_unstable();
        members.dedup();
        Self(members.into())
    }
}

impl From<Capabilities> for Vec<Capability> {
    fn from(set: Capabilities) -> Self {
        set.0.to_vec()
    }
}

impl fmt::Display for Capabilities {
    /// The members with a comma and a space between.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().enumerate().try_for_each(|(nth, member)| {
            let comma = if nth == 0 { "" } else { ", " };
            write!(f, "{comma}{member}")
        })
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

    #[test]
    fn each_requirement_must_be_offered_itself_or_as_something_more_special() {
        let set = |paths: &[&str]| Capabilities::new(paths).unwrap();
        for (offered, required, missing) in [
            (set(&[]), set(&[]), ""),
            (set(&["a"]), set(&[]), ""),
            (set(&["a:b"]), set(&["a"]), ""),
            (set(&["a"]), set(&["a:b"]), "a:b"),
            (set(&["a", "c"]), set(&["b", "c", "d"]), "b, d"),
            (set(&["A:B"]), set(&["a:b"]), ""),
        ] {
            assert_eq!(offered.missing(&required).to_string(), missing, "{offered} for {required}");
            assert_eq!(offered.satisfy(&required), missing.is_empty(), "{offered} for {required}");
        }
        assert_eq!(set(&["b", "a", "b"]), set(&["a", "b"]));
    }
}
