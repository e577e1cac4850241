//! The fleet on a Redis server, over many processes.
//!
//! Everything that a fleet has lies under keys with one hash tag, and every mutation is one Lua script: that is the same
//! step as in memory, written a second time. A process needs two connections: steps run over one, and what the process waits
//! for is pushed over the other. So a thousand idle consumers cost nothing but a sign of life now and then.
//!
//! A consumer that waits is queued in Redis. Whoever publishes hands the event out in the same step, so that it arrives
//! without another round trip; a push that is lost is fetched again under the ticket of the wait.

// Talking to the server.
mod failure;
mod reply;
mod script;
mod scripts;
mod post;
mod link;
mod passes;
mod together;
mod waiting;
// What events and letters look like there.
mod codec;
// The fleet.
mod store;
mod clock;
mod read;
mod publish;
mod keeper;
mod builder;
mod journal;
mod inbox;
mod settle;
mod subscription;
mod tail;
mod bus;
// Tasks.
mod task;
mod look;
mod deadlock;
mod refusal;
mod ending;
mod claim;
mod scheduler;

pub use builder::RedisStoreBuilder;
pub use bus::RedisBus;
pub use inbox::RedisInbox;
pub use journal::RedisJournal;
pub use reply::Reply;
pub use scheduler::RedisScheduler;
pub use script::Script;
pub use store::RedisStore;
