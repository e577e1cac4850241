//! What help somebody needs.

use s2_coordinator::{Capabilities, SwarmId};
use serde::{Deserialize, Serialize};

/// The first word of the capabilities that are tools, such as `tool:rust`.
const TOOL: &str = "tool";

/// What it takes to help a session that is blocked.
///
/// What is required is split into *domain* and *tools*: capabilities whose first word is `tool` are tools, all others domain.
/// Both may be offered in part. What is *mandatory* must be offered in full, and adds nothing to a score.
///
/// ```
/// use s2_coordinator::{Capabilities, SwarmId};
/// use s2_governor::Need;
///
/// let required = Capabilities::new(["integration:sip", "tool:rust", "telephony:protocols"])?;
/// let need = Need::new(SwarmId::new("telephony/sip")?, &required).with_mandatory(Capabilities::new(["legal"])?);
/// assert_eq!(need.domain.to_string(), "integration:sip, telephony:protocols");
/// assert_eq!(need.tools.to_string(), "tool:rust");
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[must_use = "a need does nothing by itself"]
#[non_exhaustive]
pub struct Need {
    /// Who is blocked. Nobody helps itself.
    pub blocked: SwarmId,
    /// What must be known.
    pub domain: Capabilities,
    /// What must be mastered.
    pub tools: Capabilities,
    /// What a helper must offer in any case.
    pub mandatory: Capabilities,
    /// What help is worth, compared with others who need some: say how many wait for it × their priority × its age. From 1 to
    /// [`Need::HIGHEST_VALUE`]; what is outside counts as what is nearest.
    pub value: u64,
    /// Whether sessions that have a task in hand may be recruited:
    /// [`RescuePolicy::may_preempt`](crate::RescuePolicy::may_preempt).
    pub preempts: bool,
}

impl Need {
    /// The highest value: 2^53 − 1.
    pub const HIGHEST_VALUE: u64 = (1 << 53) - 1;

    /// A need of the value 1, for which nobody who works is recruited.
    pub fn new(blocked: SwarmId, required: &Capabilities) -> Self {
        let (tools, domain): (Vec<_>, Vec<_>) =
            required.iter().cloned().partition(|path| path.words().next() == Some(TOOL));
        let mandatory = Capabilities::default();
        Self { blocked, domain: domain.into(), tools: tools.into(), mandatory, value: 1, preempts: false }
    }

    /// Sets what a helper must offer in any case.
    pub fn with_mandatory(mut self, mandatory: Capabilities) -> Self {
        self.mandatory = mandatory;
        self
    }

    /// Sets what help is worth, compared with others who need some.
    pub fn with_value(mut self, value: u64) -> Self {
        self.value = value;
        self
    }

    /// Sets whether sessions that have a task in hand may be recruited.
    pub fn with_preemption(mut self, preempts: bool) -> Self {
        self.preempts = preempts;
        self
    }

    /// What makes another task similar to this one: the domain, or the tools where no domain is required.
    pub(crate) fn subjects(&self) -> &Capabilities {
        if self.domain.is_empty() { &self.tools } else { &self.domain }
    }
}
