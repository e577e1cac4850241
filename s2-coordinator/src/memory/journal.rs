//! The journal of a [`MemoryStore`](crate::MemoryStore).

use async_trait::async_trait;

use crate::entry::Entry;
use crate::error::Error;
use crate::event::Position;
use crate::journal::Journal;
use crate::memory::store::MemoryStore;
use crate::name::Topic;
use crate::page::Page;

/// The journal of a fleet in memory.
#[derive(Clone, Debug)]
pub struct MemoryJournal {
    store: MemoryStore,
}

impl MemoryStore {
    /// The journal of this fleet.
    #[must_use]
    pub fn journal(&self) -> MemoryJournal {
        MemoryJournal { store: self.clone() }
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn entries(&self, after: Position, limit: usize) -> Result<Page<Entry>, Error> {
        self.store.config().limits.check_page(limit)?;
        self.store.with(|inner| {
            let (journal, from) = (&inner.fx.journal, after.next());
            let oldest = journal.first();
            if from < oldest {
                return Err(Error::NotRetained { topic: Topic::JOURNAL, position: after, oldest });
            }
            let items: Vec<Entry> = journal.from(from, limit).collect();
            let next = items.last().map_or(after, |entry| entry.position);
            Ok(Page { items, next })
        })
    }

    async fn start(&self) -> Result<Position, Error> {
        Ok(self.store.with(|inner| Position::new(inner.fx.journal.first().get() - 1)))
    }
}
