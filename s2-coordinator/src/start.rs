//! Where reading begins.

use crate::error::Error;
use crate::event::Position;
use crate::name::Topic;

/// Where a reader begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Start {
    /// At the oldest event that the topic retains: the default, so that nothing published early is missed.
    #[default]
    Beginning,
    /// At the next event that is published.
    Now,
    /// At the event that follows this position.
    After(Position),
}

impl Start {
    /// Where a reader begins on a topic whose oldest event is at `oldest` and whose next one will be at `end`. A position
    /// that does not exist yet is one to wait for.
    ///
    /// # Errors
    ///
    /// [`Error::NotRetained`] when what follows the position was trimmed.
    pub fn begin(self, topic: &Topic, oldest: Position, end: Position) -> Result<Position, Error> {
        match self {
            Self::Beginning => Ok(oldest),
            Self::Now => Ok(end),
            Self::After(position) if position.next() >= oldest => Ok(position.next()),
            Self::After(position) => Err(Error::NotRetained { topic: topic.clone(), position, oldest }),
        }
    }
}
