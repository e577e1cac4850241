//! The cheapest model that can do it.
//!
//! One dear model for everything wastes most of its price on simple tasks, and one cheap model fails the others. So a task
//! says how good its model should be and how good it must be, and the router takes the cheapest one that is. Which model is
//! the cheapest depends on the call: one charges less for input, another for output, a third a fee. That is why the
//! call is estimated for each tier, rather than the tiers being sorted once.

use s2_coordinator::Text;

use crate::error::Error;
use crate::money::NanoUsd;
use crate::price_table::PriceTable;
use crate::prices::Prices;
use crate::quality::Quality;
use crate::route::Choice;
use crate::route::Considered;
use crate::route::Decision;
use crate::route::Fitness;
use crate::route::Route;
use crate::route::RouteRequest;
use crate::savings::Savings;
use crate::tier::Degrade;
use crate::tier::Tier;
use crate::tier::TierPolicy;
use crate::usage::Usage;

/// Picks a tier for each call. Equal requests get equal decisions.
///
/// ```
/// use s2_governor::{BasisPoints, NanoUsd, PriceTable, Prices, Quality, RouteRequest, Tier, TierPolicy, TierRouter, Usage};
///
/// const SIMPLE: Quality = Quality::new(1);
/// const COMPLEX: Quality = Quality::new(2);
///
/// let prices = PriceTable::new()
///     .with_model("haiku", Prices::new(NanoUsd::from_cents(24), NanoUsd::from_cents(120)))?
///     .with_model("sonnet", Prices::new(NanoUsd::from_dollars(3), NanoUsd::from_dollars(15)))?;
/// let tiers = [Tier::new("haiku", SIMPLE), Tier::new("sonnet", COMPLEX)];
/// let router = TierRouter::new(TierPolicy::new(tiers), &prices)?;
///
/// let decision = router.route(&RouteRequest::new(SIMPLE, 2_000, 500))?;
/// assert_eq!(decision.to_string(), "quality 1: haiku (1, $0.00108) chosen; sonnet (2, $0.0135) dearer");
///
/// let choice = decision.chosen().expect("a model without a budget");
/// assert_eq!(router.savings(choice, &Usage::new(1_900, 300))?.saved_share(), BasisPoints::from_percent(92));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TierRouter {
    tiers: Vec<(Tier, Prices)>,
    degrade: Vec<Degrade>,
}

/// A tier with the most that a call costs there, and what speaks against it whatever the budget.
struct Offer<'a> {
    tier: &'a Tier,
    estimate: NanoUsd,
    against: Option<Fitness>,
}

impl Offer<'_> {
    /// Whether it could do the task at this quality.
    fn can(&self, quality: Quality) -> bool {
        self.against.is_none() && self.tier.quality >= quality
    }
}

impl TierRouter {
    /// A router for these tiers at these prices. Later changes of the table do not reach it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] that names the setting, its value and what was expected; [`Error::UnknownModel`] when a tier has no
    /// price.
    pub fn new(policy: TierPolicy, prices: &PriceTable) -> Result<Self, Error> {
        policy.check()?;
        let priced = |tier: Tier| prices.prices(&tier.model).map(|prices| (tier.clone(), *prices));
        let tiers = policy.tiers.into_iter().map(priced).collect::<Result<_, _>>()?;
        Ok(Self { tiers, degrade: policy.degrade })
    }

    /// Picks the cheapest tier that is as good as wanted, has room for the tokens and offers what is required; of equally
    /// cheap ones the better, then the first by name.
    ///
    /// Lower tiers will do, but none below the floor, when the budget is below a step of [`TierPolicy::degrade`], and when
    /// it cannot pay for a better one. Nothing is reserved: whoever calls the model reserves the estimate.
    ///
    /// # Errors
    ///
    /// [`Error::AmountExceeded`] when the call would cost more than [`NanoUsd::MAX`] at one of the tiers.
    pub fn route(&self, request: &RouteRequest) -> Result<Decision, Error> {
        let offers = self.offers(request)?;
        let available = request.headroom.map_or(NanoUsd::MAX, |headroom| headroom.available);
        let cheapest = |target| offers.iter().position(|offer| offer.can(target) && offer.estimate <= available);
        let targets = self.targets(request, &offers);
        let found = targets.iter().find_map(|target| cheapest(*target).map(|nth| (*target, nth)));
        let target = found.map_or(request.floor, |(target, _)| target);
        let route = match found {
            Some((_, nth)) => Route::Chosen(choice(&offers, nth, request.floor)),
            None => refusal(&offers, request.floor, available),
        };
        let verdict = |(nth, offer)| consider(offer, target, available, found.is_some_and(|(_, chosen)| chosen == nth));
        Ok(Decision { route, target, considered: offers.iter().enumerate().map(verdict).collect() })
    }

    /// What a call cost at the chosen tier, and what the same tokens would have cost at the baseline. An estimate is never
    /// above the baseline's; a cost may be, when the call took other tokens than the estimate was made for.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownModel`] when the choice is not this router's; otherwise as [`PriceTable::cost`].
    pub fn savings(&self, choice: &Choice, usage: &Usage) -> Result<Savings, Error> {
        let spent = self.cost(&choice.model, usage)?;
        Ok(Savings::of_call(spent, self.cost(&choice.baseline, usage)?))
    }

    fn cost(&self, model: &Text, usage: &Usage) -> Result<NanoUsd, Error> {
        match self.tiers.iter().find(|(tier, _)| tier.model == *model) {
            Some((_, prices)) => prices.cost(model, usage),
            None => Err(Error::UnknownModel { model: model.clone() }),
        }
    }

    /// All tiers in the order of preference.
    fn offers<'a>(&'a self, request: &RouteRequest) -> Result<Vec<Offer<'a>>, Error> {
        let offer = |(tier, prices): &'a (Tier, Prices)| -> Result<_, Error> {
            let estimate = prices.estimate(&tier.model, request.input_tokens, request.max_output_tokens)?;
            Ok(Offer { tier, estimate, against: against(tier, request) })
        };
        let mut offers = self.tiers.iter().map(offer).collect::<Result<Vec<_>, _>>()?;
        offers.sort_by(|a, b| {
            let dearer = a.estimate.cmp(&b.estimate);
            dearer.then(b.tier.quality.cmp(&a.tier.quality)).then_with(|| a.tier.model.cmp(&b.tier.model))
        });
        Ok(offers)
    }

    /// The qualities to look for, the best first: from what is wanted, lowered as far as the budget says, to the floor.
    fn targets(&self, request: &RouteRequest, offers: &[Offer<'_>]) -> Vec<Quality> {
        let floor = request.floor;
        let mut levels: Vec<Quality> =
            offers.iter().filter(|offer| offer.can(floor)).map(|offer| offer.tier.quality).collect();
        levels.sort_unstable_by(|a, b| b.cmp(a));
        levels.dedup();
        let best = levels.first().copied().unwrap_or(floor);
        let wanted = request.wanted.min(best).max(floor);
        let mut targets = vec![wanted];
        targets.extend(levels.into_iter().filter(|level| *level < wanted));
        let lower = self.lower(request).min(targets.len() - 1);
        targets.split_off(lower)
    }

    /// How many levels lower the budget says.
    fn lower(&self, request: &RouteRequest) -> usize {
        let applies = |step: &&Degrade| request.headroom.is_some_and(|headroom| headroom.is_below(step.below));
        self.degrade.iter().filter(applies).map(|step| step.levels as usize).max().unwrap_or(0)
    }
}

/// What speaks against a tier whatever the budget.
fn against(tier: &Tier, request: &RouteRequest) -> Option<Fitness> {
    let tokens = request.input_tokens.saturating_add(request.max_output_tokens);
    let missing = tier.offers.missing(&request.requires);
    if tier.quality < request.floor {
        return Some(Fitness::BelowFloor);
    }
    if !missing.is_empty() {
        return Some(Fitness::Lacks(missing));
    }
    let context_tokens = tier.context_tokens.filter(|room| *room < tokens)?;
    Some(Fitness::TooSmall { context_tokens })
}

fn choice(offers: &[Offer<'_>], nth: usize, floor: Quality) -> Choice {
    let chosen = &offers[nth];
    // Offers are sorted, and the chosen one is among those that can.
    let baseline = offers.iter().rfind(|offer| offer.can(floor)).unwrap_or(chosen);
    Choice {
        model: chosen.tier.model.clone(),
        quality: chosen.tier.quality,
        estimate: chosen.estimate,
        baseline: baseline.tier.model.clone(),
        baseline_estimate: baseline.estimate,
    }
}

fn refusal(offers: &[Offer<'_>], floor: Quality, available: NanoUsd) -> Route {
    match offers.iter().find(|offer| offer.can(floor)) {
        Some(offer) => Route::Unaffordable { model: offer.tier.model.clone(), estimate: offer.estimate, available },
        None => Route::Unsuitable,
    }
}

fn consider(offer: &Offer<'_>, target: Quality, available: NanoUsd, is_chosen: bool) -> Considered {
    let verdict = match &offer.against {
        Some(verdict) => verdict.clone(),
        None if is_chosen => Fitness::Chosen,
        None if offer.estimate > available => Fitness::Unaffordable,
        None if offer.tier.quality < target => Fitness::BelowTarget,
        None => Fitness::Dearer,
    };
    Considered { model: offer.tier.model.clone(), quality: offer.tier.quality, estimate: offer.estimate, verdict }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::basis_points::BasisPoints;
    use crate::route::Headroom;
    use proptest::prelude::*;
    use s2_coordinator::Capabilities;

    const SIMPLE: Quality = Quality::new(1);
    const MIDDLE: Quality = Quality::new(2);
    const COMPLEX: Quality = Quality::new(4);

    fn set(paths: &[&str]) -> Capabilities {
        Capabilities::new(paths).unwrap()
    }

    /// Per million tokens, in cents: input and output.
    fn table(models: &[(&'static str, u64, u64)]) -> PriceTable {
        models.iter().fold(PriceTable::new(), |table, (model, input, output)| {
            let prices = Prices::new(NanoUsd::from_cents(*input), NanoUsd::from_cents(*output));
            table.with_model(*model, prices).unwrap()
        })
    }

    /// Three tiers; the ratio of the lowest to the highest is 12.5 : 1.
    fn router() -> TierRouter {
        let table = table(&[("haiku", 120, 600), ("sonnet", 300, 1_500), ("opus", 1_500, 7_500)]);
        let tiers = [
            Tier::new("opus", COMPLEX).with_offers(set(&["tools", "input:image"])),
            Tier::new("haiku", SIMPLE).with_context(8_000),
            Tier::new("sonnet", MIDDLE).with_context(200_000).with_offers(set(&["tools"])),
        ];
        TierRouter::new(TierPolicy::new(tiers), &table).unwrap()
    }

    /// 1,000 tokens of input and 200 of output: at most $0.0024 at haiku, $0.006 at sonnet, $0.03 at opus.
    fn request(quality: Quality) -> RouteRequest {
        RouteRequest::new(quality, 1_000, 200)
    }

    fn below(ten_thousandths: u16, levels: u32) -> Degrade {
        Degrade::new(BasisPoints::new(ten_thousandths).unwrap(), levels)
    }

    /// So many cents of ten dollars.
    fn cents(available: u64) -> Headroom {
        Headroom::new(NanoUsd::from_dollars(10), NanoUsd::from_cents(available))
    }

    #[test]
    fn simple_tasks_cost_92_percent_less_at_a_price_ratio_of_12_5() {
        let router = router();
        let mut total = Savings::default();
        for nth in 0..1_000 {
            let decision = router.route(&request(SIMPLE)).unwrap();
            let choice = decision.chosen().unwrap();
            assert_eq!((choice.model.as_str(), choice.baseline.as_str()), ("haiku", "opus"));
            let call = router.savings(choice, &Usage::new(1 + nth, nth % 200)).unwrap();
            assert_eq!(call.saved_share(), BasisPoints::from_percent(92));
            total = total.checked_add(call).unwrap();
        }
        assert_eq!((total.calls, total.saved_share()), (1_000, BasisPoints::from_percent(92)));
        // 500,500 × $1.20 + 99,500 × $6 = $1.1976, and 12.5 times that.
        assert_eq!((total.spent.to_string(), total.would_have_cost.to_string()), ("$1.1976".into(), "$14.97".into()));
    }

    #[test]
    fn the_cheapest_that_can_do_it_is_chosen_and_every_tier_has_a_verdict() {
        for (request, explained) in [
            (
                request(SIMPLE),
                "quality 1: haiku (1, $0.0024) chosen; sonnet (2, $0.006) dearer; opus (4, $0.03) dearer",
            ),
            (
                request(MIDDLE),
                "quality 2: haiku (1, $0.0024) below the floor; sonnet (2, $0.006) chosen; opus (4, $0.03) dearer",
            ),
            (
                request(SIMPLE).with_requires(set(&["tools"])),
                "quality 1: haiku (1, $0.0024) lacks tools; sonnet (2, $0.006) chosen; opus (4, $0.03) dearer",
            ),
            (
                RouteRequest::new(SIMPLE, 8_000, 1),
                "quality 1: haiku (1, $0.009606) takes 8000 tokens only; sonnet (2, $0.024015) chosen; opus (4, $0.120075) dearer",
            ),
            (
                RouteRequest::new(SIMPLE, 8_000, 0),
                "quality 1: haiku (1, $0.0096) chosen; sonnet (2, $0.024) dearer; opus (4, $0.12) dearer",
            ),
            (
                request(Quality::new(3)).with_floor(SIMPLE),
                "quality 3: haiku (1, $0.0024) lower than need be; sonnet (2, $0.006) lower than need be; opus (4, $0.03) chosen",
            ),
            (
                request(Quality::new(9)).with_floor(MIDDLE),
                "quality 4: haiku (1, $0.0024) below the floor; sonnet (2, $0.006) lower than need be; opus (4, $0.03) chosen",
            ),
        ] {
            assert_eq!(router().route(&request).unwrap().to_string(), explained);
        }
    }

    #[test]
    fn little_of_a_budget_lowers_what_is_wanted_but_never_below_the_floor() {
        let step = |policy: &[Degrade]| {
            let mut router = router();
            router.degrade = policy.to_vec();
            router
        };
        let usual = step(&[below(2_000, 1)]);
        let steep = step(&[below(500, 9), below(2_000, 1)]);
        for (router, floor, available, model) in [
            (&usual, SIMPLE, 200, "opus"),
            (&usual, SIMPLE, 199, "sonnet"),
            (&usual, SIMPLE, 1, "sonnet"),
            (&usual, COMPLEX, 199, "opus"),
            (&steep, SIMPLE, 50, "sonnet"),
            (&steep, SIMPLE, 49, "haiku"),
            (&steep, MIDDLE, 49, "sonnet"),
            (&step(&[]), SIMPLE, 3, "opus"),
            // What cannot be paid is lowered, too.
            (&step(&[]), SIMPLE, 2, "sonnet"),
            (&step(&[below(10_000, 1)]), SIMPLE, 1_000, "opus"),
        ] {
            let decision = router.route(&request(COMPLEX).with_floor(floor).with_headroom(cents(available))).unwrap();
            assert_eq!(
                decision.chosen().unwrap().model.as_str(),
                model,
                "{available} cents, floor {floor}: {decision}"
            );
        }
        // One level below what is wanted is one below the best that there is.
        let better = request(Quality::new(9)).with_floor(SIMPLE).with_headroom(cents(199));
        assert_eq!(usual.route(&better).unwrap().chosen().unwrap().model.as_str(), "sonnet");
        // Levels are those of tiers that can do the task: sonnet is no step down for a task that needs images.
        let images = request(COMPLEX).with_floor(SIMPLE).with_requires(set(&["input:image"])).with_headroom(cents(100));
        assert_eq!(usual.route(&images).unwrap().chosen().unwrap().model.as_str(), "opus");
    }

    #[test]
    fn a_refusal_is_an_answer_and_says_what_is_missing() {
        let router = router();
        let poor = Headroom::new(NanoUsd::from_dollars(10), NanoUsd::from_nanos(5_999_999));
        let decision = router.route(&request(COMPLEX).with_floor(MIDDLE).with_headroom(poor)).unwrap();
        let estimate = NanoUsd::from_nanos(6_000_000);
        assert_eq!(
            decision.route,
            Route::Unaffordable { model: "sonnet".into(), estimate, available: poor.available },
            "haiku could be paid, but is below the floor"
        );
        assert_eq!(
            decision.to_string(),
            "quality 2: haiku (1, $0.0024) below the floor; sonnet (2, $0.006) more than is available; \
             opus (4, $0.03) more than is available"
        );
        for request in [request(Quality::new(5)), request(SIMPLE).with_requires(set(&["input:audio"]))] {
            assert_eq!(router.route(&request).unwrap().route, Route::Unsuitable);
        }
    }

    #[test]
    fn equally_cheap_tiers_are_taken_by_quality_then_by_name() {
        let table = table(&[("a", 100, 100), ("b", 100, 100), ("c", 100, 100)]);
        let best = |tiers: [Tier; 3]| {
            let decision = TierRouter::new(TierPolicy::new(tiers), &table).unwrap().route(&request(SIMPLE)).unwrap();
            decision.chosen().unwrap().model.clone()
        };
        let tier = |model: &'static str, quality| Tier::new(model, quality);
        assert_eq!(best([tier("c", MIDDLE), tier("b", MIDDLE), tier("a", SIMPLE)]).as_str(), "b");
        assert_eq!(best([tier("b", SIMPLE), tier("a", SIMPLE), tier("c", SIMPLE)]).as_str(), "a");
    }

    #[test]
    fn a_tier_without_a_price_makes_no_router() {
        let error = TierRouter::new(TierPolicy::new([Tier::new("haiku", SIMPLE)]), &PriceTable::new()).unwrap_err();
        assert_eq!(error.code(), "S2_UNKNOWN_MODEL");
        let error = TierRouter::new(TierPolicy::new([]), &PriceTable::new()).unwrap_err();
        assert_eq!(error.to_string(), r#"invalid number of tiers "0": expected 1 to 64"#);
        let huge = RouteRequest::new(SIMPLE, u64::MAX, u64::MAX);
        assert_eq!(router().route(&huge).unwrap_err().code(), "S2_AMOUNT_EXCEEDED");
    }

    const MODELS: [&str; 5] = ["a", "b", "c", "d", "e"];
    const OFFERS: [&str; 2] = ["tools", "input:image"];

    /// One to five tiers whose prices and qualities need not rise together.
    fn fleet() -> impl Strategy<Value = (PriceTable, TierPolicy)> {
        let tier = (0..300_u64, 0..300_u64, 0..5_u8, proptest::option::of(1..5_000_u64), 0..=OFFERS.len());
        let steps = proptest::collection::vec((1..=10_000_u16, 1..5_u32), 0..3);
        (proptest::collection::vec(tier, 1..=MODELS.len()), steps).prop_map(|(tiers, steps)| {
            let priced: Vec<_> = MODELS.iter().zip(&tiers).map(|(model, tier)| (*model, tier.0, tier.1)).collect();
            let tiers = MODELS.iter().zip(tiers).map(|(model, (_, _, quality, context_tokens, offers))| {
                let tier = Tier::new(*model, Quality::new(quality)).with_offers(set(&OFFERS[..offers]));
                Tier { context_tokens, ..tier }
            });
            let steps: Vec<_> = steps.into_iter().map(|(share, levels)| below(share, levels)).collect();
            (table(&priced), TierPolicy::new(tiers.collect::<Vec<_>>()).with_degrade(steps))
        })
    }

    fn any_request() -> impl Strategy<Value = RouteRequest> {
        let headroom = proptest::option::of((0..20_000_000_u64, 0..20_000_000_u64));
        (0..6_u8, 0..6_u8, 0..4_000_u64, 0..2_000_u64, 0..=OFFERS.len(), headroom).prop_map(
            |(wanted, floor, input, output, requires, headroom)| {
                let request = RouteRequest::new(Quality::new(wanted), input, output)
                    .with_floor(Quality::new(floor))
                    .with_requires(set(&OFFERS[..requires]));
                let nanos = NanoUsd::from_nanos;
                headroom.into_iter().fold(request, |request, (a, b)| {
                    request.with_headroom(Headroom::new(nanos(a.max(b)), nanos(a.min(b))))
                })
            },
        )
    }

    /// The estimates of the tiers that can do the task at its floor.
    fn able(table: &PriceTable, policy: &TierPolicy, request: &RouteRequest) -> Vec<(Quality, NanoUsd)> {
        let (input, output) = (request.input_tokens, request.max_output_tokens);
        let room = |tier: &&Tier| tier.context_tokens.is_none_or(|room| room >= input + output);
        let tiers = policy.tiers.iter().filter(room).filter(|tier| tier.offers.satisfy(&request.requires));
        tiers
            .filter(|tier| tier.quality >= request.floor)
            .map(|tier| (tier.quality, table.estimate(&tier.model, input, output).unwrap()))
            .collect()
    }

    proptest! {
        #[test]
        fn a_choice_keeps_floor_budget_and_baseline((table, policy) in fleet(), request in any_request()) {
            let decision = TierRouter::new(policy.clone(), &table).unwrap().route(&request).unwrap();
            let able = able(&table, &policy, &request);
            let available = request.headroom.map_or(NanoUsd::MAX, |headroom| headroom.available);
            let payable = able.iter().filter(|(_, estimate)| *estimate <= available);
            prop_assert_eq!(decision.considered.len(), policy.tiers.len());
            prop_assert!(decision.target >= request.floor && decision.target <= request.wanted);
            match &decision.route {
                Route::Chosen(choice) => {
                    prop_assert!(able.contains(&(choice.quality, choice.estimate)), "cannot do it: {}", decision);
                    prop_assert!(choice.quality >= decision.target && choice.estimate <= available);
                    let same = payable.filter(|(quality, _)| *quality >= decision.target);
                    prop_assert_eq!(same.map(|(_, estimate)| *estimate).min(), Some(choice.estimate));
                    prop_assert_eq!(able.iter().map(|(_, estimate)| *estimate).max(), Some(choice.baseline_estimate));
                }
                Route::Unaffordable { estimate, .. } => {
                    prop_assert_eq!(payable.count(), 0);
                    prop_assert_eq!(able.iter().map(|(_, estimate)| *estimate).min(), Some(*estimate));
                }
                Route::Unsuitable => prop_assert!(able.is_empty()),
            }
        }

        #[test]
        fn without_a_budget_nothing_is_lowered((table, policy) in fleet(), mut request in any_request()) {
            request.headroom = None;
            let decision = TierRouter::new(policy.clone(), &table).unwrap().route(&request).unwrap();
            let best = able(&table, &policy, &request).into_iter().map(|(quality, _)| quality).max();
            let chosen = decision.chosen().map(|choice| choice.quality);
            prop_assert_eq!(chosen.is_some(), best.is_some());
            prop_assert!(chosen >= best.map(|best| best.min(request.wanted)));
        }

        #[test]
        fn the_order_of_the_tiers_says_nothing((table, policy) in fleet(), request in any_request(), turn in 0..5_usize) {
            let mut turned = policy.clone();
            turned.tiers.reverse();
            let middle = turn % turned.tiers.len();
            turned.tiers.rotate_left(middle);
            let route = |policy| TierRouter::new(policy, &table).unwrap().route(&request).unwrap();
            prop_assert_eq!(route(policy), route(turned));
        }
    }
}
