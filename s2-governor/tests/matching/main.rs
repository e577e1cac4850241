//! Who is picked to help: by hand, by law, and in fleets made up at random; and how policies are written.

mod assignment;
mod cases;
mod fleets;
mod laws;
mod policy;

use s2_coordinator::{Capabilities, SwarmId, Timestamp};
use s2_governor::{Candidate, Need};

/// When everything happens.
pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_762_938_000_000_000);

pub(crate) fn id(path: &str) -> SwarmId {
    SwarmId::new(path).expect("a name")
}

pub(crate) fn set(paths: &[&str]) -> Capabilities {
    Capabilities::new(paths).expect("capabilities")
}

pub(crate) fn need(required: &[&str]) -> Need {
    Need::new(id("blocked"), &set(required))
}

pub(crate) fn candidate(session: &str, offered: &[&str]) -> Candidate {
    Candidate::new(id(session), set(offered))
}
