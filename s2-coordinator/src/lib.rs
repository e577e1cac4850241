//! The ground floor of S²: what sessions tell each other, who does what, what happened, and what waits for a person.
//!
//! S² (Swarm of Swarms) coordinates fleets of agent sessions that work in parallel. This crate holds its vocabulary,
//! the contracts of [`EventBus`], [`Scheduler`], [`Journal`] and [`Inbox`], and two stores: [`MemoryStore`] in one process, which
//! has them all, and, with the feature `redis`, `RedisStore` on a Redis server, over many.
//!
//! ```
//! use s2_coordinator::{EventBus, EventBusExt, EventType, GroupName, MemoryStore, NewEvent, Subscribe, SwarmId, Topic};
//!
//! const REVIEWS: Topic = Topic::from_static("reviews");
//! const REQUESTED: EventType = EventType::from_static("review.requested");
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = MemoryStore::new().bus();
//! let author = SwarmId::new("telephony/sip/session-4")?;
//! bus.publish_one(&NewEvent::new(REVIEWS, REQUESTED, author).with_json("src/invite.rs")?).await?;
//!
//! let reviewers = bus.subscribe(&Subscribe::new(REVIEWS, GroupName::from_static("reviewers"))).await?;
//! while let Some(delivery) = reviewers.next().await? {
//!     let file: String = delivery.event.json()?;
//!     assert_eq!(file, "src/invite.rs");
//!     delivery.ack().await?; // not acked, it would come back after 30 s
//! #   bus.close().await?;
//! }
//! # Ok(()) }
//! ```
//!
//! The modules are listed in reading order; each knows only those above it.
//!
//! | feature | what it adds |
//! |---|---|
//! | `redis` | `RedisStore`: the fleet on a Redis server, over many processes |
//! | `redis-tls` | the same over TLS (`rediss://`), with the system's certificates |
//! | `conformance` | the suites that every backend must pass |
//! | `test-util` | `ManualClock` |

// Words.
mod invalid;
mod text;
mod number;
mod name;
mod swarm;
mod time;
mod clock;
mod priority;
mod severity;
mod order;
mod capability;
mod random;
mod backoff;
mod trace;
mod event;
mod event_json;
mod entry;
mod escalation;
mod dead_letter;
mod dependency;
mod new_task;
mod task;
mod waits;
mod release;
mod lease;
mod outcome;
mod ending;
mod registry;
mod why;
mod error;
mod limits;
mod start;
mod config;
mod page;
// Contracts.
mod journal;
mod inbox;
mod settle;
mod delivery;
mod subscription;
mod tail;
mod group;
mod bus;
mod scheduler;
mod renewals;
mod held;
mod session;
// Backends.
mod memory;
#[cfg(feature = "redis")]
mod redis;
// Proof.
#[cfg(feature = "conformance")]
pub mod conformance;

pub use backoff::Backoff;
pub use bus::{EventBus, EventBusExt};
pub use capability::{Capabilities, Capability};
#[cfg(feature = "test-util")]
pub use clock::ManualClock;
pub use clock::{Clock, SystemClock};
pub use config::{Config, Retention};
pub use dead_letter::{Attempt, AttemptEnd, DeadLetter, DeadLetterId, DeadLetters, Redriven};
pub use delivery::Delivery;
pub use dependency::{Dependency, OnFailure, TaskId, TaskRef};
pub use ending::{Blocker, Ended, Ending, Retry};
pub use entry::{Entry, Params, Record, Value};
pub use error::Error;
pub use escalation::{Escalation, EscalationId, NewEscalation, Raised, Resolution};
pub use event::{CONTENT_TYPE_JSON, Event, EventId, Fingerprint, NewEvent, Position, Published};
pub use group::Group;
pub use held::{Blocked, CompletedAll, Held, NotEnded};
pub use inbox::Inbox;
pub use invalid::Invalid;
pub use journal::{Journal, export_json_lines};
pub use lease::{Claim, Grant, Incarnation, Lease, Loss, Preempted, Token};
pub use limits::Limits;
pub use memory::{MemoryBus, MemoryInbox, MemoryJournal, MemoryScheduler, MemoryStore, MemoryStoreBuilder, Part, Step};
pub use name::{
    ConsumerName, EventType, GroupName, HeaderName, IdempotencyKey, NAME_BYTES, Subject, Tag, TaskKind, Topic,
};
pub use new_task::{NewTask, When};
pub use order::OrderKey;
pub use outcome::{Cause, Completion, Outcome, Run, RunEnd, TaskResult};
pub use page::Page;
pub use priority::Priority;
pub use random::Random;
#[cfg(feature = "redis")]
pub use redis::{RedisBus, RedisInbox, RedisJournal, RedisScheduler, RedisStore, RedisStoreBuilder, Reply, Script};
pub use registry::{Profile, SessionInfo, SessionState, Stats, Tasks};
pub use release::{AbortLatest, LongestWaiter, Release, Way};
pub use scheduler::{EndedAll, Leases, Scheduler, TaskPage};
pub use session::{SchedulerExt, Session};
pub use settle::{Receipt, Recipient, Settle, Settled, Settlement};
pub use severity::Severity;
pub use start::Start;
pub use subscription::{Consumer, Subscribe, Subscription};
pub use swarm::SwarmId;
pub use tail::{Follow, Tail};
pub use task::{Accepted, Submitted, Task, TaskState, TaskStatus};
pub use text::Text;
pub use time::{Timestamp, UtcDay};
pub use trace::TraceToken;
pub use waits::{Needs, WaitGraph, Waiter};
pub use why::{Link, Why};
