//! Claiming on Redis.
//!
//! A claim that finds nothing waits in Redis. Whoever makes something ready hands it out in the same step, so that it arrives
//! without another round trip; a push that is lost is fetched again by repeating the claim, which gets the same leases.

use std::pin::pin;
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::time::{sleep, timeout};

use crate::error::Error;
use crate::lease::{Claim, Grant};
use crate::redis::keeper;
use crate::redis::post::Letterbox;
use crate::redis::refusal::{About, refusal};
use crate::redis::reply::Reply;
use crate::redis::scripts::{TASKS_CLAIM, TASKS_UNCLAIM};
use crate::redis::store::{Call, PAUSE, RedisStore};
use crate::redis::task;
use crate::redis::together::PATIENCE;
use crate::redis::waiting::{Begin, Left, WaitingClaims};
use crate::time::Timestamp;

/// Under which hand-outs are pushed; the number of the wait says to whom.
const TICKET: u64 = 1;

/// A call that waits with a claim, perhaps as one of several. If all of them are dropped before they have an answer, the claim
/// is withdrawn, and what was on its way is released.
struct Waiting<'a> {
    store: &'a RedisStore,
    claim: &'a Claim,
    number: u64,
    letterbox: Arc<Letterbox>,
}

impl<'a> Waiting<'a> {
    /// Begins to wait, unless the session leaves. What it withdrew before is known to the fleet first, unless that takes long:
    /// who asks and gives up again and again would else be heard later and later.
    async fn begin(store: &'a RedisStore, claim: &'a Claim) -> Option<Self> {
        let fresh = store.number();
        let begin = |claims: &mut WaitingClaims, is_patient| claims.begin(claim, fresh, is_patient);
        let begun = store.until_heard(|claims| Some(begin(claims, true)).filter(|begun| *begun != Begin::NotYet));
        let begun = timeout(PATIENCE, begun).await.unwrap_or_else(|_| begin(&mut store.claims(), false));
        let Begin::Waits(number) = begun else { return None };
        // If it goes on with one that was withdrawn, that is no longer to be told.
        store.shared.withdrawn.notify_waiters();
        let letterbox = store.shared.post.open_box(number);
        Some(Self { store, claim, number, letterbox })
    }

    /// What was handed out; nothing where it is to be fetched.
    async fn told(&self) -> Option<Vec<Grant>> {
        let told = self.letterbox.told(TICKET).await?;
        if let Some(due) = told.get(1).and_then(Reply::as_u64) {
            self.store.arm(Timestamp::from_micros(due));
        }
        told.get(0).and_then(task::grants)
    }

    /// What may be told of an answer: nothing if the session leaves, which hands it back.
    fn answer(&self, granted: Vec<Grant>) -> Vec<Grant> {
        if self.store.claims().answered(self.claim, self.number) { granted } else { Vec::new() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let left = self.store.claims().end(self.claim, self.number);
        if left == Left::Others {
            // They may have this one's answer, and what this one was told.
            return self.letterbox.put((TICKET, None));
        }
        self.store.shared.post.close_box(self.number);
        if left == Left::Withdrawn {
            let withdrawal = Withdrawal { store: self.store.clone(), claim: self.claim.clone(), number: self.number };
            self.store.spawn(async move { withdrawal.tell().await });
        }
    }
}

/// A claim that was withdrawn, until the fleet knows of it or is past help.
struct Withdrawal {
    store: RedisStore,
    claim: Claim,
    number: u64,
}

impl Withdrawal {
    /// Tells the fleet, unless somebody goes on with it.
    async fn tell(self) {
        tokio::select! {
            biased;
            () = self.store.until_heard(|claims| (!claims.is_withdrawn(&self.claim, self.number)).then_some(())) => {}
            () = self.store.withdraw(&self.claim) => {}
        }
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        self.store.claims().forget(&self.claim, self.number);
        self.store.shared.withdrawn.notify_waiters();
    }
}

/// A session leaves.
pub(super) struct Leaving<'a> {
    store: &'a RedisStore,
    pub(super) session: u64,
    /// Which of its claims are withdrawn by that.
    pub(super) requests: Vec<u64>,
}

impl<'a> Leaving<'a> {
    pub(super) fn begin(store: &'a RedisStore, session: u64) -> Self {
        let requests = store.claims().begin_leave(session);
        Self { store, session, requests }
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.store.claims().end_leave(self.session);
    }
}

impl RedisStore {
    /// What can be had at once; nothing where the claim waits, if it has the number of a wait.
    pub(super) async fn claim_once(&self, claim: &Claim, wait: u64) -> Result<Option<Vec<Grant>>, Error> {
        self.config().limits.check_claim(claim.max)?;
        let mut call = self.call_again(TASKS_CLAIM);
        call.number(claim.by.number);
        call.arg(claim.by.session.as_str());
        call.number(claim.request);
        call.number(claim.max);
        call.number(wait);
        let fields = || vec![task::session_field(&claim.by)];
        let answer = if wait > 0 {
            // Its withdrawal must not come before it, so it is not left to others to send.
            self.task_call(call).await?
        } else {
            self.task_call_together(call, claim.max, fields).await?
        };
        let about = About { session: Some(&claim.by), ..About::default() };
        if let Some(error) = refusal(&answer, about, &self.config().limits) {
            return Err(error);
        }
        if answer.get(0).and_then(Reply::as_str) == Some("waits") {
            return Ok(None);
        }
        let granted = answer.get(1).and_then(task::grants);
        granted.map(Some).ok_or_else(|| Call::unexpected(TASKS_CLAIM, &answer))
    }

    /// Waits until there is something to do.
    pub(super) async fn claim(&self, claim: &Claim) -> Result<Vec<Grant>, Error> {
        let Some(waiting) = Waiting::begin(self, claim).await else { return Ok(Vec::new()) };
        match self.wait_to_claim(&waiting).await {
            Ok(granted) => Ok(waiting.answer(granted)),
            // It has left.
            Err(Error::StaleSession { current: None, .. }) if !self.has_entered(claim.by.number) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Asks, and asks again whenever the answer may be lost.
    async fn wait_to_claim(&self, waiting: &Waiting<'_>) -> Result<Vec<Grant>, Error> {
        let mut lost = self.shared.post.lost();
        loop {
            keeper::ensure(&self.shared)?;
            lost.borrow_and_update();
            match self.claim_once(waiting.claim, waiting.number).await {
                Ok(None) => self.claims().unanswered(waiting.claim, waiting.number),
                Ok(Some(granted)) => return Ok(granted),
                // A wait has time: the server will be back.
                Err(Error::Backend { retryable: true, .. }) => {
                    sleep(PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                biased;
                told = waiting.told() => if let Some(granted) = told {
                    return Ok(granted);
                },
                _ = lost.changed() => {}
            }
        }
    }

    /// Until the fleet knows what a session has withdrawn, unless that takes long: what it was on its way to is there again.
    pub(super) async fn until_withdrawn(&self, session: u64) {
        drop(timeout(PATIENCE, self.until_heard(|claims| (!claims.withdraws(session)).then_some(()))).await);
    }

    /// Asks something of the claims that wait here whenever the fleet has heard of a withdrawal, until there is an answer.
    async fn until_heard<T>(&self, mut ask: impl FnMut(&mut WaitingClaims) -> Option<T>) -> T {
        loop {
            let mut withdrawn = pin!(self.shared.withdrawn.notified());
            withdrawn.as_mut().enable();
            let answer = ask(&mut self.claims());
            if let Some(answer) = answer {
                return answer;
            }
            withdrawn.await;
        }
    }

    /// Whether a session has entered here and not left.
    fn has_entered(&self, number: u64) -> bool {
        self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner).contains(&number)
    }

    fn claims(&self) -> MutexGuard<'_, WaitingClaims> {
        self.shared.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn withdraw(&self, claim: &Claim) {
        let mut call = self.call_again(TASKS_UNCLAIM);
        call.number(claim.by.number);
        call.number(claim.request);
        // If the server stays away, the lease of what was on its way ends.
        drop(self.task_call(call).await);
    }
}
