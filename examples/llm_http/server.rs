//! A provider of models on a port of this machine. It counts tokens, limits how often it may be asked, keeps a cache, and
//! writes its own bill. What it answers is the question backwards.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s2_coordinator::{Clock, ManualClock, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::wire::{Answer, Choice, Message, PromptTokens, Question, Tokens};

/// How often it may be asked in a minute.
pub(crate) const A_MINUTE: u32 = 30;
/// What a token costs, in billionths of a dollar: read, read from the cache, written.
const RATES: [(&str, [u64; 3]); 2] = [("small", [250, 30, 1_250]), ("large", [3_000, 300, 15_000])];

/// How it does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mood {
    Well,
    Down,
    Slow(Duration),
}

/// What it knows.
#[derive(Debug)]
struct Desk {
    mood: Mood,
    /// The minute that began then, and how often it was asked in it.
    minute: (Timestamp, u32),
    /// Beginnings of questions, by model.
    cached: HashSet<(String, String)>,
    /// Who owes how much, in billionths of a dollar.
    bill: BTreeMap<String, u64>,
}

/// Clones are the same provider.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    clock: Arc<ManualClock>,
    desk: Arc<Mutex<Desk>>,
    asked: watch::Sender<u32>,
}

impl Server {
    pub(crate) async fn start(clock: Arc<ManualClock>) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let minute = (clock.now(), 0);
        let desk = Desk { mood: Mood::Well, minute, cached: HashSet::new(), bill: BTreeMap::new() };
        let (desk, asked) = (Arc::new(Mutex::new(desk)), watch::Sender::new(0));
        let server = Self { address: listener.local_addr()?, clock, desk, asked };
        tokio::spawn(server.clone().serve(listener));
        Ok(server)
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let server = self.clone();
            let service = service_fn(move |request| server.clone().answer(request));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.desk().mood = mood;
    }

    /// Waits until it was asked so many times.
    pub(crate) async fn asked(&self, times: u32) {
        // It keeps the sender itself.
        let _ = self.asked.subscribe().wait_for(|asked| *asked >= times).await;
    }

    pub(crate) fn times_asked(&self) -> u32 {
        *self.asked.borrow()
    }

    /// What it has billed to somebody.
    pub(crate) fn owes(&self, user: &str) -> u64 {
        self.desk().bill.get(user).copied().unwrap_or_default()
    }

    /// What it has billed in all.
    pub(crate) fn bill(&self) -> u64 {
        self.desk().bill.values().sum()
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<String>, Infallible> {
        let question = match request.into_body().collect().await {
            Ok(body) => serde_json::from_slice(&body.to_bytes()),
            Err(_) => return Ok(response(StatusCode::BAD_REQUEST, String::new())),
        };
        let now = self.clock.now();
        let (said, mood) = match question {
            Ok(question) => self.desk().decide(&question, now),
            Err(error) => (response(StatusCode::BAD_REQUEST, error.to_string()), Mood::Well),
        };
        self.asked.send_modify(|asked| *asked += 1);
        if let Mood::Slow(time) = mood {
            self.clock.sleep_until(now + time).await;
        }
        Ok(said)
    }
}

fn response(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// Tokens of a text: one for four bytes that have begun.
fn tokens(text: &str) -> u64 {
    text.len().div_ceil(4) as u64
}

impl Desk {
    /// What it answers. It bills what it answers well, whether or not anybody waits for it.
    fn decide(&mut self, question: &Question, now: Timestamp) -> (Response<String>, Mood) {
        if matches!(self.mood, Mood::Down) {
            return (response(StatusCode::INTERNAL_SERVER_ERROR, String::new()), self.mood);
        }
        if let Some(wait) = self.must_wait(now) {
            let mut refusal = response(StatusCode::TOO_MANY_REQUESTS, String::new());
            refusal.headers_mut().insert(http::header::RETRY_AFTER, wait.into());
            return (refusal, Mood::Well);
        }
        let Some((_, rates)) = RATES.iter().find(|(model, _)| *model == question.model) else {
            return (response(StatusCode::NOT_FOUND, String::new()), Mood::Well);
        };
        let (text, usage) = self.generate(question);
        let cached = usage.prompt_tokens_details.cached_tokens;
        let [read, from_cache, written] = rates;
        let owed = (usage.prompt_tokens - cached) * read + cached * from_cache + usage.completion_tokens * written;
        *self.bill.entry(question.user.clone()).or_default() += owed;
        let choice = Choice { message: Message::new("assistant", text), finish_reason: "stop".to_owned() };
        let answer = serde_json::json!(Answer { choices: vec![choice], usage });
        (response(StatusCode::OK, answer.to_string()), self.mood)
    }

    /// For how many seconds nobody may ask, if that is so.
    fn must_wait(&mut self, now: Timestamp) -> Option<u64> {
        let (began, asked) = &mut self.minute;
        if now.since(*began) >= Duration::from_secs(60) {
            (*began, *asked) = (now, 0);
        }
        *asked += 1;
        (*asked > A_MINUTE).then(|| 60 - now.since(*began).as_secs())
    }

    /// The words of the last message backwards, as many as may be, and the tokens that this takes. A first message that this
    /// model has seen before comes from the cache.
    fn generate(&mut self, question: &Question) -> (String, Tokens) {
        let contents = || question.messages.iter().map(|message| message.content.as_str());
        let last = contents().next_back().unwrap_or_default();
        let mut text = last.split_whitespace().rev().collect::<Vec<_>>().join(" ");
        text.truncate(text.floor_char_boundary(question.max_completion_tokens as usize * 4));
        let first = contents().next().unwrap_or_default();
        let is_new = self.cached.insert((question.model.clone(), first.to_owned()));
        let cached_tokens = if is_new { 0 } else { tokens(first) };
        let usage = Tokens {
            prompt_tokens: contents().map(tokens).sum(),
            completion_tokens: tokens(&text),
            prompt_tokens_details: PromptTokens { cached_tokens },
        };
        (text, usage)
    }
}
