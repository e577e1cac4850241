//! The facade: sessions that claim, spend, wait for people and leave, in memory and on Redis, alone and in several processes.

mod budget;
mod deadlock;
mod idle;
mod people;
mod providers;
mod scale;
mod sessions;
mod settings;
mod shutdown;
mod spending;
mod stealing;
mod why;

use std::sync::Arc;
use std::time::{Duration, Instant};

use s2_coordinator::{
    Config, ManualClock, MemoryStore, NewTask, Outcome, RedisStore, SchedulerExt, SwarmId, TaskId, TaskKind, TaskState,
};
use s2_core::{S2, Settings};
use s2_governor::{Balance, BudgetLedgerExt, NanoUsd, ProviderName, ProviderSettings};
use s2_tests::START;
use s2_tests::redis::unique_name;
use s2_tests::servers::RedisServer;

const HOST: SwarmId = SwarmId::from_static("host");
const WORK: TaskKind = TaskKind::from_static("work");
const LONG: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(2);
const GRACE: Duration = Duration::from_secs(5);

/// Makes two tests of each story: in memory, and on Redis.
macro_rules! on_both {
    ($($story:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story($crate::On::Memory).await;
            })*
        }

        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story($crate::On::Redis).await;
            })*
        }
    };
}
pub(crate) use on_both;

/// Where a fleet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    Memory,
    Redis,
}

#[derive(Debug)]
enum Store {
    Memory(MemoryStore),
    Redis(RedisStore),
}

/// A fleet, and what it is made of.
#[derive(Debug)]
struct Fleet {
    s2: S2,
    store: Store,
    clock: Option<Arc<ManualClock>>,
    settings: Settings,
    // It goes last.
    server: Option<RedisServer>,
}

/// A configuration whose retries come soon.
fn quick() -> Config {
    let mut config = Config::default();
    config.backoff.base = Duration::from_millis(10);
    config
}

fn settings(yaml: &str) -> Settings {
    let mut settings = Settings::default();
    settings.providers.insert(ProviderName::from_static("models"), ProviderSettings::default());
    if yaml.is_empty() { settings } else { serde_saphyr::from_str(yaml).expect("settings") }
}

impl On {
    /// A fleet with the provider `models`, on the system's clock, whose retries come soon.
    async fn fleet(self) -> Fleet {
        self.with(quick(), settings(""), false).await
    }

    /// A fleet whose clock stands still until it is moved. Leases are long, so that a moved clock ends none.
    async fn still(self) -> Fleet {
        self.with(patient(), settings(""), true).await
    }

    async fn with(self, config: Config, settings: Settings, still: bool) -> Fleet {
        let clock = still.then(|| Arc::new(ManualClock::new(START)));
        let server = (self == Self::Redis).then(RedisServer::start_volatile);
        let store = match &server {
            None => {
                let builder = MemoryStore::builder().with_config(config);
                let builder = match &clock {
                    Some(clock) => builder.with_clock(Arc::clone(clock)),
                    None => builder,
                };
                Store::Memory(builder.build().expect("a configuration"))
            }
            Some(server) => {
                let builder = RedisStore::builder(unique_name()).with_config(config);
                let builder = match &clock {
                    Some(clock) => builder.with_clock(Arc::clone(clock)),
                    None => builder,
                };
                Store::Redis(builder.connect(&server.url()).await.expect("a fleet"))
            }
        };
        let s2 = build(&store, &settings).await;
        Fleet { s2, store, clock, settings, server }
    }
}

/// A configuration of which only what a test is about comes to an end.
fn patient() -> Config {
    let mut config = quick();
    config.lease = Duration::from_secs(24 * 60 * 60);
    config.ack_timeout = Duration::from_secs(24 * 60 * 60);
    config.progress = Duration::MAX;
    config.flatline = Duration::MAX;
    config
}

async fn build(store: &Store, settings: &Settings) -> S2 {
    let builder = S2::builder().with_settings(settings.clone());
    let built = match store {
        Store::Memory(store) => builder.on_memory(store).await,
        Store::Redis(store) => builder.on_redis(store).await,
    };
    built.expect("a fleet")
}

impl Fleet {
    /// The same fleet as another process of it would see it.
    async fn again(&self) -> S2 {
        build(&self.store, &self.settings).await
    }

    fn advance(&self, by: Duration) {
        self.clock.as_ref().expect("a clock that stands still").advance(by);
    }

    async fn submit(&self, task: NewTask) -> TaskId {
        self.s2.scheduler().submit_one(&task).await.expect("submitted").id
    }

    async fn state(&self, task: TaskId) -> TaskState {
        self.s2.scheduler().task(task).await.expect("a task").state
    }

    async fn failures(&self, task: TaskId) -> u32 {
        self.s2.scheduler().task(task).await.expect("a task").failures
    }

    async fn outcome(&self, task: TaskId) -> Outcome {
        within(self.s2.scheduler().wait(task)).await.expect("an outcome")
    }

    /// The result of a task that is done.
    async fn done<T: serde::de::DeserializeOwned>(&self, task: TaskId) -> T {
        let outcome = self.outcome(task).await;
        outcome.result().unwrap_or_else(|| panic!("{outcome:?}")).json().expect("JSON")
    }

    async fn until_state(&self, task: TaskId, state: TaskState) {
        until(async || self.state(task).await == state).await;
    }

    async fn balance(&self, swarm: &str) -> Balance {
        self.s2.ledger().balance(&name(swarm)).await.expect("a balance")
    }
}

fn work() -> NewTask {
    NewTask::new(WORK, HOST)
}

fn name(name: &str) -> SwarmId {
    SwarmId::new(name).expect("a name")
}

const fn cents(cents: u64) -> NanoUsd {
    NanoUsd::from_cents(cents)
}

/// Waits until something is so.
async fn until(mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !so().await {
        assert!(Instant::now() < deadline, "it does not come to that");
        tokio::time::sleep(TICK).await;
    }
}

/// What comes of something that does not take for ever.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it takes too long")
}
