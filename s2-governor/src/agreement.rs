//! How one process agrees with the others about a provider.
//!
//! Talking with the store is one thing at a time and never holds up who only wants to count a call: what happened here is
//! queued, holds here at once, and a task tells the store.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use s2_coordinator::{Clock, Record, Severity, Timestamp};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::board::{Board, Swapped, Versioned};
use crate::error::Error;
use crate::local::Local;
use crate::transition::{Event, Rules, What};

/// How often the journal tells of failures of a provider, whoever saw them.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long to wait before the store is asked again that could not be reached.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Agreement {
    pub(crate) rules: Rules,
    pub(crate) clock: Arc<dyn Clock>,
    board: Arc<dyn Board>,
    changes: watch::Receiver<u64>,
    local: Mutex<Local>,
    /// Held by who talks with the store.
    talking: tokio::sync::Mutex<()>,
    runtime: Mutex<Option<Handle>>,
    /// Wakes the task that tells the store what happened.
    wanted: Notify,
}

impl fmt::Debug for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agreement").field("provider", &self.rules.provider).finish_non_exhaustive()
    }
}

impl Agreement {
    pub(crate) fn new(board: Arc<dyn Board>, rules: Rules) -> Result<Self, Error> {
        Ok(Self {
            local: Mutex::new(Local::new(&rules)),
            clock: board.clock(),
            changes: board.changes(&rules.provider)?,
            rules,
            board,
            talking: tokio::sync::Mutex::default(),
            runtime: Mutex::default(),
            wanted: Notify::new(),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_behind(&self) -> bool {
        let local = self.lock();
        local.seen != Some(*self.changes.borrow()) && local.ask_at <= self.clock.now()
    }

    /// When the store may be asked again, if it could not be reached just now.
    pub(crate) fn is_away(&self, now: Timestamp) -> Option<Timestamp> {
        Some(self.lock().ask_at).filter(|at| *at > now)
    }

    /// Asks the store what holds, if that may have changed.
    pub(crate) async fn catch_up(&self) {
        if !self.is_behind() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = Some(runtime);
        }
        let _one = self.talking.lock().await;
        if self.is_behind()
            && let Err(error) = self.read().await
        {
            tracing::warn!(provider = %self.rules.provider, %error, "goes by what this process knows");
        }
    }

    /// Asks the store what holds. Others must not talk with it meanwhile.
    async fn read(&self) -> Result<(), Error> {
        let number = *self.changes.borrow();
        let answer = self.board.read(&self.rules.provider).await;
        let mut local = self.lock();
        match answer {
            Ok(latest) => {
                local.learn(latest, &self.rules);
                (local.seen, local.ask_at) = (Some(number), Timestamp::EPOCH);
                Ok(())
            }
            Err(error) => {
                local.ask_at = self.clock.now() + PAUSE;
                Err(error)
            }
        }
    }

    /// Applies an event to what holds, until that holds. Others must not talk with the store meanwhile.
    async fn exchange(&self, event: &Event) -> Result<(), Error> {
        loop {
            let (version, change) = {
                let local = self.lock();
                let Some(change) = self.rules.apply(&local.known.verdict, event) else { return Ok(()) };
                (local.known.version, change)
            };
            let swapped = self.board.swap(&self.rules.provider, version, &change.verdict, change.record).await?;
            let (latest, done) = match swapped {
                Swapped::Done(version) => (Versioned { version, verdict: change.verdict }, true),
                Swapped::Conflict(latest) => (latest, false),
            };
            self.lock().learn(latest, &self.rules);
            if done {
                return Ok(());
            }
        }
    }

    /// Asks for a probe, after telling what happened before.
    pub(crate) async fn probe(&self, event: Event) -> Result<(), Error> {
        let _one = self.talking.lock().await;
        let mut asked = self.tell_events().await;
        if asked.is_ok() {
            asked = self.exchange(&event).await;
        }
        self.note_absence(&asked);
        asked
    }

    pub(crate) async fn tell(&self) -> Result<(), Error> {
        let _one = self.talking.lock().await;
        let mut told = self.tell_events().await;
        if told.is_ok() {
            told = self.tell_failures().await;
        }
        self.note_absence(&told);
        told
    }

    /// A store that could not be reached is left alone for a while.
    fn note_absence(&self, answer: &Result<(), Error>) {
        if answer.is_err() {
            self.lock().ask_at = self.clock.now() + PAUSE;
        }
    }

    async fn tell_events(&self) -> Result<(), Error> {
        loop {
            let Some(event) = self.lock().pending.front().cloned() else { return Ok(()) };
            if matches!(event.what, What::Probed { answer: None, .. }) && self.lock().seen.is_none() {
                // Whoever wanted this probe does not know whether it was granted.
                self.read().await?;
            }
            self.exchange(&event).await?;
            // Meanwhile it may have given way to one that says more.
            self.lock().pending.pop_front_if(|front| *front == event);
        }
    }

    async fn tell_failures(&self) -> Result<(), Error> {
        let now = self.clock.now();
        let (failures, reason) = {
            let local = self.lock();
            if local.untold == 0 || local.tell_at > now {
                return Ok(());
            }
            (local.untold, local.reason.clone())
        };
        let record = Record::new("provider", "failure", self.rules.provider.to_text()).with("failures", failures);
        let record = record.with("reason", reason).with_severity(Severity::High);
        let early = self.board.note(&self.rules.provider, record, TELL_EVERY).await?;
        let mut local = self.lock();
        if early.is_none() {
            local.untold -= failures;
        }
        local.tell_at = early.unwrap_or(now + TELL_EVERY);
        Ok(())
    }

    /// Asks the store what holds, whether or not that may have changed.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        let _one = self.talking.lock().await;
        self.read().await
    }

    /// A person says something.
    pub(crate) async fn say(&self, what: What) -> Result<(), Error> {
        let _one = self.talking.lock().await;
        self.read().await?;
        self.exchange(&Event { at: self.clock.now(), what }).await
    }

    /// Sees to it that the store is told what happened, without waiting for it.
    pub(crate) fn tell_soon(self: &Arc<Self>) {
        let begins = {
            let mut local = self.lock();
            let is_event = !local.pending.is_empty();
            if local.tells && is_event {
                self.wanted.notify_one();
            }
            (is_event || local.untold > 0) && !std::mem::replace(&mut local.tells, true)
        };
        if begins {
            // Dropped, it says that nobody tells: so is a task without a runtime, or with one that ends.
            let telling = Telling(Arc::clone(self));
            let known = || self.runtime.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(runtime) = Handle::try_current().ok().or_else(known) {
                runtime.spawn(telling.run());
            }
        }
    }

    /// When the store is to be told something more. If nothing, nobody does so any more.
    fn next(&self) -> Option<Timestamp> {
        let mut local = self.lock();
        let next = match local.pending.is_empty() {
            false => Some(Timestamp::EPOCH),
            true => (local.untold > 0).then_some(local.tell_at),
        };
        local.tells = next.is_some();
        next
    }
}

/// A task that tells the store what happened.
struct Telling(Arc<Agreement>);

impl Drop for Telling {
    fn drop(&mut self) {
        // Another may have begun meanwhile; two are no harm.
        self.0.lock().tells = false;
    }
}

impl Telling {
    async fn run(self) {
        let agreement = &*self.0;
        loop {
            if let Err(error) = agreement.tell().await {
                tracing::warn!(provider = %agreement.rules.provider, %error, "the store does not know yet");
                agreement.clock.sleep_until(agreement.clock.now() + PAUSE).await;
                continue;
            }
            let Some(at) = agreement.next() else { return };
            tokio::select! {
                () = agreement.wanted.notified() => {}
                () = agreement.clock.sleep_until(at) => {}
            }
        }
    }
}
