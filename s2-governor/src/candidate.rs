//! Who might help.

use s2_coordinator::{Capabilities, SessionInfo, SessionState, SwarmId};
use serde::{Deserialize, Serialize};

use crate::money::NanoUsd;

/// A session that might help, as far as that does not depend on whom.
///
/// ```
/// use s2_coordinator::{Capabilities, SwarmId};
/// use s2_governor::{Candidate, NanoUsd};
///
/// let ndi = Candidate::new(SwarmId::new("telephony/ndi")?, Capabilities::new(["integration:ndi", "integration:sip"])?)
///     .with_load(1)
///     .with_cost(NanoUsd::from_cents(40));
/// assert_eq!(ndi.headroom, NanoUsd::MAX);
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a candidate does nothing by itself"]
#[non_exhaustive]
pub struct Candidate {
    /// Which session.
    pub session: SwarmId,
    /// What it offers.
    pub capabilities: Capabilities,
    /// What it does. One that works is busy; one that waits for others has nothing in hand and may help meanwhile.
    pub state: SessionState,
    /// How many tasks it has.
    pub load: usize,
    /// What its help will cost.
    pub cost: NanoUsd,
    /// What it may still spend.
    pub headroom: NanoUsd,
    /// Whether its account, or one above it, is halted.
    pub halted: bool,
    /// Whether it is gone without having left.
    pub lost: bool,
}

impl Candidate {
    /// An idle session without tasks whose help costs nothing.
    pub fn new(session: SwarmId, capabilities: Capabilities) -> Self {
        let (cost, headroom) = (NanoUsd::ZERO, NanoUsd::MAX);
        Self { session, capabilities, state: SessionState::Idle, load: 0, cost, headroom, halted: false, lost: false }
    }

    /// Sets what it does.
    pub fn with_state(mut self, state: SessionState) -> Self {
        self.state = state;
        self
    }

    /// Sets how many tasks it has.
    pub fn with_load(mut self, load: usize) -> Self {
        self.load = load;
        self
    }

    /// Sets what its help will cost.
    pub fn with_cost(mut self, cost: NanoUsd) -> Self {
        self.cost = cost;
        self
    }

    /// Sets what it may still spend.
    pub fn with_headroom(mut self, headroom: NanoUsd) -> Self {
        self.headroom = headroom;
        self
    }

    /// Sets whether its account, or one above it, is halted.
    pub fn with_halted(mut self, halted: bool) -> Self {
        self.halted = halted;
        self
    }

    /// Sets whether it is gone without having left.
    pub fn with_lost(mut self, lost: bool) -> Self {
        self.lost = lost;
        self
    }

    /// Whether it has a task in hand. A state that is not known counts as that.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        !matches!(self.state, SessionState::Idle | SessionState::WaitingOn | SessionState::Blocked)
    }
}

impl From<&SessionInfo> for Candidate {
    /// What a scheduler knows of it; costs and headroom are to be added.
    fn from(info: &SessionInfo) -> Self {
        Self::new(info.incarnation.session.clone(), info.capabilities.clone())
            .with_state(info.state)
            .with_load(info.load + info.queued)
    }
}
