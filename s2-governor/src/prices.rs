//! What a model charges, and what that makes of a call.
//!
//! Prices are per million tokens, as providers print them. A token then costs a fraction of a nano-dollar now and then, so
//! a cost is added up in millionths of a nano and rounded up once, at the end: rounding each part would charge up to
//! four nanos too much, and rounding down would admit one call too many.

use s2_coordinator::Invalid;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::money::NanoUsd;
use crate::usage::Usage;

/// Prices are for so many tokens.
const PER_TOKENS: u128 = 1_000_000;

/// What one model charges, per million tokens unless said otherwise.
///
/// Providers that ask more for a cache entry that lives longer have one number of cache tokens in the conventions: state
/// the higher price. What is free must say so with a price of `"$0"`.
///
/// ```
/// use s2_governor::{LongContext, NanoUsd, Prices};
///
/// let prices: Prices = serde_json::from_str(r#"{"input": "$3", "output": "$15", "cache_read": "$0.30"}"#)?;
/// assert_eq!(prices.cache_read, Some(NanoUsd::from_cents(30)));
/// assert_eq!(prices.cache_creation, None); // as input: $3
///
/// // Above 200,000 input tokens every token of the call costs more.
/// let dear = LongContext::new(200_000, NanoUsd::from_dollars(6), NanoUsd::from_cents(22_50));
/// assert_eq!(prices.with_long_context(dear).long_context, Some(dear));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Prices {
    /// Input that is neither read from nor written to a cache.
    pub input: NanoUsd,
    /// Output, reasoning included.
    pub output: NanoUsd,
    /// Input read from the cache; as `input` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<NanoUsd>,
    /// Input written to the cache; as `input` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_creation: Option<NanoUsd>,
    /// A fee for each call, however many tokens it takes: none unless said otherwise.
    #[serde(default)]
    pub request: NanoUsd,
    /// What a call with a long input is charged instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_context: Option<LongContext>,
}

/// The prices of all tokens of a call whose input, cached tokens included, is above a number of tokens.
///
/// None may be below the price that it replaces: then a longer input would be cheaper, and an estimate no upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LongContext {
    /// They apply above so many input tokens.
    pub above_tokens: u64,
    /// As [`Prices::input`].
    pub input: NanoUsd,
    /// As [`Prices::output`].
    pub output: NanoUsd,
    /// As [`Prices::cache_read`]; as `input` of these prices unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<NanoUsd>,
    /// As [`Prices::cache_creation`]; as `input` of these prices unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_creation: Option<NanoUsd>,
}

/// The prices that apply to one call.
#[derive(Clone, Copy)]
struct Rates {
    input: NanoUsd,
    output: NanoUsd,
    cache_read: NanoUsd,
    cache_creation: NanoUsd,
}

impl LongContext {
    /// Prices of input and output above so many input tokens; cached input costs what input costs.
    #[must_use]
    pub const fn new(above_tokens: u64, input: NanoUsd, output: NanoUsd) -> Self {
        Self { above_tokens, input, output, cache_read: None, cache_creation: None }
    }

    /// Sets the price of input that is read from the cache.
    #[must_use]
    pub const fn with_cache_read(mut self, price: NanoUsd) -> Self {
        self.cache_read = Some(price);
        self
    }

    /// Sets the price of input that is written to the cache.
    #[must_use]
    pub const fn with_cache_creation(mut self, price: NanoUsd) -> Self {
        self.cache_creation = Some(price);
        self
    }

    fn rates(&self) -> Rates {
        let Self { input, output, cache_read, cache_creation, .. } = *self;
        Rates::new(input, output, cache_read, cache_creation)
    }
}

impl Rates {
    fn new(input: NanoUsd, output: NanoUsd, read: Option<NanoUsd>, creation: Option<NanoUsd>) -> Self {
        Self { input, output, cache_read: read.unwrap_or(input), cache_creation: creation.unwrap_or(input) }
    }

    fn named(&self) -> [(&'static str, NanoUsd); 4] {
        [
            ("long_context.input", self.input),
            ("long_context.output", self.output),
            ("long_context.cache_read", self.cache_read),
            ("long_context.cache_creation", self.cache_creation),
        ]
    }
}

impl Prices {
    /// Prices of input and output; cached input costs what input costs, and calls have no fee.
    #[must_use]
    pub const fn new(input: NanoUsd, output: NanoUsd) -> Self {
        Self { input, output, cache_read: None, cache_creation: None, request: NanoUsd::ZERO, long_context: None }
    }

    /// Sets the price of input that is read from the cache.
    #[must_use]
    pub const fn with_cache_read(mut self, price: NanoUsd) -> Self {
        self.cache_read = Some(price);
        self
    }

    /// Sets the price of input that is written to the cache.
    #[must_use]
    pub const fn with_cache_creation(mut self, price: NanoUsd) -> Self {
        self.cache_creation = Some(price);
        self
    }

    /// Sets the fee of each call.
    #[must_use]
    pub const fn with_request(mut self, fee: NanoUsd) -> Self {
        self.request = fee;
        self
    }

    /// Sets the prices of calls with a long input.
    #[must_use]
    pub const fn with_long_context(mut self, prices: LongContext) -> Self {
        self.long_context = Some(prices);
        self
    }

    /// Checks that a long input costs no less than a short one. A price table calls it.
    pub(crate) fn check(&self, model: &str) -> Result<(), Invalid> {
        let Some(long) = &self.long_context else {
            return Ok(());
        };
        let above = long.rates().named().into_iter();
        match above.zip(self.rates(0).named()).find(|((_, above), (_, below))| above < below) {
            Some(((field, above), (_, below))) => {
                let reason = format!("of model {model:?}: expected {below} to {}", NanoUsd::MAX);
                Err(Invalid::new(field, &above.to_string(), reason))
            }
            None => Ok(()),
        }
    }

    /// What one call with this usage costs; `model` is for errors.
    pub(crate) fn cost(&self, model: &str, usage: &Usage) -> Result<NanoUsd, Error> {
        usage.check()?;
        let rates = self.rates(usage.input_tokens);
        let fresh = usage.input_tokens - usage.cache_read_tokens - usage.cache_creation_tokens;
        let parts = [
            (fresh, rates.input),
            (usage.cache_read_tokens, rates.cache_read),
            (usage.cache_creation_tokens, rates.cache_creation),
            (usage.output_tokens, rates.output),
        ];
        self.add_up(&parts, || format!("the cost of a call of model {model:?}"))
    }

    /// The most that one call with so many tokens can cost.
    pub(crate) fn estimate(&self, model: &str, input_tokens: u64, max_output_tokens: u64) -> Result<NanoUsd, Error> {
        let rates = self.rates(input_tokens);
        let dearest_input = rates.input.max(rates.cache_read).max(rates.cache_creation);
        let parts = [(input_tokens, dearest_input), (max_output_tokens, rates.output)];
        self.add_up(&parts, || format!("the estimate of a call of model {model:?}"))
    }

    fn rates(&self, input_tokens: u64) -> Rates {
        match &self.long_context {
            Some(long) if input_tokens > long.above_tokens => long.rates(),
            _ => Rates::new(self.input, self.output, self.cache_read, self.cache_creation),
        }
    }

    /// The fee and the parts, each so many tokens at a price.
    fn add_up(&self, parts: &[(u64, NanoUsd)], what: impl FnOnce() -> String) -> Result<NanoUsd, Error> {
        // Each product is below 2^64 × 2^53, so four of them are far from the end of 128 bits.
        let product = |(tokens, price): &(u64, NanoUsd)| u128::from(*tokens) * u128::from(price.as_nanos());
        let tokens = parts.iter().map(product).sum::<u128>().div_ceil(PER_TOKENS);
        let nanos = tokens + u128::from(self.request.as_nanos());
        match u64::try_from(nanos) {
            Ok(fits) if fits <= NanoUsd::MAX.as_nanos() => Ok(NanoUsd::from_nanos(fits)),
            _ => Err(Error::AmountExceeded { what: what(), nanos }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Prices with fractions of a nano per token, up to $1,000 per million.
    fn price() -> impl Strategy<Value = NanoUsd> {
        (0..1_000_000_000_000_u64).prop_map(NanoUsd::from_nanos)
    }

    fn plain() -> impl Strategy<Value = Prices> {
        let cached = || proptest::option::of(price());
        (price(), price(), cached(), cached()).prop_map(|(input, output, cache_read, cache_creation)| Prices {
            cache_read,
            cache_creation,
            ..Prices::new(input, output)
        })
    }

    /// The same with a fee and prices of long inputs, which are never lower.
    fn any_prices() -> impl Strategy<Value = Prices> {
        (plain(), price(), proptest::option::of((0..200_000_u64, plain()))).prop_map(|(prices, fee, long)| {
            let prices = prices.with_request(fee);
            let Some((above_tokens, more)) = long else { return prices };
            let (base, more) = (prices.rates(0), more.rates(0));
            prices.with_long_context(
                LongContext::new(
                    above_tokens,
                    base.input.saturating_add(more.input),
                    base.output.saturating_add(more.output),
                )
                .with_cache_read(base.cache_read.saturating_add(more.cache_read))
                .with_cache_creation(base.cache_creation.saturating_add(more.cache_creation)),
            )
        })
    }

    fn usage() -> impl Strategy<Value = Usage> {
        let tokens = || 0..100_000_u64;
        (tokens(), tokens(), tokens(), tokens()).prop_map(|(fresh, read, creation, output)| {
            Usage::new(fresh + read + creation, output).with_cache_read(read).with_cache_creation(creation)
        })
    }

    fn add(a: Usage, b: Usage) -> Usage {
        Usage::new(a.input_tokens + b.input_tokens, a.output_tokens + b.output_tokens)
            .with_cache_read(a.cache_read_tokens + b.cache_read_tokens)
            .with_cache_creation(a.cache_creation_tokens + b.cache_creation_tokens)
    }

    proptest! {
        #[test]
        fn one_cost_of_a_sum_is_less_than_a_nano_a_call_below_the_sum_of_costs(
            prices in plain(),
            calls in proptest::collection::vec(usage(), 1..20),
        ) {
            let costs: NanoUsd = calls.iter().map(|call| prices.cost("m", call).unwrap()).sum();
            let at_once = prices.cost("m", &calls.iter().copied().fold(Usage::default(), add)).unwrap();
            prop_assert!(at_once <= costs);
            prop_assert!(costs.as_nanos() - at_once.as_nanos() < calls.len() as u64);
        }

        #[test]
        fn more_tokens_never_cost_less(prices in any_prices(), call in usage(), more in usage()) {
            prop_assert!(prices.check("m").is_ok());
            prop_assert!(prices.cost("m", &call).unwrap() <= prices.cost("m", &add(call, more)).unwrap());
        }

        #[test]
        fn no_call_costs_more_than_its_estimate(prices in any_prices(), call in usage(), more in usage()) {
            let most = add(call, more);
            let estimate = prices.estimate("m", most.input_tokens, most.output_tokens).unwrap();
            prop_assert!(prices.cost("m", &call).unwrap() <= estimate);
            prop_assert!(prices.cost("m", &most).unwrap() <= estimate);
        }
    }

    #[test]
    fn fractions_are_rounded_up_once() {
        // 0.4 nanos a token of input, 0.3 of output: 0.7 nanos together, which rounded apart would be 2.
        let prices = Prices::new(NanoUsd::from_nanos(400_000), NanoUsd::from_nanos(300_000));
        for (usage, nanos) in [
            (Usage::new(0, 0), 0),
            (Usage::new(1, 0), 1),
            (Usage::new(1, 1), 1),
            (Usage::new(1, 2), 1),
            (Usage::new(1, 3), 2),
            (Usage::new(5, 0), 2),
            (Usage::new(5, 10), 5),
        ] {
            assert_eq!(prices.cost("m", &usage).unwrap().as_nanos(), nanos, "{usage:?}");
        }
    }

    #[test]
    fn a_cost_above_the_largest_amount_is_an_error_that_names_the_limit() {
        let prices = Prices::new(NanoUsd::MAX, NanoUsd::MAX).with_request(NanoUsd::MAX);
        let error = prices.cost("m", &Usage::new(u64::MAX, u64::MAX)).unwrap_err();
        assert_eq!(error.code(), "S2_AMOUNT_EXCEEDED");
        assert_eq!(
            prices.cost("m", &Usage::new(1, 0)).unwrap_err().to_string(),
            r#"the cost of a call of model "m" comes to 9007208261940246 nano-dollars, the limit NanoUsd::MAX is 9007199254740991"#
        );
        assert_eq!(prices.estimate("m", 0, 0).unwrap(), NanoUsd::MAX);
        assert!(prices.estimate("m", 0, 1).is_err());
    }

    #[test]
    fn a_long_input_costs_no_less_than_a_short_one() {
        let dollars = NanoUsd::from_dollars;
        let prices = Prices::new(dollars(3), dollars(15)).with_cache_creation(dollars(4));
        let long = LongContext::new(100, dollars(3), dollars(15));
        assert!(prices.with_long_context(long.with_cache_creation(dollars(4))).check("m").is_ok());
        let error = prices.with_long_context(long).check("m").unwrap_err();
        let text = r#"invalid long_context.cache_creation "$3.00": of model "m": expected $4.00 to $9007199.254740991"#;
        assert_eq!(error.to_string(), text);
    }
}
