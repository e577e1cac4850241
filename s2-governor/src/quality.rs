//! How good a model is, as far as a fleet needs to know.

use std::fmt;

use s2_coordinator::Invalid;
use serde::{Deserialize, Serialize};

/// A level of quality from 0 to 255; the better is the larger. What the levels mean is the host's to say: S² compares them
/// and does nothing else with them.
///
/// ```
/// use s2_governor::Quality;
///
/// const SIMPLE: Quality = Quality::new(1);
/// const COMPLEX: Quality = Quality::new(3);
/// assert!(SIMPLE < COMPLEX);
/// assert_eq!(serde_json::from_str::<Quality>("3")?, COMPLEX);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u8")]
pub struct Quality(u8);

impl Quality {
    /// This level.
    #[must_use]
    pub const fn new(level: u8) -> Self {
        Self(level)
    }

    /// The level.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<i64> for Quality {
    type Error = Invalid;

    fn try_from(level: i64) -> Result<Self, Invalid> {
        u8::try_from(level).map(Self).map_err(|_| Invalid::new("quality", &level.to_string(), "expected 0 to 255"))
    }
}

impl From<Quality> for u8 {
    fn from(quality: Quality) -> Self {
        quality.0
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_there_is_not_is_refused_and_named() {
        for level in ["-1", "256"] {
            let error = serde_json::from_str::<Quality>(level).unwrap_err().to_string();
            assert!(error.contains(&format!("invalid quality {level:?}: expected 0 to 255")), "{error}");
        }
        assert_eq!(serde_json::to_string(&Quality::new(255)).unwrap(), "255");
    }
}
