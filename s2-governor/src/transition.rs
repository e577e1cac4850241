//! What changes what a fleet thinks of a provider.
//!
//! One pure function, the same for every backend: an event that happened at some time, applied to a verdict, gives another
//! verdict and what the journal says about it, or nothing. It may be applied twice: the second time it gives nothing.

use std::time::Duration;

use s2_coordinator::{Record, Severity, Text, Timestamp};

use crate::calls::{Answer, Sums, at_least};
use crate::provider::ProviderName;
use crate::provider_settings::BreakerSettings;
use crate::verdict::{BreakerState, Findings, Forced, Probe, Verdict};

/// By how much a cool-down must be longer than the last to count: calls that were refused together say nearly the same.
const LONGER: Duration = Duration::from_secs(1);

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) at: Timestamp,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Too many calls of this generation failed or were slow.
    Tripped { generation: u64, sums: Sums },
    /// Somebody wants to try whether the provider is back.
    Probe { number: u64 },
    /// What a probe found out; nothing, if it was not made after all.
    Probed { number: u64, answer: Option<Answer> },
    /// The provider asked for patience.
    CoolDown { until: Timestamp },
    /// A person said something.
    Force(Forced),
    /// A person took it back.
    Clear { by: Text },
}

/// What follows from an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) verdict: Verdict,
    pub(crate) record: Option<Record>,
}

/// What events mean for one provider.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) provider: ProviderName,
    pub(crate) settings: BreakerSettings,
}

impl Rules {
    /// What follows from an event, if anything.
    pub(crate) fn apply(&self, verdict: &Verdict, event: &Event) -> Option<Change> {
        let at = event.at;
        match &event.what {
            What::Force(forced) => self.force(verdict, forced, at),
            What::Clear { by } => self.clear(verdict, by, at),
            _ if verdict.forced.is_some() => None,
            What::Tripped { generation, sums } => {
                let counts = verdict.state == BreakerState::Closed && *generation == verdict.generation;
                counts.then(|| self.open(verdict, *sums, at))
            }
            What::Probe { .. } if verdict.cool_down.is_some_and(|until| until > at) => None,
            What::Probe { number } => self.probe(verdict, *number, at),
            What::Probed { number, answer } => self.probed(verdict, *number, *answer, at),
            What::CoolDown { until } => self.cool_down(verdict, *until, at),
        }
    }

    fn record(&self, operation: &'static str) -> Record {
        Record::new("provider", operation, self.provider.to_text())
    }

    fn open(&self, verdict: &Verdict, sums: Sums, at: Timestamp) -> Change {
        let trips = verdict.trips.saturating_add(1);
        let length = self.settings.open.saturating_mul(1 << (trips - 1).min(30)).min(self.settings.longest_open);
        let until = at + length;
        let record = self.record("open").with("until", until.to_string()).with("trips", trips);
        let record = record.with("calls", sums.calls).with("failed", sums.failed).with("slow", sums.slow);
        let state = BreakerState::Open { until };
        Change {
            verdict: Verdict { trips, ..changed(verdict, state, at) },
            record: Some(record.with_severity(Severity::High)),
        }
    }

    fn probe(&self, before: &Verdict, number: u64, at: Timestamp) -> Option<Change> {
        let mut verdict = without_expired(before, at);
        let mut record = None;
        match verdict.state {
            BreakerState::Open { until } if until <= at && verdict.has_room(&self.settings) => {
                verdict = changed(&verdict, BreakerState::HalfOpen(Findings::default()), at);
                record =
                    Some(self.record("half_open").with("probes", self.settings.probes).with("trips", verdict.trips));
            }
            BreakerState::HalfOpen(found) => {
                if let Some(decided) = self.decide(&verdict, found, at) {
                    return Some(decided);
                }
            }
            BreakerState::Open { .. } | BreakerState::Closed => return None,
        }
        if verdict.has_room(&self.settings) && !verdict.awaits(number) {
            let until = at + self.settings.probe_timeout;
            verdict.probes.push(Probe { number, generation: verdict.generation, until });
        }
        (verdict != *before).then_some(Change { verdict, record })
    }

    fn probed(&self, before: &Verdict, number: u64, answer: Option<Answer>, at: Timestamp) -> Option<Change> {
        let mut verdict = without_expired(before, at);
        if let Some(nth) = verdict.probes.iter().position(|probe| probe.number == number) {
            let probe = verdict.probes.remove(nth);
            if let (Some(answer), BreakerState::HalfOpen(found)) = (answer, &mut verdict.state)
                && probe.generation == verdict.generation
            {
                found.add(answer);
            }
        }
        if verdict == *before {
            return None;
        }
        if let BreakerState::HalfOpen(found) = verdict.state
            && let Some(decided) = self.decide(&verdict, found, at)
        {
            return Some(decided);
        }
        Some(Change { verdict, record: None })
    }

    /// Opens or closes as soon as the probes that are left cannot change it any more.
    fn decide(&self, verdict: &Verdict, found: Findings, at: Timestamp) -> Option<Change> {
        let Findings { back, failed, slow } = found;
        let all = self.settings.probes.max(back);
        let left = all - back;
        let too_many = |failed, slow| {
            at_least(failed, self.settings.failure_percent, all) || at_least(slow, self.settings.slow_percent, all)
        };
        if too_many(failed, slow) {
            return Some(self.open(verdict, Sums { calls: back, failed, slow }, at));
        }
        (!too_many(failed + left, slow + left)).then(|| {
            let record = self.record("close").with("probes", back).with("failed", failed).with("trips", verdict.trips);
            let verdict = Verdict { trips: 0, ..changed(verdict, BreakerState::Closed, at) };
            Change { verdict, record: Some(record) }
        })
    }

    fn cool_down(&self, verdict: &Verdict, until: Timestamp, at: Timestamp) -> Option<Change> {
        let until = until.min(at + self.settings.longest_cool_down);
        let longer = verdict.cool_down.is_none_or(|before| before <= at || until.since(before) >= LONGER);
        (longer && until > at).then(|| Change {
            verdict: Verdict { cool_down: Some(until), ..verdict.clone() },
            record: Some(self.record("cool_down").with("until", until.to_string()).with_severity(Severity::Medium)),
        })
    }

    fn force(&self, verdict: &Verdict, forced: &Forced, at: Timestamp) -> Option<Change> {
        if verdict.forced.as_ref() == Some(forced) {
            return None;
        }
        let record = self.record("force").with("to", forced.to.as_str()).with("by", forced.by.clone());
        let record = record.with("reason", forced.reason.clone()).with_severity(Severity::Medium);
        Some(Change { verdict: Verdict { forced: Some(forced.clone()), ..anew(verdict, at) }, record: Some(record) })
    }

    fn clear(&self, verdict: &Verdict, by: &Text, at: Timestamp) -> Option<Change> {
        verdict.forced.as_ref()?;
        let record = self.record("clear").with("by", by.clone()).with_severity(Severity::Medium);
        Some(Change { verdict: anew(verdict, at), record: Some(record) })
    }
}

/// As in the beginning, but of another generation.
fn anew(verdict: &Verdict, at: Timestamp) -> Verdict {
    Verdict { generation: changed(verdict, BreakerState::Closed, at).generation, ..Verdict::default() }
}

/// In another state, of a generation that nobody has seen: not even before the store lost its memory.
fn changed(verdict: &Verdict, state: BreakerState, at: Timestamp) -> Verdict {
    let generation = (verdict.generation + 1).max(at.as_micros());
    Verdict { generation, state, ..verdict.clone() }
}

/// Those whose time is over have failed: their process may have died, or the provider says nothing.
fn without_expired(verdict: &Verdict, at: Timestamp) -> Verdict {
    let mut verdict = verdict.clone();
    let generation = verdict.generation;
    for probe in verdict.probes.extract_if(.., |probe| probe.until <= at) {
        if let BreakerState::HalfOpen(found) = &mut verdict.state
            && probe.generation == generation
        {
            found.add(Answer { failed: true, slow: true });
        }
    }
    verdict
}

impl Findings {
    fn add(&mut self, answer: Answer) {
        self.back += 1;
        self.failed += u32::from(answer.failed);
        self.slow += u32::from(answer.slow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refused::WhyOpen;
    use crate::verdict::Told;

    const FAILED: Answer = Answer { failed: true, slow: false };
    const WELL: Answer = Answer { failed: false, slow: false };

    fn rules() -> Rules {
        Rules { provider: ProviderName::from_static("models"), settings: BreakerSettings::default() }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn after(verdict: &Verdict, seconds: u64, what: What) -> Verdict {
        let event = Event { at: at(seconds), what };
        rules().apply(verdict, &event).map_or_else(|| verdict.clone(), |change| change.verdict)
    }

    fn probe(verdict: &Verdict, seconds: u64, number: u64) -> Verdict {
        after(verdict, seconds, What::Probe { number })
    }

    fn probed(verdict: &Verdict, seconds: u64, number: u64, answer: Answer) -> Verdict {
        after(verdict, seconds, What::Probed { number, answer: Some(answer) })
    }

    /// Half-open since 31 s, with probes 1 to 5 on their way.
    fn trying() -> Verdict {
        let open = after(&Verdict::default(), 1, What::Tripped { generation: 0, sums: Sums::default() });
        (1..=5).fold(open, |verdict, number| probe(&verdict, 31, number))
    }

    fn told(verdict: &Verdict, seconds: u64) -> Told {
        verdict.tell(at(seconds), &rules().settings)
    }

    #[test]
    fn no_more_may_try_than_it_takes_to_decide() {
        let five = trying();
        assert_eq!(probe(&five, 32, 6), five);
        assert_eq!(told(&five, 32), Told::Refused(Some(at(151)), WhyOpen::Probing));
        // Two are back, three are on their way: more would not decide anything.
        let back = probed(&probed(&five, 32, 1, FAILED), 32, 2, WELL);
        assert_eq!((back.probes.len(), probe(&back, 33, 6)), (3, back.clone()));
        assert_eq!(told(&back, 33), Told::Refused(Some(at(151)), WhyOpen::Probing));
    }

    #[test]
    fn those_that_are_still_on_their_way_from_before_take_places_and_say_nothing() {
        let mut verdict = trying();
        for number in 1..=3 {
            verdict = probed(&verdict, 40, number, FAILED);
        }
        assert_eq!((verdict.state.clone(), verdict.probes.len()), (BreakerState::Open { until: at(100) }, 2));
        for number in 6..=10 {
            verdict = probe(&verdict, 100, number);
        }
        assert_eq!(verdict.probes.len(), 5, "two from before, and three");
        assert!(!verdict.awaits(9), "there was no place");
        let late = probed(&probed(&verdict, 101, 4, FAILED), 101, 5, FAILED);
        assert_eq!((late.state.clone(), late.probes.len()), (verdict.state, 3));
        // Now there is room for as many as have not tried.
        let full = (11..=15).fold(late, |verdict, number| probe(&verdict, 102, number));
        assert_eq!(full.probes.len(), 5);
    }

    #[test]
    fn old_probes_that_never_come_back_free_their_places_and_do_not_count() {
        let mut verdict = trying();
        for number in 1..=3 {
            verdict = probed(&verdict, 40, number, FAILED);
        }
        let tried = probe(&verdict, 151, 6);
        assert_eq!(tried.state, BreakerState::HalfOpen(Findings::default()));
        assert_eq!(tried.probes.iter().map(|probe| probe.number).collect::<Vec<_>>(), [6]);
    }

    #[test]
    fn with_every_place_taken_from_before_one_waits() {
        let mut settings = rules().settings;
        settings.probes = 2;
        let mut verdict = trying();
        for number in 1..=3 {
            verdict = probed(&verdict, 40, number, FAILED);
        }
        // Another process has fewer probes.
        assert_eq!(verdict.tell(at(100), &settings), Told::Refused(Some(at(151)), WhyOpen::Probing));
        assert_eq!(verdict.tell(at(151), &settings), Told::Probe);
    }

    #[test]
    fn an_event_that_is_applied_twice_changes_nothing_more() {
        let events = [
            What::Tripped { generation: 0, sums: Sums::default() },
            What::Probe { number: 1 },
            What::Probe { number: 2 },
            What::Probed { number: 1, answer: Some(FAILED) },
            What::Probed { number: 2, answer: None },
            What::CoolDown { until: at(1_000) },
            What::Force(Forced { to: crate::verdict::ForcedTo::Open, by: "ada".into(), reason: "because".into() }),
            What::Clear { by: "ada".into() },
        ];
        let mut verdict = Verdict::default();
        for (nth, what) in events.into_iter().enumerate() {
            let event = Event { at: at(31 * (nth as u64 + 1)), what };
            let change = rules().apply(&verdict, &event).expect("it changes something");
            assert_eq!(rules().apply(&change.verdict, &event), None, "{event:?}");
            verdict = change.verdict;
        }
    }
}
