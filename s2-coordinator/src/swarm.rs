//! Who: a path of swarms down to one session.
//!
//! A swarm of swarms needs one concept, not two: `telephony/sip/session-4` is a session, `telephony/sip` the swarm
//! it works in and `telephony` the swarm of that swarm. Budgets, limits and reputation roll up along the path.

use crate::invalid::Invalid;
use crate::name::{NAME_BYTES, text_newtype};
use crate::text::Text;

/// A path of segments joined by `/`, such as `telephony/sip/session-4`.
///
/// A segment has letters, digits and `. _ -`. At most 256 bytes and [`SwarmId::DEPTH`] segments.
///
/// ```
/// use s2_coordinator::SwarmId;
///
/// let session = SwarmId::new("telephony/sip/session-4")?;
/// let path: Vec<String> = session.ancestors().map(|swarm| swarm.to_string()).collect();
/// assert_eq!(path, ["telephony/sip/session-4", "telephony/sip", "telephony"]);
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SwarmId(Text);

text_newtype!(SwarmId);

impl SwarmId {
    /// How many segments a path may have.
    pub const DEPTH: usize = 16;

    /// Checks and keeps a path.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the path or one of its segments is empty, too long, too deep or has a character that is not
    /// allowed.
    pub fn new(path: impl AsRef<str>) -> Result<Self, Invalid> {
        let path = path.as_ref();
        match fault(path) {
            None => Ok(Self(Text::new(path))),
            Some(reason) => Err(Invalid::new("swarm id", path, reason)),
        }
    }

    /// A path known at compile time; in a `const`, a bad one does not compile.
    ///
    /// # Panics
    ///
    /// When the path is not valid.
    #[must_use]
    pub const fn from_static(path: &'static str) -> Self {
        assert!(fault(path).is_none(), "not a valid swarm id");
        Self(Text::from_static(path))
    }

    /// The swarm that directly contains this one, if any.
    #[must_use]
    pub fn parent(&self) -> Option<SwarmId> {
        let (parent, _) = self.as_str().rsplit_once('/')?;
        Some(Self(Text::new(parent)))
    }

    /// This swarm and every swarm that contains it, innermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = SwarmId> + use<> {
        std::iter::successors(Some(self.clone()), SwarmId::parent)
    }

    /// Whether `other` is this swarm or lies inside it.
    #[must_use]
    pub fn contains(&self, other: &SwarmId) -> bool {
        match other.as_str().strip_prefix(self.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    /// The swarm called `segment` inside this one.
    ///
    /// # Errors
    ///
    /// [`Invalid`] like [`SwarmId::new`].
    pub fn join(&self, segment: &str) -> Result<SwarmId, Invalid> {
        Self::new(format!("{self}/{segment}"))
    }

    /// The last segment: the name of the session or swarm itself.
    #[must_use]
    pub fn leaf(&self) -> &str {
        self.as_str().rsplit('/').next().unwrap_or_default()
    }

    /// How many segments the path has; at least 1.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.as_str().split('/').count()
    }
}

const fn fault(path: &str) -> Option<&'static str> {
    let bytes = path.as_bytes();
    if bytes.len() > NAME_BYTES {
        return Some("longer than 256 bytes");
    }
    let (mut at, mut segment, mut depth) = (0, 0, 1);
    while at < bytes.len() {
        match bytes[at] {
            b'/' if segment == 0 => return Some("a segment is empty"),
            b'/' => {
                segment = 0;
                depth += 1;
            }
            b'.' | b'_' | b'-' => segment += 1,
            byte if byte.is_ascii_alphanumeric() => segment += 1,
            _ => return Some("a segment has letters, digits and . _ - only"),
        }
        at += 1;
    }
    if segment == 0 {
        return Some("a segment is empty");
    }
    if depth > SwarmId::DEPTH { Some("deeper than 16 segments") } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_paths_are_refused_and_named() {
        for (path, reason) in [
            ("", "a segment is empty"),
            ("/a", "a segment is empty"),
            ("a/", "a segment is empty"),
            ("a//b", "a segment is empty"),
            ("a b", "a segment has letters, digits and . _ - only"),
            ("schöne/neue", "a segment has letters, digits and . _ - only"),
            (&"a/".repeat(16), "a segment is empty"),
            (&["a"; 17].join("/"), "deeper than 16 segments"),
            (&"a".repeat(257), "longer than 256 bytes"),
        ] {
            assert_eq!(SwarmId::new(path).unwrap_err().reason(), reason, "{path:?}");
        }
        assert!(SwarmId::new(["a"; 16].join("/")).is_ok());
        assert!(SwarmId::new("a".repeat(256)).is_ok());
    }

    #[test]
    fn a_swarm_contains_itself_and_what_is_below_but_not_its_namesakes() {
        let swarm = SwarmId::from_static("telephony/sip");
        assert!(swarm.contains(&swarm));
        assert!(swarm.contains(&swarm.join("session-4").unwrap()));
        assert!(!swarm.contains(&SwarmId::from_static("telephony/sip2")));
        assert!(!swarm.contains(&SwarmId::from_static("telephony")));
    }

    #[test]
    fn a_path_knows_its_parts() {
        let session = SwarmId::from_static("telephony/sip/session-4");
        assert_eq!((session.depth(), session.leaf()), (3, "session-4"));
        assert_eq!(session.parent(), Some(SwarmId::from_static("telephony/sip")));
        assert_eq!(SwarmId::from_static("telephony").parent(), None);
    }
}
