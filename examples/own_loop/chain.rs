//! The work: chains of numbers, each half of the one before it, or three times that and one more, down to 1.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A number and how many numbers its chain has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chain {
    pub(crate) start: u64,
    pub(crate) length: u64,
}

impl Chain {
    /// The longer one; of equal ones the one that starts lower.
    pub(crate) fn longer(self, other: Chain) -> Chain {
        let before = |chain: Chain| (chain.length, std::cmp::Reverse(chain.start));
        if before(other) > before(self) { other } else { self }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the longest chain starts at {}: {} numbers", self.start, self.length)
    }
}

const fn next(number: u64) -> u64 {
    if number.is_multiple_of(2) { number / 2 } else { 3 * number + 1 }
}

/// The lengths that are known already.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    lengths: Vec<u32>,
}

impl Chains {
    /// How many lengths are kept: one for each number below this.
    const KEPT: usize = 1 << 18;

    pub(crate) fn of(&mut self, start: u64) -> Chain {
        let (mut number, mut steps) = (start, 1);
        while number != 1 {
            match self.lengths.get(number as usize) {
                Some(known) if *known > 0 => break,
                _ => (number, steps) = (next(number), steps + 1),
            }
        }
        let rest = self.lengths.get(number as usize).map_or(0, |known| known.saturating_sub(1));
        let length = steps + u64::from(rest);
        self.keep(start as usize, length as u32);
        Chain { start, length }
    }

    fn keep(&mut self, number: usize, length: u32) {
        if number < Self::KEPT {
            let known = self.lengths.len().max(number + 1);
            self.lengths.resize(known, 0);
            self.lengths[number] = length;
        }
    }
}

/// The same by going through every chain to its end, for checking.
pub(crate) fn longest(range: Range<u64>) -> Chain {
    let chain = |start| Chain {
        start,
        length: 1 + std::iter::successors(Some(start), |n| Some(next(*n))).take_while(|n| *n != 1).count() as u64,
    };
    range.map(chain).fold(Chain::default(), Chain::longer)
}
