//! The claims that wait in this process.

use std::collections::{BTreeMap, HashMap};

use crate::lease::Claim;

/// The claims that wait here. A claim is either answered or withdrawn, whichever comes first; one whose session leaves has no
/// other answer than that.
#[derive(Debug, Default)]
pub(super) struct WaitingClaims {
    /// By session and request.
    latest: BTreeMap<(u64, u64), Wait>,
    /// How many calls let a session leave.
    leaving: HashMap<u64, usize>,
}

/// The latest wait of a claim, which may be asked again before it is answered.
#[derive(Debug)]
struct Wait {
    number: u64,
    /// Nobody waits any more, and the fleet is still to hear of it.
    withdrawn: bool,
    /// The session leaves, or has left.
    left: bool,
}

/// What becomes of a claim that would wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    Waits,
    /// The fleet is still to hear of what its session has withdrawn.
    NotYet,
    /// Its session leaves.
    Leaves,
}

impl WaitingClaims {
    /// A claim begins to wait, unless its session leaves or, where it can, it lets withdrawals go first.
    pub(super) fn begin(&mut self, claim: &Claim, number: u64, is_patient: bool) -> Begin {
        let session = claim.by.number;
        if self.leaving.contains_key(&session) {
            return Begin::Leaves;
        }
        if is_patient && self.waits(session).any(|(_, wait)| wait.withdrawn) {
            return Begin::NotYet;
        }
        self.latest.insert(key(claim), Wait { number, withdrawn: false, left: false });
        Begin::Waits
    }

    fn waits(&mut self, session: u64) -> impl Iterator<Item = (u64, &mut Wait)> {
        let waits = self.latest.range_mut((session, 0)..=(session, u64::MAX));
        waits.map(|(&(_, request), wait)| (request, wait))
    }

    /// The wait has an answer. Answers whether it may be told.
    pub(super) fn answered(&mut self, claim: &Claim, number: u64) -> bool {
        match self.latest.get(&key(claim)) {
            Some(wait) if wait.number == number => {
                !wait.withdrawn && !wait.left && self.latest.remove(&key(claim)).is_some()
            }
            // Somebody goes on with it, and is told the same.
            _ => true,
        }
    }

    /// Nobody waits any more for an answer. Answers whether it was the latest wait of its claim.
    pub(super) fn withdraw(&mut self, claim: &Claim, number: u64) -> bool {
        let wait = self.latest.get_mut(&key(claim)).filter(|wait| wait.number == number);
        wait.map(|wait| wait.withdrawn = true).is_some()
    }

    /// The withdrawn wait is known to the fleet, or past its help.
    pub(super) fn end(&mut self, claim: &Claim, number: u64) {
        if self.withdraw(claim, number) {
            self.latest.remove(&key(claim));
        }
    }

    /// A session leaves: what waits for it has no other answer, and nothing new begins to wait. Answers with these requests.
    pub(super) fn begin_leave(&mut self, session: u64) -> Vec<u64> {
        *self.leaving.entry(session).or_default() += 1;
        let waits = self.waits(session).map(|(request, wait)| {
            wait.left = true;
            request
        });
        waits.collect()
    }

    /// The session has left, or stays.
    pub(super) fn end_leave(&mut self, session: u64) {
        if let Some(count) = self.leaving.get_mut(&session) {
            *count -= 1;
            if *count == 0 {
                self.leaving.remove(&session);
            }
        }
    }
}

fn key(claim: &Claim) -> (u64, u64) {
    (claim.by.number, claim.request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Incarnation;
    use crate::swarm::SwarmId;

    fn claim(session: u64, request: u64) -> Claim {
        Claim { by: Incarnation { session: SwarmId::from_static("one"), number: session }, request, max: 1 }
    }

    /// Nothing is kept of what has ended.
    fn is_empty(claims: &WaitingClaims) -> bool {
        claims.latest.is_empty() && claims.leaving.is_empty()
    }

    #[test]
    fn a_wait_is_answered_or_withdrawn_whichever_comes_first() {
        let (mut claims, claim) = (WaitingClaims::default(), claim(1, 1));
        assert_eq!(claims.begin(&claim, 1, true), Begin::Waits);
        assert!(claims.answered(&claim, 1));
        assert!(!claims.withdraw(&claim, 1), "it has its answer");

        assert_eq!(claims.begin(&claim, 2, true), Begin::Waits);
        assert!(claims.withdraw(&claim, 2));
        assert!(!claims.answered(&claim, 2), "nobody waits for it");
        claims.end(&claim, 2);
        assert!(is_empty(&claims));
    }

    #[test]
    fn who_asks_the_same_again_goes_on_with_it() {
        let (mut claims, claim) = (WaitingClaims::default(), claim(1, 1));
        assert_eq!(claims.begin(&claim, 1, true), Begin::Waits);
        assert_eq!(claims.begin(&claim, 2, true), Begin::Waits);
        assert!(!claims.withdraw(&claim, 1), "the later one still waits");
        assert!(claims.answered(&claim, 1), "both are told the same");
        assert!(claims.answered(&claim, 2));
        assert!(is_empty(&claims));
    }

    #[test]
    fn who_is_patient_lets_withdrawals_of_its_session_go_first() {
        let (mut claims, dropped, next) = (WaitingClaims::default(), claim(1, 1), claim(1, 2));
        assert_eq!(claims.begin(&dropped, 1, true), Begin::Waits);
        assert!(claims.withdraw(&dropped, 1));
        assert_eq!(claims.begin(&next, 2, true), Begin::NotYet);
        assert_eq!(claims.begin(&claim(2, 1), 3, true), Begin::Waits, "another session");
        assert_eq!(claims.begin(&next, 2, false), Begin::Waits, "it has waited long enough");
        claims.end(&dropped, 1);
        assert_eq!(claims.begin(&claim(1, 3), 4, true), Begin::Waits);
    }

    #[test]
    fn what_waits_for_a_session_that_leaves_has_no_other_answer() {
        let (mut claims, waiting, other) = (WaitingClaims::default(), claim(1, 7), claim(2, 7));
        assert_eq!(claims.begin(&waiting, 1, true), Begin::Waits);
        assert_eq!(claims.begin(&other, 2, true), Begin::Waits);
        assert_eq!(claims.begin_leave(1), [7]);
        assert!(!claims.answered(&waiting, 1));
        assert!(claims.answered(&other, 2));
        assert_eq!(claims.begin(&claim(1, 8), 3, true), Begin::Leaves);
        claims.end_leave(1);
        claims.end(&waiting, 1);
        assert!(is_empty(&claims));
    }

    #[test]
    fn a_session_leaves_until_the_last_call_that_lets_it_has_ended() {
        let mut claims = WaitingClaims::default();
        claims.begin_leave(1);
        claims.begin_leave(1);
        claims.end_leave(1);
        assert_eq!(claims.begin(&claim(1, 1), 1, true), Begin::Leaves);
        claims.end_leave(1);
        assert_eq!(claims.begin(&claim(1, 1), 1, true), Begin::Waits);
    }
}
