//! The fleet in one process.
//!
//! Everything that a fleet has lives behind one lock, and every mutation is one [`Step`]: that is what makes batches
//! atomic, keeps the journal honest and lets nobody observe half a change. Steps are short and never wait; who has to
//! wait leaves a waker inside the same step in which it found nothing, so no wake-up is ever lost.
//!
//! It is also the model: other backends must give the same answers to the same history.

// State: pure and synchronous.
mod wait;
mod escalations;
mod packed;
mod journal_log;
mod effects;
mod log;
mod keys;
mod member;
mod slot;
mod slots;
mod group;
mod topic;
mod grave;
mod place;
mod topics;
mod tasks;
// What the bus does to it.
mod publish;
mod settle;
mod dead_letter;
// The step, and what waits for it.
mod store;
mod timer;
mod journal;
mod inbox;
mod handle;
mod subscription;
mod tail;
mod bus;
mod scheduler;

pub use bus::MemoryBus;
pub use inbox::MemoryInbox;
pub use journal::MemoryJournal;
pub use scheduler::MemoryScheduler;
pub use store::{MemoryStore, MemoryStoreBuilder, Part, Step};
