//! How a group is doing.

use crate::event::Position;
use crate::name::GroupName;

/// The state of one group on one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// Its name.
    pub name: GroupName,
    /// Which group of that name it is.
    pub incarnation: u64,
    /// Everything up to here is settled: what holds back trimming.
    pub floor: Position,
    /// Subscriptions that are open.
    pub consumers: usize,
    /// Deliveries that are not settled.
    pub in_flight: usize,
    /// Events that come back, now or later.
    pub returning: usize,
    /// Events that were never delivered.
    pub backlog: u64,
    /// Whether it was without consumers for so long that it no longer holds back trimming.
    pub expired: bool,
}

impl Group {
    /// A group with nothing to do; backends fill in the rest.
    #[must_use]
    pub const fn new(name: GroupName, incarnation: u64) -> Self {
        Self {
            name,
            incarnation,
            floor: Position::ORIGIN,
            consumers: 0,
            in_flight: 0,
            returning: 0,
            backlog: 0,
            expired: false,
        }
    }
}
