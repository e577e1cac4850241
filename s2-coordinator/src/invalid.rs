//! Why a word could not be read.
//!
//! Names, paths, days and tokens are checked once, where text becomes a type. After that no function needs to
//! ask again, so this is the only error that the words themselves know.

use std::fmt;

/// Text that is not a valid word: what was read, the value and the reason.
///
/// ```
/// use s2_coordinator::Topic;
///
/// let error = Topic::new("two words").unwrap_err();
/// assert_eq!(error.to_string(), r#"invalid topic "two words": ' ' is not allowed"#);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    what: &'static str,
    value: String,
    reason: String,
}

/// How much of a refused value an error repeats, in characters.
const SHOWN: usize = 80;

impl Invalid {
    /// Reports that `value` is not a valid `what`. Only the first 80 characters of the value are kept.
    pub fn new(what: &'static str, value: &str, reason: impl fmt::Display) -> Self {
        let mut shown: String = value.chars().take(SHOWN).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        Self { what, value: shown, reason: reason.to_string() }
    }

    /// What was expected, such as `"topic"`.
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// The refused value, shortened.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What is wrong with it.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {} {:?}: {}", self.what, self.value, self.reason)
    }
}

impl std::error::Error for Invalid {}
