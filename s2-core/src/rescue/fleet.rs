//! The sessions of the fleet as helpers.

use std::collections::HashSet;

use s2_coordinator::SwarmId;
use s2_governor::{Balance, Candidate};

use crate::error::Error;
use crate::s2::S2;

/// How many sessions are listed at a time.
const PAGE: usize = 500;

/// The sessions of the fleet at one moment, except those that do nothing but what S² asks of them.
#[derive(Debug, Default)]
pub(crate) struct Sighted {
    pub(crate) candidates: Vec<Candidate>,
    /// Of whom it is known what they may spend.
    asked: HashSet<SwarmId>,
}

impl Sighted {
    /// Looks around.
    pub(crate) async fn look(s2: &S2) -> Result<Self, Error> {
        let mut sighted = Self::default();
        let mut after: Option<SwarmId> = None;
        loop {
            let page = s2.scheduler().sessions(after.as_ref(), PAGE).await?;
            after = page.last().map(|info| info.incarnation.session.clone());
            let is_last = page.len() < PAGE;
            let others = page.iter().filter(|info| !info.capabilities.is_dedicated());
            let cost = s2.settings().help.cost;
            sighted.candidates.extend(others.map(|info| Candidate::from(info).with_cost(cost)));
            if is_last {
                return Ok(sighted);
            }
        }
    }

    /// How many have nothing in hand.
    pub(crate) fn idle(&self) -> usize {
        self.candidates.iter().filter(|candidate| !candidate.is_busy()).count()
    }

    /// Asks what these may spend, each once. Answers whether anybody was asked.
    pub(crate) async fn ask_ledger(&mut self, s2: &S2, sessions: &[SwarmId]) -> Result<bool, Error> {
        let mut is_new = false;
        for session in sessions {
            if !self.asked.insert(session.clone()) {
                continue;
            }
            is_new = true;
            let balances = s2.ledger().balances(session, None).await?;
            let of_session = |candidate: &&mut Candidate| candidate.session == *session;
            for candidate in self.candidates.iter_mut().filter(of_session) {
                candidate.headroom = balances.iter().map(Balance::available).min().unwrap_or(candidate.headroom);
                candidate.halted = balances.iter().any(|balance| balance.halted.is_some());
            }
        }
        Ok(is_new)
    }
}
