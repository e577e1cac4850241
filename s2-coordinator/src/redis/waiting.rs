//! The claims that wait in this process.

use std::collections::{BTreeMap, HashSet};

use crate::lease::Claim;

/// The claims that wait here. A claim is either answered or withdrawn, whichever comes first; when its session leaves, it is
/// withdrawn.
#[derive(Debug, Default)]
pub(super) struct WaitingClaims {
    /// By session and request.
    latest: BTreeMap<(u64, u64), Wait>,
    leaving: HashSet<u64>,
}

/// The latest wait of a claim, which may be asked again before it is answered.
#[derive(Debug)]
struct Wait {
    number: u64,
    withdrawn: bool,
}

impl WaitingClaims {
    /// Whether the fleet is still to hear that a session waits no more for something, and the session stays.
    pub(super) fn is_withdrawing(&self, session: u64) -> bool {
        let mut waits = self.latest.range((session, 0)..=(session, u64::MAX));
        !self.leaving.contains(&session) && waits.any(|(_, wait)| wait.withdrawn)
    }

    /// A claim begins to wait, unless its session leaves.
    pub(super) fn begin(&mut self, claim: &Claim, number: u64) -> bool {
        let stays = !self.leaving.contains(&claim.by.number);
        if stays {
            self.latest.insert(key(claim), Wait { number, withdrawn: false });
        }
        stays
    }

    /// The wait has an answer. Answers whether it may be told.
    pub(super) fn answered(&mut self, claim: &Claim, number: u64) -> bool {
        match self.latest.get(&key(claim)) {
            Some(wait) if wait.number == number => !wait.withdrawn && self.latest.remove(&key(claim)).is_some(),
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

    /// A session leaves: what waits for it is withdrawn, and nothing new begins to wait. Answers with these requests.
    pub(super) fn begin_leave(&mut self, session: u64) -> Vec<u64> {
        self.leaving.insert(session);
        let waits = self.latest.range_mut((session, 0)..=(session, u64::MAX));
        waits
            .map(|(&(_, request), wait)| {
                wait.withdrawn = true;
                request
            })
            .collect()
    }

    /// The session has left, or stays.
    pub(super) fn end_leave(&mut self, session: u64) {
        self.leaving.remove(&session);
    }
}

fn key(claim: &Claim) -> (u64, u64) {
    (claim.by.number, claim.request)
}
