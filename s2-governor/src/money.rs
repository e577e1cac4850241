//! Money as whole numbers: a billionth of a dollar each.
//!
//! Floats drift, and a sum of drifted amounts admits one call too many. A nano-dollar is a thousandth of what the cheapest
//! token costs, so amounts are exact; and scripts, which keep 53 bits of a number, can add them.

use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

use s2_coordinator::Invalid;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANOS: u64 = 1_000_000_000;

/// An amount of US dollars in billionths: from zero to $9,007,199.254740991 (2^53 − 1 nanos).
///
/// As text, and in JSON and YAML, dollars with a point: `"$50.00"`, or `"0.0000025"`. Numbers are not read: they would have
/// been floats on their way.
///
/// ```
/// use s2_governor::NanoUsd;
///
/// let price: NanoUsd = "$0.10".parse()?;
/// assert_eq!(price, NanoUsd::from_cents(10));
/// assert_eq!(price.checked_mul(50), Some(NanoUsd::from_dollars(5)));
/// assert_eq!(NanoUsd::from_nanos(2_500).to_string(), "$0.0000025");
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NanoUsd(u64);

impl NanoUsd {
    /// Nothing.
    pub const ZERO: NanoUsd = NanoUsd(0);
    /// 2^53 − 1 nanos: $9,007,199.254740991.
    pub const MAX: NanoUsd = NanoUsd((1 << 53) - 1);

    /// So many billionths of a dollar, at most [`NanoUsd::MAX`].
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        if nanos > Self::MAX.0 { Self::MAX } else { Self(nanos) }
    }

    /// So many cents, at most [`NanoUsd::MAX`].
    #[must_use]
    pub const fn from_cents(cents: u64) -> Self {
        Self::from_nanos(cents.saturating_mul(NANOS / 100))
    }

    /// So many dollars, at most [`NanoUsd::MAX`].
    #[must_use]
    pub const fn from_dollars(dollars: u64) -> Self {
        Self::from_nanos(dollars.saturating_mul(NANOS))
    }

    /// Billionths of a dollar.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The sum, unless it is more than [`NanoUsd::MAX`].
    #[must_use]
    pub const fn checked_add(self, other: NanoUsd) -> Option<NanoUsd> {
        // Both are below 2^53.
        let sum = self.0 + other.0;
        if sum > Self::MAX.0 { None } else { Some(Self(sum)) }
    }

    /// The difference, unless `other` is more.
    #[must_use]
    pub const fn checked_sub(self, other: NanoUsd) -> Option<NanoUsd> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Some(Self(rest)),
            None => None,
        }
    }

    /// The product, unless it is more than [`NanoUsd::MAX`].
    #[must_use]
    pub const fn checked_mul(self, times: u64) -> Option<NanoUsd> {
        match self.0.checked_mul(times) {
            Some(product) if product <= Self::MAX.0 => Some(Self(product)),
            _ => None,
        }
    }

    /// The sum, at most [`NanoUsd::MAX`].
    #[must_use]
    pub const fn saturating_add(self, other: NanoUsd) -> NanoUsd {
        Self::from_nanos(self.0 + other.0)
    }

    /// The difference, at least zero.
    #[must_use]
    pub const fn saturating_sub(self, other: NanoUsd) -> NanoUsd {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for NanoUsd {
    /// The sum, at most [`NanoUsd::MAX`].
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Self::saturating_add)
    }
}

impl fmt::Debug for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for NanoUsd {
    /// Dollars with cents, and as many digits more as it takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:09}", self.0 % NANOS);
        let (cents, rest) = digits.split_at(2);
        f.pad(&format!("${}.{cents}{}", self.0 / NANOS, rest.trim_end_matches('0')))
    }
}

impl FromStr for NanoUsd {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |reason: &str| Invalid::new("amount of dollars", text, reason);
        let (dollars, digits) = text
            .strip_prefix('$')
            .unwrap_or(text)
            .split_once('.')
            .unwrap_or((text.strip_prefix('$').unwrap_or(text), "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(dollars) || !is_number(digits) {
            return Err(invalid("expected dollars such as $0.10"));
        }
        if digits.len() > 9 {
            return Err(invalid("more than nine digits after the point"));
        }
        let nanos = format!("{digits:0<9}").parse::<u64>().ok();
        let dollars = dollars.parse::<u64>().ok().and_then(|dollars| dollars.checked_mul(NANOS));
        let sum = dollars.zip(nanos).and_then(|(dollars, nanos)| dollars.checked_add(nanos));
        sum.filter(|sum| *sum <= Self::MAX.0).map(Self).ok_or_else(|| invalid("more than $9007199.254740991"))
    }
}

impl Serialize for NanoUsd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NanoUsd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_keeps_every_nano(nanos in 0..=NanoUsd::MAX.as_nanos()) {
            let amount = NanoUsd::from_nanos(nanos);
            prop_assert_eq!(amount.to_string().parse::<NanoUsd>().unwrap(), amount);
            prop_assert_eq!(serde_json::to_string(&amount).unwrap().parse::<serde_json::Value>().unwrap(), amount.to_string());
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_and_named() {
        for (text, reason) in [
            ("", "expected dollars such as $0.10"),
            ("$", "expected dollars such as $0.10"),
            (".5", "expected dollars such as $0.10"),
            ("5.", "expected dollars such as $0.10"),
            ("-1", "expected dollars such as $0.10"),
            ("+1", "expected dollars such as $0.10"),
            ("1e3", "expected dollars such as $0.10"),
            ("1,000", "expected dollars such as $0.10"),
            ("0.0000000001", "more than nine digits after the point"),
            ("9007199.254740992", "more than $9007199.254740991"),
            ("99999999999999999999", "more than $9007199.254740991"),
        ] {
            assert_eq!(text.parse::<NanoUsd>().unwrap_err().reason(), reason, "{text:?}");
        }
        assert_eq!("$9007199.254740991".parse(), Ok(NanoUsd::MAX));
        assert_eq!("5".parse(), Ok(NanoUsd::from_dollars(5)));
        assert!(serde_json::from_str::<NanoUsd>("0.1").is_err(), "a float has drifted already");
    }

    #[test]
    fn sums_are_checked_or_say_that_they_saturate() {
        let (one, most) = (NanoUsd::from_nanos(1), NanoUsd::MAX);
        assert_eq!((most.checked_add(one), one.checked_sub(most)), (None, None));
        assert_eq!((most.saturating_add(most), one.saturating_sub(most)), (most, NanoUsd::ZERO));
        assert_eq!([most, one].into_iter().sum::<NanoUsd>(), most);
        assert_eq!((most.checked_mul(2), one.checked_mul(3)), (None, Some(NanoUsd::from_nanos(3))));
        assert_eq!(NanoUsd::from_dollars(u64::MAX), most);
    }
}
