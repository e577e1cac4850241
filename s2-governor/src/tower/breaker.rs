//! A circuit breaker as a layer.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tower_layer::Layer;
use tower_service::Service;

use crate::breaker::CircuitBreaker;
use crate::permit::Permit;
use crate::refused::BreakerOpen;
use crate::tower::BoxError;
use crate::tower::classify::Classify;

/// Puts services behind a breaker that learns from their answers. An open breaker fails the call, with [`BreakerOpen`] in the
/// box, and not the service.
///
/// ```
/// # use std::sync::Arc;
/// # use http::{Request, Response};
/// # use s2_coordinator::MemoryStore;
/// # use s2_governor::{
/// #     BreakerLayer, BreakerSettings, Bulkhead, BulkheadLayer, BulkheadSettings, CircuitBreaker, HttpStatus, MemoryBoard,
/// #     ProviderName,
/// # };
/// use tower_layer::Layer;
/// use tower_service::Service;
/// # struct Client;
/// # impl Service<Request<()>> for Client {
/// #     type Response = Response<()>;
/// #     type Error = std::io::Error;
/// #     type Future = std::future::Ready<Result<Response<()>, std::io::Error>>;
/// #     fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), std::io::Error>> {
/// #         std::task::Poll::Ready(Ok(()))
/// #     }
/// #     fn call(&mut self, _: Request<()>) -> Self::Future {
/// #         std::future::ready(Ok(Response::new(())))
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// # let (store, models) = (MemoryStore::new(), ProviderName::from_static("models"));
/// # let breaker = CircuitBreaker::new(Arc::new(MemoryBoard::new(&store)), models.clone(), BreakerSettings::default())?;
/// # let bulkhead = Bulkhead::new(models, BulkheadSettings::default(), Arc::clone(store.clock()))?;
/// # let client = Client;
/// let mut service = BulkheadLayer::new(bulkhead).layer(BreakerLayer::new(breaker, HttpStatus).layer(client));
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
/// assert_eq!(service.call(Request::new(())).await?.status(), 200);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct BreakerLayer<C> {
    breaker: CircuitBreaker,
    classify: C,
}

impl<C> BreakerLayer<C> {
    /// All services of this layer and its clones share the breaker; `classify` tells it what their answers say.
    #[must_use]
    pub fn new(breaker: CircuitBreaker, classify: C) -> Self {
        Self { breaker, classify }
    }
}

impl<S, C: Clone> Layer<S> for BreakerLayer<C> {
    type Service = BreakerService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { breaker, classify } = self.clone();
        BreakerService { inner, breaker, classify, reserved: Reserved::Nothing }
    }
}

enum Reserved {
    Nothing,
    Waiting(Pin<Box<dyn Future<Output = Result<Permit, BreakerOpen>> + Send>>),
    Told(Result<Permit, BreakerOpen>),
}

/// A service behind a breaker.
pub struct BreakerService<S, C> {
    inner: S,
    breaker: CircuitBreaker,
    classify: C,
    reserved: Reserved,
}

impl<S: Clone, C: Clone> Clone for BreakerService<S, C> {
    fn clone(&self) -> Self {
        let (inner, classify) = (self.inner.clone(), self.classify.clone());
        Self { inner, breaker: self.breaker.clone(), classify, reserved: Reserved::Nothing }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for BreakerService<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("BreakerService");
        debug.field("inner", &self.inner).field("breaker", &self.breaker).finish_non_exhaustive()
    }
}

impl<S, C, Request> Service<Request> for BreakerService<S, C>
where
    S: Service<Request>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response, S::Error> + Clone + Unpin,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Guarded<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            match &mut self.reserved {
                Reserved::Nothing => {
                    let breaker = self.breaker.clone();
                    self.reserved = Reserved::Waiting(Box::pin(async move { breaker.acquire().await }));
                }
                Reserved::Waiting(permit) => self.reserved = Reserved::Told(ready!(permit.as_mut().poll(cx))),
                Reserved::Told(Ok(_)) => return self.inner.poll_ready(cx).map_err(Into::into),
                Reserved::Told(Err(_)) => return Poll::Ready(Ok(())),
            }
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Reserved::Told(told) = std::mem::replace(&mut self.reserved, Reserved::Nothing) else {
            panic!("poll_ready must say that the service is ready before it is called");
        };
        let begin = |mut permit: Permit| {
            permit.restart();
            (Box::pin(self.inner.call(request)), permit)
        };
        Guarded { state: State::from(told.map(begin)), classify: self.classify.clone() }
    }
}

enum State<F> {
    Calling(Pin<Box<F>>, Permit),
    Refused(BreakerOpen),
    Over,
}

impl<F> From<Result<(Pin<Box<F>>, Permit), BreakerOpen>> for State<F> {
    fn from(told: Result<(Pin<Box<F>>, Permit), BreakerOpen>) -> Self {
        match told {
            Ok((call, permit)) => Self::Calling(call, permit),
            Err(open) => Self::Refused(open),
        }
    }
}

/// A call on its way. Dropped, it was cancelled.
pub struct Guarded<F, C> {
    state: State<F>,
    classify: C,
}

impl<F, C> fmt::Debug for Guarded<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}

impl<F, C, T, E> Future for Guarded<F, C>
where
    F: Future<Output = Result<T, E>>,
    C: Classify<T, E> + Unpin,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.state {
            State::Calling(call, _) => Ok(ready!(call.as_mut().poll(cx))),
            State::Refused(open) => Err(open.clone()),
            State::Over => panic!("a future is not polled after its end"),
        };
        match (std::mem::replace(&mut self.state, State::Over), answer) {
            (State::Calling(_, permit), Ok(answer)) => {
                let outcome = self.classify.classify(answer.as_ref(), permit.now());
                permit.settle(outcome);
                Poll::Ready(answer.map_err(Into::into))
            }
            (_, Ok(answer)) => Poll::Ready(answer.map_err(Into::into)),
            (_, Err(open)) => Poll::Ready(Err(open.into())),
        }
    }
}
