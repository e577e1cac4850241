//! What the journal tells.

use std::collections::BTreeMap;

use s2_coordinator::{Entry, Error, Journal, Position, Text, Value};

/// Who has claimed each task, in order, and how often each was completed.
#[derive(Debug, Default)]
pub(crate) struct Told {
    claims: BTreeMap<Text, Vec<Value>>,
    completions: BTreeMap<Text, u32>,
}

impl Told {
    pub(crate) async fn by(journal: &dyn Journal) -> Result<Self, Error> {
        let (mut told, mut after) = (Self::default(), Position::ORIGIN);
        loop {
            let page = journal.entries(after, 500).await?;
            if page.items.is_empty() {
                return Ok(told);
            }
            page.items.iter().for_each(|entry| told.hear(entry));
            after = page.next;
        }
    }

    fn hear(&mut self, entry: &Entry) {
        let task = entry.subject.clone();
        match (entry.component.as_str(), entry.operation.as_str(), entry.params.get("session")) {
            ("task", "claimed", Some(session)) => self.claims.entry(task).or_default().push(session.clone()),
            ("task", "completed", _) => *self.completions.entry(task).or_default() += 1,
            _ => {}
        }
    }

    /// How many tasks were completed, and whether one was twice.
    pub(crate) fn completed(&self) -> (usize, bool) {
        (self.completions.len(), self.completions.values().any(|times| *times > 1))
    }

    /// How many claims did not end with the task being done: nobody has handed anything back, so they crashed.
    pub(crate) fn crashes(&self) -> u32 {
        let claims: usize = self.claims.values().map(Vec::len).sum();
        claims.saturating_sub(self.completions.len()) as u32
    }

    /// How many attempts were made by another session than the one before, and by the same.
    pub(crate) fn retried(&self) -> (usize, usize) {
        let pairs = self.claims.values().flat_map(|sessions| sessions.windows(2));
        let (others, same): (Vec<_>, Vec<_>) = pairs.partition(|pair| pair[0] != pair[1]);
        (others.len(), same.len())
    }
}
