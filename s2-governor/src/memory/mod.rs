//! What this crate keeps of a fleet in memory.

mod board;

pub use board::MemoryBoard;
