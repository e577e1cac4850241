//! Watching a topic: every tail sees every event, and leaves no state behind.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Error;
use crate::event::Event;

/// The backend's side of a [`Tail`].
#[async_trait]
pub trait Follow: Debug + Send + 'static {
    /// The events that follow, as soon as there are some, up to `max`; empty once closed.
    ///
    /// # Errors
    ///
    /// [`Error::Lagged`], after which it goes on where that error says; [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a dropped future has consumed nothing.
    async fn follow(&mut self, max: usize) -> Result<Vec<Arc<Event>>, Error>;
}

/// A view of a topic as it grows. It settles nothing and holds nothing back from trimming.
#[derive(Debug)]
pub struct Tail {
    source: Box<dyn Follow>,
    ahead: VecDeque<Arc<Event>>,
}

impl Tail {
    /// How many events are fetched at a time.
    const AHEAD: usize = 64;

    /// A tail; made by backends.
    #[must_use]
    pub fn new(source: impl Follow) -> Self {
        Self { source: Box::new(source), ahead: VecDeque::new() }
    }

    /// Waits for the next event. `None` when the bus was closed.
    ///
    /// # Errors
    ///
    /// [`Error::Lagged`] when the topic was trimmed beyond where this tail stood; it goes on after the gap.
    /// [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no event is skipped.
    pub async fn next(&mut self) -> Result<Option<Arc<Event>>, Error> {
        if self.ahead.is_empty() {
            self.ahead.extend(self.source.follow(Self::AHEAD).await?);
        }
        Ok(self.ahead.pop_front())
    }
}
