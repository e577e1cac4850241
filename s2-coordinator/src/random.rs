//! Where ids and jitter come from.
//!
//! One source per store, seeded by the system or by a test. Statistical quality is all that is asked of it: nothing
//! in S² is kept safe by a number being hard to guess.

use std::time::Duration;

use rand::rngs::{SmallRng, SysRng};
use rand::{RngExt, SeedableRng};

/// A source of ids and jitter. The same seed gives the same sequence.
#[derive(Debug)]
pub struct Random(SmallRng);

impl Random {
    /// A source that no other process repeats.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give.
    #[must_use]
    pub fn from_system() -> Self {
        Self(SmallRng::try_from_rng(&mut SysRng).expect("the operating system gives randomness"))
    }

    /// A source for tests.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// 128 random bits.
    pub fn bits(&mut self) -> u128 {
        self.0.random()
    }

    /// A duration between zero and `most`, both included.
    pub fn duration_up_to(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.0.random_range(0..=most))
    }
}
