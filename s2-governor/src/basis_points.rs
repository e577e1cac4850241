//! Shares as whole numbers: ten-thousandths of a whole.
//!
//! A score that a float computes differs by its last digit from one machine to the next, and "at least 0.70" then depends
//! on who asks. So shares are counted, and every division says how it rounds.

use std::fmt;

use s2_coordinator::Invalid;
use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A share from nothing to the whole, in ten-thousandths.
///
/// In JSON and YAML it is a number from 0 to 1 with at most four digits after the point, such as `0.70`.
///
/// ```
/// use s2_governor::BasisPoints;
///
/// let least: BasisPoints = serde_json::from_str("0.70")?;
/// assert_eq!(least, BasisPoints::new(7_000)?);
/// assert_eq!(least.to_string(), "70 %");
/// assert!(serde_json::from_str::<BasisPoints>("0.70001").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BasisPoints(u16);

impl BasisPoints {
    /// Nothing.
    pub const ZERO: BasisPoints = BasisPoints(0);
    /// One half.
    pub const HALF: BasisPoints = BasisPoints(5_000);
    /// The whole.
    pub const FULL: BasisPoints = BasisPoints(10_000);

    /// So many ten-thousandths.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when that is more than the whole.
    pub fn new(ten_thousandths: u16) -> Result<Self, Invalid> {
        if ten_thousandths > Self::FULL.0 {
            return Err(Invalid::new("share", &ten_thousandths.to_string(), "more than 10,000 ten-thousandths"));
        }
        Ok(Self(ten_thousandths))
    }

    /// So many hundredths, at most the whole.
    #[must_use]
    pub const fn from_percent(percent: u8) -> Self {
        if percent > 100 { Self::FULL } else { Self(percent as u16 * 100) }
    }

    /// Ten-thousandths.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// What is missing to the whole.
    #[must_use]
    pub const fn rest(self) -> Self {
        Self(Self::FULL.0 - self.0)
    }

    /// So many ten-thousandths divided by `parts`, rounded down; the whole if that is more, nothing if there are no parts.
    #[inline]
    pub(crate) fn divided(ten_thousandths: u64, parts: u64) -> Self {
        let share = ten_thousandths.checked_div(parts).unwrap_or(0);
        Self(u16::try_from(share).map_or(Self::FULL.0, |share| share.min(Self::FULL.0)))
    }

    /// `part` of `whole`, rounded down; the whole if `part` is more, nothing if `whole` is nothing.
    pub(crate) fn ratio(part: u128, whole: u128) -> Self {
        if part >= whole {
            return if whole == 0 { Self::ZERO } else { Self::FULL };
        }
        let full = Self::FULL.0;
        // Most numbers are small, and their division is ten times as fast.
        let share = match (u64::try_from(part), u64::try_from(whole)) {
            (Ok(part), Ok(whole)) if part <= u64::MAX / u64::from(full) => u128::from(part * u64::from(full) / whole),
            _ => part.saturating_mul(full.into()) / whole,
        };
        Self(u16::try_from(share).unwrap_or(full))
    }

    /// The share that a number is, if it is one and has at most four digits after the point.
    pub(crate) fn from_number(number: f64) -> Option<Self> {
        // The shortest text that reads as this number is what somebody has written, zeros at the end aside.
        let text = number.to_string();
        let (whole, digits) = text.split_once('.').unwrap_or((&text, ""));
        let digits = (digits.len() <= 4).then(|| format!("{digits:0<4}"))?;
        let share = whole.parse::<u16>().ok()?.checked_mul(Self::FULL.0)?.checked_add(digits.parse().ok()?)?;
        (share <= Self::FULL.0).then_some(Self(share))
    }
}

impl fmt::Debug for BasisPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for BasisPoints {
    /// In percent, with as many digits after the point as it takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:02}", self.0 / 100, self.0 % 100);
        f.pad(&format!("{} %", text.trim_end_matches('0').trim_end_matches('.')))
    }
}

impl Serialize for BasisPoints {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / f64::from(Self::FULL.0))
    }
}

/// Reads a share that is the value of a field.
pub(crate) struct Share {
    pub(crate) field: &'static str,
}

impl Visitor<'_> for Share {
    type Value = BasisPoints;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from 0 to 1 with at most four digits after the point", self.field)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<BasisPoints, E> {
        BasisPoints::from_number(number).ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<BasisPoints, E> {
        match number {
            0 => Ok(BasisPoints::ZERO),
            1 => Ok(BasisPoints::FULL),
            _ => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<BasisPoints, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for BasisPoints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Share { field: "a share" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_share_is_read_as_it_was_written(share in 0..=10_000_u16) {
            let share = BasisPoints::new(share).unwrap();
            let text = serde_json::to_string(&share).unwrap();
            prop_assert_eq!(serde_json::from_str::<BasisPoints>(&text).unwrap(), share, "{}", text);
            let written = format!("{}.{:04}", share.get() / 10_000, share.get() % 10_000);
            prop_assert_eq!(serde_json::from_str::<BasisPoints>(&written).unwrap(), share, "{}", written);
        }
    }

    #[test]
    fn what_is_no_share_is_refused_with_its_range() {
        for text in ["-0.1", "1.0001", "2", "-1", "0.70001", "1e-9", "1e300", "0.30000000000000004", "\"0.7\"", "true"]
        {
            let error = serde_json::from_str::<BasisPoints>(text).unwrap_err().to_string();
            assert!(error.contains("a share from 0 to 1 with at most four digits"), "{text}: {error}");
        }
        assert!(BasisPoints::new(10_001).is_err());
        assert_eq!([f64::NAN, f64::INFINITY, -0.5].map(BasisPoints::from_number), [None; 3]);
    }

    #[test]
    fn people_read_percent() {
        let shown = [0, 5, 50, 100, 5_700, 6_666, 10_000].map(|share| BasisPoints(share).to_string());
        assert_eq!(shown, ["0 %", "0.05 %", "0.5 %", "1 %", "57 %", "66.66 %", "100 %"]);
    }

    #[test]
    fn a_ratio_rounds_down_and_ends_at_the_whole() {
        let cases = [(0, 0, 0), (1, 0, 0), (1, 3, 3_333), (2, 3, 6_666), (3, 3, 10_000), (4, 3, 10_000)];
        for (part, whole, share) in cases {
            assert_eq!(BasisPoints::ratio(part, whole).get(), share, "{part} of {whole}");
        }
        assert_eq!(BasisPoints::ratio(u128::MAX - 1, u128::MAX).get(), 1, "saturated, not wrapped");
    }
}
