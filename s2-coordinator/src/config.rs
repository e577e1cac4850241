//! Every default in one place.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::error::Error;
use crate::invalid::Invalid;
use crate::limits::{Limits, check};
use crate::order::OrderKey;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HALF_AN_HOUR: Duration = Duration::from_secs(30 * 60);

/// How a fleet behaves. `docs/rules.md` says where each number comes from.
///
/// ```
/// use std::time::Duration;
/// use s2_coordinator::{Config, MemoryStore};
///
/// let mut config = Config::default();
/// config.ack_timeout = Duration::from_secs(120);
/// let store = MemoryStore::builder().with_config(config).build()?;
/// assert_eq!(store.config().deliveries, 5);
/// # Ok::<(), s2_coordinator::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// How long a consumer may take to settle a delivery before the event comes back: 30 s. A subscription may ask for
    /// another.
    pub ack_timeout: Duration,
    /// How often an event is handled before it is a dead letter: 5. A subscription may ask for another.
    pub deliveries: u32,
    /// How long to wait before a retry whose delay the consumer left open: 1 s doubling to 5 min, with jitter.
    pub backoff: Backoff,
    /// For how long an idempotency key is remembered, and the answer to a call that may be repeated: 24 h.
    pub idempotency_window: Duration,
    /// After how long a group without consumers stops holding events back from trimming: 7 days.
    pub group_expiry: Duration,
    /// What is kept of settled events, per topic: 64 MiB, 7 days.
    pub topics: Retention,
    /// What is kept of the journal: 64 MiB, of any age.
    pub journal: Retention,
    /// How long a session has a task it claimed unless it renews the claim: 30 s. A task may ask for another.
    pub lease: Duration,
    /// How often a task is tried before it fails: 3. A task may ask for another.
    pub attempts: u32,
    /// How much later a task may become ready and still overtake one of the next lower priority: 10 min.
    /// [`OrderKey::STRICT`] makes priorities strict.
    pub priority_step: Duration,
    /// Whether, of tasks of one batch that have the same key otherwise, the one comes first on which the longest chain of
    /// others depends: no.
    pub critical_path: bool,
    /// An idle session takes over tasks from one that has more than so many in its own queue: 5.
    pub steal_above: usize,
    /// For how long only its session may resume a task once the help is there: 60 s.
    pub resume_window: Duration,
    /// How long a session may have a task without reporting progress, however alive it is: 30 min. [`Duration::MAX`] is no
    /// limit.
    pub progress: Duration,
    /// After how long a blocked task goes on without what it waits for: 30 min. [`Duration::MAX`] is never.
    pub longest_wait: Duration,
    /// After how long without any progress a fleet that has something to do is reported to a person: 30 min.
    /// [`Duration::MAX`] is never.
    pub flatline: Duration,
    /// What is kept of finished tasks: 1 GiB, 7 days.
    pub finished: Retention,
    /// The bounds.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_secs(30),
            deliveries: 5,
            backoff: Backoff::default(),
            idempotency_window: DAY,
            group_expiry: 7 * DAY,
            topics: Retention { bytes: 64 * 1024 * 1024, age: Some(7 * DAY) },
            journal: Retention { bytes: 64 * 1024 * 1024, age: None },
            lease: Duration::from_secs(30),
            attempts: 3,
            priority_step: Duration::from_secs(10 * 60),
            critical_path: false,
            steal_above: 5,
            resume_window: Duration::from_secs(60),
            progress: HALF_AN_HOUR,
            longest_wait: HALF_AN_HOUR,
            flatline: HALF_AN_HOUR,
            finished: Retention { bytes: 1024 * 1024 * 1024, age: Some(7 * DAY) },
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Checks everything that can be wrong; stores call it before anything else.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] that names the setting, or [`Error::LimitExceeded`].
    pub fn check(&self) -> Result<(), Error> {
        let limits = &self.limits;
        limits.check_ack_timeout(self.ack_timeout)?;
        check("deliveries", || "the setting deliveries".into(), self.deliveries as usize, limits.deliveries as usize)?;
        limits.check_lease(self.lease)?;
        check("attempts", || "the setting attempts".into(), self.attempts as usize, limits.attempts as usize)?;
        if self.priority_step != OrderKey::STRICT && self.priority_step > OrderKey::LONGEST_STEP {
            let reason = "expected at most a year, or OrderKey::STRICT";
            return Err(Invalid::new("priority step", &format!("{:?}", self.priority_step), reason).into());
        }
        for (setting, time) in
            [("progress", self.progress), ("longest_wait", self.longest_wait), ("flatline", self.flatline)]
        {
            if time.is_zero() {
                return Err(Invalid::new("setting", setting, "must not be zero").into());
            }
        }
        let needed = [
            ("attempts", self.attempts as usize),
            ("limits.tasks", limits.tasks),
            ("limits.classes", limits.classes),
            ("limits.sessions", limits.sessions),
            ("deliveries", self.deliveries as usize),
            ("limits.batch", limits.batch),
            ("limits.prefetch", limits.prefetch),
            ("limits.topics", limits.topics),
            ("limits.groups", limits.groups),
            ("limits.escalations", limits.escalations),
        ];
        match needed.iter().find(|(_, value)| *value == 0) {
            Some((setting, _)) => Err(Invalid::new("setting", setting, "must not be zero").into()),
            None => Ok(()),
        }
    }
}

/// How much history is kept for replay. What a group has not settled is kept in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// At most about so many bytes.
    pub bytes: u64,
    /// At most so long.
    pub age: Option<Duration>,
}
