//! Why a task is where it is, with all that S² knows.

use std::fmt;

use s2_coordinator::{SwarmId, TaskId, Text, Timestamp, Why};
use s2_governor::{Balance, BreakerState, ForcedTo, ProviderName};

use crate::error::Error;
use crate::help::ORGANISER;
use crate::help::Rescue;
use crate::rescue;
use crate::s2::S2;

/// Of how many sessions it is asked whether they are halted.
const ASKED: usize = 50;

/// Why a task is where it is. As text, for people: a line for each thing that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// What the scheduler says.
    pub why: Why,
    /// If it is blocked: how well each session would help, and what is in the way, the best first.
    pub helpers: Vec<(SwarmId, Text)>,
    /// Which accounts of the sessions that could take it are halted: of at most fifty sessions.
    pub halted: Vec<Balance>,
    /// The providers that are left alone now.
    pub breakers: Vec<BreakerSaid>,
}

/// A provider that is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerSaid {
    /// Which.
    pub provider: ProviderName,
    /// Until when, as far as that is known.
    pub until: Option<Timestamp>,
}

impl S2 {
    /// Why a task is where it is: what the scheduler says, and what speaks against the sessions that could do something about
    /// it.
    ///
    /// # Errors
    ///
    /// `S2_UNKNOWN_TASK`, `S2_BACKEND`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    pub async fn why(&self, task: TaskId) -> Result<Explanation, Error> {
        let why = self.scheduler().why(task).await?;
        let helpers = match &why {
            Why::Blocked { session, reason, requires, since, .. } => {
                let known = self.scheduler().task(task).await?.task;
                let (kind, subject) = (known.kind.clone(), known.subject.clone());
                let (by, reason, requires) = (session.clone(), reason.clone(), requires.clone());
                let rescue = Rescue { blocked: task, by, kind, subject, reason, requires, since: *since, weight: 1 };
                rescue::assess(self, &rescue).await?
            }
            _ => Vec::new(),
        };
        let halted = match &why {
            Why::Queued { .. } | Why::Assigned { .. } | Why::Refused { .. } => self.halted(task).await?,
            _ => Vec::new(),
        };
        Ok(Explanation { why, helpers, halted, breakers: self.breakers() })
    }

    /// The halted accounts of those who could take a task.
    async fn halted(&self, task: TaskId) -> Result<Vec<Balance>, Error> {
        let status = self.scheduler().task(task).await?;
        let sessions = self.scheduler().sessions(None, ASKED).await?;
        let mut halted: Vec<Balance> = Vec::new();
        for info in sessions.iter().filter(|info| info.incarnation.session != ORGANISER) {
            let session = &info.incarnation.session;
            let assigned = status.session.as_ref().is_none_or(|assignee| assignee == session);
            if assigned && info.capabilities.may_take(&status.task.requires) {
                let balances = self.ledger().balances(session, None).await?;
                halted.extend(balances.into_iter().filter(|balance| balance.halted.is_some()));
            }
        }
        halted.sort_by(|one, other| one.swarm.cmp(&other.swarm));
        halted.dedup();
        Ok(halted)
    }

    fn breakers(&self) -> Vec<BreakerSaid> {
        let all = self.providers().all();
        let left_alone = all.iter().filter_map(|provider| {
            let (provider, verdict) = (provider.breaker().provider().clone(), provider.breaker().verdict());
            let cooling = verdict.cool_down.filter(|until| *until > self.clock().now());
            match (verdict.forced.map(|forced| forced.to), verdict.state) {
                (Some(ForcedTo::Closed), _) => None,
                (Some(ForcedTo::Open), _) => Some(BreakerSaid { provider, until: None }),
                (None, BreakerState::Open { until }) => Some(BreakerSaid { provider, until: cooling.max(Some(until)) }),
                _ => cooling.map(|until| BreakerSaid { provider, until: Some(until) }),
            }
        });
        left_alone.collect()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = serde_json::to_string(&self.why).map_err(|_| fmt::Error)?;
        write!(f, "{why}")?;
        self.helpers.iter().try_for_each(|(_, because)| write!(f, "\n{because}"))?;
        for Balance { swarm, limit, spent, halted, .. } in &self.halted {
            let reason = halted.as_ref().map_or("", Text::as_str);
            write!(f, "\n{swarm} is halted: {reason}, spent {spent} of {limit}")?;
        }
        for BreakerSaid { provider, until } in &self.breakers {
            let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
            write!(f, "\nprovider {provider} is left alone{until}")?;
        }
        Ok(())
    }
}
