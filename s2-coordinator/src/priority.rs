//! How urgent a task is.

use std::fmt;
use std::str::FromStr;

use crate::invalid::Invalid;
use crate::time::serde_as_text;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// P0 (critical: legal, safety) to P3 (low); P2 unless said otherwise. The most urgent is the smallest.
///
/// ```
/// use s2_coordinator::Priority;
///
/// assert!(Priority::P0 < Priority::P3);
/// assert_eq!("p1".parse(), Ok(Priority::P1));
/// assert_eq!(Priority::default(), Priority::P2);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Critical: legal and safety matters.
    P0,
    /// High.
    P1,
    /// Medium, the default.
    #[default]
    P2,
    /// Low.
    P3,
}

impl Priority {
    /// Most urgent first.
    pub const ALL: [Priority; 4] = [Self::P0, Self::P1, Self::P2, Self::P3];

    /// 0 for P0 to 3 for P3.
    #[must_use]
    pub const fn level(self) -> u8 {
        self as u8
    }

    /// `P0` to `P3`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P0 => "P0",
            Self::P1 => "P1",
            Self::P2 => "P2",
            Self::P3 => "P3",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|priority| priority.to_string().eq_ignore_ascii_case(text));
        found.ok_or_else(|| Invalid::new("priority", text, "expected P0, P1, P2 or P3"))
    }
}

serde_as_text!(Priority);
