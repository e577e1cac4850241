//! One fleet on a Redis server, as one process sees it.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Arg, Cmd};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::Config;
use crate::error::Error;
use crate::random::Random;
use crate::redis::failure::Failure;
use crate::redis::link::{Link, Pushing};
use crate::redis::passes::Passes;
use crate::redis::post::Post;
use crate::redis::reply::Reply;
use crate::redis::script::Script;
use crate::redis::scripts::{BEAT, TASKS_TOGETHER};
use crate::redis::together::{FEW, Group, PATIENCE, Together, Told, Turn};
use crate::redis::waiting::WaitingClaims;
use crate::release::Release;
use crate::time::Timestamp;

/// A process gives a sign of life at least that often.
const LONGEST_BEAT: Duration = Duration::from_secs(15);

/// How long to wait after a call has failed that a wait may repeat.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// The layout of the keys.
pub(super) const LAYOUT: &str = "1";

/// How often a script may ask to be called again before something must be wrong.
const MOST_CALLS: usize = 100_000;

pub(super) struct Shared {
    pub(super) link: Link,
    pub(super) post: Arc<Post>,
    pub(super) config: Config,
    pub(super) clock: Option<Arc<dyn Clock>>,
    /// Which handles of this process wait in which groups.
    pub(super) members: Mutex<HashMap<u64, Arc<Membership>>>,
    /// The sessions that entered here and have not left.
    pub(super) sessions: Mutex<HashSet<u64>>,
    pub(super) claims: Mutex<WaitingClaims>,
    /// Told whenever a withdrawal of one of them is known to the fleet.
    pub(super) withdrawn: Notify,
    /// Who gives way when tasks wait for each other.
    pub(super) release: Arc<dyn Release>,
    /// What this process does about it.
    pub(super) passes: Passes,
    together: Arc<Together>,
    /// Where the keeper runs.
    pub(super) runtime: Mutex<Option<Handle>>,
    /// When something is due next, as far as this process knows, by the clock of the fleet.
    pub(super) due: Mutex<Timestamp>,
    pub(super) rearm: Arc<Notify>,
    /// How often this process gives a sign of life.
    pub(super) beat_every: Duration,
    /// The clock of the fleet, as read at some instant.
    pub(super) read: Mutex<Option<(Instant, Timestamp)>>,
    /// Whether the keeper runs.
    pub(super) keeps: AtomicBool,
    /// What other parts of S² know of this fleet in this process, one of each type.
    parts: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    fleet: String,
    prefix: String,
    process: String,
    settings: String,
    random: Mutex<Random>,
    numbers: AtomicU64,
    lanes: Mutex<Vec<u32>>,
    last_lane: AtomicU64,
}

/// What a builder has settled.
pub(super) struct Beginnings {
    pub(super) config: Config,
    pub(super) clock: Option<Arc<dyn Clock>>,
    pub(super) random: Random,
    pub(super) release: Arc<dyn Release>,
    pub(super) prefix: String,
    pub(super) process: String,
    pub(super) settings: String,
    pub(super) gone_after: Duration,
}

/// What the keeper watches over: one consumer.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) incarnation: AtomicU64,
    pub(super) consumer: AtomicU64,
    /// The ticket under which it waits, or zero.
    pub(super) waits: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("fleet", &self.fleet).field("process", &self.process).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.rearm.notify_one();
    }
}

/// A fleet on a Redis server. Clones are the same process of the same fleet.
///
/// Everything lies under keys that begin with `s2:{fleet}:`, in one slot, so that it runs on a cluster, too. Every mutation
/// is one script and so one atomic step. A call whose reply is lost is repeated under its number and gets the first answer;
/// so a call fails with [`Error::Backend`] only when the server stays away for longer than patience lasts, and waits do
/// not fail at all.
///
/// ```no_run
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// use s2_coordinator::{RedisStore, SwarmId};
///
/// let store = RedisStore::connect("redis://127.0.0.1", SwarmId::new("telephony")?).await?;
/// let bus = store.bus();
/// # let _ = bus;
/// # Ok(()) }
/// ```
///
/// The server must be version 7.0 or newer, with the policy `noeviction`. What it promises to keep, S² keeps: with
/// `appendfsync always` everything that was answered; with `everysec`, a server that is killed may forget the last second,
/// answers included. After a crash the append-only file must be mended before the server starts
/// (`redis-check-aof --fix`, and `aof-load-truncated no`), else Redis 7.0 may lose what it answers later: see
/// `docs/decisions/0010-mend-the-append-only-file.md`.
#[derive(Clone, Debug)]
pub struct RedisStore {
    pub(super) shared: Arc<Shared>,
}

impl RedisStore {
    /// The settings of this process.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Runs a host's own script as one step of the fleet. Keys are given the prefix of the fleet. The call may be repeated
    /// after a lost reply: it happens once.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] when the server stays away or the script fails.
    ///
    /// # Cancel safety
    ///
    /// It may or may not have happened.
    pub async fn call(&self, script: &'static Script, keys: &[&str], args: &[&[u8]]) -> Result<Reply, Error> {
        let lane = (!script.is_repeatable()).then(|| Lane::take(&self.shared));
        let mut call = self.shared.begin(script, keys, lane);
        args.iter().for_each(|arg| call.arg(*arg));
        call.answer().await
    }

    /// What another part of S² knows of this fleet in this process: one value of each type, in the beginning its default.
    #[must_use]
    pub fn part<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let mut parts = self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let part = parts.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default()));
        Arc::downcast(Arc::clone(part)).unwrap_or_default()
    }

    pub(super) fn random(&self) -> MutexGuard<'_, Random> {
        self.shared.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that this process has not used.
    pub(super) fn number(&self) -> u64 {
        self.shared.number()
    }

    /// A call that may be repeated as it is.
    pub(super) fn call_again(&self, script: &'static Script) -> Call<'_> {
        self.shared.call_again(script)
    }

    /// A call that must not happen twice.
    pub(super) fn call_once(&self, script: &'static Script) -> Call<'_> {
        self.shared.begin(script, &[], Some(Lane::take(&self.shared)))
    }

    /// Runs a call about tasks. Its answer says when something is due next, and whether tasks may wait for each other: this
    /// process sees to it.
    pub(super) async fn task_call(&self, call: Call<'_>) -> Result<Reply, Error> {
        self.heed(call.answer().await?).await
    }

    /// The same for a call that may be repeated and, unless it is about too many tasks, share a step with others. It will read
    /// these fields.
    pub(super) async fn task_call_together(
        &self,
        call: Call<'_>,
        tasks: usize,
        fields: impl FnOnce() -> Vec<String>,
    ) -> Result<Reply, Error> {
        if tasks > FEW {
            return self.task_call(call).await;
        }
        let answer = match self.shared.together.turn(call.script.name(), call.args(), fields) {
            Turn::Go(_place) => call.answer().await?,
            Turn::Wait(wait) => match self.wait_together(wait).await {
                Some(answer) => answer,
                None => call.answer().await?,
            },
        };
        self.heed(answer).await
    }

    async fn heed(&self, answer: Reply) -> Result<Reply, Error> {
        match answer.get(3).and_then(Reply::as_u64) {
            None | Some(0) => {}
            // Another call has seen it first, and waits for it.
            Some(1) => drop(self.shared.open_rings()),
            Some(_) => self.shared.open_rings().ended().await,
        }
        if let (Some("ok" | "waits"), Some(due)) =
            (answer.get(0).and_then(Reply::as_str), answer.get(2).and_then(Reply::as_u64))
        {
            self.arm(Timestamp::from_micros(due));
        }
        Ok(answer)
    }

    /// What was answered to a call that has waited for its turn; nothing if it is to go by itself.
    async fn wait_together(&self, wait: oneshot::Receiver<Told>) -> Option<Reply> {
        let told = tokio::time::timeout(PATIENCE, wait).await;
        match told.ok()?.ok()? {
            Told::Answer(answer) => Some(answer),
            Told::Lead(group) => self.lead(group).await,
        }
    }

    /// Sends calls that go together, once. Answers with what was answered to the first.
    async fn lead(&self, mut group: Group) -> Option<Reply> {
        let said = self.shared.link.run_once(|| {
            let requests = group.requests();
            let mut call = self.call_again(TASKS_TOGETHER);
            call.number(requests.iter().map(|request| request.fields.len()).sum::<usize>());
            requests.iter().flat_map(|request| &request.fields).for_each(|field| call.arg(field));
            call.number(requests.len());
            for request in requests {
                call.arg(request.verb);
                call.number(request.args.len());
                request.args.iter().for_each(|arg| call.arg(arg));
            }
            Pushing::new(call.command, true)
        });
        let Some(Reply::List(said)) = said.await else { return None };
        let Some(Reply::List(answers)) = said.into_iter().nth(1) else { return None };
        let is_again = |answer: &Reply| answer.get(0).and_then(Reply::as_str) == Some("again");
        group.answer(answers.into_iter().map(|answer| Some(answer).filter(|answer| !is_again(answer))))
    }

    /// Does something that nobody waits for.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.shared.spawn(work);
    }

    /// Something is due at `at`: this process sees to it.
    pub(super) fn arm(&self, at: Timestamp) {
        self.shared.arm(at);
    }
}

impl Shared {
    pub(super) fn new(fleet: String, start: Beginnings, link: Link, post: Arc<Post>) -> Self {
        let Beginnings { config, clock, random, release, prefix, process, settings, gone_after } = start;
        Self {
            link,
            post,
            config,
            clock,
            members: Mutex::default(),
            sessions: Mutex::default(),
            claims: Mutex::default(),
            withdrawn: Notify::new(),
            release,
            passes: Passes::default(),
            together: Arc::default(),
            runtime: Mutex::default(),
            due: Mutex::new(Timestamp::MAX),
            rearm: Arc::new(Notify::new()),
            beat_every: LONGEST_BEAT.min(gone_after / 2),
            read: Mutex::default(),
            keeps: AtomicBool::new(false),
            parts: Mutex::default(),
            fleet,
            prefix,
            process,
            settings,
            random: Mutex::new(random),
            numbers: AtomicU64::new(0),
            lanes: Mutex::default(),
            last_lane: AtomicU64::new(0),
        }
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn call_again(&self, script: &'static Script) -> Call<'_> {
        self.begin(script, &[], None)
    }

    fn begin<'a>(&'a self, script: &'static Script, keys: &[&str], lane: Option<Lane<'a>>) -> Call<'a> {
        let mut command = self.link.call(script);
        command.arg(keys.len() + 1).arg(&self.prefix);
        for key in keys {
            command.arg(format!("{}{key}", self.prefix));
        }
        let now = self.clock.as_ref().map(|clock| clock.now().as_micros().to_string()).unwrap_or_default();
        let request = lane.as_ref().map(|lane| format!("{} {}", lane.number, self.number())).unwrap_or_default();
        let channel = format!("{}:{}", self.process, self.link.generation());
        command.arg(channel).arg(now).arg(request).arg(&self.settings);
        let before = command.args_iter().len();
        Call { shared: self, script, command, before, _lane: lane }
    }

    /// How many of these keys there are.
    pub(super) async fn count(&self, keys: &[String]) -> Option<usize> {
        let mut exists = redis::cmd("EXISTS");
        for key in keys {
            exists.arg(format!("{}{key}", self.prefix));
        }
        usize::try_from(self.link.ask(&exists).await?.as_int()?).ok()
    }

    /// Does something apart from who asks for it: here, or where the keeper runs.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let keeper = || self.runtime.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(runtime) = Handle::try_current().ok().or_else(keeper) {
            runtime.spawn(work);
        }
    }

    pub(super) fn arm(&self, at: Timestamp) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if at < *due {
            *due = at;
            self.rearm.notify_one();
        }
    }
}

/// One call of a script in the making.
pub(super) struct Call<'a> {
    shared: &'a Shared,
    script: &'static Script,
    command: Cmd,
    /// How many arguments come before those of the verb.
    before: usize,
    /// Held until there is an answer.
    _lane: Option<Lane<'a>>,
}

impl Call<'_> {
    /// Adds an argument.
    pub(super) fn arg(&mut self, arg: impl AsRef<[u8]>) {
        self.command.arg(arg.as_ref());
    }

    /// The arguments of the verb.
    fn args(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let bytes = |arg| if let Arg::Simple(bytes) = arg { Some(bytes) } else { None };
        self.command.args_iter().skip(self.before).filter_map(bytes)
    }

    /// Adds a number.
    pub(super) fn number(&mut self, number: impl fmt::Display) {
        self.command.arg(number.to_string());
    }

    /// Adds a number below 2^32 for jitter.
    pub(super) fn random(&mut self) {
        let random = self.shared.random.lock().unwrap_or_else(PoisonError::into_inner).bits() as u32;
        self.number(random);
    }

    /// Runs it until everything that was due is done, and answers with what the verb said.
    pub(super) async fn answer(self) -> Result<Reply, Error> {
        let Self { shared, script, command, _lane, .. } = self;
        // A sign of life says nothing to others; what a host's step says may come a little later.
        let call = Pushing::new(command, script.is_own() && !std::ptr::eq(script, BEAT));
        for _ in 0..MOST_CALLS {
            let reply = shared.link.run(script, &call).await?;
            match reply.get(0).and_then(Reply::as_str) {
                Some("again") => {}
                Some("layout") => {
                    let found = reply.get(1).and_then(Reply::as_str).unwrap_or_default().to_owned();
                    return Err(Error::LayoutMismatch { found, expected: LAYOUT });
                }
                _ => return Ok(reply),
            }
        }
        Err(Failure::Unexpected { script: script.name(), answer: "again, and again".to_owned() }.into())
    }

    /// The error that says the answer makes no sense.
    pub(super) fn unexpected(script: &'static Script, answer: &Reply) -> Error {
        let answer: String = format!("{answer:?}").chars().take(200).collect();
        Failure::Unexpected { script: script.name(), answer }.into()
    }
}

/// A place for the answer to one request at a time: so a process leaves no more answers behind than it had requests at once.
struct Lane<'a> {
    shared: &'a Shared,
    number: u32,
}

impl<'a> Lane<'a> {
    fn take(shared: &'a Shared) -> Self {
        let free = shared.lanes.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let another = || u32::try_from(shared.last_lane.fetch_add(1, Ordering::Relaxed)).unwrap_or(u32::MAX);
        Self { shared, number: free.unwrap_or_else(another) }
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.shared.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}
