//! One call to a model: the cheapest that will do, paid for before it is made, behind bulkhead and breaker.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use s2_coordinator::{Clock, ManualClock, Text};
use s2_governor::{
    BreakerLayer, BreakerOpen, BreakerService, BudgetLedger, BulkheadFull, BulkheadLayer, BulkheadService, Choice,
    Denied, HttpStatus, NanoUsd, Provider, Quality, Reservation, Route, RouteRequest, Savings,
};
use tower_layer::Layer;
use tower_service::Service;

use crate::purse::Purse;
use crate::wire::{Answer, Message, Question};

/// What every question begins with, so that the provider may cache it.
const RULES: &str = "You review one change of a telephone switch. Say first what it does, then what it breaks, and then what \
                     is missing. Name files and lines. Say nothing about style, and say so if there is nothing to say.";
const MOST_OUTPUT: u64 = 100;
/// After so long nobody waits for an answer any more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Stack = BulkheadService<BreakerService<Client<HttpConnector, String>, HttpStatus>>;

/// Something to ask, and how good the answer should and must be.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) wanted: Quality,
    pub(crate) floor: Quality,
}

/// What became of a call.
#[derive(Debug)]
pub(crate) enum Called {
    /// There is an answer, of this model, for so much.
    Answered { model: Text, cost: NanoUsd, savings: Savings },
    /// The provider was asked, and this is all that it said.
    Failed(StatusCode),
    /// Nobody has waited for the answer. What it costs is not known, so the money stays held.
    GivenUp(Reservation),
    /// The provider was not asked, and nothing was spent.
    NotAsked(NotAsked),
}

/// Why a provider was not asked.
#[derive(Debug)]
pub(crate) enum NotAsked {
    BreakerOpen(BreakerOpen),
    BulkheadFull(BulkheadFull),
    Denied(Denied),
    /// No model that is good enough can be paid from this.
    Unaffordable(NanoUsd),
}

/// A client of this provider, behind its bulkhead and breaker.
pub(crate) fn stack(provider: &Provider) -> Stack {
    let client = Client::builder(TokioExecutor::new()).build_http();
    // The bulkhead is outside: who has waited for a turn asks then whether the provider is there.
    let guarded = BreakerLayer::new(provider.breaker().clone(), HttpStatus).layer(client);
    BulkheadLayer::new(provider.bulkhead().clone()).layer(guarded)
}

/// A session that asks. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) purse: Purse,
    pub(crate) stack: Stack,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) address: SocketAddr,
}

impl Caller {
    /// Asks a model: chooses it, reserves the most that it may cost, calls, and settles what it did cost.
    pub(crate) async fn call(&mut self, job: &Job) -> Result<Called, BoxError> {
        let choice = match self.purse.choose(request(job)).await? {
            Route::Chosen(choice) => choice,
            Route::Unaffordable { available, .. } => return Ok(Called::NotAsked(NotAsked::Unaffordable(available))),
            Route::Unsuitable => return Err(format!("no model is good enough for {}", job.id).into()),
        };
        let held = match self.purse.hold(&choice).await? {
            Ok(held) => held,
            Err(denied) => return Ok(Called::NotAsked(NotAsked::Denied(denied))),
        };
        let until = self.clock.now() + PATIENCE;
        let answer = tokio::select! {
            answer = ask(&mut self.stack, self.address, job, &choice) => answer,
            () = self.clock.sleep_until(until) => return Ok(Called::GivenUp(held)),
        };
        match answer {
            Ok(response) if response.status() == StatusCode::OK => {
                let answer: Answer = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
                let (cost, savings) = self.purse.settle(&held, &choice, &answer.usage.into()).await?;
                Ok(Called::Answered { model: choice.model, cost, savings })
            }
            // The provider bills answers only.
            Ok(response) => {
                self.purse.ledger.release(&held).await?;
                Ok(Called::Failed(response.status()))
            }
            Err(error) => {
                self.purse.ledger.release(&held).await?;
                Ok(Called::NotAsked(refused(error)?))
            }
        }
    }
}

fn request(job: &Job) -> RouteRequest {
    // Nobody makes more tokens than bytes.
    let most_input = (RULES.len() + job.text.len()) as u64;
    RouteRequest::new(job.wanted, most_input, MOST_OUTPUT).with_floor(job.floor)
}

/// Makes the call, unless it is refused on the way.
async fn ask(stack: &mut Stack, to: SocketAddr, job: &Job, choice: &Choice) -> Result<Response<Incoming>, BoxError> {
    let question = Question {
        model: choice.model.to_string(),
        messages: vec![Message::new("system", RULES), Message::new("user", &*job.text)],
        max_completion_tokens: MOST_OUTPUT,
        user: job.id.clone(),
    };
    let request = Request::post(format!("http://{to}/v1/chat/completions")).body(serde_json::to_string(&question)?)?;
    poll_fn(|cx| stack.poll_ready(cx)).await?;
    stack.call(request).await
}

/// Who has refused the call; anything else is an error.
fn refused(error: BoxError) -> Result<NotAsked, BoxError> {
    let error = match error.downcast::<BreakerOpen>() {
        Ok(open) => return Ok(NotAsked::BreakerOpen(*open)),
        Err(error) => error,
    };
    error.downcast::<BulkheadFull>().map(|full| NotAsked::BulkheadFull(*full))
}
