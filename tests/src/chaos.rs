//! Chaos: processes that work with one server, and both are killed, stopped, paused and cut off while they do.
//!
//! The faults are drawn at random; `S2_SEED` draws those of an earlier run again.

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use s2_coordinator::{Config, Error, EventBus, Random, RedisStore, Start, SwarmId, Topic};
use tokio::task::JoinHandle;

use crate::servers::RedisServer;
use crate::workers::Worker;

/// How often it is looked what has become of things.
pub const TICK: Duration = Duration::from_millis(2);
/// How long the work may stand still once there is no fault any more.
pub const RECOVERY: Duration = Duration::from_secs(60);
/// How long a paused server pauses.
const PAUSE: Duration = Duration::from_millis(500);
/// How many numbers a worker has for what it gives.
const NUMBERS: u64 = 1_000_000;

/// What is done to processes or to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A worker of this role is killed.
    Kill(&'static str),
    /// A worker of this role stands still for a while.
    Stop(&'static str),
    // These need the server.
    /// The server is killed.
    KillServer,
    /// The server stands still for a while.
    StopServer,
    /// The server answers nobody for a while.
    PauseServer,
    /// Every connection is cut.
    CutConnections,
    /// The server forgets its functions.
    ForgetScripts,
}

/// As many of each kind as among twenty faults.
fn deck((giver, taker): (&'static str, &'static str)) -> [Fault; 20] {
    [
        Fault::Kill(giver),
        Fault::Kill(giver),
        Fault::Kill(taker),
        Fault::Kill(taker),
        Fault::Kill(taker),
        Fault::Stop(giver),
        Fault::Stop(taker),
        Fault::Stop(taker),
        Fault::Stop(taker),
        Fault::KillServer,
        Fault::KillServer,
        Fault::KillServer,
        Fault::StopServer,
        Fault::StopServer,
        Fault::StopServer,
        Fault::PauseServer,
        Fault::CutConnections,
        Fault::CutConnections,
        Fault::ForgetScripts,
        Fault::ForgetScripts,
    ]
}

/// A number below `end`.
///
/// # Panics
///
/// When `end` is zero.
pub fn below(random: &mut Random, end: u64) -> u64 {
    u64::try_from(random.bits() % u128::from(end)).expect("less than a u64")
}

/// What `S2_SEED` says, or something new, which is printed.
///
/// # Panics
///
/// When `S2_SEED` is no number.
#[must_use]
pub fn seed() -> u64 {
    let seed = env::var("S2_SEED").map_or_else(
        |_| below(&mut Random::from_system(), u64::MAX),
        |seed| seed.parse().expect("S2_SEED is a number"),
    );
    println!("S2_SEED={seed}");
    seed
}

/// The fleet, as soon as there is a server. A hasty process gives up early: it takes a pause for a lost connection, so that the
/// server has its requests twice, and sees calls fail.
///
/// # Errors
///
/// What connecting fails with, unless the server is away.
pub async fn connect(url: &str, fleet: &SwarmId, config: &Config, hasty: bool) -> Result<RedisStore, Error> {
    let builder = || {
        let builder = RedisStore::builder(fleet.clone()).with_config(config.clone());
        let (soon, later) = (Duration::from_millis(250), Duration::from_secs(2));
        match hasty {
            true => builder.with_response_timeout(soon).with_connection_timeout(soon).with_patience(later),
            false => builder,
        }
    };
    again(|| builder().connect(url)).await
}

/// Whether the server is away.
#[must_use]
pub fn is_away(error: &Error) -> bool {
    matches!(error, Error::Backend { retryable: true, .. })
}

/// Calls until the server is there.
///
/// # Errors
///
/// What the call fails with otherwise.
pub async fn again<T, F: Future<Output = Result<T, Error>>>(call: impl Fn() -> F) -> Result<T, Error> {
    loop {
        match call().await {
            Err(error) if is_away(&error) => tokio::time::sleep(TICK).await,
            other => break other,
        }
    }
}

/// A number that a worker was given.
///
/// # Errors
///
/// When there is none.
pub fn given(name: &str) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    Ok(env::var(name)?.parse()?)
}

/// Ends when the judge has said so many times that it is enough, by events of this topic.
///
/// # Errors
///
/// What tailing the topic fails with, unless the server is away.
pub async fn enough(store: &RedisStore, topic: &Topic, times: usize) -> Result<JoinHandle<Result<(), Error>>, Error> {
    let bus = store.bus();
    let mut tail = again(|| bus.tail(topic, Start::Beginning)).await?;
    Ok(tokio::spawn(async move {
        for _ in 0..times {
            tail.next().await?;
        }
        Ok(())
    }))
}

fn millis(random: &mut Random, range: Range<u64>) -> Duration {
    Duration::from_millis(range.start + below(random, range.end - range.start))
}

/// A process, and until when it stands still.
#[derive(Debug)]
struct Slot {
    role: &'static str,
    worker: Worker,
    stopped: Option<Instant>,
}

/// Where the server is while it is not there.
#[derive(Clone, Copy, Debug)]
struct Outage {
    fault: Fault,
    until: Instant,
}

/// What came of the faults of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// How many there were.
    pub faults: u32,
    /// The longest time from the end of a fault until something was done, unless an outage came in between.
    pub recovery: Option<Duration>,
}

/// Processes and their server, and what becomes of them.
#[derive(Debug)]
pub struct Chaos<'a> {
    server: &'a RedisServer,
    roles: (&'static str, &'static str),
    random: Random,
    workers: Vec<Slot>,
    outage: Option<Outage>,
    next_number: u64,
    /// What was acknowledged to workers.
    pub acked: Vec<Range<u64>>,
    /// How often workers said what.
    pub said: BTreeMap<String, u64>,
    /// The faults so far.
    pub tallies: BTreeMap<Fault, Tally>,
    /// Faults after which nothing was done so far, and when each of them ended.
    recovering: Vec<(Fault, Instant)>,
    last: Option<Fault>,
}

impl<'a> Chaos<'a> {
    /// Starts so many workers of two roles: one gives work, the other takes it. What a worker says is counted, `done` means
    /// that work was done; `acked <first> <end>` are numbers that were acknowledged to it, and `broken` must not be.
    #[must_use]
    pub fn new(server: &'a RedisServer, seed: u64, giver: (&'static str, usize), taker: (&'static str, usize)) -> Self {
        let mut chaos = Self {
            server,
            roles: (giver.0, taker.0),
            random: Random::from_seed(seed),
            workers: Vec::new(),
            outage: None,
            next_number: 0,
            acked: Vec::new(),
            said: BTreeMap::new(),
            tallies: BTreeMap::new(),
            recovering: Vec::new(),
            last: None,
        };
        for (role, count) in [giver, taker] {
            for _ in 0..count {
                let worker = chaos.spawn(role);
                chaos.workers.push(Slot { role, worker, stopped: None });
            }
        }
        chaos
    }

    fn spawn(&mut self, role: &str) -> Worker {
        let (first, seed) = (self.next_number, below(&mut self.random, u64::MAX));
        self.next_number += NUMBERS;
        let (first, seed) = (first.to_string(), seed.to_string());
        Worker::spawn(role, &[("URL", self.server.url()), ("FIRST", first), ("SEED", seed)])
    }

    /// So many faults, at any time: during an outage, too.
    ///
    /// # Panics
    ///
    /// When nothing is done for [`RECOVERY`], or a worker is broken.
    pub fn rage(&mut self, faults: u32) {
        let mut deck: Vec<Fault> = deck(self.roles).into_iter().cycle().take(faults as usize).collect();
        deck.sort_by_cached_key(|_| self.random.bits());
        self.until_something_is_done();
        for fault in deck {
            self.strike(fault);
            let pause = Instant::now() + millis(&mut self.random, 20..200);
            self.until("time passes", |_| Instant::now() >= pause);
            if below(&mut self.random, 2) == 0 {
                self.until_something_is_done();
            }
        }
        self.until("the server is back", |chaos| chaos.outage.is_none());
        self.workers.iter_mut().for_each(Slot::resume);
        self.until_something_is_done();
    }

    fn strike(&mut self, fault: Fault) {
        if fault >= Fault::KillServer {
            self.until("the server is back", |chaos| chaos.outage.is_none());
        }
        self.look();
        let struck = Instant::now();
        let (random, server) = (&mut self.random, self.server);
        match fault {
            Fault::Kill(role) => self.kill(role),
            Fault::Stop(role) => self.stop(role),
            Fault::KillServer | Fault::StopServer => {
                let killed = fault == Fault::KillServer;
                let outage = if killed { millis(random, 0..1_000) } else { millis(random, 100..3_000) };
                if killed {
                    server.kill();
                } else {
                    server.stop();
                }
                self.outage = Some(Outage { fault, until: Instant::now() + outage });
            }
            Fault::PauseServer | Fault::CutConnections | Fault::ForgetScripts => annoy(server, fault),
        }
        self.last = Some(fault);
        self.tallies.entry(fault).or_default().faults += 1;
        let ended = struck + if fault == Fault::PauseServer { PAUSE } else { Duration::ZERO };
        match self.outage {
            // What comes with an outage is not told apart from it.
            Some(_) => self.recovering.clear(),
            None => self.recovering.push((fault, ended)),
        }
    }

    /// One of those of a role that are allowed.
    fn pick(&mut self, role: &str, allowed: impl Fn(&Slot) -> bool) -> usize {
        let those = |(_, slot): &(usize, &Slot)| slot.role == role && allowed(slot);
        let those: Vec<usize> = self.workers.iter().enumerate().filter(those).map(|(nth, _)| nth).collect();
        let nth = below(&mut self.random, those.len() as u64);
        those[usize::try_from(nth).expect("a small number")]
    }

    fn kill(&mut self, role: &'static str) {
        let nth = self.pick(role, |_| true);
        self.workers[nth].worker.kill();
        self.listen(nth, RECOVERY);
        let worker = self.spawn(role);
        self.workers[nth] = Slot { role, worker, stopped: None };
    }

    /// Stops one, but never the last one of its role.
    fn stop(&mut self, role: &str) {
        let stop = Instant::now() + millis(&mut self.random, 100..3_000);
        let nth = self.pick(role, |slot| slot.stopped.is_none());
        if self.workers.iter().filter(|slot| slot.role == role && slot.stopped.is_none()).count() == 1 {
            self.workers.iter_mut().filter(|slot| slot.role == role).for_each(Slot::resume);
        }
        self.workers[nth].worker.stop();
        self.workers[nth].stopped = Some(stop);
    }

    /// Waits until something is done.
    ///
    /// # Panics
    ///
    /// When nothing is done for [`RECOVERY`], or a worker is broken.
    pub fn until_something_is_done(&mut self) {
        let before = self.done();
        self.until("something is done", |chaos| chaos.outage.is_none() && chaos.done() > before);
    }

    /// How much was done.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.said.get("done").copied().unwrap_or(0)
    }

    /// Goes on with what is due until something is so.
    ///
    /// # Panics
    ///
    /// When nothing is done for [`RECOVERY`], or a worker is broken.
    pub fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + RECOVERY;
        loop {
            self.look();
            if so(self) {
                return;
            }
            assert!(Instant::now() < deadline, "{RECOVERY:?} after {:?}: it is not so that {what}", self.last);
            thread::sleep(TICK);
        }
    }

    /// Hears what workers say, and ends what is to end.
    fn look(&mut self) {
        let before = self.done();
        for nth in 0..self.workers.len() {
            self.listen(nth, Duration::ZERO);
            let slot = &mut self.workers[nth];
            if slot.stopped.is_some_and(|until| until <= Instant::now()) {
                slot.resume();
            }
        }
        let now = Instant::now();
        if self.done() > before {
            for (fault, ended) in self.recovering.extract_if(.., |(_, ended)| *ended <= now) {
                let recovery = &mut self.tallies.entry(fault).or_default().recovery;
                *recovery = (*recovery).max(Some(now.duration_since(ended)));
            }
        }
        if let Some(Outage { fault, .. }) = self.outage.take_if(|outage| outage.until <= now) {
            if fault == Fault::KillServer {
                self.server.restart();
            } else {
                self.server.resume();
            }
            self.recovering.push((fault, now));
        }
    }

    /// Hears what one worker says until it is silent for so long.
    fn listen(&mut self, nth: usize, silence: Duration) {
        while let Some(line) = self.workers[nth].worker.line(silence) {
            assert!(!line.starts_with("broken"), "{} {nth} is {line}", self.workers[nth].role);
            if let Some(batch) = line.strip_prefix("acked ") {
                let (first, end) = batch.split_once(' ').expect("two numbers");
                self.acked.push(first.parse().expect("a number")..end.parse().expect("a number"));
            } else {
                *self.said.entry(line).or_default() += 1;
            }
        }
    }

    /// Waits until all workers of a role have ended, and hears their last words.
    ///
    /// # Panics
    ///
    /// When nothing is done for [`RECOVERY`], or a worker is broken.
    pub fn end(&mut self, role: &str) {
        for nth in 0..self.workers.len() {
            if self.workers[nth].role == role {
                assert!(self.workers[nth].worker.wait(RECOVERY), "{role} {nth} has not ended well");
                self.listen(nth, RECOVERY);
            }
        }
    }
}

/// What a server is asked to do to its clients.
fn annoy(server: &RedisServer, fault: Fault) {
    match fault {
        Fault::PauseServer => server.pause(u64::try_from(PAUSE.as_millis()).expect("a small number")),
        Fault::ForgetScripts => {
            assert_eq!(server.command(&["FUNCTION", "FLUSH"]), "OK");
            assert_eq!(server.command(&["SCRIPT", "FLUSH"]), "OK");
        }
        _ => {
            // A connection that listens is not of the normal type any more.
            for kind in ["normal", "pubsub"] {
                let killed = server.command(&["CLIENT", "KILL", "TYPE", kind]);
                assert!(killed.parse::<u32>().is_ok(), "{killed}");
            }
        }
    }
}

impl Slot {
    fn resume(&mut self) {
        if self.stopped.take().is_some() {
            self.worker.resume();
        }
    }
}
