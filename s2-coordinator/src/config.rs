//! Every default in one place.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::limits::Limits;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How a fleet behaves. `docs/rules.md` says where each number comes from.
///
/// ```
/// use std::time::Duration;
/// use s2_coordinator::{Config, MemoryStore};
///
/// let mut config = Config::default();
/// config.ack_timeout = Duration::from_secs(120);
/// let store = MemoryStore::builder().with_config(config).build();
/// assert_eq!(store.config().deliveries, 5);
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
            limits: Limits::default(),
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
