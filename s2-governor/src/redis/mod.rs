//! What this crate keeps of a fleet on Redis.

mod board;

pub use board::RedisBoard;
