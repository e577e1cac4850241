//! The events of one topic, the oldest first.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::{Event, Position};
use crate::time::Timestamp;

/// What one event occupies besides its texts and payload, in bytes.
pub(super) const OVERHEAD: u64 = (size_of::<Event>() + size_of::<Stored>() + 2 * size_of::<usize>()) as u64;

#[derive(Debug)]
struct Stored {
    event: Arc<Event>,
    /// When it was published, by the store's clock; `event.time` is the source's word.
    recorded: Timestamp,
    /// Bytes of all events of this topic up to and with this one.
    through_bytes: u64,
}

/// An append-only sequence that is trimmed from its old end.
#[derive(Debug)]
pub(super) struct Log {
    events: VecDeque<Stored>,
    /// The position of the first event, or of the next one when there is none.
    first: Position,
    total_bytes: u64,
    trimmed_bytes: u64,
}

impl Log {
    /// An empty log whose first event follows `after`.
    pub(super) fn new(after: Position) -> Self {
        Self { events: VecDeque::new(), first: after.next(), total_bytes: 0, trimmed_bytes: 0 }
    }

    /// The position of the oldest event, or of the next one when there is none.
    pub(super) fn first(&self) -> Position {
        self.first
    }

    /// The position of the next event.
    pub(super) fn end(&self) -> Position {
        Position::new(self.first.get() + self.events.len() as u64)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn push(&mut self, event: Arc<Event>, now: Timestamp) {
        self.total_bytes += weight(&event);
        self.events.push_back(Stored { event, recorded: now, through_bytes: self.total_bytes });
    }

    pub(super) fn get(&self, position: Position) -> Option<&Arc<Event>> {
        let nth = position.get().checked_sub(self.first.get())?;
        self.events.get(usize::try_from(nth).ok()?).map(|stored| &stored.event)
    }

    /// At most `limit` events from `from` on, which is not before the first.
    pub(super) fn from(&self, from: Position, limit: usize) -> impl Iterator<Item = &Arc<Event>> {
        let skip = usize::try_from(from.get() - self.first.get()).unwrap_or(usize::MAX);
        self.events.range(skip.min(self.events.len())..).take(limit).map(|stored| &stored.event)
    }

    /// Bytes of the events that are retained.
    pub(super) fn bytes(&self) -> u64 {
        self.total_bytes - self.trimmed_bytes
    }

    /// Bytes of the events that follow `position`.
    pub(super) fn bytes_after(&self, position: Position) -> u64 {
        let nth = (position.get() + 1).saturating_sub(self.first.get());
        let before = match usize::try_from(nth).ok().and_then(|nth| nth.checked_sub(1)) {
            None => self.trimmed_bytes,
            Some(last) => self.events.get(last).map_or(self.total_bytes, |stored| stored.through_bytes),
        };
        self.total_bytes - before
    }

    /// When the oldest event was published.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.events.front().map(|stored| stored.recorded)
    }

    /// Drops the oldest event.
    pub(super) fn pop(&mut self) {
        if let Some(stored) = self.events.pop_front() {
            self.trimmed_bytes = stored.through_bytes;
            self.first = stored.event.position.next();
        }
    }
}

/// About how many bytes an event occupies.
pub(super) fn weight(event: &Event) -> u64 {
    let subject = event.subject.as_ref().map_or(0, |subject| subject.as_str().len());
    let key = event.idempotency_key.as_ref().map_or(0, |key| key.as_str().len());
    let headers: usize = event.headers.iter().map(|(name, value)| 48 + name.as_str().len() + value.len()).sum();
    OVERHEAD + (event.data.len() + subject + key + headers) as u64
}
