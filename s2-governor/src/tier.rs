//! The models that a fleet may choose from, and when it makes do with less.

use s2_coordinator::{Capabilities, Invalid, Text};
use serde::{Deserialize, Deserializer, Serialize};

use crate::basis_points::BasisPoints;
use crate::basis_points::Share;
use crate::quality::Quality;

/// One model that a fleet may choose. What it charges is in the price table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Tier {
    /// The model, by its name or alias in the price table.
    pub model: Text,
    /// How good it is.
    pub quality: Quality,
    /// How many tokens of input and output together it takes; any number unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<u64>,
    /// What it can do beyond answering, such as `tools` or `input:image`; nothing unless said otherwise.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub offers: Capabilities,
}

impl Tier {
    /// A model of this quality that takes any number of tokens and offers nothing beyond answering.
    #[must_use]
    pub fn new(model: impl Into<Text>, quality: Quality) -> Self {
        Self { model: model.into(), quality, context_tokens: None, offers: Capabilities::default() }
    }

    /// Sets how many tokens of input and output together it takes.
    #[must_use]
    pub fn with_context(mut self, tokens: u64) -> Self {
        self.context_tokens = Some(tokens);
        self
    }

    /// Sets what it can do beyond answering.
    #[must_use]
    pub fn with_offers(mut self, offers: Capabilities) -> Self {
        self.offers = offers;
        self
    }
}

/// When little of a budget is left, lower models than the wanted one will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Degrade {
    /// It applies while less than this share of the limit is available: more than nothing.
    #[serde(deserialize_with = "below")]
    pub below: BasisPoints,
    /// How many levels lower, counted over the levels of those models that can do the task: 1 to 255.
    pub levels: u32,
}

impl Degrade {
    /// So many levels lower while less than this share of the limit is available.
    #[must_use]
    pub const fn new(below: BasisPoints, levels: u32) -> Self {
        Self { below, levels }
    }
}

fn below<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BasisPoints, D::Error> {
    deserializer.deserialize_any(Share { field: "degrade.below" })
}

/// The tiers of a fleet and how they follow the budget: what a configuration file says about models.
///
/// ```
/// use s2_governor::{BasisPoints, Degrade, Quality, Tier, TierPolicy};
///
/// let policy: TierPolicy = serde_saphyr::from_str(
///     "
/// tiers:
///   - { model: haiku, quality: 1, context_tokens: 200000 }
///   - { model: sonnet, quality: 2, context_tokens: 200000, offers: [tools] }
/// degrade:
///   - { below: 0.20, levels: 1 }
/// ",
/// )?;
/// assert_eq!(policy.tiers[0], Tier::new("haiku", Quality::new(1)).with_context(200_000));
/// assert_eq!(policy.degrade, [Degrade::new(BasisPoints::from_percent(20), 1)]); // as if it said nothing
/// policy.check()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TierPolicy {
    /// The models to choose from: 1 to 64. Their order says nothing.
    pub tiers: Vec<Tier>,
    /// When lower ones will do: at most 16 steps; below 20 % of the limit one level, unless said otherwise. Of the steps
    /// that apply the one with the most levels counts.
    #[serde(default = "one_level_below_a_fifth")]
    pub degrade: Vec<Degrade>,
}

fn one_level_below_a_fifth() -> Vec<Degrade> {
    vec![Degrade::new(BasisPoints::from_percent(20), 1)]
}

impl TierPolicy {
    /// How many tiers there may be.
    pub const TIERS: usize = 64;
    /// How many steps of degrading there may be.
    pub const STEPS: usize = 16;

    /// These tiers, one level lower below 20 % of a limit.
    #[must_use]
    pub fn new(tiers: impl Into<Vec<Tier>>) -> Self {
        Self { tiers: tiers.into(), degrade: one_level_below_a_fifth() }
    }

    /// Replaces the steps of degrading; without any the budget changes nothing as long as it can pay.
    #[must_use]
    pub fn with_degrade(mut self, steps: impl Into<Vec<Degrade>>) -> Self {
        self.degrade = steps.into();
        self
    }

    /// Checks everything that can be wrong; a router calls it before anything else.
    ///
    /// # Errors
    ///
    /// [`Invalid`] that names the setting, its value and what was expected.
    pub fn check(&self) -> Result<(), Invalid> {
        let between = |field, value: u64, low: u64, high: u64| match value {
            value if (low..=high).contains(&value) => Ok(()),
            value => Err(Invalid::new(field, &value.to_string(), format!("expected {low} to {high}"))),
        };
        between("number of tiers", self.tiers.len() as u64, 1, Self::TIERS as u64)?;
        between("number of degrade steps", self.degrade.len() as u64, 0, Self::STEPS as u64)?;
        for (nth, tier) in self.tiers.iter().enumerate() {
            if self.tiers[..nth].iter().any(|other| other.model == tier.model) {
                return Err(Invalid::new("tiers.model", &tier.model, "expected each model once"));
            }
            between("tiers.context_tokens", tier.context_tokens.unwrap_or(1), 1, u64::MAX)?;
        }
        for step in &self.degrade {
            if step.below == BasisPoints::ZERO {
                return Err(Invalid::new("degrade.below", "0", "expected more than 0, at most 1"));
            }
            between("degrade.levels", step.levels.into(), 1, u8::MAX.into())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(nth: usize) -> Tier {
        Tier::new(format!("model-{nth}"), Quality::new(1))
    }

    #[test]
    fn bad_settings_are_refused_with_field_value_and_range() {
        let policy = || TierPolicy::new([tier(1)]);
        let half = |levels| Degrade::new(BasisPoints::HALF, levels);
        for (policy, message) in [
            (TierPolicy::new([]), r#"invalid number of tiers "0": expected 1 to 64"#),
            (
                TierPolicy::new((0..65).map(tier).collect::<Vec<_>>()),
                r#"invalid number of tiers "65": expected 1 to 64"#,
            ),
            (TierPolicy::new([tier(1), tier(1)]), r#"invalid tiers.model "model-1": expected each model once"#),
            (
                TierPolicy::new([tier(1).with_context(0)]),
                r#"invalid tiers.context_tokens "0": expected 1 to 18446744073709551615"#,
            ),
            (
                policy().with_degrade([Degrade::new(BasisPoints::ZERO, 1)]),
                r#"invalid degrade.below "0": expected more than 0, at most 1"#,
            ),
            (policy().with_degrade([half(0)]), r#"invalid degrade.levels "0": expected 1 to 255"#),
            (policy().with_degrade([half(256)]), r#"invalid degrade.levels "256": expected 1 to 255"#),
            (policy().with_degrade([half(1); 17]), r#"invalid number of degrade steps "17": expected 0 to 16"#),
        ] {
            assert_eq!(policy.check().unwrap_err().to_string(), message);
        }
        assert_eq!(policy().with_degrade([]).check(), Ok(()));
    }

    #[test]
    fn what_a_file_gets_wrong_is_named() {
        for (text, message) in [
            ("tiers: [{model: a, quality: 256}]", r#"invalid quality "256": expected 0 to 255"#),
            ("tiers: [{model: a, quality: 1, context: 5}]", "context"),
            ("tiers: [{model: a, quality: 1, offers: [a b]}]", "a word has letters, digits and . _ + # - only"),
            ("tiers: [{quality: 1}]", "model"),
            ("{tiers: [], degrades: []}", "degrades"),
            (
                "{tiers: [], degrade: [{below: 20, levels: 1}]}",
                "integer `20`, expected degrade.below from 0 to 1 with at most four digits after the point",
            ),
            ("{tiers: [], degrade: [{below: 0.20001, levels: 1}]}", "floating point `0.20001`, expected degrade.below"),
            ("{tiers: [], degrade: [{levels: 1}]}", "below"),
        ] {
            let error = serde_saphyr::from_str::<TierPolicy>(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_policy_is_read_as_it_was_written() {
        let offers = Capabilities::new(["tools"]).unwrap();
        let tiers = [tier(1), tier(2).with_context(8_192).with_offers(offers)];
        let policy = TierPolicy::new(tiers)
            .with_degrade([Degrade::new(BasisPoints::HALF, 1), Degrade::new(BasisPoints::from_percent(5), 255)]);
        let json = serde_json::to_string(&policy).unwrap();
        assert!(json.ends_with(r#""degrade":[{"below":0.5,"levels":1},{"below":0.05,"levels":255}]}"#), "{json}");
        assert_eq!(serde_json::from_str::<TierPolicy>(&json).unwrap(), policy);
    }
}
