//! The record of what happened.

use std::fmt::Debug;
use std::io::Write;

use async_trait::async_trait;

use crate::entry::Entry;
use crate::error::Error;
use crate::event::Position;
use crate::page::Page;

/// Reads the journal of a fleet. Only the store's step writes it.
///
/// The bus of the same store shows the same entries as events of [`Topic::JOURNAL`](crate::Topic::JOURNAL), for those
/// who want to wait for them.
///
/// # To ensure correctness
///
/// An entry becomes visible with the state change that it tells of, neither before nor after. Positions rise by one.
/// Entries are dropped only from the old end, and dropping is itself journalled.
#[async_trait]
pub trait Journal: Debug + Send + Sync + 'static {
    /// At most `limit` entries (1 to [`Limits::batch`](crate::Limits::batch)) that follow `after`.
    ///
    /// # Errors
    ///
    /// [`Error::NotRetained`] when entries that follow `after` were dropped; [`Error::LimitExceeded`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn entries(&self, after: Position, limit: usize) -> Result<Page<Entry>, Error>;

    /// Before the oldest entry that is retained: where a full export begins.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    async fn start(&self) -> Result<Position, Error>;
}

/// Writes every retained entry as JSON Lines, the oldest first, and answers with the position of the last.
///
/// ```
/// # use s2_coordinator::{export_json_lines, MemoryStore, Record};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), s2_coordinator::Error> {
/// let store = MemoryStore::new();
/// store.step(|step| step.journal(Record::new("host", "started", "demo")));
///
/// let mut lines = Vec::new();
/// export_json_lines(&store.journal(), &mut lines).await?;
/// assert!(String::from_utf8_lossy(&lines).contains(r#""operation":"started""#));
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// [`Error::Backend`] when the journal cannot be read or `out` cannot be written.
///
/// # Cancel safety
///
/// Cancel safe for the journal; `out` may have received a part.
pub async fn export_json_lines(journal: &dyn Journal, out: &mut (dyn Write + Send)) -> Result<Position, Error> {
    const PAGE: usize = 500;
    let failed = |error: std::io::Error| Error::Backend { retryable: false, source: error.into() };
    let mut after = journal.start().await?;
    loop {
        let page = match journal.entries(after, PAGE).await {
            Err(Error::NotRetained { oldest, .. }) => {
                after = Position::new(oldest.get().saturating_sub(1));
                continue;
            }
            page => page?,
        };
        for entry in &page.items {
            writeln!(out, "{}", entry.to_json()).map_err(failed)?;
        }
        if page.items.is_empty() {
            return out.flush().map(|()| after).map_err(failed);
        }
        after = page.next;
    }
}
