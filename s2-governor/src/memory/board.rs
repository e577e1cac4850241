//! The board of a fleet in memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use foldhash::HashMap;
use s2_coordinator::{Clock, MemoryStore, Part, Record, Timestamp};
use tokio::sync::watch;

use crate::board::{Board, Swapped, Versioned};
use crate::error::Error;
use crate::provider::ProviderName;
use crate::verdict::Verdict;

/// The verdicts of a fleet in memory. All boards of a store are the same.
#[derive(Clone, Debug)]
pub struct MemoryBoard {
    places: Part<Places>,
}

#[derive(Debug, Default)]
struct Places(HashMap<ProviderName, Place>);

#[derive(Debug, Default)]
struct Place {
    latest: Versioned,
    noted: Option<Timestamp>,
    changes: watch::Sender<u64>,
}

impl Places {
    fn at(&mut self, provider: &ProviderName) -> &mut Place {
        self.0.entry(provider.clone()).or_default()
    }
}

impl MemoryBoard {
    /// The board of this fleet.
    #[must_use]
    pub fn new(store: &MemoryStore) -> Self {
        Self { places: store.part() }
    }
}

#[async_trait]
impl Board for MemoryBoard {
    async fn read(&self, provider: &ProviderName) -> Result<Versioned, Error> {
        Ok(self.places.step(|_, places| places.at(provider).latest.clone()))
    }

    async fn swap(
        &self,
        provider: &ProviderName,
        expected: u64,
        verdict: &Verdict,
        record: Option<Record>,
    ) -> Result<Swapped, Error> {
        Ok(self.places.step(|step, places| {
            let place = places.at(provider);
            if place.latest.version != expected {
                return Swapped::Conflict(place.latest.clone());
            }
            place.latest = Versioned { version: expected + 1, verdict: verdict.clone() };
            if let Some(record) = record {
                step.journal(record);
            }
            place.changes.send_modify(|number| *number += 1);
            Swapped::Done(expected + 1)
        }))
    }

    async fn note(&self, provider: &ProviderName, record: Record, every: Duration) -> Result<Option<Timestamp>, Error> {
        Ok(self.places.step(|step, places| {
            let (place, now) = (places.at(provider), step.now());
            let early = place.noted.map(|noted| noted + every).filter(|next| *next > now);
            if early.is_none() {
                place.noted = Some(now);
                step.journal(record);
            }
            early
        }))
    }

    fn changes(&self, provider: &ProviderName) -> Result<watch::Receiver<u64>, Error> {
        Ok(self.places.step(|_, places| places.at(provider).changes.subscribe()))
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(self.places.store().clock())
    }
}
