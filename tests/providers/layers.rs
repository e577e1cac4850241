//! Bulkhead and breaker as layers, in front of a client of a real HTTP server.

use crate::{Fleet, LONG, MODELS, TICK, seconds};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use s2_governor::{
    BreakerLayer, BreakerOpen, BreakerSettings, BreakerState, Bulkhead, BulkheadFull, BulkheadLayer, BulkheadSettings,
    CircuitBreaker, HttpStatus, WhyOpen,
};
use s2_tests::START;
use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower_layer::Layer;
use tower_service::Service;

/// A provider on a port of this machine. What is slow answers when it may, what hangs never does.
struct Server {
    address: SocketAddr,
    may_answer: Arc<Semaphore>,
}

async fn answer(request: Request<Incoming>, may_answer: Arc<Semaphore>) -> Result<Response<String>, Infallible> {
    let response = Response::builder();
    let response = match request.uri().path() {
        "/500" => response.status(500),
        "/429" => response.status(429).header("retry-after", "7"),
        "/503" => response.status(503).header("retry-after", "Wed, 12 Nov 2025 09:00:20 GMT"),
        "/slow" => {
            may_answer.acquire().await.expect("open").forget();
            response
        }
        "/hang" => std::future::pending().await,
        _ => response,
    };
    Ok(response.body("said".to_owned()).expect("a response"))
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let (address, may_answer) = (listener.local_addr().expect("an address"), Arc::new(Semaphore::new(0)));
        let slowly = Arc::clone(&may_answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let slowly = Arc::clone(&slowly);
                let service = service_fn(move |request| answer(request, Arc::clone(&slowly)));
                let mut builder = hyper::server::conn::http1::Builder::new();
                // The test's clock decides, not the server's.
                let connection = builder.auto_date_header(false).serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { address, may_answer }
    }

    fn request(&self, path: &str) -> Request<String> {
        Request::get(format!("http://{}{path}", self.address)).body(String::new()).expect("a request")
    }
}

fn client() -> Client<HttpConnector, String> {
    Client::builder(TokioExecutor::new()).build_http()
}

type BoxError = Box<dyn Error + Send + Sync>;

async fn ready<S: Service<Request<String>, Error = BoxError>>(service: &mut S) {
    poll_fn(|cx| service.poll_ready(cx)).await.expect("a refusal does not end the service");
}

async fn ask<S, B>(service: &mut S, server: &Server, path: &str) -> Result<StatusCode, BoxError>
where
    S: Service<Request<String>, Response = Response<B>, Error = BoxError>,
{
    ready(service).await;
    service.call(server.request(path)).await.map(|response| response.status())
}

fn bulkhead(concurrent: u32, waiting: u32, fleet: &Fleet) -> Bulkhead {
    let mut settings = BulkheadSettings::default();
    (settings.concurrent, settings.waiting) = (concurrent, waiting);
    Bulkhead::new(MODELS, settings, fleet.boards[0].clock()).expect("a bulkhead")
}

fn breaker(fleet: &Fleet) -> CircuitBreaker {
    fleet.breakers(&BreakerSettings::default()).into_iter().next().expect("two")
}

fn refused(error: &BoxError) -> (WhyOpen, Option<u64>) {
    let open = error.downcast_ref::<BreakerOpen>().expect("the breaker refuses");
    (open.reason, open.until.map(|until| until.since(START).as_secs()))
}

#[tokio::test]
async fn failures_open_the_breaker_and_answers_close_it() {
    let (fleet, server) = (Fleet::in_memory(), Server::start().await);
    let breaker = breaker(&fleet);
    let mut service = BreakerLayer::new(breaker.clone(), HttpStatus).layer(client());
    for _ in 0..10 {
        assert_eq!(ask(&mut service, &server, "/").await.expect("an answer"), 200);
    }
    for _ in 0..10 {
        assert_eq!(ask(&mut service, &server, "/500").await.expect("an answer"), 500);
    }
    for _ in 0..3 {
        let error = ask(&mut service, &server, "/").await.expect_err("open");
        assert_eq!(refused(&error), (WhyOpen::Tripped, Some(30)));
    }
    fleet.clock.advance(seconds(30));
    for _ in 0..3 {
        assert_eq!(ask(&mut service, &server, "/").await.expect("an answer"), 200);
    }
    assert_eq!(breaker.verdict().state, BreakerState::Closed);
}

#[tokio::test]
async fn nobody_asks_before_the_time_that_the_provider_named() {
    let (fleet, server) = (Fleet::in_memory(), Server::start().await);
    let mut service = BreakerLayer::new(breaker(&fleet), HttpStatus).layer(client());
    for (path, status, until) in [("/429", 429, 7), ("/503", 503, 20)] {
        assert_eq!(ask(&mut service, &server, path).await.expect("an answer"), status);
        let error = ask(&mut service, &server, "/").await.expect_err("cooling down");
        assert_eq!(refused(&error), (WhyOpen::CoolingDown, Some(until)));
        fleet.clock.advance(seconds(10));
    }
    fleet.clock.advance(seconds(10));
    assert_eq!(ask(&mut service, &server, "/").await.expect("an answer"), 200);
}

#[tokio::test]
async fn nobody_at_the_other_end_is_a_failure() {
    let fleet = Fleet::in_memory();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let mut server = Server::start().await;
    server.address = listener.local_addr().expect("an address");
    drop(listener);
    let mut service = BreakerLayer::new(breaker(&fleet), HttpStatus).layer(client());
    for _ in 0..10 {
        ask(&mut service, &server, "/").await.expect_err("nobody is there");
    }
    assert_eq!(refused(&ask(&mut service, &server, "/").await.expect_err("open")).0, WhyOpen::Tripped);
}

#[tokio::test]
async fn slow_answers_open_the_breaker_and_so_do_answers_that_never_came() {
    for path in ["/slow", "/hang"] {
        let (fleet, server) = (Fleet::in_memory(), Server::start().await);
        let breaker = breaker(&fleet);
        let mut service = BreakerLayer::new(breaker.clone(), HttpStatus).layer(client());
        let mut calls = Vec::new();
        for _ in 0..10 {
            ready(&mut service).await;
            calls.push(tokio::spawn(service.call(server.request(path))));
        }
        fleet.clock.advance(seconds(60));
        server.may_answer.add_permits(10);
        for call in calls {
            match path {
                "/slow" => drop(timeout(LONG, call).await.expect("answered").expect("no panic").expect("an answer")),
                _ => {
                    call.abort();
                    drop(call.await);
                }
            }
        }
        assert!(matches!(breaker.verdict().state, BreakerState::Open { .. }), "{path}");
    }
}

#[tokio::test]
async fn a_provider_that_hangs_fills_its_bulkhead_and_no_more() {
    let (fleet, server) = (Fleet::in_memory(), Server::start().await);
    let bulkhead = bulkhead(2, 0, &fleet);
    let layer = BulkheadLayer::new(bulkhead.clone());
    let mut service = layer.layer(BreakerLayer::new(breaker(&fleet), HttpStatus).layer(client()));
    let mut hanging = Vec::new();
    for _ in 0..2 {
        ready(&mut service).await;
        hanging.push(tokio::spawn(service.call(server.request("/hang"))));
    }
    for _ in 0..3 {
        let error = ask(&mut service, &server, "/").await.expect_err("full");
        assert!(error.downcast_ref::<BulkheadFull>().is_some(), "{error}");
    }
    for call in hanging {
        call.abort();
        drop(call.await);
    }
    assert_eq!(ask(&mut service, &server, "/").await.expect("an answer"), 200);
    assert_eq!(bulkhead.running(), 0);
}

#[tokio::test]
async fn what_was_reserved_is_given_back_and_no_clone_has_it() {
    let (fleet, server) = (Fleet::in_memory(), Server::start().await);
    let bulkhead = bulkhead(1, 1, &fleet);
    let mut one =
        BulkheadLayer::new(bulkhead.clone()).layer(BreakerLayer::new(breaker(&fleet), HttpStatus).layer(client()));
    ready(&mut one).await;
    ready(&mut one).await;
    assert_eq!(bulkhead.running(), 1, "being ready twice takes one place");
    let mut other = one.clone();
    let waiting = tokio::spawn(async move { ask(&mut other, &server, "/").await.expect("an answer") });
    while bulkhead.waiting() == 0 {
        tokio::time::sleep(TICK).await;
    }
    drop(one);
    assert_eq!(timeout(LONG, waiting).await.expect("its turn").expect("no panic"), 200);
    assert_eq!((bulkhead.running(), bulkhead.waiting()), (0, 0));
}

#[tokio::test]
async fn a_probe_that_was_reserved_and_not_made_is_given_back() {
    let (fleet, server) = (Fleet::in_memory(), Server::start().await);
    let breaker = breaker(&fleet);
    let layer = BreakerLayer::new(breaker.clone(), HttpStatus);
    for _ in 0..10 {
        ask(&mut layer.layer(client()), &server, "/500").await.expect("an answer");
    }
    fleet.clock.advance(seconds(30));
    for _ in 0..10 {
        let mut service = layer.layer(client());
        ready(&mut service).await;
        assert_eq!(breaker.verdict().probes.len(), 1);
        drop(service);
        assert_eq!(breaker.verdict().probes.len(), 0);
    }
}
