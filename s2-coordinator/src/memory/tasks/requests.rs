//! What a session was granted for which request, so that it is granted the same when it asks again.

use std::mem;

use crate::lease::Lease;

/// How many of the latest requests are remembered.
const LATEST: usize = 64;
/// Among how many of those before them one is sought of which nothing is held any more, to make room.
const LOOK_AT: usize = 4;

/// The latest requests of a session, and those before them of which something is still held.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// The latest, in a ring of which `oldest` is replaced next.
    latest: Vec<Granted>,
    oldest: usize,
    /// Those of which something was held when they were no longer among the latest, and where one is sought that makes room.
    earlier: Vec<Granted>,
    next: usize,
    /// The highest there ever was. Most requests are higher, and need not be sought.
    highest: u64,
}

#[derive(Debug)]
struct Granted {
    request: u64,
    leases: Vec<Lease>,
}

impl Requests {
    /// What a request was granted.
    pub(super) fn granted(&self, request: u64) -> Option<&[Lease]> {
        if request > self.highest {
            return None;
        }
        let known = self.latest.iter().chain(&self.earlier).find(|granted| granted.request == request)?;
        Some(&known.leases)
    }

    /// Remembers what a request was granted. One that is too old for the latest stays as long as something of it is held.
    pub(super) fn remember(&mut self, request: u64, leases: Vec<Lease>, is_held: impl Fn(&Lease) -> bool) {
        self.highest = self.highest.max(request);
        let granted = Granted { request, leases };
        if self.latest.len() < LATEST {
            self.latest.push(granted);
            return;
        }
        let old = mem::replace(&mut self.latest[self.oldest], granted);
        self.oldest = (self.oldest + 1) % LATEST;
        if !old.leases.iter().any(&is_held) {
            return;
        }
        let count = self.earlier.len();
        for _ in 0..LOOK_AT.min(count) {
            let place = &mut self.earlier[self.next];
            self.next = (self.next + 1) % count;
            if !place.leases.iter().any(&is_held) {
                *place = old;
                return;
            }
        }
        self.earlier.push(old);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::dependency::TaskId;
    use crate::lease::Token;
    use crate::random::Random;

    /// A session that claims one task after the other.
    #[derive(Default)]
    struct World {
        requests: Requests,
        held: BTreeSet<TaskId>,
    }

    impl World {
        /// The request and the task that it is granted have the same number.
        fn claim(&mut self, request: u64) {
            let lease = Lease { task: TaskId::new(request), token: Token::new(request) };
            self.requests.remember(request, vec![lease], |lease| self.held.contains(&lease.task));
        }

        fn places(&self) -> usize {
            self.requests.latest.len() + self.requests.earlier.len()
        }
    }

    /// It holds `most` tasks at most, and ends any of them.
    fn plays(most: usize, seed: u64) {
        let (mut world, mut random) = (World::default(), Random::from_seed(seed));
        for request in 1..=20_000 {
            if world.held.len() == most {
                let nth = random.bits() as usize % most;
                let ended = world.held.iter().nth(nth).copied().expect("a task");
                world.held.remove(&ended);
            }
            world.held.insert(TaskId::new(request));
            world.claim(request);
            let latest = request.saturating_sub(LATEST as u64) + 1..=request;
            for known in latest.chain(world.held.iter().map(|task| task.get())) {
                assert_eq!(world.requests.granted(known).map(<[Lease]>::len), Some(1), "{known} of {request}");
            }
            assert!(world.places() <= LATEST + 2 * most, "{} after {request}", world.places());
        }
    }

    #[test]
    fn no_more_are_remembered_than_the_latest_and_what_is_held() {
        for (most, seed) in [(1, 1), (5, 2), (70, 3), (200, 4)] {
            plays(most, seed);
        }
    }

    #[test]
    fn requests_come_in_any_order() {
        let mut world = World::default();
        for request in [7, 3, 9, 1] {
            assert_eq!(world.requests.granted(request), None, "{request} is new");
            world.claim(request);
        }
        assert!([1, 3, 7, 9].iter().all(|known| world.requests.granted(*known).is_some()));
        assert!([0, 2, 8, 10].iter().all(|other| world.requests.granted(*other).is_none()));
    }

    #[test]
    fn one_that_holds_on_is_one_of_few() {
        let mut world = World::default();
        world.held.insert(TaskId::new(1));
        (1..=1_000).for_each(|request| world.claim(request));
        assert!(world.requests.granted(1).is_some());
        assert!(world.requests.granted(2).is_none());
        assert_eq!(world.places(), LATEST + 1);
    }
}
