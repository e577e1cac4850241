//! One change of a ledger, as its parts see it.

use s2_coordinator::{
    IdempotencyKey, NewEscalation, Record, Severity, Step, Subject, SwarmId, Text, Timestamp, TraceToken, UtcDay,
};

use crate::money::NanoUsd;
use crate::settings::LedgerSettings;

/// The step of the fleet, and the settings of whoever calls.
pub(super) struct Turn<'a, 'b> {
    pub(super) step: &'a mut Step<'b>,
    pub(super) settings: &'a LedgerSettings,
    pub(super) now: Timestamp,
    /// What ended before is forgotten.
    pub(super) forgets: Timestamp,
}

/// Which spend it is about, for the journal.
pub(super) struct About<'a> {
    pub(super) key: &'a IdempotencyKey,
    pub(super) session: &'a SwarmId,
    pub(super) trace: Option<TraceToken>,
}

impl Turn<'_, '_> {
    pub(super) fn today(&self) -> UtcDay {
        UtcDay::of(self.now)
    }

    /// What a spend has done, and with how much money.
    pub(super) fn spent(&mut self, operation: &'static str, about: &About<'_>, amount: (&'static str, NanoUsd)) {
        self.step.journal(record(operation, about, &[amount]));
    }

    pub(super) fn settled(&mut self, about: &About<'_>, actual: NanoUsd, reserved: NanoUsd) {
        self.step.journal(record("settle", about, &[("actual_nano_usd", actual), ("reserved_nano_usd", reserved)]));
    }

    pub(super) fn expired(&mut self, about: &About<'_>, amount: NanoUsd, presumed: bool) {
        let severity = if presumed { Severity::Medium } else { Severity::Info };
        let record = record("expire", about, &[("amount_nano_usd", amount)]);
        self.step.journal(record.with("presumed", presumed).with_severity(severity));
    }

    /// An account has reached so many percent of its limit.
    pub(super) fn reached(&mut self, swarm: &SwarmId, day: UtcDay, percent: u8, spent: NanoUsd, limit: NanoUsd) {
        let severity = if percent >= 100 { Severity::High } else { Severity::Medium };
        self.step.journal(
            Record::new("budget", "level", swarm.to_text())
                .with("day", day.to_string())
                .with("percent", u32::from(percent))
                .with("spent_nano_usd", spent.as_nanos())
                .with("limit_nano_usd", limit.as_nanos())
                .with_severity(severity),
        );
    }

    /// Asks a person about an account that is exhausted. If there are too many such questions already, what the journal says
    /// must do.
    pub(super) fn escalate(&mut self, swarm: &SwarmId, day: UtcDay, spent: NanoUsd, limit: NanoUsd) {
        let payload =
            format!(r#"{{"account":"{swarm}","day":"{day}","cost_incurred":"{spent}","budget_original":"{limit}"}}"#);
        let Ok(key) = Subject::new(escalation_key(swarm, day)) else { return };
        if let Err(error) = self.step.escalate(NewEscalation::new(key, "budget_exceeded").with_payload(payload)) {
            tracing::warn!(%swarm, %day, %error, "nobody is told that an account is exhausted");
        }
    }

    /// What a person has done to an account.
    pub(super) fn ruled(&mut self, operation: &'static str, swarm: &SwarmId, said: Option<(&'static str, Text)>) {
        let severity = if operation == "halt" { Severity::High } else { Severity::Info };
        let record = Record::new("budget", operation, swarm.to_text()).with_severity(severity);
        self.step.journal(match said {
            Some((name, text)) => record.with(name, text),
            None => record,
        });
    }
}

fn record(operation: &'static str, about: &About<'_>, amounts: &[(&'static str, NanoUsd)]) -> Record {
    let mut record = Record::new("budget", operation, about.session.to_text()).with_trace(about.trace);
    record.params.push("id", about.key.to_text());
    for (name, amount) in amounts {
        record.params.push(*name, amount.as_nanos());
    }
    record
}

/// A key has 256 bytes, as many as a path: of long paths, the end.
fn escalation_key(swarm: &SwarmId, day: UtcDay) -> String {
    let path = swarm.as_str();
    format!("budget:{day}:{}", &path[path.len().saturating_sub(230)..])
}
