//! A bulkhead as a layer.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tower_layer::Layer;
use tower_service::Service;

use crate::bulkhead::{Bulkhead, Slot};
use crate::refused::BulkheadFull;
use crate::tower::BoxError;

/// Puts services behind a bulkhead. What a call occupies is free when its response is there, not when its body is read.
///
/// It belongs outside of a [`BreakerLayer`](crate::BreakerLayer): a call that has waited for its turn asks then whether the
/// provider is there. A full bulkhead fails the call, with [`BulkheadFull`] in the box, and not the service.
#[derive(Clone, Debug)]
pub struct BulkheadLayer {
    bulkhead: Bulkhead,
}

impl BulkheadLayer {
    /// All services of this layer and its clones share the bulkhead.
    #[must_use]
    pub fn new(bulkhead: Bulkhead) -> Self {
        Self { bulkhead }
    }
}

impl<S> Layer<S> for BulkheadLayer {
    type Service = BulkheadService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService { inner, bulkhead: self.bulkhead.clone(), reserved: Reserved::Nothing }
    }
}

enum Reserved {
    Nothing,
    Waiting(Pin<Box<dyn Future<Output = Result<Slot, BulkheadFull>> + Send>>),
    Told(Result<Slot, BulkheadFull>),
}

/// A service behind a bulkhead.
pub struct BulkheadService<S> {
    inner: S,
    bulkhead: Bulkhead,
    reserved: Reserved,
}

impl<S: Clone> Clone for BulkheadService<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), bulkhead: self.bulkhead.clone(), reserved: Reserved::Nothing }
    }
}

impl<S: fmt::Debug> fmt::Debug for BulkheadService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadService").field("inner", &self.inner).field("bulkhead", &self.bulkhead).finish()
    }
}

impl<S, Request> Service<Request> for BulkheadService<S>
where
    S: Service<Request>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Turn<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            match &mut self.reserved {
                Reserved::Nothing => {
                    let bulkhead = self.bulkhead.clone();
                    self.reserved = Reserved::Waiting(Box::pin(async move { bulkhead.enter().await }));
                }
                Reserved::Waiting(turn) => self.reserved = Reserved::Told(ready!(turn.as_mut().poll(cx))),
                Reserved::Told(Ok(_)) => return self.inner.poll_ready(cx).map_err(Into::into),
                Reserved::Told(Err(_)) => return Poll::Ready(Ok(())),
            }
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Reserved::Told(told) = std::mem::replace(&mut self.reserved, Reserved::Nothing) else {
            panic!("poll_ready must say that the service is ready before it is called");
        };
        Turn { state: told.map(|slot| (Box::pin(self.inner.call(request)), slot)).map_err(Some) }
    }
}

/// A call on its way.
pub struct Turn<F> {
    state: Result<(Pin<Box<F>>, Slot), Option<BulkheadFull>>,
}

impl<F> fmt::Debug for Turn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").finish_non_exhaustive()
    }
}

impl<F, T, E> Future for Turn<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.state {
            Ok((call, _)) => ready!(call.as_mut().poll(cx)).map_err(Into::into),
            Err(full) => Err(full.take().expect("a future is not polled after its end").into()),
        };
        // Its place is free, however long the future is kept.
        self.state = Err(None);
        Poll::Ready(answer)
    }
}
