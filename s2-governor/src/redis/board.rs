//! The board of a fleet on Redis.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use s2_coordinator::{Clock, Error as StoreError, Record, RedisStore, Reply, Script, Timestamp};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::board::{Board, Swapped, Versioned};
use crate::error::Error;
use crate::provider::ProviderName;
use crate::redis::unexpected::unexpected;
use crate::verdict::Verdict;

/// How long a call may wait for the server. That is less than the patience of the store: somebody waits to ask a provider.
const PATIENCE: Duration = Duration::from_secs(2);

static READ: &Script = &Script::repeatable("provider_read", include_str!("lua/provider_read.lua"));
static SWAP: &Script = &Script::new("provider_swap", include_str!("lua/provider_swap.lua"));
static NOTE: &Script = &Script::new("provider_note", include_str!("lua/provider_note.lua"));

/// The verdicts of a fleet on Redis: a hash `s2:{fleet}:provider:<name>` for each provider.
#[derive(Clone, Debug)]
pub struct RedisBoard {
    store: RedisStore,
}

impl RedisBoard {
    /// The board of this fleet.
    #[must_use]
    pub fn new(store: &RedisStore) -> Self {
        Self { store: store.clone() }
    }

    async fn call(&self, script: &'static Script, args: &[&[u8]]) -> Result<Reply, Error> {
        let answer = timeout(PATIENCE, self.store.call(script, &[], args)).await;
        Ok(answer.map_err(|elapsed| StoreError::Backend { retryable: true, source: elapsed.into() })??)
    }
}

/// What a script says that holds.
fn latest(answer: &Reply) -> Option<Versioned> {
    let text = |nth: usize| answer.get(nth).and_then(Reply::as_str);
    if text(1)?.is_empty() {
        return Some(Versioned::default());
    }
    Some(Versioned { version: text(1)?.parse().ok()?, verdict: serde_json::from_str(text(2)?).ok()? })
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| StoreError::Backend { retryable: false, source: error.into() }.into())
}

/// The parameters of a record: name, value, name, value …
fn params(record: &Record) -> Result<Vec<u8>, Error> {
    let flat: Vec<_> =
        record.params.iter().flat_map(|(name, value)| [Param::Name(name), Param::Value(value)]).collect();
    json(&flat)
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Param<'a> {
    Name(&'a str),
    Value(&'a s2_coordinator::Value),
}

#[async_trait]
impl Board for RedisBoard {
    async fn read(&self, provider: &ProviderName) -> Result<Versioned, Error> {
        let answer = self.call(READ, &[provider.as_str().as_bytes()]).await?;
        latest(&answer).ok_or_else(|| unexpected(READ.name(), &answer))
    }

    async fn swap(
        &self,
        provider: &ProviderName,
        expected: u64,
        verdict: &Verdict,
        record: Option<Record>,
    ) -> Result<Swapped, Error> {
        let version = if expected == 0 { String::new() } else { expected.to_string() };
        let verdict = json(verdict)?;
        let mut args = vec![provider.as_str().as_bytes(), version.as_bytes(), &verdict];
        let params = record.as_ref().map(params).transpose()?;
        if let (Some(record), Some(params)) = (&record, &params) {
            args.extend([record.operation.as_bytes(), record.severity.as_str().as_bytes(), params]);
        }
        let answer = self.call(SWAP, &args).await?;
        let swapped = match answer.get(0).and_then(Reply::as_str) {
            Some("ok") => answer.get(1).and_then(Reply::as_u64).map(Swapped::Done),
            Some("conflict") => latest(&answer).map(Swapped::Conflict),
            _ => None,
        };
        swapped.ok_or_else(|| unexpected(SWAP.name(), &answer))
    }

    async fn note(&self, provider: &ProviderName, record: Record, every: Duration) -> Result<Option<Timestamp>, Error> {
        let (every, params) = (every.as_micros().to_string(), params(&record)?);
        let (operation, severity) = (record.operation.as_bytes(), record.severity.as_str().as_bytes());
        let args = [provider.as_str().as_bytes(), every.as_bytes(), operation, severity, &params];
        let answer = self.call(NOTE, &args).await?;
        match (answer.get(0).and_then(Reply::as_str), answer.get(1).and_then(Reply::as_u64)) {
            (Some("ok"), _) => Ok(None),
            (Some("early"), Some(at)) => Ok(Some(Timestamp::from_micros(at))),
            _ => Err(unexpected(NOTE.name(), &answer)),
        }
    }

    fn changes(&self, provider: &ProviderName) -> Result<watch::Receiver<u64>, Error> {
        Ok(self.store.listen(&format!("provider:{provider}"))?)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.store.clock()
    }
}
