//! Who helps whom when several are blocked.
//!
//! One after the other would give the first its best helper, though the second may have no other. So all are looked at
//! together: the assignment of the largest total value, found by the method of Kuhn and Munkres.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;
use s2_coordinator::{Invalid, SwarmId};

use crate::bond::Bond;
use crate::candidate::Candidate;
use crate::matcher::Assessment;
use crate::matcher::Matcher;
use crate::money::NanoUsd;
use crate::need::Need;

impl Matcher<'_> {
    /// How large a problem may be: places for helpers × sessions, four million.
    pub const LARGEST_ASSIGNMENT: usize = 4_000_000;

    /// Helpers for several who are blocked: for each need, in the order given, its helpers, the best first.
    ///
    /// Each session helps at most one of them, each need gets at most as many helpers as the policy wants, and only
    /// [suitable](Matcher) ones. Of all such assignments it is one with the largest sum of score ×
    /// [value](Need::with_value); of several such, one that helps the most needs, then one with the closest bonds, then one
    /// whose helpers come first in the order of load, cost and name. It does not depend on the order of needs or
    /// candidates. Those who are free are assigned first, and then, for what is left to do, those who work. For a single
    /// need it is what [`choose`](Matcher::choose) finds.
    ///
    /// The time grows with the square of the helpers that can be assigned, times the other side.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the places for helpers times the sessions are more than [`Matcher::LARGEST_ASSIGNMENT`].
    ///
    /// ```
    /// use s2_coordinator::{Capabilities, SwarmId, Timestamp};
    /// use s2_governor::{Candidate, Matcher, Need, RescuePolicy};
    ///
    /// let set = |paths: &[&str]| Capabilities::new(paths);
    /// let needs = [
    ///     Need::new(SwarmId::new("sip")?, &set(&["integration:sip"])?),
    ///     Need::new(SwarmId::new("video")?, &set(&["video:h264"])?),
    /// ];
    /// let sessions = [
    ///     Candidate::new(SwarmId::new("expert")?, set(&["integration:sip", "video:h264"])?),
    ///     Candidate::new(SwarmId::new("other")?, set(&["integration:sip"])?),
    /// ];
    /// let mut policy = RescuePolicy::default();
    /// policy.max_rescuers_per_blocker = 1;
    /// let helpers = Matcher::new(&policy, Timestamp::EPOCH).assign(&needs, &sessions)?;
    /// // Both could help with SIP; only one of them with video.
    /// assert_eq!(helpers[0][0].candidate.session.as_str(), "other");
    /// assert_eq!(helpers[1][0].candidate.session.as_str(), "expert");
    /// # Ok::<(), s2_coordinator::Invalid>(())
    /// ```
    pub fn assign<'n>(
        &self,
        needs: &'n [Need],
        candidates: &'n [Candidate],
    ) -> Result<Vec<Vec<Assessment<'n>>>, Invalid> {
        let mut by_name: Vec<&Candidate> = candidates.iter().collect();
        by_name.sort_by_key(|candidate| &candidate.session);
        let mut suitable: Vec<_> = needs.iter().map(|need| self.suitable(need, &by_name)).collect();
        let mut helpers: Vec<Vec<Assessment<'n>>> = vec![Vec::new(); needs.len()];
        for busy in [false, true] {
            let mut round = Round::default();
            for (nth, all) in suitable.iter().enumerate() {
                let places = helpers[nth].len()..self.policy.max_rescuers_per_blocker;
                round.add(nth, places, all.iter().filter(|pair| pair.candidate.is_busy() == busy).copied());
            }
            let assigned = round.solve()?;
            let taken: HashSet<_> = assigned.iter().map(|(_, pair)| &pair.candidate.session).collect();
            suitable.iter_mut().for_each(|all| all.retain(|pair| !taken.contains(&pair.candidate.session)));
            for (nth, pair) in assigned {
                helpers[nth].push(pair);
            }
        }
        helpers.iter_mut().for_each(|helpers| helpers.sort_by_key(Assessment::rank));
        Ok(helpers)
    }

    /// Who may help, by name. One that is listed twice is what is better.
    fn suitable<'n>(&self, need: &'n Need, by_name: &[&'n Candidate]) -> Vec<Assessment<'n>> {
        let near = self.near(need);
        let mut suitable: Vec<Assessment<'n>> = Vec::new();
        for candidate in by_name {
            let pair = self.assess_near(need, &near, candidate);
            match suitable.last_mut() {
                _ if !self.is_suitable(&pair) => {}
                Some(last) if last.candidate.session == candidate.session => {
                    if pair.rank() < last.rank() {
                        *last = pair;
                    }
                }
                _ => suitable.push(pair),
            }
        }
        suitable
    }
}

/// Places for helpers, and who may fill them.
#[derive(Default)]
struct Round<'n> {
    /// For each place, whose it is, the need and its number; and how many places of that need come before it.
    places: Vec<(&'n Need, usize, usize)>,
    /// Who may fill a place of the need of this number.
    pairs: Vec<(usize, Assessment<'n>)>,
}

/// What decides between helpers in the end: load, cost and name.
type Key<'n> = (usize, NanoUsd, &'n SwarmId);

fn key<'n>((_, pair): &(usize, Assessment<'n>)) -> Key<'n> {
    (pair.candidate.load, pair.candidate.cost, &pair.candidate.session)
}

impl<'n> Round<'n> {
    fn add(&mut self, nth: usize, places: Range<usize>, pairs: impl Iterator<Item = Assessment<'n>>) {
        if places.is_empty() {
            return;
        }
        let before = self.pairs.len();
        self.pairs.extend(pairs.map(|pair| (nth, pair)));
        let pairs = &self.pairs[before..];
        // No more places than there are pairs.
        self.places.extend(places.zip(pairs).map(|(place, (_, pair))| (pair.need, nth, place)));
    }

    fn solve(mut self) -> Result<Vec<(usize, Assessment<'n>)>, Invalid> {
        // Places and sessions in an order of their own: the answer must not depend on the one in which they came.
        self.places.sort_unstable();
        let sessions: BTreeSet<&SwarmId> = self.pairs.iter().map(|(_, pair)| &pair.candidate.session).collect();
        let columns: HashMap<&SwarmId, usize> = sessions.into_iter().zip(0..).collect();
        let points: HashMap<_, i128> =
            self.pairs.iter().map(key).collect::<BTreeSet<_>>().into_iter().rev().zip(1..).collect();
        let (rows, width) = (self.places.len(), columns.len());
        if rows.saturating_mul(points.len()) > Matcher::LARGEST_ASSIGNMENT {
            let reason = format!("more than {} pairs at a time", Matcher::LARGEST_ASSIGNMENT);
            return Err(Invalid::new("assignment", &format!("{rows} places for {} sessions", points.len()), reason));
        }
        let (worths, first) = self.worths(rows.min(width), &points);
        let cells = self.cells(&columns);
        let cell = |place: usize, column: usize| cells[self.places[place].1 * width + column];
        let bonus = |place: usize| if self.places[place].2 == 0 { first } else { 0 };
        let worth = |place, column| cell(place, column).map_or(0, |pair| worths[pair] + bonus(place));
        let filled = most_worth(rows, width, worth).into_iter();
        Ok(filled.filter_map(|(place, column)| cell(place, column)).map(|pair| self.pairs[pair]).collect())
    }

    /// What each pair is worth, more than nothing, and how much more if it is the first for its need. A step of what counts
    /// first outweighs all that the pairs of an assignment, `most` at most, can have of the next.
    ///
    /// Values have 53 bits and scores 14; with four million pairs at most, all of it together stays below 2^125.
    fn worths(&self, most: usize, points: &HashMap<Key<'n>, i128>) -> (Vec<i128>, i128) {
        let (most, bonds) = (most as i128, Bond::ALL.len());
        let bond = points.len() as i128 * most + 1;
        let first = bond * (bonds as i128 * most + 1);
        let value = first * (most + 1);
        let worth = |pair: &(usize, Assessment<'n>)| {
            let Assessment { need, score, .. } = &pair.1;
            let worth = i128::from(score.total.get()) * i128::from(need.value.clamp(1, Need::HIGHEST_VALUE));
            worth * value + (bonds - pair.1.distance()) as i128 * bond + points[&key(pair)]
        };
        (self.pairs.iter().map(worth).collect(), first)
    }

    /// For each need and session, their pair, if there is one.
    fn cells(&self, columns: &HashMap<&SwarmId, usize>) -> Vec<Option<usize>> {
        let needs = self.pairs.last().map_or(0, |(nth, _)| nth + 1);
        let mut cells = vec![None; needs * columns.len()];
        for (nth, (need, pair)) in self.pairs.iter().enumerate() {
            cells[need * columns.len() + columns[&pair.candidate.session]] = Some(nth);
        }
        cells
    }
}

/// Rows and columns that are worth most together, each at most once. Those that are worth nothing may be among them.
fn most_worth(rows: usize, columns: usize, worth: impl Fn(usize, usize) -> i128) -> Vec<(usize, usize)> {
    // The algorithm gives each row a column, so there must be no more rows than columns. Since nothing is worth less than
    // nothing, who gets a column for nothing takes it from nobody.
    if rows.min(columns) == 0 {
        Vec::new()
    } else if rows <= columns {
        let (_, chosen) = kuhn_munkres(&Matrix::from_fn(rows, columns, |(row, column)| worth(row, column)));
        chosen.into_iter().enumerate().collect()
    } else {
        let (_, chosen) = kuhn_munkres(&Matrix::from_fn(columns, rows, |(column, row)| worth(row, column)));
        chosen.into_iter().zip(0..).collect()
    }
}
