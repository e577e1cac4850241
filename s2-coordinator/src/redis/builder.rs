//! Connecting to a fleet on Redis.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::{Config, Retention};
use crate::error::Error;
use crate::invalid::Invalid;
use crate::random::Random;
use crate::redis::keeper;
use crate::redis::link::{Link, Patience};
use crate::redis::post::Post;
use crate::redis::reply::Reply;
use crate::redis::script::settings;
use crate::redis::scripts::BEAT;
use crate::redis::store::{Beginnings, RedisStore, Shared};
use crate::release::{LongestWaiter, Release};
use crate::swarm::SwarmId;
use crate::time::Timestamp;

/// A process that has said nothing for so long counts as gone, unless the ack timeout is longer.
const GONE_AFTER: Duration = Duration::from_secs(6);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl RedisStore {
    /// The fleet of this name on the server at `url` (`redis://` or, with feature `redis-tls`, `rediss://`).
    ///
    /// # Errors
    ///
    /// As [`RedisStoreBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn connect(url: &str, fleet: SwarmId) -> Result<Self, Error> {
        Self::builder(fleet).connect(url).await
    }

    /// A fleet with settings of its own.
    pub fn builder(fleet: SwarmId) -> RedisStoreBuilder {
        let journal = Retention { bytes: 1024 * 1024 * 1024, age: Some(7 * DAY) };
        let config = Config { journal, ..Config::default() };
        RedisStoreBuilder {
            fleet,
            config,
            clock: None,
            seed: None,
            release: Arc::new(LongestWaiter),
            patience: Patience::default(),
        }
    }

    /// Rises when a script of any process wakes `name`, and when one may have done so unheard.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`].
    pub fn listen(&self, name: &str) -> Result<watch::Receiver<u64>, Error> {
        keeper::ensure(&self.shared)?;
        Ok(self.shared.post.wake(name))
    }
}

/// Settings of a [`RedisStore`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct RedisStoreBuilder {
    fleet: SwarmId,
    config: Config,
    clock: Option<Arc<dyn Clock>>,
    seed: Option<u64>,
    release: Arc<dyn Release>,
    patience: Patience,
}

impl RedisStoreBuilder {
    /// Sets how the fleet behaves, as far as this process is concerned. Unless set, it is [`Config::default`] with a journal
    /// of 1 GiB and 7 days.
    pub fn with_config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets another clock than the server's. For tests: all processes of a fleet must have the same.
    pub fn with_clock(mut self, clock: Arc<impl Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Makes ids and jitter repeatable. For tests.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets who gives way when tasks wait for each other: [`LongestWaiter`] unless set. All processes of a fleet should have the
    /// same.
    pub fn with_release(mut self, release: impl Release) -> Self {
        self.release = Arc::new(release);
        self
    }

    /// Sets for how long a call is tried again while the server is away: 30 s unless set.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience.trying = patience;
        self
    }

    /// Sets how long the server may take to answer before the connection is given up: 5 s unless set. It must be longer than
    /// any pause of the server, else the pause becomes an outage.
    pub fn with_response_timeout(mut self, timeout: Duration) -> Self {
        self.patience.answering = timeout;
        self
    }

    /// Sets how long a connection may take to be made: 2 s unless set.
    pub fn with_connection_timeout(mut self, timeout: Duration) -> Self {
        self.patience.connecting = timeout;
        self
    }

    /// Connects to the server and checks that it can be trusted with the fleet.
    ///
    /// # Errors
    ///
    /// As [`Config::check`]; [`Error::Invalid`] for a fleet whose name is no hash tag; [`Error::LayoutMismatch`];
    /// [`Error::NoRuntime`]; [`Error::Backend`], which says whether the URL is wrong, the server cannot be reached, is too
    /// old, or may evict what it holds.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn connect(self, url: &str) -> Result<RedisStore, Error> {
        self.config.check()?;
        let fleet = self.fleet.as_str().to_owned();
        if fleet.contains(['{', '}']) {
            return Err(Invalid::new("fleet", &fleet, "braces mark the hash tag of its keys").into());
        }
        let gone_after = GONE_AFTER.max(self.config.ack_timeout);
        let settings = settings(&self.config, gone_after);
        let prefix = format!("s2:{{{fleet}}}:");
        // Two processes with one name would take each other's answers, so a seed does not decide it.
        let process = format!("{:032x}", Random::from_system().bits());
        let channels = [format!("{prefix}p:{process}"), format!("{prefix}wake")];
        let post = Arc::new(Post::default());
        let link = Link::new(url, channels, self.patience, Arc::clone(&post))?;
        let random = self.seed.map_or_else(Random::from_system, Random::from_seed);
        let start = Beginnings {
            config: self.config,
            clock: self.clock,
            random,
            release: self.release,
            prefix,
            process,
            settings,
            gone_after,
        };
        let store = RedisStore { shared: Arc::new(Shared::new(fleet, start, link, post)) };
        keeper::ensure(&store.shared)?;
        store.shared.link.connect().await?;
        let asked = Instant::now();
        let mut call = store.call_again(BEAT);
        call.number(0);
        let answer = call.answer().await?;
        if let Some(time) = answer.get(4).and_then(Reply::as_u64) {
            *store.shared.read.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((asked, Timestamp::from_micros(time)));
        }
        Ok(store)
    }
}
