//! What only a person can settle.
//!
//! An escalation is as durable as its store, and unique per key: raised a hundred times, it is one item in the inbox until somebody
//! resolves it. Raised again afterwards, it is a new one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::name::Subject;
use crate::number::number;
use crate::severity::Severity;
use crate::text::Text;
use crate::time::Timestamp;
use crate::trace::TraceToken;

/// An escalation that is to be raised.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an escalation does nothing until it is raised"]
#[non_exhaustive]
pub struct NewEscalation {
    /// What it is about. While an escalation with this key is pending, there is no second one.
    pub key: Subject,
    /// Why a person is needed, such as `budget_exceeded`.
    pub reason: Text,
    /// What that person should know; opaque to S².
    pub payload: Bytes,
    /// How urgent it is.
    pub severity: Severity,
    /// The trace it belongs to.
    pub trace: Option<TraceToken>,
}

impl NewEscalation {
    /// An escalation of severity [`Severity::High`] without payload.
    pub fn new(key: Subject, reason: impl Into<Text>) -> Self {
        Self { key, reason: reason.into(), payload: Bytes::new(), severity: Severity::High, trace: None }
    }

    /// Sets what the person should know.
    pub fn with_payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Sets the severity.
    pub fn with_severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Sets the trace.
    pub fn with_trace(mut self, trace: TraceToken) -> Self {
        self.trace = Some(trace);
        self
    }
}

number! {
    /// The number of an escalation: 1, 2, 3 … over the life of the fleet.
    EscalationId
}

/// A pending or resolved escalation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Escalation {
    /// Its number; the oldest pending one is the smallest.
    pub id: EscalationId,
    /// What it is about.
    pub key: Subject,
    /// Why a person is needed.
    pub reason: Text,
    /// What that person should know.
    pub payload: Bytes,
    /// How urgent it is.
    pub severity: Severity,
    /// The trace it belongs to.
    pub trace: Option<TraceToken>,
    /// When it was first raised.
    pub raised: Timestamp,
    /// How often it has been raised; at least 1.
    pub times: u64,
}

impl Escalation {
    /// The escalation that `new` becomes when it is first raised.
    #[must_use]
    pub fn raised(new: NewEscalation, id: EscalationId, now: Timestamp) -> Self {
        let NewEscalation { key, reason, payload, severity, trace } = new;
        Self { id, key, reason, payload, severity, trace, raised: now, times: 1 }
    }
}

/// What became of raising an escalation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    /// The number of the pending escalation with that key.
    pub id: EscalationId,
    /// Whether it was pending already. Then its first reason and payload stand.
    pub duplicate: bool,
}

/// What a person decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// Who decided.
    pub by: Text,
    /// What was decided, such as `resume`.
    pub decision: Text,
}

impl Resolution {
    /// `by` decided `decision`.
    pub fn new(by: impl Into<Text>, decision: impl Into<Text>) -> Self {
        Self { by: by.into(), decision: decision.into() }
    }
}
