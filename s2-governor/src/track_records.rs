//! The track records of a fleet.

use std::collections::BTreeMap;

use foldhash::HashMap;
use s2_coordinator::{Capability, SwarmId, Timestamp, UtcDay};
use serde::{Deserialize, Serialize, Serializer};

use crate::basis_points::BasisPoints;
use crate::need::Need;
use crate::track_record::Decay;
use crate::track_record::TrackRecord;
use crate::track_record::Verified;

/// What became of the help of each session, by domain.
///
/// Tasks are similar as far as they require the same paths: an outcome counts for each path of the domain that was needed
/// (of the tools, where no domain was). The rate for a need is the mean of the rates for its paths, rounded down.
///
/// ```
/// use s2_coordinator::{Capabilities, SwarmId, Timestamp};
/// use s2_governor::{BasisPoints, Decay, Need, TrackRecords, Verified};
///
/// let (ndi, now) = (SwarmId::new("telephony/ndi")?, Timestamp::EPOCH);
/// let need = Need::new(SwarmId::new("telephony/sip")?, &Capabilities::new(["integration:sip", "tool:rust"])?);
/// let mut records = TrackRecords::default();
/// assert_eq!(records.rate(&ndi, &need, &Decay::new(now)), BasisPoints::HALF);
/// records.record(&ndi, &need, Verified::Success, now);
/// assert!(records.rate(&ndi, &need, &Decay::new(now)) > BasisPoints::HALF);
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct TrackRecords {
    sessions: HashMap<SwarmId, BTreeMap<Capability, TrackRecord>>,
}

impl TrackRecords {
    /// Adds what became of the help of a session.
    pub fn record(&mut self, session: &SwarmId, need: &Need, outcome: Verified, at: Timestamp) {
        let records = self.sessions.entry(session.clone()).or_default();
        for subject in need.subjects().iter() {
            records.entry(subject.clone()).or_default().record(outcome, at);
        }
    }

    /// The record of a session in one domain, if it has any.
    #[must_use]
    pub fn get(&self, session: &SwarmId, domain: &Capability) -> Option<&TrackRecord> {
        self.sessions.get(session)?.get(domain)
    }

    /// How well a session did lately with what is needed: ½ where nothing is known.
    #[must_use]
    pub fn rate(&self, session: &SwarmId, need: &Need, decay: &Decay) -> BasisPoints {
        let subjects = need.subjects();
        let Some(records) = self.sessions.get(session).filter(|_| !subjects.is_empty()) else {
            return BasisPoints::HALF;
        };
        let rate = |subject| records.get(subject).map_or(BasisPoints::HALF, |record| record.rate(decay));
        let sum: u64 = subjects.iter().map(|subject| u64::from(rate(subject).get())).sum();
        BasisPoints::divided(sum, subjects.len() as u64)
    }

    /// Forgets what is older than this day.
    pub fn forget(&mut self, before: UtcDay) {
        self.sessions.retain(|_, records| {
            records.retain(|_, record| {
                record.forget(before);
                !record.is_empty()
            });
            !records.is_empty()
        });
    }
}

impl Serialize for TrackRecords {
    /// By session and domain, in order.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.sessions.iter().collect::<BTreeMap<_, _>>().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use s2_coordinator::Capabilities;

    fn need(required: &[&str]) -> Need {
        Need::new(SwarmId::from_static("blocked"), &Capabilities::new(required).unwrap())
    }

    #[test]
    fn tasks_are_similar_as_far_as_they_require_the_same() {
        let (session, now) = (SwarmId::from_static("fleet/session"), Timestamp::EPOCH);
        let mut records = TrackRecords::default();
        records.record(&session, &need(&["a", "b", "tool:rust"]), Verified::Success, now);
        let rate = |required: &[&str]| records.rate(&session, &need(required), &Decay::new(now)).get();
        assert_eq!(rate(&["a"]), 6_666);
        assert_eq!(rate(&["a", "tool:go"]), 6_666, "a tool is no domain");
        assert_eq!(rate(&["a", "c"]), 5_833, "the mean of 6,666 and 5,000");
        assert_eq!(rate(&["a:x"]), 5_000, "a record does not pass on to what is above or below");
        assert_eq!(rate(&["tool:rust"]), 5_000);
        assert_eq!(rate(&[]), 5_000);
        let other = SwarmId::from_static("fleet");
        assert_eq!(records.rate(&other, &need(&["a"]), &Decay::new(now)).get(), 5_000);
    }

    #[test]
    fn where_no_domain_is_required_tools_are_what_is_similar() {
        let (session, now) = (SwarmId::from_static("session"), Timestamp::EPOCH);
        let mut records = TrackRecords::default();
        records.record(&session, &need(&["tool:rust"]), Verified::Failure, now);
        assert_eq!(records.rate(&session, &need(&["tool:rust"]), &Decay::new(now)).get(), 3_333);
    }

    #[test]
    fn they_are_stored_in_order_and_forgotten_by_day() {
        let mut records = TrackRecords::default();
        for session in ["b", "a"] {
            records.record(&SwarmId::from_static(session), &need(&["x:y"]), Verified::Success, Timestamp::EPOCH);
        }
        let stored = serde_json::to_string(&records).unwrap();
        let day = r#"{"x:y":{"1970-01-01":{"successes":1,"failures":0}}}"#;
        assert_eq!(stored, format!(r#"{{"a":{day},"b":{day}}}"#));
        assert_eq!(serde_json::from_str::<TrackRecords>(&stored).unwrap(), records);
        records.forget(UtcDay::of(Timestamp::EPOCH).next());
        assert_eq!(records, TrackRecords::default());
    }
}
