//! Calls that cost money.

use std::fmt::Display;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use s2_coordinator::{IdempotencyKey, Timestamp};
use s2_governor::{Admission, CallOutcome, NanoUsd, Permit, Refused, Reservation, Reserve, Reserved};

use tokio::sync::oneshot;

use crate::context::Context;
use crate::meter::Meter;
use crate::s2::S2;
use crate::spend_error::SpendError;

impl Context {
    /// Makes a call that costs money: waits for its turn at the provider, asks whether the provider does well, holds `estimate`
    /// on the accounts of the session and of all swarms that contain it, makes the call, and posts what it has cost: what the
    /// [`Meter`] was told, else the estimate.
    ///
    /// Money is held for as long as the call takes. If the process dies meanwhile, or the handler is dropped, the estimate counts
    /// as spent once the reservation expires, since the provider may have billed it.
    ///
    /// ```
    /// # use s2_core::{Context, Meter, SpendError, TaskError};
    /// # use s2_governor::NanoUsd;
    /// # async fn ask(prompt: &str) -> Result<(String, NanoUsd), std::io::Error> { Ok((prompt.to_owned(), NanoUsd::ZERO)) }
    /// async fn handler(cx: Context) -> Result<String, TaskError> {
    ///     let call = async |meter: Meter| {
    ///         let (text, cost) = ask("which codec?").await?;
    ///         meter.actual(cost);
    ///         Ok::<_, std::io::Error>(text)
    ///     };
    ///     Ok(cx.spend("models", NanoUsd::from_cents(10), call).await?)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SpendError`] tells what was in the way. With `?` in a handler, what was refused hands the task back without an attempt.
    ///
    /// # Cancel safety
    ///
    /// Dropped before the call was begun, nothing is spent; after that, the estimate is presumed.
    pub async fn spend<T, E: Display>(
        &self,
        provider: &str,
        estimate: NanoUsd,
        call: impl AsyncFnOnce(Meter) -> Result<T, E>,
    ) -> Result<T, SpendError<E>> {
        let s2 = &self.work.s2;
        let provider = s2.providers().get(provider).map_err(SpendError::NotIsolated)?;
        let Admission { mut permit, slot } = provider.admit().await.map_err(refused)?;
        let reservation = self.reserve(estimate).await?;
        permit.restart();
        let meter = Meter::default();
        let answer = keep(s2, &reservation, call(meter.clone())).await;
        drop(slot);
        let reading = meter.read();
        settle(s2, &reservation, reading.cost(estimate)).await;
        report(permit, reading.outcome, &answer);
        answer.map_err(SpendError::Call)
    }

    async fn reserve<E>(&self, estimate: NanoUsd) -> Result<Reservation, SpendError<E>> {
        let mut reserve = Reserve::new(self.session().clone(), estimate).with_trace(self.task().trace);
        // A claim has a number of its own, so a repeated attempt pays anew, and a repeated request does not.
        let (lease, call) = (self.work.grant.lease, self.next_call());
        if let Ok(key) = format!("{}/{}/{call}", lease.task, lease.token).parse::<IdempotencyKey>() {
            reserve = reserve.with_key(key);
        }
        match hold(&self.work.s2, reserve).await.map_err(SpendError::Ledger)? {
            Reserved::Granted(reservation) => Ok(reservation),
            Reserved::Denied(denied) => Err(SpendError::Denied(denied)),
        }
    }
}

/// Reserves money, and gives it back if nobody waits for it any more: then the call is not made.
async fn hold(s2: &S2, reserve: Reserve) -> Result<Reserved, s2_governor::Error> {
    let (answer, answered) = oneshot::channel();
    let ledger = Arc::clone(s2.ledger());
    let session = reserve.session.clone();
    s2.spawn(async move {
        let Err(unheard) = answer.send(ledger.reserve(&reserve).await) else { return };
        if let Ok(Reserved::Granted(reservation)) = unheard
            && let Err(error) = ledger.release(&reservation).await
        {
            tracing::warn!(%session, %error, "what nobody spends could not be given back; it will be presumed to be spent");
        }
    });
    match answered.await {
        Ok(answer) => answer,
        // The runtime ends.
        Err(_) => Err(s2_coordinator::Error::Closed.into()),
    }
}

fn refused<E>(refused: Refused) -> SpendError<E> {
    match refused {
        Refused::BulkheadFull(full) => SpendError::BulkheadFull(full),
        Refused::BreakerOpen(open) => SpendError::BreakerOpen(open),
    }
}

/// Makes a call, and lets the reservation hold until it ends.
async fn keep<T>(s2: &S2, reservation: &Reservation, call: impl Future<Output = T>) -> T {
    let (clock, ttl) = (s2.clock(), s2.settings().budget.ttl);
    let mut call = pin!(call);
    let mut until = reservation.until;
    loop {
        tokio::select! {
            biased;
            answer = &mut call => return answer,
            () = clock.sleep_until(halfway(clock.now(), until)) => {}
        }
        let extended = async { s2.ledger().extend(reservation, ttl).await };
        tokio::select! {
            biased;
            answer = &mut call => return answer,
            extended = extended => match extended {
                Ok(later) => until = later,
                Err(error) if error.is_retryable() => {}
                // It was presumed spent meanwhile; what the call has cost will correct that.
                Err(_) => return call.await,
            },
        }
    }
}

fn halfway(now: Timestamp, until: Timestamp) -> Timestamp {
    now + until.since(now).max(Duration::from_secs(1)) / 2
}

/// Posts what a call has cost. Its answer counts more than its bill: what cannot be posted is presumed.
async fn settle(s2: &S2, reservation: &Reservation, cost: NanoUsd) {
    if let Err(error) = s2.ledger().settle(reservation, cost).await {
        let key = reservation.key.as_str();
        tracing::error!(key, %cost, %error, "a cost could not be posted; its reservation will be presumed to be spent");
    }
}

fn report<T, E: Display>(permit: Permit, outcome: Option<CallOutcome>, answer: &Result<T, E>) {
    let outcome = outcome.unwrap_or_else(|| match answer {
        Ok(_) => CallOutcome::Success,
        Err(error) => CallOutcome::Failure(error.to_string().into()),
    });
    permit.settle(outcome);
}
