//! What a handler has in hand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use s2_coordinator::{
    Capabilities, Completion, Error as CoordinatorError, Grant, Held, Lease, NewEvent, NewTask, Published, SwarmId,
    Task, TaskId, Text, Timestamp, Value,
};
use s2_governor::Verified;
use tokio::sync::watch;

use crate::error::Error;
use crate::help::Answer;
use crate::help::HELP;
use crate::help::HelpRequest;
use crate::places::Place;
use crate::places::Places;
use crate::s2::S2;
use crate::s2::Stop;

/// What a handler has in hand: one claim of one task. Clones are the same one.
///
/// The claim is renewed in the background for as long as the handler runs. A handler that loses it is dropped.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) work: Arc<Work>,
}

#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) s2: S2,
    pub(crate) session: SwarmId,
    /// The claim as it was granted at first.
    pub(crate) grant: Grant,
    hand: Mutex<Hand>,
    /// The proof of the claim, as far as there is one.
    pub(crate) lease: watch::Sender<Option<Lease>>,
    /// The places for tasks that the session has at once.
    places: Arc<Places>,
    /// How many calls that cost money were begun.
    calls: AtomicU64,
    said: Mutex<Said>,
}

/// What the session has of the task.
#[derive(Debug, Default)]
struct Hand {
    /// Not while it is blocked, nor once it has ended.
    held: Option<Held>,
    /// Not while it is blocked.
    place: Option<Place>,
    /// The job is over: whoever has a clone of the context gets nothing any more.
    over: bool,
}

/// What a handler has said on its way.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) completion: Completion,
    /// The answers that it got.
    pub(crate) given: Vec<Given>,
    /// Since when it is blocked by what.
    pub(crate) blocked: HashMap<Text, Timestamp>,
}

/// An answer that a handler got.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) answer: Answer,
    /// What it took to help.
    pub(crate) requires: Capabilities,
    /// Of what use it was.
    pub(crate) outcome: Verified,
}

impl Given {
    /// An answer that counts as useful unless somebody says otherwise.
    pub(crate) const fn new(answer: Answer, requires: Capabilities) -> Self {
        Self { answer, requires, outcome: Verified::Success }
    }
}

impl Work {
    pub(crate) fn new(s2: S2, session: SwarmId, held: Held, place: Place, places: &Arc<Places>) -> Self {
        let (grant, lease) = (Grant::clone(&held), watch::Sender::new(Some(held.lease)));
        let hand = Mutex::new(Hand { held: Some(held), place: Some(place), over: false });
        let places = Arc::clone(places);
        Self { s2, session, grant, hand, lease, places, calls: AtomicU64::new(0), said: Mutex::default() }
    }

    pub(crate) fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the guard of the claim out, if it has one.
    pub(crate) fn take(&self) -> Option<Held> {
        self.lease.send_replace(None);
        self.hand().held.take()
    }

    /// Puts a guard in, and takes a place for it. Once the job is over, nobody would ever end it: it is handed back.
    pub(crate) fn put(&self, held: Held) -> Result<(), Error> {
        let mut hand = self.hand();
        if hand.over {
            return Err(self.stale());
        }
        self.lease.send_replace(Some(held.lease));
        hand.held = Some(held);
        hand.place.get_or_insert_with(|| self.places.take_anyway());
        Ok(())
    }

    /// The job is over: what is left of it is handed back.
    pub(crate) fn close(&self) {
        self.lease.send_replace(None);
        let mut hand = self.hand();
        let left = std::mem::replace(&mut *hand, Hand { over: true, ..Hand::default() });
        drop(hand);
        drop(left);
    }

    /// Makes room for another task of the session.
    pub(crate) fn make_room(&self) {
        let place = self.hand().place.take();
        drop(place);
    }

    /// Whether it takes up room.
    pub(crate) fn has_place(&self) -> bool {
        self.hand().place.is_some()
    }

    pub(crate) fn stale(&self) -> Error {
        let (task, held) = (self.grant.task.id, self.grant.lease.token);
        CoordinatorError::StaleLease { task, held, current: None }.into()
    }
}

impl Context {
    /// The task.
    #[must_use]
    pub fn task(&self) -> &Arc<Task> {
        &self.work.grant.task
    }

    /// Which attempt this is: 1 is the first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.work.grant.attempt
    }

    /// The session that has it.
    #[must_use]
    pub fn session(&self) -> &SwarmId {
        &self.work.session
    }

    /// The fleet.
    #[must_use]
    pub fn s2(&self) -> &S2 {
        &self.work.s2
    }

    /// Proof of the claim, for systems that the handler writes to: they should refuse smaller tokens. Nothing while it is
    /// blocked.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        *self.work.lease.borrow()
    }

    /// What is asked for, if the task is to help somebody.
    #[must_use]
    pub fn help_request(&self) -> Option<HelpRequest> {
        if self.task().kind == HELP { self.task().json().ok() } else { None }
    }

    /// Reports progress. A claim without any for half an hour is lost ([`Config::progress`](s2_coordinator::Config::progress)).
    ///
    /// # Errors
    ///
    /// `S2_STALE_LEASE` when the claim is lost, or blocked.
    ///
    /// # Cancel safety
    ///
    /// Repeating it is safe.
    pub async fn progress(&self) -> Result<(), Error> {
        let Some(lease) = self.lease() else { return Err(self.work.stale()) };
        self.work.s2.scheduler().progress(&lease).await?;
        Ok(())
    }

    /// Publishes events now, whatever becomes of the task. What follows from its end is better said by [`Context::announce`].
    ///
    /// # Errors
    ///
    /// As [`EventBus::publish`](s2_coordinator::EventBus::publish).
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn publish(&self, events: &[NewEvent]) -> Result<Vec<Published>, Error> {
        Ok(self.work.s2.bus().publish(events).await?)
    }

    /// Adds what shows that the result is one, such as how many tools were called. It stands in the journal.
    pub fn evidence(&self, name: impl Into<Text>, value: impl Into<Value>) {
        self.work.said().completion.result.evidence.push(name, value);
    }

    /// Adds a task that is submitted in the step that completes this one.
    pub fn follow_up(&self, task: NewTask) {
        self.work.said().completion.tasks.push(task);
    }

    /// Adds an event that is published in the step that completes the task.
    pub fn announce(&self, event: NewEvent) {
        self.work.said().completion.events.push(event);
    }

    /// Says of what use an answer was that the handler got. Unless said, answers to a task that is done were of use.
    pub fn verify(&self, answer: TaskId, outcome: Verified) {
        let mut said = self.work.said();
        let given = said.given.iter_mut().filter(|given| given.answer.task == answer);
        given.for_each(|given| given.outcome = outcome);
    }

    /// Waits until the process is about to leave. Whoever does not end within the grace is dropped, and its task is handed back.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn cancelled(&self) {
        self.work.s2.stopped(Stop::Drain).await;
    }

    /// The number of the next call that costs money.
    pub(crate) fn next_call(&self) -> u64 {
        self.work.calls.fetch_add(1, Ordering::Relaxed) + 1
    }
}
