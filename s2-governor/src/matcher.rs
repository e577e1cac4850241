//! Who helps somebody who is blocked.
//!
//! Everybody who is idle might; when all five others helped, 57 % of what it cost was wasted. So helpers are chosen by what
//! they can do, and every choice says why.

use std::cmp::Reverse;
use std::fmt;

use s2_coordinator::{Capabilities, SwarmId, Timestamp};

use crate::basis_points::BasisPoints;
use crate::bond::Bond;
use crate::bond::Bonds;
use crate::bond::Near;
use crate::candidate::Candidate;
use crate::coverage::coverage;
use crate::money::NanoUsd;
use crate::need::Need;
use crate::rescue_policy::RescuePolicy;
use crate::score::Score;
use crate::track_record::Decay;
use crate::track_records::TrackRecords;

/// Why a session cannot help, whatever its score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Excluded {
    /// It is the one that is blocked.
    Itself,
    /// It is gone.
    Lost,
    /// Its account is halted.
    Halted,
    /// It does not offer what is mandatory.
    MandatoryMissing,
    /// It may not spend what its help would cost.
    NoHeadroom,
    /// It has a task in hand, and the need does not preempt.
    Busy,
}

impl fmt::Display for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Itself => "is the one that is blocked",
            Self::Lost => "is lost",
            Self::Halted => "is halted",
            Self::MandatoryMissing => "does not offer what is mandatory",
            Self::NoHeadroom => "may not spend what it would cost",
            Self::Busy => "has a task in hand",
        })
    }
}

/// Why a session does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Passed {
    /// It cannot.
    Excluded(Excluded),
    /// Its score is below the least that the policy asks for.
    BelowThreshold,
    /// It could, but others are better and enough.
    Outranked,
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded(excluded) => excluded.fmt(f),
            Self::BelowThreshold => f.pad("fits too little"),
            Self::Outranked => f.pad("could, but others are better"),
        }
    }
}

/// What is to be said of a session and a need. As text, for people: who, the score, what is missing, the bond, and what is
/// in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assessment<'a> {
    /// What is needed.
    pub need: &'a Need,
    /// Who might help.
    pub candidate: &'a Candidate,
    /// How well it fits.
    pub score: Score,
    /// How it stands to whoever is blocked.
    pub bond: Option<Bond>,
    /// Why it cannot help, if so.
    pub excluded: Option<Excluded>,
}

/// The order of helpers, the best first.
pub(crate) type Rank<'a> = (bool, Reverse<BasisPoints>, usize, usize, NanoUsd, &'a SwarmId);

impl<'a> Assessment<'a> {
    /// What of the required is not offered, or only in part.
    #[must_use]
    pub fn missing(&self) -> Capabilities {
        let Need { domain, tools, mandatory, .. } = self.need;
        let required: Capabilities =
            [mandatory, domain, tools].into_iter().flat_map(Capabilities::iter).cloned().collect();
        self.candidate.capabilities.missing(&required)
    }

    /// How close the bond is; 0 is the closest.
    pub(crate) fn distance(&self) -> usize {
        self.bond.map_or(Bond::ALL.len(), |bond| bond as usize)
    }

    pub(crate) fn rank(&self) -> Rank<'a> {
        let Candidate { session, load, cost, .. } = self.candidate;
        (self.candidate.is_busy(), Reverse(self.score.total), self.distance(), *load, *cost, session)
    }
}

impl fmt::Display for Assessment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.candidate.session, self.score)?;
        let missing = self.missing();
        if !missing.is_empty() {
            write!(f, "; lacks {missing}")?;
        }
        if let Some(bond) = self.bond {
            write!(f, "; {bond}")?;
        }
        match self.excluded {
            Some(excluded) => write!(f, "; {excluded}"),
            None => Ok(()),
        }
    }
}

/// Who helps, and why nobody else does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selection<'a> {
    /// The helpers, the best first.
    pub helpers: Vec<Assessment<'a>>,
    /// The others, in the order in which they were given.
    pub others: Vec<(Assessment<'a>, Passed)>,
}

/// Finds helpers by a policy and by what is known about sessions at one moment.
///
/// A helper is free or, for a need that [preempts](Need::with_preemption), works; fits well enough; and is not
/// [excluded](Excluded). Those who are free come before those who work. Then comes who fits best; of equals, who has the
/// closest [`Bond`], then who has fewer tasks, then who costs less, then the first by name.
///
/// ```
/// use s2_coordinator::{Capabilities, SwarmId, Timestamp};
/// use s2_governor::{Candidate, Matcher, Need, RescuePolicy};
///
/// let set = |paths: &[&str]| Capabilities::new(paths);
/// let need = Need::new(SwarmId::new("telephony/sip")?, &set(&["integration:sip", "telephony:protocols"])?);
/// let ndi = Candidate::new(SwarmId::new("telephony/ndi")?, set(&["integration:sip", "telephony:protocols", "tool:rust"])?);
/// let h323 = Candidate::new(SwarmId::new("telephony/h323")?, set(&["integration:h323", "telephony:legacy"])?);
///
/// let (policy, sessions) = (RescuePolicy::default(), [h323, ndi]);
/// let choice = Matcher::new(&policy, Timestamp::EPOCH).choose(&need, &sessions);
/// assert_eq!(choice.helpers.len(), 1);
/// assert_eq!(
///     choice.helpers[0].to_string(),
///     "telephony/ndi: 90 %: domain 100 %, tools 100 %, recent success 50 %",
/// );
/// let (other, why) = &choice.others[0];
/// assert_eq!(
///     format!("{other}; {why}"),
///     "telephony/h323: 40 %: domain 0 %, tools 100 %, recent success 50 %; lacks integration:sip, telephony:protocols; \
///      fits too little",
/// );
/// # Ok::<(), s2_coordinator::Invalid>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a matcher does nothing by itself"]
pub struct Matcher<'a> {
    pub(crate) policy: &'a RescuePolicy,
    now: Timestamp,
    decay: Decay,
    records: Option<&'a TrackRecords>,
    bonds: Option<&'a Bonds>,
}

impl<'a> Matcher<'a> {
    /// A matcher that knows nothing about the past and no bonds.
    pub fn new(policy: &'a RescuePolicy, now: Timestamp) -> Self {
        Self { policy, now, decay: Decay::new(now), records: None, bonds: None }
    }

    /// Sets what became of the help of sessions until now.
    pub fn with_records(mut self, records: &'a TrackRecords) -> Self {
        self.records = Some(records);
        self
    }

    /// Sets after how many days an outcome counts half: [7](Decay::HALF_LIFE_DAYS) unless set.
    pub fn with_half_life(mut self, days: u16) -> Self {
        self.decay = Decay::with_half_life(self.now, days);
        self
    }

    /// Sets how swarms stand to each other.
    pub fn with_bonds(mut self, bonds: &'a Bonds) -> Self {
        self.bonds = Some(bonds);
        self
    }

    /// How well a session fits, and whether anything is in the way.
    #[must_use]
    pub fn assess<'n>(&self, need: &'n Need, candidate: &'n Candidate) -> Assessment<'n> {
        self.assess_near(need, &self.near(need), candidate)
    }

    /// At most as many helpers as the policy wants, and why nobody else. A session that is listed twice helps once.
    #[must_use]
    pub fn choose<'n>(&self, need: &'n Need, candidates: &'n [Candidate]) -> Selection<'n> {
        let near = self.near(need);
        let all: Vec<_> = candidates.iter().map(|candidate| self.assess_near(need, &near, candidate)).collect();
        let mut best: Vec<usize> = Vec::new();
        for (nth, assessment) in all.iter().enumerate() {
            if self.is_suitable(assessment) {
                self.insert(&mut best, &all, nth);
            }
        }
        let helpers = best.iter().map(|nth| all[*nth]).collect();
        let passed = all.iter().enumerate().filter(|(nth, _)| !best.contains(nth));
        let mut others = Vec::with_capacity(all.len());
        others.extend(passed.map(|(_, assessment)| (*assessment, self.passed(assessment))));
        Selection { helpers, others }
    }

    /// Puts one in its place among the best, unless there are enough better ones or it is there already.
    fn insert(&self, best: &mut Vec<usize>, all: &[Assessment<'_>], nth: usize) {
        let rank = all[nth].rank();
        let is_full = best.len() >= self.policy.max_rescuers_per_blocker;
        if is_full && best.last().is_none_or(|last| all[*last].rank() <= rank) {
            return;
        }
        let session = &all[nth].candidate.session;
        match best.iter().position(|other| all[*other].candidate.session == *session) {
            Some(twice) if all[best[twice]].rank() <= rank => return,
            Some(twice) => drop(best.remove(twice)),
            None if is_full => drop(best.pop()),
            None => {}
        }
        best.insert(best.partition_point(|other| all[*other].rank() <= rank), nth);
    }

    fn passed(&self, assessment: &Assessment<'_>) -> Passed {
        match assessment.excluded {
            Some(excluded) => Passed::Excluded(excluded),
            None if assessment.score.total < self.policy.min_capability_match => Passed::BelowThreshold,
            None => Passed::Outranked,
        }
    }

    pub(crate) fn is_suitable(&self, assessment: &Assessment<'_>) -> bool {
        assessment.excluded.is_none() && assessment.score.total >= self.policy.min_capability_match
    }

    pub(crate) fn near(&self, need: &Need) -> Near<'a> {
        self.bonds.map(|bonds| bonds.of(&need.blocked)).unwrap_or_default()
    }

    pub(crate) fn assess_near<'n>(&self, need: &'n Need, near: &Near<'_>, candidate: &'n Candidate) -> Assessment<'n> {
        let domain = coverage(&need.domain, &candidate.capabilities);
        let tool = coverage(&need.tools, &candidate.capabilities);
        let records = self.records.map(|records| records.rate(&candidate.session, need, &self.decay));
        let score = self.policy.expertise_scoring.score(domain, tool, records.unwrap_or(BasisPoints::HALF));
        let bond = near.with(&candidate.session);
        Assessment { need, candidate, score, bond, excluded: excluded(need, candidate) }
    }
}

fn excluded(need: &Need, candidate: &Candidate) -> Option<Excluded> {
    let excludes = [
        (candidate.session == need.blocked, Excluded::Itself),
        (candidate.lost, Excluded::Lost),
        (candidate.halted, Excluded::Halted),
        (!candidate.capabilities.satisfy(&need.mandatory), Excluded::MandatoryMissing),
        (candidate.headroom < candidate.cost, Excluded::NoHeadroom),
        (candidate.is_busy() && !need.preempts, Excluded::Busy),
    ];
    excludes.into_iter().find(|(is_so, _)| *is_so).map(|(_, why)| why)
}
