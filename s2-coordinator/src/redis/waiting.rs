//! The claims that wait in this process.

use std::collections::{BTreeMap, HashMap};

use crate::lease::Claim;

/// The claims that wait here. A claim is either answered or withdrawn, whichever comes first; one whose session leaves has no
/// other answer than that.
#[derive(Debug, Default)]
pub(super) struct WaitingClaims {
    /// By session and request.
    waits: BTreeMap<(u64, u64), Wait>,
    /// How many calls let a session leave.
    leaving: HashMap<u64, usize>,
}

/// The wait of a claim, which may be asked again before it is answered.
#[derive(Debug)]
struct Wait {
    number: u64,
    /// How many calls share it.
    calls: usize,
    /// One of them has its answer; the others get the same.
    answered: bool,
    /// The session leaves, or has left.
    left: bool,
}

/// What becomes of a claim that would wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// It waits under this number, perhaps with others.
    Waits(u64),
    /// The fleet is still to hear of what its session has withdrawn.
    NotYet,
    /// Its session leaves.
    Leaves,
}

/// What is left of a wait when one of its calls ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Others, who are to ask.
    Others,
    Nothing,
    /// Nobody waits any more for an answer that may be on its way: the fleet is to hear of it.
    Withdrawn,
}

impl WaitingClaims {
    /// A call begins to wait, unless its session leaves or, where it can, it lets withdrawals go first. Where nobody waits for
    /// the same, its wait has the number `fresh`.
    pub(super) fn begin(&mut self, claim: &Claim, fresh: u64, is_patient: bool) -> Begin {
        let session = claim.by.number;
        if self.leaving.contains_key(&session) {
            return Begin::Leaves;
        }
        if is_patient && self.withdraws(session) {
            return Begin::NotYet;
        }
        match self.waits.get_mut(&key(claim)) {
            Some(wait) if wait.calls > 0 => {
                wait.calls += 1;
                Begin::Waits(wait.number)
            }
            // Where the withdrawal of an earlier wait is still to be told, it is left out.
            _ => {
                self.waits.insert(key(claim), Wait { number: fresh, calls: 1, answered: false, left: false });
                Begin::Waits(fresh)
            }
        }
    }

    fn of(&mut self, session: u64) -> impl Iterator<Item = (u64, &mut Wait)> {
        let waits = self.waits.range_mut((session, 0)..=(session, u64::MAX));
        waits.map(|(&(_, request), wait)| (request, wait))
    }

    fn wait(&mut self, claim: &Claim, number: u64) -> Option<&mut Wait> {
        self.waits.get_mut(&key(claim)).filter(|wait| wait.number == number)
    }

    /// A call has an answer. Answers whether it may be told.
    pub(super) fn answered(&mut self, claim: &Claim, number: u64) -> bool {
        let wait = self.wait(claim, number).filter(|wait| !wait.left);
        wait.map(|wait| wait.answered = true).is_some()
    }

    /// A call has none, whatever another one had.
    pub(super) fn unanswered(&mut self, claim: &Claim, number: u64) {
        if let Some(wait) = self.wait(claim, number) {
            wait.answered = false;
        }
    }

    /// A call ends, with or without an answer.
    pub(super) fn end(&mut self, claim: &Claim, number: u64) -> Left {
        let Some(wait) = self.wait(claim, number) else { return Left::Nothing };
        wait.calls -= 1;
        if wait.calls > 0 {
            return Left::Others;
        } else if !wait.answered {
            return Left::Withdrawn;
        }
        self.waits.remove(&key(claim));
        Left::Nothing
    }

    /// Whether a wait is withdrawn still, and nobody has asked for the same since.
    pub(super) fn is_withdrawn(&mut self, claim: &Claim, number: u64) -> bool {
        self.wait(claim, number).is_some_and(|wait| wait.calls == 0)
    }

    /// Whether the fleet is still to hear of something that this session has withdrawn.
    pub(super) fn withdraws(&mut self, session: u64) -> bool {
        self.of(session).any(|(_, wait)| wait.calls == 0)
    }

    /// The withdrawn wait is known to the fleet, or past its help.
    pub(super) fn forget(&mut self, claim: &Claim, number: u64) {
        if self.is_withdrawn(claim, number) {
            self.waits.remove(&key(claim));
        }
    }

    /// A session leaves: what waits for it has no other answer, and nothing new begins to wait. Answers with these requests.
    pub(super) fn begin_leave(&mut self, session: u64) -> Vec<u64> {
        *self.leaving.entry(session).or_default() += 1;
        let waits = self.of(session).filter(|(_, wait)| !wait.answered);
        let left = waits.map(|(request, wait)| {
            wait.left = true;
            request
        });
        left.collect()
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
        claims.waits.is_empty() && claims.leaving.is_empty()
    }

    #[test]
    fn a_wait_is_answered_or_withdrawn_whichever_comes_first() {
        let (mut claims, claim) = (WaitingClaims::default(), claim(1, 1));
        assert_eq!(claims.begin(&claim, 1, true), Begin::Waits(1));
        assert!(claims.answered(&claim, 1));
        assert_eq!(claims.end(&claim, 1), Left::Nothing, "it has its answer");

        assert_eq!(claims.begin(&claim, 2, true), Begin::Waits(2));
        assert!(!claims.is_withdrawn(&claim, 2), "somebody waits");
        assert_eq!(claims.end(&claim, 2), Left::Withdrawn);
        assert!(claims.is_withdrawn(&claim, 2));
        claims.forget(&claim, 2);
        assert!(is_empty(&claims));
    }

    #[test]
    fn who_asks_the_same_shares_the_wait() {
        let (mut claims, claim) = (WaitingClaims::default(), claim(1, 1));
        for fresh in 1..=3 {
            assert_eq!(claims.begin(&claim, fresh, true), Begin::Waits(1));
        }
        assert_eq!(claims.end(&claim, 1), Left::Others, "one gives up");
        assert!(claims.answered(&claim, 1));
        assert_eq!(claims.end(&claim, 1), Left::Others, "the other is to have the same");
        assert_eq!(claims.end(&claim, 1), Left::Nothing, "and is not withdrawn when it gives up");

        for fresh in 2..=3 {
            assert_eq!(claims.begin(&claim, fresh, true), Begin::Waits(2));
        }
        assert!(claims.answered(&claim, 2));
        assert_eq!(claims.end(&claim, 2), Left::Others);
        claims.unanswered(&claim, 2);
        assert_eq!(claims.end(&claim, 2), Left::Withdrawn, "it had to wait anew");
        assert!(claims.withdraws(1));
        claims.forget(&claim, 2);
        assert!(is_empty(&claims));
    }

    #[test]
    fn who_asks_again_for_what_is_withdrawn_goes_on_with_it() {
        let (mut claims, claim) = (WaitingClaims::default(), claim(1, 1));
        assert_eq!(claims.begin(&claim, 1, true), Begin::Waits(1));
        assert_eq!(claims.end(&claim, 1), Left::Withdrawn);
        assert_eq!(claims.begin(&claim, 2, false), Begin::Waits(2));
        assert!(!claims.is_withdrawn(&claim, 1), "the fleet is not told");
        claims.forget(&claim, 1);
        assert!(claims.answered(&claim, 2));
        assert_eq!(claims.end(&claim, 2), Left::Nothing);
        assert!(is_empty(&claims));
    }

    #[test]
    fn who_is_patient_lets_withdrawals_of_its_session_go_first() {
        let (mut claims, dropped, next) = (WaitingClaims::default(), claim(1, 1), claim(1, 2));
        assert_eq!(claims.begin(&dropped, 1, true), Begin::Waits(1));
        assert_eq!(claims.end(&dropped, 1), Left::Withdrawn);
        assert_eq!(claims.begin(&next, 2, true), Begin::NotYet);
        assert_eq!(claims.begin(&claim(2, 1), 3, true), Begin::Waits(3), "another session");
        assert_eq!(claims.begin(&next, 2, false), Begin::Waits(2), "it has waited long enough");
        claims.forget(&dropped, 1);
        assert_eq!(claims.begin(&claim(1, 3), 4, true), Begin::Waits(4));
    }

    #[test]
    fn what_waits_for_a_session_that_leaves_has_no_other_answer() {
        let (mut claims, waiting, other) = (WaitingClaims::default(), claim(1, 7), claim(2, 7));
        let told = claim(1, 6);
        for (claim, number) in [(&waiting, 1), (&other, 2), (&told, 3)] {
            assert_eq!(claims.begin(claim, number, true), Begin::Waits(number));
        }
        assert!(claims.answered(&told, 3));
        assert_eq!(claims.begin_leave(1), [7], "what was told is not taken back");
        assert!(!claims.answered(&waiting, 1));
        assert!(claims.answered(&other, 2));
        assert_eq!(claims.begin(&claim(1, 8), 4, true), Begin::Leaves);
        claims.end_leave(1);
        assert_eq!(claims.end(&waiting, 1), Left::Withdrawn);
        claims.forget(&waiting, 1);
        assert_eq!([claims.end(&other, 2), claims.end(&told, 3)], [Left::Nothing; 2]);
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
        assert_eq!(claims.begin(&claim(1, 1), 1, true), Begin::Waits(1));
    }
}
