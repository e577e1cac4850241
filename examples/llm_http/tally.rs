//! What has come of all calls.

use std::collections::BTreeMap;
use std::fmt;

use http::StatusCode;
use s2_coordinator::{Text, Timestamp};
use s2_governor::{BreakerState, NanoUsd, Savings, Verdict, WhyOpen};

use crate::caller::{BoxError, Called, NotAsked};

#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How many calls of each model were answered, and what they cost.
    models: BTreeMap<Text, (u32, NanoUsd)>,
    failed: BTreeMap<StatusCode, u32>,
    given_up: u32,
    /// Why the provider was not asked, and how often.
    not_asked: BTreeMap<String, u32>,
    pub(crate) spent: NanoUsd,
    pub(crate) savings: Savings,
    /// How often the breaker has opened.
    pub(crate) opened: u32,
    /// What was said last of the breaker, so that it is said once.
    said: (u64, Option<Timestamp>),
}

impl Tally {
    pub(crate) fn count(&mut self, called: &Called) -> Result<(), BoxError> {
        match called {
            Called::Answered { model, cost, savings } => {
                let (calls, sum) = self.models.entry(model.clone()).or_default();
                *calls += 1;
                *sum = sum.checked_add(*cost).ok_or("too much")?;
                self.savings = self.savings.checked_add(*savings).ok_or("too much")?;
                self.settle(*cost)?;
            }
            Called::Failed(status) => *self.failed.entry(*status).or_default() += 1,
            Called::GivenUp(_) => self.given_up += 1,
            Called::NotAsked(why) => *self.not_asked.entry(reason(why)).or_default() += 1,
        }
        Ok(())
    }

    pub(crate) fn settle(&mut self, cost: NanoUsd) -> Result<(), BoxError> {
        self.spent = self.spent.checked_add(cost).ok_or("too much")?;
        Ok(())
    }

    /// How often the provider was asked.
    pub(crate) fn asked(&self) -> u32 {
        let answered: u32 = self.models.values().map(|(calls, _)| calls).sum();
        answered + self.failed.values().sum::<u32>() + self.given_up
    }

    /// How often it has asked for patience.
    pub(crate) fn throttled(&self) -> u32 {
        self.failed.get(&StatusCode::TOO_MANY_REQUESTS).copied().unwrap_or_default()
    }

    /// How often it has failed.
    pub(crate) fn failures(&self) -> u32 {
        self.failed.iter().filter(|(status, _)| status.is_server_error()).map(|(_, calls)| calls).sum()
    }

    /// How the breaker stands, if that has changed.
    pub(crate) fn look(&mut self, verdict: &Verdict, now: Timestamp) -> Option<String> {
        let state = (verdict.generation, verdict.cool_down);
        if std::mem::replace(&mut self.said, state) == state {
            return None;
        }
        self.opened += u32::from(matches!(verdict.state, BreakerState::Open { .. }));
        let cooling = verdict.cool_down.filter(|until| *until > now);
        Some(match (&verdict.state, cooling) {
            (BreakerState::Open { until }, _) => format!("open, for {} s", until.since(now).as_secs()),
            (BreakerState::HalfOpen(found), _) => format!("half-open, {} probes are back", found.back),
            (BreakerState::Closed, Some(until)) => format!("closed, cooling down for {} s", until.since(now).as_secs()),
            (BreakerState::Closed, None) => "closed".to_owned(),
        })
    }
}

fn reason(why: &NotAsked) -> String {
    match why {
        NotAsked::BreakerOpen(open) if open.reason == WhyOpen::CoolingDown => "it asked for patience".to_owned(),
        NotAsked::BreakerOpen(_) => "the breaker was open".to_owned(),
        NotAsked::BulkheadFull(_) => "the bulkhead was full".to_owned(),
        NotAsked::Denied(denied) => format!("denied by account {}", denied.swarm),
        NotAsked::Unaffordable(_) => "no model could be paid".to_owned(),
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (model, (calls, cost)) in &self.models {
            writeln!(f, "{calls:>4} answers of the {model} model, for {cost}")?;
        }
        for (status, calls) in &self.failed {
            writeln!(f, "{calls:>4} answered with {status}")?;
        }
        writeln!(f, "{:>4} given up", self.given_up)?;
        for (why, calls) in &self.not_asked {
            writeln!(f, "{calls:>4} refused without a call: {why}")?;
        }
        write!(f, "{}", self.savings)
    }
}
