//! What each model charges.
//!
//! Models are found by their exact name or by a declared alias, never by the beginning of a name: `gpt-4o` is also the
//! beginning of `gpt-4o-mini`, and `o1` of `o1-pro`, which cost another multiple each. What is not in the table has no price;
//! taking it for free would be a budget without a floor.

use std::collections::BTreeMap;

use s2_coordinator::{Invalid, NAME_BYTES, Text};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::money::NanoUsd;
use crate::prices::Prices;
use crate::usage::Usage;

/// The prices of models, by name. Every table is valid: what is wrong is refused when it is added or read.
///
/// An alias is another name of a model in the table, such as the dated one that a provider reports.
///
/// ```
/// use s2_governor::{PriceTable, Usage};
///
/// let table: PriceTable = serde_saphyr::from_str(
///     r#"
/// models:
///   sonnet: { input: "$3", output: "$15", cache_read: "$0.30", cache_creation: "$3.75" }
/// aliases:
///   sonnet-20250929: sonnet
/// "#,
/// )?;
/// // 2,000 × $3 + 10,000 × $0.30 + 800 × $15 = $21,000, and a millionth of that
/// let usage = Usage::new(12_000, 800).with_cache_read(10_000);
/// assert_eq!(table.cost("sonnet-20250929", &usage)?.to_string(), "$0.021");
/// assert_eq!(table.cost("sonnet-2", &usage).unwrap_err().code(), "S2_UNKNOWN_MODEL");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Settings")]
pub struct PriceTable {
    models: BTreeMap<Text, Prices>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    aliases: BTreeMap<Text, Text>,
}

/// The table as a file says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    models: BTreeMap<Text, Prices>,
    #[serde(default)]
    aliases: BTreeMap<Text, Text>,
}

impl TryFrom<Settings> for PriceTable {
    type Error = Invalid;

    fn try_from(settings: Settings) -> Result<Self, Invalid> {
        let models = settings.models.into_iter();
        let table =
            models.into_iter().try_fold(Self::new(), |table, (model, prices)| table.with_model(model, prices))?;
        settings.aliases.into_iter().try_fold(table, |table, (alias, model)| table.with_alias(alias, model))
    }
}

impl PriceTable {
    /// How many models and how many aliases a table may have.
    pub const MODELS: usize = 10_000;

    /// A table without models.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a model, or replaces its prices.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the name is empty, longer than 256 bytes or an alias, when the table is full, or when a long input
    /// would cost less than a short one.
    pub fn with_model(mut self, model: impl Into<Text>, prices: Prices) -> Result<Self, Invalid> {
        let model = model.into();
        check_name("models", &model)?;
        prices.check(&model)?;
        if self.aliases.contains_key(&model) {
            return Err(Invalid::new("models", &model, "an alias has that name"));
        }
        self.models.insert(model, prices);
        check_size("models", self.models.len())?;
        Ok(self)
    }

    /// Adds another name of a model that is in the table, or makes it the name of another model.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the alias is empty, longer than 256 bytes or the name of a model, when there is no such model, or when
    /// the table is full.
    pub fn with_alias(mut self, alias: impl Into<Text>, model: impl Into<Text>) -> Result<Self, Invalid> {
        let (alias, model) = (alias.into(), model.into());
        check_name("aliases", &alias)?;
        if self.models.contains_key(&alias) {
            return Err(Invalid::new("aliases", &alias, "a model has that name"));
        }
        if !self.models.contains_key(&model) {
            let reason = format!("of model {model:?}: expected a model of the table");
            return Err(Invalid::new("aliases", &alias, reason));
        }
        self.aliases.insert(alias, model);
        check_size("aliases", self.aliases.len())?;
        Ok(self)
    }

    /// What the model of this name or alias charges.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownModel`].
    pub fn prices(&self, model: &str) -> Result<&Prices, Error> {
        let name = self.aliases.get(model).map_or(model, Text::as_str);
        self.models.get(name).ok_or_else(|| Error::UnknownModel { model: Text::new(model) })
    }

    /// What one call cost: exact, and rounded up to a nano-dollar once.
    ///
    /// The usage is that of one call. For a sum of several, the fee of a call would count once and a long input be seen where
    /// there is none; without those, it differs from the sum of the costs by less than a nano a call.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownModel`]; [`Error::Invalid`] when the usage contradicts itself; [`Error::AmountExceeded`] when it is more
    /// than [`NanoUsd::MAX`].
    pub fn cost(&self, model: &str, usage: &Usage) -> Result<NanoUsd, Error> {
        self.prices(model)?.cost(model, usage)
    }

    /// The most that one call can cost: what to reserve before it. No call with at most so many tokens of input and output
    /// costs more, however much of its input is cached.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownModel`]; [`Error::AmountExceeded`] when it is more than [`NanoUsd::MAX`].
    pub fn estimate(&self, model: &str, input_tokens: u64, max_output_tokens: u64) -> Result<NanoUsd, Error> {
        self.prices(model)?.estimate(model, input_tokens, max_output_tokens)
    }
}

fn check_name(field: &'static str, name: &str) -> Result<(), Invalid> {
    if name.is_empty() || name.len() > NAME_BYTES {
        return Err(Invalid::new(field, name, format!("expected a name of 1 to {NAME_BYTES} bytes")));
    }
    Ok(())
}

fn check_size(field: &'static str, size: usize) -> Result<(), Invalid> {
    if size > PriceTable::MODELS {
        return Err(Invalid::new(field, &size.to_string(), format!("expected at most {}", PriceTable::MODELS)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prices as providers printed them in 2024 and 2025. A table of a fleet states its own.
    const PRINTED: &str = r#"
models:
  haiku-3: { input: "$0.25", output: "$1.25", cache_read: "$0.03", cache_creation: "$0.30" }
  haiku-3.5: { input: "$0.80", output: "$4", cache_read: "$0.08", cache_creation: "$1" }
  sonnet-4.5:
    { input: "$3", output: "$15", cache_read: "$0.30", cache_creation: "$3.75",
      long_context: { above_tokens: 200000, input: "$6", output: "$22.50", cache_read: "$0.60", cache_creation: "$7.50" } }
  opus-4: { input: "$15", output: "$75", cache_read: "$1.50", cache_creation: "$18.75" }
  gpt-4o-mini: { input: "$0.15", output: "$0.60", cache_read: "$0.075" }
  gpt-4o-mini-batch: { input: "$0.075", output: "$0.30", cache_read: "$0.0375" }
  flash-8b: { input: "$0.0375", output: "$0.15", cache_read: "$0.01" }
  o1: { input: "$15", output: "$60", cache_read: "$7.50" }
  sonar: { input: "$1", output: "$1", request: "$0.005" }
  embedding-small: { input: "$0.02", output: "$0" }
  local: { input: "$0", output: "$0" }
aliases:
  sonnet-4.5-20250929: sonnet-4.5
"#;

    fn table() -> PriceTable {
        serde_saphyr::from_str(PRINTED).unwrap()
    }

    /// In the comments: tokens × dollars per million; the sum is in millionths of a dollar (1,000 nanos).
    #[test]
    fn costs_are_what_the_invoices_say() {
        let table = table();
        for (nth, model, usage, cost) in [
            // A short question: 1,000 × 0.25 + 400 × 1.25 = 250 + 500 = 750.
            (1, "haiku-3", Usage::new(1_000, 400), "$0.00075"),
            // A conversation that reads its cache, 52,000 − 48,000 = 4,000 fresh:
            // 4,000 × 3 + 48,000 × 0.30 + 1,200 × 15 = 12,000 + 14,400 + 18,000 = 44,400.
            (2, "sonnet-4.5-20250929", Usage::new(52_000, 1_200).with_cache_read(48_000), "$0.0444"),
            // Its first turn, which fills the cache, 48,150 − 48,000 = 150 fresh:
            // 150 × 3 + 48,000 × 3.75 + 35 × 15 = 450 + 180,000 + 525 = 180,975.
            (3, "sonnet-4.5", Usage::new(48_150, 35).with_cache_creation(48_000), "$0.180975"),
            // Both at once, 30,007 − 20,000 − 10,000 = 7 fresh:
            // 7 × 15 + 20,000 × 1.50 + 10,000 × 18.75 + 1 × 75 = 105 + 30,000 + 187,500 + 75 = 217,680.
            (4, "opus-4", Usage::new(30_007, 1).with_cache_read(20_000).with_cache_creation(10_000), "$0.21768"),
            // Exactly at the step the lower prices hold: 200,000 × 3 + 1,000 × 15 = 615,000.
            (5, "sonnet-4.5", Usage::new(200_000, 1_000), "$0.615"),
            // One token above it, all of them cost more, cached ones are counted: 1 × 6 + 200,000 × 0.60 + 1,000 × 22.50 =
            // 6 + 120,000 + 22,500 = 142,506.
            (6, "sonnet-4.5", Usage::new(200_001, 1_000).with_cache_read(200_000), "$0.142506"),
            // Reasoning is output: 500 × 15 + 9,000 × 60 = 7,500 + 540,000 = 547,500.
            (7, "o1", Usage::new(500, 9_000).with_reasoning(8_200), "$0.5475"),
            // A fraction of a nano: 333 × 0.0375 + 1 × 0.15 = 12.4875 + 0.15 = 12.6375 millionths = 12,637.5 nanos → 12,638.
            (8, "flash-8b", Usage::new(333, 1), "$0.000012638"),
            // Two fractions that are rounded together: 3 fresh × 0.075 + 1 read × 0.0375 + 1 × 0.30 =
            // 0.225 + 0.0375 + 0.30 = 0.5625 millionths = 562.5 nanos → 563.
            (9, "gpt-4o-mini-batch", Usage::new(4, 1).with_cache_read(1), "$0.000000563"),
            // A fee for each call: 5,000 + 28 × 1 + 312 × 1 = 5,340.
            (10, "sonar", Usage::new(28, 312), "$0.00534"),
            // A call that took nothing costs the fee.
            (11, "sonar", Usage::new(0, 0), "$0.005"),
            // Zero usage.
            (12, "opus-4", Usage::new(0, 0), "$0.00"),
            // A night's batch in one line: 9,876,543,210 × 0.075 + 1,234,567,891 × 0.30 =
            // 740,740,740.75 + 370,370,367.3 = 1,111,111,108.05 millionths = $1,111.11110805.
            (13, "gpt-4o-mini-batch", Usage::new(9_876_543_210, 1_234_567_891), "$1111.11110805"),
            // Embeddings have no output: 8,191 × 0.02 = 163.82.
            (14, "embedding-small", Usage::new(8_191, 0), "$0.00016382"),
            // A cache that the provider fills for what input costs: 1,024 × 0.15 + 2,048 × 0.15 + 100 × 0.60 =
            // 153.6 + 307.2 + 60 = 520.8.
            (15, "gpt-4o-mini", Usage::new(3_072, 100).with_cache_creation(2_048), "$0.0005208"),
            // All of the input from the cache: 100,000 × 0.08 + 1 × 4 = 8,004.
            (16, "haiku-3.5", Usage::new(100_000, 1).with_cache_read(100_000), "$0.008004"),
            // What is declared free is free.
            (17, "local", Usage::new(1_000_000, 1_000_000), "$0.00"),
        ] {
            assert_eq!(table.cost(model, &usage).unwrap().to_string(), cost, "invoice {nth}: {model}");
        }
    }

    #[test]
    fn an_estimate_takes_all_input_for_the_dearest_kind() {
        // 10,000 × 3.75 + 500 × 15 = 37,500 + 7,500 = 45,000; above the step 300,000 × 7.50 + 1,000 × 22.50 = 2,272,500.
        let table = table();
        assert_eq!(table.estimate("sonnet-4.5", 10_000, 500).unwrap().to_string(), "$0.045");
        assert_eq!(table.estimate("sonnet-4.5", 300_000, 1_000).unwrap().to_string(), "$2.2725");
        assert_eq!(table.estimate("sonar", 0, 0).unwrap().to_string(), "$0.005");
    }

    #[test]
    fn an_unknown_model_is_named_and_never_free() {
        let table = table();
        for model in ["gpt-4o", "o1-pro", "sonnet", "Local", "", "sonnet-4.5 "] {
            let error = table.cost(model, &Usage::new(1, 1)).unwrap_err();
            assert_eq!((error.code(), error.is_retryable()), ("S2_UNKNOWN_MODEL", false));
            assert!(error.to_string().contains(&format!("{model:?}")), "{error}");
            assert_eq!(table.estimate(model, 1, 1).unwrap_err().code(), "S2_UNKNOWN_MODEL");
        }
    }

    #[test]
    fn usage_that_contradicts_itself_has_no_cost() {
        let error = table().cost("o1", &Usage::new(10, 1).with_cache_read(11)).unwrap_err();
        assert_eq!(error.code(), "S2_INVALID");
        assert!(error.to_string().contains("cache_read 11"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        let long = "m".repeat(257);
        for (text, message) in [
            (r#"models: {a: {input: "$1"}}"#.to_owned(), "output"),
            (r#"models: {a: {input: "$1", output: "$2", cache_reed: "$1"}}"#.into(), "cache_reed"),
            (r#"models: {a: {input: "-1", output: "$2"}}"#.into(), r#"amount of dollars "-1": expected dollars such as $0.10"#),
            (r#"models: {a: {input: "9007200", output: "$2"}}"#.into(), "more than $9007199.254740991"),
            (r#"models: {"": {input: "$1", output: "$2"}}"#.into(), r#"models "": expected a name of 1 to 256 bytes"#),
            (format!(r#"models: {{{long}: {{input: "$1", output: "$2"}}}}"#), "expected a name of 1 to 256 bytes"),
            (r#"{models: {}, aliases: {a: b}}"#.into(), r#"aliases "a": of model "b": expected a model of the table"#),
            (r#"{models: {}, alias: {}}"#.into(), "alias"),
            (r#"models: {a: {input: "$1", output: "$1"}}
aliases: {a: a}"#.into(), r#"aliases "a": a model has that name"#),
            (r#"models: {a: {input: "$1", output: "$2", long_context: {above_tokens: 9, input: "$1", output: "$1"}}}"#.into(),
                r#"long_context.output "$1.00": of model "a": expected $2.00 to $9007199.254740991"#),
        ] {
            let error = serde_saphyr::from_str::<PriceTable>(&text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let json = serde_json::to_string(&table()).unwrap();
        assert_eq!(serde_json::from_str::<PriceTable>(&json).unwrap(), table());
        let aliased = table().with_model("sonnet-4.5-20250929", Prices::new(NanoUsd::ZERO, NanoUsd::ZERO));
        assert_eq!(aliased.unwrap_err().reason(), "an alias has that name");
    }
}
