//! A fleet as one process sees it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use s2_coordinator::{Clock, EventBus, Inbox, Journal, Scheduler, Session as Claimant, SwarmId, TaskId};
use s2_governor::{BudgetLedger, Providers};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::hooks::RescueHooks;
use crate::settings::Settings;

/// A fleet as one process sees it: everything that sessions share. Clones are the same one.
///
/// It is made by [`S2::in_memory`], `S2::redis`, or [`S2::builder`]. What it is made of can be used by itself.
#[derive(Clone)]
pub struct S2 {
    pub(crate) parts: Arc<Parts>,
}

pub(crate) struct Parts {
    made: Made,
    pub(crate) settings: Settings,
    pub(crate) hooks: Arc<dyn RescueHooks>,
    /// How far the process is on its way out.
    pub(crate) stop: watch::Sender<Stop>,
    /// What runs in the background until then.
    pub(crate) running: Mutex<JoinSet<()>>,
    /// How much is waited for when the process leaves: what runs in the background, and the jobs of hosts with their own loop.
    pub(crate) busy: watch::Sender<usize>,
    /// Who can be called off its work.
    pub(crate) recruits: Mutex<HashMap<SwarmId, Weak<dyn Recruit>>>,
    /// Whether the background has begun.
    begun: AtomicBool,
    /// Help is needed: somebody should organise it.
    pub(crate) needed: Notify,
}

/// How far a process is on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// It works.
    #[default]
    No,
    /// It takes up nothing new.
    Drain,
    /// It hands back what it has.
    Now,
}

/// A session of this process that can be called off its work.
pub(crate) trait Recruit: Send + Sync {
    /// Hands a task back in favour of this one, unless there is room for it, or it is at it already.
    fn call_off(&self, help: TaskId);

    /// The session, as the scheduler knows it.
    fn claimant(&self) -> Claimant;
}

/// Something that is waited for when the process leaves, until it is dropped.
#[derive(Debug)]
pub(crate) struct Busy(watch::Sender<usize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|busy| *busy -= 1);
    }
}

/// What a fleet is made of in this process.
pub(crate) struct Made {
    pub(crate) scheduler: Arc<dyn Scheduler>,
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) ledger: Arc<dyn BudgetLedger>,
    pub(crate) providers: Providers,
}

impl S2 {
    pub(crate) fn new(made: Made, settings: Settings, hooks: Arc<dyn RescueHooks>) -> Self {
        let (stop, running, recruits) = (watch::Sender::default(), Mutex::default(), Mutex::default());
        let (begun, needed, busy) = (AtomicBool::new(false), Notify::new(), watch::Sender::default());
        let parts = Parts { made, settings, hooks, stop, running, busy, recruits, begun, needed };
        Self { parts: Arc::new(parts) }
    }

    /// Who does what, and when.
    #[must_use]
    pub fn scheduler(&self) -> &Arc<dyn Scheduler> {
        &self.parts.made.scheduler
    }

    /// What sessions tell each other.
    #[must_use]
    pub fn bus(&self) -> &Arc<dyn EventBus> {
        &self.parts.made.bus
    }

    /// What happened.
    #[must_use]
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.parts.made.journal
    }

    /// What waits for a person.
    #[must_use]
    pub fn inbox(&self) -> &Arc<dyn Inbox> {
        &self.parts.made.inbox
    }

    /// What may be spent.
    #[must_use]
    pub fn ledger(&self) -> &Arc<dyn BudgetLedger> {
        &self.parts.made.ledger
    }

    /// The providers that this process may ask.
    #[must_use]
    pub fn providers(&self) -> &Providers {
        &self.parts.made.providers
    }

    /// What the host has set.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.parts.settings
    }

    /// The clock of the fleet.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        self.scheduler().clock()
    }

    /// Waits until the process is that far on its way out.
    pub(crate) async fn stopped(&self, far: Stop) {
        // The sender lives as long as this.
        drop(self.parts.stop.subscribe().wait_for(|stop| *stop >= far).await);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.parts.stop.borrow() > Stop::No
    }

    /// Runs something in the background until the process leaves.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running();
        while running.try_join_next().is_some() {}
        let busy = self.busy();
        running.spawn(async move {
            task.await;
            drop(busy);
        });
    }

    /// From now on the process waits for something when it leaves.
    pub(crate) fn busy(&self) -> Busy {
        self.parts.busy.send_modify(|busy| *busy += 1);
        Busy(self.parts.busy.clone())
    }

    pub(crate) fn running(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.parts.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody has asked this before.
    pub(crate) fn begins(&self) -> bool {
        !self.parts.begun.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn recruits(&self) -> MutexGuard<'_, HashMap<SwarmId, Weak<dyn Recruit>>> {
        self.parts.recruits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for S2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { made: Made { scheduler, bus, ledger, .. }, settings, .. } = &*self.parts;
        let mut debug = f.debug_struct("S2");
        debug.field("scheduler", scheduler).field("bus", bus).field("ledger", ledger);
        debug.field("settings", settings).finish_non_exhaustive()
    }
}
