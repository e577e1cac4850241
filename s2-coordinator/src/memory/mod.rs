//! The fleet in one process.
//!
//! Everything that a fleet has lives behind one lock, and every mutation is one [`Step`]: that is what makes batches
//! atomic, keeps the journal honest and lets nobody observe half a change. Steps are short and never wait; who has to
//! wait leaves a waker inside the same step in which it found nothing, so no wake-up is ever lost.
//!
//! It is also the model: other backends must give the same answers to the same history.

mod wait;
mod effects;
mod log;
mod keys;
mod member;
mod slot;
mod slots;
mod group;
mod topic;
mod dead_letter;
mod place;
mod topics;
mod publish;
mod settle;
mod inbox;
mod store;
mod timer;
mod journal;
mod subscription;
mod tail;
mod bus;

pub use bus::MemoryBus;
pub use inbox::MemoryInbox;
pub use journal::MemoryJournal;
pub use store::{MemoryStore, MemoryStoreBuilder, Step};
