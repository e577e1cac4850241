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
/// What the ground floor tells:
///
/// | entry | subject | params |
/// |---|---|---|
/// | `bus.group_created` | topic | `group incarnation starts_at` |
/// | `bus.group_restored` (MEDIUM): its state was lost | topic | `group incarnation starts_at` |
/// | `bus.group_removed` | topic | `group floor unsettled` |
/// | `bus.group_expired` (MEDIUM) | topic | `group floor backlog` |
/// | `bus.data_loss` (HIGH): a group will never see these | topic | `group events resumes_at` |
/// | `bus.dead_letter` (HIGH), `bus.redrive`, `bus.purge` | topic | `id group event position attempts` |
/// | `bus.trim` | topic | `through events` |
/// | `journal.trim` | `s2.journal` | `through entries` |
/// | `inbox.escalate` (as raised) | key | `id reason` |
/// | `inbox.resolve` | key | `id by decision waited_ms` |
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
    /// [`Error::NotRetained`] when entries that follow `after` were dropped; [`Error::LimitExceeded`] or
    /// [`Error::Invalid`] for a limit that is out of range; [`Error::Backend`].
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

/// Writes every entry that follows `after` as JSON Lines, the oldest first, and answers with the position of the last:
/// where the next export goes on. [`Journal::start`] is where a full one begins.
///
/// ```
/// # use s2_coordinator::{export_json_lines, Journal, MemoryStore, Record};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), s2_coordinator::Error> {
/// let store = MemoryStore::new();
/// store.step(|step| step.journal(Record::new("host", "started", "demo")));
///
/// let (journal, mut lines) = (store.journal(), Vec::new());
/// export_json_lines(&journal, journal.start().await?, &mut lines).await?;
/// assert!(String::from_utf8_lossy(&lines).contains(r#""operation":"started""#));
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// [`Error::NotRetained`] when entries that follow were dropped, be it meanwhile; [`Error::Backend`] when the journal
/// cannot be read or `out` cannot be written.
///
/// # Cancel safety
///
/// Cancel safe for the journal; `out` may have received a part.
pub async fn export_json_lines(
    journal: &dyn Journal,
    mut after: Position,
    out: &mut (dyn Write + Send),
) -> Result<Position, Error> {
    let failed = |error: std::io::Error| Error::Backend { retryable: false, source: error.into() };
    let mut page = 500;
    loop {
        let entries = match journal.entries(after, page).await {
            // A fleet may allow smaller pages.
            Err(Error::LimitExceeded { max, .. }) if max < page as u64 => {
                page = usize::try_from(max).unwrap_or(1).max(1);
                continue;
            }
            entries => entries?,
        };
        for entry in &entries.items {
            writeln!(out, "{}", entry.to_json()).map_err(failed)?;
        }
        if entries.items.is_empty() {
            return out.flush().map(|()| after).map_err(failed);
        }
        after = entries.next;
    }
}
