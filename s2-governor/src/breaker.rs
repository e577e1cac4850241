//! Leaving a provider alone that does not do well.
//!
//! Why not simply retry? A provider that is overloaded is not helped by asking it more often, a fleet of sessions that wait for
//! timeouts does nothing else, and each attempt may cost money. So calls are counted; when too many fail, nobody asks for a
//! while, and then a few calls find out whether it is back.
//!
//! Why not in each process alone? A hundred processes would each have to learn it, and each would send its probes. So what is
//! decided holds for the fleet: it lies in the store, and changes with its entry in the journal in one step. What leads to it
//! is counted where it happens, so a call to a provider that does well costs no round trip.
//!
//! If the store cannot be reached, each process goes by what it knows: it opens by itself, and what is open stays so, since
//! probes are counted in the store. A call waits for the store only for a probe, or after something has changed; two seconds
//! at most, and then not again for one.

use std::sync::Arc;

use s2_coordinator::Text;

use crate::agreement::Agreement;
use crate::board::Board;
use crate::error::Error;
use crate::permit::Permit;
use crate::provider::ProviderName;
use crate::provider_settings::BreakerSettings;
use crate::refused::{BreakerOpen, WhyOpen};
use crate::transition::{Event, Rules, What};
use crate::verdict::{Forced, ForcedTo, Told, Verdict};

/// The circuit breaker of one provider. Clones are the same one.
///
/// ```
/// # use std::sync::Arc;
/// # use s2_coordinator::MemoryStore;
/// # use s2_governor::{BreakerSettings, CircuitBreaker, MemoryBoard, ProviderName};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let (provider, board) = (ProviderName::new("models")?, Arc::new(MemoryBoard::new(&store)));
/// let breaker = CircuitBreaker::new(board, provider, BreakerSettings::default())?;
/// for _ in 0..10 {
///     breaker.acquire().await?.failure("status 500");
/// }
/// let refused = breaker.acquire().await.unwrap_err();
/// assert!(refused.to_string().contains("too many calls failed or were slow"));
/// # Ok(()) }
/// ```
///
/// What it tells the journal, with the provider as subject:
///
/// | entry | params |
/// |---|---|
/// | `provider.failure` (HIGH), once a second at most | `failures` since the last, `reason` of the last |
/// | `provider.open` (HIGH) | `until trips calls failed slow` |
/// | `provider.half_open` | `probes trips` |
/// | `provider.close` | `probes failed trips` |
/// | `provider.cool_down` (MEDIUM) | `until` |
/// | `provider.force`, `provider.clear` (MEDIUM) | `to by reason`, `by` |
#[derive(Clone, Debug)]
pub struct CircuitBreaker {
    agreement: Arc<Agreement>,
}

impl CircuitBreaker {
    /// The breaker of a provider in the fleet of this board.
    ///
    /// # Errors
    ///
    /// As [`BreakerSettings::check`]; [`Error::Store`] when there is no runtime in which to hear of changes.
    pub fn new(board: Arc<dyn Board>, provider: ProviderName, settings: BreakerSettings) -> Result<Self, Error> {
        settings.check()?;
        let agreement = Agreement::new(board, Rules { provider, settings })?;
        Ok(Self { agreement: Arc::new(agreement) })
    }

    /// Whose breaker it is.
    #[must_use]
    pub fn provider(&self) -> &ProviderName {
        &self.agreement.rules.provider
    }

    /// When it opens, and for how long.
    #[must_use]
    pub fn settings(&self) -> &BreakerSettings {
        &self.agreement.rules.settings
    }

    /// What this process thinks of the provider.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.agreement.lock().verdict.clone()
    }

    /// Asks the store what the fleet thinks of the provider. [`acquire`](Self::acquire) does so by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the store stays away.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    pub async fn refresh(&self) -> Result<Verdict, Error> {
        self.agreement.refresh().await?;
        Ok(self.verdict())
    }

    /// Asks whether the provider may be asked. The permit is to be told what became of the call.
    ///
    /// # Errors
    ///
    /// [`BreakerOpen`] says when to come back.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a probe that was granted meanwhile is given back.
    pub async fn acquire(&self) -> Result<Permit, BreakerOpen> {
        let agreement = &self.agreement;
        agreement.catch_up().await;
        loop {
            let now = agreement.clock.now();
            let (told, generation) = {
                let verdict = &agreement.lock().verdict;
                (verdict.tell(now, self.settings()), verdict.generation)
            };
            match told {
                Told::Ask => return Ok(Permit::call(agreement, generation, now)),
                Told::Refused(until, reason) => {
                    return Err(BreakerOpen { provider: self.provider().clone(), until, reason });
                }
                Told::Probe => {
                    if let Some(probe) = self.probe().await? {
                        return Ok(probe);
                    }
                }
            }
        }
    }

    /// Asks for a probe. If there is none, things have changed.
    async fn probe(&self) -> Result<Option<Permit>, BreakerOpen> {
        let now = self.agreement.clock.now();
        let away = |until| BreakerOpen { provider: self.provider().clone(), until, reason: WhyOpen::StoreAway };
        if let Some(until) = self.agreement.is_away(now) {
            return Err(away(Some(until)));
        }
        let number = self.agreement.lock().number();
        // Dropped, it is given back.
        let permit = Permit::probe(&self.agreement, number, now);
        if let Err(error) = self.agreement.probe(Event { at: now, what: What::Probe { number } }).await {
            tracing::warn!(provider = %self.provider(), %error, "no probe");
            return Err(away(self.agreement.is_away(now)));
        }
        if self.agreement.lock().verdict.awaits(number) {
            return Ok(Some(permit.granted()));
        }
        permit.denied();
        Ok(None)
    }

    /// A person says what is to be done, whatever calls say, until somebody takes it back. The fleet begins anew then.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the store stays away.
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; repeating it is safe.
    pub async fn force(&self, to: ForcedTo, by: impl Into<Text>, reason: impl Into<Text>) -> Result<(), Error> {
        let forced = Forced { to, by: by.into(), reason: reason.into() };
        self.agreement.say(What::Force(forced)).await
    }

    /// A person takes back what was forced. The breaker is closed then, and has counted nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the store stays away.
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened; repeating it is safe.
    pub async fn clear(&self, by: impl Into<Text>) -> Result<(), Error> {
        self.agreement.say(What::Clear { by: by.into() }).await
    }

    /// Tells the store what happened here, as far as it is time; a task does so, too, but nobody waits for it. Call it before
    /// the process ends.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the store stays away: then it is tried again later.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, but that failures may be told of twice.
    pub async fn flush(&self) -> Result<(), Error> {
        self.agreement.tell().await
    }
}
