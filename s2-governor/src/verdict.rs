//! What a fleet thinks of a provider.
//!
//! It is plain data, the same in every process, and small: the calls that led to it are counted where they are made.

use s2_coordinator::{Text, Timestamp};
use serde::{Deserialize, Serialize};

use crate::provider_settings::BreakerSettings;
use crate::refused::WhyOpen;

/// What a fleet thinks of a provider. In the beginning the best.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Verdict {
    /// Rises with each change of state: what was asked under another generation says nothing about this one.
    pub generation: u64,
    /// Whether it may be asked.
    pub state: BreakerState,
    /// How often it has opened since it was last closed.
    pub trips: u32,
    /// Those who try whether it is back, also those of former generations.
    pub probes: Vec<Probe>,
    /// Until when it asked for patience.
    pub cool_down: Option<Timestamp>,
    /// What a person said instead.
    pub forced: Option<Forced>,
}

/// Whether a provider may be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Yes.
    #[default]
    Closed,
    /// No, until then.
    Open {
        /// When it is to be tried again.
        until: Timestamp,
    },
    /// By a few, who find out whether it is back.
    HalfOpen(Findings),
}

/// What probes found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Findings {
    /// How many came back.
    pub back: u32,
    /// How many of these failed.
    pub failed: u32,
    /// How many of these were slow.
    pub slow: u32,
}

/// A call on its way that tries whether a provider is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Probe {
    /// A number that no other probe has.
    pub number: u64,
    /// Of which generation it is. What it finds out says nothing about another.
    pub generation: u64,
    /// When it counts as failed.
    pub until: Timestamp,
}

/// What a person said about a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    /// What is to be done.
    pub to: ForcedTo,
    /// Who said so.
    pub by: Text,
    /// Why.
    pub reason: Text,
}

/// What is to be done with a breaker, whatever calls say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForcedTo {
    /// Nobody asks.
    Open,
    /// Everybody may ask, even one that asked for patience.
    Closed,
}

impl ForcedTo {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// What one who wants to ask is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Ask,
    /// Ask for a probe.
    Probe,
    Refused(Option<Timestamp>, WhyOpen),
}

impl Verdict {
    pub(crate) fn tell(&self, now: Timestamp, settings: &BreakerSettings) -> Told {
        if let Some(forced) = &self.forced {
            return match forced.to {
                ForcedTo::Open => Told::Refused(None, WhyOpen::Forced),
                ForcedTo::Closed => Told::Ask,
            };
        }
        let cool_down = self.cool_down.filter(|until| *until > now);
        match self.state {
            BreakerState::Open { until } if until > now => {
                Told::Refused(Some(cool_down.map_or(until, |cool| cool.max(until))), WhyOpen::Tripped)
            }
            _ if cool_down.is_some() => Told::Refused(cool_down, WhyOpen::CoolingDown),
            BreakerState::Closed => Told::Ask,
            // Whoever comes when the time of a probe is over finds that out.
            _ => match self.probes.iter().map(|probe| probe.until).min() {
                Some(end) if end > now && !self.has_room(settings) => Told::Refused(Some(end), WhyOpen::Probing),
                _ => Told::Probe,
            },
        }
    }

    /// Whether one more may try whether the provider is back.
    pub(crate) fn has_room(&self, settings: &BreakerSettings) -> bool {
        let most = settings.probes as usize;
        let current = self.probes.iter().filter(|probe| probe.generation == self.generation).count();
        let tried = if let BreakerState::HalfOpen(found) = self.state { found.back as usize + current } else { 0 };
        self.probes.len() < most && tried < most
    }

    /// Whether this probe is on its way.
    pub(crate) fn awaits(&self, number: u64) -> bool {
        self.probes.iter().any(|probe| probe.number == number)
    }
}
