//! The journal of a [`RedisStore`](crate::RedisStore).

use async_trait::async_trait;

use crate::entry::Entry;
use crate::error::Error;
use crate::event::Position;
use crate::journal::Journal;
use crate::name::Topic;
use crate::page::Page;
use crate::redis::store::RedisStore;
use crate::start::Start;

/// The journal of a fleet on Redis.
#[derive(Clone, Debug)]
pub struct RedisJournal {
    store: RedisStore,
}

impl RedisStore {
    /// The journal of this fleet.
    #[must_use]
    pub fn journal(&self) -> RedisJournal {
        RedisJournal { store: self.clone() }
    }
}

#[async_trait]
impl Journal for RedisJournal {
    async fn entries(&self, after: Position, limit: usize) -> Result<Page<Entry>, Error> {
        self.store.config().limits.check_page(limit)?;
        let read = self.store.read(&Topic::JOURNAL, Start::After(after), limit).await?;
        let items = read.entries()?;
        let next = items.last().map_or(after, |entry| entry.position);
        Ok(Page { items, next })
    }

    async fn start(&self) -> Result<Position, Error> {
        let read = self.store.read(&Topic::JOURNAL, Start::Now, 1).await?;
        Ok(Position::new(read.oldest.get().saturating_sub(1)))
    }
}
