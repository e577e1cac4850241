//! Claiming on Redis.
//!
//! A claim that finds nothing waits in Redis. Whoever makes something ready hands it out in the same step, so that it arrives
//! without another round trip; a push that is lost is fetched again by repeating the claim, which gets the same leases.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::error::Error;
use crate::lease::{Claim, Grant};
use crate::redis::keeper;
use crate::redis::post::Letterbox;
use crate::redis::refusal::{About, refusal};
use crate::redis::reply::Reply;
use crate::redis::scripts::{TASKS_CLAIM, TASKS_UNCLAIM};
use crate::redis::store::{Call, PAUSE, RedisStore};
use crate::redis::task;
use crate::time::Timestamp;

/// Under which hand-outs are pushed; the number of the wait says to whom.
const TICKET: u64 = 1;

/// A claim that waits. Dropped before it has its answer, it is withdrawn, and what was on its way is released.
struct Waiting<'a> {
    store: &'a RedisStore,
    claim: &'a Claim,
    number: u64,
    letterbox: Arc<Letterbox>,
    answered: bool,
}

impl<'a> Waiting<'a> {
    fn new(store: &'a RedisStore, claim: &'a Claim) -> Self {
        let number = store.number();
        store.claims().insert((claim.by.number, claim.request), number);
        Self { store, claim, number, letterbox: store.shared.post.open_box(number), answered: false }
    }

    /// What was handed out; nothing where it is to be fetched.
    async fn told(&self) -> Option<Vec<Grant>> {
        let told = self.letterbox.told(TICKET).await?;
        if let Some(due) = told.get(1).and_then(Reply::as_u64) {
            self.store.arm(Timestamp::from_micros(due));
        }
        told.get(0).and_then(task::grants)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.store.shared.post.close_box(self.number);
        if self.answered {
            self.store.end_wait(self.claim, self.number);
        } else {
            let (store, claim, number) = (self.store.clone(), self.claim.clone(), self.number);
            let withdrawal = Withdrawal::begin(&store, claim.by.number);
            self.store.spawn(async move {
                // Unless somebody has gone on with it.
                if store.end_wait(&claim, number) {
                    store.withdraw(&claim).await;
                }
                drop(withdrawal);
            });
        }
    }
}

/// A claim of this session is being withdrawn. What it was granted is known by the session, so that must not leave before.
struct Withdrawal {
    store: RedisStore,
    session: u64,
}

impl Withdrawal {
    fn begin(store: &RedisStore, session: u64) -> Self {
        store.shared.withdrawals.send_modify(|all| *all.entry(session).or_default() += 1);
        Self { store: store.clone(), session }
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        self.store.shared.withdrawals.send_modify(|all| {
            let left = all.get_mut(&self.session).map(|count| {
                *count -= 1;
                *count
            });
            if left == Some(0) {
                all.remove(&self.session);
            }
        });
    }
}

impl RedisStore {
    /// Waits until no claim of a session is being withdrawn.
    pub(super) async fn withdrawn(&self, session: u64) {
        // The sender lives as long as this.
        drop(self.shared.withdrawals.subscribe().wait_for(|all| !all.contains_key(&session)).await);
    }

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

    /// Waits until there is something to do, or until the handle is closed.
    pub(super) async fn claim(&self, claim: &Claim, mut closed: watch::Receiver<bool>) -> Result<Vec<Grant>, Error> {
        let mut lost = self.shared.post.lost();
        let mut waiting = Waiting::new(self, claim);
        let answer = loop {
            keeper::ensure(&self.shared)?;
            lost.borrow_and_update();
            match self.claim_once(claim, waiting.number).await {
                Ok(None) => {}
                // A wait has time: the server will be back.
                Err(Error::Backend { retryable: true, .. }) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Ok(Some(granted)) => break Ok(granted),
                Err(error) => break Err(error),
            }
            tokio::select! {
                biased;
                Ok(_) = closed.wait_for(|closed| *closed) => return Ok(Vec::new()),
                told = waiting.told() => if let Some(granted) = told {
                    break Ok(granted);
                },
                _ = lost.changed() => {}
            }
        };
        waiting.answered = answer.is_ok();
        match answer {
            // It has left.
            Err(Error::StaleSession { current: None, .. }) if !self.has_entered(claim.by.number) => Ok(Vec::new()),
            answer => answer,
        }
    }

    /// Whether a session has entered here and not left.
    fn has_entered(&self, number: u64) -> bool {
        self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner).contains(&number)
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<(u64, u64), u64>> {
        self.shared.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A wait is over. Answers whether it was the latest of its claim.
    fn end_wait(&self, claim: &Claim, wait: u64) -> bool {
        let (mut claims, key) = (self.claims(), (claim.by.number, claim.request));
        let is_latest = claims.get(&key) == Some(&wait);
        if is_latest {
            claims.remove(&key);
        }
        is_latest
    }

    async fn withdraw(&self, claim: &Claim) {
        let mut call = self.call_again(TASKS_UNCLAIM);
        call.number(claim.by.number);
        call.number(claim.request);
        // If the server stays away, the lease of what was on its way ends.
        drop(self.task_call(call).await);
    }
}
