//! How many tokens a call took, under the names of OpenTelemetry.
//!
//! Providers count differently: some report cached input apart from the rest, some within it. The conventions of
//! OpenTelemetry settle that, and instrumented clients already write their attributes, so a span can be priced as it is. The
//! conventions are still in development; names that they have given up, such as `gen_ai.usage.prompt_tokens`, are not read.

use s2_coordinator::Invalid;
use serde::{Deserialize, Serialize};

/// The tokens of one call, as [OpenTelemetry's conventions for generative AI][conventions] define them: input *includes* what
/// was read from and written to a cache, and output *includes* reasoning.
///
/// In JSON and YAML a flat map of attributes. Other attributes are ignored, so the attributes of a span can be read as they
/// are. A missing `gen_ai.usage.input_tokens` is refused, since a call without input would be free; others are zero.
///
/// ```
/// use s2_governor::Usage;
///
/// let usage: Usage = serde_json::from_str(
///     r#"{
///         "gen_ai.response.model": "sonnet",
///         "gen_ai.usage.input_tokens": 12000,
///         "gen_ai.usage.cache_read.input_tokens": 10000,
///         "gen_ai.usage.output_tokens": 800
///     }"#,
/// )?;
/// assert_eq!(usage, Usage::new(12_000, 800).with_cache_read(10_000));
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// A provider that reports three separate counts, as Anthropic's own API does, needs their sum as input:
///
/// ```
/// # use s2_governor::Usage;
/// let (fresh, read, created) = (2_000, 10_000, 500);
/// let usage = Usage::new(fresh + read + created, 800).with_cache_read(read).with_cache_creation(created);
/// assert!(usage.check().is_ok());
/// assert!(Usage::new(fresh, 800).with_cache_read(read).check().is_err());
/// ```
///
/// [conventions]: https://github.com/open-telemetry/semantic-conventions-genai
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the input, cached ones included.
    #[serde(rename = "gen_ai.usage.input_tokens")]
    pub input_tokens: u64,
    /// Tokens of the output, reasoning included.
    #[serde(rename = "gen_ai.usage.output_tokens", default)]
    pub output_tokens: u64,
    /// Those of the input that came from the provider's cache.
    #[serde(rename = "gen_ai.usage.cache_read.input_tokens", default, skip_serializing_if = "is_zero")]
    pub cache_read_tokens: u64,
    /// Those of the input that were written to the provider's cache.
    #[serde(rename = "gen_ai.usage.cache_creation.input_tokens", default, skip_serializing_if = "is_zero")]
    pub cache_creation_tokens: u64,
    /// Those of the output that were spent on reasoning; they cost what output costs.
    #[serde(rename = "gen_ai.usage.reasoning.output_tokens", default, skip_serializing_if = "is_zero")]
    pub reasoning_tokens: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(tokens: &u64) -> bool {
    *tokens == 0
}

impl Usage {
    /// So many tokens of input and output, none of them cached.
    #[must_use]
    pub const fn new(input_tokens: u64, output_tokens: u64) -> Self {
        Self { input_tokens, output_tokens, cache_read_tokens: 0, cache_creation_tokens: 0, reasoning_tokens: 0 }
    }

    /// Says how many of the input tokens came from the cache.
    #[must_use]
    pub const fn with_cache_read(mut self, tokens: u64) -> Self {
        self.cache_read_tokens = tokens;
        self
    }

    /// Says how many of the input tokens were written to the cache.
    #[must_use]
    pub const fn with_cache_creation(mut self, tokens: u64) -> Self {
        self.cache_creation_tokens = tokens;
        self
    }

    /// Says how many of the output tokens were spent on reasoning.
    #[must_use]
    pub const fn with_reasoning(mut self, tokens: u64) -> Self {
        self.reasoning_tokens = tokens;
        self
    }

    /// Checks that no part is more than its whole. Whoever prices usage calls it first.
    ///
    /// # Errors
    ///
    /// [`Invalid`] that names the counts.
    pub fn check(&self) -> Result<(), Invalid> {
        let Self { input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, reasoning_tokens } = *self;
        if u128::from(cache_read_tokens) + u128::from(cache_creation_tokens) > input_tokens.into() {
            let value = format!("cache_read {cache_read_tokens} + cache_creation {cache_creation_tokens}");
            let reason = format!("expected at most the {input_tokens} input_tokens that include them");
            return Err(Invalid::new("usage", &value, reason));
        }
        if reasoning_tokens > output_tokens {
            let reason = format!("expected at most the {output_tokens} output_tokens that include them");
            return Err(Invalid::new("usage", &format!("reasoning {reasoning_tokens}"), reason));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_never_more_than_its_whole() {
        for (usage, message) in [
            (
                Usage::new(10, 0).with_cache_read(8).with_cache_creation(3),
                r#"invalid usage "cache_read 8 + cache_creation 3": expected at most the 10 input_tokens that include them"#,
            ),
            (
                Usage::new(10, 4).with_reasoning(5),
                r#"invalid usage "reasoning 5": expected at most the 4 output_tokens that include them"#,
            ),
        ] {
            assert_eq!(usage.check().unwrap_err().to_string(), message);
        }
        assert!(Usage::new(u64::MAX, 0).with_cache_read(u64::MAX).with_cache_creation(u64::MAX).check().is_err());
        assert!(Usage::new(10, 4).with_cache_read(7).with_cache_creation(3).with_reasoning(4).check().is_ok());
    }

    #[test]
    fn attributes_are_read_and_written_under_their_names() {
        let usage = Usage::new(10, 4).with_cache_read(7).with_cache_creation(3).with_reasoning(2);
        let json = serde_json::to_value(usage).unwrap();
        let names = [
            "gen_ai.usage.cache_creation.input_tokens",
            "gen_ai.usage.cache_read.input_tokens",
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.reasoning.output_tokens",
        ];
        assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), names);
        assert_eq!(serde_json::from_value::<Usage>(json).unwrap(), usage);
        let embedding = r#"{"gen_ai.usage.input_tokens": 5, "gen_ai.operation.name": "embeddings"}"#;
        assert_eq!(serde_json::from_str::<Usage>(embedding).unwrap(), Usage::new(5, 0));
    }

    #[test]
    fn usage_that_says_nothing_is_refused_rather_than_free() {
        for text in [
            "{}",
            r#"{"gen_ai.usage.prompt_tokens": 5}"#,
            r#"{"gen_ai.usage.output_tokens": 5}"#,
            r#"{"gen_ai.usage.input_tokens": -1}"#,
            r#"{"gen_ai.usage.input_tokens": 1.5}"#,
            r#"{"gen_ai.usage.input_tokens": null}"#,
        ] {
            assert!(serde_json::from_str::<Usage>(text).is_err(), "{text}");
        }
    }
}
