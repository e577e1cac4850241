//! One page of a longer listing.

use crate::event::Position;

/// Items in order, and where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, oldest first.
    pub items: Vec<T>,
    /// Reading after this position continues the listing.
    pub next: Position,
}
